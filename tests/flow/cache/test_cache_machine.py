"""Reads and writes of several principals at one time, against a model of the server: nobody is given another's answer,
nobody who has written is given what was true before, and everybody who waits hears something."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Raw

from narthex.flow.cache.cache import Cache, Counts
from narthex.flow.cache.flights import ALONE, GAVE_UP, Flight, Landed
from narthex.flow.cache.plans import Plan, Plans
from narthex.flow.cache.requests import Wanted, wanted
from narthex.flow.cache.results import result_of
from narthex.flow.cache.shelves import OVERHEAD, Kept
from narthex.flow.codec.jsonrpc import decode_incoming
from narthex.types import CacheRule, CacheSpec, Call, ClearRule, HttpTarget, Principal, ServerSpec

WHO = tuple(Principal(tenant, "iss", name) for tenant, name in (("t", "ada"), ("t", "bob"), ("u", "eve")))
SPEC = CacheSpec(
    (CacheRule("r", 5.0, tools=("one__get",), stale_s=5.0),),
    (ClearRule(("one__put",), tools=("one__get",), same=(("/id", "/id"),)),),
    most_bytes=6 * OVERHEAD,
)
SERVERS = {"one": ServerSpec("one", HttpTarget("http://x/", "http", "x", 80, "/"), "auto")}
PRINCIPALS, IDS = st.sampled_from([0, 0, 1, 2]), st.sampled_from([0, 0, 1])


def plan(name: str) -> Plan:
    found = Plans(SPEC, SERVERS).of("tools", "default", "one", name, Raw(b"{}"))
    assert found is not None
    return found


GET, PUT = plan("get"), plan("put")


class Reading:
    """A read under way. `seen` is what the server has read, None before that; `since` the least that may be told."""

    def __init__(self, who: int, id_: int, one: Wanted, flight: Flight, since: int) -> None:
        self.who, self.id, self.wanted, self.flight, self.since = who, id_, one, flight, since
        self.seen: int | None = None


class CacheMachine(RuleBasedStateMachine):
    """Values count up with each write. Each principal reads its own (who, id, version)."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache(SPEC, Counts())
        self.now = 0.0
        self.versions: dict[tuple[str, int], int] = {}
        self.reading: list[Reading] = []
        self.waiting = 0

    def version(self, who: int, id_: int) -> int:
        return self.versions.get((WHO[who].tenant, id_), 0)

    def told(self, kept: Kept, who: int, id_: int, since: int) -> None:
        """What a principal is given is its own, of what it asked for, and no older than when it asked."""
        value = json.loads(b"".join(kept.result.parts(b"1", "legacy", 0.0)))["result"]["structuredContent"]
        assert (value["who"], value["id"]) == (who, id_)
        assert value["version"] >= since

    @rule(who=PRINCIPALS, id_=IDS, spaced=st.booleans(), at_once=st.sampled_from([True, True, False]))
    def read(self, who: int, id_: int, spaced: bool, at_once: bool) -> None:
        """`at_once`: the server reads what it will answer; its answer comes later in any case."""
        raw = json.dumps({"id": id_}, separators=(", ", " : ") if spaced else (",", ":")).encode()
        params = {"name": Raw(b'"get"'), "arguments": Raw(raw)}
        meta = {"io.modelcontextprotocol/clientCapabilities": Raw(b"{}")}
        call = Call("tools/call", params, meta, b"1", "modern", "2026-07-28", WHO[who], "default")
        one = wanted(GET, call, params, (WHO[who].tenant, "", *WHO[who].key[1:]), self.cache.audiences)
        assert one is not None
        since = self.version(who, id_)
        kept = self.cache.shelves.get(one.key, self.now)
        flight = self.cache.flights.get(one.key)
        if kept is not None:
            self.told(kept, who, id_, since)
        elif flight is not None:
            self.waiting += 1
            flight.waiting.append(lambda landed: self.landed(landed, who, id_, since))
        else:
            self.reading.append(Reading(who, id_, one, self.cache.begin(one), since))
            self.reading[-1].seen = since if at_once else None

    def landed(self, landed: Landed, who: int, id_: int, since: int) -> None:
        self.waiting -= 1
        if isinstance(landed, Kept):
            self.told(landed, who, id_, since)

    @precondition(lambda self: any(one.seen is None for one in self.reading))
    @rule()
    def look(self) -> None:
        one = next(one for one in self.reading if one.seen is None)
        one.seen = self.version(one.who, one.id)

    @precondition(lambda self: any(one.seen is not None for one in self.reading))
    @rule(last=st.booleans(), end=st.sampled_from(["answers", "answers", "answers", "fails", "is given up"]))
    def answer(self, last: bool, end: str) -> None:
        one = [one for one in self.reading if one.seen is not None][-last]
        self.reading.remove(one)
        landed: Landed = GAVE_UP if end == "is given up" else ALONE
        if end == "answers":
            content: Any = {"who": one.who, "id": one.id, "version": one.seen}
            message = {"jsonrpc": "2.0", "id": 1, "result": {"content": [], "structuredContent": content}}
            result = result_of("tools/call", "legacy", decode_incoming(json.dumps(message).encode()))
            assert result is not None
            landed = self.cache.keep(one.wanted, one.flight, result, self.now, None) or ALONE
        self.cache.flights.land(one.flight, landed)

    @rule(who=PRINCIPALS, id_=IDS)
    def write(self, who: int, id_: int) -> None:
        """It is done at the server, and told to its client."""
        tenant = WHO[who].tenant
        self.versions[tenant, id_] = self.version(who, id_) + 1
        for clear in PUT.ends:
            self.cache.end(clear.ended(tenant, {"id": id_}))

    @rule(seconds=st.floats(0, 4), what=st.sampled_from(["nothing", "nothing", "the list", "t", "u", None]))
    def changes(self, seconds: float, what: str | None) -> None:
        """Time passes; a list changes, or somebody clears the cache of a tenant, or of all."""
        self.now += seconds
        self.cache.shelves.sweep(self.now)
        if what == "the list":
            self.cache.list_changed("one", "tools")
        elif what != "nothing":
            self.cache.clear("one__*", what)

    @invariant()
    def who_waits_waits_for_somebody_who_went(self) -> None:
        assert self.waiting == sum(len(one.flight.waiting) for one in self.reading)

    def teardown(self) -> None:
        for one in self.reading:
            self.cache.flights.land(one.flight, ALONE)
        self.cache.clear()
        assert self.waiting == len(self.cache.flights) == len(self.cache.lots) == self.cache.shelves.bytes == 0


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
