"""The cache of a process: what is kept, who waits for whom, and what has been asked of it.

In: calls with their keys, answers of servers, word of what has changed; the time, in seconds of one clock. Out: an
answer from memory, or a call to wait for. Pure. Cases: `tests/flow/cache/test_cache.py`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Set
from typing import Final

import msgspec

from narthex.flow.cache.flights import Flight, Flights
from narthex.flow.cache.lots import Lots
from narthex.flow.cache.requests import PASSES, Audiences, Wanted
from narthex.flow.cache.results import Result, terms_of
from narthex.flow.cache.shelves import Kept, Marks, Shelves
from narthex.flow.route.names import canonical
from narthex.flow.route.patterns import compile_globs
from narthex.types import CacheSpec, Kind, ServerSpec

KINDS: Final[tuple[Kind, ...]] = ("tools", "prompts", "resources")
MOST_STEPS: Final = 64
"""Slashes in a URI that is looked at step by step: what that takes grows with their number times its length."""


class Counts:
    """What has been asked of the cache since the process began. `kept`: answers that were put into it."""

    __slots__ = ("hits", "joined", "kept", "misses", "stale")

    def __init__(self) -> None:
        self.hits = self.stale = self.joined = self.misses = self.kept = 0


class Row(msgspec.Struct):
    """What is kept of one thing, for people: nothing of what was asked or answered. Ages are seconds."""

    tenant: str
    endpoint: str
    name: str
    kind: str
    rule: str
    entries: int = 0
    bytes: int = 0
    hits: int = 0
    oldest: float = 0.0


class Report(msgspec.Struct):
    """The cache for people. `asked` is empty where it would tell of others."""

    entries: int
    bytes: int
    most_entries: int
    most_bytes: int
    asked: dict[str, int]
    rows: list[Row]


class Cache:
    """Lives while the configuration of the cache is the same."""

    def __init__(self, spec: CacheSpec, counts: Counts) -> None:
        self.spec: Final = spec
        self.counts: Final = counts
        self.audiences: Final = Audiences()
        self.passes: Set[str] = PASSES
        """Members of `_meta` that change no answer."""
        self.lots: Final = Lots()
        self.shelves: Final = Shelves(spec.most_bytes, spec.most_entries, spec.tenant_share, self.lots)
        self.flights: Final = Flights(self.lots)

    def begin(self, wanted: Wanted) -> Flight:
        """The caller goes to the server, for all who ask the same meanwhile."""
        return self.flights.begin(wanted.key, wanted.lots, wanted.tenant, _marks(wanted))

    def keep(self, wanted: Wanted, flight: Flight, result: Result, now: float, most_s: float | None) -> Kept | None:
        """Keep the answer of a call. It is given to those who wait in any case; kept only if nothing that it belongs
        to has ended since the call began.

        Args:
            most_s: For how long a policy lets it be kept; None: it says nothing of it.
        Returns:
            None: it may not be given again at all.
        """
        plan = wanted.plan
        rule = plan.rule
        assert rule is not None
        terms = terms_of(result, rule.ttl_s, rule.stale_s, now, most_s)
        if terms is None or (result.private and plan.shared):
            return None
        lots = self.lots.enter(lot.name for lot in flight.lots)
        kept = Kept(wanted.key, wanted.tenant, result, lots, now, terms.fresh_until, terms.ends_at, flight.marks)
        if result.size > rule.most or not flight.counts:
            self.lots.leave(lots)
        elif self.shelves.put(kept):
            self.counts.kept += 1
        return kept

    # --- what ends it

    def end(self, names: Iterable[Hashable]) -> None:
        """These have changed, or may have: what belongs to them is not given any more."""
        for name in names:
            self.lots.end(name)

    def list_changed(self, server: str, kind: str) -> None:
        """A server's list is another one, so what it lists may do something else."""
        self.lots.end((server, kind))

    def updated(self, server: str, uri: str) -> None:
        """A resource has changed, and with it what it lies in (MCP, `resources/updated`: "might be a sub-resource").

        Where it lies deeper than anything does, all resources of the server have.
        """
        if uri.count("/") > MOST_STEPS:
            self.list_changed(server, "resources")
            return
        self.lots.end((server, "resources", uri))
        at = uri.find("/")
        while at >= 0:
            self.lots.end((server, "resources", uri[:at]))
            self.lots.end((server, "resources", uri[: at + 1]))
            at = uri.find("/", at + 1)

    def servers_changed(self, before: Mapping[str, ServerSpec], now: Mapping[str, ServerSpec]) -> None:
        """A reload: what servers have said that are others now, or gone, is not theirs any more."""
        for name, spec in before.items():
            if now.get(name) != spec:
                self.end((name, kind) for kind in KINDS)

    # --- for people

    def clear(self, pattern: str = "*", tenant: str | None = None) -> int:
        """End by hand what a glob on canonical names covers, of one tenant or of all. How many were there?"""
        covers = compile_globs((pattern,))

        def fits(one: Kept | Flight) -> bool:
            return (tenant is None or one.tenant == tenant) and covers(one.marks[1])

        self.flights.forget(fits)
        return self.shelves.clear(fits)

    def rows(self, now: float, tenant: str | None = None) -> list[Row]:
        """What is kept, by what it is of; the most bytes first. `tenant`: of this one alone."""
        rows: dict[tuple[str, *Marks], Row] = {}
        for kept in self._of(tenant):
            row = rows.setdefault((kept.tenant, *kept.marks), Row(kept.tenant, *kept.marks))
            row.entries += 1
            row.bytes += kept.size
            row.hits += kept.hits
            row.oldest = max(row.oldest, now - kept.at)
        return sorted(rows.values(), key=lambda row: (-row.bytes, row.tenant, row.endpoint, row.name))

    def report(self, now: float, tenant: str | None = None) -> Report:
        """The same with what is known of the whole; to a tenant, of what is its own alone."""
        found = list(self._of(tenant))
        counts = self.counts if tenant is None else None
        asked = {} if counts is None else {name: getattr(counts, name) for name in Counts.__slots__}
        size = sum(kept.size for kept in found)
        return Report(len(found), size, self.spec.most_entries, self.spec.most_bytes, asked, self.rows(now, tenant))

    def _of(self, tenant: str | None) -> Iterator[Kept]:
        return (kept for kept in self.shelves if tenant is None or kept.tenant == tenant)


def _marks(wanted: Wanted) -> Marks:
    plan = wanted.plan
    return (
        wanted.endpoint,
        canonical(plan.server, plan.name),
        plan.kind,
        plan.rule.name if plan.rule is not None else "",
    )
