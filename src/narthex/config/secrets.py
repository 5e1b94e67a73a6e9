"""Where each secret that is referred to comes from. No store is opened, nobody is asked: files and variables only.

In: settings, the references that were read. Out: sources, names, the Vault; what is unknown or missing is named.
Cases: `tests/config/test_secrets.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from narthex.config import values
from narthex.config.document import Reading, likely
from narthex.config.schema.root import Settings
from narthex.config.schema.secrets import VaultSettings
from narthex.types import SecretSource, VaultSpec


class Secrets(msgspec.Struct, frozen=True):
    """What a snapshot says of secrets."""

    sources: dict[str, SecretSource]
    names: tuple[str, ...]
    vault: VaultSpec | None


def compile_secrets(
    settings: Settings, reading: Reading, env: Mapping[str, str], resolve: Callable[[str], Path]
) -> Secrets:
    """Check what can be checked here; a missing variable or file is a warning, for it may be there when it is needed.

    Args:
        resolve: A path of the configuration, absolute.
    """
    sources = {name: _absolute(source, resolve) for name, source in settings.secrets.items()}
    for name, source in sources.items():
        at = ("secrets", name)
        if source.kind == "env" and source.where not in env:
            reading.warn(at, f"secret '{name}': the environment variable {source.where} is not set")
        if source.kind == "file" and not Path(source.where).is_file():
            reading.warn(at, f"secret '{name}': no file {source.where!r}")
        if name not in reading.references:
            reading.notice(at, f"secret '{name}' is used nowhere")
    for name, mark in reading.references.items():
        if name in sources:
            continue
        kept = f"secret '{name}' is not among `secrets`, so it must be in the store: narthex secrets set {name}"
        alike = likely(name, sources)
        if alike is None:  # most secrets are in the store, so this is how it should be
            reading.notice(mark, kept)
        else:
            reading.warn(mark, f"{kept}; or did you mean '{alike}'?")
    asked = any(source.kind == "vault" for source in sources.values())
    vault = None
    if settings.vault is not None or asked:
        vault = _vault(settings.vault or VaultSettings(), settings, reading, env, resolve)
    return Secrets(sources, tuple(sorted(reading.references)), vault)


def _vault(
    given: VaultSettings, settings: Settings, reading: Reading, env: Mapping[str, str], resolve: Callable[[str], Path]
) -> VaultSpec | None:
    at = ("vault",) if settings.vault is not None else ("secrets",)
    address = given.address
    if address is None:
        try:
            address = values.parse_base_url(env.get("VAULT_ADDR", ""))
        except ValueError:
            reading.fault(at, "secrets come from a Vault: say where it is, by vault.address or the variable VAULT_ADDR")
            return None
    if given.token is not None and given.token.kind == "vault":
        reading.fault((*at, "token"), "token: the token for a Vault comes from env:VAR or file:PATH")
        return None
    spec = VaultSpec(
        address=address,
        namespace=given.namespace or env.get("VAULT_NAMESPACE", ""),
        token=_absolute(given.token or SecretSource("env", "VAULT_TOKEN"), resolve),
        refresh_s=given.refresh,
    )
    kubernetes = given.kubernetes
    if kubernetes is None:
        return spec
    if given.token is not None:
        reading.fault((*at, "token"), "vault: either `token` or `kubernetes`, not both")
    if kubernetes.role is None:
        reading.fault((*at, "kubernetes"), "vault.kubernetes: 'role' is missing")
        return None
    jwt_file = str(resolve(kubernetes.jwt))
    return replace(spec, token=None, role=kubernetes.role, auth_mount=kubernetes.mount, jwt_file=jwt_file)


def _absolute(source: SecretSource, resolve: Callable[[str], Path]) -> SecretSource:
    return replace(source, where=str(resolve(source.where))) if source.kind == "file" else source
