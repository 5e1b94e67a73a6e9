"""Amounts in words, for people: things that are counted, spans of time, sizes.

In: numbers. Out: text. Pure. Cases: `tests/cli/test_amounts.py`.
"""

from __future__ import annotations

import math

_SPANS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def counted(number: int, thing: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """A time to wait, rounded up, in the two largest units that it has: `10s`, `1m 30s`, `2h`, `29d 4h`."""
    left = math.ceil(seconds)
    finest = 3600 if left >= 86_400 else 60 if left >= 3600 else 1
    left = math.ceil(left / finest) * finest
    words: list[str] = []
    for unit, length in _SPANS:
        amount, left = divmod(left, length)
        if amount:
            words.append(f"{amount}{unit}")
    return " ".join(words) or "0s"


def size(number: int) -> str:
    """Bytes in the largest unit that they fill: `512 B`, `1.5 KiB`, `5.0 GiB`."""
    if number < 1024:
        return f"{number} B"
    amount, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if round(amount, 1) < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f} {unit}"
