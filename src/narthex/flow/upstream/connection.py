"""HTTP/1.1 as a client: one connection, the idle ones of an origin, and the few requests that are awaited whole.

llhttp parses, we hold the bounds: an answer's head and trailers, framing that could be read twice, bytes behind an
answer that must never be taken for the next one. What the bytes mean is `http.py`'s business.
Cases: `tests/flow/upstream/test_http.py`, faults in `tests/e2e/test_faults.py`. Source: RFC 9112 §6, §9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import httptools
import msgspec

from narthex.errors import ParseError, UpstreamUnavailable
from narthex.flow.codec.sse import EventParser
from narthex.flow.upstream.dial import Check, Dialer
from narthex.flow.upstream.port import Certificate, Shown
from narthex.flow.upstream.receiver import Receiver as Receiver
from narthex.flow.whole import AnswerReader
from narthex.types import HttpTarget, ServerSpec

IDLE_S: Final = 4.0
"""An idle connection is dropped after this long, or the server's `Keep-Alive` if that is shorter (design §5)."""
APART_S: Final = 900.0
"""Connections of one account that were not used for this long are looked after no more: an idle channel ends before."""
TOO_LARGE: Final = "answer too large"
"""What is wrong with an answer that was there, and went on too long."""
MOST_HEADERS: Final = 64 * 1024


class HttpConnection:
    """One connection to an origin; at most one request on it. It is an `asyncio.Protocol`."""

    __slots__ = (
        "_begun", "_bodied", "_closes_body", "_complete", "_head_size", "_headers", "_informational", "_parser",
        "_partial", "_paused", "_pool", "_receiver", "_reusable", "alive", "idle_since", "keep_s", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, pool: HttpPool) -> None:
        self._pool = pool
        self._parser: Any = None
        self._receiver: Receiver | None = None
        self._headers: dict[bytes, bytes] = {}
        self._head_size = 0
        self._begun = False
        self._bodied = False
        self._informational = False
        self._closes_body = False
        self._complete: Receiver | None = None
        self._partial = False
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
        self._pool.outbox.put(self.transport.write, data)

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

    def eof_received(self) -> bool | None:
        return None  # the transport closes itself

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            self._fail("bytes outside an answer")
        elif self._partial or (answer := self._pool.read(data)) is None or b"content-encoding" in answer[0]:
            self._feed(data)
        else:
            headers, body = answer
            self._receiver = None
            if b"keep-alive" in headers:
                self.keep_s = min(IDLE_S, _keep_alive_timeout(headers[b"keep-alive"]))
            self._pool.release(self)
            receiver.whole(headers, body)

    def _feed(self, data: bytes) -> None:
        """A part of an answer, or an answer that is not plain."""
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._partial = True
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
        name = name.lower()
        if name == b"www-authenticate" and name in self._headers:
            self._headers[name] += b", " + value  # a list: one line a scheme is common (RFC 9110 §11.6.1)
        else:
            self._headers.setdefault(name, value)

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
        self._begun = self._partial = False
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
    """Idle connections to one origin, last used first. `sweep` drops those that may be stale.

    Args:
        check: What a new connection's addresses must pass (`Dialer.dial`); None where the operator wrote the address.
        query, certificate: Of the account whose connections these are (`under`).
    """

    def __init__(
        self,
        spec: ServerSpec,
        target: HttpTarget,
        dialer: Dialer,
        clock: Callable[[], float],
        *,
        check: Check | None = None,
        query: str = "",
        certificate: Certificate | None = None,
    ) -> None:
        self.spec = spec
        self._query = query
        self._certificate = certificate
        self._apart: dict[tuple[str, Certificate | None], HttpPool] = {}
        self._within: HttpPool | None = None
        self._seen_at = 0.0
        self.target = target
        self._check = check
        self.dialer = dialer
        self.clock = clock
        self.tick = clock()
        self.read = AnswerReader().read
        self.outbox = dialer.outbox
        self.idle: list[HttpConnection] = []

    def under(self, shown: Shown) -> HttpPool:
        """The connections for an account that is part of the address or of TLS: nobody else's requests go over them.

        Raises:
            CredentialUnavailable: It cannot be shown.
        """
        query, certificate = shown.query(), shown.certificate()
        if not query and certificate is None:
            return self
        pool = self._apart.get((query, certificate))
        if pool is None:
            target = msgspec.structs.replace(self.target, path=with_query(self.target.path, query))
            pool = HttpPool(
                self.spec, target, self.dialer, self.clock, check=self._check, query=query, certificate=certificate
            )
            pool._within = self
        self._look_after(pool)
        return pool

    def _look_after(self, pool: HttpPool) -> None:
        """Sweep and close it too, as long as it is used."""
        self._apart[pool._query, pool._certificate] = pool
        pool._seen_at = self.tick

    def take(self) -> HttpConnection | None:
        """An idle connection that should still be open, or None."""
        idle = self.idle
        while idle:
            connection = idle.pop()
            if connection.alive and not connection.transport.is_closing():
                return connection
        return None

    def _made(self) -> asyncio.Protocol:
        return cast(asyncio.Protocol, HttpConnection(self))

    async def dial(self) -> HttpConnection:
        """A new connection. Raises UpstreamUnavailable(sent=False)."""
        target, timeout_s = self.target, self.spec.connect_timeout_s
        if self._within is not None:
            self._within._look_after(self)
        try:
            _, protocol = await self.dialer.dial(
                target.scheme, target.host, target.port, self._made, connect_timeout_s=timeout_s,
                check=self._check, certificate=self._certificate,
            )  # fmt: skip
        except UpstreamUnavailable as error:
            raise UpstreamUnavailable(f"server {self.spec.name} cannot be reached", detail=error.detail) from None
        return cast(HttpConnection, protocol)

    def release(self, connection: HttpConnection) -> None:
        connection.idle_since = self.tick
        self.idle.append(connection)

    def forget(self, connection: HttpConnection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)

    def sweep(self) -> None:
        """Drop what has been idle for too long: called once a second, so it drops a second early rather than late."""
        now = self.tick = self.clock()
        for key, pool in list(self._apart.items()):
            if pool.idle:
                pool._seen_at = now
            pool.sweep()
            if now - pool._seen_at > APART_S:
                del self._apart[key]
        for connection in [one for one in self.idle if now - one.idle_since > one.keep_s - 1.0]:
            self.idle.remove(connection)
            connection.alive = False
            connection.transport.close()

    def close(self) -> None:
        for pool in list(self._apart.values()):
            pool.close()
        for connection in self.idle:
            connection.alive = False
            connection.transport.close()
        self.idle.clear()


class Answer(Receiver):
    """A whole HTTP answer, for the few requests that are awaited.

    Args:
        max_answer: Bytes of its body, or of one event.
        events: Is an event stream read up to its first response? Otherwise it is a body as any other.
    """

    def __init__(self, max_answer: int, *, events: bool = True) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.chunks: list[bytes] = []
        self.size = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.connection: HttpConnection | None = None
        self._events: EventParser | None = None
        self.events: list[bytes] = []
        self._max = max_answer
        self._reads_events = events

    def head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        self.status, self.headers = status, headers
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if self._reads_events and kind == b"text/event-stream":
            self._events = EventParser(self._max)

    def body(self, data: bytes) -> None:
        if self.done.done():
            return
        try:
            if self._events is None:
                self.chunks.append(data)
                self.size += len(data)
                if self.size > self._max:
                    raise ParseError(TOO_LARGE)
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


def with_query(path: str, query: str) -> str:
    """A request target with one more parameter."""
    return f"{path}{'&' if '?' in path else '?'}{query}" if query else path


async def ask_as(shown: Shown, pool: HttpPool, head: bytes, rest: bytes, *, max_answer: int) -> Answer:
    """`ask`, showing the server an account; once more where it is refused, and something else can be shown.

    Args:
        head, rest: The request, cut where the lines of the account stand.
    Raises:
        UpstreamUnavailable: As `ask`; CredentialUnavailable: there is nothing to show.
    """
    data = b"%b%b%b" % (head, await shown.obtain(), rest)
    answer = await ask(pool, data, max_answer=max_answer)
    if answer.status in (401, 403):
        other = await shown.again(answer.status, answer.headers.get(b"www-authenticate", b""), data)
        if other is not None:
            answer = await ask(pool, b"%b%b%b" % (head, other, rest), max_answer=max_answer)
    return answer


async def ask(pool: HttpPool, data: bytes, *, max_answer: int, events: bool = True) -> Answer:
    """Send one whole request and wait for its answer (of an event stream: for the first response in it).

    Raises UpstreamUnavailable. The caller sets the deadline; a cancelled wait closes the connection.
    """
    while True:
        answer = Answer(max_answer, events=events)
        kept = pool.take()
        connection = kept or await pool.dial()
        connection.send(answer, data)
        stale = False
        try:
            await answer.done
        except UpstreamUnavailable:
            if kept is None or answer.status:
                raise
            stale = True  # these requests may be sent again
        finally:
            if connection.receives(answer):
                connection.abandon()
        if not stale:
            return answer
