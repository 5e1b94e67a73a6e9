"""When are the arguments of two calls the same? Their digests say it, so that a record without them can be asked, too.

In: JSON as it came, from anybody. Out: digests under which a call is found. The one over its bytes is what a record
always has; the one over its canonical form finds the same arguments in another order of members, with other spaces, or
with `1.0` for `1`. Pure. Cases: `tests/playback/test_arguments.py`; fuzz target `playback`.
Source: RFC 8785 (canonical JSON) in what matters here: order of members, spaces, whole numbers.
"""

from __future__ import annotations

import math
from hashlib import sha256
from typing import Any

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON

NONE = b"{}"
"""No arguments are the same as none in an object."""
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="deterministic").encode
_UNREADABLE = (*BAD_JSON, ValueError, OverflowError)


def digest(data: bytes) -> str:
    """As records have it."""
    return f"sha256:{sha256(data).hexdigest()}"


def keys_of(raw: bytes) -> frozenset[str]:
    """What these arguments are found by: the digest of their bytes, and of their canonical form where they have one."""
    same = canonical(raw)
    return frozenset((digest(raw or NONE),)) if same is None else frozenset((digest(raw or NONE), digest(same)))


def canonical(raw: bytes) -> bytes | None:
    """The one text of all that mean the same; None for what is no JSON, or has numbers that cannot be compared."""
    try:
        value = _decode(raw or NONE)
        return _encode(_plain({} if value is None else value))
    except _UNREADABLE:
        return None


def differing(before: bytes, after: bytes) -> tuple[str, ...]:
    """Which members two objects do not have alike, by their names; empty where one of them is no object."""
    try:
        one, other = (_decode(raw or NONE) for raw in (before, after))
    except _UNREADABLE:
        return ()
    if not isinstance(one, dict) or not isinstance(other, dict):
        return ()
    return tuple(sorted(name for name in one.keys() | other.keys() if one.get(name, ...) != other.get(name, ...)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("no number of JSON")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    return value
