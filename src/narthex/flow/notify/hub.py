"""Connects what servers say of changes with the clients that listen: the driver of `Interests`.

In: listeners (a modern `subscriptions/listen`, a legacy session), what servers tell (`Hears`), reloads. Out: what each
server is asked for, per scope, and streams that are woken when they have news. Everything is on the event loop: one
timer for all views, long work in slices, a view made once for all who share it.
Cases: `tests/flow/notify/test_hub.py`. Source: MCP 2026-07-28, basic/patterns/subscriptions; MCP 2025-11-25,
server/resources ("Subscriptions"); design §3-§5.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from narthex.errors import GatewayError, Overloaded
from narthex.flow.codec.handles import Task, owner_of
from narthex.flow.codec.jsonrpc import Raw, RawMap
from narthex.flow.codec.log_levels import asked_level
from narthex.flow.codec.offers import offered
from narthex.flow.codec.revisions import LATEST_LEGACY
from narthex.flow.codec.seal import SealError
from narthex.flow.codec.subscriptions import LIST_KINDS, Elicited, ListKind, Notification, TaskChanged, Updated, Wanted
from narthex.flow.codec.tasks import is_answer
from narthex.flow.notify.beside import Beside
from narthex.flow.notify.interests import Bounds, Interest, Interests, Place, Source, Subscriber
from narthex.flow.notify.live import LiveSession, LiveSessions
from narthex.flow.notify.resumability import RETRY_MS, Logs, Stream
from narthex.flow.policy.admission import Admission
from narthex.flow.policy.check import NO_META, Check
from narthex.flow.policy.engines.visibility import Thing
from narthex.flow.route.index import Index
from narthex.flow.upstream.port import Channel
from narthex.flow.upstream.viewers import Viewer
from narthex.types import Call, Kind, Principal, Session

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange
    from narthex.flow.accept.front import Front
    from narthex.flow.notify.streams import Telling
    from narthex.flow.upstream.server import Server

READY_S = 2.0
"""Who begins to listen waits this long for the servers: for their lists, and until they are heard."""
RECHECK_S = 5.0
"""How often views are looked at anew because lists have changed that nobody told of."""
AT_ONCE = 16
"""Views made at one time."""
NAMES_AT_ONCE = 8
"""URIs looked up between two pauses: each may be tried against hundreds of templates."""
SLICE = 200
TELL_S = 0.02
"""News wait so long for more: a server that tells of a change a thousand times a second is not passed on as fast."""
DRAIN_S = 2.0
"""Streams are ended over this long."""
BOUNDS = Bounds(principal_subscribers=Bounds().subscribers, principal_text=Bounds().text)
"""While there is no identity, everybody is one principal."""
NOTHING = Wanted()
_log = logging.getLogger("narthex.front")


class Listener:
    """One who listens: how it sees its endpoint, what it wants, and its open stream.

    Attributes:
        wanted: All that it asked for; what leads nowhere now may do so after a reload.
        subscriber: Its place in `Interests`, None before `Hub.join` and after `Hub.leave`.
        stream: None while it has none: then news wait for it.
        meta: The `_meta` of its request, which may say which run it is part of.
        late: News of which an engine has only just decided whether they are for it.
    """

    __slots__ = ("bits", "endpoint", "late", "meta", "principal", "session", "stream", "subscriber", "wanted")

    def __init__(
        self,
        endpoint: str,
        principal: Principal,
        session: Session | None,
        bits: int,
        wanted: Wanted,
        meta: RawMap = NO_META,
    ) -> None:
        self.endpoint = endpoint
        self.principal = principal
        self.session = session
        self.bits = bits
        self.wanted = wanted
        self.late: list[Notification] = []
        self.meta = meta
        self.subscriber: Subscriber | None = None
        self.stream: Telling | None = None


class Hub:
    """All who listen, of a process.

    Args:
        random: `random(n)` gives n unpredictable bytes. chance: A number in [0, 1).
    """

    def __init__(self, front: Front, *, random: Callable[[int], bytes], chance: Callable[[], float]) -> None:
        self.front = front
        self.interests = Interests(BOUNDS)
        self.logs = Logs(random=random)
        self.live = LiveSessions()
        self.streams: set[Telling] = set()
        self.resumable: dict[Stream, Exchange] = {}
        """Calls whose clients may come back to their streams."""
        self._chance = chance
        self._listeners: dict[Subscriber, Listener] = {}
        self._sources: set[Source] = set()
        self._woken: dict[Listener, None] = {}
        self._hashing: dict[tuple[Viewer, ListKind], list[Subscriber]] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self._generation = front.fleet.generation
        self._looked_at = front.clock()
        self._granted_until = 0.0
        self._applied = 0
        self._rejoining: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self.beside = Beside(self)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in the background, kept until it is done."""
        task = asyncio.ensure_future(coroutine)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("subscriptions failed in the gateway", exc_info=error)

    # --- who listens

    def viewer(self, listener: Listener) -> Viewer | None:
        """What it sees of its endpoint; None where a reload has removed that."""
        endpoint = self.front.snapshot.endpoints.get(listener.endpoint)
        if endpoint is None:
            return None
        fleet = self.front.fleet
        bits = listener.bits if endpoint.name in fleet.by_session else 0
        return fleet.viewer(endpoint, listener.principal, listener.session, bits)

    async def join(self, listener: Listener) -> Wanted:
        """It listens from now on. Returns what it will be told of: what its servers have agreed to, in time.

        Raises:
            Overloaded, InvalidParams: as `Interests.add`; or its endpoint is gone.
        """
        viewer = self.viewer(listener)
        if viewer is None:
            raise Overloaded("the configuration has changed; try again")
        wanted, applied = listener.wanted, self._applied
        places = await self.places(viewer, wanted.uris, self.admission(listener))
        seen = await self._baseline(viewer, listener)
        kinds = self._offered(viewer, wanted.kinds)
        tasks = self._tasks(viewer, listener)
        interest = Interest(kinds, frozenset(viewer.scopes.items()), places, tasks)
        subscriber, changed = self.interests.add(viewer, listener.principal.key, interest, seen)
        listener.subscriber = subscriber
        self._listeners[subscriber] = listener
        if applied != self._applied:
            self.spawn(self._rejoin([listener]))
        try:
            self.ask(changed)
            heard = await self.heard(interest.sources | _sources_of(places))  # tasks' servers are among the first
        except BaseException:
            self.leave(listener)
            raise
        uris = frozenset(uri for uri, place in places.items() if place.name in heard[place.server, place.scope].uris)
        told = frozenset(id_ for id_, place in tasks.items() if place.name in heard[place.server, place.scope].tasks)
        return Wanted(kinds, uris, told)

    def leave(self, listener: Listener) -> None:
        """It listens no more. Idempotent."""
        self.ask(self._leave(listener))

    def _leave(self, listener: Listener) -> Collection[Source]:
        subscriber, listener.subscriber = listener.subscriber, None
        self._woken.pop(listener, None)
        if subscriber is None:
            return ()
        del self._listeners[subscriber]
        return self.interests.remove(subscriber)

    def take(self, listener: Listener) -> list[Notification]:
        """What it is to be told now. Raises Overloaded where its stream is to be ended."""
        if listener.subscriber is None:
            return []
        subscriber, admission = listener.subscriber, self.admission(listener)
        news = self.interests.take(subscriber)
        if admission is None:
            return news
        if admission.engine is not None:
            things = {one: self._things(listener, subscriber, admission, one) for one in news}
            open_ = {one: some for one, some in things.items() if not all(admission.looked_at(*it) for it in some)}
            if open_:
                self.spawn(self._decide(listener, subscriber, admission, open_))
                news = [one for one in news if one not in open_]
            news, listener.late = listener.late + news, []
        return [one for one in news if self._may_hear(listener, subscriber, admission, one)]

    def _things(
        self, listener: Listener, subscriber: Subscriber, admission: Admission, what: Notification
    ) -> list[Thing]:
        """What must be visible for it to be heard."""
        if isinstance(what, Updated):
            return [("resources", *place) for place in self.interests.places(subscriber, what.uri)]
        task = self._opened(listener, what.id) if isinstance(what, TaskChanged) else None
        return [("tools", task.server, task.tool)] if task is not None and task.tool else []

    async def _decide(
        self, listener: Listener, subscriber: Subscriber, admission: Admission, news: Mapping[Notification, list[Thing]]
    ) -> None:
        """Ask the engine, and tell then; what it does not decide is hidden."""
        await admission.look([one for some in news.values() for one in some])
        if listener.subscriber is subscriber:
            listener.late += news
            self.wake([subscriber])

    def _may_hear(self, listener: Listener, subscriber: Subscriber, admission: Admission, what: Notification) -> bool:
        """Is it still visible? A grant may have ended while the stream was open."""
        if isinstance(what, Updated):
            return all(admission.sees("resources", *place) for place in self.interests.places(subscriber, what.uri))
        if not isinstance(what, TaskChanged):
            return True
        task = self._task(listener, admission, what.id)
        return task is not None and (task.era == "legacy" or self._is_told(listener, admission, task, what.params))

    @staticmethod
    def _is_told(listener: Listener, admission: Admission, task: Task, params: bytes) -> bool:
        """The state of a modern task holds its result: to hear it leaves marks on the run as `tasks/get` does."""
        check = Check(admission, meta=listener.meta)
        try:
            check.told(task.server, task.tool, tells=False)
        except GatewayError as error:
            _log.debug("the state of a task is not told: %s", error.public)
            return False
        check.end("done" if is_answer("tasks/get", Raw(params)) else "failed")
        return True

    def admission(self, listener: Listener) -> Admission | None:
        """What it may at its endpoint; None: everything."""
        return self.front.admission(listener.principal, listener.endpoint)

    async def places(self, viewer: Viewer, uris: Iterable[str], admission: Admission | None) -> dict[str, Place]:
        """Where resources are; those that this viewer does not see, or may not, are left out. One asking serves all."""
        fleet, found, asked = self.front.fleet, {}, False
        check = Check(admission) if admission is not None else None
        for count, uri in enumerate(sorted(uris), 1):
            if count % NAMES_AT_ONCE == 0:
                await asyncio.sleep(0)
            target = fleet.find_now(viewer, "resources", uri)
            if target is not None and check is not None:
                await check.look("resources", target)
                target = target if check.sees("resources", target) else None  # it takes the way of what is missing
            if target is None and not asked:
                asked = True
                try:
                    target = await fleet.find(viewer, "resources", uri, check)
                except GatewayError as error:
                    _log.debug("a subscription leads nowhere: %s", error.public)
            if target is not None and target.server in viewer.scopes:
                found[uri] = Place(target.server, viewer.scopes[target.server], target.name)
        return found

    def _tasks(self, viewer: Viewer, listener: Listener) -> dict[str, Place]:
        """Where tasks are; ids that open for somebody else, or for nobody, and what is hidden, are left out."""
        found, admission = {}, self.admission(listener)
        for id_ in listener.wanted.tasks:
            task = self._task(listener, admission, id_)
            if task is not None and task.era == "modern" and task.server in viewer.scopes:
                found[id_] = Place(task.server, viewer.scopes[task.server], task.id)
        return found

    def _task(self, listener: Listener, admission: Admission | None, id_: str) -> Task | None:
        """The task of an id; None where it is another's, or of a call of what this one may not see."""
        task = self._opened(listener, id_)
        if task is None or admission is None or admission.sees_call_of(task.server, task.tool):
            return task
        return None

    def _opened(self, listener: Listener, id_: str) -> Task | None:
        try:
            return self.front.handles.open_task(id_, owner_of(listener.principal, listener.endpoint))
        except SealError:
            return None

    def _offered(self, viewer: Viewer, kinds: Iterable[ListKind]) -> frozenset[ListKind]:
        offers = offered("modern", [dialect for _, dialect in self.front.fleet.dialects(viewer)])
        return frozenset(kind for kind in kinds if kind in offers)

    async def _baseline(self, viewer: Viewer, listener: Listener) -> dict[ListKind, bytes]:
        """What the lists are now; of one that is not there in time the first change is told whatever it is."""
        seen: dict[ListKind, bytes] = {}

        async def look(kind: ListKind) -> None:
            lists = await self._lists(viewer, kind)
            await self._look_through(listener, lists)
            seen[kind] = self._digest(listener, lists)

        await _in_time([look(kind) for kind in listener.wanted.kinds])
        return dict(seen)

    # --- what servers are asked for

    def ask(self, sources: Iterable[Source]) -> None:
        """Tell these servers what is wanted of them now."""
        for source in sources:
            name, scope = source
            wanted = self.interests.wanted(name, scope)
            if wanted == NOTHING:
                self._sources.discard(source)
            else:
                self._sources.add(source)
            server = self.front.fleet.servers.get(name)
            if server is not None:
                server.listen(scope, wanted)

    async def heard(self, sources: Iterable[Source]) -> dict[Source, Wanted]:
        """What each of these servers tells, as far as is known in time."""
        found = dict.fromkeys(sources, NOTHING)
        servers = self.front.fleet.servers

        async def settle(source: Source) -> None:
            server = servers.get(source[0])
            listening = server.listenings.get(source[1]) if server is not None else None
            if listening is not None:
                found[source] = await listening.settled()

        await _in_time([settle(source) for source in found])
        return found

    def apply(self) -> None:
        """The configuration is another one: servers and endpoints may be gone, or others."""
        for server in self.front.fleet.servers.values():
            server.hears = self
        self._granted_until = 0.0
        self._applied += 1
        if self._rejoining is not None:
            self._rejoining.cancel()
        if self._listeners:
            self._rejoining = self.spawn(self._rejoin(list(self._listeners.values())))

    async def _rejoin(self, listeners: list[Listener]) -> None:
        for listener in listeners:
            viewer = self.viewer(listener)
            if viewer is None:
                if listener.stream is not None:
                    listener.stream.end()
                self.leave(listener)
                continue
            places = await self.places(viewer, listener.wanted.uris, self.admission(listener))
            subscriber = listener.subscriber
            if subscriber is None:
                continue
            sources = frozenset(viewer.scopes.items())
            kinds = self._offered(viewer, listener.wanted.kinds)
            try:
                tasks = self._tasks(viewer, listener)
                changed = self.interests.change(subscriber, Interest(kinds, sources, places, tasks))
            except GatewayError as error:
                _log.warning("a subscription is as before the reload: %s", error.public)
                continue
            subscriber.viewer = viewer
            self.ask(changed | sources)  # a server of the same name may be another one
            for kind in kinds:
                self.interests.mark(subscriber, kind, now=self.front.clock(), chance=self._chance())
            self._arm()
            await asyncio.sleep(0)

    # --- Hears: what servers tell

    def on_stale(self, server: str, kind: ListKind, uri: str = "") -> None:
        if (cache := self.front.cache) is None:
            return
        if uri:
            cache.updated(server, uri)
        else:
            cache.list_changed(server, kind)

    def on_list_changed(self, server: str, kind: ListKind) -> None:
        marking = self.interests.list_changed(server, kind, now=self.front.clock(), chance=self._chance)
        self.spawn(self._in_slices(marking))

    def on_updated(self, server: str, scope: Hashable, uri: str) -> None:
        self.on_stale(server, "resources", uri)
        self.wake(self.interests.updated(server, scope, uri))

    def on_task(self, server: str, scope: Hashable, task_id: str, params: bytes | None) -> None:
        if params is not None:
            self.wake(self.interests.task(server, scope, task_id, params))
            self.beside.task(server, scope, task_id, params)

    def on_elicited(self, server: str, scope: Hashable, what: Elicited) -> None:
        self.beside.elicited(server, scope, what)

    def on_progress(self, server: str, scope: Hashable, token: int, params: bytes) -> None:
        self.beside.progressed(server, scope, token, params)

    def on_log(self, server: str, scope: Hashable, params: bytes) -> None:
        self.beside.log(server, scope, params)

    def on_opened(self, server: str, scope: Hashable, channel: Channel) -> None:
        self.beside.opened(server, scope, channel)

    def listening(self, server: str, scope: Hashable) -> Iterator[tuple[Subscriber, Listener]]:
        """Those who see what a server lists on this scope. Between two of them, some may leave."""
        for subscriber in self.interests.listening(server, scope):
            listener = self._listeners.get(subscriber)
            if listener is not None:
                yield subscriber, listener

    async def _in_slices(self, marking: Generator[None, None, None]) -> None:
        for _ in marking:
            self._arm()
            await asyncio.sleep(0)
        self._arm()

    # --- views that may have changed

    def _arm(self) -> None:
        at = self.interests.next_due()
        if at is None or (self._timer is not None and self._due_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - self.front.clock()), self._due)

    def _due(self) -> None:
        self._timer = None
        for subscriber, kind in self.interests.due(self.front.clock()):
            assert isinstance(subscriber.viewer, Viewer)
            key = (subscriber.viewer, kind)
            if key in self._hashing:
                self._hashing[key].append(subscriber)
            else:
                self._hashing[key] = [subscriber]
                self.spawn(self._rehash(*key))
        self._arm()

    async def _rehash(self, viewer: Viewer, kind: ListKind) -> None:
        """Make a view for all who wait for it, and see what each of them is shown; for those that came while it was
        made, once more."""
        key = (viewer, kind)
        try:
            while waiting := self._hashing[key]:
                async with self._gate:
                    self._hashing[key] = []
                    lists = await self._lists(viewer, kind)
                for start in range(0, len(waiting), SLICE):
                    some = [(one, self._listeners.get(one)) for one in waiting[start : start + SLICE]]
                    for _, listener in some:
                        await self._look_through(listener, lists)
                    self.wake(
                        [
                            one
                            for one, listener in some
                            if listener is not None and self.interests.hashed(one, kind, self._digest(listener, lists))
                        ]
                    )
                    await asyncio.sleep(0)
        finally:
            del self._hashing[key]

    def _digest(self, listener: Listener, lists: Sequence[Index]) -> bytes:
        """Of what this one is shown of them, by its rights."""
        shown = self.front.shown
        return b"".join(one.fragments.digest(shown(listener.endpoint, listener.principal, one)) for one in lists)

    async def _look_through(self, listener: Listener | None, lists: Sequence[Index]) -> None:
        """Have worked out what this one may see of them, where that is not known: in slices."""
        if listener is None or (admission := self.admission(listener)) is None:
            return
        for one in lists:
            if not admission.looked_through(one):
                await admission.look_through(one)

    async def _lists(self, viewer: Viewer, kind: ListKind) -> list[Index]:
        """Templates and skills belong to the resources: they have no notification of their own."""
        kinds: tuple[Kind, ...] = ("resources", "templates", "skills") if kind == "resources" else (kind,)
        fleet = self.front.fleet
        return [(fleet.fresh(viewer, one) or await fleet.listing(viewer, one)).index for one in kinds]

    async def _mark_all(self) -> None:
        for start, subscriber in enumerate(list(self._listeners), 1):
            for kind in LIST_KINDS:
                self.interests.mark(subscriber, kind, now=self.front.clock(), chance=self._chance())
            if start % SLICE == 0:
                await asyncio.sleep(0)
        self._arm()

    # --- streams

    def wake(self, subscribers: Iterable[Subscriber]) -> None:
        """These have news: tell them soon, where they have a stream."""
        was_quiet = not self._woken
        for subscriber in subscribers:
            listener = self._listeners.get(subscriber)
            if listener is not None and listener.stream is not None:
                self._woken[listener] = None
        if was_quiet and self._woken:
            asyncio.get_running_loop().call_later(TELL_S, self._tell)

    def _tell(self) -> None:
        """A slice of those that have news; the rest in the next turn."""
        for listener in list(islice(self._woken, SLICE)):
            del self._woken[listener]
            if listener.stream is not None:
                listener.stream.tell()
        if self._woken:
            asyncio.get_running_loop().call_soon(self._tell)

    # --- calls whose streams can be resumed

    def keep(self, one: Exchange) -> bytes:
        """Keep what `one` sends, for a client that comes back: the event that lets it. Empty for who cannot read that.

        An empty event is no message only since 2025-11-25: older clients choke on it.
        """
        session = one.call.session
        if session is None or session.version != LATEST_LEGACY:
            return b""
        log = self.logs.open(session.id, one)
        self.resumable[log] = one
        one.kept(log)
        return log.prime(RETRY_MS)

    def let_go(self, log: Stream) -> None:
        """A call is over: what its client has missed is kept for a while."""
        del self.resumable[log]
        log.finish(self.front.clock())

    # --- sessions

    def session(self, session: Session) -> LiveSession:
        """Its live state, made at the first need. Raises Overloaded."""
        live, gone = self.live.of(session, self.front.clock())
        self._forget(gone)
        return live

    def listener(self, live: LiveSession, principal: Principal, endpoint: str) -> Listener:
        """What a session listens with: to all lists, for nobody can say in this era which. `enlist` makes it listen."""
        if live.listener is None:
            wanted = Wanted(kinds=frozenset(LIST_KINDS))
            live.listener = Listener(endpoint, principal, live.session, live.session.capabilities, wanted)
            live.listener.stream = live.stream
        live.listener.principal = principal  # the same one, who may have come with a newer proof
        return live.listener

    async def enlist(self, live: LiveSession, listener: Listener) -> None:
        """`join` for a session; one joining serves everybody who waits. Raises as `join` does."""
        if listener.subscriber is not None:
            return
        if live.joining is None:
            live.joining = asyncio.ensure_future(self._enlist(live, listener))
        await asyncio.shield(live.joining)

    def is_joining(self, session: Session | None, server: Server, scope: Hashable) -> bool:
        """Is the client of this session about to listen, or the server's own stream about to be heard?"""
        if server.may_be_missed(scope):
            return True
        live = self.live.by_id.get(session.id) if session is not None else None
        return live is not None and live.joining is not None

    async def joined(self, call: Call, server: Server, scope: Hashable, channel: Channel) -> None:
        """Wait until who is about to listen does, and its server is heard: what a call makes that ask or log on its own
        stream is lost while this is not open."""
        if call.log_level:
            server.hear_beside(scope, channel)
        await server.heard_beside(scope)
        live = self.live.by_id.get(call.session.id) if call.session is not None else None
        if live is not None and live.joining is not None:
            await asyncio.wait([live.joining], timeout=READY_S)

    async def _enlist(self, live: LiveSession, listener: Listener) -> None:
        try:
            await self.join(listener)
            self.beside.ask_level(listener)
        finally:
            live.joining = None
            if live.over:
                self.leave(listener)

    def level(self, call: Call) -> str:
        """The least severe log message that a call's client wants now, by its session or by `_meta`; empty where it
        has not said."""
        if call.session is None:
            return asked_level(call.meta)
        live = self.live.get(call.session, self.front.tick)
        return live.level if live is not None else ""

    def end_session(self, id_: str) -> None:
        """A session was ended by its client. Idempotent."""
        live = self.live.end(id_)
        if live is not None:
            if live.stream is not None:
                live.stream.end()
            self._forget([live])
        self.logs.end(id_)

    def _forget(self, gone: Iterable[LiveSession]) -> None:
        sources: set[Source] = set()
        for live in gone:
            live.over = True
            if live.listener is not None:
                sources.update(self._leave(live.listener))
            self.logs.end(live.session.id)
        self.ask(sources)

    # --- upkeep

    def sweep(self, now: float) -> None:
        """Once a second."""
        self.logs.sweep(now)
        self._forget(self.live.idle(now))
        gate = self.front.gate
        if gate is not None:  # expired, revoked, or proved in a way that is configured no more
            for stream in [one for one in self.streams if not gate.identity.holds(one.listener.principal)]:
                stream.end()
        quiet_s = self.front.snapshot.limits.sse_comment_s
        for stream in [one for one in self.streams if now - one.written_at >= quiet_s]:
            stream.comment(now)
        changed = self.front.fleet.generation != self._generation and now - self._looked_at >= RECHECK_S
        admissions = self.front.admissions
        if admissions is not None and self.front.now() >= self._granted_until:  # what is seen changes with time, too
            changed, self._granted_until = True, admissions.changes_at()
        if changed:
            self._generation, self._looked_at = self.front.fleet.generation, now
            if self._listeners:
                self.spawn(self._mark_all())

    async def drain(self) -> None:
        """The gateway stops: end the streams in good order, not all in one moment."""
        left = list(self.streams)
        for stream in left:
            stream.end()
            await asyncio.sleep(DRAIN_S / len(left))

    def close(self) -> None:
        """Stop at once."""
        for stream in list(self.streams):
            stream.end()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._background:
            task.cancel()


def _sources_of(places: dict[str, Place]) -> frozenset[Source]:
    return frozenset((place.server, place.scope) for place in places.values())


async def _in_time(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    """Run them together for `READY_S` at most; what is late is given up."""
    if not coroutines:
        return
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        await asyncio.wait(tasks, timeout=READY_S)
    finally:
        for task in tasks:
            task.cancel()
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            _log.debug("not ready: %r", error)
