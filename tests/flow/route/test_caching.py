"""What upstreams say of the keeping of their lists, and what we say of ours."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.codec.jsonrpc import decode_map
from narthex.flow.codec.offers import SERVER_INFO
from narthex.flow.codec.revisions import META_SERVER
from narthex.flow.route.caching import Hints, list_head, ms_left, read_hints, strictest
from narthex.flow.route.index import Missing
from narthex.types import Era


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        pytest.param("{}", Hints(math.inf, False), id="a legacy server says nothing"),
        pytest.param('{"ttlMs":1500,"cacheScope":"public"}', Hints(1.5, True), id="both"),
        pytest.param('{"ttlMs":0,"cacheScope":"private"}', Hints(0.0, False), id="neither keep nor share"),
        pytest.param('{"ttlMs":-5}', Hints(0.0, False), id="a negative time is none"),
        pytest.param('{"ttlMs":"60000"}', Hints(0.0, False), id="nor is what is no number"),
        pytest.param('{"ttlMs":null}', Hints(0.0, False), id="nor null"),
        pytest.param('{"ttlMs":1e999}', Hints(0.0, False), id="nor what no number holds"),
        pytest.param('{"cacheScope":"Public"}', Hints(math.inf, False), id="another word is not public"),
        pytest.param('{"cacheScope":true}', Hints(math.inf, False), id="nor is another type"),
        pytest.param('{"cacheScope": "public" }', Hints(math.inf, True), id="white space is nothing"),
    ],
)
def test_read_hints(page: str, expected: Hints) -> None:
    assert read_hints(decode_map(page.encode())) == expected


@given(st.lists(st.builds(Hints, st.floats(0, 1e6) | st.just(math.inf), st.booleans())))
def test_the_strictest_holds_for_all(hints: list[Hints]) -> None:
    found = strictest(hints)
    assert all(found.ttl_s <= one.ttl_s for one in hints)
    assert found.public == (bool(hints) and all(one.public for one in hints))
    assert found.ttl_s in [*(one.ttl_s for one in hints), math.inf]


@pytest.mark.parametrize(
    ("until", "now", "expected"),
    [
        pytest.param(10.0, 9.5, 500, id="what is left"),
        pytest.param(10.0, 9.0004, 999, id="rounded down"),
        pytest.param(10.0, 10.0, 0, id="nothing"),
        pytest.param(10.0, 11.0, 0, id="never less"),
        pytest.param(100.0, 0.0, 10_000, id="never more than ours"),
        pytest.param(math.inf, 0.0, 10_000, id="also of what never ends"),
    ],
)
def test_ms_left(until: float, now: float, expected: int) -> None:
    assert ms_left(until, now, 10_000) == expected


MISSING = (Missing("b", 'does not "answer"'),)
META = {"narthex/missing": [{"server": "b", "reason": 'does not "answer"'}]}
US = {META_SERVER: SERVER_INFO}
MODERN = {"resultType": "complete", "ttlMs": 7, "cacheScope": "private", "_meta": US}


@pytest.mark.parametrize(
    ("era", "said", "expected"),
    [
        pytest.param("legacy", {}, {}, id="legacy: nothing but the items"),
        pytest.param("legacy", {"public": True}, {}, id="legacy: knows no scope"),
        pytest.param("legacy", {"cursor": "c"}, {"nextCursor": "c"}, id="legacy: a cursor"),
        pytest.param("legacy", {"missing": MISSING}, {"_meta": META}, id="legacy: who is missing"),
        pytest.param("modern", {}, MODERN, id="modern: private"),
        pytest.param("modern", {"public": True}, {**MODERN, "cacheScope": "public"}, id="modern: public"),
        pytest.param(
            "modern",
            {"cursor": "c", "missing": MISSING},
            {**MODERN, "_meta": {**US, **META}, "nextCursor": "c"},
            id="modern: all of it",
        ),
    ],
)
def test_list_head(era: Era, said: dict[str, Any], expected: dict[str, Any]) -> None:
    head = list_head(era, **{"ttl_ms": 7, "public": False, **said})
    assert json.loads(head + b'"tools":[]}') == {**expected, "tools": []}
