"""A secret sealed for the disk: opens under the master keys of this installation, as the secret that it was, only.

In: a value, whose it is, fresh chance. Out: bytes, and back. Each value has a data key of its own, which a key derived
from a master key wraps: a rotation wraps it anew and leaves the value alone. Pure; the bytes are a contract.
Cases: `tests/authority/test_envelope.py`. Source: NIST SP 800-38D (AES-GCM), RFC 5869 (HKDF).

    version (1) | master key's id (8) | nonce (12) | data key, wrapped (32 + 16) | nonce (12) | value, sealed (n + 16)

Associated data, of both: version, purpose, tenant, name, field, as one MessagePack array, so that each part carries its
length; for the wrapped key the id too. A row that was moved to another name or tenant does not open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from narthex.flow.codec.seal import KEY_SIZE, NONCE_SIZE, MasterKey

VERSION = b"\x01"
ID_SIZE, TAG_SIZE = 8, 16
FIELD = "value"
_WRAP_AT = len(VERSION) + ID_SIZE
_KEY_AT = _WRAP_AT + NONCE_SIZE
_VALUE_AT = _KEY_AT + KEY_SIZE + TAG_SIZE
_BODY_AT = _VALUE_AT + NONCE_SIZE
OVERHEAD = _BODY_AT + TAG_SIZE
"""Bytes that a sealed value is longer."""
_encode = msgspec.msgpack.Encoder().encode


class EnvelopeError(Exception):
    """A secret does not open. `unknown_key` is the id of the master key that it needs and that is not here; None where
    the key is here, and the bytes are changed, cut, or those of another secret."""

    def __init__(self, unknown_key: str | None = None) -> None:
        super().__init__(f"needs the master key {unknown_key}" if unknown_key else "changed, cut, or another secret's")
        self.unknown_key = unknown_key


class Envelopes:
    """Seals with the first of some master keys and opens with all of them.

    A key that was replaced opens whatever was sealed with it for as long as it is there, past its end too: the end is
    for what clients hand back to us (handles); what lies on our own disk must not be lost because nobody was in time.

    Args:
        keys: At least one.
        random: So many bytes of chance.
    """

    def __init__(self, keys: Sequence[MasterKey], random: Callable[[int], bytes]) -> None:
        self._random = random
        self._wrapping = {_id_of(key): AESGCM(_derived(key, b"narthex vault wrapping key")) for key in keys}
        self._current = _id_of(keys[0])

    @property
    def current(self) -> str:
        """The id of the key that seals."""
        return self._current.hex()

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys that are here, the current one first."""
        return tuple(id_.hex() for id_ in self._wrapping)

    def seal(self, value: str, tenant: str, name: str) -> bytes:
        """Seal a value for the disk."""
        key, nonce = self._random(KEY_SIZE), self._random(NONCE_SIZE)
        body = AESGCM(key).encrypt(nonce, value.encode(), _bound(b"value", tenant, name))
        return self._wrapped(key, tenant, name) + nonce + body

    def open(self, sealed: bytes, tenant: str, name: str) -> str:
        """The value.

        Raises:
            EnvelopeError: The master key is not here; or these are not the bytes that were sealed for this name.
        """
        key = self._data_key(sealed, tenant, name)
        try:
            value = AESGCM(key).decrypt(sealed[_VALUE_AT:_BODY_AT], sealed[_BODY_AT:], _bound(b"value", tenant, name))
            return value.decode()
        except (InvalidTag, ValueError):
            raise EnvelopeError from None

    def reseal(self, sealed: bytes, tenant: str, name: str) -> bytes | None:
        """The same under the current master key; None where it is so already.

        Raises:
            EnvelopeError: As from `open`.
        """
        if sealed[len(VERSION) : _WRAP_AT] == self._current:
            self.open(sealed, tenant, name)
            return None
        return self._wrapped(self._data_key(sealed, tenant, name), tenant, name) + sealed[_VALUE_AT:]

    def _wrapped(self, key: bytes, tenant: str, name: str) -> bytes:
        nonce = self._random(NONCE_SIZE)
        bound = _bound(b"key" + self._current, tenant, name)
        return VERSION + self._current + nonce + self._wrapping[self._current].encrypt(nonce, key, bound)

    def _data_key(self, sealed: bytes, tenant: str, name: str) -> bytes:
        if len(sealed) < OVERHEAD or sealed[: len(VERSION)] != VERSION:
            raise EnvelopeError
        id_ = sealed[len(VERSION) : _WRAP_AT]
        cipher = self._wrapping.get(id_)
        if cipher is None:
            raise EnvelopeError(id_.hex())
        try:
            return cipher.decrypt(
                sealed[_WRAP_AT:_KEY_AT], sealed[_KEY_AT:_VALUE_AT], _bound(b"key" + id_, tenant, name)
            )
        except InvalidTag:
            raise EnvelopeError from None


def _bound(purpose: bytes, tenant: str, name: str) -> bytes:
    return _encode((VERSION, purpose, tenant, name, FIELD))


def _derived(key: MasterKey, purpose: bytes, size: int = KEY_SIZE) -> bytes:
    return HKDF(SHA256(), size, salt=None, info=purpose).derive(key.secret)


def _id_of(key: MasterKey) -> bytes:
    """Which master key: shown in messages, and telling nothing of it."""
    return _derived(key, b"narthex vault key id", ID_SIZE)
