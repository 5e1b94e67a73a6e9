"""When to leave a failing server alone, and when to try it again.

In: the outcomes of calls, a monotonic clock, chance. Out: go, or how long to wait. Pure.
Cases: `tests/flow/upstream/test_breaker.py`.

Closed: calls pass. Five failures in a row, or ten in the last twenty outcomes, open it: nobody asks until a back-off is
over. Then one call goes as a probe (half-open) while the others wait: its success closes, its failure opens for longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

State = Literal["closed", "open", "half_open"]

IN_A_ROW: Final = 5
OF_LAST: Final = 20
SHARE: Final = 10
"""Failures among the last `OF_LAST` outcomes that open it: half of them."""
FIRST_S: Final = 1.0
LONGEST_S: Final = 30.0
PROBE_S: Final = 30.0
"""A probe whose outcome nobody reported by then counts as lost, and another call may go."""
ASK_AGAIN_S: Final = 1.0
"""What others are told to wait while a probe is under way."""

_WINDOW: Final = (1 << OF_LAST) - 1
_LATEST: Final = (1 << IN_A_ROW) - 1


class Breaker:
    """The breaker of one server.

    Args:
        chance: A number in [0, 1), evenly spread: back-offs are jittered over their whole length, so that many
            gateways do not come back in one moment.
    """

    __slots__ = ("_chance", "_failures", "_tries", "_until", "quiet", "state")

    def __init__(self, *, chance: Callable[[], float]) -> None:
        self.state: State = "closed"
        self.quiet = True
        """Closed, without a failure in the window: no success can change anything, so nobody need look at a clock."""
        self._chance = chance
        self._failures = 0  # the last outcomes as bits, the latest lowest, 1 a failure
        self._tries = 0  # how often it opened since it was last closed
        self._until = 0.0  # open: when a probe may go; half-open: when the probe counts as lost

    def allow(self, now: float) -> float:
        """May a call go? 0 for yes, and then its outcome is to be reported; else the seconds to wait.

        Args:
            now: Seconds on a monotonic clock.
        """
        if self.state == "closed":
            return 0.0
        wait_s = self.wait(now)
        if wait_s == 0.0:
            self.state = "half_open"
            self._until = now + PROBE_S
        return wait_s

    def wait(self, now: float) -> float:
        """What `allow` would answer, without taking the probe."""
        if self.state == "closed" or now >= self._until:
            return 0.0
        left = self._until - now
        return left if self.state == "open" else min(left, ASK_AGAIN_S)

    @property
    def failing(self) -> bool:
        """Did the latest call fail?"""
        return bool(self._failures & 1)

    def success(self, now: float) -> None:
        """A call was answered. While open it was sent before: that says nothing about now."""
        if self.state == "closed":
            if self._failures:
                self._failures = self._failures << 1 & _WINDOW
                self.quiet = not self._failures
        elif self.state == "half_open":
            self.state = "closed"
            self._failures = self._tries = 0
            self.quiet = True

    def failure(self, now: float) -> None:
        """A call failed by the server's fault (never by the caller's)."""
        self.quiet = False
        if self.state == "closed":
            self._failures = (self._failures << 1 | 1) & _WINDOW
            if self._failures & _LATEST == _LATEST or self._failures.bit_count() >= SHARE:
                self._open(now)
        elif self.state == "half_open":
            self._open(now)

    def forget(self, now: float) -> None:
        """A call ended without an outcome (cancelled by its caller). If it was the probe, another may go at once."""
        if self.state == "half_open":
            self.state = "open"
            self._until = now

    def _open(self, now: float) -> None:
        longest_s = min(LONGEST_S, FIRST_S * 2.0 ** min(self._tries, 10))
        self._tries += 1
        self.state = "open"
        self._until = now + longest_s * (1.0 - self._chance())  # never 0: 1 - chance is in (0, 1]
