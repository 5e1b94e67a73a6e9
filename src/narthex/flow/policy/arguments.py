"""The arguments of a call as rules see them, and as they are sent on then: exactly what was seen (design §3).

In: JSON as it came. Out: values. Cases: `tests/flow/policy/test_arguments.py`, `tests/flow/policy/test_conditions.py`.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from narthex.flow.policy.unreadable import Unreadable

_MIN: Final = -(1 << 63)
_MAX: Final = (1 << 63) - 1
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
LONG_NUMBER = re.compile(rb"[0-9]{19}").search
"""Where this finds nothing in JSON, every integer of it fits into 64 bits."""


def read_arguments(raw: bytes) -> Any:
    """Arguments as conditions see them: a dict, or `Unreadable` where they are none, or where an integer does not fit
    into CEL's 64 bits. Encoded again they are exactly what was looked at.

    Raises:
        msgspec.DecodeError: Not JSON.
    """
    value = _decode(raw)
    return value if type(value) is dict and fits_64_bits(value) else Unreadable([value])


def sent(arguments: Any) -> bytes:
    """The JSON of arguments that `read_arguments` gave."""
    found: bytes = _encode(arguments[0] if type(arguments) is Unreadable else arguments)
    return found


def fits_64_bits(value: Any) -> bool:
    """Are all integers in it of those that engines know?"""
    if type(value) is str:
        return True
    if type(value) is int:
        return bool(_MIN <= value <= _MAX)
    if type(value) is dict:
        for one in value.values():
            if not fits_64_bits(one):
                return False
    elif type(value) is list:
        for one in value:
            if not fits_64_bits(one):
                return False
    return True
