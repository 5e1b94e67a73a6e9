"""HTTP/1.1 as a server: one `Connection` a client connection; requests in, answers and streams back.

It reads on while a call runs, so that a close is seen at once, gives requests their turn, and never lets a slow or
silent client hold more than its bounds. A request that does not come whole in one read is put together by `reading.py`.
Cases: `tests/flow/accept/test_listener.py` (each row whole and byte by byte), `tests/e2e/test_requests.py`.
Source: RFC 9112 (HTTP/1.1), §9 on connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, cast

from narthex.errors import HttpRefusal, Overloaded
from narthex.flow.accept.reading import Reading
from narthex.flow.accept.replying import Replying
from narthex.flow.codec.jsonrpc import encode_error
from narthex.flow.held import Held
from narthex.flow.identity.certificates import Certificate
from narthex.flow.identity.verified import Shown
from narthex.flow.outbox import Outbox
from narthex.flow.whole import MOST, HttpRequest, Line, RequestReader, line_of
from narthex.types import Limits

KEPT: Final = 64 * 1024
"""Bytes kept unparsed while a call runs; then reading pauses."""
PIPELINED: Final = 256
"""Requests parsed from one read and waiting for their turn."""
HIGH_WATER: Final = 64 * 1024
_COPIED: Final = 16 * 1024
"""Up to here an answer's pieces are joined; larger ones are handed to the kernel as they are."""
_LARGE_WRITE: Final = 64 * 1024
LINGER_S: Final = 2.0
_NEVER: Final = float("inf")
_STATUS: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}


class Shared:
    """What all connections of a listener share. `handle` takes a whole request and must answer it on the connection."""

    __slots__ = (
        "clock", "connections", "date", "draining", "handle", "held", "keep_alive_s", "limits", "new_id", "now",
        "outbox", "reader", "small", "tick",
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
        self.reader = RequestReader()
        self.handle = handle
        self.clock = clock
        self.now = now
        self.new_id = new_id
        self.connections: set[Connection] = set()
        self.held = held
        self.draining = False
        self.sweep()

    def connect(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return cast(asyncio.Protocol, Connection(self))

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


class Connection(Replying):
    """One client connection: parses requests, one call at a time, and writes answers. It is an `asyncio.Protocol`."""

    __slots__ = (
        "_chunked", "_head_only", "_keep_alive", "_kept", "_line", "_old", "_plain", "_queue", "_reading", "_refusal",
        "_refused", "_shared", "_waiters",
        "busy", "certificate", "closing", "deadline", "fresh", "shown", "transport", "under_way",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self._shared = shared
        self._reading: Reading | None = None
        self._kept: list[bytes] = []
        self._queue: deque[tuple[HttpRequest, bool, bool]] = deque()
        self._refused = False
        self._refusal: HttpRefusal | Overloaded | None = None
        self._chunked = False
        self._keep_alive = True
        self._old = False
        self._head_only = False
        self._plain = True
        self._waiters: list[asyncio.Future[None]] = []
        self.busy = False
        self.closing = False
        self.under_way = False
        self.fresh = True
        self.certificate: Certificate | None = None
        """Of the TLS peer, once somebody has asked for it."""
        self.shown: Shown | None = None
        """The credential that it has shown last, where that was a token."""
        self._line: Line | None = None
        """The line that it stands in, once it has been shown again: the next request need not be read there."""
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
        self.closing = True
        self.fresh = False
        self._kept.clear()
        self._queue.clear()
        self._release()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def eof_received(self) -> bool | None:
        return None  # the transport closes itself

    def data_received(self, data: bytes) -> None:
        shared = self._shared
        if self.fresh and len(data) <= shared.small and (request := self._whole(data)) is not None:
            self.busy = self._keep_alive = self._plain = True
            self.fresh = self._head_only = self._old = False
            self.deadline = _NEVER
            shared.handle(self, request)
        else:
            self._received(data)

    def _whole(self, data: bytes) -> HttpRequest | None:
        """The one whole request that this is; None where it is anything else."""
        reader, shown, line = self._shared.reader, self.shown, self._line
        if shown is None:
            return reader.read(data)
        if line is not None and line.value is shown.header:
            return reader.read_beside(data, line)
        request = reader.read(data)
        if request is not None and shown.again:
            self._line = line_of(data, b"authorization", shown.header)
        return request

    def _received(self, data: bytes) -> None:
        """Bytes that are not just one whole request: keep them for later, or read them piece by piece."""
        self.fresh = False
        if self._refused or self.closing:
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
                self.fresh = not (self.under_way or self._refused or self.closing)

    # --- requests

    def _feed(self, data: bytes) -> None:
        if self._reading is None:
            self._reading = Reading(self, self._shared)
        self._reading.feed(data)

    def take(self, request: HttpRequest, keep_alive: bool, old: bool, *, first: bool) -> None:
        """A whole request has been read. `first`: of those in one read.

        Raises:
            HttpRefusal: Too many wait for their turn.
        """
        if not first or self.busy or self._queue or self.paused:
            if len(self._queue) >= PIPELINED:
                self._queue.clear()
                raise HttpRefusal(503, "too_many_requests", "too many pipelined requests")
            self._queue.append((request, keep_alive, old))
            return
        self._begin(request, keep_alive, old)

    def take_turns(self) -> None:
        """Of several requests in one read each but the first waits a turn: unread answers must be seen to pile up."""
        if self.under_way or self._queue:
            self.fresh = False
        if self._queue and not self.busy:
            asyncio.get_running_loop().call_soon(self._next)

    def _begin(self, request: HttpRequest, keep_alive: bool, old: bool) -> None:
        self.busy = True
        self.deadline = _NEVER
        self._keep_alive = keep_alive
        self._head_only = request.method == b"HEAD"
        self._old = old
        self._plain = keep_alive and not old
        self._shared.handle(self, request)

    # --- answering

    @property
    def held(self) -> Held:
        return self._shared.held

    def write(self, data: bytes) -> None:
        outbox = self._shared.outbox
        outbox.put(self.transport.write, data)
        if len(data) >= _LARGE_WRITE:
            outbox.flush()  # so that a reader that is too slow is seen at once

    def respond(self, status: int, content_type: bytes, parts: Sequence[Any], size: int, extra: bytes = b"") -> None:
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
        length = b"" if status == 204 else b"Content-Length: 0\r\n"
        self.write(b"%b%b%b%b%b\r\n" % (_STATUS[status], self._shared.date, length, extra, self._connection_header()))
        self.done()

    def begin_body(self, status: int, content_type: bytes, size: int | None, extra: bytes = b"") -> bytes:
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
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data

    def end_body(self, before: bytes = b"") -> None:
        if self._chunked:
            before += b"0\r\n\r\n"
        if before:
            self.write(before)
        self.done()

    def abort(self) -> None:
        self.exchange = None
        self.fresh = False
        if not self.closing:
            self.closing = True
            self._shared.outbox.flush()
            self.transport.abort()

    def unread(self) -> int:
        return self.transport.get_write_buffer_size()

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
        elif not (self.under_way or self.paused):
            self.fresh = True

    def _next(self) -> None:
        if self.busy or self.closing or self.paused:
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
        if self._refused or self.closing:
            return
        self._refused = True
        self._refusal = error
        self.fresh = False
        self._release()
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
        if not self._refused and self._reading is not None and self._reading.begun:
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
        return not (self.busy or self._queue or (self._reading is not None and self._reading.begun))

    def _release(self) -> None:
        if self._reading is not None:
            self._reading.release()

    def _close(self) -> None:
        self.fresh = False
        if not self.closing:
            self.closing = True
            self._shared.outbox.flush()
            self.transport.close()

    def drain(self) -> asyncio.Future[None]:
        """A future that is done once the client reads again; at once when it does."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self.paused or self.closing:
            future.set_result(None)
        else:
            self._waiters.append(future)
        return future
