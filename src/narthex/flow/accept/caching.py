"""What the cache does for one call: look, wait for an equal one, give what is kept, keep what its server answers.

In: an exchange whose target the cache has a plan for, as its walk and its server go on. Out: an answer from memory, in
the asker's era and under its id; or an answer kept for the next, where nothing was said on the way that only this
caller may hear. However the exchange ends, those who wait for it go on, and what it may have changed is given no more.
Cases: `tests/flow/accept/test_caching.py`, `tests/e2e/test_cache.py`; the rules: `flow/cache/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from narthex.errors import GatewayError, RateLimited
from narthex.flow.accept.lasting import lasting_of
from narthex.flow.accept.needs import turn_to
from narthex.flow.cache.cache import Cache, Counts
from narthex.flow.cache.flights import ALONE, GAVE_UP, Alone, Flight, GaveUp, Landed
from narthex.flow.cache.plans import Plan
from narthex.flow.cache.recall import Found
from narthex.flow.cache.requests import MOST_ARGUMENTS, PASSES, Wanted, wanted
from narthex.flow.cache.results import age_of, result_of
from narthex.flow.cache.shelves import Kept
from narthex.flow.codec.jsonrpc import BAD_JSON, Incoming, RawMap
from narthex.flow.policy.engines.obligations import value_of
from narthex.flow.route.target import Target
from narthex.types import Call, Era, Snapshot

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange
    from narthex.flow.accept.front import Front

_ALTERS: Final = frozenset({"redact", "max_results", "rewrite"})
"""Obligations by which a call or its answer is this caller's own."""


def cache_of(before: Cache | None, old: Snapshot, new: Snapshot) -> Cache | None:
    """The cache by a new configuration: the same while its rules are, without what servers said that are others now."""
    if new.cache is None:
        return None
    if before is None or before.spec != new.cache:
        before = Cache(new.cache, before.counts if before is not None else Counts())
    before.servers_changed(old.servers, new.servers)
    before.passes = PASSES | {new.runs.run_id} if new.runs is not None else PASSES
    return before


def cache_gauges(register: Callable[..., None], front: Front) -> None:
    """What the metrics tell of it."""

    def count(what: str) -> int:
        return getattr(front.cache.counts, what) if front.cache is not None else 0

    for what, words in (
        ("hits", "answered from memory"), ("stale", "answered from memory with what was stale"),
        ("joined", "answered with what an equal one got"), ("misses", "that a rule would keep and that were not kept"),
    ):  # fmt: skip
        register(f"narthex_cache_{what}_total", f"Calls {words}.", partial(count, what), "counter")
    register("narthex_cache_entries", "Answers that are kept.",
             lambda: len(front.cache.shelves) if front.cache is not None else 0)  # fmt: skip
    register("narthex_cache_bytes", "Bytes that they take.",
             lambda: front.cache.shelves.bytes if front.cache is not None else 0)  # fmt: skip


class Caching:
    """One exchange's. `word` says for the record what the cache did (`hit`, `stale`, `joined`, `miss`, `renewal`;
    empty: nothing), `age_s` how old what it gave was."""

    __slots__ = (
        "_cache", "_flight", "_joined", "_most_s", "_one", "_params", "_plan", "_renews", "_target", "_told", "_wanted",
        "age_s", "word",
    )  # fmt: skip

    def __init__(self, one: Exchange, cache: Cache) -> None:
        self._one = one
        self._cache = cache
        self._plan: Plan | None = None
        self._target: Target | None = None
        self._params: RawMap = {}
        self._wanted: Wanted | None = None
        self._flight: Flight | None = None  # this one goes, for all who wait
        self._joined: Flight | None = None
        self._most_s: float | None = None
        self._renews = self._told = False
        self.word = ""
        self.age_s = 0.0

    # --- Recalling: what the walk asks

    def look(self, call: Call, target: Target, params: RawMap, *, plain: bool) -> tuple[Found, RawMap]:
        one, plan = self._one, target.caching
        assert plan is not None
        self._plan, self._target, self._params = plan, target, params
        if not plain or plan.rule is None or self._is_its_own():
            return "none", params
        cache, scope = self._cache, one.viewer.scopes[target.server]
        found = wanted(plan, call, params, scope, cache.audiences, cache.passes)
        if found is None:
            return "none", params
        self._wanted, self._params = found, found.params
        return self._place(found), found.params

    def _is_its_own(self) -> bool:
        """Have rules, or people, let this call through in a way that is for it alone? Also notes for how long a policy
        lets an answer be kept."""
        one, check = self._one, self._one.check
        if one.only_server or one.approved is not None:
            return True
        decision = check.decision if check is not None else None
        if decision is None:
            return False
        if decision.obligations:
            if any(duty.kind in _ALTERS for duty in decision.obligations):
                return True
            self._most_s = value_of(decision.obligations, "cache_ttl_s")
        return decision.effect != "allow" or self._most_s == 0

    def _place(self, wanted: Wanted) -> Found:
        """Kept, to be joined, or gone to the server from here, for those who come meanwhile."""
        cache, now = self._cache, self._one.front.clock()
        kept = cache.shelves.get(wanted.key, now)
        if kept is not None and (self._most_s is None or now - kept.at < self._most_s):
            self._found(kept, now)
            return kept
        flight = cache.flights.get(wanted.key)
        if flight is not None:
            self._joined = flight
            return "joined"
        self._flight = cache.begin(wanted)
        cache.counts.misses += 1
        self.word = "miss"
        return "none"

    def _found(self, kept: Kept, now: float) -> None:
        self.age_s = age_of(kept.at, now)
        if now < kept.fresh_until:
            self.word = "hit"
        else:
            self.word = "stale"
            self._renews = self._cache.flights.get(kept.key) is None
        self._costs()

    def _costs(self) -> None:
        """An answer from memory has a price of its own; the one that makes the gateway ask anew pays for that."""
        rule = self._plan.rule if self._plan is not None else None
        if self._one.metered is not None and rule is not None and not self._renews:
            self._one.metered.share = rule.hit

    def leave(self) -> None:
        self._land(GAVE_UP)
        self._wanted, self.word, self.age_s, self._renews = None, "", 0.0, False
        if self._one.metered is not None:
            self._one.metered.share = 100  # what goes to a server has its whole price

    def goes(self, target: Target, params: RawMap) -> None:
        self._plan, self._target, self._params = target.caching, target, params

    def counts(self, kept: Kept) -> bool:
        rule = self._plan.rule if self._plan is not None else None
        return rule is None or rule.counts or self._renews

    async def wait(self) -> Kept | None:
        one, target = self._one, self._target
        assert target is not None and self._wanted is not None
        one.deadline = one.began_at + turn_to(one, target.server).spec.call_timeout_s
        while (flight := self._joined) is not None:
            found = await _landed(flight)
            self._joined = None
            if isinstance(found, Kept):
                self.word = "joined"
                self._costs()
                return found
            if isinstance(found, Alone):
                break
            assert isinstance(found, GaveUp)
            placed = self._place(self._wanted)
            if isinstance(placed, Kept):
                return placed
            if placed == "none":
                return None
        self._cache.counts.misses += 1
        self.word = "miss"
        return None

    def give(self, kept: Kept) -> None:
        one, target = self._one, self._target
        assert target is not None
        turn_to(one, target.server)
        one.target_name, one.definition = target.name, target.definition
        counts = self._cache.counts
        if self.word == "joined":
            counts.joined += 1
        elif self.word == "stale":
            counts.stale += 1
        else:
            counts.hits += 1
        one.respond(kept.result.parts(one.call.id_json, one.call.era, self.age_s))
        if self._renews:
            asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        """Ask the server anew for what was given stale, beside the call that was answered with it."""
        from narthex.flow.accept.exchange import Exchange

        one, target, wanted, front = self._one, self._target, self._wanted, self._one.front
        assert target is not None and wanted is not None
        server = front.fleet.servers.get(target.server)
        if server is None or front.is_crowded or self._cache.flights.get(wanted.key) is not None:
            return
        now = front.clock()
        call = one.call.but(params=wanted.params)
        fresh = Exchange(front, None, call, one.viewer, 0, False, now, now + server.spec.call_timeout_s)
        try:
            fresh.lasting = lasting_of(fresh, target)
        except GatewayError:
            return
        fresh.source = one.source
        fresh.caching = again = Caching(fresh, self._cache)
        again._plan, again._target, again._params, again._wanted = self._plan, target, wanted.params, wanted
        again._flight, again._most_s, again.word = self._cache.begin(wanted), self._most_s, "renewal"
        front.calls.active.add(fresh)
        fresh.renew(target)

    # --- what its server says

    @property
    def leads(self) -> bool:
        """Is its answer to be kept, and so to be seen whole? Then nobody's slow reading may hold it up."""
        return self._flight is not None

    def heard(self, message: Incoming) -> None:
        """The server says something on the way to its answer: who gets that from memory would not hear it. How far it
        is is nothing to miss."""
        if message.method != "notifications/progress":
            self.spoil()

    def spoil(self) -> None:
        """The answer will be this caller's own: who waits for it goes itself."""
        self._land(ALONE)

    def begins_to_answer(self) -> None:
        """Its answer is handed on as it arrives."""
        self._change()

    def answered(self, message: Incoming, era: Era) -> None:
        """The server, of this era, has answered; the client is told next."""
        self._change()
        flight, wanted = self._flight, self._wanted
        if flight is None or wanted is None:
            return
        result = result_of(self._one.call.method, era, message)
        kept = None
        if result is not None:
            kept = self._cache.keep(wanted, flight, result, self._one.front.clock(), self._most_s)
        self._land(kept or ALONE)

    def settled(self, error: GatewayError | None) -> None:
        """The call is over, or about to be answered with an error. May be said several times."""
        if self._one.out is not None:
            self._change()
        if self._flight is not None:
            self._land(GAVE_UP if error is None or isinstance(error, RateLimited) else ALONE)

    def _land(self, landed: Landed) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            self._cache.flights.land(flight, landed)

    def _change(self) -> None:
        """What was sent may have changed what others were told."""
        plan = self._plan
        if plan is None or self._told or not plan.ends:
            return
        self._told = True
        arguments = _arguments(self._params)
        tenant = self._one.call.principal.tenant
        for clear in plan.ends:
            self._cache.end(clear.ended(tenant, arguments))


async def _landed(flight: Flight) -> Landed:
    """What comes of it. Whoever gives up waiting is told nothing."""
    waited: asyncio.Future[Landed] = asyncio.get_running_loop().create_future()

    def tell(landed: Landed) -> None:
        if not waited.done():
            waited.set_result(landed)

    flight.waiting.append(tell)
    try:
        return await waited
    finally:
        if tell in flight.waiting:
            flight.waiting.remove(tell)


def _arguments(params: RawMap) -> Any:
    """Decoded; None where they cannot be read, which ends all that they might have meant."""
    raw = params.get("arguments")
    if raw is None or len(raw) > MOST_ARGUMENTS:
        return None
    try:
        return msgspec.json.decode(raw)
    except BAD_JSON:
        return None
