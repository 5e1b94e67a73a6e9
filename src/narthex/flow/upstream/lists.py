"""One server's lists: asked for once, whoever waits, page by page and within bounds; kept while they are fresh.

Cases: `tests/flow/upstream/test_server.py`, `tests/security/test_upstreams.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from narthex.errors import UpstreamTimeout, UpstreamUnavailable
from narthex.flow.codec.bridge import error_code
from narthex.flow.codec.capabilities import SKILLS_EXTENSION
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap, decode_map
from narthex.flow.codec.offers import has_skills
from narthex.flow.codec.subscriptions import ListKind
from narthex.flow.route.caching import Hints, read_hints, strictest
from narthex.flow.route.index import MEMBER, Items, read_items
from narthex.flow.upstream.era import is_strange
from narthex.flow.upstream.negotiate import is_refusal
from narthex.flow.upstream.port import Channel, SessionLost
from narthex.types import Kind

if TYPE_CHECKING:
    from narthex.flow.upstream.server import Server

_log = logging.getLogger("narthex.upstream")
MOST_ITEMS = 20_000
MOST_TEMPLATES = 200
"""Templates are tried one after the other for a resource that no list names."""
MOST_PAGES = 200
RECHECK_S = 1.0
"""A name that is not in a list makes us ask for the list again, at most this often."""
CHANGES_S = 0.25
"""A server that says all the time that a list has changed is asked for it, and passed on, at most this often."""
METHOD: dict[Kind, str] = {
    "tools": "tools/list",
    "prompts": "prompts/list",
    "resources": "resources/list",
    "templates": "resources/templates/list",
    "skills": "skills/list",
}
TOLD_BY: dict[Kind, ListKind] = {
    "tools": "tools",
    "prompts": "prompts",
    "resources": "resources",
    "templates": "resources",
    "skills": "resources",
}
"""The capability under which a server has a list, and the word by which it says that it has changed. Skills are listed
by servers of their extension, and have no word of their own."""
_SKILLS: dict[str, Any] = {"extensions": {SKILLS_EXTENSION: {}}}


class Listed(msgspec.Struct):
    """A server's list as last fetched. Times are monotonic seconds.

    `expires_at` is what the server says. We keep it until `fresh_until`: `RECHECK_S` at least, whatever it says.
    """

    items: Items
    fetched_at: float
    fresh_until: float
    expires_at: float


class _Odd(UpstreamUnavailable):
    """The server does not list, with an error that a server of its era does not give."""


class Lists:
    """The lists of one server, by scope. `on_change` is called when one has other contents than before."""

    def __init__(self, server: Server, *, on_change: Callable[[], None]) -> None:
        self._server = server
        self._on_change = on_change
        self._listing: dict[tuple[Hashable, Kind], asyncio.Task[Items]] = {}
        self._lists: dict[tuple[Hashable, Kind], Listed] = {}
        self._changes: dict[ListKind, int] = {}
        self._stale: set[ListKind] = set()

    def __len__(self) -> int:
        return len(self._lists)

    def listed(self, scope: Hashable, kind: Kind) -> Listed | None:
        """The list as last fetched, fresh or not."""
        return self._lists.get((scope, kind))

    def count(self, kind: Kind) -> int:
        """How many items the longest list of this kind has, as far as any was fetched."""
        return max((len(one.items.items) for (_, of), one in self._lists.items() if of == kind), default=0)

    def names(self, kind: Kind) -> set[str]:
        """What all lists of this kind name."""
        return {name for (_, of), one in self._lists.items() if of == kind for name, _ in one.items.items}

    def stale(self, told: ListKind) -> bool:
        """The server says that this has changed: whoever asks next fetches it again. False where nothing is kept that
        was not known as stale."""
        self._changes[told] = self._changes.get(told, 0) + 1  # what is being fetched may have been read before that
        if told in self._stale:
            return False
        self._stale.add(told)
        for (_, kind), listed in self._lists.items():
            if TOLD_BY[kind] == told:
                listed.fresh_until = listed.expires_at = 0.0
        return True

    def forget(self, scope: Hashable) -> None:
        """Nobody will ask for this scope's any more."""
        for key in [key for key in self._lists if key[0] == scope]:
            del self._lists[key]

    async def close(self) -> None:
        tasks = list(self._listing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def fetch(self, scope: Hashable, kind: Kind, *, recheck: bool = False) -> Items:
        """The server's items, from memory while fresh; fetched once for many callers.

        Args:
            recheck: Ask again even when fresh, at most every `RECHECK_S`.
        Raises:
            UpstreamUnavailable, UpstreamTimeout: It has none, and none can be had within the list deadline.
        """
        server = self._server
        listed = self._lists.get((scope, kind))
        now = server.clock()
        if listed is not None and (now < listed.fresh_until and not (recheck and now - listed.fetched_at > RECHECK_S)):
            return listed.items
        key = (scope, kind)
        task = self._listing.get(key)
        if task is None:
            task = self._listing[key] = asyncio.ensure_future(self._fetch(scope, kind))
            task.add_done_callback(lambda done: self._fetched(key, done))
        try:
            async with asyncio.timeout(server.spec.list_timeout_s):
                return await server.outcome(task)
        except TimeoutError:
            raise UpstreamTimeout(f"server {server.spec.name} did not answer in time") from None

    def _fetched(self, key: tuple[Hashable, Kind], task: asyncio.Task[Items]) -> None:
        self._listing.pop(key, None)
        if not task.cancelled():
            task.exception()

    async def _fetch(self, scope: Hashable, kind: Kind) -> Items:
        told, before = TOLD_BY[kind], self._lists.get((scope, kind))
        if before is not None and (early_s := before.fetched_at + CHANGES_S - self._server.clock()) > 0:
            await asyncio.sleep(early_s)
        changes = self._changes.get(told, 0)
        items, ttl_s = await self._walk(scope, kind)
        now = self._server.clock()
        before = self._lists.get((scope, kind))
        if before is not None and before.items == items:
            items = before.items
        listed = Listed(items, now, now + max(ttl_s, RECHECK_S), now + ttl_s)
        if changes != self._changes.get(told, 0):
            listed.fresh_until = listed.expires_at = 0.0
        else:
            self._stale.discard(told)
        self._lists[scope, kind] = listed
        if before is None or before.items is not items:
            self._on_change()
        return items

    async def _walk(self, scope: Hashable, kind: Kind) -> tuple[Items, float]:
        """The whole list; over another channel when it turns out that the one there is of no more use."""
        server = self._server
        channel = server.ready(scope)
        if channel is not None:
            server.check_breaker()
        else:
            channel = await server.connect(scope)
        try:
            return await self._walk_in_time(scope, channel, kind)
        except SessionLost:
            server.breaker.success(server.clock())  # it answered
        except UpstreamUnavailable as error:
            if not (isinstance(error, _Odd) or is_refusal(error)) or not await server.is_outdated(scope, channel):
                raise
        return await self._walk_in_time(scope, await server.connect(scope), kind)

    async def _walk_in_time(self, scope: Hashable, channel: Channel, kind: Kind) -> tuple[Items, float]:
        """`_walk_pages` with a deadline of its own: whoever waits may go, but an answer may never come."""
        server = self._server
        try:
            async with asyncio.timeout(server.spec.list_timeout_s):
                return await self._walk_pages(channel, kind, server.behalf(scope).capabilities)
        except TimeoutError:
            raise server.failed(UpstreamTimeout(f"server {server.spec.name} did not answer in time")) from None

    async def _walk_pages(self, channel: Channel, kind: Kind, capabilities: Mapping[str, Any]) -> tuple[Items, float]:
        """All pages of a list, within bounds, and for how long (seconds) they are fresh."""
        server, spec = self._server, self._server.spec
        empty = Items(spec.name, ())
        if kind == "skills":
            capabilities = {**capabilities, **_SKILLS}
        if not (has_skills(channel.dialect) if kind == "skills" else TOLD_BY[kind] in channel.dialect.capabilities):
            server.breaker.forget(server.clock())  # nothing is asked, so nothing is learnt: another may be the probe
            return empty, spec.list_ttl_s
        raws: list[Raw] = []
        size = 0
        params: RawMap = {}
        hints: list[Hints] = []
        for _ in range(MOST_PAGES):
            message = await server.request(channel, METHOD[kind], params, capabilities)
            if message.error:
                code = error_code(message.error)
                if code == -32601:
                    return empty, spec.list_ttl_s
                said = repr(bytes(message.error)[:300])
                error = _Odd if is_strange(channel.dialect.era, code) else UpstreamUnavailable
                raise error(f"server {spec.name} cannot list its {kind}", detail=said)
            size += len(bytes(message.result))
            if size > spec.max_answer:
                raise UpstreamUnavailable(f"server {spec.name} has too long a list of {kind}")
            page, cursor, said_of_it = _read_page(spec.name, kind, message.result)
            raws += page
            hints.append(said_of_it)
            if cursor is None or len(raws) >= MOST_ITEMS:
                break
            params = {"cursor": cursor}
        kept = strictest(hints)
        most = MOST_TEMPLATES if kind == "templates" else MOST_ITEMS
        items, left_out = read_items(kind, spec.name, raws, most, public=kept.public)
        if left_out:
            _log.warning("server %s: %d of its %s are left out: no usable name, named twice, or too many",
                         spec.name, left_out, kind)  # fmt: skip
        return items, min(spec.list_ttl_s, kept.ttl_s)


def _read_page(server: str, kind: Kind, result: Raw) -> tuple[list[Raw], Raw | None, Hints]:
    """Items, the next cursor, and what the page says of its keeping."""
    try:
        members = decode_map(result)
        page = msgspec.json.decode(members.get(MEMBER[kind], b"[]"), type=list[Raw])
        cursor = members.get("nextCursor")
        if cursor is not None and bytes(cursor) in (b"null", b'""'):
            cursor = None
    except BAD_JSON as error:
        raise UpstreamUnavailable(f"server {server} gave a malformed list", detail=str(error)) from None
    return page, cursor, read_hints(members)
