"""How many calls of each name there were lately. Pure; bounded whatever the names.

In: names as they are called, the time. Out: name -> calls in the last `window_s`. Time is cut into `SLICES` of it, so a
call counts until up to one slice more than the window has passed: never less.
Cases: `tests/flow/policy/runs/test_tally.py`.
"""

from __future__ import annotations

from collections import deque

SLICES = 8
MOST_NAMES = 64
"""Names told apart in one slice."""
LONGEST = 128
"""Characters of a name that is told apart."""
OTHERS = "*"
"""What the rest counts under."""


class Room:
    """How many names all tallies together may still tell apart."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class Tally:
    """Calls by name, of one run."""

    __slots__ = ("_room", "_slices")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._slices: deque[tuple[int, dict[str, int]]] = deque()

    def add(self, name: str, now: float, window_s: float) -> None:
        """One more call of `name`, at `now` (monotonic seconds)."""
        at = int(now * SLICES // window_s)
        self._drop(at)
        if not self._slices or self._slices[-1][0] < at:
            self._slices.append((at, {}))
        names = self._slices[-1][1]
        if name not in names:
            if len(name) > LONGEST or len(names) >= MOST_NAMES or self._room.left <= 0:
                name = OTHERS
            else:
                self._room.left -= 1
        names[name] = names.get(name, 0) + 1

    def counts(self, now: float, window_s: float) -> dict[str, int]:
        """Calls by name; what could not be told apart is under `OTHERS`."""
        self._drop(int(now * SLICES // window_s))
        found: dict[str, int] = {}
        for _, names in self._slices:
            for name, count in names.items():
                found[name] = found.get(name, 0) + count
        return found

    def clear(self) -> None:
        """It is needed no more."""
        while self._slices:
            self._pop()

    def _drop(self, at: int) -> None:
        """Forget slices that ended a window ago, or that were cut by another window, before a reload."""
        while self._slices and not at - SLICES <= self._slices[0][0] <= at:
            self._pop()

    def _pop(self) -> None:
        _, names = self._slices.popleft()
        self._room.left += len(names) - (OTHERS in names)
