"""Merged lists: the same for the same input, what is listed is found, what is excluded is found by no way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.route.index import (
    KEY,
    SLICE,
    Index,
    Items,
    Missing,
    merge,
    read_items,
)
from narthex.flow.route.names import canonical
from narthex.flow.route.patterns import Selector
from narthex.types import EndpointSpec, Kind, Selection

KINDS: list[Kind] = ["tools", "prompts", "resources", "templates", "skills"]
Lists = Mapping[str, Sequence[str]]


def endpoint(
    naming: Literal["prefix", "none"] = "prefix",
    uris: Literal["plain", "prefix"] = "plain",
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> EndpointSpec:
    """One selection for all kinds."""
    select = Selection(include, exclude)
    return EndpointSpec(
        "default", (), naming=naming, tools=select, prompts=select, resources=select, resource_uris=uris
    )


def raw(item: Any) -> Raw:
    return Raw(json.dumps(item).encode())


def merged(spec: EndpointSpec, kind: Kind, lists: Lists, missing: Sequence[Missing] = ()) -> Index:
    items = {server: [raw({KEY[kind]: name}) for name in names] for server, names in lists.items()}
    return run(spec, kind, [read_items(kind, server, found, 1000)[0] for server, found in items.items()], missing)


def run(spec: EndpointSpec, kind: Kind, items: Sequence[Items], missing: Sequence[Missing] = ()) -> Index:
    merging = merge(spec, kind, items, missing)
    while True:
        try:
            next(merging)
        except StopIteration as done:
            index: Index = done.value
            return index


def listed(index: Index) -> list[Any]:
    return [json.loads(bytes(one)) for one in index.fragments.items]


def shown(index: Index) -> list[str]:
    return [item[KEY[index.kind]] for item in listed(index)]


# --- reading one server's list ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "names", "left_out"),
    [
        pytest.param([], [], 0, id="an empty list"),
        pytest.param(['{"name":"a"}', '{"x":1,"name":"b"}'], ["a", "b"], 0, id="in the server's order"),
        pytest.param(['{"name":"b"}', '{"name":"a"}'], ["b", "a"], 0, id="not sorted"),
        pytest.param(['{"title":"a"}'], [], 1, id="no name"),
        pytest.param(['{"name":""}'], [], 1, id="an empty name"),
        pytest.param(['{"name":1}', '{"name":null}', '{"name":["a"]}'], [], 3, id="a name that is no string"),
        pytest.param(["null", '"a"', "[]", "1"], [], 4, id="no object"),
        pytest.param(['{"name":"a","x":1}', '{"name":"a","x":2}'], ["a"], 1, id="the first of two with one name"),
        pytest.param(['{"name":"a"}', '{"name":"\\u0061"}'], ["a"], 1, id="one name, written twice"),
        pytest.param(['{"name":"' + "a" * 4096 + '"}'], ["a" * 4096], 0, id="4,096 characters"),
        pytest.param(['{"name":"' + "a" * 4097 + '"}'], [], 1, id="a name too long"),
    ],
)
def test_read_items(items: list[str], names: list[str], left_out: int) -> None:
    found, out = read_items("tools", "s", [Raw(item.encode()) for item in items], 10)
    assert ([name for name, _ in found.items], out) == (names, left_out)


def test_at_most_so_many_items_are_taken() -> None:
    found, left_out = read_items("tools", "s", [raw({"name": str(number)}) for number in range(9)], 4)
    assert ([name for name, _ in found.items], left_out) == (["0", "1", "2", "3"], 5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_named_by_its_own_member(kind: Kind) -> None:
    item = {"name": "n", "uri": "u:1", "uriTemplate": "u:{x}", "title": "t"}
    found, _ = read_items(kind, "s", [raw(item)], 10)
    assert [name for name, _ in found.items] == [item[KEY[kind]]]


# --- merging ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "kind", "lists", "expected", "hidden"),
    [
        pytest.param(
            endpoint(), "tools", {"b": ["y", "x"], "a": ["x"]}, ["b__y", "b__x", "a__x"], (), id="prefixed, in order"
        ),
        pytest.param(endpoint("none"), "tools", {"b": ["y"], "a": ["x"]}, ["y", "x"], (), id="names as they are"),
        pytest.param(
            endpoint("none"),
            "tools",
            {"b": ["x"], "a": ["x", "y"]},
            ["x", "y"],
            (("a", "x"),),
            id="a clash: the later is hidden",
        ),
        pytest.param(
            endpoint("none"),
            "tools",
            {"a": ["b.c", "b c"]},
            ["b_c_57a76311", "b_c_91b6d95b"],
            (),
            id="illegal names stay apart",
        ),
        pytest.param(endpoint(), "prompts", {"a": ["x"]}, ["a__x"], (), id="prompts like tools"),
        pytest.param(
            endpoint(),
            "resources",
            {"a": ["f:1"], "b": ["f:1"]},
            ["f:1"],
            (("b", "f:1"),),
            id="URIs stay, a clash is hidden",
        ),
        pytest.param(endpoint("none"), "resources", {"a": ["f:1"]}, ["f:1"], (), id="whatever names do"),
        pytest.param(
            endpoint(uris="prefix"),
            "resources",
            {"a": ["f:1"], "b": ["f:1"]},
            ["narthex+a+f:1", "narthex+b+f:1"],
            (),
            id="prefixed URIs never clash",
        ),
        pytest.param(endpoint(), "templates", {"a": ["f:{x}"]}, ["f:{x}"], (), id="templates stay"),
        pytest.param(
            endpoint(uris="prefix"), "templates", {"a": ["f:{x}"]}, ["narthex+a+f:{x}"], (), id="prefixed templates"
        ),
        pytest.param(
            endpoint(include=("a__*",)), "tools", {"a": ["x"], "b": ["x"]}, ["a__x"], (), id="only what is included"
        ),
        pytest.param(
            endpoint(exclude=("*__d*",)), "tools", {"a": ["del", "x"]}, ["a__x"], (), id="not what is excluded"
        ),
        pytest.param(
            endpoint("none", include=("a__*",), exclude=("a__x",)),
            "tools",
            {"a": ["x", "y"]},
            ["y"],
            (),
            id="exclude wins, on canonical names",
        ),
        pytest.param(
            endpoint("none", exclude=("a__x",)),
            "tools",
            {"a": ["x"], "b": ["x"]},
            ["x"],
            (),
            id="what is excluded clashes with nothing",
        ),
        pytest.param(
            endpoint(exclude=("a__f:*",)),
            "resources",
            {"a": ["f:1", "g:1"]},
            ["g:1"],
            (),
            id="URIs are excluded by canonical name",
        ),
        pytest.param(endpoint(), "tools", {}, [], (), id="no server, no tool"),
    ],
)
def test_merge(
    spec: EndpointSpec, kind: Kind, lists: Lists, expected: list[str], hidden: tuple[tuple[str, str], ...]
) -> None:
    index = merged(spec, kind, lists)
    assert shown(index) == expected
    assert list(index.targets) == expected
    assert index.hidden == hidden


def test_an_item_that_keeps_its_name_keeps_its_bytes() -> None:
    item = b'{ "description":"\\u00e4", "name" : "x","inputSchema":{"a":1.50,"a":2} }'
    items, _ = read_items("tools", "s", [Raw(item)], 10)
    assert [bytes(one) for one in run(endpoint("none"), "tools", [items]).fragments.items] == [item]


def test_a_renamed_item_keeps_all_else_in_its_order() -> None:
    item = b'{"description":"\\u00e4 \\/","name":"x","inputSchema":{ "a":1.50,"a":2 },"com.example/y":null}'
    items, _ = read_items("tools", "s", [Raw(item)], 10)
    assert run(endpoint(), "tools", [items]).fragments.items == (item.replace(b'"x"', b'"s__x"'),)


A = Items("a", (("x", raw({"name": "x"})),), True)


@pytest.mark.parametrize(
    ("spec", "lists", "missing", "expected"),
    [
        pytest.param(endpoint(), [A], [], True, id="the server says so"),
        pytest.param(endpoint(), [A, Items("b", (), True)], [], True, id="all of them do"),
        pytest.param(endpoint(), [A, Items("b", ())], [], False, id="one does not"),
        pytest.param(endpoint(), [A], [Missing("b", "gone")], False, id="one is missing"),
        pytest.param(endpoint(exclude=("a__x",)), [A], [], False, id="an item is excluded"),
        pytest.param(endpoint(include=("b__*",)), [A], [], False, id="an item is not included"),
        pytest.param(
            endpoint("none"), [A, Items("b", (("x", raw({"name": "x"})),), True)], [], False, id="an item lost a clash"
        ),
        pytest.param(endpoint(), [], [], False, id="nobody says so"),
    ],
)
def test_a_list_is_public_if_every_server_says_so_and_all_is_shown(
    spec: EndpointSpec, lists: list[Items], missing: list[Missing], expected: bool
) -> None:
    assert run(spec, "tools", lists, missing).public is expected


def test_items_are_public_when_their_pages_are() -> None:
    assert [read_items("tools", "s", [], 1, public=public)[0].public for public in (False, True)] == [False, True]


@given(servers=st.lists(st.text("abc.", min_size=1, max_size=3), unique=True, min_size=1, max_size=6))
def test_the_fragments_stand_as_the_targets_do(servers: list[str]) -> None:
    index = merged(endpoint(), "tools", {"z": servers, "a": servers})
    assert [json.loads(bytes(one))["name"] for one in index.fragments.items] == list(index.targets)


def test_large_items_bring_the_next_pause_nearer() -> None:
    items = Items("s", tuple((f"t{number}", raw({"name": f"t{number}", "x": "x" * 60_000})) for number in range(20)))
    assert sum(1 for _ in merge(endpoint(), "tools", [items], ())) >= 5


def test_a_long_list_pauses_again_and_again() -> None:
    items = Items("s", tuple((f"t{number}", raw({"name": f"t{number}"})) for number in range(20 * SLICE)))
    for spec in (endpoint(), endpoint(exclude=("*",))):
        assert sum(1 for _ in merge(spec, "tools", [items], ())) >= 19, "what is excluded takes its time too"


NAMES = st.lists(st.text("abx_.{}:/ é", min_size=1, max_size=6), max_size=6)
LISTS = st.dictionaries(st.sampled_from(["a", "b", "c-1"]), NAMES, max_size=3)
GLOBS = st.lists(st.sampled_from(["*", "a__*", "*__a*", "b__?", "*x", "c-1__ab", "*.*"]), max_size=2).map(tuple)
SPECS = st.builds(endpoint, st.sampled_from(["prefix", "none"]), st.sampled_from(["plain", "prefix"]), GLOBS, GLOBS)
EACH = st.sampled_from(KINDS)


@given(spec=SPECS, kind=EACH, lists=LISTS)
def test_the_same_input_gives_the_same_list(spec: EndpointSpec, kind: Kind, lists: Lists) -> None:
    one, other = merged(spec, kind, lists), merged(spec, kind, lists)
    assert one.fragments.digest() == other.fragments.digest()
    assert list(one.targets) == list(other.targets) and one.hidden == other.hidden
    for name, target in one.targets.items():
        same = other.targets[name]
        assert (target.server, target.name, target.params) == (same.server, same.name, same.params)


@given(spec=SPECS, kind=EACH, lists=LISTS)
def test_what_is_listed_is_found_and_leads_to_its_server(spec: EndpointSpec, kind: Kind, lists: Lists) -> None:
    index = merged(spec, kind, lists)
    names = shown(index)
    assert names == list(index.targets), "listed and callable are the same, in the same order"
    for target in index.targets.values():
        assert target.name in lists[target.server]
        assert json.loads(target.name_json) == target.name


@given(spec=SPECS, kind=EACH, lists=LISTS)
def test_every_item_is_listed_excluded_or_reported(spec: EndpointSpec, kind: Kind, lists: Lists) -> None:
    index = merged(spec, kind, lists)
    select = Selector(spec.tools.include, spec.tools.exclude)
    allowed = {(server, name) for server in lists for name in lists[server] if select.allows(canonical(server, name))}
    found = {(target.server, target.name) for target in index.targets.values()}
    assert found | set(index.hidden) == allowed
    assert not found & set(index.hidden)


# --- arguments that go into headers


def tool(name: str, annotation: Any = None, **more: Any) -> dict[str, Any]:
    property_: dict[str, Any] = {"type": "string"} | ({} if annotation is None else {"x-mcp-header": annotation})
    return {"name": name, "inputSchema": {"type": "object", "properties": {"region": property_}}, **more}


def tools(*items: dict[str, Any], stdio: frozenset[str] = frozenset()) -> Index:
    found = read_items("tools", "one", [raw(item) for item in items], 1000, public=True)[0]
    merging = merge(endpoint("none"), "tools", [found], (), stdio=stdio)
    while True:
        try:
            next(merging)
        except StopIteration as done:
            index: Index = done.value
            return index


def test_a_tool_carries_what_of_it_goes_into_headers() -> None:
    index = tools(tool("plain"), tool("spoken", "Region"), tool("told", description="has x-mcp-header in its text"))
    assert index.refused == () and index.public
    assert {name: [param.header for param in target.params] for name, target in index.targets.items()} == {
        "plain": [], "spoken": ["Mcp-Param-Region"], "told": [],
    }  # fmt: skip


def test_a_tool_whose_headers_cannot_be_sent_is_left_out_and_the_rest_stays() -> None:
    items = [tool("bad", "a b"), tool("good", "Region"), {"name": "bare", "x-mcp-header": 1}]
    over_http, over_stdio = tools(*items), tools(*items, stdio=frozenset({"one"}))
    assert list(over_http.targets) == ["good", "bare"]
    assert [(server, name) for server, name, _ in over_http.refused] == [("one", "bad")]
    assert not over_http.public, "it is not all that the server has"
    assert len(over_http.fragments.items) == 2
    assert over_stdio.refused == () and over_stdio.targets["bad"].params == ()
    assert [target.mirrored for target in over_stdio.targets.values()] == [False] * 3
    assert over_stdio.targets["good"].params == over_http.targets["good"].params


def test_a_tool_that_is_left_out_takes_nobodys_name() -> None:
    first = read_items("tools", "one", [raw(tool("same", ""))], 10)[0]
    second = read_items("tools", "two", [raw(tool("same"))], 10)[0]
    index = run(endpoint("none"), "tools", [first, second])
    assert index.targets["same"].server == "two"
    assert index.hidden == ()


def test_annotated_schemas_make_the_merge_pause_sooner() -> None:
    large = {
        "type": "object",
        "description": "d" * 25_000,
        "properties": {"a": {"type": "string", "x-mcp-header": "A"}},
    }
    items = [raw({"name": f"t{n}", "inputSchema": large}) for n in range(10)]
    pauses = sum(1 for _ in merge(endpoint(), "tools", [read_items("tools", "one", items, 100)[0]], ()))
    assert pauses >= 5, "two of them are what is done at a time"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(b'{"a":1,"b":2}', b'{ "b": 2, "a": 1 }', True, id="written otherwise"),
        pytest.param(b'{"a":1}', b'{"a":2}', False, id="another"),
        pytest.param(b'{"maximum":1e400}', b'{"maximum":1e400}', False, id="a number that no double holds"),
    ],
)
def test_what_two_tools_give_is_compared_whatever_servers_say(one: bytes, other: bytes, same: bool) -> None:
    tools = [Raw(b'{"name":"%b","outputSchema":%b}' % (name, said)) for name, said in ((b"x", one), (b"y", other))]
    index = run(endpoint(), "tools", [read_items("tools", "s", tools, 10)[0]])
    assert index.has_same_output("s__x", "s__y") is same
