"""A clock that passes only when told to: an hour costs a test a microsecond."""

from __future__ import annotations


class FakeClock:
    """Monotonic seconds when called, wall-clock seconds from `wall`.

    Args:
        start: Monotonic seconds at first.
        epoch: Wall-clock seconds since 1970 at first.
    """

    def __init__(self, start: float = 0.0, epoch: float = 1_700_000_000.0) -> None:
        self._now = start
        self._offset = epoch - start

    def __call__(self) -> float:
        return self._now

    def wall(self) -> float:
        """Wall-clock seconds: they pass like the others, unless `set_wall` moves them."""
        return self._now + self._offset

    def advance(self, seconds: float) -> float:
        """Let time pass; returns the new monotonic time. Raises ValueError for going back: a monotonic clock cannot."""
        if seconds < 0:
            raise ValueError("a monotonic clock does not go back")
        self._now += seconds
        return self._now

    def set_wall(self, seconds: float) -> None:
        """Move the wall clock alone, forward or back, as an operator or NTP does."""
        self._offset = seconds - self._now
