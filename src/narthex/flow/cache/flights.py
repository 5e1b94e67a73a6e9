"""Equal calls at one time: one of them goes to the server, the others wait for its answer.

In: calls by key as they begin, wait and end. Out: to each that waits, what came of the one that went, or word that none
came. Who went and failed takes nobody along: those who waited then go themselves. Pure: who waits hands in a function.
Cases: `tests/flow/cache/test_flights.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

from narthex.flow.cache.lots import Lot, Lots, alive
from narthex.flow.cache.shelves import NO_MARKS, Kept, Marks


class GaveUp:
    """The one that went was given up, before its server had said anything: another of them goes."""


class Alone:
    """No answer came that others may have: each goes itself, at once, as if there were no cache."""


GAVE_UP: Final = GaveUp()
ALONE: Final = Alone()
Landed = Kept | GaveUp | Alone


class Flight:
    """One call that goes, and who waits for it. `lots`: what ends its answer before it is there; `forgotten`: it was
    ended by hand. `tenant` and `marks` are as of the answer that it would be."""

    __slots__ = ("forgotten", "key", "lots", "marks", "over", "tenant", "waiting")

    def __init__(self, key: Hashable, lots: tuple[Lot, ...], tenant: str, marks: Marks) -> None:
        self.key: Final = key
        self.lots: Final = lots
        self.tenant: Final = tenant
        self.marks: Final = marks
        self.forgotten = False
        self.waiting: list[Callable[[Landed], None]] = []
        self.over = False

    @property
    def counts(self) -> bool:
        """Is what it will be answered still to be given to those who come now?"""
        return not self.forgotten and alive(self.lots)


class Flights:
    """Those under way. One whose lots have ended goes on for those who wait, and nobody joins it any more."""

    def __init__(self, lots: Lots) -> None:
        self._lots: Final = lots
        self._known: dict[Hashable, Flight] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Hashable) -> Flight | None:
        """The one that can be joined."""
        flight = self._known.get(key)
        return flight if flight is not None and flight.counts else None

    def begin(self, key: Hashable, names: tuple[Hashable, ...], tenant: str = "", marks: Marks = NO_MARKS) -> Flight:
        """Whoever begins it ends it, once, with `land`. `names`: of the lots that its answer belongs to."""
        flight = self._known[key] = Flight(key, self._lots.enter(names), tenant, marks)
        return flight

    def forget(self, fits: Callable[[Flight], bool]) -> None:
        """Nobody joins these any more, and what they are answered is not kept."""
        for flight in self._known.values():
            if fits(flight):
                flight.forgotten = True

    def land(self, flight: Flight, landed: Landed) -> None:
        """It is over. Who waits is told in the order of coming; the second time says nothing."""
        if flight.over:
            return
        flight.over = True
        if self._known.get(flight.key) is flight:
            del self._known[flight.key]
        self._lots.leave(flight.lots)
        waiting, flight.waiting = flight.waiting, []
        for tell in waiting:
            tell(landed)
