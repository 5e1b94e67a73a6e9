"""What a call answered, for its record: a digest of the result as the client gets it, also of one that is handed on as
it arrives; and the result itself, where it is to be kept.

In: the pieces of a response, or of a body. Out: `sha256:` and hexadecimal digits, over the bytes of the value of
`result` (or of `error`). Cases: `tests/flow/accept/test_relayed.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

MOST_KEPT: Final = 256 * 1024
"""Bytes of a result that is kept; of a larger one there is the digest."""
_TAIL: Final = 64
"""Bytes that are looked at once nothing comes any more: what ends the response is no part of its result."""
_ERROR: Final = b',"error":'
_OPENED: Final = b',"result":{'


class Relayed:
    """A result that is handed on as it arrives; `splice` has written its first two bytes.

    Args:
        skip: Bytes of the first piece that stand before the rest of the result.
        keep: Are its pieces to be kept?
    """

    __slots__ = ("_extra", "_hash", "_pieces", "_skip", "_tail", "size")

    def __init__(self, skip: int, extra: bytes, *, keep: bool) -> None:
        self._skip = skip
        self._extra = extra
        self._hash = sha256()
        self._tail = b'{"'
        self._pieces: list[bytes] | None = [] if keep else None
        self.size = 0

    def piece(self, data: bytes) -> None:
        if self._skip:
            data, self._skip = data[self._skip :], 0
        if len(data) < _TAIL:
            data = self._tail + data
            data, self._tail = data[:-_TAIL], data[-_TAIL:]
            self._take(data)
        else:
            self._take(self._tail)
            self._take(data[:-_TAIL])
            self._tail = data[-_TAIL:]

    def end(self) -> tuple[str, Sequence[bytes]]:
        """The digest, and the pieces that were kept. An answer that ends as no response does has no digest."""
        tail = self._tail.rstrip()
        if not tail.endswith(b"}}"):
            return "", ()
        self._take(tail[:-2] + self._extra + b"}")
        return f"sha256:{self._hash.hexdigest()}", tuple(self._pieces or ())

    def _take(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)
        if self._pieces is not None:
            self._pieces.append(data)
            if self.size > MOST_KEPT:
                self._pieces = None


def value_of(parts: Sequence[Any]) -> tuple[Sequence[Any], bool]:
    """The value of `result` or `error` in the pieces of a response, and whether it is an error."""
    if parts[2] == _OPENED:
        return (b"{", *parts[3:-1]), False
    return parts[3:-1], parts[2] == _ERROR


def digest_of(pieces: Sequence[Any]) -> str:
    """Of a value that is whole."""
    if len(pieces) == 1:
        return f"sha256:{sha256(pieces[0]).hexdigest()}"
    found = sha256()
    for piece in pieces:
        found.update(piece)
    return f"sha256:{found.hexdigest()}"
