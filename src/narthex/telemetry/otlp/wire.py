"""The little of protobuf that OTLP needs: fields of a message, one after the other, and one number of an answer.

In: field numbers and values. Out: bytes; a message is its fields, joined. Cases: `tests/telemetry/otlp/test_wire.py`,
read by the messages of `opentelemetry-proto`. Source: Protocol Buffers, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

_SMALL: Final = [bytes((number,)) for number in range(128)]
_fixed64: Final = struct.Struct("<Q").pack
_double: Final = struct.Struct("<d").pack


def varint(value: int) -> bytes:
    """A number that is not negative, in as few bytes as it takes; a negative one in ten, as two's complement."""
    if 0 <= value < 128:
        return _SMALL[value]
    value &= (1 << 64) - 1
    data = bytearray()
    while value >= 128:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)


def piece(field: int, data: bytes) -> bytes:
    """Bytes, or a message within."""
    size = len(data)
    if field < 16 and size < 128:  # mostly
        return _SMALL[field << 3 | 2] + _SMALL[size] + data
    return b"%b%b%b" % (varint(field << 3 | 2), varint(size), data)


def text(field: int, value: str) -> bytes:
    """A string; what is no Unicode in it is replaced, for a reader refuses the whole message over it."""
    return piece(field, value.encode(errors="replace"))


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def fixed64(field: int, value: int) -> bytes:
    return varint(field << 3 | 1) + _fixed64(value & (1 << 64) - 1)


def fixed32(field: int, value: int) -> bytes:
    return varint(field << 3 | 5) + struct.pack("<I", value)


def double(field: int, value: float) -> bytes:
    return varint(field << 3 | 1) + _double(value)


def doubles(field: int, values: Sequence[float]) -> bytes:
    """Packed."""
    return piece(field, struct.pack(f"<{len(values)}d", *values))


def fixed64s(field: int, values: Sequence[int]) -> bytes:
    """Packed."""
    return piece(field, struct.pack(f"<{len(values)}Q", *values))


@lru_cache(maxsize=1024)
def _key(key: str) -> bytes:
    """The name of a `KeyValue`: one of few."""
    return text(1, key)


def attribute(field: int, key: str, value: str | int | float) -> bytes:
    """A `KeyValue` of OTLP's common messages, as a field of what has it."""
    said = (
        text(1, value) if isinstance(value, str) else number(3, value) if isinstance(value, int) else double(4, value)
    )
    return piece(field, _key(key) + piece(2, said))


Pairs = tuple[tuple[str, str | int | float], ...]


def attributes(field: int, pairs: Iterable[tuple[str, str | int | float]]) -> bytes:
    """Those that have a value."""
    return b"".join([attribute(field, key, value) for key, value in pairs if value != ""])


def read_rejected(answer: bytes) -> int:
    """How many spans or points a collector has not taken: `partial_success.rejected_…` of an export's answer, 0 where
    it says nothing that can be read."""
    inner = _find(answer, 1)
    found = _find(inner, 1) if isinstance(inner, bytes) else None
    return min(found, 1 << 31) if isinstance(found, int) else 0


def _find(data: bytes, wanted: int) -> bytes | int | None:
    """The first field of that number, as its bytes or its number; None where there is none, or this is no message."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _read_varint(data, at)
            if key >> 3 == wanted:
                return value if at <= len(data) else None
        elif kind == 2:
            length, at = _read_varint(data, at)
            if at + length > len(data):
                return None
            if key >> 3 == wanted:
                return data[at : at + length]
            at += length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            return None
    return None


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
    return 0, len(data) + 1
