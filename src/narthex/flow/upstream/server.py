"""One upstream at run time: its channels, its health, its lists, and what it says unasked. Opened lazily, kept while
used, closed when idle.

A `scope` says who shares a channel (design §4): the tenant, the principal, or one client session.
Cases: `tests/flow/upstream/test_server.py`, and `tests/e2e/test_faults.py` for when the server is not well.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from narthex.errors import (
    ClaimsRequired,
    CredentialUnavailable,
    GatewayError,
    Overloaded,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from narthex.flow.codec.bridge import error_code
from narthex.flow.codec.handshake import NONE, request_body
from narthex.flow.codec.jsonrpc import UNSET, Incoming
from narthex.flow.codec.subscriptions import (
    ListChanged,
    ListKind,
    Notification,
    TaskChanged,
    Updated,
    Wanted,
    read_elicited,
    read_event,
    read_progress,
)
from narthex.flow.held import Held
from narthex.flow.route.index import Items
from narthex.flow.upstream.breaker import Breaker
from narthex.flow.upstream.connection import HttpPool
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.era import DOUBT_S, KeepsEras, Verdict, is_strange
from narthex.flow.upstream.listening import Hears, Listening
from narthex.flow.upstream.lists import CHANGES_S, Listed, Lists
from narthex.flow.upstream.lists import RECHECK_S as RECHECK_S
from narthex.flow.upstream.negotiate import is_refusal
from narthex.flow.upstream.opening import Opener
from narthex.flow.upstream.port import NOTHING_SHOWN, Behalf, Channel, Outgoing, Own, SessionLost, Shown
from narthex.flow.upstream.pushes import CHANGES, NEEDS, can_be_asked
from narthex.flow.upstream.secrets import hide, secrets_of
from narthex.telemetry.asking import asking
from narthex.telemetry.session_times import SessionTimes
from narthex.types import HttpTarget, Kind, ServerSpec

T = TypeVar("T")
_log: Final = logging.getLogger("narthex.upstream")
MOST_CHANNELS = 1024
START_S: Final = 30.0
"""How long a stdio server may take to start and negotiate; a list does not wait for it longer than its own deadline."""
SESSION_IDLE_S: Final = 600.0
_SEVERAL: Final[Any] = object()
USED_S: Final = 60.0
"""A channel that was used in the last of these is in use."""


class Server:
    """One upstream.

    Args:
        clock, now: Seconds, monotonic and of the wall clock.
        on_change: Called when one of its lists has other contents than before, or may have.
        declares: The capabilities that we declare on a channel of this scope.
        shown: What such a channel shows the server of us.
        eras: Keeps what the server was found to speak.
        hears: Is told of changes, and of what else the server says outside of calls.
        times: Hears how long sessions lasted; a modern server over HTTP has none.
    Attributes:
        nothing_to_show: The last error was none of the server's: it could be shown no credential.
    """

    def __init__(
        self,
        spec: ServerSpec,
        dialer: Dialer,
        held: Held,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
        on_change: Callable[[], None],
        now: Callable[[], float] = time.time,
        declares: Callable[[Hashable], Mapping[str, Any]] = lambda scope: NONE,
        shown: Callable[[Any], Shown] = lambda scope: NOTHING_SHOWN,
        hears: Hears | None = None,
        eras: KeepsEras | None = None,
        times: SessionTimes | None = None,
    ) -> None:
        self.spec = spec
        self.clock = clock
        self.chance = chance
        self.breaker = Breaker(chance=chance)
        self.channels: dict[Hashable, Channel] = {}
        self.listenings: dict[Hashable, Listening] = {}
        self.in_flight = 0
        self.hears = hears
        self.last_error: tuple[float, str] | None = None
        self._closed = False
        self._secrets = secrets_of(spec)
        self._declares = declares
        self._shown = shown
        self.nothing_to_show = False
        self._opened_with: dict[Channel, tuple[Shown, int]] = {}
        self._times = times
        self._since: dict[Channel, float] = {}
        self._users: dict[Hashable, Hashable] = {}
        self._on_change = on_change
        self._opening: dict[Hashable, asyncio.Task[Channel]] = {}
        self._lists = Lists(self, on_change=on_change)
        self._retired: list[tuple[Channel, float]] = []
        self._odd: set[Channel] = set()
        self._looked_at: dict[Channel, float] = {}
        self._told_at: dict[ListKind, float] = {}
        self._to_tell: dict[ListKind, asyncio.TimerHandle] = {}
        target = spec.target
        self.pool = HttpPool(spec, target, dialer, clock) if isinstance(target, HttpTarget) else None
        self._opener = Opener(spec, self.pool, held, log=_log, now=now, on_changed=self._era_changed, eras=eras)

    # --- channels

    def gone(self) -> bool:
        """Closed for good: a reload removed it, or the gateway stops."""
        return self._closed

    @property
    def verdict(self) -> Verdict | None:
        """Which era the server speaks, since when, and how that was found; None before it was first opened."""
        return self._opener.verdict

    def ready(self, scope: Hashable) -> Channel | None:
        """The open channel of `scope`, or None: then `open` it."""
        channel = self.channels.get(scope)
        return channel if channel is not None and channel.alive else None

    def count(self, kind: Kind) -> int:
        """How many it lists, as far as it was asked."""
        return self._lists.count(kind)

    def names(self, kind: Kind) -> set[str]:
        """Their names."""
        return self._lists.names(kind)

    def serves_one_session(self, scope: Hashable) -> bool:
        """Is this the scope of one client session, or of one principal's calls without any? Only such a one has more
        members than a principal's key."""
        return self.spec.sharing == "session" and isinstance(scope, tuple) and len(scope) > 5

    def behalf(self, scope: Hashable) -> Behalf:
        """On whose behalf a channel of this scope is opened. What a server may ask of a client is declared only where
        the channel serves that client alone (design §4)."""
        alone, declared = self.serves_one_session(scope), self._declares(scope)
        told = {k: v for k, v in declared.items() if alone or k not in NEEDS.values()}
        return Behalf(told, alone, self._shown(scope))

    async def open(self, scope: Hashable) -> Channel:
        """A channel for the calls of `scope`; many callers at once open one. A caller that gives up does not stop the
        opening. Where the server may ask a client on a stream of its own, that is open too, if it is in time.

        Raises:
            UpstreamUnavailable: Unreachable, not MCP, or the breaker is open.
            Overloaded: Too many channels to this server.
        """
        channel = await self.connect(scope)
        await self.heard_beside(scope)
        return channel

    async def connect(self, scope: Hashable) -> Channel:
        """The same for what the server asks nobody about."""
        channel = self.ready(scope)
        if channel is not None:
            return channel
        task = self._opening.get(scope)
        if task is None:
            task = self._opening[scope] = asyncio.ensure_future(self._open(scope))
            task.add_done_callback(lambda done: self._opened(scope, done))
        return await self.outcome(task)

    def may_be_missed(self, scope: Hashable) -> bool:
        """Would what the server asks on its own stream be lost, because that is only being opened?"""
        listening = self.listenings.get(scope)
        return listening is not None and listening.may_miss

    async def heard_beside(self, scope: Hashable) -> None:
        """Until it is open, if that is in time."""
        if self.may_be_missed(scope):
            await self.listenings[scope].heard_beside()

    async def outcome(self, task: asyncio.Task[T]) -> T:
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
        behalf = self.behalf(scope)
        epoch = behalf.shown.epoch
        try:
            with asking(self.spec.name, "initialize", self.clock) as asked:
                async with asyncio.timeout(START_S if self.pool is None else self.spec.list_timeout_s):
                    channel = await self._opener.open(behalf, partial(self.pushed, scope))
                if asked is not None and channel.dialect.era == "modern":
                    asked.method = "server/discover"
        except TimeoutError:
            raise self.failed(UpstreamTimeout(f"server {self.spec.name} did not answer in time")) from None
        except GatewayError as error:
            raise self.failed(error) from None
        if self.gone():
            await channel.close()
            raise UpstreamUnavailable(f"server {self.spec.name} is gone")
        self.breaker.success(self.clock())
        if self.nothing_to_show:
            self.nothing_to_show, self.last_error = False, None
        channel.last_used = self.clock()
        if (lost := self.channels.get(scope)) is not None:
            self._over(lost)
        self.channels[scope] = channel
        if self.pool is None or channel.dialect.era == "legacy":
            self._since[channel] = channel.last_used
        if self.hears is not None:
            self.hears.on_opened(self.spec.name, scope, channel)
        if self.spec.accounts:
            self._opened_with[channel] = (behalf.shown, epoch)
        if can_be_asked(behalf):
            self.hear_beside(scope, channel)
        self._stir(scope)
        return channel

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
        if self.nothing_to_show:
            return self._named(CredentialUnavailable(last, retry_after_s=max(wait_s, 1.0)))
        return UpstreamUnavailable(f"server {name} is unavailable", detail=last, retry_after_s=max(wait_s, 1.0))

    def _named(self, error: CredentialUnavailable) -> CredentialUnavailable:
        """Who raised it knew of no server."""
        error.public = f"the gateway has no credential for server {self.spec.name} at present"
        return error

    def failed(self, error: GatewayError) -> GatewayError:
        """Count a failure of the server and keep its words for the operator; returns `error`, to be raised."""
        error.detail = hide(error.detail, self._secrets)  # it may hold the server's words, and they our credential
        if isinstance(error, ClaimsRequired):
            return error  # one caller's business
        if isinstance(error, CredentialUnavailable):
            self._named(error)
        if isinstance(error, (UpstreamUnavailable, UpstreamTimeout)):
            self.nothing_to_show = isinstance(error, CredentialUnavailable)
            was = self.breaker.state
            if isinstance(error, UpstreamTimeout) or error.counts:
                self.breaker.failure(self.clock())
            text = f"{error.public}: {error.detail}" if error.detail else error.public
            if self.last_error is None or self.last_error[1] != text or was != self.breaker.state:
                _log.warning("%s", text)
            self.last_error = (time.time(), text)
        return error

    # --- is it still what it was?

    def call_ended(self, channel: Channel, *, worked: bool) -> None:
        """A call on this channel is over. `worked`: the server has answered it."""
        channel.open_calls -= 1
        self.in_flight -= 1
        breaker = self.breaker
        if not breaker.quiet:
            now = self.clock()
            if worked:
                breaker.success(now)
            elif breaker.state == "half_open":
                breaker.forget(now)  # it was the probe, and says nothing of the server; a counted failure opened it

    def doubt(self, channel: Channel, code: int) -> None:
        """A call was answered with this JSON-RPC error: if no server of its era gives such, it is looked into soon."""
        if is_strange(channel.dialect.era, code):
            self.look_into(channel)

    def look_into(self, channel: Channel) -> None:
        """Find out, at the next sweep and not too often, whether this channel is still what it was negotiated to be."""
        if self.pool is not None and self.clock() - self._looked_at.get(channel, -math.inf) >= DOUBT_S:
            self._odd.add(channel)

    async def is_outdated(self, scope: Hashable, channel: Channel) -> bool:
        """Is another channel to be opened for `scope`? Asked when the server answers as its era, or its session, does
        not. True leaves nothing of the old one in the way."""
        self._looked_at[channel] = self.clock()
        if channel.alive and not await self.knows_session(channel):
            channel.alive = False
        elif self._opener.doubt():
            await self._opener.probe()
        return self.ready(scope) is not channel

    async def knows_session(self, channel: Channel) -> bool:
        """Does a legacy server still know our session? Some answer 400, and not 404, when they do not."""
        if channel.dialect.session_id is None:
            return True
        try:
            async with asyncio.timeout(self.spec.list_timeout_s):
                message = await self.request(channel, "ping", {})
        except SessionLost:
            return False
        except GatewayError as error:
            return not is_refusal(error)
        except TimeoutError:
            return True  # it says nothing
        return not message.error or error_code(message.error) == -32601

    def _era_changed(self) -> None:
        """Channels of the old era end once their calls have. A session that one client has goes on while it lives:
        what it has made in there is nowhere else."""
        for scope, channel in list(self.channels.items()):
            if channel.dialect.era == "legacy" and self.serves_one_session(scope):
                continue
            self._retire(scope, channel)
        for kind in ("tools", "prompts", "resources"):
            self._lists.stale(kind)
        self._on_change()

    def _retire(self, scope: Hashable, channel: Channel) -> None:
        """The next call opens another channel; this one ends once its calls have."""
        del self.channels[scope]
        self._retired.append((channel, self.clock() + self.spec.call_timeout_s))
        self._stir(scope)

    # --- what it says unasked

    def listen(self, scope: Hashable, wanted: Wanted) -> Listening:
        """From now on those who share `scope` want to hear this, told to `hears`; nothing wanted ends it."""
        listening = self.listenings.get(scope) or Listening(self, scope)
        listening.want(wanted)
        if listening.is_wanted:
            self.listenings[scope] = listening
        return listening

    def hear_beside(self, scope: Hashable, channel: Channel) -> None:
        """What a legacy server says to one client beside its calls, on a stream of its own, is heard from now on."""
        if channel.dialect.era == "legacy" and channel.dialect.session_id is not None:
            listening = self.listenings[scope] = self.listenings.get(scope) or Listening(self, scope)
            listening.hear_beside(channel)

    def forget_listening(self, scope: Hashable, listening: Listening) -> None:
        """It has ended."""
        if self.listenings.get(scope) is listening:
            del self.listenings[scope]

    def pushed(self, scope: Hashable, channel: Channel, message: Incoming) -> None:
        """A notification that belongs to no call."""
        if message.method == "notifications/message":
            self._logged(scope, bytes(message.params))
            return
        if message.method == "notifications/elicitation/complete":
            if self.hears is not None and (elicited := read_elicited(message)) is not None:
                self.hears.on_elicited(self.spec.name, scope, elicited)
            return
        if message.method == "notifications/progress":
            if self.hears is not None and (token := read_progress(message)) is not None:
                self.hears.on_progress(self.spec.name, scope, token, bytes(message.params))
            return
        event = read_event(message) if message.method in CHANGES else None
        if isinstance(event, (ListChanged, Updated, TaskChanged)):
            self.heard(scope, event)

    def used_by(self, scope: Hashable, principal: Hashable) -> None:
        """This principal is among those who share `scope`."""
        if self.spec.sharing == "tenant" and self._users.setdefault(scope, principal) != principal:
            self._users[scope] = _SEVERAL

    def _logged(self, scope: Hashable, params: bytes) -> None:
        """A log message says nothing of whose it is: where several principals share the channel, it is nobody's."""
        if self.hears is not None and params[:1] == b"{" and self._users.get(scope) is not _SEVERAL:
            self.hears.on_log(self.spec.name, scope, params)

    def heard(self, scope: Hashable, what: Notification) -> None:
        """The server says that something has changed."""
        if isinstance(what, Updated) and self.hears is not None:
            self.hears.on_stale(self.spec.name, "resources", what.uri)
        if isinstance(what, ListChanged):
            self.list_changed(what.kind)
        elif (listening := self.listenings.get(scope)) is not None:
            listening.heard(what)

    def list_changed(self, kind: ListKind) -> None:
        """A list has changed, or may have: the next who asks fetches it again. Who listens is told at once, of more
        changes within `CHANGES_S` once more when it is over."""
        if self._lists.stale(kind):
            self._on_change()
        if self.hears is None:
            return
        self.hears.on_stale(self.spec.name, kind)
        if kind in self._to_tell:
            return
        wait_s = self._told_at.get(kind, -math.inf) + CHANGES_S - self.clock()
        if wait_s > 0:
            self._to_tell[kind] = asyncio.get_running_loop().call_later(wait_s, self._tell, kind)
        else:
            self._tell(kind)

    def _tell(self, kind: ListKind) -> None:
        self._to_tell.pop(kind, None)
        self._told_at[kind] = self.clock()
        if self.hears is not None and not self.gone():
            self.hears.on_list_changed(self.spec.name, kind)

    def _stir(self, scope: Hashable) -> None:
        if (listening := self.listenings.get(scope)) is not None:
            listening.stir()

    # --- lists

    def listed(self, scope: Hashable, kind: Kind) -> Listed | None:
        """The list as last fetched, fresh or not."""
        return self._lists.listed(scope, kind)

    async def fetch(self, scope: Hashable, kind: Kind, *, recheck: bool = False) -> Items:
        """The server's items: see `Lists.fetch`."""
        return await self._lists.fetch(scope, kind, recheck=recheck)

    async def request(
        self, channel: Channel, method: str, params: Mapping[str, Any], capabilities: Mapping[str, Any] = NONE
    ) -> Incoming:
        """Send a request of our own and wait for its response. The caller sets the deadline.

        Raises:
            UpstreamUnavailable, SessionLost, ContentBlocked: as the channel says.
        """
        with asking(self.spec.name, method, self.clock) as asked:
            meta, lines = (asked.context.into({}), asked.context.lines) if asked is not None else (NONE, b"")
            id_ = channel.next_id()
            body = request_body(id_, method, params, channel.dialect, capabilities, meta)
            sink = _Await(id_)
            flight = channel.request(Outgoing(id_, method, body, resend=True, lines=lines), sink)
            channel.open_calls += 1
            try:
                message = await sink.done
                self.breaker.success(self.clock())
                if asked is not None and message.error:
                    asked.code = error_code(message.error)
                return message
            except GatewayError as error:
                raise self.failed(error) from None
            finally:
                channel.open_calls -= 1
                channel.last_used = self.clock()
                if sink.done.cancelled():
                    flight.cancel("no longer needed")

    # --- upkeep

    def sweep(self) -> list[Coroutine[Any, Any, Any]]:
        """Once a second: what closes idle and dead channels, and asks about odd ones, to be run by the caller."""
        if self.pool is not None:
            self.pool.sweep()
        if self.spec.accounts:
            self._look_at_accounts()
        return [*self._close_idle(), *self._close_retired(), *self._ask_about()]

    def _close_idle(self) -> list[Coroutine[Any, Any, Any]]:
        now = self.clock()
        idle_s = SESSION_IDLE_S if isinstance(self.spec.target, HttpTarget) else self.spec.target.idle_timeout_s
        closing = []
        for scope, channel in list(self.channels.items()):
            idle = channel.open_calls == 0 and now - channel.last_used > idle_s
            if not channel.alive or idle:
                del self.channels[scope]
                closing.append(self._end(channel))
                self._forget_lists(scope)
                self._stir(scope)
        return closing

    def _look_at_accounts(self) -> None:
        """Channels keep what they show, and fresh while they are used; one that was opened with what is void now is
        used no more."""
        now = self.clock()
        for scope, channel in list(self.channels.items()):
            if (opened_with := self._opened_with.get(channel)) is None:
                continue
            shown, epoch = opened_with
            if shown.epoch != epoch:
                self._retire(scope, channel)
            else:
                shown.keep(used=channel.open_calls > 0 or now - channel.last_used < USED_S)
        alive = {*self.channels.values(), *(channel for channel, _ in self._retired)}
        self._opened_with = {one: with_ for one, with_ in self._opened_with.items() if one in alive}

    def _close_retired(self) -> list[Coroutine[Any, Any, Any]]:
        now, retired = self.clock(), self._retired
        over = [channel for channel, until in retired if channel.open_calls == 0 or now >= until]
        self._retired = [(channel, until) for channel, until in retired if channel not in over]
        return [self._end(channel) for channel in over]

    def _ask_about(self) -> list[Coroutine[Any, Any, Any]]:
        """The probe of a verdict that is due, and a look at each channel that was answered oddly."""
        asking: list[Coroutine[Any, Any, Any]] = [self._opener.probe()] if self.channels and self._opener.due() else []
        odd, self._odd = self._odd, set()
        asking += [self.is_outdated(scope, one) for scope, one in self.channels.items() if one in odd]
        now = self.clock()
        self._looked_at = {one: at for one, at in self._looked_at.items() if now - at < DOUBT_S}
        return asking

    def _end(self, channel: Channel) -> Coroutine[Any, Any, Any]:
        """What ends a channel."""
        self._over(channel)
        return channel.close()

    def _over(self, channel: Channel) -> None:
        """The session with the server is over."""
        since = self._since.pop(channel, None)
        if since is not None and self._times is not None:
            how = "" if channel.alive else "connection_lost"
            self._times.add(self.clock() - since, self.spec.name, channel.dialect.version, how)

    def _forget_lists(self, scope: Hashable) -> None:
        if self.serves_one_session(scope):  # nobody else will ask
            self._lists.forget(scope)

    def _drop_dead(self) -> bool:
        for scope, channel in self.channels.items():
            if not channel.alive or channel.open_calls == 0:
                del self.channels[scope]
                self._forget_lists(scope)
                self._stir(scope)
                asyncio.ensure_future(self._end(channel))
                return True
        return False

    async def close(self) -> None:
        """End every channel, and every process with it."""
        self._closed = True
        for timer in self._to_tell.values():
            timer.cancel()
        await asyncio.gather(*(one.close() for one in list(self.listenings.values())), return_exceptions=True)
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(self._lists.close(), *self._opening.values(), return_exceptions=True)
        channels = [*self.channels.values(), *(channel for channel, _ in self._retired)]
        await asyncio.gather(*map(self._end, channels), return_exceptions=True)
        self.channels.clear()
        self._retired.clear()
        if self.pool is not None:
            self.pool.close()


class _Await(Own):
    """A sink for one response that is awaited."""

    def __init__(self, id_: int) -> None:
        self.done: asyncio.Future[Incoming] = asyncio.get_running_loop().create_future()
        self._id = id_

    def started(self, streaming: bool) -> None: ...

    def message(self, message: Incoming) -> None:
        if not self.done.done() and (message.result or message.error):
            if message.id == self._id or (message.error and message.id in (None, UNSET)):
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
