"""The keys of an issuer, as its JWKS document says them, and one signature checked with one of them.

In: the bytes of a document, which may be hostile; the parts of a token. Out: keys that fit what we accept.
A key is chosen by its `kid` among those of the token's issuer alone: nothing that a token carries (`jku`, `x5u`, `jwk`,
`x5c`) is a key, or the way to one. Cases: `tests/flow/identity/test_keys.py`. Source: RFC 7517, RFC 7518, RFC 8725.
"""

from __future__ import annotations

from collections.abc import Container, Generator
from typing import Any

import msgspec
from joserfc import jwk
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.flow.identity.tokens import FAMILY

MAX_DOCUMENT = 256 * 1024
MOST_KEYS = 100
LEAST_RSA = 2048
MOST_RSA = 8192
"""Bits, as the length of the modulus's text tells them. A larger key would make each signature a burden."""
MAX_EXPONENT = 6
"""Characters: 36 bits, and everybody has 65537. One as long as the modulus costs six milliseconds a signature."""
MAX_KID = 512
USES = (None, "sig", "jwt-svid")


class Key(msgspec.Struct, frozen=True, eq=False):
    """A public key. `alg` and `issuer` are empty where the document does not narrow them."""

    kid: str
    kty: str
    crv: str
    alg: str
    issuer: str
    material: Any
    id: str
    """By its thumbprint (RFC 7638)."""

    def fits(self, alg: str) -> bool:
        """May it check a signature of this algorithm?"""
        return FAMILY.get(alg) == (self.kty, self.crv) and self.alg in ("", alg)


class KeySet(msgspec.Struct, frozen=True, eq=False):
    """The usable keys of one document. `ids` tells one set from another: thumbprints (RFC 7638)."""

    by_kid: dict[str, Key]
    unnamed: tuple[Key, ...]
    ids: frozenset[str]

    def find(self, kid: str | None, alg: str) -> Key | None:
        """The key that a token names; a token that names none may be meant for the only one that fits."""
        if kid is not None:
            found = self.by_kid.get(kid)
            return found if found is not None and found.fits(alg) else None
        fitting = [key for key in (*self.by_kid.values(), *self.unnamed) if key.fits(alg)]
        return fitting[0] if len(fitting) == 1 else None

    def knows(self, kid: str | None) -> bool:
        """Would asking again bring nothing? A token without `kid` asks again only where there are no keys."""
        return kid in self.by_kid if kid is not None else bool(self.ids)


class _Document(msgspec.Struct):
    keys: list[dict[str, Any]]


def read_keys(document: bytes) -> KeySet:
    """`reading` in one go."""
    steps = reading(document)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            keys: KeySet = done.value
            return keys


def reading(document: bytes) -> Generator[None, None, KeySet]:
    """The keys of a JWKS document; those that we do not use (encryption, symmetric, weak, unknown) are left out.

    Yields after each key: a hundred large ones take twenty milliseconds.
    Raises:
        ValueError: No such document, or too large.
    """
    if len(document) > MAX_DOCUMENT:
        raise ValueError("the key document is too large")
    try:
        entries = msgspec.json.decode(document, type=_Document).keys
    except BAD_JSON:
        raise ValueError("not a key document") from None
    if len(entries) > MOST_KEYS:
        raise ValueError(f"more than {MOST_KEYS} keys")
    found: list[Key] = []
    for entry in entries:
        if (key := _read(entry)) is not None:
            found.append(key)
        yield
    named: dict[str, Key] = {}
    for key in found:
        if key.kid:
            named.setdefault(key.kid, key)
    return KeySet(named, tuple(key for key in found if not key.kid), frozenset(key.id for key in found))


def _read(entry: dict[str, Any]) -> Key | None:
    kty, crv = entry.get("kty"), entry.get("crv", "")
    if (kty, crv if kty != "RSA" else "") not in FAMILY.values() or entry.get("use") not in USES:
        return None
    operations = entry.get("key_ops")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    texts = {name: entry.get(name) or "" for name in ("kid", "alg", "issuer")}
    if not all(isinstance(text, str) and len(text) <= MAX_KID for text in texts.values()):
        return None
    if kty == "RSA" and not LEAST_RSA <= len(str(entry.get("n"))) * 6 <= MOST_RSA + 6:
        return None
    if kty == "RSA" and len(str(entry.get("e"))) > MAX_EXPONENT:
        return None
    public: dict[str, Any] = {name: entry[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in entry}
    try:
        material = jwk.import_key(public)
        id_ = f"{texts['kid']} {material.thumbprint()}"
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    return Key(texts["kid"], str(kty), "" if kty == "RSA" else str(crv), texts["alg"], texts["issuer"], material, id_)


def is_signed(signing_input: bytes, signature: bytes, alg: str, key: Key, algorithms: Container[str]) -> bool:
    """Did the holder of this key sign this, by an algorithm that we accept and the key is for?"""
    if alg not in algorithms or not key.fits(alg):
        return False
    try:
        return bool(JWSRegistry.algorithms[alg].verify(signing_input, signature, key.material))
    except (JoseError, ValueError):
        return False
