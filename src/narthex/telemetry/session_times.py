"""How long sessions lasted, by a few labels: those of clients with the gateway, and those of the gateway with servers.

In: a session that has ended. Out: a reading for `Accounts.register`. Bounded as `tally.Tally` is.
Cases: `tests/telemetry/test_session_times.py`.
Source: OpenTelemetry, GenAI conventions, MCP: `mcp.server.session.duration`, `mcp.client.session.duration`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from narthex.telemetry.accounts import OTHER, Labels, Times

FIRST, LAST = 15, 37
"""Shown from 31 ms to 36 hours."""
MOST: Final = 256


class SessionTimes:
    """Histograms by the labels `names`; after `most` sets of values, one more for all others."""

    def __init__(self, *names: str, most: int = MOST) -> None:
        self._names: Final = names
        self._most: Final = most
        self._times: Final[dict[tuple[str, ...], Times]] = {}

    def add(self, seconds: float, *values: str) -> None:
        """A session of these values has ended. A clock that went back counts as no time."""
        times = self._times
        if values not in times and len(times) >= self._most:
            values = (OTHER,) * len(self._names)
        if values not in times:
            times[values] = Times(FIRST, LAST)
        times[values].add(max(seconds, 0.0))

    def read(self) -> Iterator[tuple[Labels, Times]]:
        """Each set of values with its histogram."""
        for values, found in list(self._times.items()):
            yield tuple(zip(self._names, values, strict=True)), found
