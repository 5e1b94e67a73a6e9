"""The cache as a whole: what ends what, what is told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from narthex.flow.cache.cache import Cache, Counts
from narthex.flow.cache.plans import Plan
from narthex.flow.cache.requests import Wanted
from narthex.flow.cache.results import Result, result_of
from narthex.flow.codec.jsonrpc import decode_incoming
from narthex.types import CacheRule, CacheSpec, Kind

RULE = CacheRule("r", 60.0, tools=("*",), most=1000)


def wanted(name: str = "get", kind: Kind = "tools", tenant: str = "t", *, shared: bool = False) -> Wanted:
    plan = Plan(kind, "one", name, RULE, b"", (), (), shared=shared)
    return Wanted(plan, (kind, name, tenant), {"arguments": Raw(b"{}")}, tenant, "default")


def result(**more: Any) -> Result:
    message = {"jsonrpc": "2.0", "id": 1, "result": {"content": [], **more}}
    found = result_of("tools/call", "legacy", decode_incoming(json.dumps(message).encode()))
    assert found is not None
    return found


def keep(cache: Cache, one: Wanted, **more: Any) -> bool:
    """Have it answered, and kept if it may be."""
    flight = cache.begin(one)
    kept = cache.keep(one, flight, result(**more), 0.0, None)
    assert kept is not None
    cache.flights.land(flight, kept)
    return has(cache, one)


def has(cache: Cache, one: Wanted) -> bool:
    return cache.shelves.get(one.key, 1.0) is not None


@pytest.fixture
def cache() -> Cache:
    return Cache(CacheSpec((RULE,)), Counts())


def test_a_changed_list_ends_what_its_kind_said(cache: Cache) -> None:
    tool, prompt = wanted(), wanted(kind="prompts")
    assert keep(cache, tool) and keep(cache, prompt)
    cache.list_changed("two", "tools")
    assert has(cache, tool)
    cache.list_changed("one", "tools")
    assert not has(cache, tool) and has(cache, prompt)


@pytest.mark.parametrize(
    ("changed", "ended"),
    [
        pytest.param("file:///a/b", True, id="itself"),
        pytest.param("file:///a/b/c", True, id="what lies in it"),
        pytest.param("file:///a", False, id="what it lies in"),
        pytest.param("file:///a/bc", False, id="one whose name begins alike"),
        pytest.param("other:///a/b", False, id="another"),
        pytest.param("other:///" + "x/" * 64, True, id="one so deep that nobody goes through it"),
    ],
)
def test_a_changed_resource(cache: Cache, changed: str, ended: bool) -> None:
    one = wanted("file:///a/b", "resources")
    assert keep(cache, one)
    cache.updated("one", changed)
    assert has(cache, one) is not ended


def test_what_is_too_large_is_given_to_who_waits_and_not_kept(cache: Cache) -> None:
    assert not keep(cache, wanted(), x="x" * 1000)
    assert len(cache.lots) == 0


def test_what_is_private_is_not_kept_where_it_would_be_shared(cache: Cache) -> None:
    one = wanted(shared=True)
    flight = cache.begin(one)
    assert cache.keep(one, flight, result(cacheScope="private"), 0.0, None) is None


def test_what_was_ended_by_hand_is_not_kept_when_it_comes(cache: Cache) -> None:
    one, other = wanted(), wanted("other")
    flight, stays = cache.begin(one), cache.begin(other)
    assert cache.clear("one__get") == 0
    assert cache.flights.get(one.key) is None and cache.flights.get(other.key) is stays
    assert cache.keep(one, flight, result(), 0.0, None) is not None
    assert not has(cache, one)


def test_of_one_tenant_nothing_is_told_of_others(cache: Cache) -> None:
    assert keep(cache, wanted()) and keep(cache, wanted(tenant="u"))
    cache.counts.hits = 3
    told = cache.report(10.0, "t")
    assert (told.entries, told.asked, [row.tenant for row in told.rows]) == (1, {}, ["t"])
    whole = cache.report(10.0)
    assert (whole.entries, whole.asked["hits"], whole.rows[0].oldest) == (2, 3, 10.0)
    assert cache.clear("*", "u") == 1 and len(cache.shelves) == 1
