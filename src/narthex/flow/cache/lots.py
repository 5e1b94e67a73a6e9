"""What ends many kept answers at once, in one step however many they are.

In: names of what may change: a server's list, a resource, what a clearing rule covers. Out: a `Lot` for each, which
answers and calls under way belong to; one that is ended takes all of them along. Who looks at an answer asks its lots.
Nothing stays behind: a lot that nobody belongs to any more is forgotten, so made-up names do not pile up.
Cases: `tests/flow/cache/test_lots.py`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final


class Lot:
    """What is ended together. `alive` until then; `members` belong to it."""

    __slots__ = ("alive", "members", "name")

    def __init__(self, name: Hashable) -> None:
        self.name: Final = name
        self.alive = True
        self.members = 0


class Lots:
    """The lots that somebody belongs to, by name."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Lot] = {}

    def __len__(self) -> int:
        return len(self._known)

    def enter(self, names: Iterable[Hashable]) -> tuple[Lot, ...]:
        """Belong to these from now on, until `leave`."""
        found = []
        for name in names:
            lot = self._known.get(name)
            if lot is None:
                lot = self._known[name] = Lot(name)
            lot.members += 1
            found.append(lot)
        return tuple(found)

    def leave(self, lots: Iterable[Lot]) -> None:
        """To be called once for each `enter`."""
        for lot in lots:
            lot.members -= 1
            if not lot.members and self._known.get(lot.name) is lot:
                del self._known[lot.name]

    def end(self, name: Hashable) -> bool:
        """End what belongs to it now; who enters later is in a new lot. False where nobody did."""
        lot = self._known.pop(name, None)
        if lot is None:
            return False
        lot.alive = False
        return True


def alive(lots: Iterable[Lot]) -> bool:
    """Is none of them ended?"""
    for lot in lots:  # noqa: SIM110 - a generator costs more than what it runs
        if not lot.alive:
            return False
    return True
