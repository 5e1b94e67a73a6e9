"""What is to be written, kept until the end of a turn of the event loop and then written in one go.

A write is a system call that wakes whoever waits for its bytes. Made one by one between calls, each costs a wake-up of
its own and throws the interpreter out of the processor's caches; made together, the first one wakes the reader for all.
Measured in `docs/decisions/writes-at-the-end-of-a-turn.md`. Order is kept: what goes through the outbox on a
connection must all go through it, and `flush` comes before a close.
Cases: `tests/flow/test_outbox.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

_log: Final = logging.getLogger("narthex.outbox")


def _at_the_end_of_this_turn(flush: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_soon(flush)


class Outbox:
    """One for all connections of a loop.

    Args:
        schedule: Arranges that what it is given runs once, soon; for a test also at once.
    """

    __slots__ = ("_pending", "_schedule")

    def __init__(self, schedule: Callable[[Callable[[], None]], object] = _at_the_end_of_this_turn) -> None:
        self._pending: list[tuple[Callable[[Any], object], Any]] = []
        self._schedule = schedule

    def put(self, write: Callable[[Any], object], data: Any) -> None:
        """Have `write(data)` called: `transport.write` with bytes, or `transport.writelines` with pieces."""
        pending = self._pending
        pending.append((write, data))
        if len(pending) == 1:
            self._schedule(self.flush)

    def flush(self) -> None:
        """Write what is there, in order. A connection that has gone meanwhile costs the others nothing."""
        pending, self._pending = self._pending, []
        for write, data in pending:
            try:
                write(data)
            except Exception as error:
                _log.debug("not written: %r", error)
