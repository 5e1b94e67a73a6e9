"""How a server is heard, over one channel: what is wanted, asked for in the channel's era.

In: a channel, what is wanted. Out: what the server agreed to, and each change that it tells. Modern: one
`subscriptions/listen`, another one before the old one ends when something else is wanted. Legacy:
`resources/subscribe` for each URI, and the GET stream of Streamable HTTP; a pipe that calls share needs none.
Cases: `tests/flow/upstream/test_listening.py`.
Source: MCP 2026-07-28, subscriptions; 2025-11-25, resources ("Subscriptions"), transports.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from narthex.errors import GatewayError, UpstreamTimeout, UpstreamUnavailable
from narthex.flow.codec import subscriptions
from narthex.flow.codec.bridge import error_code
from narthex.flow.codec.jsonrpc import Incoming, Raw, encode
from narthex.flow.codec.subscriptions import Acknowledged, ListKind, Wanted, listen_body, read_event
from narthex.flow.upstream.http import HttpChannel, refused
from narthex.flow.upstream.multiplex import Multiplex
from narthex.flow.upstream.port import NOBODY, Channel, Flight, Outgoing, Own, SessionLost
from narthex.flow.upstream.session import SessionChannel
from narthex.flow.upstream.stream import EventStream, can_resume, get_head
from narthex.telemetry.asking import asking

if TYPE_CHECKING:
    from narthex.flow.upstream.server import Server

ACKNOWLEDGED_S = 10.0
"""A server gets this long to acknowledge a subscription, or to answer a GET."""
NOTHING = Wanted()
AT_ONCE = 16
"""Subscriptions to single resources that are asked for together."""
_log = logging.getLogger("narthex.upstream")


class Refused(UpstreamUnavailable):
    """The server refuses a subscription as it was asked for, with this JSON-RPC error; another one it may grant."""

    def __init__(self, error: bytes) -> None:
        detail = f"it answers with error {error[:200]!r}"
        super().__init__("the server refuses the subscription", detail=detail, sent=True)
        self.code = error_code(Raw(error))


class Ended(msgspec.Struct, frozen=True):
    """A stream that was open has ended. `served`: it had told something; `retry_s`: when the server wants us back."""

    detail: str
    served: bool = False
    retry_s: float = 0.0


class Link(Protocol):
    """One way of hearing a server. `agreed` is what it said that it tells, `in_force` what it was asked for."""

    channel: Channel
    agreed: Wanted
    in_force: Wanted

    async def apply(self, wanted: Wanted) -> bool:
        """Ask for what is wanted now, and no more for the rest. Idempotent.

        Returns:
            Whether something may have been missed since this link was last open.
        Raises:
            Refused: As a whole. What was agreed to before stays.
            GatewayError: It cannot be had now; to be tried again.
        """

    async def end(self) -> None:
        """Ask for nothing more, and say so where the channel is alive."""

    def drop(self) -> None:
        """The same at once."""


OnEnd = Callable[[Ended], None]


def link_for(server: Server, scope: Hashable, channel: Channel, on_end: OnEnd) -> Link:
    """The way to hear over this channel. `on_end` is told when what was open has ended: then `apply` once more."""
    if channel.dialect.era == "modern":
        return ModernLink(server, scope, channel, on_end)
    return LegacyLink(server, scope, channel, on_end)


# --- modern


class ModernLink:
    """See `Link`."""

    def __init__(self, server: Server, scope: Hashable, channel: Channel, on_end: OnEnd) -> None:
        self.channel = channel
        self.agreed = NOTHING
        self.in_force = NOTHING
        self._server = server
        self._scope = scope
        self._on_end = on_end
        self._current: _Subscription | None = None
        self._was_open = False

    async def apply(self, wanted: Wanted) -> bool:
        before = self._current
        if wanted == self.in_force:
            return False
        if wanted == NOTHING:
            self.drop()
            return False
        subscription = _Subscription(self._server, self._scope, wanted, self._ended)
        agreed = await subscription.open(self.channel)
        if subscription.over:  # in the same read: it was nobody's yet
            raise UpstreamUnavailable("the server ended the subscription at once")
        missed, self._was_open = self._was_open and (before is None or before.over), True
        self.agreed, self._current, self.in_force = agreed, subscription, wanted
        if before is not None:
            before.cancel()
        return missed

    async def end(self) -> None:
        self.drop()

    def drop(self) -> None:
        subscription, self._current = self._current, None
        self.agreed = self.in_force = NOTHING
        self._was_open = False
        if subscription is not None:
            subscription.cancel()

    def _ended(self, subscription: _Subscription, detail: str) -> None:
        if subscription is self._current:
            self._current = None
            self.in_force = NOTHING
            self._on_end(Ended(detail, served=subscription.served))


class _Subscription(Own):
    """One `subscriptions/listen`: the sink of its stream."""

    def __init__(
        self, server: Server, scope: Hashable, wanted: Wanted, on_end: Callable[[_Subscription, str], None]
    ) -> None:
        self.wanted = wanted
        self.served = False
        self._server = server
        self._scope = scope
        self._on_end = on_end
        self._agreed: asyncio.Future[Wanted] = asyncio.get_running_loop().create_future()
        self._flight: Flight | None = None
        self.over = False

    async def open(self, channel: Channel) -> Wanted:
        """Ask, and wait for what the server agrees to. Raises Refused, UpstreamUnavailable, UpstreamTimeout."""
        id_, server = channel.next_id(), self._server
        try:
            with asking(server.spec.name, "subscriptions/listen", server.clock) as asked:
                meta, lines = (asked.context.into({}), asked.context.lines) if asked is not None else ({}, b"")
                body = listen_body(id_, self.wanted, channel.dialect.version, meta)
                out = Outgoing(id_, "subscriptions/listen", body, resend=True, lines=lines)
                self._flight = channel.request(out, self)
                async with asyncio.timeout(ACKNOWLEDGED_S):
                    return await self._agreed
        except TimeoutError:
            self.cancel()
            raise UpstreamTimeout(f"server {self._server.spec.name} acknowledges no subscription") from None
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Nobody listens any more."""
        if not self.over:
            self.over = True
            if self._flight is not None:
                self._flight.cancel("no longer needed")

    # --- Sink

    def started(self, streaming: bool) -> None: ...

    def message(self, message: Incoming) -> None:
        if self.over:
            return
        event = read_event(message)
        if isinstance(event, subscriptions.Ended):
            self._respond(event.error)
        elif isinstance(event, Acknowledged):
            self._acknowledge(event.wanted)
        elif event is not None and self._agreed.done():  # before that a server may tell nothing
            self.served = True
            self._server.heard(self._scope, event)

    def _acknowledge(self, said: Wanted) -> None:
        """A server may agree to less than was asked for, never to more."""
        if not self._agreed.done():
            asked = self.wanted
            agreed = Wanted(asked.kinds & said.kinds, asked.uris & said.uris, asked.tasks & said.tasks)
            self._agreed.set_result(agreed)

    def _respond(self, error: bytes | None) -> None:
        ended = UpstreamUnavailable("the server ended the subscription")
        self._close(ended if error is None else Refused(error))

    def splice(self, head: bytes, total: int) -> bool:
        return False

    def chunk(self, data: bytes) -> None: ...

    def finished(self) -> None:
        self._close(UpstreamUnavailable("the server ended the subscription"))

    def failed(self, error: GatewayError) -> None:
        self._close(error)

    def _close(self, error: GatewayError) -> None:
        if self.over:
            return
        self.cancel()
        if not self._agreed.done():
            self._agreed.set_exception(error)
        else:
            self._on_end(self, error.detail or error.public)


# --- legacy


class LegacyLink:
    """See `Link`."""

    def __init__(self, server: Server, scope: Hashable, channel: Channel, on_end: OnEnd) -> None:
        self.channel = channel
        self.agreed = NOTHING
        self.in_force = NOTHING
        self._server = server
        self._scope = scope
        self._on_end = on_end
        self._subscribed: set[str] = set()
        self._refused: set[str] = set()
        self._stream: EventStream | None = None
        self._offered = True
        self._last_id = ""
        self._was_open = False

    async def apply(self, wanted: Wanted) -> bool:
        missed = False
        if isinstance(self.channel, HttpChannel) and self._stream is None and self._offered:
            missed = await self._open_stream(self.channel)
        if not self._offered:  # nothing would ever be heard
            self.agreed = NOTHING
            return False
        await self._subscribe(wanted.uris)
        capabilities = self.channel.dialect.capabilities
        self.agreed = Wanted(
            kinds=frozenset(kind for kind in wanted.kinds if _offers(capabilities, kind, "listChanged")),
            uris=wanted.uris & self._subscribed,
            tasks=wanted.tasks if "tasks" in capabilities else frozenset(),
        )
        self.in_force = wanted
        return missed

    async def end(self) -> None:
        try:
            if self.channel.alive:
                await self._subscribe(frozenset())
        except (GatewayError, TimeoutError):
            pass  # politeness: what is subscribed ends with the channel
        self.drop()

    def drop(self) -> None:
        self.agreed = self.in_force = NOTHING
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    # --- single resources

    async def _subscribe(self, uris: frozenset[str]) -> None:
        """Subscribe and unsubscribe by the difference. A resource that is refused is not asked for again."""
        self._refused &= uris
        if not _offers(self.channel.dialect.capabilities, "resources", "subscribe"):
            return
        for method, todo in (
            ("resources/unsubscribe", sorted(self._subscribed - uris)),
            ("resources/subscribe", sorted(uris - self._subscribed - self._refused)),
        ):
            for start in range(0, len(todo), AT_ONCE):
                async with asyncio.timeout(self._server.spec.list_timeout_s):
                    await asyncio.gather(*(self._ask(method, uri) for uri in todo[start : start + AT_ONCE]))

    async def _ask(self, method: str, uri: str) -> None:
        message = await self._server.request(self.channel, method, {"uri": Raw(encode(uri))})
        if method == "resources/unsubscribe":
            self._subscribed.discard(uri)
        elif message.error:
            self._refused.add(uri)
        else:
            self._subscribed.add(uri)

    # --- the GET stream

    async def _open_stream(self, channel: HttpChannel) -> bool:
        """Returns whether something may have been missed since the last one."""
        server, pool = self._server, channel.pool
        inbox = Multiplex(
            server.spec.name,
            reply=channel.notify,
            on_push=lambda message: server.pushed(self._scope, channel, message),
            log=_log,
            behalf=channel.behalf if isinstance(channel, SessionChannel) else NOBODY,
            waiting=channel.calls if isinstance(channel, SessionChannel) else None,
            answered=False,
        )
        stream = self._stream = EventStream(server.spec, inbox.take, self._stream_ended)
        status = 0
        try:
            async with asyncio.timeout(ACKNOWLEDGED_S):
                shown = await channel.shown.obtain()
                head = get_head(server.spec, pool, channel.dialect, self._last_id, shown)
                status = await stream.open(pool, head)
                if status in (401, 403):
                    await channel.shown.again(status, b"", head)  # the next try may have another token
        except TimeoutError:
            raise UpstreamTimeout(f"server {server.spec.name} does not answer a GET") from None
        finally:
            if status != 200:
                self._stream = None
        if status != 200:
            await self._judge(status)
            return False
        missed, self._was_open = self._was_open and not can_resume(self._last_id), True
        return missed

    async def _judge(self, status: int) -> None:
        """What it means that there is no stream: none is offered, the session is lost, or an error."""
        channel, name = self.channel, self._server.spec.name
        if status in (401, 403, 429) or status >= 500 or status < 400:
            raise refused(name, status)
        lost = status == 404 and channel.dialect.session_id is not None
        if lost or (status != 405 and not await self._server.knows_session(channel)):
            channel.alive = False
            raise SessionLost("the server ended our session")
        self._offered = False
        _log.info("server %s offers no stream of its own (HTTP %d): changes are found by asking", name, status)

    def _stream_ended(self, stream: EventStream, detail: str) -> None:
        if stream is self._stream:
            self._stream = None
            self._last_id = stream.last_id or self._last_id
            self._on_end(Ended(detail, served=stream.delivered, retry_s=stream.retry_s))


def _offers(capabilities: dict[str, Any], name: ListKind, what: str) -> bool:
    """Does a server say that it can do this? What it says is never trusted to have a form."""
    member = capabilities.get(name)
    return isinstance(member, dict) and member.get(what) is True
