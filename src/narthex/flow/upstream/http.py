"""A server over Streamable HTTP, of either era: pooled HTTP/1.1 connections, answers handed on as they arrive.

`HttpConnection` speaks HTTP to one origin, one request at a time; `HttpPool` keeps idle ones; `HttpChannel` speaks MCP.
Cases: `tests/flow/upstream/test_http.py`, faults in `tests/e2e/test_faults.py`.
Source: RFC 9112; MCP 2026-07-28 and 2025-11-25, Streamable HTTP transport.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any, Protocol

import httptools

from narthex.errors import ContentBlocked, GatewayError, Overloaded, ParseError, UpstreamUnavailable
from narthex.flow.codec.handshake import cancelled_body
from narthex.flow.codec.headers import routing_headers
from narthex.flow.codec.jsonrpc import decode_incoming
from narthex.flow.codec.sse import EventParser
from narthex.flow.held import LARGE, Held
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.port import Dialect, Outgoing, SessionLost, Sink
from narthex.types import HttpTarget, ServerSpec

IDLE_S = 4.0
"""An idle connection is dropped after this long, or the server's `Keep-Alive` if that is shorter (design §5)."""
MOST_HEADERS = 64 * 1024
NOTICE_S = 10.0
"""What nobody waits for gets this long to be acknowledged; then its connection is closed."""
MOST_NOTICES = 16
"""Notifications and replies of ours, per channel, that the server has not acknowledged; more are dropped."""
SPLICE = 64 * 1024
"""JSON bodies above this are offered to the sink as they arrive."""
_log = logging.getLogger("narthex.upstream")


class Receiver(Protocol):
    """Who gets the answer to one HTTP request. `lost` or `end` comes last, once."""

    def head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None: ...

    def body(self, data: bytes) -> None: ...

    def end(self) -> None: ...

    def lost(self, detail: str, *, sent: bool, begun: bool) -> None:
        """The connection died: `sent` once a byte was written, `begun` once the answer's head was read."""


class HttpConnection(asyncio.Protocol):
    """One connection to an origin; at most one request on it."""

    __slots__ = (
        "_begun", "_bodied", "_closes_body", "_complete", "_head_size", "_headers", "_informational", "_parser",
        "_paused", "_pool", "_receiver", "_reusable", "alive", "idle_since", "keep_s", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, pool: HttpPool) -> None:
        self._pool = pool
        self._parser: Any = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._headers: dict[bytes, bytes] = {}
        self._head_size = 0
        self._begun = False
        self._bodied = False
        self._informational = False
        self._closes_body = False
        self._complete: Receiver | None = None
        self._paused = False
        self._reusable = False
        self.alive = True
        self.idle_since = 0.0
        self.keep_s = IDLE_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def send(self, receiver: Receiver, data: bytes) -> None:
        """Write one whole request; its answer goes to `receiver`."""
        self._receiver = receiver
        self._begun = False
        self.transport.write(data)

    def receives(self, receiver: Receiver) -> bool:
        """Is this its request that is under way?"""
        return self._receiver is receiver

    def abandon(self) -> None:
        """Nobody waits for the answer: the connection is closed, which is how HTTP/1.1 says so."""
        self._receiver = None
        self.alive = False
        self.transport.abort()

    def pause(self) -> None:
        if not self._paused and self.alive:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self.alive:
            self._paused = False
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._pool.forget(self)
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        if self._begun and self._closes_body and exc is None:
            receiver.end()
        else:
            receiver.lost(str(exc) if exc else "the server closed the connection", sent=True, begun=self._begun)

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:
            self._fail("bytes outside an answer")
            return
        self._bodied = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._fail(str(cause or error))
            return
        if self._complete is not None:
            self._finish(self._complete)
        elif self._bodied:
            self._head_size = 0
        else:  # what is no body (head, trailers, chunk extensions) is bounded
            self._head_size += len(data)
            if self._head_size > MOST_HEADERS:
                self._fail("the answer's headers are too large")

    def _fail(self, detail: str) -> None:
        receiver = self._receiver or self._complete
        self._receiver = self._complete = None
        self.alive = False
        self.transport.abort()
        if receiver is not None:
            receiver.lost(detail, sent=True, begun=self._begun)

    def on_message_begin(self) -> None:
        if self._complete is not None:
            raise ValueError("bytes after the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, {}
        self._head_size = 0
        if status < 200:
            if status == 101:
                raise ValueError("the server switched protocols")
            self._informational = True
            return
        receiver = self._receiver
        if receiver is None:
            raise ValueError("an answer nobody asked for")
        length = headers.get(b"content-length")
        self._closes_body = (length is None or b"transfer-encoding" in headers) and self._check_framing(headers)
        if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
            raise ValueError("the server used a content coding that was not offered")
        if b"keep-alive" in headers:
            self.keep_s = min(IDLE_S, _keep_alive_timeout(headers[b"keep-alive"]))
        self._begun = True
        receiver.head(status, headers, int(length) if length is not None else None)

    @staticmethod
    def _check_framing(headers: dict[bytes, bytes]) -> bool:
        """Does only the end of the connection end the body? Raises ValueError for framing that could be read twice."""
        coding = headers.get(b"transfer-encoding")
        if coding is None:
            return True
        if coding.lower() != b"chunked" or b"content-length" in headers:
            raise ValueError("unknown or contradictory framing")
        return False

    def on_body(self, data: bytes) -> None:
        self._bodied = True
        if self._receiver is not None:
            self._receiver.body(data)

    def on_message_complete(self) -> None:
        if self._informational:
            self._informational = False
            return
        self._complete, self._receiver = self._receiver, None
        if self._headers:
            self._headers = {}  # trailer fields: not for the next answer
        self._reusable = self._parser.should_keep_alive()  # llhttp knows only now

    def _finish(self, receiver: Receiver) -> None:
        """After the read that ended the answer, so that no byte behind it can be taken for the next one's."""
        self._complete = None
        self._begun = False
        self._head_size = 0
        if self._reusable and self.alive:
            if self._paused:
                self.resume()
            self._pool.release(self)
        else:
            self.alive = False
            self.transport.close()
        receiver.end()


def _keep_alive_timeout(value: bytes) -> float:
    for part in value.split(b","):
        name, _, number = part.strip().partition(b"=")
        if name.lower() == b"timeout" and number.isdigit():
            return max(0.0, int(number) - 1.0)
    return IDLE_S


class HttpPool:
    """Idle connections to one origin, last used first. `sweep` drops those that may be stale."""

    def __init__(self, spec: ServerSpec, target: HttpTarget, dialer: Dialer, clock: Callable[[], float]) -> None:
        self.spec = spec
        self.target = target
        self.dialer = dialer
        self.clock = clock
        self.tick = clock()
        self.idle: list[HttpConnection] = []

    def take(self) -> HttpConnection | None:
        """An idle connection that should still be open, or None."""
        idle = self.idle
        while idle:
            connection = idle.pop()
            if connection.alive and not connection.transport.is_closing():
                return connection
        return None

    async def dial(self) -> HttpConnection:
        """A new connection. Raises UpstreamUnavailable(sent=False)."""
        target, timeout_s = self.target, self.spec.connect_timeout_s
        try:
            _, protocol = await self.dialer.dial(
                target.scheme, target.host, target.port, lambda: HttpConnection(self), connect_timeout_s=timeout_s
            )
        except UpstreamUnavailable as error:
            raise UpstreamUnavailable(f"server {self.spec.name} cannot be reached", detail=error.detail) from None
        assert isinstance(protocol, HttpConnection)
        return protocol

    def release(self, connection: HttpConnection) -> None:
        connection.idle_since = self.tick
        self.idle.append(connection)

    def forget(self, connection: HttpConnection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)

    def sweep(self) -> None:
        """Drop what has been idle for too long: called once a second, so it drops a second early rather than late."""
        now = self.tick = self.clock()
        for connection in [one for one in self.idle if now - one.idle_since > one.keep_s - 1.0]:
            self.idle.remove(connection)
            connection.alive = False
            connection.transport.close()

    def close(self) -> None:
        for connection in self.idle:
            connection.alive = False
            connection.transport.close()
        self.idle.clear()


class HttpChannel:
    """One conversation with a server over Streamable HTTP: a stateless target, or a legacy session."""

    def __init__(self, spec: ServerSpec, pool: HttpPool, dialect: Dialect, held: Held) -> None:
        self.spec = spec
        self.dialect = dialect
        self.alive = True
        self.last_used = 0.0
        self.open_calls = 0
        self._pool = pool
        self._held = held
        self._ids = itertools.count(2)
        self._notices: set[_Notice] = set()
        self._deaf_told = False
        self._modern = dialect.era == "modern"
        self._head = request_head(spec, pool, dialect)
        self.small = min(SPLICE, spec.max_answer)
        """JSON bodies up to this need no bound of their own."""

    def next_id(self) -> int:
        return next(self._ids)

    def request(self, out: Outgoing, sink: Sink) -> HttpCall:
        body = out.body
        if self._modern:
            routing = routing_headers(out.method, out.name)
            data = b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head, routing, len(body), body)
        else:
            data = b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)
        call = HttpCall(self, out, sink, data)
        connection = self._pool.take()
        if connection is not None:
            call.connection = connection
            connection.send(call, data)
        else:
            call.dialing = asyncio.ensure_future(call.dial(self._pool))
        return call

    def notify(self, body: bytes) -> None:
        data = b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)
        if len(self._notices) >= MOST_NOTICES:
            if not self._deaf_told:
                self._deaf_told = True
                _log.warning("server %s acknowledges nothing: notifications to it are dropped", self.spec.name)
            return
        notice = _Notice(self._notices)
        connection = self._pool.take()
        if connection is not None:
            notice.send(connection, data)
        else:
            _spawn(self._notify(notice, data))

    async def _notify(self, notice: _Notice, data: bytes) -> None:
        try:
            notice.send(await self._pool.dial(), data)
        except GatewayError as error:
            notice.over()
            _log.warning("server %s: a notification was not delivered: %s", self.spec.name, error.detail or error)

    async def close(self) -> None:
        if self.alive and self.dialect.session_id is not None:
            self.alive = False
            data = self._head.replace(b"POST ", b"DELETE ", 1) + b"Content-Length: 0\r\n\r\n"
            try:
                async with asyncio.timeout(2):
                    await ask(self._pool, data, max_answer=LARGE)
            except (TimeoutError, GatewayError):
                pass  # politeness: the server forgets the session by itself
        self.alive = False


class HttpCall:
    """One request under way: reads the answer as MCP. It is the channel's `Flight` and the connection's `Receiver`."""

    __slots__ = (
        "_chunks", "_events", "_held", "_json", "_out", "_resent", "_size", "_small", "_spliced", "_status", "_whole",
        "_wire", "channel", "connection", "dialing", "retry_after_s", "sink",
    )  # fmt: skip

    def __init__(self, channel: HttpChannel, out: Outgoing, sink: Sink, wire: bytes) -> None:
        self.channel = channel
        self.sink: Sink | None = sink
        self.connection: HttpConnection | None = None
        self.dialing: asyncio.Future[None] | None = None
        self.retry_after_s: float | None = None
        self._out = out
        self._wire = wire
        self._resent = False
        self._status = 0
        self._chunks: list[bytes | bytearray] = []
        self._size = 0
        self._held = 0
        self._spliced = False
        self._json = False
        self._whole = False
        self._small = channel.small
        self._events: EventParser | None = None

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

    async def dial(self, pool: HttpPool) -> None:
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

    # --- Receiver

    def head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        self._status = status
        kind = headers.get(b"content-type", b"")
        if status == 200 and kind == b"application/json" and length is not None and length <= self._small:
            self._json = self._whole = True  # the plain case: a small JSON body, of which nothing need be bounded
            return
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

    def body(self, data: bytes) -> None:
        if self._whole:
            self._chunks.append(data)
        elif self.sink is None:
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
            self.sink.message(message)

    def end(self) -> None:
        sink = self.sink
        self.connection = None  # it is back in its pool: nothing that happens to this call may touch it
        if self._held:
            self._release()
        if sink is None:
            return
        if self._whole:
            self._finish_json(sink)
        elif self._events is not None or self._spliced:
            self.sink = None
            sink.finished()
        elif self._status == 200 and self._json:
            self._finish_json(sink)
        else:
            self._finish_status(sink)

    def _finish_json(self, sink: Sink) -> None:
        chunks = self._chunks
        try:
            message = decode_incoming(chunks[0] if len(chunks) == 1 else b"".join(chunks))
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
            self.dialing = asyncio.ensure_future(self.dial(self.channel._pool))
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
    return UpstreamUnavailable(public, detail=f"HTTP {status}", retry_after_s=retry_after_s, sent=True)


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


class Answer:
    """A whole HTTP answer, for the few requests that are awaited. `messages` are the JSON-RPC messages in it."""

    def __init__(self, max_answer: int) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.chunks: list[bytes] = []
        self.size = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.connection: HttpConnection | None = None
        self._events: EventParser | None = None
        self.events: list[bytes] = []
        self._max = max_answer

    def head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        self.status, self.headers = status, headers
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == b"text/event-stream":
            self._events = EventParser(self._max)

    def body(self, data: bytes) -> None:
        if self.done.done():
            return
        try:
            if self._events is None:
                self.chunks.append(data)
                self.size += len(data)
                if self.size > self._max:
                    raise ParseError("answer too large")
                return
            for event in self._events.feed(data):
                self.events.append(event.data)
                if b'"result"' in event.data or b'"error"' in event.data:
                    self._finish()
                    return
        except ParseError as error:
            self.lost(error.public, sent=True, begun=True)

    @property
    def data(self) -> bytes:
        """The body, where it is no event stream."""
        return b"".join(self.chunks)

    def end(self) -> None:
        self._finish()

    def lost(self, detail: str, *, sent: bool, begun: bool) -> None:
        if not self.done.done():
            self.done.set_exception(UpstreamUnavailable("the server broke off", detail=detail, sent=sent))

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def ask(pool: HttpPool, data: bytes, *, max_answer: int) -> Answer:
    """Send one whole request and wait for its answer (of an event stream: for the first response in it).

    Raises UpstreamUnavailable. The caller sets the deadline; a cancelled wait closes the connection.
    """
    while True:
        answer = Answer(max_answer)
        kept = pool.take()
        connection = kept or await pool.dial()
        connection.send(answer, data)
        try:
            await answer.done
        except UpstreamUnavailable:
            if kept is not None and not answer.status:
                continue  # it had gone stale; these requests may be sent again
            raise
        finally:
            if connection.receives(answer):
                connection.abandon()
        return answer


class _Notice:
    """One message that nobody waits for, and the `Receiver` of its acknowledgement: bounded in time and size."""

    def __init__(self, under_way: set[_Notice]) -> None:
        self._under_way = under_way
        self._connection: HttpConnection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._size = 0
        under_way.add(self)

    def send(self, connection: HttpConnection, data: bytes) -> None:
        self._connection = connection
        self._timer = asyncio.get_running_loop().call_later(NOTICE_S, self._drop)
        connection.send(self, data)

    def over(self) -> HttpConnection | None:
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


_tasks: set[asyncio.Future[None]] = set()


def _spawn(coroutine: Any) -> None:
    task = asyncio.ensure_future(coroutine)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
