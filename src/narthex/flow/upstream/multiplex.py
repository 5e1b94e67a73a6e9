"""Many calls on one stream of messages (a process's stdout, an event stream): whose is each, and when is it no MCP.

In: messages as bytes, in order. Out: calls of the sinks that wait, of `on_push` for notifications that belong to no
call, and replies to what the server asks of us. Cases: `tests/flow/upstream/test_stdio.py`, `test_sse.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

import msgspec

from narthex.errors import GatewayError, ParseError, UpstreamUnavailable
from narthex.flow.codec import handshake
from narthex.flow.codec.jsonrpc import BAD_JSON, UNSET, Incoming, decode_incoming
from narthex.flow.upstream.port import NOBODY, Behalf, Channel, Dialect, Own, Sink
from narthex.flow.upstream.pushes import CHANGES, place_notification, place_request, subscription_of

GARBAGE_MESSAGES = 1000
GARBAGE_BYTES = 64 * 1024
"""Between two messages; a banner or a stray print passes, a program that is no MCP server does not."""
Push = Callable[[Incoming], None]
ChannelPush = Callable[[Channel, Incoming], None]
"""Gets a notification that belongs to no call, and the channel on which it came."""


class NotMcp(Exception):
    """More garbage than is borne."""


class _ProgressParams(msgspec.Struct):
    token: int | str | None = msgspec.field(name="progressToken", default=None)


class _CancelledParams(msgspec.Struct):
    id: int | str | None = msgspec.field(name="requestId", default=None)


_decode_progress = msgspec.json.Decoder(_ProgressParams).decode
_decode_cancelled = msgspec.json.Decoder(_CancelledParams).decode


class Multiplex:
    """Who waits for which answer. Sinks bound themselves: the stream never waits for one of them.

    Args:
        reply: Sends our answer to a request of the server.
        on_push: Gets notifications that belong to no call.
        behalf: Decides what the server may ask, and of whom.
        waiting: Open calls by id: those that are answered here or, with `answered` False, on streams of their own.
    """

    def __init__(
        self,
        name: str,
        *,
        reply: Callable[[bytes], None],
        on_push: Push,
        log: logging.Logger,
        behalf: Behalf = NOBODY,
        waiting: dict[int, Sink] | None = None,
        answered: bool = True,
    ) -> None:
        self.waiting: dict[int, Sink] = {} if waiting is None else waiting
        self._name = name
        self._reply = reply
        self._on_push = on_push
        self._log = log
        self._behalf = behalf
        self._answered = answered
        self._garbage_messages = 0
        self._garbage_bytes = 0
        self._garbage_told = False

    def take(self, data: bytes | bytearray) -> None:
        """Hand on one message. Raises NotMcp when the server is none of MCP."""
        try:
            message = decode_incoming(data)
        except ParseError:
            self._take_garbage(data)
            return
        if message.jsonrpc != "2.0" or not (message.method or message.result or message.error):
            self._take_garbage(data)
            return
        self._garbage_messages = self._garbage_bytes = 0
        try:
            self._route(message)
        except Exception:
            # A fault of ours in one call's sink must not cost the other calls on this stream.
            self._log.exception("server %s: a message could not be handled", self._name)

    def fail(self, error: GatewayError) -> None:
        """Nobody will be answered any more."""
        waiting, self.waiting = self.waiting, {}
        for sink in waiting.values():
            sink.failed(error)

    def _take_garbage(self, data: bytes | bytearray) -> None:
        if not data.strip():
            return
        self._garbage_messages += 1
        self._garbage_bytes += len(data)
        if not self._garbage_told:
            self._garbage_told = True
            self._log.warning("server %s sends what is no MCP message: %r", self._name, bytes(data[:80]))
        if self._garbage_messages > GARBAGE_MESSAGES or self._garbage_bytes > GARBAGE_BYTES:
            raise NotMcp

    def _route(self, message: Incoming) -> None:
        if not message.method:
            sink = self.waiting.pop(message.id, None) if self._answered and isinstance(message.id, int) else None
            if sink is not None:  # else it was cancelled, or never asked
                sink.message(message)
                sink.finished()
        elif message.id is not UNSET and message.id is not None:
            self._route_request(message)
        elif message.method == "notifications/progress":
            self._route_progress(message)
        elif message.method in CHANGES:
            self._route_change(message)
        elif message.method != "notifications/cancelled" or not self._end_subscription(message):
            sink = place_notification(message, self._behalf, self.waiting)
            if sink is not None:
                sink.message(message)
            else:
                self._on_push(message)

    def _route_request(self, message: Incoming) -> None:
        placed = place_request(message, self._behalf, self.waiting)
        if isinstance(placed, bytes):
            self._reply(placed)
        else:
            placed.message(message)

    def _route_change(self, message: Incoming) -> None:
        """To the subscription on whose stream it came; without such a stamp it is for everybody here."""
        stamp = subscription_of(message)
        sink = self.waiting.get(stamp) if stamp is not None else None
        if stamp is None:
            self._on_push(message)
        elif isinstance(sink, Own):  # else the subscription has ended, and the stamp names it no more
            sink.message(message)

    def _end_subscription(self, message: Incoming) -> bool:
        """A server that ends a subscription on a pipe says so by cancelling our request (2026-07-28, cancellation)."""
        try:
            id_ = _decode_cancelled(message.params).id
        except BAD_JSON:
            return False
        sink = self.waiting.get(id_) if isinstance(id_, int) else None
        if not isinstance(sink, Own) or not isinstance(id_, int):
            return False
        del self.waiting[id_]
        sink.finished()
        return True

    def _route_progress(self, message: Incoming) -> None:
        """To its call; without one it may be of a task, which goes on behind the call that began it."""
        try:
            token = _decode_progress(message.params).token
        except BAD_JSON:
            return
        sink = self.waiting.get(token) if isinstance(token, int) else None
        if sink is not None:
            sink.message(message)
        elif isinstance(token, int):
            self._on_push(message)


class Answer(Own):
    """A sink that can be waited for; for the requests of the handshake. It gets an error as a value, never raised."""

    def __init__(self) -> None:
        self.came: asyncio.Future[Incoming | GatewayError] = asyncio.get_running_loop().create_future()

    def started(self, streaming: bool) -> None:
        return

    def message(self, message: Incoming) -> None:
        if not message.method and not self.came.done():
            self.came.set_result(message)

    def splice(self, head: bytes, total: int) -> bool:
        return False

    def chunk(self, data: bytes) -> None:
        return

    def finished(self) -> None:
        return

    def failed(self, error: GatewayError) -> None:
        if not self.came.done():
            self.came.set_result(error)


def read_dialect(
    name: str, method: Literal["server/discover", "initialize"], answer: Incoming | GatewayError
) -> Dialect:
    """What an answer to the handshake makes of the server `name`.

    Raises:
        UpstreamUnavailable: It is an error, or a result that makes no dialect. `sent` is False: it speaks of calls.
    """
    if isinstance(answer, GatewayError):
        raise UpstreamUnavailable(answer.public, detail=answer.detail)
    if answer.error:
        detail = f"it answers {method} with error {bytes(answer.error)[:200]!r}"
        raise UpstreamUnavailable(f"server {name} refuses the handshake", detail=detail)
    if method == "initialize":
        return handshake.dialect_from_initialize(answer.result, None)
    return handshake.dialect_from_discover(answer.result)
