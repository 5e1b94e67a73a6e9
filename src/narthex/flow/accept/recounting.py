"""Tokens of calls that are over, counted exactly by a thread of its own; the event loop hears how many there were.

In: texts, and who wants to know. Out: `done(in, out)`, later, on the loop. What waits is bounded in bytes: beyond, and
where the tokenizer fails, the estimate stays, and is counted. Cases: `tests/flow/accept/test_recounting.py`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

import msgspec

from narthex.flow.limit.tokenizers import tokenizer

MOST_BYTES: Final = 16 * 1024 * 1024
"""Of texts that wait."""
_log: Final = logging.getLogger("narthex.limits")


class Recount(msgspec.Struct, frozen=True):
    """Arguments and answer of one call."""

    tokenizer: str
    arguments: bytes
    answer: bytes
    done: Callable[[int, int], None]

    @property
    def size(self) -> int:
        return len(self.arguments) + len(self.answer)


class Recounter:
    """One for a process. `missed`: calls whose estimate stays."""

    def __init__(self) -> None:
        self.missed = 0
        self._waiting = 0
        self._queue: SimpleQueue[tuple[Recount, asyncio.AbstractEventLoop] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, one: Recount) -> None:
        """Queue it. Never waits, never raises."""
        if self._waiting + one.size > MOST_BYTES:
            self.missed += 1
            return
        self._waiting += one.size
        if self._thread is None:
            self._thread = threading.Thread(target=self._count_all, name="narthex-tokens", daemon=True)
            self._thread.start()
        self._queue.put((one, asyncio.get_running_loop()))

    def close(self) -> None:
        """Count no more: of what waits the estimate stays."""
        self._queue.put(None)

    def _count_all(self) -> None:
        while (item := self._queue.get()) is not None:
            one, loop = item
            counts = self._count(one)
            try:
                loop.call_soon_threadsafe(self._counted, one, counts)
            except RuntimeError:  # the loop is closed
                return

    @staticmethod
    def _count(one: Recount) -> tuple[int, int] | None:
        try:
            count = tokenizer(one.tokenizer)
            return count(one.arguments), count(one.answer)
        except Exception:
            _log.exception("tokens cannot be counted: the estimate stays")
            return None

    def _counted(self, one: Recount, counts: tuple[int, int] | None) -> None:
        self._waiting -= one.size
        if counts is None:
            self.missed += 1
        else:
            one.done(*counts)
