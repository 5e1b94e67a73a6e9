"""A policy bundle as Open Policy Agent lays it out: Rego modules, data, a manifest with revision and roots.

In: the files of a bundle by path, or its tarball; who may have signed it. Out: `Bundle`, or `BundleRefused` with the
reason. Nothing is compiled here: the engine that decides does that, and refuses for its own reasons. Data in
`a/b/data.json` is `data.a.b`. Bundles in YAML, for Wasm alone, as a delta, or in Rego v0 are refused, not half read.
Cases: `tests/flow/policy/bundles/test_bundle.py`. Source: Open Policy Agent, Bundles, "Bundle File Format".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.flow.policy.bundles.signatures import MANIFEST, SIGNATURES, NotSigned, Trust, check
from narthex.flow.policy.bundles.tarball import MOST_BYTES, NoTarball, unpack

_SPACE = re.compile(r"(?:\s++|#[^\n]*+)*+")
_PACKAGE = re.compile(r'package\s+([a-zA-Z_]\w*(?:\.[a-zA-Z_]\w*|\["[^"\\\n]+"\])*)', re.ASCII)
_PART = re.compile(r'\.?([a-zA-Z_]\w*)|\["([^"\\\n]+)"\]', re.ASCII)
_UNUSED = ("policy.wasm", "plan.json", "plan.pb")
"""What other engines run; the Rego beside it says the same."""


class BundleRefused(Exception):
    """Why a bundle is not taken. Its text is for the operator."""


class Bundle(msgspec.Struct, frozen=True):
    """What an engine compiles. Equal `digest`: the same files."""

    revision: str
    """The manifest's; without one `sha256:` and the beginning of the digest."""
    modules: dict[str, str]
    """Rego text by path."""
    data: dict[str, Any]
    roots: tuple[str, ...]
    digest: str
    signed_by: str = ""
    """The id of the key; empty where no signature was asked for."""


class _Manifest(msgspec.Struct):
    revision: str = ""
    roots: list[str] | None = None
    rego_version: int = 1
    file_rego_versions: dict[str, int] = {}


def read_tarball(data: bytes, trust: Trust | None, *, now: float, most_bytes: int = MOST_BYTES) -> Bundle:
    """A bundle from its `.tar.gz`. Raises BundleRefused."""
    try:
        files = unpack(data, most_bytes=most_bytes)
    except NoTarball as error:
        raise BundleRefused(str(error)) from None
    return read_bundle(files, trust, now=now)


def read_bundle(files: Mapping[str, bytes], trust: Trust | None, *, now: float) -> Bundle:
    """A bundle from its files.

    Args:
        files: By path from its root, with `/` between and none in front.
        trust: Who must have signed it; None: nobody need have, and then one that is signed is refused, as OPA does.
        now: Unix seconds.
    Raises:
        BundleRefused: Not signed by whom it must be, not within its roots, not readable, or empty.
    """
    signed_by = ""
    if trust is not None:
        try:
            signed_by = check(files, trust, now)
        except NotSigned as error:
            raise BundleRefused(str(error)) from None
    elif SIGNATURES in files:
        raise BundleRefused("it is signed, and no key is configured to check that with")
    manifest = _manifest(files)
    modules: dict[str, str] = {}
    data: dict[str, Any] = {}
    for path in sorted(files):
        name = path.rpartition("/")[2]
        if name.endswith(".rego"):
            modules[path] = _text(path, files[path])
        elif name == "data.json":
            _insert(data, path, _json(path, files[path]))
        elif name in ("data.yaml", "data.yml"):
            raise BundleRefused(f"{path}: data in YAML is not read; make it data.json (`opa build` does)")
        elif name == "patch.json":
            raise BundleRefused("a delta bundle; only whole ones are taken")
        elif name.endswith(MANIFEST) and path != MANIFEST or name == ".manifest.pb":
            raise BundleRefused(f"{path}: a manifest that is not the one at the root")
    if not modules:
        wasm = any(path.rpartition("/")[2] in _UNUSED for path in files)
        raise BundleRefused("no Rego in it" + (": it was built for another engine" if wasm else ""))
    roots = _roots(manifest)
    _check_roots(roots, modules, data)
    digest = _digest(files)
    return Bundle(manifest.revision or f"sha256:{digest[:12]}", modules, data, roots, digest, signed_by)


def _manifest(files: Mapping[str, bytes]) -> _Manifest:
    try:
        found = msgspec.json.decode(files.get(MANIFEST, b"{}"), type=_Manifest)
    except BAD_JSON:
        raise BundleRefused("its .manifest cannot be read") from None
    if found.rego_version != 1 or any(version != 1 for version in found.file_rego_versions.values()):
        raise BundleRefused("it is written in Rego v0; `opa fmt --v0-v1` turns it into what is read")
    if len(found.revision) > 256 or not found.revision.isprintable():
        raise BundleRefused("its revision is too long, or no text")
    return found


def _text(path: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BundleRefused(f"{path} is not UTF-8") from None


def _no_number(text: str) -> Any:
    raise ValueError(text)


def _json(path: str, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BundleRefused(f"{path} is not JSON") from None
    if not isinstance(value, dict):
        raise BundleRefused(f"{path} is not an object")
    return value


def _insert(data: dict[str, Any], path: str, value: dict[str, Any]) -> None:
    """Put a document where its folder says. Raises BundleRefused where something else stands."""
    for part in path.split("/")[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise BundleRefused(f"{path}: other data stands where it belongs")
    if clash := sorted(data.keys() & value.keys()):
        raise BundleRefused(f"{path}: other data stands where {clash[0]!r} belongs")
    data.update(value)


def _roots(manifest: _Manifest) -> tuple[str, ...]:
    roots = [root.strip("/") for root in manifest.roots] if manifest.roots is not None else [""]
    for place, root in enumerate(roots):
        for other in roots[place + 1 :]:
            if _within(root, other) or _within(other, root):
                raise BundleRefused(f"its roots overlap: {root!r} and {other!r}")
    return tuple(roots)


def _within(root: str, path: str) -> bool:
    return not root or path == root or path.startswith(root + "/")


def _check_roots(roots: tuple[str, ...], modules: Mapping[str, str], data: dict[str, Any]) -> None:
    for path, text in modules.items():
        package = package_of(text)
        if package is None:
            raise BundleRefused(f"{path}: it does not begin with a package that can be read")
        if not any(_within(root, package) for root in roots):
            raise BundleRefused(f"{path}: package {package.replace('/', '.')} is outside the roots of the bundle")
    if "" not in roots and (outside := next(_outside(data, "", roots), None)) is not None:
        raise BundleRefused(f"data at {outside!r} is outside the roots of the bundle")


def _outside(value: Any, path: str, roots: tuple[str, ...]) -> Iterator[str]:
    """The places of data that no root covers."""
    if any(_within(root, path) for root in roots if path):
        return
    if not isinstance(value, dict) or not any(_within(path, root) for root in roots):
        yield path
        return
    for key, inner in value.items():
        yield from _outside(inner, f"{path}/{key}" if path else key, roots)


def package_of(text: str) -> str | None:
    """The package of a module as a path (`a/b`), None where it does not begin with one."""
    before = _SPACE.match(text)
    match = _PACKAGE.match(text, before.end() if before is not None else 0)
    if match is None:
        return None
    return "/".join(name or quoted for name, quoted in _PART.findall(match[1]))


def _digest(files: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for path in sorted(files):
        whole.update(f"{len(path.encode())} {path} {len(files[path])} ".encode())
        whole.update(files[path])
    return whole.hexdigest()
