"""The GET stream of legacy Streamable HTTP: what a server says outside the answers of calls.

In: the pool of a server's connections, a dialect. Out: each event's data, in order; how the stream was answered and why
it ended. When to open it again is `listening.py`'s business. Cases: `tests/flow/upstream/test_stream.py`.
Source: MCP 2025-11-25, transports ("Listening for Messages from the Server", "Resumability and Redelivery"); HTML
living standard §9.2.4 (`Last-Event-ID`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from narthex.errors import ParseError, UpstreamUnavailable
from narthex.flow.codec.sse import EventParser
from narthex.flow.upstream.connection import HttpConnection, HttpPool, Receiver
from narthex.flow.upstream.http import request_head
from narthex.flow.upstream.multiplex import NotMcp
from narthex.flow.upstream.port import Dialect
from narthex.types import ServerSpec

MOST_EVENT = 4 * 1024 * 1024
"""Bytes of one event: what a server asks of a client may hold an image."""
MOST_RETRY_S = 3600.0
_ID = re.compile(rb"[ -~\x80-\xff]{1,1024}")
_POST_ONLY = (b"Accept: ", b"Content-Type: ")


def get_head(spec: ServerSpec, pool: HttpPool, dialect: Dialect, last_id: str = "", shown: bytes = b"") -> bytes:
    """A whole GET for an event stream, on from the event `last_id` where that can stand in a header.

    Args:
        shown: The lines of the account.
    """
    target = pool.dialer.request_target(pool.target).encode("latin-1")
    lines = [b"GET %b HTTP/1.1" % target, b"Accept: text/event-stream", b"Cache-Control: no-store"]
    common = request_head(spec, pool, dialect).split(b"\r\n")[1:-1]
    lines += [line for line in common if not line.startswith(_POST_ONLY)]
    if can_resume(last_id):
        lines.append(b"Last-Event-ID: %b" % last_id.encode())
    return b"\r\n".join(lines) + b"\r\n" + shown + b"\r\n"


def can_resume(last_id: str) -> bool:
    """Can a server be told where to go on? An id that is no header value cannot be sent, so what it marks is lost."""
    return _ID.fullmatch(last_id.encode()) is not None


class EventStream(Receiver):
    """One GET, from its request to its end.

    Args:
        take: Gets the data of each event. It may raise `NotMcp`, which ends the stream.
        on_end: Told once, with the reason, when a stream that was open has ended other than by `close`.
    """

    def __init__(
        self, spec: ServerSpec, take: Callable[[bytes], None], on_end: Callable[[EventStream, str], None]
    ) -> None:
        self.delivered = False
        self._name = spec.name
        self._take = take
        self._on_end = on_end
        self._events = EventParser(min(spec.max_answer, MOST_EVENT))
        self._connection: HttpConnection | None = None
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._open = False

    @property
    def last_id(self) -> str:
        """The id of the last event, empty where it had none."""
        return self._events.last_id

    @property
    def retry_s(self) -> float:
        """For how long the server wants us to stay away; 0 where it does not say."""
        return min((self._events.retry_ms or 0) / 1000, MOST_RETRY_S)

    async def open(self, pool: HttpPool, head: bytes) -> int:
        """Ask for the stream. Returns the status; it is open only with 200. The caller sets the deadline.

        Raises:
            UpstreamUnavailable: Unreachable, broke off, or answered with something else than an event stream.
        """
        self._connection = await pool.dial()
        self._connection.send(self, head)
        try:
            return await self._status
        finally:
            if not self._open:
                self.close()

    def close(self) -> None:
        """End it; nothing more is told."""
        self._open = False
        connection, self._connection = self._connection, None
        if connection is not None and connection.receives(self):
            connection.abandon()

    # --- Receiver

    def head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        if self._status.done():
            return
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if status == 200 and kind != b"text/event-stream":
            detail = f"it answers GET with {kind[:80]!r} instead of an event stream"
            self._status.set_exception(UpstreamUnavailable(f"server {self._name} offers no stream", detail=detail))
            return
        self._open = status == 200
        self._status.set_result(status)

    def body(self, data: bytes) -> None:
        if not self._open:
            return
        try:
            for event in self._events.feed(data):
                self.delivered = True
                if event.event == "message" and event.data and self._open:
                    self._take(event.data)
        except ParseError as error:
            self._end(f"{error.public}: {error.detail}")
        except NotMcp:
            self._end("it sends what is no MCP")

    def end(self) -> None:
        self._end("the server ended it")

    def lost(self, detail: str, *, sent: bool, begun: bool) -> None:
        self._end(detail)

    def _end(self, detail: str) -> None:
        was_open = self._open
        self.close()
        if not self._status.done():
            self._status.set_exception(UpstreamUnavailable(f"server {self._name} broke off", detail=detail))
        elif was_open:
            self._on_end(self, detail)
