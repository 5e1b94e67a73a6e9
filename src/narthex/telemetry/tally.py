"""Sums by a few labels, bounded: whoever invents values for them ends up in `other`, and no memory is filled.

In: an amount and its labels' values. Out: a reading for `Accounts.register`. Cases: `tests/telemetry/test_tally.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from narthex.telemetry.accounts import OTHER, Labels


class Tally:
    """Sums by the labels `names`; at most `most` sets of values, then one more for all others.

    Args:
        fixed: How many of the labels, from the last, keep their values in the set of the others: those whose values
            are few whoever calls.
    """

    def __init__(self, *names: str, most: int = 1024, fixed: int = 0) -> None:
        self._names: Final = names
        self._most: Final = most
        self._open: Final = len(names) - fixed
        self._sums: Final[dict[tuple[str, ...], float]] = {}

    def add(self, amount: float, *values: str) -> None:
        sums = self._sums
        if values not in sums and len(sums) >= self._most:
            values = (OTHER,) * self._open + values[self._open :]
            if values not in sums and len(sums) >= 2 * self._most:
                values = (OTHER,) * len(self._names)
        sums[values] = sums.get(values, 0.0) + amount

    def read(self) -> Iterator[tuple[Labels, float]]:
        """Each set of values with its sum."""
        for values, amount in list(self._sums.items()):
            yield tuple(zip(self._names, values, strict=True)), amount
