"""All upstreams at run time, and what each endpoint shows of them. A reload keeps every server whose spec is unchanged.

Cases: `tests/flow/upstream/test_fleet.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from operator import is_
from typing import Any

import msgspec

from narthex.errors import GatewayError, UpstreamUnavailable
from narthex.flow.held import Held
from narthex.flow.outbox import Outbox
from narthex.flow.route.bodies import Bodies, Body
from narthex.flow.route.index import Index, Items, Missing, Target, find_resource, merge
from narthex.flow.route.names import split_prefix
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.server import RECHECK_S, Server
from narthex.types import EndpointSpec, Kind, Principal, ServerSpec, Session, Sharing, Snapshot, StdioTarget

_log = logging.getLogger("narthex.upstream")
MOST_VIEWERS = 256
"""Viewers whose merged lists are kept; the one seen longest ago goes first."""

MOST_TOLD = 20
"""Names hidden by a clash that are logged at a time."""
MISSING_TTL_S = 1.0
"""A list with a server missing is asked for again after this long: it may be back."""

Scope = tuple[str, ...]


def scope_of(sharing: Sharing, principal: Principal, session: Session | None) -> Scope:
    """Who shares an upstream session with this caller. Every scope begins with the tenant."""
    if sharing == "tenant":
        return (principal.tenant,)
    if sharing == "session" and session is not None:
        return (*principal.key, session.id)
    return principal.key


class View(msgspec.Struct):
    """A merged list as last built. `whole` once every server was asked; `fresh_until` in monotonic seconds.

    `lists` are what it was merged from, `pages` where the bytes of its pages are kept.
    """

    index: Index
    generation: int
    fresh_until: float
    whole: bool
    tenant: str
    lists: tuple[Items, ...]
    pages: Bodies
    bodies: dict[bytes, bytes] = {}

    def body(self, prefix: bytes) -> bytes:
        """The list result's bytes, made once."""
        body = self.bodies.get(prefix)
        if body is None:
            body = self.bodies[prefix] = self.index.body(prefix)
        return body

    def page(self, shown: int | None = None, after: bytes | None = None) -> Body:
        """The items of a selection of the list, behind a place in it, as bytes made once (`Bodies.page`)."""
        return self.pages.page(self.tenant, self.index, shown, after)

    def is_of(self, lists: tuple[Items, ...], missing: tuple[Missing, ...]) -> bool:
        """Would these be merged to the same list? A server's items are one object until they change."""
        return self.index.missing == missing and len(lists) == len(self.lists) and all(map(is_, lists, self.lists))


class Viewer:
    """Everybody who sees the same of an endpoint: its servers, the scope of each, and the merged lists."""

    __slots__ = ("asking", "building", "scopes", "spec", "views")

    def __init__(self, spec: EndpointSpec, scopes: dict[str, Scope]) -> None:
        self.spec = spec
        self.scopes = scopes
        self.views: dict[Kind, View] = {}
        self.building: dict[Kind, asyncio.Task[View]] = {}
        self.asking: dict[tuple[Kind, str | None], asyncio.Task[View]] = {}


class Fleet:
    """The servers of a snapshot, and the views of its endpoints."""

    def __init__(
        self,
        snapshot: Snapshot,
        held: Held,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
        outbox: Outbox | None = None,
    ) -> None:
        self.servers: dict[str, Server] = {}
        self.generation = 0
        self._held = held
        self._outbox = outbox
        self._clock = clock
        self.tick = clock()
        self._chance = chance
        self._viewers: dict[tuple[str, Scope, str], Viewer] = {}
        self._by_session: frozenset[str] = frozenset()
        self._background: set[asyncio.Task[Any]] = set()
        self._pages = Bodies()
        self._egress = snapshot.egress
        self._dialer = Dialer(snapshot.egress, outbox=self._outbox)
        self.apply(snapshot)

    def apply(self, snapshot: Snapshot) -> None:
        """Take over a new snapshot: keep what is the same, make what is new, end the rest once its calls have ended."""
        if snapshot.egress != self._egress:
            self._dialer = Dialer(snapshot.egress, outbox=self._outbox)  # first: it refuses a proxy that cannot be used
            self._egress = snapshot.egress
            retired = list(self.servers.values())
            self.servers = {}
        else:
            retired = [one for name, one in self.servers.items() if snapshot.servers.get(name) != one.spec]
        kept = {name: one for name, one in self.servers.items() if one not in retired}
        self.servers = {name: kept.get(name) or self._server(spec) for name, spec in snapshot.servers.items()}
        self._changed()
        self._viewers.clear()
        by_session = {name for name, one in snapshot.servers.items() if one.sharing == "session"}
        self._by_session = frozenset(
            name for name, endpoint in snapshot.endpoints.items() if by_session.intersection(endpoint.servers)
        )
        for server in retired:
            self.spawn(self._retire(server))

    def start(self) -> None:
        """Start the servers that are to run before the first call; once it is known that the gateway itself can."""
        for server in self.servers.values():
            if isinstance(server.spec.target, StdioTarget) and server.spec.target.start == "at_start":
                self.spawn(self._start(server))

    def _server(self, spec: ServerSpec) -> Server:
        return Server(spec, self._dialer, self._held, clock=self._clock, chance=self._chance, on_change=self._changed)

    def _changed(self) -> None:
        self.generation += 1

    async def _start(self, server: Server) -> None:
        """Open a server that is to run from the start, for those who share it by tenant."""
        if server.spec.sharing == "tenant" and server.ready(("default",)) is None:
            try:
                await server.open(("default",))
            except GatewayError:
                return  # logged there; the first call tries again

    async def _retire(self, server: Server) -> None:
        """Close a server that is configured no more, once its running calls have had their time."""
        until = self._clock() + server.spec.call_timeout_s
        while server.in_flight and self._clock() < until:
            await asyncio.sleep(0.1)
        await server.close()

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run something in the background, kept until it is done."""
        task = asyncio.ensure_future(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def sweep(self) -> None:
        """Once a second: close what is idle."""
        self.tick = self._clock()
        for server in self.servers.values():
            for closing in server.sweep():
                self.spawn(closing)

    async def close(self) -> None:
        """End every upstream."""
        await asyncio.gather(*(server.close() for server in self.servers.values()), return_exceptions=True)
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    # --- views

    def viewer(self, spec: EndpointSpec, principal: Principal, session: Session | None) -> Viewer:
        """What this caller sees of the endpoint; the same object for all who see the same."""
        key = (spec.name, principal.key, session.id if session is not None and spec.name in self._by_session else "")
        viewer = self._viewers.get(key)
        if viewer is None:
            servers = self.servers
            scopes = {n: scope_of(servers[n].spec.sharing, principal, session) for n in spec.servers if n in servers}
            if len(self._viewers) >= MOST_VIEWERS:
                del self._viewers[next(iter(self._viewers))]
            viewer = self._viewers[key] = Viewer(spec, scopes)
        return viewer

    def find_now(self, viewer: Viewer, kind: Kind, name: str) -> Target | None:
        """Where a shown name leads by what is in memory; None means: ask `find`.

        A stale view still answers a call, and is built anew beside it.
        """
        view = viewer.views.get(kind)
        if view is None:
            return None
        if view.whole and not self._is_fresh(view):
            self._rebuild(viewer, kind)
        target = view.index.targets.get(name)
        if target is None and kind == "resources" and (templates := viewer.views.get("templates")) is not None:
            target = find_resource(viewer.spec, view.index, templates.index, name)
        return target

    async def find(self, viewer: Viewer, kind: Kind, name: str) -> Target | None:
        """Where a shown name leads, asking the servers that may have it for their lists again.

        Raises:
            UpstreamUnavailable: It is not in what is known, and a server that may have it is not there.
        """
        spec = viewer.spec
        only: str | None = None
        if kind in ("tools", "prompts") and spec.naming == "prefix":
            only = split_prefix(name)
            if only is None or only not in viewer.scopes:
                return None
        view = await self._rechecked(viewer, kind, only)
        if kind == "resources":
            templates = await asyncio.shield(self._rebuild(viewer, "templates"))
            target = find_resource(spec, view.index, templates.index, name)
        else:
            target = view.index.targets.get(name)
        if target is None:
            for one in view.index.missing:
                if only is None or one.server == only:
                    server = self.servers.get(one.server)  # None: a reload has removed it meanwhile
                    raise server.unavailable() if server is not None else UpstreamUnavailable(one.reason)
        return target

    async def _rechecked(self, viewer: Viewer, kind: Kind, only: str | None) -> View:
        """The view after its servers (or `only` that one) were asked again; they were just asked: as it is.

        One asking serves everybody who waits: a client that invents names costs no more than one a second.
        """
        view = viewer.views.get(kind)
        if view is not None and view.generation == self.generation and self._just_asked(viewer, kind, only):
            return view
        key = (kind, only)
        task = viewer.asking.get(key)
        if task is None:
            task = viewer.asking[key] = asyncio.ensure_future(self._build(viewer, kind, only, recheck=True))
            task.add_done_callback(lambda done: viewer.asking.pop(key, None))
        return await asyncio.shield(task)

    def _just_asked(self, viewer: Viewer, kind: Kind, only: str | None) -> bool:
        since = self._clock() - RECHECK_S
        for name, scope in viewer.scopes.items():
            if only is None or name == only:
                server = self.servers.get(name)
                listed = server.listed(scope, kind) if server is not None else None
                if listed is None or listed.fetched_at < since:
                    return False
        return True

    def fresh(self, viewer: Viewer, kind: Kind) -> View | None:
        """The merged list from memory, None when a server must be asked."""
        view = viewer.views.get(kind)
        return view if view is not None and view.whole and self._is_fresh(view) else None

    async def listing(self, viewer: Viewer, kind: Kind) -> View:
        """The merged list, with every server that answers in time; the others are named in it."""
        return await asyncio.shield(self._rebuild(viewer, kind))

    def _is_fresh(self, view: View) -> bool:
        return view.generation == self.generation and self.tick < view.fresh_until

    def _rebuild(self, viewer: Viewer, kind: Kind) -> asyncio.Task[View]:
        task = viewer.building.get(kind)
        if task is None:
            task = viewer.building[kind] = asyncio.ensure_future(self._build(viewer, kind, None, recheck=False))
            task.add_done_callback(lambda done: self._built(viewer, kind, done))
        return task

    def _built(self, viewer: Viewer, kind: Kind, task: asyncio.Task[View]) -> None:
        viewer.building.pop(kind, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a list could not be merged: %r", error)

    async def _build(self, viewer: Viewer, kind: Kind, only: str | None, *, recheck: bool) -> View:
        """Merge what the servers list. `only` asks just that one; the others stand with what is known of them."""
        known = [(self.servers[name], scope) for name, scope in viewer.scopes.items() if name in self.servers]
        answers = await asyncio.gather(*(self._ask(one, scope, kind, only, recheck) for one, scope in known))
        generation = self.generation
        lists = tuple(items for items, _ in answers if items is not None)
        missing = tuple(lost for _, lost in answers if lost is not None)
        before = viewer.views.get(kind)
        if before is not None and before.is_of(lists, missing):
            index = before.index
        else:
            index = await _merged(merge(viewer.spec, kind, lists, missing))
        fresh_until = self._clock() + MISSING_TTL_S
        if not missing:
            fresh_until = min((at.fresh_until for one, scope in known if (at := one.listed(scope, kind))), default=0.0)
        tenant = next(iter(viewer.scopes.values()), ("",))[0]
        view = View(index, generation, fresh_until, only is None, tenant, lists, self._pages)
        self._keep(viewer, view)
        return view

    async def _ask(
        self, server: Server, scope: Scope, kind: Kind, only: str | None, recheck: bool
    ) -> tuple[Items | None, Missing | None]:
        listed = server.listed(scope, kind)
        known = listed.items if listed is not None else None
        if only is not None and server.spec.name != only:
            return known, None
        try:
            return await server.fetch(scope, kind, recheck=recheck), None
        except GatewayError as error:
            return known, Missing(server.spec.name, error.public)

    def _keep(self, viewer: Viewer, view: View) -> None:
        kind = view.index.kind
        before = viewer.views.get(kind)
        if before is not None and before.whole and not view.whole:
            view.fresh_until = 0.0  # a partial view answers calls, but the next list asks everybody
        told = frozenset(before.index.hidden) if before is not None else frozenset()
        for server, name in [one for one in view.index.hidden if one not in told][:MOST_TOLD]:
            _log.warning("endpoint %s hides %s of server %s: the name is taken", viewer.spec.name, name, server)
        viewer.views[kind] = view


async def _merged(steps: Generator[None, None, Index]) -> Index:
    """The list, with pauses for what else is to be done."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            index: Index = done.value
            return index
        await asyncio.sleep(0)
