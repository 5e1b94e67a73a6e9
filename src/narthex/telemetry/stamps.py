"""Ids and moments as records have them. Pure. Cases: `tests/telemetry/test_record.py`.

Source: UUIDv7 is RFC 9562 §5.7, moments are RFC 3339.
"""

from __future__ import annotations

import time
from typing import Final

_VARIANT: Final = "89ab"
_seconds: Final[dict[int, str]] = {}


def id_of(at_ms: int, number: int, chance: bytes) -> str:
    """A UUIDv7: ids in order of time, and within a millisecond in order of `number`.

    Args:
        at_ms: Milliseconds since 1970. number: counts within one of them, 0 to 4095. chance: 8 bytes.
    """
    digits, by_chance = f"{at_ms:012x}", chance.hex()
    last = f"{_VARIANT[int(by_chance[0], 16) & 3]}{by_chance[1:4]}-{by_chance[4:]}"
    return f"{digits[:8]}-{digits[8:]}-7{number:03x}-{last}"


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
