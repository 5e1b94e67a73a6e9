"""Sealed handles: what we hand out and get back opens for whom it was made, until it expires, and for nobody else.

In: a payload, whom it is bound to, an expiry, fresh chance. Out: a short string, and back. Design §4.
Cases: `tests/flow/codec/test_seal.py`. Source: NIST SP 800-38D (AES-GCM), RFC 5869 (HKDF), RFC 4648 §5 (base64url).

Layout before base64url: version (1), key id (2), nonce (12), then AES-256-GCM of expiry (8) and payload (MessagePack),
then its tag (16). Version, key id, purpose and the bound parts are associated data, as one MessagePack array: so each
part carries its length, and no two lists of parts are the same bytes.
"""

from __future__ import annotations

import struct
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from narthex.errors import InvalidParams

T = TypeVar("T")

MAX_HANDLE = 512
"""Characters, where a kind of handle states no other bound."""
KEY_SIZE = 32
NONCE_SIZE = 12
VERSION = b"\x01"
_HEAD = 3  # version and key id
_SEALED = _HEAD + NONCE_SIZE
_EXPIRY = struct.Struct(">Q")
_encode = msgspec.msgpack.Encoder().encode
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")


class SealError(InvalidParams):
    """A handle does not open. One error for every reason, so that it tells nobody which part was wrong."""

    reason = "invalid_handle"

    def __init__(self, detail: str = "") -> None:
        super().__init__("the handle is not valid", detail=detail)


class MasterKey(msgspec.Struct, frozen=True):
    """A key of 32 bytes. One that was replaced opens until `until` (seconds since 1970); None: without end."""

    secret: bytes
    until: int | None = None

    def __repr__(self) -> str:  # a key ring in a traceback shows no key
        return f"MasterKey(until={self.until})"


class KeyRing:
    """Master keys: the first seals, all open, each until its end. Purposes get keys of their own, derived once.

    Args:
        keys: The current one first; bare bytes are a key without end.
    Raises:
        ValueError: No key, one of another length, or a current one that ends.
    """

    def __init__(self, keys: Sequence[bytes | MasterKey]) -> None:
        self._keys = tuple(MasterKey(key) if isinstance(key, bytes) else key for key in keys)
        if not self._keys or any(len(key.secret) != KEY_SIZE for key in self._keys):
            raise ValueError(f"a key ring needs at least one key, each of {KEY_SIZE} bytes")
        if self._keys[0].until is not None:
            raise ValueError("the current key must not end")
        self._sealers: dict[str, Sealer] = {}

    def sealer(self, purpose: str, longest: int = MAX_HANDLE) -> Sealer:
        """The sealer of `purpose` ("session", "cursor" …); what one purpose sealed no other opens.

        Args:
            longest: Characters of its longest handle, made or opened; the same wherever this purpose is asked for.
        """
        if purpose not in self._sealers:
            derived = [
                (_derive(key.secret, "key id", 2), _derive(key.secret, f"seal {purpose}", 32), key.until)
                for key in self._keys
            ]
            self._sealers[purpose] = Sealer(purpose, derived, longest)
        return self._sealers[purpose]


def _derive(key: bytes, info: str, length: int) -> bytes:
    return HKDF(SHA256(), length, salt=None, info=f"narthex v1 {info}".encode()).derive(key)


class Sealer:
    """Seals and opens handles of one purpose. Made by `KeyRing.sealer`.

    Args:
        derived: (key id, key of this purpose, its end), the current one first. Two may share an id: both are tried.
        longest: Characters of its longest handle.
    """

    def __init__(self, purpose: str, derived: Sequence[tuple[bytes, bytes, int | None]], longest: int) -> None:
        self._purpose = purpose
        self._longest = longest
        self._current = VERSION + derived[0][0]
        self._ciphers: dict[bytes, list[tuple[AESGCM, int | None]]] = {}
        for key_id, key, until in derived:
            self._ciphers.setdefault(VERSION + key_id, []).append((AESGCM(key), until))
        self._decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}

    def seal(self, payload: Any, *, bound: Sequence[str], expires_at: int, nonce: bytes) -> str:
        """A handle that opens with the same `bound` parts until `expires_at`.

        Args:
            payload: Anything that MessagePack holds; small. No text of a client and no upstream's id in a session id.
            bound: Tenant, issuer, subject, client, endpoint: the same parts in the same order when it is opened.
            expires_at: Seconds since 1970, wall clock.
            nonce: 12 bytes, random, never used twice.
        Raises:
            SealError: The handle would be longer than the longest of this purpose.
            ValueError: A nonce of another length.
        """
        if len(nonce) != NONCE_SIZE:
            raise ValueError(f"a nonce has {NONCE_SIZE} bytes")
        head = self._current
        text = _EXPIRY.pack(expires_at) + _encode(payload)
        sealed = self._ciphers[head][0][0].encrypt(nonce, text, _encode((head, self._purpose, *bound)))
        handle = _to_base64url(head + nonce + sealed)
        if len(handle) > self._longest:
            raise SealError(f"{len(handle)} characters, at most {self._longest} fit")
        return handle

    def open(self, handle: str, payload_type: type[T], *, bound: Sequence[str], now: int, leeway: int = 60) -> T:
        """The payload that was sealed.

        Args:
            payload_type: What the payload is decoded as.
            bound: As when it was sealed.
            now: Seconds since 1970, wall clock.
            leeway: Seconds that clocks of two machines may differ.
        Raises:
            SealError: Expired, bound to others, sealed by a key we do not have any more, changed, or never made by us.
        """
        if not 0 < len(handle) <= self._longest:
            raise SealError("length")
        try:
            data = a2b_base64(handle.encode("ascii").translate(_FROM_URL) + b"=" * (-len(handle) % 4), strict_mode=True)
        except (Base64Error, UnicodeEncodeError):
            raise SealError("not base64url") from None
        if _to_base64url(data) != handle:  # else several strings would open as one handle
            raise SealError("not base64url in its one form")
        text = self._decrypt(data, bound, now - leeway)
        if now > _EXPIRY.unpack_from(text)[0] + leeway:
            raise SealError("expired")
        decoder = self._decoders.get(payload_type)
        if decoder is None:
            decoder = self._decoders[payload_type] = msgspec.msgpack.Decoder(payload_type)
        try:
            payload: T = decoder.decode(memoryview(text)[_EXPIRY.size :])
        except msgspec.DecodeError as error:
            raise SealError(f"another kind of payload: {error}") from None
        return payload

    def _decrypt(self, data: bytes, bound: Sequence[str], now: int) -> bytes:
        head = data[:_HEAD]
        try:
            associated = _encode((head, self._purpose, *bound))
        except UnicodeEncodeError:
            raise SealError("bound to text that is not Unicode") from None
        for cipher, until in self._ciphers.get(head, ()):
            if until is not None and now >= until:
                continue
            try:
                return cipher.decrypt(data[_HEAD:_SEALED], data[_SEALED:], associated)
            except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce and a tag
                continue
        raise SealError("no key opens it for this caller")


def _to_base64url(data: bytes) -> str:
    return b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL).decode("ascii")
