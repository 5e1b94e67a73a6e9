"""Ids and moments as records have them. Pure. Cases: `tests/telemetry/test_record.py`.

Source: UUIDv7 is RFC 9562 §5.7, moments are RFC 3339.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_POOL: Final = 64
"""Ids whose chance is asked for at once."""
_seconds: Final[dict[int, str]] = {}


def id_of(at_ms: int, number: int, chance: bytes) -> str:
    """A UUIDv7: ids in order of time, and within a millisecond in order of `number`.

    Args:
        at_ms: Milliseconds since 1970. number: counts within one of them, 0 to 4095. chance: 8 bytes.
    """
    return _joined(_head(at_ms), number, _tails(chance))


def _joined(head: str, number: int, tail: str) -> str:
    return f"{head}{hex(0x1000 | number)[3:]}-{tail[:4]}-{tail[4:]}"


def _head(at_ms: int) -> str:
    digits = hex(1 << 48 | at_ms)[3:]  # for twelve of them; a format is looked up anew each time
    return f"{digits[:8]}-{digits[8:]}-7"


def _tails(chance: bytes) -> str:
    """What ends ids, 16 digits each, of 8 bytes each: with the two bits that say which kind of id it is."""
    marked = bytearray(chance)
    for place in range(0, len(marked), 8):
        marked[place] = marked[place] & 0x3F | 0x80
    return marked.hex()


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
            place, self._chance = 0, _tails(self._random(8 * _POOL))
        self._place = place + 16
        return _joined(self._head, self._number, self._chance[place : place + 16])


def stamp(at: float) -> str:
    """RFC 3339, UTC, microseconds."""
    whole = int(at)
    return f"{_second(whole)}.{str(1_000_000 + int((at - whole) * 1_000_000))[1:]}Z"


def show_seconds(seconds: float) -> str:
    """A duration as records have it: microseconds are the last digits. Joined, as is the rest of this: what a number
    with a point is made of by a format costs three times as much."""
    micros = int(seconds * 1_000_000 + 0.5)
    if 0 <= micros < 1_000_000:  # most are
        return f"0.{str(1_000_000 + micros)[1:]}"
    whole = micros // 1_000_000
    return f"{whole}.{str(1_000_000 + micros - whole * 1_000_000)[1:]}"


def _second(at: int) -> str:
    """Many records are of one second."""
    known = _seconds.get(at)
    if known is None:
        if len(_seconds) >= 64:
            _seconds.clear()
        known = _seconds[at] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    return known
