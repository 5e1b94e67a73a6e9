"""Marks that come due a little later: many of one thing are one, and different things do not come due in one moment.

In: marks, the time, chance. Out: what is due. Pure. Cases: `tests/flow/notify/test_debounce.py`.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
MOST = 500
"""Given at once: well under a millisecond."""


class Debounce(Generic[Key]):
    """What is marked comes due between `first_s` and `last_s` after its first mark, however often it is marked: what
    changes all the time comes due too."""

    __slots__ = ("_first_s", "_heap", "_keys", "_number", "_numbers", "_span_s")

    def __init__(self, first_s: float, last_s: float) -> None:
        self._first_s = first_s
        self._span_s = last_s - first_s
        # The heap holds numbers of marks; a mark that is forgotten leaves its number there until it would be due.
        self._heap: list[tuple[float, int]] = []
        self._keys: dict[int, Key] = {}
        self._numbers: dict[Key, int] = {}
        self._number = 0

    def mark(self, key: Key, *, now: float, chance: float) -> None:
        """`key` is to come due. `chance`, in [0, 1), says when in the span; one that waits already keeps its time."""
        if key in self._numbers:
            return
        self._number += 1
        self._keys[self._number] = key
        self._numbers[key] = self._number
        heapq.heappush(self._heap, (now + self._first_s + self._span_s * chance, self._number))

    def forget(self, key: Key) -> None:
        """`key` comes due no more, if it was marked."""
        number = self._numbers.pop(key, None)
        if number is not None:
            del self._keys[number]
            if not self._keys:
                self._heap.clear()

    def due(self, now: float, most: int = MOST) -> list[Key]:
        """What is due by `now`, each once, the earliest first; the rest of more than `most` stays due. What was given
        may be marked again."""
        found: list[Key] = []
        while len(found) < most and (at := self.next_due()) is not None and at <= now:
            key = self._keys.pop(heapq.heappop(self._heap)[1])
            del self._numbers[key]
            found.append(key)
        return found

    def next_due(self) -> float | None:
        """When the next comes due; None while nothing is marked."""
        while self._heap and self._heap[0][1] not in self._keys:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
