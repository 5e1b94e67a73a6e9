"""Who sees the same of an endpoint, and what they see: the lists of its servers, merged, as last built.

What a caller sees depends on the servers' scopes alone: who shares an upstream session with whom (design §4). So all
callers whose scopes are the same share one viewer, and its lists. Cases: `tests/flow/upstream/test_viewers.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from operator import is_
from typing import Any, Final

from narthex.flow.codec.capabilities import IN_ERA, ClientCaps, capabilities_of
from narthex.flow.route.bodies import Bodies, Body
from narthex.flow.route.index import Index, Items, Missing
from narthex.flow.upstream.port import Dialect
from narthex.types import EndpointSpec, Kind, Principal, Session, Sharing

MOST_VIEWERS = 256
"""Viewers whose merged lists are kept; the one made longest ago goes first."""
MOST_CALLERS = 4096
"""Callers whose viewer is found at once; another's scopes are worked out anew."""

Scope = tuple[str, ...]
_OF_SESSION: Final = 7  # parts of a scope of `sharing: session`
_NOT_CARRIED: Final = (
    ClientCaps.TASKS
    | ClientCaps.TASKS_LIST
    | ClientCaps.TASKS_CANCEL
    | ClientCaps.TASKS_SAMPLING
    | ClientCaps.TASKS_ELICITATION
    | ClientCaps.TASKS_EXTENSION
)
"""Tasks that a client would run for a server. Those that a server runs need no word of a legacy client."""


def scope_of(
    sharing: Sharing, principal: Principal, session: Session | None, bits: int = 0, account: str = ""
) -> Scope:
    """Who shares an upstream session with this caller: its parts are the tenant, the account with the server, the rest
    of the principal's key. So what one account opened is never another's.

    One of `sharing: session` ends with the session's id, empty for a client that has none, and with what the client
    can be asked (`bits`): that is said once for the whole upstream session.
    """
    tenant, *who = principal.key
    if sharing == "tenant":
        return (tenant, account)
    if sharing == "session":
        return (tenant, account, *who, session.id if session is not None else "", str(bits))
    return (tenant, account, *who)


def account_in(scope: Scope) -> str:
    """The account that a scope is for."""
    return scope[1]


def declared(scope: Hashable) -> dict[str, Any]:
    """The client capabilities that an upstream session of this scope is opened with."""
    if not isinstance(scope, tuple) or len(scope) != _OF_SESSION:
        return {}
    return capabilities_of(int(scope[-1]) & IN_ERA["legacy"] & ~_NOT_CARRIED)


class View:
    """A merged list as last built. `whole` once every server was asked; times are monotonic seconds.

    `lists` are what it was merged from, `pages` where the bytes of its pages are kept. It may be kept by others until
    `expires_at`, and is by us until `fresh_until`.
    """

    __slots__ = ("expires_at", "fresh_until", "generation", "index", "lists", "pages", "tenant", "whole")

    def __init__(
        self,
        index: Index,
        generation: int,
        fresh_until: float,
        expires_at: float,
        whole: bool,
        tenant: str,
        lists: tuple[Items, ...],
        pages: Bodies,
    ) -> None:
        self.index = index
        self.generation = generation
        self.fresh_until = fresh_until
        self.expires_at = expires_at
        self.whole = whole
        self.tenant = tenant
        self.lists = lists
        self.pages = pages

    def page(self, shown: int | None = None, after: bytes | None = None) -> Body:
        """The items of a selection of the list, behind a place in it, as bytes made once (`Bodies.page`)."""
        return self.pages.page(self.tenant, self.index, shown, after)

    def is_of(self, lists: tuple[Items, ...], missing: tuple[Missing, ...]) -> bool:
        """Would these be merged to the same list? A server's items are one object until they change."""
        return self.index.missing == missing and len(lists) == len(self.lists) and all(map(is_, lists, self.lists))


Caller = tuple[str, Scope, str, int, Hashable]
"""Endpoint, principal; where sessions matter the session's id and what the client can be asked; where accounts do, what
their tables ask for."""


class Viewer:
    """Everybody who sees the same of an endpoint: its servers, the scope of each, the merged lists, and what was last
    negotiated with each server."""

    __slots__ = ("asking", "building", "callers", "dialects", "reaching", "scopes", "spec", "views")

    def __init__(self, spec: EndpointSpec, scopes: dict[str, Scope]) -> None:
        self.spec = spec
        self.scopes = scopes
        self.views: dict[Kind, View] = {}
        self.building: dict[Kind, asyncio.Task[View]] = {}
        self.asking: dict[tuple[Kind, str | None], asyncio.Task[View]] = {}
        self.dialects: dict[str, Dialect] = {}
        self.reaching: dict[str, asyncio.Task[None]] = {}
        self.callers: set[Caller] = set()


class Viewers:
    """The viewers of all endpoints, within bounds. Whoever holds one that went goes on with it.

    Attributes:
        of: Those of the callers that came lately; another's may still be known to `add`.
    """

    def __init__(self) -> None:
        self.of: dict[Caller, Viewer] = {}
        self._before: dict[Caller, Viewer] = {}
        self._shared: dict[tuple[Any, ...], Viewer] = {}

    def add(self, caller: Caller, spec: EndpointSpec, scopes: dict[str, Scope]) -> Viewer:
        """The viewer of a caller that is not in `of`."""
        if len(self.of) >= MOST_CALLERS:
            first = next(iter(self.of))
            self._leave(first, self.of.pop(first))
        key = _key(spec, caller, scopes)
        viewer = self._shared.get(key)
        if viewer is None:
            if len(self._shared) >= MOST_VIEWERS:
                gone = self._shared.pop(next(iter(self._shared))).callers
                while gone:
                    one = gone.pop()
                    self.of.pop(one, None)
                    self._before.pop(one, None)
            viewer = self._shared[key] = Viewer(spec, scopes)
        before = self._before.pop(caller, viewer)
        if before is not viewer:
            self._leave(caller, before)
        self.of[caller] = viewer
        viewer.callers.add(caller)
        return viewer

    def age(self) -> None:
        """Forget the callers that have not come since the last time, and what nobody else sees."""
        gone, self._before, self.of = self._before, self.of, {}
        for caller, viewer in gone.items():
            self._leave(caller, viewer)

    def _leave(self, caller: Caller, viewer: Viewer) -> None:
        viewer.callers.remove(caller)
        if not viewer.callers:
            del self._shared[_key(viewer.spec, caller, viewer.scopes)]

    def clear(self) -> None:
        """Forget them all: the configuration is another one."""
        self.of.clear()
        self._before.clear()
        self._shared.clear()


def _key(spec: EndpointSpec, caller: Caller, scopes: dict[str, Scope]) -> tuple[Any, ...]:
    """What makes a viewer: who have the same share one."""
    return (spec.name, caller[1][0], *scopes.items())  # the tenant too, where no scope says it
