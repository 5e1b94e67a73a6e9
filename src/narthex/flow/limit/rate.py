"""A cheap bound on requests of any kind, before it is known what they ask: per principal and per address.

In: whoever asks, the time. Out: how long to wait, 0 to go on. One number for each of them.
Cases: `tests/flow/limit/test_rate.py`. Source: design §3 ("Two moments of limits").
"""

from __future__ import annotations

from collections.abc import Hashable

MOST = 20_000
"""Who is remembered. Beyond, newcomers share one count, until others have been silent."""
_OTHERS = "others"


class RequestRate:
    """At most `per_second` requests a second of each, and so many at once.

    A number is the time, in seconds, at which all of them are free again.
    """

    __slots__ = ("_before", "_full", "_step", "_turned_at")

    def __init__(self, per_second: int) -> None:
        self._step = 1.0 / per_second
        self._full: dict[Hashable, float] = {}
        self._before: dict[Hashable, float] = {}
        self._turned_at = 0.0

    def take(self, who: Hashable, now: float) -> float:
        """Seconds to wait; 0.0 where the request may go on, and was counted."""
        full = self._full.get(who)
        if full is None:
            if len(self._full) >= MOST:
                who = _OTHERS
            full = self._full.get(who) or self._before.get(who, now)
        full = (full if full > now else now) + self._step
        if full - now > 1.0 + self._step / 2:  # rounding must not take the last one
            return full - now - 1.0
        self._full[who] = full
        return 0.0

    def sweep(self, now: float) -> None:
        """Forget who has been silent for two seconds: all that they had is free again."""
        if now >= self._turned_at + 2.0:
            self._full, self._before, self._turned_at = {}, self._full, now
