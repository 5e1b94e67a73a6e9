"""One upstream at run time: its channels, its health, and its lists. Opened lazily, kept while used, closed when idle.

A `scope` says who shares a channel (design §4): the tenant, the principal, or one client session.
Cases: `tests/flow/upstream/test_server.py`, and `tests/e2e/test_faults.py` for when the server is not well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

import msgspec

from narthex.errors import GatewayError, Overloaded, UpstreamTimeout, UpstreamUnavailable
from narthex.flow.codec.bridge import error_code, outgoing_body
from narthex.flow.codec.jsonrpc import BAD_JSON, Incoming, Raw, RawMap, decode_map
from narthex.flow.held import Held
from narthex.flow.route.index import MEMBER, Items, read_items
from narthex.flow.upstream.breaker import Breaker
from narthex.flow.upstream.connection import HttpPool
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.negotiate import OldTransport, open_http
from narthex.flow.upstream.port import Channel, Outgoing, SessionLost
from narthex.flow.upstream.secrets import hide, secrets_of
from narthex.flow.upstream.stdio import open_stdio
from narthex.types import LOCAL, Call, Era, HttpTarget, Kind, ServerSpec

T = TypeVar("T")
_log = logging.getLogger("narthex.upstream")
MOST_ITEMS = 20_000
MOST_TEMPLATES = 200
"""Templates are tried one after the other for a resource that no list names."""
MOST_PAGES = 200
MOST_CHANNELS = 1024
START_S = 30.0
"""How long a stdio server may take to start and negotiate; a list does not wait for it longer than its own deadline."""
SESSION_IDLE_S = 600.0
RECHECK_S = 1.0
"""A name that is not in a list makes us ask for the list again, at most this often."""
METHOD: dict[Kind, str] = {
    "tools": "tools/list",
    "prompts": "prompts/list",
    "resources": "resources/list",
    "templates": "resources/templates/list",
}
_CAPABILITY: dict[Kind, str] = {
    "tools": "tools",
    "prompts": "prompts",
    "resources": "resources",
    "templates": "resources",
}


class Listed(msgspec.Struct):
    """A server's list as last fetched. Times are monotonic seconds."""

    items: Items
    fetched_at: float
    fresh_until: float


class Server:
    """One upstream. `on_change` is called when one of its lists has other contents than before."""

    def __init__(
        self,
        spec: ServerSpec,
        dialer: Dialer,
        held: Held,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.clock = clock
        self.breaker = Breaker(chance=chance)
        self.channels: dict[Hashable, Channel] = {}
        self.in_flight = 0
        self.verdict: Era | None = None
        self.old_transport = False
        self.last_error: tuple[float, str] | None = None
        self._closed = False
        self._secrets = secrets_of(spec)
        self._dialer = dialer
        self._held = held
        self._on_change = on_change
        self._opening: dict[Hashable, asyncio.Task[Channel]] = {}
        self._listing: dict[tuple[Hashable, Kind], asyncio.Task[Items]] = {}
        self._lists: dict[tuple[Hashable, Kind], Listed] = {}
        target = spec.target
        self.pool = HttpPool(spec, target, dialer, clock) if isinstance(target, HttpTarget) else None

    # --- channels

    def gone(self) -> bool:
        """Closed for good: a reload removed it, or the gateway stops."""
        return self._closed

    def ready(self, scope: Hashable) -> Channel | None:
        """The open channel of `scope`, or None: then `open` it."""
        channel = self.channels.get(scope)
        return channel if channel is not None and channel.alive else None

    async def open(self, scope: Hashable) -> Channel:
        """A channel for `scope`; many callers at once open one. A caller that gives up does not stop the opening.

        Raises:
            UpstreamUnavailable: Unreachable, not MCP, or the breaker is open.
            Overloaded: Too many channels to this server.
        """
        channel = self.ready(scope)
        if channel is not None:
            return channel
        task = self._opening.get(scope)
        if task is None:
            task = self._opening[scope] = asyncio.ensure_future(self._open(scope))
            task.add_done_callback(lambda done: self._opened(scope, done))
        return await self._outcome(task)

    async def _outcome(self, task: asyncio.Task[T]) -> T:
        """What a task that many wait for comes to; an error, not silence, when the server is closed under it."""
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and self.gone():
                raise UpstreamUnavailable(f"server {self.spec.name} is gone") from None
            raise

    def _opened(self, scope: Hashable, task: asyncio.Task[Channel]) -> None:
        self._opening.pop(scope, None)
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it

    async def _open(self, scope: Hashable) -> Channel:
        if self.gone():
            raise UpstreamUnavailable(f"server {self.spec.name} is gone")
        if len(self.channels) >= MOST_CHANNELS and not self._drop_dead():
            raise Overloaded(f"too many sessions with server {self.spec.name}")
        self.check_breaker()
        try:
            async with asyncio.timeout(START_S if self.pool is None else self.spec.list_timeout_s):
                channel = await self._negotiate()
        except TimeoutError:
            raise self.failed(UpstreamTimeout(f"server {self.spec.name} did not answer in time")) from None
        except GatewayError as error:
            raise self.failed(error) from None
        if self.gone():
            await channel.close()
            raise UpstreamUnavailable(f"server {self.spec.name} is gone")
        self.breaker.success(self.clock())
        channel.last_used = self.clock()
        self.channels[scope] = channel
        return channel

    async def _negotiate(self) -> Channel:
        spec = self.spec
        if self.pool is None:
            return await open_stdio(spec, on_push=self._pushed, log=_log, deadline_s=START_S - 4.0)
        if spec.transport == "sse" or self.old_transport:
            return await self._open_sse(self.pool)
        era = spec.era if spec.era != "auto" else self.verdict
        try:
            channel = await open_http(spec, self.pool, self._held, era)
        except OldTransport:
            if spec.transport == "http":
                raise UpstreamUnavailable(f"server {spec.name} does not speak Streamable HTTP") from None
            found = await self._open_sse(self.pool)
            self.old_transport = True
            return found
        except UpstreamUnavailable:
            self.verdict = None  # whatever changed there, the next try asks again
            raise
        self.verdict = channel.dialect.era
        return channel

    async def _open_sse(self, pool: HttpPool) -> Channel:
        from narthex.flow.upstream.sse import open_sse  # the old transport: loaded only where it is met

        return await open_sse(
            self.spec, pool, on_push=self._pushed, log=_log, deadline_s=self.spec.list_timeout_s - 0.5
        )

    def _pushed(self, message: Incoming) -> None:
        """A server says that a list has changed: the next who asks fetches it again."""
        kinds: tuple[Kind, ...] = ()
        if message.method == "notifications/tools/list_changed":
            kinds = ("tools",)
        elif message.method == "notifications/prompts/list_changed":
            kinds = ("prompts",)
        elif message.method == "notifications/resources/list_changed":
            kinds = ("resources", "templates")
        if kinds:
            for (_, kind), listed in self._lists.items():
                if kind in kinds:
                    listed.fresh_until = 0.0
            self._on_change()

    # --- health

    def check_breaker(self) -> None:
        """Raises UpstreamUnavailable while the breaker is open."""
        if self.breaker.state != "closed" and self.breaker.allow(self.clock()) > 0:
            raise self.unavailable()

    def unavailable(self) -> UpstreamUnavailable:
        """Why its list is not there, as an error to answer a call with."""
        wait_s = self.breaker.wait(self.clock())
        last = self.last_error[1] if self.last_error else ""
        name = self.spec.name
        return UpstreamUnavailable(f"server {name} is unavailable", detail=last, retry_after_s=max(wait_s, 1.0))

    def failed(self, error: GatewayError) -> GatewayError:
        """Count a failure of the server and keep its words for the operator; returns `error`, to be raised."""
        error.detail = hide(error.detail, self._secrets)  # it may hold the server's words, and they our credential
        if isinstance(error, (UpstreamUnavailable, UpstreamTimeout)):
            was = self.breaker.state
            if isinstance(error, UpstreamTimeout) or error.counts:
                self.breaker.failure(self.clock())
            text = f"{error.public}: {error.detail}" if error.detail else error.public
            if self.last_error is None or self.last_error[1] != text or was != self.breaker.state:
                _log.warning("%s", text)
            self.last_error = (time.time(), text)
        return error

    # --- lists

    def listed(self, scope: Hashable, kind: Kind) -> Listed | None:
        """The list as last fetched, fresh or not."""
        return self._lists.get((scope, kind))

    async def fetch(self, scope: Hashable, kind: Kind, *, recheck: bool = False) -> Items:
        """The server's items, from memory while fresh; fetched once for many callers.

        Args:
            recheck: Ask again even when fresh, at most every `RECHECK_S`.
        Raises:
            UpstreamUnavailable, UpstreamTimeout: It has none, and none can be had within the list deadline.
        """
        listed = self._lists.get((scope, kind))
        now = self.clock()
        if listed is not None and (now < listed.fresh_until and not (recheck and now - listed.fetched_at > RECHECK_S)):
            return listed.items
        key = (scope, kind)
        task = self._listing.get(key)
        if task is None:
            task = self._listing[key] = asyncio.ensure_future(self._fetch(scope, kind))
            task.add_done_callback(lambda done: self._fetched(key, done))
        try:
            async with asyncio.timeout(self.spec.list_timeout_s):
                return await self._outcome(task)
        except TimeoutError:
            raise UpstreamTimeout(f"server {self.spec.name} did not answer in time") from None

    def _fetched(self, key: tuple[Hashable, Kind], task: asyncio.Task[Items]) -> None:
        self._listing.pop(key, None)
        if not task.cancelled():
            task.exception()

    async def _fetch(self, scope: Hashable, kind: Kind) -> Items:
        channel = self.ready(scope)
        if channel is not None:
            self.check_breaker()
        else:
            channel = await self.open(scope)
        try:
            items, ttl_s = await self._walk_in_time(channel, kind)
        except SessionLost:
            self.breaker.success(self.clock())  # it answered
            channel = await self.open(scope)
            items, ttl_s = await self._walk_in_time(channel, kind)
        now = self.clock()
        before = self._lists.get((scope, kind))
        if before is not None and before.items == items:
            items = before.items
        self._lists[scope, kind] = Listed(items, now, now + ttl_s)
        if before is None or before.items is not items:
            self._on_change()
        return items

    async def _walk_in_time(self, channel: Channel, kind: Kind) -> tuple[Items, float]:
        """`_walk_pages` with a deadline of its own: whoever waits may go, but an answer may never come."""
        try:
            async with asyncio.timeout(self.spec.list_timeout_s):
                return await self._walk_pages(channel, kind)
        except TimeoutError:
            raise self.failed(UpstreamTimeout(f"server {self.spec.name} did not answer in time")) from None

    async def _walk_pages(self, channel: Channel, kind: Kind) -> tuple[Items, float]:
        """All pages of a list, within bounds, and for how long (seconds) they are fresh."""
        spec = self.spec
        empty = Items(spec.name, ())
        if _CAPABILITY[kind] not in channel.dialect.capabilities:
            self.breaker.forget(self.clock())  # nothing is asked, so nothing is learnt: another may be the probe
            return empty, spec.list_ttl_s
        raws: list[Raw] = []
        size = 0
        params: RawMap = {}
        ttl_s = spec.list_ttl_s
        for _ in range(MOST_PAGES):
            message = await self.request(channel, METHOD[kind], params)
            if message.error:
                if error_code(message.error) == -32601:
                    return empty, ttl_s
                said = repr(bytes(message.error)[:300])
                raise UpstreamUnavailable(f"server {spec.name} cannot list its {kind}", detail=said)
            size += len(bytes(message.result))
            if size > spec.max_answer:
                raise UpstreamUnavailable(f"server {spec.name} has too long a list of {kind}")
            page, cursor, page_ttl_s = _read_page(spec.name, kind, message.result)
            raws += page
            ttl_s = min(ttl_s, page_ttl_s)
            if cursor is None or len(raws) >= MOST_ITEMS:
                break
            params = {"cursor": cursor}
        items, left_out = read_items(kind, spec.name, raws, MOST_TEMPLATES if kind == "templates" else MOST_ITEMS)
        if left_out:
            _log.warning("server %s: %d of its %s are left out: no usable name, named twice, or too many",
                         spec.name, left_out, kind)  # fmt: skip
        return items, ttl_s

    async def request(self, channel: Channel, method: str, params: RawMap) -> Incoming:
        """Send a request of our own and wait for its response. The caller sets the deadline.

        Raises:
            UpstreamUnavailable, SessionLost, ContentBlocked: as the channel says.
        """
        call = Call(method, params, {}, b"0", "legacy", "", LOCAL, "")
        id_ = channel.next_id()
        body = outgoing_body(call, params, id_, channel.dialect.era, channel.dialect.version)
        sink = _Await(id_)
        flight = channel.request(Outgoing(id_, method, body, resend=True), sink)
        channel.open_calls += 1
        try:
            message = await sink.done
            self.breaker.success(self.clock())
            return message
        except GatewayError as error:
            raise self.failed(error) from None
        finally:
            channel.open_calls -= 1
            channel.last_used = self.clock()
            if sink.done.cancelled():
                flight.cancel("no longer needed")

    # --- upkeep

    def sweep(self) -> list[Coroutine[Any, Any, None]]:
        """Once a second: what closes idle and dead channels, to be run by the caller."""
        if self.pool is not None:
            self.pool.sweep()
        now = self.clock()
        idle_s = SESSION_IDLE_S if isinstance(self.spec.target, HttpTarget) else self.spec.target.idle_timeout_s
        closing = []
        for scope, channel in list(self.channels.items()):
            idle = channel.open_calls == 0 and now - channel.last_used > idle_s
            if not channel.alive or idle:
                del self.channels[scope]
                closing.append(channel.close())
                self._forget_lists(scope)
        return closing

    def _forget_lists(self, scope: Hashable) -> None:
        if isinstance(scope, tuple) and len(scope) > 4:  # one client session: nobody else will ask
            for key in [key for key in self._lists if key[0] == scope]:
                del self._lists[key]

    def _drop_dead(self) -> bool:
        for scope, channel in self.channels.items():
            if not channel.alive or channel.open_calls == 0:
                del self.channels[scope]
                self._forget_lists(scope)
                asyncio.ensure_future(channel.close())
                return True
        return False

    async def close(self) -> None:
        """End every channel, and every process with it."""
        self._closed = True
        for task in [*self._opening.values(), *self._listing.values()]:
            task.cancel()
        await asyncio.gather(*self._opening.values(), *self._listing.values(), return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in self.channels.values()), return_exceptions=True)
        self.channels.clear()
        if self.pool is not None:
            self.pool.close()


def _read_page(server: str, kind: Kind, result: Raw) -> tuple[list[Raw], Raw | None, float]:
    """Items, the next cursor and the page's own time to live (seconds; infinite where it says none)."""
    try:
        members = decode_map(result)
        page = msgspec.json.decode(members.get(MEMBER[kind], b"[]"), type=list[Raw])
        cursor = members.get("nextCursor")
        if cursor is not None and bytes(cursor) in (b"null", b'""'):
            cursor = None
        ttl_s = msgspec.json.decode(members["ttlMs"], type=float) / 1000 if "ttlMs" in members else float("inf")
    except BAD_JSON as error:
        raise UpstreamUnavailable(f"server {server} gave a malformed list", detail=str(error)) from None
    return page, cursor, max(ttl_s, RECHECK_S)


class _Await:
    """A sink for one response that is awaited."""

    def __init__(self, id_: int) -> None:
        self.done: asyncio.Future[Incoming] = asyncio.get_running_loop().create_future()
        self._id = id_

    def started(self, streaming: bool) -> None: ...

    def message(self, message: Incoming) -> None:
        if not self.done.done() and (message.result or message.error):
            if message.id == self._id or (message.error and message.id is None):
                self.done.set_result(message)
            else:
                self.failed(UpstreamUnavailable("the server answered another request", sent=True))

    def splice(self, head: bytes, total: int) -> bool:
        return False

    def chunk(self, data: bytes) -> None: ...

    def finished(self) -> None:
        self.failed(UpstreamUnavailable("the server ended its answer without a response", sent=True))

    def failed(self, error: GatewayError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
