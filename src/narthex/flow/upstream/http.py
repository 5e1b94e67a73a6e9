"""A server over Streamable HTTP, of either era: answers are read as MCP and handed on as they arrive.

Cases: `tests/flow/upstream/test_http.py`, faults in `tests/e2e/test_faults.py`.
Source: RFC 9112; MCP 2026-07-28 and 2025-11-25, Streamable HTTP transport.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any, Final

from narthex.errors import ContentBlocked, GatewayError, Overloaded, ParseError, UpstreamUnavailable
from narthex.flow.codec.handshake import cancelled_body
from narthex.flow.codec.headers import routing_headers
from narthex.flow.codec.jsonrpc import decode_answer, decode_incoming
from narthex.flow.codec.sse import EventParser
from narthex.flow.held import LARGE, Held
from narthex.flow.upstream.connection import HttpConnection, HttpPool, ask
from narthex.flow.upstream.notice import MOST_NOTICES, Notice
from narthex.flow.upstream.port import NOBODY, NOTHING_SHOWN, Behalf, Dialect, Flight, Outgoing, SessionLost, Sink
from narthex.types import ServerSpec

SPLICE: Final = 64 * 1024
"""JSON bodies above this are offered to the sink as they arrive."""
_log: Final = logging.getLogger("narthex.upstream")


class HttpChannel:
    """One conversation with a server over Streamable HTTP: a stateless target, or a legacy session."""

    def __init__(self, spec: ServerSpec, pool: HttpPool, dialect: Dialect, held: Held, behalf: Behalf = NOBODY) -> None:
        self.spec = spec
        self.dialect = dialect
        self.behalf = behalf
        self.pool = pool
        self.shown = behalf.shown
        self.alive = True
        self.last_used = 0.0
        self.open_calls = 0
        self._held = held
        self.next_id: Callable[[], int] = itertools.count(2).__next__
        self.calls_are: type[HttpCall] = HttpCall
        self._notices: set[Notice] = set()
        self._deaf_told = False
        self._modern = dialect.era == "modern"
        self._head = request_head(spec, pool, dialect)
        self.small = min(SPLICE, spec.max_answer)
        """JSON bodies up to this need no bound of their own."""

    def request(self, out: Outgoing, sink: Sink) -> Flight:
        shown = self.shown.lines
        if shown is None:
            call = self.calls_are(self, sink, out, b"")
            call.dialing = asyncio.ensure_future(call.obtain())
            return call
        data = self.wire(out, shown)
        call = self.calls_are(self, sink, out, data)
        connection = self.pool.take()
        if connection is not None:
            call.connection = connection
            connection.send(call, data)
        else:
            call.dialing = asyncio.ensure_future(call.dial())
        return call

    def wire(self, out: Outgoing, shown: bytes) -> bytes:
        """A request as it goes out, with what it shows of us."""
        body = out.body
        if self._modern:
            routing = routing_headers(out.method, out.name)
            return b"%b%b%b%bContent-Length: %d\r\n\r\n%b" % (self._head, shown, routing, out.lines, len(body), body)
        return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (self._head, shown, out.lines, len(body), body)

    def notify(self, body: bytes) -> None:
        if len(self._notices) >= MOST_NOTICES:
            if not self._deaf_told:
                self._deaf_told = True
                _log.warning("server %s acknowledges nothing: notifications to it are dropped", self.spec.name)
            return
        notice = Notice(self._notices)
        shown = self.shown.lines
        connection = self.pool.take() if shown is not None else None
        if shown is not None and connection is not None:
            notice.send(connection, b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head, shown, len(body), body))
        else:
            _spawn(self._notify(notice, body))

    async def _notify(self, notice: Notice, body: bytes) -> None:
        try:
            shown = await self.shown.obtain()
            data = b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head, shown, len(body), body)
            notice.send(await self.pool.dial(), data)
        except GatewayError as error:
            notice.over()
            _log.warning("server %s: a notification was not delivered: %s", self.spec.name, error.detail or error)

    async def close(self) -> None:
        if self.alive and self.dialect.session_id is not None:
            self.alive = False
            head = self._head.replace(b"POST ", b"DELETE ", 1)
            try:
                async with asyncio.timeout(2):
                    data = b"%b%bContent-Length: 0\r\n\r\n" % (head, await self.shown.obtain())
                    await ask(self.pool, data, max_answer=LARGE)
            except (TimeoutError, GatewayError):
                pass  # politeness: the server forgets the session by itself
        self.alive = False


class HttpCall:
    """One request under way: reads the answer as MCP. It is the channel's `Flight` and the connection's `Receiver`."""

    __slots__ = (
        "_answered", "_challenge", "_chunks", "_events", "_held", "_json", "_out", "_resent", "_shown_twice", "_size",
        "_spliced", "_status", "_wire",
        "channel", "connection", "dialing", "retry_after_s", "sink",
    )  # fmt: skip

    def __init__(self, channel: HttpChannel, sink: Sink, out: Outgoing, wire: bytes) -> None:
        self.channel = channel
        self.sink: Sink | None = sink
        self._out = out
        self._wire = wire
        self.connection: HttpConnection | None = None
        self.dialing: asyncio.Future[None] | None = None
        self.retry_after_s: float | None = None
        self._resent = False
        self._status = 0
        self._chunks: list[bytes | bytearray] = []
        self._size = 0
        self._held = 0
        self._spliced = False
        self._json = False
        self._events: EventParser | None = None
        self._answered = False
        self._challenge = b""
        self._shown_twice = False

    # --- Flight

    def pause(self) -> None:
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        if self.connection is not None:
            self.connection.resume()

    def cancel(self, reason: str) -> None:
        if self.sink is None:
            return
        self._drop()
        if self.connection is not None and not self.channel._modern:
            self.channel.notify(cancelled_body(self._out.id, reason))

    def _drop(self) -> None:
        self.sink = None
        self._release()
        if self.dialing is not None:
            self.dialing.cancel()
        if self.connection is not None:
            self.connection.abandon()

    # --- sending

    async def dial(self) -> None:
        pool = self.channel.pool
        try:
            connection = await pool.dial()
        except GatewayError as error:
            self._give(error)
            return
        self.dialing = None
        if self.sink is None:
            pool.release(connection)
            return
        self.connection = connection
        connection.send(self, self._wire)

    async def obtain(self) -> None:
        """What is shown to the server is not there yet: send once it is."""
        try:
            shown = await self.channel.shown.obtain()
        except GatewayError as error:
            self._give(error)
            return
        await self._send(shown)

    async def _again(self, status: int) -> None:
        """The server refuses what it was shown: send once more with something else, if there is anything."""
        channel = self.channel
        try:
            shown = await channel.shown.again(status, self._challenge, self._wire)
        except GatewayError as error:
            self._give(error)
            return
        if shown is None:
            self._give(refused(channel.spec.name, status, self.retry_after_s))
        else:
            await self._send(shown)

    async def _send(self, shown: bytes) -> None:
        self._wire = self.channel.wire(self._out, shown)
        self._status, self._size, self._chunks, self._json = 0, 0, [], False
        connection = self.channel.pool.take()
        if connection is None:
            await self.dial()
        elif self.sink is None:
            self.channel.pool.release(connection)
        else:
            self.dialing, self.connection = None, connection
            connection.send(self, self._wire)

    # --- Receiver

    def whole(self, headers: dict[bytes, bytes], body: bytes) -> None:
        sink = self.sink
        if sink is None or headers.get(b"content-type") != b"application/json" or len(body) > self.channel.small:
            self.head(200, headers, len(body))
            self.body(body)
            self.end()
            return
        self.connection = None  # it is back in its pool: nothing that happens to this call may touch it
        self._out.status = 200
        self._finish_json(sink, body)

    def head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        self._status = self._out.status = status
        kind = headers.get(b"content-type", b"")
        kind = kind.partition(b";")[0].strip().lower()
        self._json = kind == b"application/json" or kind.endswith(b"+json")
        if status == 200 and kind == b"text/event-stream":
            self._events = EventParser(self.channel.spec.max_answer)
            if self.sink is not None:
                self.sink.started(True)
            return
        if length is not None and length > self.channel.spec.max_answer:
            self._too_large()
        elif status == 200 and self._json and length is not None and length > SPLICE:
            self._size = -length  # negative: its first bytes decide whether it is spliced
        if status != 200 and (retry := headers.get(b"retry-after", b"")).isdigit():
            self.retry_after_s = min(float(retry), 3600.0)
        if status in (401, 403):
            self._challenge = headers.get(b"www-authenticate", b"")

    def body(self, data: bytes) -> None:
        if self.sink is None:
            return
        elif self._events is not None:
            self._event_data(self._events, data)
        elif self._spliced:
            self.sink.chunk(data)
        else:
            self._collect(self.sink, data)

    def _collect(self, sink: Sink, data: bytes) -> None:
        if self._size < 0:
            if sink.splice(data, -self._size):
                self._spliced = True
                sink.chunk(data)
                return
            self._size = 0
        if len(self._chunks) < 2:
            self._chunks.append(bytearray(data) if self._chunks else data)
        else:
            self._chunks[1] += data  # grows in place: a list of one-byte pieces would weigh fifty times its bytes
        self._size += len(data)
        if self._size > self.channel.spec.max_answer:
            self._too_large()
        elif self._size > LARGE:
            self._hold(self._size - self._held)

    def _event_data(self, events: EventParser, data: bytes) -> None:
        try:
            found = events.feed(data)
        except ParseError:
            self._too_large()
            return
        for event in found:
            if self.sink is None:
                return
            if event.event != "message" or not event.data:
                continue
            try:
                message = decode_incoming(event.data)
            except ParseError as error:
                self._garbage(error.detail)
                return
            if not message.method:
                self._answered = True
            self.sink.message(message)

    def end(self) -> None:
        sink = self.sink
        self.connection = None  # it is back in its pool: nothing that happens to this call may touch it
        if self._held:
            self._release()
        if sink is None:
            return
        if self._events is not None or self._spliced:
            self.sink = None
            sink.finished()
        elif self._status == 200 and self._json:
            self._finish_json(sink, b"".join(self._chunks))
        else:
            self._finish_status(sink)

    def _finish_json(self, sink: Sink, body: bytes) -> None:
        try:
            message = decode_answer(body, self._out.id)
        except ParseError as error:
            self._garbage(error.detail)
            return
        sink.message(message)
        if self.sink is not None:
            self.sink = None
            sink.finished()

    def _finish_status(self, sink: Sink) -> None:
        """An answer that is not plainly a result: a lost session, a JSON-RPC error with its status, or a refusal."""
        status, channel = self._status, self.channel
        if status in (401, 403) and channel.shown is not NOTHING_SHOWN and not self._shown_twice:
            # Refused before it was done: it may be sent again.
            self._shown_twice = True
            self.dialing = asyncio.ensure_future(self._again(status))
            return
        if status == 404 and channel.dialect.session_id is not None:
            channel.alive = False
            self._give(SessionLost("the server ended our session"))
            return
        if self._json and 400 <= status < 500 and status not in (401, 403, 429):
            try:
                message = decode_incoming(b"".join(self._chunks))
            except ParseError:
                message = None
            if message is not None and message.error:
                sink.message(message)
                if self.sink is not None:
                    self.sink = None
                    sink.finished()
                return
        self._give(refused(channel.spec.name, status, self.retry_after_s))

    def lost(self, detail: str, *, sent: bool, begun: bool) -> None:
        self._release()
        if self.sink is None:
            return
        if self._out.resend and not self._resent and not begun:
            self._resent = True
            self.connection = None
            self.dialing = asyncio.ensure_future(self.dial())
            return
        name = self.channel.spec.name
        self._give(UpstreamUnavailable(f"server {name} broke off", detail=detail, sent=sent))

    def _give(self, error: GatewayError) -> None:
        sink, self.sink = self.sink, None
        self._release()
        if sink is not None:
            sink.failed(error)

    def _too_large(self) -> None:
        sink = self.sink
        self._drop()
        if sink is not None:
            sink.failed(ContentBlocked(f"the answer of server {self.channel.spec.name} is too large"))

    def _garbage(self, detail: str) -> None:
        sink = self.sink
        self._drop()
        if sink is not None:
            name = self.channel.spec.name
            sink.failed(UpstreamUnavailable(f"server {name} does not speak MCP", detail=detail, sent=True))

    def _hold(self, more: int) -> None:
        try:
            self.channel._held.take(more)
            self._held += more
        except Overloaded as error:
            sink = self.sink
            self._drop()
            if sink is not None:
                sink.failed(error)

    def _release(self) -> None:
        if self._held:
            self.channel._held.give(self._held)
            self._held = 0


def refused(name: str, status: int, retry_after_s: float | None = None) -> UpstreamUnavailable:
    """What a status that is no MCP answer means. Nobody may act on a redirect that a server sends us."""
    if status in (401, 403):
        public = f"server {name} refused the gateway's credential"
    elif 300 <= status < 400:
        public = f"server {name} redirects, which is not followed"
    elif status == 429 or status == 503:
        public = f"server {name} is overloaded"
    else:
        public = f"server {name} answered HTTP {status}"
    counts = not 400 <= status < 500 or status == 429
    return UpstreamUnavailable(public, detail=f"HTTP {status}", retry_after_s=retry_after_s, sent=True, counts=counts)


def request_head(spec: ServerSpec, pool: HttpPool, dialect: Dialect) -> bytes:
    """The part of a request's head that is the same for every request of a channel."""
    target = pool.target
    default = {"http": 80, "https": 443}[target.scheme]
    host = f"[{target.host}]" if ":" in target.host else target.host
    authority = host if target.port == default else f"{host}:{target.port}"
    lines = [
        f"POST {pool.dialer.request_target(target)} HTTP/1.1",
        f"Host: {authority}",
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        "Accept-Encoding: identity",
        "User-Agent: narthex",
    ]
    lines += [f"{name}: {value}" for name, value in pool.dialer.proxy_headers(target)]
    lines += [f"{name}: {value}" for name, value in target.headers]
    if dialect.version >= "2025-06-18":
        lines.append(f"MCP-Protocol-Version: {dialect.version}")
    if dialect.session_id is not None:
        lines.append(f"Mcp-Session-Id: {dialect.session_id}")
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")


_tasks: Final[set[asyncio.Future[None]]] = set()


def _spawn(coroutine: Any) -> None:
    task = asyncio.ensure_future(coroutine)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
