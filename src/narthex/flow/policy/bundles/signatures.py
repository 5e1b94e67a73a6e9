"""Is a policy bundle the one that its author signed? `.signatures.json`, as Open Policy Agent makes and checks it.

In: the files of a bundle, the keys that the operator trusts, the time. Out: nothing, or `NotSigned` with the reason.
The signature is a JWT that names every file with its digest; a file beside those, a file less, or another byte refuses
the bundle. JSON is digested in a form that white space and the order of keys do not change. Which key and algorithm
count is the operator's word: of what the JWT says of itself only the name of its key is used, to choose among theirs.
Cases: `tests/flow/policy/bundles/test_signatures.py`; what `opa sign` makes: `tests/counterparts/test_opa_bundles.py`.
Source: Open Policy Agent, Bundles, "Signing"; RFC 7515.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec
from joserfc import jwk
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.flow.identity.tokens import FAMILY, LEEWAY_S

SIGNATURES = ".signatures.json"
MANIFEST = ".manifest"
SHARED = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
"""Algorithms whose key both sides hold."""
ALGORITHMS = (*SHARED, *(name for name, (kty, _) in FAMILY.items() if kty in ("RSA", "EC")))
DIGESTS: dict[str, Callable[[], Any]] = {
    "SHA-256": hashlib.sha256,
    "SHA-384": hashlib.sha384,
    "SHA-512": hashlib.sha512,
    "SHA-512-256": partial(hashlib.new, "sha512_256"),
}
"""Those that OPA knows and nobody can forge: MD5, SHA-1 and the 224-bit ones are left out."""


class NotSigned(Exception):
    """Why a bundle does not count as signed. Its text is for the operator."""


class BundleKey(msgspec.Struct, frozen=True):
    """A key that may sign bundles: PEM of the public key, or the shared secret of an HS algorithm."""

    algorithm: str
    material: Any

    @staticmethod
    def read(algorithm: str, text: str) -> BundleKey:
        """Raises ValueError: not an algorithm of ours, or not a key for it."""
        if algorithm in SHARED:
            if len(text.encode()) < 32:
                raise ValueError("a shared secret needs 32 bytes at least")
            return BundleKey(algorithm, text.encode())
        if algorithm not in ALGORITHMS:
            raise ValueError(f"no algorithm {algorithm!r}; there are {', '.join(ALGORITHMS)}")
        kty, crv = FAMILY[algorithm]
        try:
            key = jwk.RSAKey.import_key(text) if kty == "RSA" else jwk.ECKey.import_key(text)
            said = key.as_dict(private=False)
        except (JoseError, ValueError, TypeError):
            raise ValueError(f"not a PEM key for {algorithm}") from None
        if crv and said.get("crv") != crv:
            raise ValueError(f"{algorithm} needs a key on {crv}")
        return BundleKey(algorithm, key)

    def signed(self, signing_input: bytes, signature: bytes) -> bool:
        """Did a holder of the key sign this?"""
        if (shared := SHARED.get(self.algorithm)) is not None:
            return hmac.compare_digest(hmac.digest(self.material, signing_input, shared), signature)
        try:
            return bool(JWSRegistry.algorithms[self.algorithm].verify(signing_input, signature, self.material))
        except (JoseError, ValueError):
            return False


class Trust(msgspec.Struct, frozen=True):
    """Who may sign. `key_id`: only that key; `scope`: what the signature must say it is for."""

    keys: Mapping[str, BundleKey]
    key_id: str = ""
    scope: str = ""


class _File(msgspec.Struct):
    name: str
    hash: str
    algorithm: str


class _Payload(msgspec.Struct):
    files: list[_File]
    scope: str = ""
    keyid: str = ""
    exp: float | None = None
    nbf: float | None = None


class _Signatures(msgspec.Struct):
    signatures: list[str]
    plugin: str = ""


class _Header(msgspec.Struct):
    alg: str
    kid: str = ""
    crit: Any = None


def check(files: Mapping[str, bytes], trust: Trust, now: float) -> str:
    """Is every file of the bundle as it was signed?

    Args:
        files: All of the bundle, `.signatures.json` among them.
        now: Unix seconds.
    Returns:
        The id of the key.
    Raises:
        NotSigned: It is not, or by nobody who is trusted, or for another purpose, or no more.
    """
    if SIGNATURES not in files:
        raise NotSigned("it is not signed (no .signatures.json)")
    payload, key_id = _payload(files[SIGNATURES], trust)
    if payload.scope != trust.scope:
        raise NotSigned("it is signed for another purpose (scope)")
    if payload.exp is not None and now >= payload.exp + LEEWAY_S:
        raise NotSigned("its signature has expired")
    if payload.nbf is not None and now < payload.nbf - LEEWAY_S:
        raise NotSigned("its signature is not valid yet")
    expected = {file.name.removeprefix("/"): file for file in payload.files}
    if missing := sorted(expected.keys() - files.keys()):
        raise NotSigned(f"signed, and not there: {', '.join(missing[:5])}")
    for name, data in files.items():
        if name == SIGNATURES:
            continue
        if (file := expected.get(name)) is None:
            raise NotSigned(f"{name} is not among what was signed")
        _check_file(file, name, data)
    return key_id


def _payload(document: bytes, trust: Trust) -> tuple[_Payload, str]:
    """What the one signature says, once it is proved."""
    try:
        signatures = msgspec.json.decode(document, type=_Signatures)
        if signatures.plugin not in ("", "_default") or len(signatures.signatures) != 1:
            raise NotSigned("not exactly one signature of the usual kind")
        head, body, signature = signatures.signatures[0].encode("ascii").split(b".")
        header = msgspec.json.decode(_decode(head), type=_Header)
        payload = msgspec.json.decode(_decode(body), type=_Payload)
        proof = _decode(signature)
    except (*BAD_JSON, ValueError):
        raise NotSigned("its signature cannot be read") from None
    key_id = trust.key_id or header.kid or payload.keyid
    key = trust.keys.get(key_id)
    if key is None:
        raise NotSigned(f"signed with key {key_id[:64]!r}, which is not configured")
    if header.alg != key.algorithm or header.crit is not None or not key.signed(head + b"." + body, proof):
        raise NotSigned(f"its signature is not one of key {key_id!r}")
    return payload, key_id


def _decode(segment: bytes) -> bytes:
    return urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))


def _check_file(file: _File, name: str, data: bytes) -> None:
    made = DIGESTS.get(file.algorithm)
    if made is None:
        raise NotSigned(f"{name}: no digest that counts: {file.algorithm[:32]!r}")
    digest = made()
    if name.rpartition("/")[2] in ("data.json", MANIFEST):
        try:
            digest.update("".join(canonical(read_numbers(data))).encode())
        except (ValueError, RecursionError):
            raise NotSigned(f"{name} is not JSON") from None
    else:
        digest.update(data)
    if digest.hexdigest() != file.hash.lower():
        raise NotSigned(f"{name} has changed since it was signed")


class Number(str):
    """A number of a document, as it is written there."""

    __slots__ = ()


def _no_number(text: str) -> Any:
    raise ValueError(text)


def read_numbers(data: bytes) -> Any:
    """A JSON document whose numbers stay as they are written. Raises ValueError, RecursionError."""
    return json.loads(data.decode(), parse_int=Number, parse_float=Number, parse_constant=_no_number)


def canonical(value: Any) -> Iterator[str]:
    """JSON without white space, keys in the order of their bytes: what OPA digests."""
    if isinstance(value, dict):
        yield "{"
        for place, key in enumerate(sorted(value, key=lambda text: text.encode("utf-8", "replace"))):
            yield f"{',' if place else ''}{_string(key)}:"
            yield from canonical(value[key])
        yield "}"
    elif isinstance(value, list):
        yield "["
        for place, item in enumerate(value):
            if place:
                yield ","
            yield from canonical(item)
        yield "]"
    elif isinstance(value, Number):
        yield str(value)
    else:
        yield _string(value) if isinstance(value, str) else json.dumps(value)


def _string(text: str) -> str:
    """As Go's encoder writes it: the two line separators escaped, half a surrogate pair as U+FFFD."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return json.dumps(text, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
