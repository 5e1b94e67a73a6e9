"""What calls have used of lasting limits since the books looked last: added up at once, so that a thousand calls of one
caller are one entry, and not a thousand that wait in a queue.

In: what each call has used, from the event loop. Out: the sums, taken by whoever writes them down, on another thread.
Cases: `tests/flow/limit/test_tab.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

Key = tuple[bytes, bytes, int]
"""A limit's counter, a bucket's key, the slot of time."""


class Sum:
    """So much of one bucket. `at` is when the last of it was used, `ends` when it counts no more."""

    __slots__ = ("amount", "at", "ends")

    def __init__(self, at: int, ends: int) -> None:
        self.at = at
        self.ends = ends
        self.amount = 0


class Tab:
    """The sums. Two threads share them without a lock: whoever works on one has taken it out first, which is one step
    of the interpreter, so it is never seen half changed, and nothing is added to what has gone.

    Args:
        call: Calls whoever takes the sums. They are called once, and again only after they have begun to take.
    """

    __slots__ = ("_call", "_called", "_sums")

    def __init__(self, call: Callable[[], None]) -> None:
        self._sums: Final[dict[Key, Sum]] = {}
        self._call: Final = call
        self._called = False

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, key: Key, at: int, ends: int, amount: int) -> None:
        """So much more was used. Times are microseconds since 1970."""
        one = self._sums.pop(key, None)
        if one is None:
            one = Sum(at, ends)
        elif at > one.at:
            one.at = at
        one.amount += amount
        self._sums[key] = one
        if not self._called:  # asked once it is back: who has looked for it meanwhile, in vain, has said so before
            self._called = True
            self._call()

    def take(self) -> Iterator[tuple[Key, Sum]]:
        """All that is there, each once."""
        self._called = False
        while True:
            try:
                yield self._sums.popitem()
            except KeyError:
                return
