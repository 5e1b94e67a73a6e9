"""Where kept answers stand: bounded in number and bytes, in all and for each tenant.

In: answers with their keys, the time. Out: the answer of a key while it may be given. What was asked for once only goes
first, so that a caller who makes up arguments pushes nothing out that is in use; then what was used longest ago. Room
for one tenant is made by itself, and where all together have too much, by the one that has most. Pure.
Cases: `tests/flow/cache/test_shelves.py`; against a model: `test_shelves_machine.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Final

from narthex.flow.cache.lots import Lot, Lots, alive
from narthex.flow.cache.results import Result

OVERHEAD: Final = 1024
"""Bytes that an answer takes beside those of its result: keys, objects, places in dicts."""
SWEPT: Final = 256
"""Answers looked at in one step of upkeep."""
_PROBATION: Final = 5
"""A fifth of a tenant's bytes is for what was asked for once only, when there is more than room for."""


Marks = tuple[str, str, str, str]
NO_MARKS: Final = ("", "", "", "")


class Kept:
    """One answer in its place. Times are seconds of one clock: fresh before `fresh_until`, gone at `ends_at`.

    `marks` is what it is of, for people: the endpoint, the canonical name, its kind, the rule.
    """

    __slots__ = ("again", "at", "ends_at", "fresh_until", "hits", "key", "lots", "marks", "result", "size", "tenant")

    def __init__(
        self,
        key: Hashable,
        tenant: str,
        result: Result,
        lots: tuple[Lot, ...],
        at: float,
        fresh_until: float,
        ends_at: float,
        marks: Marks = NO_MARKS,
    ) -> None:
        self.key: Final = key
        self.tenant: Final = tenant
        self.result: Final = result
        self.lots: Final = lots
        self.at: Final = at
        self.fresh_until: Final = fresh_until
        self.ends_at: Final = ends_at
        self.marks: Final = marks
        self.size: Final = result.size + OVERHEAD
        self.hits = 0
        self.again = False


class _Shelf:
    """One tenant's answers, each part with what was used longest ago first."""

    __slots__ = ("again", "bytes", "new", "once")

    def __init__(self) -> None:
        self.once: OrderedDict[Hashable, Kept] = OrderedDict()
        self.again: OrderedDict[Hashable, Kept] = OrderedDict()
        self.bytes = 0
        self.new = 0
        """Bytes of those in `once`."""

    def __len__(self) -> int:
        return len(self.once) + len(self.again)

    def first_to_go(self) -> Kept:
        part = self.once if self.once and (not self.again or self.new * _PROBATION >= self.bytes) else self.again
        return next(iter(part.values()))


class Shelves:
    """All answers that are kept.

    Args:
        most_bytes, most_entries: Of all together. share: hundredths of these that one tenant may have.
        lots: Those that answers belong to.
    """

    def __init__(self, most_bytes: int, most_entries: int, share: int, lots: Lots) -> None:
        self.most_bytes: Final = most_bytes
        self.most_entries: Final = most_entries
        self._tenant_bytes: Final = most_bytes * share // 100
        self._tenant_entries: Final = max(1, most_entries * share // 100)
        self._lots: Final = lots
        self._known: dict[Hashable, Kept] = {}
        self._shelves: dict[str, _Shelf] = {}
        self._sweeping: Iterator[Hashable] = iter(())
        self.bytes = 0
        self.pushed_out = 0
        """How many have gone for want of room."""

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Kept]:
        return iter(list(self._known.values()))

    def get(self, key: Hashable, now: float) -> Kept | None:
        """The answer, fresh or not; it counts as used."""
        kept = self._known.get(key)
        if kept is None:
            return None
        if now >= kept.ends_at or not alive(kept.lots):
            self.remove(kept)
            return None
        kept.hits += 1
        shelf = self._shelves[kept.tenant]
        if kept.again:
            shelf.again.move_to_end(key)
        else:
            del shelf.once[key]
            shelf.new -= kept.size
            shelf.again[key] = kept
            kept.again = True
        return kept

    def put(self, kept: Kept) -> bool:
        """Keep it, in the place of what the key had. False where it is larger than all that its tenant may have, or
        ended already; then what the key had is gone, too."""
        before = self._known.get(kept.key)
        if before is not None:
            kept.hits, kept.again = before.hits, before.again
            self.remove(before)
        if kept.size > self._tenant_bytes or not alive(kept.lots):
            self._lots.leave(kept.lots)
            return False
        shelf = self._shelves.get(kept.tenant)
        while shelf is not None and shelf and self._is_full(shelf, kept.size):
            self._push_out(shelf)
        while self._known and (self.bytes + kept.size > self.most_bytes or len(self._known) >= self.most_entries):
            self._push_out(max(self._shelves.values(), key=lambda one: one.bytes))
        shelf = self._shelves.setdefault(kept.tenant, _Shelf())  # it may have gone meanwhile
        (shelf.again if kept.again else shelf.once)[kept.key] = kept
        shelf.new += 0 if kept.again else kept.size
        shelf.bytes += kept.size
        self.bytes += kept.size
        self._known[kept.key] = kept
        return True

    def _is_full(self, shelf: _Shelf, size: int) -> bool:
        return shelf.bytes + size > self._tenant_bytes or len(shelf) >= self._tenant_entries

    def _push_out(self, shelf: _Shelf) -> None:
        self.pushed_out += 1
        self.remove(shelf.first_to_go())

    def remove(self, kept: Kept) -> None:
        """Keep it no longer."""
        if self._known.get(kept.key) is not kept:
            return
        del self._known[kept.key]
        shelf = self._shelves[kept.tenant]
        del (shelf.again if kept.again else shelf.once)[kept.key]
        shelf.new -= 0 if kept.again else kept.size
        shelf.bytes -= kept.size
        self.bytes -= kept.size
        if not shelf:
            del self._shelves[kept.tenant]
        self._lots.leave(kept.lots)

    def clear(self, fits: Callable[[Kept], bool]) -> int:
        """Keep those no longer that fit. How many were there?"""
        found = [kept for kept in self._known.values() if fits(kept)]
        for kept in found:
            self.remove(kept)
        return len(found)

    def sweep(self, now: float) -> None:
        """A step of upkeep: look at some, and keep no longer what is over. All are looked at in turn."""
        for _ in range(SWEPT):
            key = next(self._sweeping, None)
            if key is None:
                self._sweeping = iter(list(self._known))
                return
            kept = self._known.get(key)
            if kept is not None and (now >= kept.ends_at or not alive(kept.lots)):
                self.remove(kept)
