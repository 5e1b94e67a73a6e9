"""API keys: how one looks, what is kept of it, and whether what was presented is one. Pure.

    nx_7Kq2mZx1_3tG…(43)…9cA…(6)
       id       secret      checksum

In: chance. Out: a key, its id, its digest. The id is shown everywhere and opens nothing. The secret has 256 bits of
chance, so a plain SHA-256 keeps it as well as a slow hash would, and a look-up costs a microsecond. The checksum tells
a mistyped or cut key from an unknown one without asking anybody. Cases: `tests/flow/identity/test_api_keys.py`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from hashlib import sha256

import msgspec

ALPHABET = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX = b"nx_"
ID_SIZE, SECRET_SIZE, CHECK_SIZE = 8, 43, 6
KEY_SIZE = len(PREFIX) + ID_SIZE + 1 + SECRET_SIZE + CHECK_SIZE
ID_AT = slice(len(PREFIX), len(PREFIX) + ID_SIZE)
_FORM = re.compile(rb"nx_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}")


class NewKey(msgspec.Struct, frozen=True):
    """A key that was just made: the only moment at which it can be read."""

    id: str
    text: str
    digest: bytes

    def __repr__(self) -> str:
        return f"NewKey({self.id!r})"


def make_key(random: Callable[[int], bytes]) -> NewKey:
    """A new key.

    Args:
        random: So many bytes of chance that nobody can guess (`os.urandom`).
    """
    id_ = _written(int.from_bytes(random(8)) % 62**ID_SIZE, ID_SIZE)
    # 62**43 is a little more than 2**256: all of the chance fits in.
    body = PREFIX + id_ + b"_" + _written(int.from_bytes(random(32)), SECRET_SIZE)
    key = body + _checksum(body)
    return NewKey(id_.decode(), key.decode(), digest_of(key))


def digest_of(key: bytes) -> bytes:
    """What is kept of a key."""
    return sha256(key).digest()


def looks_like_key(presented: bytes) -> bool:
    """Is it meant as one of our keys? So that it is not taken for a token of somebody else."""
    return presented.startswith(PREFIX)


def is_whole(presented: bytes) -> bool:
    """Has it the form of a key, and its checksum? For telling people; whether it opens anything, the digest says."""
    body = presented[:-CHECK_SIZE]
    return _FORM.fullmatch(presented) is not None and _checksum(body) == presented[-CHECK_SIZE:]


def _checksum(body: bytes) -> bytes:
    return _written(zlib.crc32(body), CHECK_SIZE)


def _written(number: int, size: int) -> bytes:
    """A number in base 62, its last `size` digits."""
    digits = bytearray(size)
    for place in range(size - 1, -1, -1):
        number, digit = divmod(number, 62)
        digits[place] = ALPHABET[digit]
    return bytes(digits)
