"""Brings records to one sink: each at least once, in order, for as long as the sink takes to take them.

In: a reader of the journal, a sink, where to keep how far it is. Out: nothing; `state` says how it goes. While the sink
is away nothing is held in memory: the journal is the spool, and what was sent since the last word of the sink is read
again. A thread of its own for each sink, in a process beside the gateway.
Cases: `tests/telemetry/audit/exports/test_pump.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from narthex.errors import StoreError
from narthex.telemetry.audit.exports.sink import Sink, SinkError, State
from narthex.telemetry.audit.exports.tail import Places, Tail

BATCH, BATCH_BYTES = 500, 1024 * 1024
CONFIRM_RECORDS, CONFIRM_S = 5_000, 5.0
"""So many records, or so long after the first of them, are sent before the sink must say that it has them."""
POLL_S = 0.5
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0


class Kept(Protocol):
    """Where is kept how far a sink is; `store.exports.ExportBook` is one. Raises StoreError."""

    def read(self) -> Places: ...
    def write(self, places: Places) -> None: ...


class Pump:
    """One sink's way. `run` returns once `stop` is set."""

    def __init__(
        self, name: str, tail: Tail, sink: Sink, kept: Kept, *,
        stop: threading.Event, now: Callable[[], float] = time.monotonic, chance: Callable[[], float] = lambda: 0.5,
    ) -> None:  # fmt: skip
        self.state = State(name)
        self._tail, self._sink, self._kept = tail, sink, kept
        self._stop, self._now, self._chance = stop, now, chance
        self._pending, self._refused, self._since, self._until = 0, 0, 0.0, ""
        self._failures = 0

    def run(self) -> None:
        """Send what there is and what comes."""
        known = False
        while not self._stop.is_set():
            try:
                if not known:
                    self._go_back()
                    known = True
                pause = 0.0 if self._step() else POLL_S
            except (SinkError, StoreError) as error:
                self._sink.close()
                self._pending = self._refused = 0  # nobody has a word for it
                self.state.problem = error.problem if isinstance(error, StoreError) else str(error)
                self._failures += 1
                known = False
                pause = self._retry_s()
            self._stop.wait(pause)
        with suppress(SinkError, StoreError):  # what has no word for it is sent again by the next process
            self._confirm()
        self._sink.close()

    def _step(self) -> bool:
        """One batch, and the sink's word for it where that is due. Was there something to send?"""
        records = self._tail.read(BATCH, BATCH_BYTES)
        if records:
            if not self._pending:
                self._since = self._now()
            self._refused += self._sink.send(records)
            self._pending += len(records)
            self._until = str(records[-1].get("time", ""))
        due = self._sink.answers or self._pending >= CONFIRM_RECORDS or self._now() - self._since >= CONFIRM_S
        if due:
            self._confirm()
        return bool(records)

    def _confirm(self) -> None:
        """Have the sink's word for all that was sent to it, and keep how far that is."""
        if not self._pending:
            return
        self._sink.confirm()
        self._kept.write(self._tail.places)
        state = self.state
        state.sent, state.refused = state.sent + self._pending - self._refused, state.refused + self._refused
        state.until, state.problem = self._until, ""
        self._pending = self._refused = self._failures = 0

    def _go_back(self) -> None:
        """To what the sink has said it has."""
        self._tail.go_back(self._kept.read())
        self._pending = self._refused = 0

    def _retry_s(self) -> float:
        return min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 10)) * (0.5 + self._chance() / 2)
