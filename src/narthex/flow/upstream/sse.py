"""A server over the old HTTP+SSE: one event stream brings every answer, a POST takes each message there.

In: a `ServerSpec` with an `HttpTarget`, the pool of its connections. Out: an `SseChannel`, negotiated.
Cases: `tests/flow/upstream/test_sse.py`, one scripted server a misdeed. Source: MCP 2024-11-05, transports ("HTTP with
SSE"); its successors' versions are spoken over it too, as the server answers.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from functools import partial
from urllib.parse import urljoin, urlsplit

import msgspec

from narthex.errors import CredentialUnavailable, GatewayError, ParseError, UpstreamUnavailable
from narthex.flow.codec import handshake
from narthex.flow.codec.jsonrpc import Incoming
from narthex.flow.codec.sse import EventParser
from narthex.flow.upstream.connection import HttpConnection, HttpPool, Receiver, ask_as, with_query
from narthex.flow.upstream.http import refused, request_head
from narthex.flow.upstream.multiplex import Answer, ChannelPush, Multiplex, NotMcp, read_dialect
from narthex.flow.upstream.notice import MOST_NOTICES
from narthex.flow.upstream.port import NOBODY, Behalf, Dialect, Flight, Outgoing, Own, SessionLost, Sink
from narthex.types import HttpTarget, ServerSpec

POST_S = 10.0
"""A POST whose call is over, and one that nobody waits for, gets this long to be acknowledged."""
MOST_ACKNOWLEDGED = 64 * 1024
"""The body of an acknowledgement is read past; a longer one costs its connection."""
_ENDPOINT = re.compile(rb"[!-~]{1,4096}")
_DEFAULT_PORT = {"http": 80, "https": 443}


def endpoint_path(target: HttpTarget, data: bytes) -> str:
    """The request target that an `endpoint` event names.

    A server may not send us, and the credentials in our headers, anywhere but to itself.

    Raises:
        UpstreamUnavailable: Another origin, or no URL.
    """
    host = f"[{target.host}]" if ":" in target.host else target.host
    try:
        if not _ENDPOINT.fullmatch(data):
            raise ValueError("not a URL")
        url = urlsplit(urljoin(f"{target.scheme}://{host}:{target.port}{target.path}", data.decode()))
        port = url.port or _DEFAULT_PORT.get(url.scheme)
        origin = (url.scheme, url.hostname, port)
        if origin != (target.scheme, target.host.lower(), target.port) or url.username is not None:
            raise ValueError("another origin")
    except ValueError as error:
        detail = f"its endpoint event says {data[:200]!r}: {error}"
        raise UpstreamUnavailable("the server's endpoint is refused", detail=detail) from None
    return (url.path or "/") + (f"?{url.query}" if url.query else "")


class _Post(Receiver):
    """One message on its way: the `Receiver` of its acknowledgement, on a pooled connection of its own."""

    def __init__(self, channel: SseChannel, body: bytes) -> None:
        self._channel = channel
        self._body = body
        self._data = b""
        self._connection: HttpConnection | None = None
        self._dialing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._status = 0
        self._size = 0
        self._challenge = b""
        self._shown_twice = False

    def send(self) -> None:
        self._channel.posts.add(self)
        shown = self._channel.behalf.shown.lines
        if shown is not None and (connection := self._channel.pool.take()) is not None:
            self._connection = connection
            connection.send(self, self._wire(shown))
        else:
            self._dialing = asyncio.ensure_future(self._dial())

    def _wire(self, shown: bytes) -> bytes:
        length = b"Content-Length: %d\r\n\r\n" % len(self._body)
        self._data = b"%b%b%b%b" % (self._channel.post_head, shown, length, self._body)
        return self._data

    @property
    def written(self) -> bool:
        return self._dialing is None

    def expire(self) -> None:
        """From now on nobody waits for it."""
        if self in self._channel.posts and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(POST_S, self.drop)

    def undelivered(self, error: GatewayError) -> None:
        self._channel.log.warning("server %s: a message was not delivered: %s", self._channel.name, error.detail)

    async def _dial(self) -> None:
        try:
            shown = await self._channel.behalf.shown.obtain()
            connection = await self._channel.pool.dial()
        except GatewayError as error:
            self._dialing = None
            self._over()
            self.undelivered(error)
            return
        self._dialing = None
        self._connection = connection
        connection.send(self, self._wire(shown))

    async def _again(self) -> None:
        """The server refuses what it was shown: once more, with something else, if there is anything."""
        try:
            other = await self._channel.behalf.shown.again(self._status, self._challenge, self._data)
        except GatewayError as error:
            self._dialing = None
            self.undelivered(error)
            return
        if other is None or not self._channel.alive:
            self._dialing = None
            self.undelivered(refused(self._channel.name, self._status))
            return
        self._size = self._status = 0
        self._channel.posts.add(self)
        await self._dial()

    def drop(self) -> None:
        """End it, wherever it is."""
        connection = self._over()
        if self._dialing is not None:
            self._dialing.cancel()
        if connection is not None:
            connection.abandon()

    def _over(self) -> HttpConnection | None:
        self._channel.posts.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        connection, self._connection = self._connection, None
        return connection

    # --- Receiver

    def head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        self._status = status
        self._challenge = headers.get(b"www-authenticate", b"")

    def body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MOST_ACKNOWLEDGED:
            self.drop()
            self._judge()

    def end(self) -> None:
        self._over()
        self._judge()

    def lost(self, detail: str, *, sent: bool, begun: bool) -> None:
        self._over()
        self.undelivered(UpstreamUnavailable(f"server {self._channel.name} broke off", detail=detail, sent=sent))

    def _judge(self) -> None:
        if self._status == 404:
            self.undelivered(SessionLost("the server ended our session"))
            self._channel.fail(UpstreamUnavailable(f"server {self._channel.name} ended our session", sent=True))
        elif self._status in (401, 403) and not self._shown_twice:
            self._shown_twice = True
            self._dialing = asyncio.ensure_future(self._again())
        elif not 200 <= self._status < 300:
            self.undelivered(refused(self._channel.name, self._status))


class _Call(_Post):
    """A request: also the `Flight` of its caller, and the `Sink` that the shared stream feeds."""

    def __init__(self, channel: SseChannel, out: Outgoing, sink: Sink) -> None:
        super().__init__(channel, out.body)
        self._out = out
        self._sink = sink
        self._resend = out.resend

    def head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        self._out.status = status
        super().head(status, headers, length)

    def undelivered(self, error: GatewayError) -> None:
        if self._channel.calls.waiting.pop(self._out.id, None) is not None:
            self._sink.failed(error)

    def lost(self, detail: str, *, sent: bool, begun: bool) -> None:
        waited_for = self._out.id in self._channel.calls.waiting
        if self._resend and not begun and waited_for and self._channel.alive:
            self._resend = False
            self._over()
            self.send()
            return
        super().lost(detail, sent=sent, begun=begun)

    # --- Flight: the stream is shared, so a sink bounds itself

    def pause(self) -> None:
        return

    def resume(self) -> None:
        return

    def cancel(self, reason: str) -> None:
        if self._channel.calls.waiting.pop(self._out.id, None) is None:
            return
        if self.written:
            self._channel.notify(handshake.cancelled_body(self._out.id, reason))
            self.expire()
        else:
            self.drop()

    # --- Sink

    def started(self, streaming: bool) -> None:
        self._sink.started(streaming)

    def message(self, message: Incoming) -> None:
        self._sink.message(message)

    def splice(self, head: bytes, total: int) -> bool:
        return False

    def chunk(self, data: bytes) -> None:
        return

    def finished(self) -> None:
        self.expire()
        self._sink.finished()

    def failed(self, error: GatewayError) -> None:
        if not self.written:
            error = UpstreamUnavailable(error.public, detail=error.detail)
        self.expire()
        self._sink.failed(error)


class _OwnCall(_Call, Own):
    """A request of ours."""


class SseChannel(Receiver):
    """One event stream and the POSTs that belong to it. See `port.Channel`."""

    def __init__(
        self, spec: ServerSpec, pool: HttpPool, on_push: ChannelPush, log: logging.Logger, behalf: Behalf = NOBODY
    ) -> None:
        self.dialect = Dialect(era="legacy", version="")
        self.behalf = behalf
        self.alive = True
        self.last_used = 0.0
        self.open_calls = 0
        self.name = spec.name
        self.pool = pool
        self.log = log
        self.post_head = b""
        self.posts: set[_Post] = set()
        self.calls = Multiplex(spec.name, reply=self.notify, on_push=partial(on_push, self), log=log, behalf=behalf)
        self._ids = itertools.count(1)
        self._common = request_head(spec, pool, self.dialect).partition(b"\r\n")[2]
        self._events = EventParser(spec.max_answer)
        self._stream: HttpConnection | None = None
        self._request = b""
        self.refused_with: tuple[int, bytes, bytes] | None = None
        """Status and challenge of a stream that was refused for what it showed, and its request."""
        self._ready: asyncio.Future[GatewayError | None] = asyncio.get_running_loop().create_future()

    async def connect(self) -> None:
        """Open the stream and wait for the endpoint that it names. Raises UpstreamUnavailable."""
        target = self.pool.dialer.request_target(self.pool.target).encode("latin-1")
        head = [b"GET %b HTTP/1.1" % target, b"Accept: text/event-stream", b"Cache-Control: no-store"]
        head += [h for h in self._common.split(b"\r\n") if not h.startswith((b"Accept: ", b"Content-Type: "))]
        self._request = b"%b%b\r\n" % (b"\r\n".join(head), await self.behalf.shown.obtain())
        self._stream = await self.pool.dial()
        self._stream.send(self, self._request)
        error = await self._ready
        if error is not None:
            raise error

    async def initialize(self) -> None:
        """Raises UpstreamUnavailable."""
        answer = Answer()
        id_ = self.next_id()
        body = handshake.initialize_body(id_, capabilities=self.behalf.capabilities)
        self.request(Outgoing(id_, "initialize", body), answer)
        self.dialect = read_dialect(self.name, "initialize", await answer.came)
        body = handshake.INITIALIZED
        # Awaited: a call on another connection could overtake it.
        rest = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        shown = self.behalf.shown
        acknowledged = await ask_as(shown, self.pool, self.post_head, rest, max_answer=MOST_ACKNOWLEDGED)
        if not 200 <= acknowledged.status < 300:
            raise UpstreamUnavailable(
                f"server {self.name} refuses the handshake", detail=f"HTTP {acknowledged.status} to initialized"
            )

    def next_id(self) -> int:
        return next(self._ids)

    def request(self, out: Outgoing, sink: Sink) -> Flight:
        call = (_OwnCall if isinstance(sink, Own) else _Call)(self, out, sink)
        if self.alive:
            self.calls.waiting[out.id] = call
            call.send()
        else:
            sink.failed(UpstreamUnavailable(f"server {self.name} broke off"))
        return call

    def notify(self, body: bytes) -> None:
        unheard = sum(type(post) is _Post for post in self.posts)
        if self.alive and unheard < MOST_NOTICES:  # a server may ask us something faster than it takes our answers
            post = _Post(self, body)
            post.send()
            post.expire()

    async def close(self) -> None:
        self.fail(UpstreamUnavailable(f"server {self.name} was closed", sent=True))

    def fail(self, error: GatewayError) -> None:
        """No stream, no conversation: whoever waits gets `error`."""
        self.alive = False
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abandon()
        if not self._ready.done():
            self._ready.set_result(error)
        self.calls.fail(error)
        for post in list(self.posts):
            post.drop()

    def _broke_off(self, detail: str) -> None:
        if self.dialect.version and self.alive:
            self.log.warning("server %s: its event stream ended: %s", self.name, detail)
        self.fail(UpstreamUnavailable(f"server {self.name} broke off", detail=detail, sent=True))

    # --- Receiver of the stream

    def head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if status in (401, 403):
            self.refused_with = (status, headers.get(b"www-authenticate", b""), self._request)
        if status != 200:
            self.fail(refused(self.name, status))
        elif kind != b"text/event-stream":
            self._broke_off(f"it answers {kind[:80]!r} instead of an event stream")

    def body(self, data: bytes) -> None:
        try:
            for event in self._events.feed(data):
                self._take_event(event.event, event.data)
        except ParseError as error:
            self._broke_off(error.detail)
        except NotMcp:
            self._broke_off("it sends what is no MCP")
        except UpstreamUnavailable as error:
            self.fail(error)

    def _take_event(self, kind: str, data: bytes) -> None:
        if not self.alive:
            return
        if kind == "message" and self._ready.done():
            self.calls.take(data)
        elif kind == "endpoint" and not self._ready.done():
            path = with_query(endpoint_path(self.pool.target, data), self.behalf.shown.query())
            target = msgspec.structs.replace(self.pool.target, path=path)
            line = self.pool.dialer.request_target(target).encode("latin-1")
            self.post_head = b"POST %b HTTP/1.1\r\n%b" % (line, self._common)
            self._ready.set_result(None)

    def end(self) -> None:
        self._stream = None
        self._broke_off("the server ended it")

    def lost(self, detail: str, *, sent: bool, begun: bool) -> None:
        self._stream = None
        self._broke_off(detail)


async def open_sse(
    spec: ServerSpec,
    pool: HttpPool,
    *,
    on_push: ChannelPush,
    log: logging.Logger,
    deadline_s: float,
    behalf: Behalf = NOBODY,
) -> SseChannel:
    """Connect to a server and negotiate, within `deadline_s` seconds.

    Args:
        pool: Connections to the server's origin; the stream takes one, POSTs share the others.
        on_push: Gets notifications of the server that belong to no call.
    Raises:
        UpstreamUnavailable: Unreachable, refusing, silent, speaking something else, or naming a foreign endpoint.
    """
    if spec.era == "modern":
        raise UpstreamUnavailable(f"server {spec.name} is of the legacy era: it speaks HTTP+SSE")
    channel = SseChannel(spec, pool, on_push, log, behalf)
    try:
        return await _open(channel, deadline_s)
    except UpstreamUnavailable:
        if channel.refused_with is None or await behalf.shown.again(*channel.refused_with) is None:
            raise
    return await _open(SseChannel(spec, pool, on_push, log, behalf), deadline_s)


async def _open(channel: SseChannel, deadline_s: float) -> SseChannel:
    name = channel.name
    try:
        async with asyncio.timeout(deadline_s):
            await channel.connect()
            await channel.initialize()
    except TimeoutError:
        await channel.close()
        raise UpstreamUnavailable(
            f"server {name} does not answer", detail="its handshake was not answered in time"
        ) from None
    except CredentialUnavailable:
        await channel.close()
        raise
    except GatewayError as error:
        await channel.close()
        raise UpstreamUnavailable(error.public, detail=error.detail) from None  # `sent` speaks of calls: none was
    except BaseException:
        await channel.close()
        raise
    return channel
