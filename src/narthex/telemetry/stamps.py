"""Ids and moments as records have them. Pure. Cases: `tests/telemetry/test_record.py`.

Source: UUIDv7 is RFC 9562 §5.7, moments are RFC 3339.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_VARIANT: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
_POOL: Final = 64
"""Ids whose chance is asked for at once."""
_seconds: Final[dict[int, str]] = {}


def id_of(at_ms: int, number: int, chance: bytes) -> str:
    """A UUIDv7: ids in order of time, and within a millisecond in order of `number`.

    Args:
        at_ms: Milliseconds since 1970. number: counts within one of them, 0 to 4095. chance: 8 bytes.
    """
    return f"{_head(at_ms)}{number:03x}-{_tail(chance.hex())}"


def _head(at_ms: int) -> str:
    digits = f"{at_ms:012x}"
    return f"{digits[:8]}-{digits[8:]}-7"


def _tail(chance: str) -> str:
    return f"{_VARIANT[chance[0]]}{chance[1:4]}-{chance[4:]}"


class Ids:
    """Gives each record an id behind that of the one before, also where the clock goes back.

    Args:
        random: So many bytes of chance.
    """

    __slots__ = ("_at_ms", "_chance", "_head", "_number", "_place", "_random")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._at_ms = self._number = 0
        self._head = ""
        self._chance = ""
        self._place = 0

    def next(self, at: float) -> str:
        """The id of what is of this moment, in seconds since 1970."""
        at_ms = int(at * 1000)
        self._number += 1
        if at_ms <= self._at_ms and self._number > 0xFFF:
            at_ms = self._at_ms + 1
        if at_ms > self._at_ms:
            self._at_ms, self._number, self._head = at_ms, 0, _head(at_ms)
        place = self._place
        if place == len(self._chance):
            place, self._chance = 0, self._random(8 * _POOL).hex()
        self._place = place + 16
        return f"{self._head}{self._number:03x}-{_tail(self._chance[place : place + 16])}"


def stamp(at: float) -> str:
    """RFC 3339, UTC, microseconds."""
    whole = int(at)
    return f"{_second(whole)}.{int((at - whole) * 1_000_000):06d}Z"


def _second(at: int) -> str:
    """Many records are of one second."""
    known = _seconds.get(at)
    if known is None:
        if len(_seconds) >= 64:
            _seconds.clear()
        known = _seconds[at] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    return known
