"""`policy.rego` to what the gateway works with: the bundle is read and compiled here, so that a bad one is refused.

In: its settings. Out: a `RegoSpec`; or faults, each at its line of the configuration or of the Rego that it is in.
Cases: `tests/config/test_policy.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from narthex.authority.addresses import Allowed
from narthex.authority.bundle_keys import read_key, read_trust
from narthex.config.document import Mark, Problem, Reading, suggest
from narthex.config.document import Path as KeyPath
from narthex.config.peer import compile_peer
from narthex.config.schema.rego import RegoSettings, SigningSettings
from narthex.config.urls import check_https
from narthex.flow.policy.bundles.signatures import SHARED
from narthex.types import RegoSpec, SigningKey, SigningSpec

HERE = ("policy", "rego")


def compile_rego(
    rego: RegoSettings, allowed: Allowed, reading: Reading, resolve: Callable[[str], Path], state_dir: Path
) -> RegoSpec | None:
    """Args: allowed: Whom `egress` lets be asked without TLS. resolve: a path of the file to an absolute one."""
    if rego.bundle is None:
        reading.fault(HERE, "policy.rego: 'bundle' is missing: where are the rules?")
        return None
    spec = RegoSpec(
        rego.bundle,
        rego.entrypoint,
        rego.engine,
        rego.deadline,
        signing=_signing(rego.signing, reading, resolve),
        token=rego.token.text if rego.token is not None else None,
        every_s=rego.every,
        long_poll_s=rego.long_poll,
        kept_in=str(state_dir / "bundles"),
    )
    if spec.is_fetched:
        check_https((*HERE, "bundle"), spec.bundle, allowed, reading)
        return replace(spec, tls=compile_peer(rego.tls, HERE, spec.bundle, reading, resolve))
    for key in ("token", "tls", "every", "long_poll"):
        if (*HERE, key) in reading.marks:
            reading.fault((*HERE, key), f"{key}: goes with a bundle that is fetched")
    path = resolve(rego.bundle)
    spec = replace(spec, bundle=str(path), kept_in="")
    _check(spec, path, reading)
    return spec


def _signing(settings: SigningSettings | None, reading: Reading, resolve: Callable[[str], Path]) -> SigningSpec | None:
    if settings is None:
        return None
    here: KeyPath = (*HERE, "signing")
    if not settings.keys:
        reading.fault(here, "signing: 'keys' is missing: who may sign?")
    if settings.key_id is not None and settings.key_id not in settings.keys:
        reading.fault((*here, "key_id"), f"key_id: no key '{settings.key_id}'{suggest(settings.key_id, settings.keys)}")
    found: dict[str, SigningKey] = {}
    for name, one in settings.keys.items():
        at: KeyPath = (*here, "keys", name)
        shared = one.algorithm in SHARED
        if (one.key is None) == (one.file is None) or shared != (one.key is not None):
            wanted = "`key`, a shared secret" if shared else "`file`, the PEM of a public key"
            reading.fault(at, f"{name}: {one.algorithm} wants {wanted}")
            continue
        key = SigningKey(
            one.algorithm,
            one.key.text if one.key is not None else None,
            str(resolve(one.file)) if one.file is not None else "",
        )
        if key.file:
            try:
                read_key(key, str)
            except ValueError as error:
                reading.fault((*at, "file"), f"file: {error}")
        found[name] = key
    return SigningSpec(found, settings.key_id or "", settings.scope or "")


def _check(spec: RegoSpec, path: Path, reading: Reading) -> None:
    """Could the gateway decide by it? One that is signed with a secret is looked at when that is there."""
    if reading.problems or (spec.signing is not None and any(key.text for key in spec.signing.keys.values())):
        return
    from narthex.authority.bundles import read_path  # what reads bundles: only where there is one
    from narthex.engines.frames import Flawed, Source
    from narthex.engines.helper import probe
    from narthex.flow.policy.bundles.bundle import BundleRefused

    try:
        trust = read_trust(spec.signing, str) if spec.signing is not None else None
        bundle = read_path(path, trust, now=time.time())
        probe(Source(bundle.modules, bundle.data, spec.entrypoint))
    except OSError as error:
        reading.fault((*HERE, "bundle"), f"bundle: {error.filename or path}: {error.strerror or error}")
    except BundleRefused as refused:
        reading.fault((*HERE, "bundle"), f"bundle: {path}: {refused}")
    except Flawed as flawed:
        for flaw in flawed.flaws:
            if flaw.line:
                file = str(path / flaw.file) if path.is_dir() else f"{path}/{flaw.file}"
                reading.problems.append(Problem(file, Mark(flaw.line, flaw.column), flaw.text))
            else:
                reading.fault((*HERE, "entrypoint"), f"{flaw.file}: {flaw.text}")
