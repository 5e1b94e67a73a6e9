"""Has an object of a client too many members to be looked at key by key? Known before a single one of them is made.

In: JSON as bytes. Out: nothing, or the error to answer with. Cases: `tests/flow/codec/test_crowds.py`.

A member costs a Python object or two, so half a million of them, in a body of 4 MiB, would stop the loop for a fifth of
a second before anybody could refuse them. So they are counted first: a step for each, as many as there may be and one
more. What a member holds is stepped over in C.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from narthex.errors import ParseError

Raw = msgspec.Raw
MOST_MEMBERS = 4096
"""Of an object that is looked at key by key."""
ROOMY = 5 * MOST_MEMBERS
"""Bytes that cannot hold more members than that: a key's quotes, a colon, a value, a comma."""
_KEY = re.compile(rb'[ \t\r\n]*+"(?:[^"\\]++|\\.)*+"[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_BRACE = re.compile(rb"[ \t\r\n]*+\{")
_BEHIND = re.compile(r"trailing characters \(byte ([0-9]+)\)")
_TOO_MANY = "an object has too many members"
_read = msgspec.json.Decoder(Raw).decode


def refuse_crowd(raw: bytes | Raw) -> None:
    """Raise `ParseError` where an object has more than `MOST_MEMBERS` members. What is no object is nobody's business
    here, and neither is a fault in it: whoever reads it says so."""
    if len(raw) <= ROOMY:
        return
    data = bytes(raw)
    if data.count(b":") > MOST_MEMBERS and sum(1 for _ in _values(data)) > MOST_MEMBERS:
        raise ParseError(_TOO_MANY)


def refuse_crowds(body: bytes) -> None:
    """The same for a message and for every object that it holds: parameters, a result, and what nobody knows."""
    if len(body) <= ROOMY or body.count(b":") <= MOST_MEMBERS:
        return
    values = list(_values(body))
    if len(values) > MOST_MEMBERS:
        raise ParseError(_TOO_MANY)
    for start, end in values:
        if end - start > ROOMY and body.startswith(b"{", start):
            refuse_crowd(body[start:end])


def _values(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the value of each member begins and ends, white space behind it included; one more than there may be."""
    view = memoryview(data)
    brace = _BRACE.match(data)
    at = brace.end() if brace is not None else len(data)
    for _ in range(MOST_MEMBERS + 1):
        key = _KEY.match(data, at)
        if key is None:
            return
        end = _end_of(view, key.end())
        if end is None:
            return
        yield key.end(), end
        if not data.startswith(b",", end):
            return
        at = end + 1


def _end_of(view: memoryview, start: int) -> int | None:
    """Where the value that begins here has ended: at the first character behind it that is no white space. msgspec has
    no word for it but the error in which it complains of that character."""
    try:
        _read(view[start:])
    except msgspec.DecodeError as error:
        behind = _BEHIND.search(str(error))
        return start + int(behind[1]) - 1 if behind is not None else None
    except RecursionError:
        return None
    return None
