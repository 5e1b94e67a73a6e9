"""Log messages of servers that belong to no call, until they are passed on: a few together, not all of a flood. Pure.

In: who says it, what. Out: per source a batch, with the number of those that were too many. Logs are said to whoever
listens now; of the rest only the number is kept, so that nothing is left out silently.
Cases: `tests/flow/notify/test_log_lines.py`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import msgspec

from narthex.flow.codec.jsonrpc import encode

Source = TypeVar("Source", bound=Hashable)
MOST_LINES = 100
MOST_BYTES = 64 * 1024
"""Of one source at a time, and of one reader that does not read."""
MOST_SOURCES = 1000


class Batch(msgspec.Struct):
    """Parameters of `notifications/message` as they came, in order, and how many more there were."""

    lines: list[bytes] = []
    size: int = 0
    left_out: int = 0


class LogLines(Generic[Source]):
    """What waits to be passed on, by source."""

    def __init__(self) -> None:
        self._waiting: dict[Source, Batch] = {}

    def put(self, source: Source, params: bytes) -> bool:
        """Keep a message. Returns whether it is the first that waits."""
        first = not self._waiting
        batch = self._waiting.get(source)
        if batch is None:
            if len(self._waiting) >= MOST_SOURCES:
                return False
            batch = self._waiting[source] = Batch()
        if len(batch.lines) >= MOST_LINES or batch.size + len(params) > MOST_BYTES:
            batch.left_out += 1
        else:
            batch.lines.append(params)
            batch.size += len(params)
        return first

    def take(self) -> dict[Source, Batch]:
        """All that waits; nothing does, then."""
        waiting, self._waiting = self._waiting, {}
        return waiting


def left_out(server: str, count: int) -> bytes:
    """The parameters of the message that says so."""
    text = f"{count} log messages of server {server} were left out: too many at a time"
    return encode({"level": "warning", "logger": "narthex", "data": text})
