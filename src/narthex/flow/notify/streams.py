"""Long answers on which a client is told of changes: a modern `subscriptions/listen`, or a legacy session's GET.

In: a request that opens one, news from the hub. Out: an event stream that lives until its client closes it, the session
or the gateway ends, or nobody reads it. What cannot be written now waits in `Interests`, where it is bounded.
Cases: `tests/flow/notify/test_streams.py`.
Source: MCP 2026-07-28, basic/patterns/subscriptions; MCP 2025-11-25, transports ("Listening for Messages from the
Server", "Resumability and Redelivery"); 2024-11-05 to 2025-06-18, the same.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from narthex.errors import GatewayError, HttpRefusal, Overloaded, SessionNotFound, UnsupportedVersion
from narthex.flow.accept.forms import SSE, SSE_HEADERS
from narthex.flow.accept.recording import Traced
from narthex.flow.accept.replying import Replying
from narthex.flow.codec.bridge import client_bits
from narthex.flow.codec.jsonrpc import encode_error
from narthex.flow.codec.offers import SERVER_INFO
from narthex.flow.codec.revisions import ERA_OF_HEADER, LATEST_LEGACY, LEGACY
from narthex.flow.codec.sse import encode_event
from narthex.flow.codec.subscriptions import (
    Notification,
    acknowledged,
    encode_notification,
    ended,
    read_listen,
)
from narthex.flow.notify.hub import Listener
from narthex.flow.notify.live import LiveSession
from narthex.flow.notify.resumability import RETRY_MS, retry_event
from narthex.flow.whole import HttpRequest
from narthex.telemetry.accounts import OUTCOME, outcome_of
from narthex.telemetry.asking import on_behalf
from narthex.types import Call, EndpointSpec, Principal

if TYPE_CHECKING:
    from narthex.flow.accept.front import Front

STALLED_S = 60.0
"""A client that reads nothing for so long is gone."""
_OK = OUTCOME["ok"]
_log = logging.getLogger("narthex.front")


class Telling(ABC):
    """One open stream. It is its connection's `Exchanging`."""

    def __init__(self, front: Front, connection: Replying, listener: Listener) -> None:
        self.front = front
        self.hub = front.hub
        self.listener = listener
        self.written_at = front.clock()
        self._connection: Replying | None = connection
        self._paused_at: float | None = None
        connection.exchange = self

    @abstractmethod
    def encode(self, what: Notification) -> bytes:
        """The event of a notification."""

    @abstractmethod
    def last_words(self) -> bytes:
        """Events that say that the stream ends in good order; empty for none."""

    @abstractmethod
    def closed(self) -> None:
        """The stream is over, for whatever reason."""

    def begin(self, first: bytes) -> None:
        """Write the head and the first events; then what is there to tell."""
        connection = self._connection
        assert connection is not None
        self.hub.streams.add(self)
        self.written_at = self.front.clock()
        connection.write(connection.begin_body(200, SSE, None, SSE_HEADERS) + connection.frame(first))
        self.tell()

    def tell(self) -> None:
        """Write what is new, if the client reads."""
        if self._connection is None or self._connection.paused or self not in self.hub.streams:
            return
        try:
            events = b"".join(map(self.encode, self.hub.take(self.listener)))
        except Overloaded as error:
            self.fail(error)
            return
        if events:
            self._write(events)

    def _write(self, events: bytes) -> None:
        connection = self._connection
        assert connection is not None
        self.written_at = self.front.clock()
        connection.write(connection.frame(events))

    def end(self) -> None:
        """End it in good order."""
        self._end(self.last_words())

    def fail(self, error: GatewayError) -> None:
        """End it: something was lost."""
        self._end(b"")

    def _end(self, events: bytes) -> None:
        connection, self._connection = self._connection, None
        begun = self in self.hub.streams
        self.hub.streams.discard(self)
        if connection is not None:
            if begun:
                connection.end_body(connection.frame(events))
            else:
                connection.abort()
        self.closed()

    def comment(self, now: float) -> None:
        """Keep a silent stream alive through proxies; drop one that nobody reads."""
        if self._paused_at is not None:
            if now - self._paused_at >= STALLED_S and self._connection is not None:
                self._connection.abort()
                self.client_gone()
        elif self._connection is not None:
            self._write(b":\n\n")

    # --- Exchanging

    def client_gone(self) -> None:
        self._connection = None
        self.hub.streams.discard(self)
        self.closed()

    def pause(self) -> None:
        self._paused_at = self.front.clock()

    def resume(self) -> None:
        self._paused_at = None
        self.tell()


class Listen(Telling):
    """The answer to a modern `subscriptions/listen`.

    Raises (when made):
        InvalidParams, MissingCapability: as `read_listen`.
    """

    def __init__(self, front: Front, connection: Replying, call: Call, traced: Traced | None = None) -> None:
        wanted = read_listen(call.params, call.meta)
        listener = Listener(call.endpoint, call.principal, None, client_bits(call), wanted, call.meta)
        super().__init__(front, connection, listener)
        self._call = call
        self._began_at = front.clock()
        self._traced = traced
        joining = self._join() if traced is None else on_behalf(traced.trace, self._join())
        self._joining = self.hub.spawn(joining)

    async def _join(self) -> None:
        listener, call = self.listener, self._call
        try:
            agreed = await self.hub.join(listener)
        except GatewayError as error:
            if self._connection is not None:
                connection, self._connection = self._connection, None
                self.front.refuse(connection, self.front.decode_id(call.id_json), error, call.era, traced=self._traced)
            return
        if self._connection is None:
            self.hub.leave(listener)
            return
        listener.stream = self
        first = encode_event(acknowledged(call.id_json, agreed))
        seconds = self.front.clock() - self._began_at
        self.front.accounts.counter(call.endpoint, "", call.method, "", call.era).add(_OK, seconds, 0, len(first))
        if self._traced is not None:  # its span ends with what it is told first: the stream may last for days
            self.front.span(self._traced, _OK, len(first))
        self.begin(first)

    def encode(self, what: Notification) -> bytes:
        return encode_event(encode_notification(what, self._call.id_json))

    def last_words(self) -> bytes:
        return encode_event(ended(self._call.id_json, SERVER_INFO))

    def fail(self, error: GatewayError) -> None:
        decision_id = self.front.new_id()
        body = encode_error(self.front.decode_id(self._call.id_json), error, decision_id)
        self.front.accounts.counter(self._call.endpoint, "", self._call.method, "", self._call.era).add(
            outcome_of(error), 0.0, 0, len(body)
        )
        self._end(encode_event(body))

    def closed(self) -> None:
        self._joining.cancel()
        self.hub.leave(self.listener)


class Standalone(Telling):
    """A legacy session's GET. A session has one: the next one takes over, because a client that lost its connection is
    back before we see that it had gone. What it sent can be asked for again (`Last-Event-ID`)."""

    def __init__(self, front: Front, connection: Replying, live: LiveSession, handle: bytes, who: Listener) -> None:
        super().__init__(front, connection, who)
        self._live = live
        self._handle = handle
        before, live.stream = live.stream, self
        if before is not None:
            before.end()
        self.listener.stream = self
        if live.log is None or not live.log.kept:
            live.log = self.hub.logs.open(live.session.id, self)
        else:
            live.log.attach(self)
        self._log = live.log

    def start(self, missed: bytes) -> None:
        """Begin, with what the client has missed."""
        first = self._log.prime(RETRY_MS) if self._live.session.version == LATEST_LEGACY else b""
        self.begin(missed or first)
        self.hub.spawn(self._listen())

    async def _listen(self) -> None:
        try:
            await self.hub.enlist(self._live, self.listener)
        except GatewayError as error:
            _log.warning("a session cannot listen: %s", error.public)
            self.end()
        else:
            self.tell()

    def encode(self, what: Notification) -> bytes:
        return self._log.append(encode_notification(what, None), self.front.clock())

    def last_words(self) -> bytes:
        return retry_event(RETRY_MS)

    def comment(self, now: float) -> None:
        """A stream ends with its session, which may have expired."""
        try:
            self.front.sessions.find(self._handle, self.listener.principal, self.listener.endpoint)
        except SessionNotFound:
            self.hub.end_session(self._live.session.id)
        else:
            super().comment(now)

    def closed(self) -> None:
        now = self.front.clock()
        self._log.detach(self, now)
        if self._live.stream is self:
            self._live.stream = None
            self.hub.live.use(self._live, now)
        if self.listener.stream is self:
            self.listener.stream = None


def open_standalone(
    front: Front,
    connection: Replying,
    request: HttpRequest,
    endpoint: EndpointSpec,
    principal: Principal,
    *,
    takes_events: bool,
) -> None:
    """A GET: a legacy session's own stream, or the rest of one that broke off.

    Raises:
        HttpRefusal: 405 without a session, or for a modern client; 406; 400 where it cannot be resumed.
        UnsupportedVersion, SessionNotFound, Overloaded.
    """
    headers = request.headers
    handle, said = headers.get(b"mcp-session-id"), headers.get(b"mcp-protocol-version")
    era = ERA_OF_HEADER.get(said)
    if said is not None and era is None:
        raise UnsupportedVersion("unsupported protocol version", data={"supported": list(LEGACY)})
    if handle is None or (era is not None and era[1] == "modern"):
        raise HttpRefusal(405, "method_not_allowed", "POST here", headers=(("Allow", "POST, DELETE"),))
    if not takes_events:
        raise HttpRefusal(406, "not_acceptable", "accept text/event-stream")
    session = front.sessions.find(handle, principal, endpoint.name)
    missed = b""
    last = headers.get(b"last-event-id")
    live = front.hub.live.get(session, front.clock())
    if last:
        stream, events = front.hub.logs.replay(session.id, last)
        missed = b"".join(events)
        if live is None or stream is not live.log:
            one = front.hub.resumable.get(stream)
            if one is not None and not one.answered:
                one.resumed(connection, missed)
            else:
                connection.write(connection.begin_body(200, SSE, None, SSE_HEADERS))
                connection.end_body(connection.frame(missed))
            return
    try:
        live = front.hub.session(session)
    except Overloaded as error:
        raise HttpRefusal(503, error.reason, error.public, headers=(("Retry-After", "1"),)) from None
    listener = front.hub.listener(live, principal, endpoint.name)
    Standalone(front, connection, live, handle, listener).start(missed)
