"""HTTP/1.1 as a server: bytes in, whole requests out; answers and streams back. llhttp parses, we hold the bounds.

One `Connection` a client connection. It refuses what two parsers could read differently, keeps reading while a call
runs (so that a close is seen at once), and never lets a slow or silent client hold more than its bounds.
Cases: `tests/flow/accept/test_listener.py` (each row whole and byte by byte), `tests/e2e/test_requests.py`.
Source: RFC 9112 (HTTP/1.1), §6.1 and §6.3 on framing; RFC 9110 §10.1.1 (Expect).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Protocol

import httptools

from narthex.errors import HttpRefusal, Overloaded
from narthex.flow.codec.jsonrpc import encode_error
from narthex.flow.held import LARGE, Held
from narthex.flow.outbox import Outbox
from narthex.flow.whole import MOST, MOST_HEADERS, MOST_TARGET, NO_REPEATS, PARAM, HttpRequest, RequestReader
from narthex.types import Limits

KEPT = 64 * 1024
"""Bytes kept unparsed while a call runs; then reading pauses."""
PIPELINED = 256
"""Requests parsed from one read and waiting for their turn."""
HIGH_WATER = 64 * 1024
_COPIED = 16 * 1024
"""Up to here an answer's pieces are joined; larger ones are handed to the kernel as they are."""
_LARGE_WRITE = 64 * 1024
LINGER_S = 2.0
_SINGLE = frozenset(
    {b"host", b"origin", b"content-type", b"authorization", b"mcp-session-id", b"expect", b"transfer-encoding"}
    | {b"content-length", b"accept", b"last-event-id"}
)
"""Headers that may not come twice: which one counts would be a matter of taste."""
_NEVER = float("inf")
_STATUS = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}


class Exchanging(Protocol):
    """What is running for a connection's current request: it is told what happens to the client's side."""

    def client_gone(self) -> None:
        """The client closed the connection."""

    def pause(self) -> None:
        """The client reads too slowly."""

    def resume(self) -> None: ...


class Shared:
    """What all connections of a listener share. `handle` takes a whole request and must answer it on the connection."""

    __slots__ = (
        "clock", "connections", "date", "draining", "handle", "held", "keep_alive_s", "limits", "new_id", "now",
        "outbox", "read", "small", "tick",
    )  # fmt: skip

    def __init__(
        self,
        limits: Limits,
        held: Held,
        handle: Callable[[Connection, HttpRequest], None],
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        new_id: Callable[[], str],
        outbox: Outbox | None = None,
    ) -> None:
        self.outbox = outbox or Outbox()
        self.apply(limits)
        self.read = RequestReader().read
        self.handle = handle
        self.clock = clock
        self.now = now
        self.new_id = new_id
        self.connections: set[Connection] = set()
        self.held = held
        self.draining = False
        self.sweep()

    def apply(self, limits: Limits) -> None:
        """Take over new bounds. A request of at most `small` bytes needs none of its own."""
        self.limits = limits
        self.keep_alive_s = limits.keep_alive_s
        self.small = min(MOST, limits.max_header, limits.max_body)

    def sweep(self) -> None:
        """Once a second: look at the clock for everybody, and close what has waited too long.

        `tick` is the clock as of the last sweep: exact enough for bounds of whole seconds, and free on a call's path.
        """
        self.tick = self.clock()
        self.date = b"Date: %b\r\n" % formatdate(self.now(), usegmt=True).encode()  # RFC 9110 §6.6.1
        for connection in [one for one in self.connections if one.deadline < self.tick]:
            connection.expire()


class Connection(asyncio.Protocol):
    """One client connection: parses requests, one call at a time, and writes answers."""

    __slots__ = (
        "_begun", "_body_size", "_chunked", "_closing", "_first", "_head_only", "_head_size", "_headers", "_held",
        "_in_body",
        "_kept", "_keep_alive", "_old", "_parser", "_plain", "_queue", "_refusal", "_refused", "_repeated", "_repeats",
        "_request_headers",
        "_rest", "_shared", "_streaming", "_target", "_under_way", "_upgrading", "_waiters",
        "busy", "deadline", "exchange", "fresh", "paused", "peer", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._parser: Any = None
        self._kept: list[bytes] = []
        self._queue: deque[tuple[HttpRequest, bool, bool]] = deque()
        self._refused = False
        self._refusal: HttpRefusal | Overloaded | None = None
        self._closing = False
        self._streaming = False
        self._chunked = False
        self._keep_alive = True
        self._old = False
        self._target = b""
        self._begun = False
        self._first = b""
        self._rest = bytearray()  # not a list of pieces: a piece may be one byte
        self._headers: dict[bytes, bytes] = {}
        self._repeated = NO_REPEATS
        self._repeats = 0
        self._body_size = 0
        self._head_size = 0
        self._in_body = False
        self._under_way = False
        self._upgrading = False
        self._head_only = False
        self._plain = True
        self._request_headers: dict[bytes, bytes] = {}
        self._held = 0
        self._waiters: list[asyncio.Future[None]] = []
        self.busy = False
        self.fresh = True
        self.paused = False
        self.exchange: Exchanging | None = None
        self.peer: tuple[str, int] = ("", 0)
        self.deadline = 0.0

    # --- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self.peer = (str(peer[0]), int(peer[1])) if peer else ("", 0)
        shared = self._shared
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.deadline = shared.tick + 1.0 + shared.limits.header_timeout_s
        shared.connections.add(self)
        if len(shared.connections) > shared.limits.max_connections:
            self.refuse(
                HttpRefusal(503, "too_many_connections", "too many connections", headers=(("Retry-After", "1"),))
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.connections.discard(self)
        self._closing = True
        self.fresh = False
        self._kept.clear()
        self._queue.clear()
        self._release_body()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def data_received(self, data: bytes) -> None:
        shared = self._shared
        if self.fresh and len(data) <= shared.small and (request := shared.read(data)) is not None:
            self.busy = self._keep_alive = self._plain = True
            self.fresh = self._head_only = self._old = False
            self.deadline = _NEVER
            shared.handle(self, request)
        else:
            self._received(data)

    def _received(self, data: bytes) -> None:
        """Bytes that are not just one whole request: keep them for later, or read them piece by piece."""
        self.fresh = False
        if self._refused or self._closing:
            return
        if self.busy or self._queue or self._kept or self.paused:
            self._kept.append(data)
            if sum(map(len, self._kept)) > KEPT:
                self.transport.pause_reading()
            return
        self._feed(data)

    def pause_writing(self) -> None:
        self.paused = True
        self.fresh = False
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        self.paused = False
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        if self.exchange is not None:
            self.exchange.resume()
        elif not self.busy:
            if self._queue or self._kept:
                asyncio.get_running_loop().call_soon(self._next)
            else:
                self.fresh = not (self._under_way or self._refused or self._closing)

    # --- parsing

    def _feed(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        self._begun = False
        in_head = not self._in_body
        begun, bodied = self._head_size, self._body_size
        if in_head:
            self._head_size = begun + len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade(data[upgrade.args[0] :])
            self._take_turns()
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, (HttpRefusal, Overloaded)):
                self.refuse(cause)
            else:
                self.refuse(HttpRefusal(400, "bad_request", "malformed HTTP request", detail=str(error)))
            return
        self._take_turns()
        if not self.busy:
            if not in_head and self._in_body:  # trailers and chunk extensions are no body: they are bounded like a head
                self._head_size = self._head_size + len(data) if self._body_size == bodied else 0
            self._await_rest(in_head, begun)

    def _take_turns(self) -> None:
        """Of several requests in one read each but the first waits a turn: unread answers must be seen to pile up."""
        if self._under_way or self._queue:
            self.fresh = False
        if self._queue and not self.busy:
            asyncio.get_running_loop().call_soon(self._next)

    def _await_rest(self, was_in_head: bool, begun: int) -> None:
        """The request is not whole yet: bound the time and the size of the part that is under way."""
        limits = self._shared.limits
        if not self._head_size and not self._in_body and self._target:
            self._head_size = len(self._target) + _size(self._headers)  # begun behind another request, in one read
        if self._in_body:
            if was_in_head:
                self.deadline = self._shared.clock() + limits.body_timeout_s
            if self._head_size > limits.max_header:
                self.refuse(HttpRefusal(431, "headers_too_large", "the request's trailers are too large"))
        elif self._head_size > limits.max_header:
            self.refuse(HttpRefusal(431, "headers_too_large", "the request's headers are too large"))
        elif self._head_size and not begun:
            self.deadline = self._shared.clock() + limits.header_timeout_s

    def _upgrade_asked(self, has_body: bool) -> None:
        if self._parser.get_method() == b"CONNECT":
            raise HttpRefusal(405, "method_not_allowed", "there are no tunnels here", headers=(("Allow", "POST"),))
        self._upgrading = has_body

    def _after_upgrade(self, rest: bytes) -> None:
        """llhttp stops behind the head of an upgrade request. We never upgrade (RFC 9110 §7.8): a new parser reads on.

        A body belongs to this request, never to a next one: the new parser first reads a head that frames it the same.
        """
        before, self._parser = self._parser, httptools.HttpRequestParser(self)
        if self._upgrading:
            self._upgrading = False
            target, headers, repeated = self._target, self._request_headers, self._repeated
            self._reset()
            keep_alive = before.should_keep_alive()
            self._parser.feed_data(_head_again(before.get_method(), target, headers, self._old, keep_alive))
            self._request_headers, self._repeated = headers, repeated
            if not self.busy:
                self.deadline = self._shared.clock() + self._shared.limits.body_timeout_s
            if rest:
                self._feed(rest)
        elif rest:
            self.data_received(rest)

    def on_message_begin(self) -> None:
        self._under_way = True

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in self._headers:
            self._repeat(name)
        else:
            self._headers[name] = value

    def _repeat(self, name: bytes) -> None:
        if name in _SINGLE and not self._in_body:
            raise HttpRefusal(400, "repeated_header", "a header that may come once came twice")
        self._repeats += 1
        if self._repeats > MOST_HEADERS:
            raise HttpRefusal(431, "headers_too_large", "the request's headers are too many")
        self._repeated |= {name}

    def on_headers_complete(self) -> None:
        # What follows as a header is a trailer field: it must not pass for one of these (RFC 9110 §6.5.1).
        headers, self._headers = self._headers, {}
        self._request_headers = headers
        limits = self._shared.limits
        if len(headers) > MOST_HEADERS or (self._head_size > limits.max_header and _size(headers) > limits.max_header):
            raise HttpRefusal(431, "headers_too_large", "the request's headers are too large")
        if len(self._target) > MOST_TARGET:
            raise HttpRefusal(414, "target_too_long", "the request target is too long")
        version = self._parser.get_http_version()
        self._old = version != "1.1"
        if self._old and version != "1.0":
            raise HttpRefusal(505, "version_not_supported", "speak HTTP/1.1")
        coding = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        if coding is not None and (coding.lower() != b"chunked" or self._old or length is not None):
            raise HttpRefusal(400, "bad_framing", "this transfer coding is not accepted")
        if length is not None and int(length) > limits.max_body:
            raise HttpRefusal(413, "body_too_large", f"the body may have {limits.max_body} bytes")
        if b"expect" in headers:
            self._expected(headers[b"expect"], bool(length or coding))
        if self._parser.should_upgrade():
            self._upgrade_asked(coding is not None or (length is not None and int(length) > 0))
        self._in_body = True
        self._head_size = 0

    def _expected(self, expect: bytes, has_body: bool) -> None:
        if expect.lower() != b"100-continue":
            raise HttpRefusal(417, "expectation_failed", "only 100-continue can be expected")
        if not self._old and has_body and not self.busy:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, chunk: bytes) -> None:
        if not self._body_size:
            self._first, self._body_size = chunk, len(chunk)
        else:
            self._rest += chunk
            self._body_size += len(chunk)
        if self._body_size > LARGE:
            self._large_body(len(chunk))

    def _large_body(self, more: int) -> None:
        """Bound a body that did not come in one small piece, and count it against the budget of held bytes."""
        if self._body_size > self._shared.limits.max_body:
            raise HttpRefusal(413, "body_too_large", f"the body may have {self._shared.limits.max_body} bytes")
        if self._body_size - more > LARGE:
            self._shared.held.take(more)
            self._held += more
        else:
            self._shared.held.take(self._body_size)
            self._held = self._body_size

    def on_message_complete(self) -> None:
        if self._upgrading:
            return  # only its head is complete
        self._under_way = False
        if self._closing:
            return  # "Connection: close" was said: what came behind it is not processed (RFC 9112 §9.6)
        if self._body_size > self._shared.limits.max_body:
            raise HttpRefusal(413, "body_too_large", f"the body may have {self._shared.limits.max_body} bytes")
        body = self._first + self._rest if self._rest else self._first
        path, query = self._target, b""
        if b"?" in path:
            path, _, query = path.partition(b"?")
        parser = self._parser
        headers = self._request_headers
        params = tuple(name for name in headers if name.startswith(PARAM))
        request = HttpRequest(parser.get_method(), path, query, headers, self._repeated, body, params)
        keep_alive, old = parser.should_keep_alive(), self._old
        if self._held:
            self._release_body()
        self._target = self._first = b""  # `_first` too: a request without a body must not get the one before it
        self._body_size = self._head_size = 0
        self._in_body = False
        if self._rest or self._headers or self._repeated:
            self._reset()
        if self.busy or self._begun or self._queue or self.paused:
            if len(self._queue) >= PIPELINED:
                self._queue.clear()
                raise HttpRefusal(503, "too_many_requests", "too many pipelined requests")
            self._queue.append((request, keep_alive, old))
            return
        self._begin(request, keep_alive, old)

    def _reset(self) -> None:
        self._target = self._first = b""
        self._headers = {}
        self._repeated, self._repeats = NO_REPEATS, 0
        if self._rest:
            self._rest = bytearray()
        self._body_size = self._head_size = 0
        self._in_body = False

    def _release_body(self) -> None:
        self._shared.held.give(self._held)
        self._held = 0

    def _begin(self, request: HttpRequest, keep_alive: bool, old: bool) -> None:
        self.busy = self._begun = True
        self.deadline = _NEVER
        self._keep_alive = keep_alive
        self._head_only = request.method == b"HEAD"
        self._old = old
        self._plain = keep_alive and not old
        self._shared.handle(self, request)

    # --- answering

    @property
    def held(self) -> Held:
        """The bytes that large bodies hold, of all connections together."""
        return self._shared.held

    def write(self, data: bytes) -> None:
        """Write bytes of the answer that was begun."""
        outbox = self._shared.outbox
        outbox.put(self.transport.write, data)
        if len(data) >= _LARGE_WRITE:
            outbox.flush()  # so that a reader that is too slow is seen at once

    def respond(self, status: int, content_type: bytes, parts: Sequence[Any], size: int, extra: bytes = b"") -> None:
        """Write a whole answer: bytes-like `parts`, `size` their length together, `extra` header lines with CRLF."""
        shared = self._shared
        head = b"%b%bContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n" % (
            _STATUS[status], shared.date, content_type, size, extra,
            b"" if self._plain and not shared.draining else self._connection_header(),
        )  # fmt: skip
        if self._head_only:
            self.write(head)  # RFC 9110 §9.3.2: what GET would answer, without the body
        elif size < _COPIED:
            shared.outbox.put(self.transport.write, b"".join((head, *parts)))
        else:
            shared.outbox.put(self.transport.writelines, (head, *parts))
            if size >= _LARGE_WRITE:
                shared.outbox.flush()
        self.done()

    def respond_empty(self, status: int, extra: bytes = b"") -> None:
        """Write an answer without a body (202, 204 …)."""
        length = b"" if status == 204 else b"Content-Length: 0\r\n"
        self.write(b"%b%b%b%b%b\r\n" % (_STATUS[status], self._shared.date, length, extra, self._connection_header()))
        self.done()

    def begin_body(self, status: int, content_type: bytes, size: int | None, extra: bytes = b"") -> bytes:
        """Start an answer whose body follows in pieces; returns the head, to be written with the first of them.

        `size` None: chunked, or for HTTP/1.0 until the connection closes.
        """
        self._streaming = True
        self._chunked = size is None and not self._old
        if size is None and self._old:
            self._keep_alive = self._plain = False
        framing = b"Transfer-Encoding: chunked\r\n" if self._chunked else b""
        if size is not None:
            framing = b"Content-Length: %d\r\n" % size
        return b"%b%bContent-Type: %b\r\n%b%b%b\r\n" % (
            _STATUS[status], self._shared.date, content_type, framing, extra, self._connection_header(),
        )  # fmt: skip

    def frame(self, data: bytes) -> bytes:
        """`data` as one piece of the body begun: a chunk, where chunks are used."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data

    def end_body(self, before: bytes = b"") -> None:
        """End the body begun; `before` is written (framed already) ahead of the end in one piece."""
        self._streaming = False
        if self._chunked:
            before += b"0\r\n\r\n"
        if before:
            self.write(before)
        self.done()

    def abort(self) -> None:
        """Break off: the client must not take what it has for a whole answer."""
        self.exchange = None
        self.fresh = False
        if not self._closing:
            self._closing = True
            self._shared.outbox.flush()
            self.transport.abort()

    def _connection_header(self) -> bytes:
        if not self._keep_alive or self._shared.draining:
            self._keep_alive = self._plain = False
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if self._old else b""

    def done(self) -> None:
        """The current request is answered: take the next one, or wait for it."""
        self.exchange = None
        self.busy = False
        shared = self._shared
        if self._refused:
            self._go_on_refusing()
            return
        if not self._keep_alive or shared.draining:
            self._close()
            return
        self.deadline = shared.tick + shared.keep_alive_s
        if self._queue or self._kept:
            asyncio.get_running_loop().call_soon(self._next)
        elif not (self._under_way or self.paused):
            self.fresh = True

    def _next(self) -> None:
        if self.busy or self._closing or self.paused:
            return  # paused: who does not read its answers gets no more of them; `resume_writing` goes on
        if self._queue:
            self._begin(*self._queue.popleft())
            return
        if self._kept and not self._refused:
            kept = b"".join(self._kept)
            self._kept.clear()
            self.transport.resume_reading()
            self._feed(kept)

    def refuse(self, error: HttpRefusal | Overloaded) -> None:
        """Answer with an error and close: after it nothing on this connection can be trusted to be a request."""
        if self._refused or self._closing:
            return
        self._refused = True
        self._refusal = error
        self.fresh = False
        self._release_body()
        if not self.busy:
            self._go_on_refusing()

    def _go_on_refusing(self) -> None:
        """Whole requests that came before what is refused get their answers; then it gets its own, and the end."""
        error, self._refusal = self._refusal, None
        if self._queue and self._keep_alive:
            self._refusal = error
            asyncio.get_running_loop().call_soon(self._next)
        elif error is None or not self._keep_alive:
            self._linger()
        else:
            status, extra = (
                (error.status, error.headers) if isinstance(error, HttpRefusal) else (503, (("Retry-After", "1"),))
            )
            body = encode_error(None, error, self._shared.new_id())
            lines = "".join(f"{name}: {value}\r\n" for name, value in extra).encode()
            self._keep_alive = self._plain = False
            self.respond(status, b"application/json", (body,), len(body), lines)

    def expire(self) -> None:
        """A bound of time has passed: say 408 to who has begun a request, close the rest."""
        if not self._refused and (self._head_size or self._in_body):
            self.refuse(HttpRefusal(408, "request_timeout", "the request did not arrive in time"))
        else:
            self.abort()

    def _linger(self) -> None:
        """Send what is written and read on without looking for a moment: closing at once would reset the connection,
        and a client still sending its body would never see why it was refused (RFC 9112 §9.6)."""
        self.deadline = self._shared.clock() + LINGER_S
        self.transport.resume_reading()
        self._shared.outbox.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def idle(self) -> bool:
        """True while no request has begun."""
        return not (self.busy or self._queue or self._head_size or self._in_body)

    def _close(self) -> None:
        self.fresh = False
        if not self._closing:
            self._closing = True
            self._shared.outbox.flush()
            self.transport.close()

    def drain(self) -> asyncio.Future[None]:
        """A future that is done once the client reads again; at once when it does."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self.paused or self._closing:
            future.set_result(None)
        else:
            self._waiters.append(future)
        return future


def _size(headers: dict[bytes, bytes]) -> int:
    return sum(map(len, headers)) + sum(map(len, headers.values()))


def _head_again(method: bytes, target: bytes, headers: dict[bytes, bytes], old: bool, keep_alive: bool) -> bytes:
    """A head with the framing of another one, and without its wish for an upgrade."""
    length = headers.get(b"content-length")
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: " + length
    connection = b"keep-alive" if keep_alive else b"close"
    version = b"1.0" if old else b"1.1"
    return b"%b %b HTTP/%b\r\n%b\r\nConnection: %b\r\n\r\n" % (method, target, version, framing, connection)
