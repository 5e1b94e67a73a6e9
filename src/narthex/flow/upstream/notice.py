"""A message over HTTP that nobody waits for: its acknowledgement is bounded in time, in size and in number.

Cases: `tests/security/test_upstreams.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from narthex.flow.held import LARGE
from narthex.flow.upstream.connection import Receiver

NOTICE_S = 10.0
"""It gets this long to be acknowledged; then its connection is closed."""
MOST_NOTICES = 16
"""Notifications and replies of ours, per channel, that the server has not acknowledged; more are dropped."""


class Notice(Receiver):
    """One message, and the `Receiver` of its acknowledgement. It stands in `under_way` until that has come."""

    def __init__(self, under_way: set[Notice]) -> None:
        self._under_way = under_way
        self._connection: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._size = 0
        under_way.add(self)

    def send(self, connection: Any, data: bytes) -> None:
        """Write it on an `HttpConnection`."""
        self._connection = connection
        self._timer = asyncio.get_running_loop().call_later(NOTICE_S, self._drop)
        connection.send(self, data)

    def over(self) -> Any:
        self._under_way.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        connection, self._connection = self._connection, None
        return connection

    def _drop(self) -> None:
        connection = self.over()
        if connection is not None:
            connection.abandon()

    # --- Receiver

    def head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None: ...

    def body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > LARGE:
            self._drop()

    def end(self) -> None:
        self.over()

    def lost(self, detail: str, *, sent: bool, begun: bool) -> None:
        self.over()
