"""The syntax tree of a CEL expression, read from the bytes that the CEL engine serialises it to.

In: `cel.expr.CheckedExpr` (or `ParsedExpr`), alone or in a `google.protobuf.Any`. Out: `Expr`. The engine has parsed
and type-checked; this only takes apart what it says, and only the parts of the message that hold the tree.
Cases: `tests/flow/policy/test_conditions.py`. Source: cel-spec, proto/cel/expr/{syntax,checked}.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

MOST_DEPTH = 64


class Const(msgspec.Struct, frozen=True):
    value: None | bool | int | float | str | bytes


class Ident(msgspec.Struct, frozen=True):
    name: str


class Select(msgspec.Struct, frozen=True):
    """`operand.field`, or `has(operand.field)` where it is only tested."""

    operand: Expr
    field: str
    tested: bool = False


class CallExpr(msgspec.Struct, frozen=True):
    function: str
    args: tuple[Expr, ...]
    target: Expr | None = None


class ListExpr(msgspec.Struct, frozen=True):
    elements: tuple[Expr, ...]


class Other(msgspec.Struct, frozen=True):
    """What only the engine evaluates: messages, maps, comprehensions, with the expressions inside."""

    what: str
    inner: tuple[Expr, ...] = ()


Expr = Const | Ident | Select | CallExpr | ListExpr | Other
_Field = tuple[int, Any]


def read_checked(data: bytes) -> Expr:
    """The expression of a serialised, checked one. Raises ValueError for bytes that are none."""
    try:
        fields = list(_fields(data))
        if fields and fields[0][0] == 1 and fields[0][1].startswith(b"type.googleapis.com/"):
            parsed = fields[0][1].endswith(b".ParsedExpr")
            fields = list(_fields(_one(fields, 2)))
            return _expr(_one(fields, 2 if parsed else 4), 0)
        return _expr(_one(fields, 4), 0)
    except (IndexError, struct.error, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f"not an expression: {error}") from None


def _expr(data: bytes, depth: int) -> Expr:
    if depth > MOST_DEPTH:
        raise ValueError(f"nested deeper than {MOST_DEPTH}")
    deeper = depth + 1
    for number, value in _fields(data):
        if number == 3:
            return Const(_constant(value))
        if number == 4:
            return Ident(_text(value, 1))
        if number == 5:
            fields = list(_fields(value))
            tested = any(n == 3 and v == 1 for n, v in fields)
            return Select(_expr(_one(fields, 1), deeper), _text(value, 2), tested)
        if number == 6:
            fields = list(_fields(value))
            target = next((_expr(v, deeper) for n, v in fields if n == 1), None)
            return CallExpr(_text(value, 2), tuple(_expr(v, deeper) for n, v in fields if n == 3), target)
        if number == 7:
            return ListExpr(tuple(_expr(v, deeper) for n, v in _fields(value) if n == 1))
        if number == 8:
            entries = (entry for n, entry in _fields(value) if n == 2)
            return Other("map", tuple(_expr(v, deeper) for entry in entries for n, v in _fields(entry) if n in (3, 4)))
        if number == 9:
            inner = tuple(_expr(v, deeper) for n, v in _fields(value) if n in (2, 4, 5, 6, 7))
            return Other("comprehension", inner)
    raise ValueError("an empty expression")


def _constant(data: bytes) -> None | bool | int | float | str | bytes:
    """The last field wins, as in any protobuf `oneof`."""
    found: None | bool | int | float | str | bytes = None
    for number, value in _fields(data):
        if number == 2:
            found = bool(value)
        elif number == 3:
            found = value - (1 << 64) if value >> 63 else value
        elif number == 4:
            found = value
        elif number == 5:
            found = struct.unpack("<d", value)[0]
        elif number == 6:
            found = value.decode()
        elif number == 7:
            found = value
    return found


def _one(fields: list[_Field], number: int) -> bytes:
    return [value for n, value in fields if n == number][-1]  # type: ignore[no-any-return]


def _text(data: bytes, number: int) -> str:
    return next((value.decode() for n, value in _fields(data) if n == number), "")


def _fields(data: bytes) -> Iterator[_Field]:
    """Number and value of each field: an int for a varint, bytes for all else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(data):
            raise ValueError("cut off")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number that does not end")
