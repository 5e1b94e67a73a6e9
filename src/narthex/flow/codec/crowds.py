"""Has an object of a client too many members to be looked at key by key? Known before a single one of them is made.

In: JSON as bytes. Out: nothing, or the error to answer with. Cases: `tests/flow/codec/test_crowds.py`.

A member costs a Python object or two, so half a million of them, in a body of 4 MiB, would stop the loop for a fifth of
a second before anybody could refuse them. Each has a colon, and colons are counted in C, as bytes. What may be large of
its own accord (arguments, answers, `_meta`) is stepped over.
"""

from __future__ import annotations

import msgspec

from narthex.errors import ParseError

Raw = msgspec.Raw
MOST_MEMBERS = 4096
"""Of an object that is looked at key by key."""
ROOMY = 5 * MOST_MEMBERS
"""Bytes that cannot hold more members than that: a key's quotes, a colon, a value, a comma."""
_NOTHING = Raw()


class _Message(msgspec.Struct):
    params: Raw = _NOTHING
    result: Raw = _NOTHING
    error: Raw = _NOTHING


class _Inner(msgspec.Struct):
    """Members of `params`, or of a legacy client's `result`, that may be large."""

    arguments: Raw = _NOTHING
    meta: Raw = msgspec.field(name="_meta", default=_NOTHING)
    answers: Raw = msgspec.field(name="inputResponses", default=_NOTHING)
    content: Raw = _NOTHING


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_inner = msgspec.json.Decoder(_Inner).decode


def refuse_crowd(raw: bytes | Raw, *beside: Raw) -> None:
    """Raise `ParseError` where an object may have more than `MOST_MEMBERS` members.

    "May", because the members of objects in it count too; those of the values `beside`, which stand in it, do not. It
    takes the time of looking at its bytes, whatever they are.
    """
    if len(raw) - sum(map(len, beside)) <= ROOMY or _colons(raw) - sum(map(_colons, beside)) <= MOST_MEMBERS:
        return
    try:
        members = _members(raw) - sum(map(_members, beside))  # without the colons that stand in text
    except (msgspec.DecodeError, RecursionError) as error:
        raise ParseError("the body is not JSON", detail=str(error)) from None
    if members > MOST_MEMBERS:
        raise ParseError("an object has too many members")


def refuse_crowds(body: bytes) -> None:
    """`refuse_crowd` for all of a message that is looked at key by key: itself, its parameters, their `_meta`."""
    if len(body) <= ROOMY or _colons(body) <= MOST_MEMBERS:
        return
    try:
        message = _decode_message(body)
    except msgspec.ValidationError:
        return  # no object: whoever reads it stops at its first byte
    except (msgspec.DecodeError, RecursionError) as error:
        raise ParseError("the body is not JSON", detail=str(error)) from None
    parts = message.params, message.result, message.error
    refuse_crowd(body, *parts)
    for part in parts:
        if bytes(memoryview(part)[:1]) == b"{":
            inner = _decode_inner(part)
            refuse_crowd(part, inner.arguments, inner.meta, inner.answers, inner.content)
            refuse_crowd(inner.meta)


def _colons(raw: bytes | Raw) -> int:
    return bytes(raw).count(b":")


def _members(raw: bytes | Raw) -> int:
    """The members of an object and of all objects in it; a few more where JSON stands in a string."""
    return msgspec.json.format(bytes(raw), indent=-1).count(b'":') if raw else 0
