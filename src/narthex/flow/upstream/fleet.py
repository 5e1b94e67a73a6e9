"""All upstreams at run time, and what each endpoint shows of them. A reload keeps every server whose spec is unchanged.

Cases: `tests/flow/upstream/test_fleet.py`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Final, TypeVar

from narthex.authority.mapping import account_of, told_apart
from narthex.errors import ClaimsRequired, GatewayError, MethodNotFound, UpstreamUnavailable
from narthex.flow.cache.plans import Plans
from narthex.flow.codec.offers import has_skills
from narthex.flow.held import Held
from narthex.flow.outbox import Outbox
from narthex.flow.policy.admission import Admission
from narthex.flow.policy.check import Check
from narthex.flow.route.bodies import Bodies
from narthex.flow.route.index import Index, Items, Missing, Target, merge
from narthex.flow.route.names import split_prefix
from narthex.flow.route.resources import APP, allowed, find_resource, find_skill
from narthex.flow.route.uri_templates import MAX_URI
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.era import KeepsEras
from narthex.flow.upstream.naming import may_name
from narthex.flow.upstream.port import Accounts, Dialect, NoAccounts
from narthex.flow.upstream.server import RECHECK_S, Server
from narthex.flow.upstream.viewers import Scope, View, Viewers, declared, scope_of
from narthex.flow.upstream.viewers import Viewer as Viewer
from narthex.telemetry.session_times import SessionTimes
from narthex.types import LOCAL, EndpointSpec, Kind, Principal, ServerSpec, Session, Snapshot, StdioTarget

T = TypeVar("T")
_log: Final = logging.getLogger("narthex.upstream")
MOST_TOLD: Final = 20
"""Names hidden by a clash that are logged at a time."""
VIEWER_S: Final = 1800.0
"""A caller that has not come for so long, up to twice that, is forgotten with what it alone saw."""
MISSING_TTL_S: Final = 1.0
"""A list with a server missing is asked for again after this long: it may be back."""


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
        accounts: Accounts | None = None,
        eras: KeepsEras | None = None,
    ) -> None:
        self._accounts = accounts or NoAccounts()
        self._eras = eras
        self.servers: dict[str, Server] = {}
        self.session_times = SessionTimes("server", "version", "error")
        """How long sessions with servers lasted."""
        self.generation = 0
        self._held = held
        self._outbox = outbox
        self._clock = clock
        self.tick = clock()
        self._chance = chance
        self._viewers = Viewers()
        self._aged_at = clock()
        self.by_session: frozenset[str] = frozenset()
        """Endpoints with a server of which each client session has a session of its own."""
        self.by_account: frozenset[str] = frozenset()
        """Endpoints with a server whose table of accounts tells callers apart by more than their key."""
        self._background: set[asyncio.Task[Any]] = set()
        self._pages = Bodies()
        self._plans: Plans | None = None
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
        self._accounts.apply(snapshot.servers.values())
        self._plans = Plans(snapshot.cache, snapshot.servers) if snapshot.cache is not None else None
        self._changed()
        self._viewers.clear()
        by_session = {name for name, one in snapshot.servers.items() if one.sharing == "session"}
        by_account = {name for name, one in snapshot.servers.items() if told_apart(one.accounts)}
        self.by_session, self.by_account = (
            frozenset(name for name, endpoint in snapshot.endpoints.items() if servers.intersection(endpoint.servers))
            for servers in (by_session, by_account)
        )
        for server in retired:
            self.spawn(self._retire(server))

    def start(self) -> None:
        """Start the servers that are to run before the first call; once it is known that the gateway itself can."""
        for server in self.servers.values():
            target, sharing = server.spec.target, server.spec.sharing
            if isinstance(target, StdioTarget) and target.start == "at_start" and sharing == "tenant":
                account = account_of(server.spec.accounts, LOCAL)
                self.spawn(self._reach(server, scope_of("tenant", LOCAL, None, account=account)))

    def _server(self, spec: ServerSpec) -> Server:
        return Server(
            spec, self._dialer, self._held, clock=self._clock, chance=self._chance, on_change=self._changed,
            declares=declared, shown=partial(self._accounts.shown, spec), eras=self._eras, times=self.session_times,
        )  # fmt: skip

    def _changed(self) -> None:
        self.generation += 1

    async def _reach(self, server: Server, scope: Scope) -> None:
        """Open a server before a call needs it."""
        try:
            await server.open(scope)
        except GatewayError:
            return  # logged there; the first call tries again

    async def _retire(self, server: Server) -> None:
        """Close a server that is configured no more, once its running calls have had their time."""
        until = self._clock() + server.spec.call_timeout_s
        while server.in_flight and self._clock() < until:
            await asyncio.sleep(0.1)
        await server.close()

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something in the background, kept until it is done."""
        task = asyncio.ensure_future(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def sweep(self) -> None:
        """Once a second: close what is idle."""
        self.tick = self._clock()
        if self.tick - self._aged_at >= VIEWER_S:
            self._aged_at = self.tick
            self._viewers.age()
        self._accounts.sweep()
        for server in self.servers.values():
            for closing in server.sweep():
                self.spawn(closing)

    async def close(self) -> None:
        """End every upstream."""
        await asyncio.gather(*(server.close() for server in self.servers.values()), return_exceptions=True)
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    # --- what the servers offer

    def dialects(self, viewer: Viewer) -> list[tuple[str, Dialect | None]]:
        """What was last negotiated with each server of an endpoint, in its order; None: it was not reached yet."""
        for name, scope in viewer.scopes.items():
            server = self.servers.get(name)
            channel = server.ready(scope) if server is not None else None
            if channel is not None:
                viewer.dialects[name] = channel.dialect
        return [(name, viewer.dialects.get(name)) for name in viewer.scopes]

    async def introduced(self, viewer: Viewer, wait_s: float) -> list[tuple[str, Dialect | None]]:
        """`dialects` once every server is reached, or not for now, or the time is over: then the rest goes on."""
        for name, known in self.dialects(viewer):
            if known is None and name not in viewer.reaching and name in self.servers:
                task = self.spawn(self._reach(self.servers[name], viewer.scopes[name]))
                viewer.reaching[name] = task
                task.add_done_callback(partial(_reached, viewer, name))
        if viewer.reaching:
            await asyncio.wait(list(viewer.reaching.values()), timeout=wait_s)
        return self.dialects(viewer)

    # --- views

    def viewer(self, spec: EndpointSpec, principal: Principal, session: Session | None, bits: int = 0) -> Viewer:
        """What this caller sees of the endpoint; the same object for all who see the same.

        Args:
            bits: What the client can be asked, where the endpoint is one of `by_session`.
        """
        key = (
            spec.name,
            principal.key,
            session.id if session is not None and spec.name in self.by_session else "",
            bits,
            (principal.kind, principal.roles, principal.groups, principal.scopes)
            if spec.name in self.by_account
            else None,
        )
        viewer = self._viewers.of.get(key)
        if viewer is None:
            specs = {name: self.servers[name].spec for name in spec.servers if name in self.servers}
            scopes = {
                name: scope_of(one.sharing, principal, session, bits, account_of(one.accounts, principal))
                for name, one in specs.items()
            }
            for name, scope in scopes.items():
                self.servers[name].used_by(scope, principal.key)
            viewer = self._viewers.add(key, spec, scopes)
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
        if kind == "resources" and (target is None or name.startswith(APP)):
            return self.planned(viewer, "resources", find_resource(viewer.spec, _indexes(viewer), name))
        if kind == "skills" and target is None:
            return find_skill(viewer.spec, view.index, name)
        return target

    async def find(self, viewer: Viewer, kind: Kind, name: str, check: Check | None = None) -> Target | None:
        """Where a shown name leads, asking the servers that may have it for their lists again.

        Args:
            check: What the caller does not see is as if it were not there.

        Raises:
            UpstreamUnavailable: It is not in what is known, and a server that may have it is not there; ClaimsRequired:
                it wants more of the caller first.
            MethodNotFound: It would be a skill, and nobody here has any.
        """
        spec = viewer.spec
        only: str | None = None
        if kind in ("tools", "prompts") and spec.naming == "prefix":
            only = split_prefix(name)
            if only is None or not await self._serves(viewer, kind, only, check):
                if check is not None:
                    await check.look_in_vain(kind, name)
                return None
        if check is not None and check.is_judged and (known := self.find_now(viewer, kind, name)) is not None:
            await check.look(kind, known)
            if check.sees(kind, known):
                return known
        view = await self._rechecked(viewer, kind, only)
        if kind == "resources":
            await self._beside(viewer, name)
            target = self.planned(viewer, "resources", find_resource(spec, _indexes(viewer), name))
        elif kind == "skills":
            self.check_skills(viewer, view, check.admission if check is not None else None)
            target = find_skill(spec, view.index, name) or self._only_with_skills(viewer, name)
        else:
            target = view.index.targets.get(name)
        if check is not None:
            if target is not None and check.is_judged:
                await check.look(kind, target)
            if check.is_judged and (target is None or not check.grants(kind, target)):
                await check.look_in_vain(kind, name)
            target = check.visible(kind, target)
        if target is None:
            for one in view.index.missing:
                if (only is None or one.server == only) and await self._misses(viewer, kind, one.server, check):
                    if one.claims:
                        raise ClaimsRequired(one.claims)
                    server = self.servers.get(one.server)  # None: a reload has removed it meanwhile
                    raise server.unavailable() if server is not None else UpstreamUnavailable(one.reason)
        return target

    def planned(self, viewer: Viewer, kind: Kind, target: Target | None) -> Target | None:
        """A thing with what the cache does for calls of it, where no list has said so."""
        if self._plans is None or target is None or target.caching is not None:
            return target
        plan = self._plans.of(kind, viewer.spec.name, target.server, target.name)
        if plan is None:
            return target
        return Target(target.server, target.name, target.name_json, caching=plan, definition=target.definition)

    async def _serves(self, viewer: Viewer, kind: Kind, server: str, check: Check | None) -> bool:
        """Is there such a server here, for this caller? With an engine: of one that has listed nothing yet it has shown
        nothing, so the servers are asked first."""
        if server not in viewer.scopes or (check is not None and not check.knows(kind, server)):
            return False
        if check is None or not check.is_judged:
            return True
        if viewer.views.get(kind) is None:
            await self._rechecked(viewer, kind, None)
        return await may_name(self, viewer, server, check.admission)

    async def _misses(self, viewer: Viewer, kind: Kind, server: str, check: Check | None) -> bool:
        """Is a server that is not there one that the caller could have something of?"""
        if check is None:
            return True
        return check.knows(kind, server) and await may_name(self, viewer, server, check.admission)

    async def _beside(self, viewer: Viewer, uri: str) -> None:
        """Have what says whose an unlisted resource is: templates, and what extensions name."""
        kinds: list[Kind] = ["templates"]
        if uri.startswith(APP):
            kinds.append("tools")
        if viewer.spec.resource_uris == "plain":
            kinds.append("skills")
        await asyncio.gather(*(asyncio.shield(self._rebuild(viewer, kind)) for kind in kinds))

    def check_skills(self, viewer: Viewer, view: View, admission: Admission | None) -> None:
        """Raise where an endpoint has no skills: `view` is what was found of them.

        Raises:
            MethodNotFound: No server declares the extension, or the endpoint changes URIs, of which entries are full.
            UpstreamUnavailable: None of those that are there; others are not.
        """
        if viewer.spec.resource_uris == "plain":
            if any(has_skills(dialect) for _, dialect in self.dialects(viewer)):
                return
            for one in view.index.missing:
                if admission is None or (admission.knows("skills", one.server) and admission.names(one.server)):
                    raise UpstreamUnavailable(one.reason)
        raise MethodNotFound("no server here has skills")

    def _only_with_skills(self, viewer: Viewer, uri: str) -> Target | None:
        """A server need not list all its skills: where one alone has any, it says itself whether it has this one."""
        having = [name for name, dialect in self.dialects(viewer) if has_skills(dialect)]
        return allowed(viewer.spec, having[0], uri) if len(having) == 1 and len(uri) <= MAX_URI else None

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
        if view is not None and view.generation == self.generation and self.tick < view.fresh_until and view.whole:
            return view
        return None

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
            stdio = {one.spec.name for one, _ in known if one.pool is None}
            plans, endpoint = self._plans, viewer.spec.name
            caching = partial(plans.of, kind, endpoint) if plans is not None else None
            index = await _merged(merge(viewer.spec, kind, lists, missing, stdio=stdio, caching=caching))
        listed = [at for one, scope in known if (at := one.listed(scope, kind)) is not None]
        fresh_until = self._clock() + MISSING_TTL_S
        if not missing:
            fresh_until = min((at.fresh_until for at in listed), default=math.inf)
        expires_at = min((at.expires_at for at in listed), default=math.inf)
        tenant = next(iter(viewer.scopes.values()), ("",))[0]
        view = View(index, generation, fresh_until, expires_at, only is None, tenant, lists, self._pages)
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
            claims = error.claims if isinstance(error, ClaimsRequired) else ""
            return known, Missing(server.spec.name, error.public, claims)

    def _keep(self, viewer: Viewer, view: View) -> None:
        kind = view.index.kind
        before = viewer.views.get(kind)
        if before is not None and before.whole and not view.whole:
            view.fresh_until = 0.0  # a partial view answers calls, but the next list asks everybody
        told = frozenset(before.index.hidden) if before is not None else frozenset()
        for server, name in [one for one in view.index.hidden if one not in told][:MOST_TOLD]:
            _log.warning("endpoint %s hides %s of server %s: the name is taken", viewer.spec.name, name, server)
        refused = frozenset(before.index.refused) if before is not None else frozenset()
        for server, name, why in [one for one in view.index.refused if one not in refused][:MOST_TOLD]:
            _log.warning("endpoint %s leaves out tool %s of server %s: x-mcp-header: %s",
                         viewer.spec.name, name[:128], server, why)  # fmt: skip
        viewer.views[kind] = view


def _indexes(viewer: Viewer) -> dict[Kind, Index]:
    return {kind: view.index for kind, view in viewer.views.items()}


def _reached(viewer: Viewer, name: str, task: asyncio.Task[None]) -> None:
    del viewer.reaching[name]


async def _merged(steps: Generator[None, None, Index]) -> Index:
    """The list, with pauses for what else is to be done."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            index: Index = done.value
            return index
        await asyncio.sleep(0)
