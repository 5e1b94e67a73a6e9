"""How late the event loop is: what a call waits for before anybody looks at it.

In: a timer that is due again and again. Out: `Times` of how late it came. Cases: `tests/telemetry/test_lag.py`.
"""

from __future__ import annotations

import asyncio
from typing import Final

from narthex.telemetry.accounts import Times

EVERY_S: Final = 0.1


class Lag:
    """Measures while it runs: `start`, `stop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, every_s: float = EVERY_S) -> None:
        self.times: Final = Times(4, 24)  # 15 µs to 16 s
        self._loop, self._every_s = loop, every_s
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._due = self._loop.time() + self._every_s
        self._timer = self._loop.call_at(self._due, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self.times.add(max(self._loop.time() - self._due, 0.0))
        self.start()
