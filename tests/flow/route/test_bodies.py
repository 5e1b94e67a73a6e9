"""Pages as bytes: what a naive encoder would write, made once, bounded, and never another's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.codec.offers import SERVER_INFO
from narthex.flow.codec.revisions import META_SERVER
from narthex.flow.route.bodies import Bodies
from narthex.flow.route.caching import list_head
from narthex.flow.route.fragments import PAGE, PageBound
from narthex.flow.route.index import KEY, MEMBER, Index, Items, merge
from narthex.types import EndpointSpec, Era, Kind

PLAIN = EndpointSpec("default", (), naming="none")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
LISTED = st.dictionaries(st.text("abcd", min_size=1, max_size=3), JSON, max_size=8)
EACH: st.SearchStrategy[Kind] = st.sampled_from(["tools", "prompts", "resources", "templates"])


def index_of(items: dict[str, Any], kind: Kind = "tools", bound: PageBound = PAGE) -> Index:
    named = tuple((name, Raw(json.dumps({KEY[kind]: name, "x": x}).encode())) for name, x in items.items())
    steps = merge(PLAIN, kind, [Items("s", named)], (), bound)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            index: Index = done.value
            return index


@given(items=LISTED, kind=EACH, shown=st.none() | st.integers(0, 255), era=st.sampled_from(["legacy", "modern"]))
def test_a_result_is_what_a_naive_encoder_writes(
    items: dict[str, Any], kind: Kind, shown: int | None, era: Era
) -> None:
    body, last = Bodies().page("t", index_of(items, kind), shown)
    chosen = [
        {KEY[kind]: name, "x": x} for at, (name, x) in enumerate(items.items()) if shown is None or shown >> at & 1
    ]
    assert last is None
    assert body == f'"{MEMBER[kind]}":[{",".join(map(json.dumps, chosen))}]}}'.encode(), "byte for byte"
    expected: dict[str, Any] = {MEMBER[kind]: chosen}
    if era == "modern":
        hints = {"resultType": "complete", "ttlMs": 5, "cacheScope": "private", "_meta": {META_SERVER: SERVER_INFO}}
        expected = {**hints, **expected}
    assert json.loads(list_head(era, ttl_ms=5, public=False) + body) == expected


def test_a_page_is_made_once_for_all_who_are_shown_the_same() -> None:
    bodies = Bodies()
    one = bodies.page("t", index_of({"a": 1, "b": 2, "c": 3}), 0b101)
    assert bodies.page("t", index_of({"c": 3, "a": 1}, bound=PAGE), 0b11) != one, "in another order"
    assert bodies.page("t", index_of({"a": 1, "c": 3})) is one, "another list, of which all is shown"
    assert bodies.page("t", index_of({"b": 9, "a": 1, "c": 3}), 0b110) is one, "other bits, the same items"


@pytest.mark.parametrize(
    ("kind", "tenant", "bound", "after"),
    [
        pytest.param("prompts", "t", PageBound(2), None, id="another kind"),
        pytest.param("tools", "u", PageBound(2), None, id="another tenant"),
        pytest.param("tools", "t", PageBound(3), None, id="pages of more items"),
        pytest.param("tools", "t", PageBound(2, 99), None, id="pages of fewer bytes"),
        pytest.param("tools", "t", PageBound(2), b"a", id="another page"),
    ],
)
def test_what_makes_another_page_has_an_entry_of_its_own(
    kind: Kind, tenant: str, bound: PageBound, after: bytes | None
) -> None:
    bodies = Bodies()
    items = {"a": 1, "b": 2, "c": 3}
    bodies.page("t", index_of(items, bound=PageBound(2)))
    found = bodies.page(tenant, index_of(items, kind, bound), None, after)
    assert found == Bodies().page(tenant, index_of(items, kind, bound), None, after)
    assert len(bodies) == 2


def test_empty_lists_of_two_kinds_are_two() -> None:
    bodies = Bodies()
    assert bodies.page("t", index_of({}))[0] == b'"tools":[]}'
    assert bodies.page("t", index_of({}, "templates"))[0] == b'"resourceTemplates":[]}'


@given(
    asked=st.lists(st.integers(0, 5) | st.just(15), max_size=40),
    most=st.integers(1, 4),
    most_bytes=st.sampled_from([0, 600, 1500, 3000, 10_000]),
)
def test_memory_is_bounded_and_what_was_used_last_is_kept(asked: list[int], most: int, most_bytes: int) -> None:
    index = index_of({"a": "x" * 100, "b": "x" * 300, "c": "x" * 900, "d": "x" * 2000})
    bodies, naive = Bodies(most, most_bytes), Bodies()
    model: list[tuple[int, int]] = []  # shown and size, the one used last at the end
    made = {}
    for shown in asked:
        body = made[shown] = bodies.page("t", index, shown)
        assert body == naive.page("t", index, shown)
        entry = (shown, len(body[0]) + 512)
        model = [one for one in model if one[0] != shown]
        if entry[1] <= most_bytes:
            model.append(entry)
        while len(model) > most or sum(size for _, size in model) > most_bytes:
            model.pop(0)
        assert (len(bodies), bodies.size) == (len(model), sum(size for _, size in model))
    assert all(bodies.page("t", index, shown) is made[shown] for shown, _ in model), "all of these were kept"
