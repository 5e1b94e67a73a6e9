"""How a limit counts. Each algorithm works on one bucket of a dict, in whole numbers only.

In: the bucket's dict and key, an amount, the time (whole microseconds, never going back). Out: whether it was taken,
how long to wait, what is used. `take` followed by `correct` of the same amount leaves no trace, so that several limits
are taken all or none. Time and amounts are integers: sums are exact, and money has no rounding.
Cases: `tests/flow/limit/test_algorithms.py`, which plays each against a naive model. Source: design §6;
`docs/decisions/sliding-windows.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from narthex.flow.limit.buckets import Shard
from narthex.flow.limit.counters import Count, Window

SLOTS = 128
"""Entries of a sliding window that are kept apart. What is beyond shares entries, each of a 128th of the window."""
NEVER = -1
"""The wait for what is more than there ever is room for."""


class Algorithm:
    """What every algorithm can do. `most`: what there is room for in all. A base class and no `Protocol`, so that
    compiled code calls its methods directly."""

    def __init__(self, most: int) -> None:
        self.most = most

    def take(self, shard: Shard, key: bytes, amount: int, now: int) -> bool:
        """Take an amount, or nothing where there is no room for all of it. 0 is always taken."""
        raise NotImplementedError

    def wait(self, shard: Shard, key: bytes, amount: int, now: int) -> int:
        """How long until an amount can be taken if nobody takes any meanwhile: 0 for now, `NEVER`."""
        raise NotImplementedError

    def receipt(self, shard: Shard, key: bytes, now: int) -> int:
        """What `correct` is to be told of what was just taken: when that was; of a token bucket, its state."""
        raise NotImplementedError

    def correct(self, shard: Shard, key: bytes, change: int, at: int, now: int) -> None:
        """What was taken with the receipt `at` was more (or, below 0, less) by so much. It may go beyond what there is
        room for."""
        raise NotImplementedError

    def used(self, shard: Shard, key: bytes, now: int) -> tuple[int, int]:
        """What is used, and how long until some of it is free again (0 where nothing is used)."""
        raise NotImplementedError

    def over(self, now: int) -> Callable[[Any], bool]:
        """Says of a bucket whether it holds nothing any more."""
        raise NotImplementedError

    def lasts(self, at: int, ahead: int) -> tuple[int, int]:
        """Which slot of time something taken at `at` belongs to, and when it counts no more, by the wall clock."""
        raise NotImplementedError


_WIDE: Final = Struct("<qq")
_NARROW: Final = Struct("<qI")
"""A time and an amount; of what is counted one by one, an amount is small."""


class Sliding(Algorithm):
    """At most `most` in any interval of `window` microseconds, its beginning left out: exactly.

    With more than `SLOTS` entries in a window, later ones that fall into the same slot share one, with the time of the
    newest: then room may come back by up to a slot late, and never early.
    """

    def __init__(self, most: int, window: int, *, by_one: bool = False) -> None:
        super().__init__(most)
        self._pair = _NARROW if by_one else _WIDE
        self._pack, self._unpack, self._size = self._pair.pack, self._pair.unpack_from, self._pair.size
        self._full = (SLOTS - 1) * self._size
        self.window = window
        self.slot = max(1, window // SLOTS)

    def take(self, shard: Shard, key: bytes, amount: int, now: int) -> bool:
        if not amount:
            return True
        one = shard.get(key)
        until = now - self.window
        at: int = one.at if one is not None else until
        if one is None or at <= until or not one.level:
            if amount > self.most:
                return False
            shard[key] = Window(amount, now, amount)
            return True
        if one.level + amount > self.most:
            self._forget(one, until)
            if one.level + amount > self.most:
                return False
        log: bytes = one.log
        shares = at == now
        if not shares and len(log) >= self._full:
            self._forget(one, until)
            log = one.log
            shares = len(log) >= self._full and at // self.slot == now // self.slot
        if shares:
            one.last += amount
        else:
            one.log = log + self._pack(at, one.last)
            one.last = amount
        one.level += amount
        one.at = now
        return True

    def _forget(self, one: Window, until: int) -> int:
        """Let go of what has left the window. Returns when the oldest entry was that is left, if any is."""
        newest: int = one.at
        if newest <= until:
            one.level, one.last, one.log = 0, 0, b""
            return newest
        log: bytes = one.log
        if not log:
            return newest
        oldest: int = self._unpack(log)[0]
        if oldest > until:
            return oldest
        end, oldest = 0, newest
        for at, amount in self._pair.iter_unpack(log):
            if at > until:
                oldest = at
                break
            one.level -= amount
            end += self._size
        one.log = log[end:]
        return oldest

    def wait(self, shard: Shard, key: bytes, amount: int, now: int) -> int:
        if amount > self.most:
            return NEVER
        one = shard.get(key)
        if one is None:
            return 0
        self._forget(one, now - self.window)
        lacking, freed = one.level + amount - self.most, now - self.window
        entries = iter((*self._pair.iter_unpack(one.log), (one.at, one.last)))
        while lacking > 0:
            freed, less = next(entries)
            lacking -= less
        return freed + self.window - now

    def receipt(self, shard: Shard, key: bytes, now: int) -> int:
        return now

    def correct(self, shard: Shard, key: bytes, change: int, at: int, now: int) -> None:
        if at <= now - self.window:
            return
        one = shard.get(key)
        if one is None:
            if change > 0:
                shard[key] = Window(change, at, change)
            return
        log, place = one.log, len(one.log)
        while place and self._unpack(log, place - self._size)[0] >= at:
            place -= self._size
        when, amount = (one.at, one.last) if place == len(log) else self._unpack(log, place)
        if when < at or (when > at and change > 0 and len(log) < self._full):  # its own entry is not there any more
            if change > 0:
                self._insert(one, change, at, place)
            return
        amount = max(0, amount + change)
        if place == len(log):
            one.level += amount - one.last
            one.last = amount
            if not amount and log:
                one.at, one.last = self._unpack(log, len(log) - self._size)
                one.log = log[: -self._size]
        else:
            one.level += amount - self._unpack(log, place)[1]
            one.log = log[:place] + (self._pack(when, amount) if amount else b"") + log[place + self._size :]

    def _insert(self, one: Window, amount: int, at: int, place: int) -> None:
        one.level += amount
        if one.at < at:
            one.log += self._pack(one.at, one.last)
            one.at, one.last = at, amount
        else:
            one.log = one.log[:place] + self._pack(at, amount) + one.log[place:]

    def used(self, shard: Shard, key: bytes, now: int) -> tuple[int, int]:
        one = shard.get(key)
        if one is None:
            return 0, 0
        oldest = self._forget(one, now - self.window)
        level: int = one.level
        return level, oldest + self.window - now if level else 0

    def over(self, now: int) -> Callable[[Any], bool]:
        until = now - self.window
        return lambda one: one.at <= until or not one.level

    def lasts(self, at: int, ahead: int) -> tuple[int, int]:
        return (at + ahead) // self.slot, at + ahead + self.window


class TokenBucket(Algorithm):
    """`most` in each `window` on average, at most `burst` at once: never more than burst + rate x time.

    A bucket is one number: the time at which it is full again, in microseconds times `most`, so that a unit is worth
    `window` and nothing is rounded (the generic cell rate algorithm).
    """

    def __init__(self, most: int, window: int, burst: int) -> None:
        super().__init__(burst)
        self.rate = most
        self.window = window
        self.depth = burst * window

    def take(self, shard: Shard, key: bytes, amount: int, now: int) -> bool:
        if not amount:
            return True
        moment = now * self.rate
        full = shard.get(key, 0)
        full = (full if full > moment else moment) + amount * self.window
        if full - moment > self.depth:
            return False
        shard[key] = full
        return True

    def wait(self, shard: Shard, key: bytes, amount: int, now: int) -> int:
        if amount > self.most:
            return NEVER
        moment = now * self.rate
        late = max(shard.get(key, 0), moment) + amount * self.window - moment - self.depth
        return max(0, int(-(-late // self.rate)))

    def receipt(self, shard: Shard, key: bytes, now: int) -> int:
        """When it is full again, in its own units: so little lacks since, whatever others take."""
        return int(shard.get(key, 0))

    def correct(self, shard: Shard, key: bytes, change: int, at: int, now: int) -> None:
        full, moment = shard.get(key, 0), now * self.rate
        if change > 0:
            shard[key] = max(full, moment) + change * self.window
        else:  # what has come back meanwhile cannot be given back, too: it may have run over
            shard[key] = full - min(-change * self.window, max(0, at - moment))

    def used(self, shard: Shard, key: bytes, now: int) -> tuple[int, int]:
        behind = max(0, shard.get(key, 0) - now * self.rate)
        return -(-behind // self.window), -(-behind // self.rate)

    def over(self, now: int) -> Callable[[Any], bool]:
        moment = now * self.rate
        return lambda full: full <= moment

    def lasts(self, at: int, ahead: int) -> tuple[int, int]:
        raise NotImplementedError("a bucket is not kept")


class Periodic(Algorithm):
    """At most `most` in each period: of a calendar, or of fixed length. A period begins new, whatever was before.

    Args:
        bounds: First moment of the period that holds a moment, and the first behind it, by the wall clock.
    """

    def __init__(self, most: int, bounds: Callable[[int], tuple[int, int]]) -> None:
        super().__init__(most)
        self.bounds = bounds
        self.ahead = 0
        """How far the wall clock is ahead of the time that is handed in."""
        self.start = 0
        """Of the period that counts now, by the wall clock."""
        self._until = 0
        self.end = 0
        """Its end, by the time that is handed in."""

    def set_ahead(self, ahead: int, now: int) -> None:
        """The wall clock was set."""
        if ahead != self.ahead:
            self.ahead = ahead
            self._turn(now)

    def _turn(self, now: int) -> None:
        """A period that has begun goes on where the clock was set back: nothing is given anew by that."""
        start, end = self.bounds(now + self.ahead)
        if start >= self.start:
            self.start, self._until = start, end
        self.end = self._until - self.ahead

    def _current(self, shard: Shard, key: bytes, now: int) -> Count:
        """The bucket of this period; one of another begins anew."""
        if now >= self.end:
            self._turn(now)
        one: Count | None = shard.get(key)
        if one is None:
            one = shard[key] = Count(self.start, 0)
        elif one.start < self.start:
            one.start, one.used = self.start, 0
        return one

    def take(self, shard: Shard, key: bytes, amount: int, now: int) -> bool:
        if not amount:
            return True
        one = self._current(shard, key, now)
        if one.used + amount > self.most:
            return False
        one.used += amount
        return True

    def wait(self, shard: Shard, key: bytes, amount: int, now: int) -> int:
        if amount > self.most:
            return NEVER
        one = self._current(shard, key, now)
        return self.end - now if one.used + amount > self.most else 0

    def receipt(self, shard: Shard, key: bytes, now: int) -> int:
        return now

    def correct(self, shard: Shard, key: bytes, change: int, at: int, now: int) -> None:
        one = self._current(shard, key, now)
        if at + self.ahead >= one.start:
            one.used = max(0, one.used + change)

    def used(self, shard: Shard, key: bytes, now: int) -> tuple[int, int]:
        one = self._current(shard, key, now)
        return one.used, self.end - now if one.used else 0

    def over(self, now: int) -> Callable[[Any], bool]:
        if now >= self.end:
            self._turn(now)
        start = self.start
        return lambda one: one.start < start or not one.used

    def lasts(self, at: int, ahead: int) -> tuple[int, int]:
        moment = at + ahead
        return (self.start, self._until) if self.start <= moment < self._until else self.bounds(moment)


class Concurrent(Algorithm):
    """At most `most` at a time: what is taken is held until it is given back."""

    def take(self, shard: Shard, key: bytes, amount: int, now: int) -> bool:
        held = shard.get(key, 0)
        if held + amount > self.most:
            return not amount
        shard[key] = held + amount
        return True

    def wait(self, shard: Shard, key: bytes, amount: int, now: int) -> int:
        """Nobody knows when a call ends: a second is a good time to ask again."""
        if amount > self.most:
            return NEVER
        return 1_000_000 if shard.get(key, 0) + amount > self.most else 0

    def receipt(self, shard: Shard, key: bytes, now: int) -> int:
        return now

    def correct(self, shard: Shard, key: bytes, change: int, at: int, now: int) -> None:
        held = shard.get(key, 0) + change
        if held > 0:
            shard[key] = held
        else:
            shard.pop(key, None)

    def used(self, shard: Shard, key: bytes, now: int) -> tuple[int, int]:
        return shard.get(key, 0), 0

    def over(self, now: int) -> Callable[[Any], bool]:
        return lambda held: held <= 0

    def lasts(self, at: int, ahead: int) -> tuple[int, int]:
        raise NotImplementedError("what is concurrent ends with the process")
