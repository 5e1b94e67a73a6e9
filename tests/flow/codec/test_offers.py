"""What clients are offered, for what the servers have said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.codec import offers as module
from narthex.flow.codec.offers import CUT, MOST_INSTRUCTIONS, instructions, offered
from narthex.flow.codec.revisions import METHODS
from narthex.flow.upstream.port import Dialect
from narthex.types import Era

TASKS = "io.modelcontextprotocol/tasks"
UI = "io.modelcontextprotocol/ui"
TOLD = {"listChanged": True}


def modern(capabilities: Any = None, text: str | None = None) -> Dialect:
    return Dialect("modern", "2026-07-28", capabilities or {}, instructions=text)


def legacy(capabilities: Any = None, version: str = "2025-11-25") -> Dialect:
    return Dialect("legacy", version, capabilities or {})


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(
    ("dialects", "expected"),
    [
        pytest.param([], {}, id="no servers, nothing"),
        pytest.param([modern({"tools": {}})], {"tools": TOLD}, id="what a server has"),
        pytest.param(
            [modern({"tools": {}}), legacy({"prompts": {}, "tools": {}})],
            {"tools": TOLD, "prompts": TOLD},
            id="all of it",
        ),
        pytest.param([legacy({"resources": {}})], {"resources": TOLD}, id="resources, with their templates"),
        pytest.param([legacy({"tools": None})], {"tools": TOLD}, id="what is asked for a list, is offered"),
        pytest.param(
            [None], {"tools": TOLD, "prompts": TOLD, "resources": TOLD, "completions": {}}, id="a server not there yet"
        ),
        pytest.param([legacy({"completions": {}})], {"completions": {}}, id="completions"),
        pytest.param(
            [legacy({"prompts": {}}, "2024-11-05")],
            {"prompts": TOLD, "completions": {}},
            id="2024-11-05 had no word for completions",
        ),
        pytest.param([legacy({"tools": {}}, "2024-11-05")], {"tools": TOLD}, id="and does not complete tools"),
        pytest.param([modern({"extensions": {UI: {"x": 1}}})], {"extensions": {UI: {}}}, id="an extension that passes"),
        pytest.param([modern({"extensions": {UI: True}})], {}, id="an extension is an object"),
        pytest.param([modern({"extensions": [UI]})], {}, id="extensions are an object"),
        pytest.param([modern({"extensions": {"com.example/x": {}}})], {}, id="unknown extensions are not carried"),
        pytest.param(
            [legacy({"extensions": {TASKS: {}}, "tasks": {"list": {}}})], {}, id="no tasks of shared sessions"
        ),
        pytest.param([modern({"experimental": {"x": {}}, "x": {}})], {}, id="nor what is not in the specification"),
    ],
)
def test_offered(era: Era, dialects: list[Dialect | None], expected: Any) -> None:
    assert offered(era, dialects) == expected


@pytest.mark.parametrize(
    ("era", "served", "expected"),
    [
        pytest.param("modern", False, {"logging": {}}, id="modern: by the request, so always"),
        pytest.param("legacy", True, {"logging": {}}, id="legacy: where the level can be set"),
        pytest.param("legacy", False, {}, id="legacy: clients set it as soon as they see it"),
    ],
)
def test_logging(monkeypatch: pytest.MonkeyPatch, era: Era, served: bool, expected: Any) -> None:
    methods = METHODS["legacy"] - {"logging/setLevel"} | ({"logging/setLevel"} if served else set())
    monkeypatch.setitem(METHODS, "legacy", methods)
    assert offered(era, [legacy(), legacy({"logging": {}})]) == expected


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(
    ("dialects", "expected"),
    [
        pytest.param([modern({"tools": {}, "prompts": {}})], {"tools": TOLD, "prompts": TOLD}, id="lists"),
        pytest.param([modern({"resources": {}})], {"resources": TOLD}, id="no server tells of resources"),
        pytest.param(
            [modern({"resources": {}}), legacy({"resources": {"subscribe": True}})],
            {"resources": {"subscribe": True, **TOLD}},
            id="one does",
        ),
        pytest.param([modern({"resources": {"subscribe": "yes"}})], {"resources": TOLD}, id="yes is not true"),
        pytest.param([modern({"completions": {}})], {"completions": {}}, id="nothing to tell of"),
    ],
)
def test_changes(monkeypatch: pytest.MonkeyPatch, era: Era, dialects: list[Dialect | None], expected: Any) -> None:
    monkeypatch.setattr(module, "SUBSCRIPTIONS", True)
    assert offered(era, dialects) == expected


@pytest.mark.parametrize(
    ("era", "expected"),
    [
        pytest.param("modern", {"extensions": {TASKS: {}}}, id="the extension"),
        pytest.param("legacy", {"tasks": {"list": {}, "requests": {"tools": {"call": {}}}}}, id="the old ones"),
    ],
)
def test_tasks(era: Era, expected: Any) -> None:
    old = legacy({"tasks": {"list": {}, "cancel": True, "requests": {"tools": {"call": {}}, "x": {}}}})
    assert offered(era, [modern({"extensions": {TASKS: {}}}), old], [old]) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
ERAS: tuple[Era, ...] = ("legacy", "modern")
NAMES = ("tools", "prompts", "resources", "completions", "logging", "extensions", "tasks", "x")


@given(capabilities=st.lists(st.dictionaries(st.sampled_from(NAMES), JSON)), on=st.booleans())
def test_whatever_servers_send_is_no_part_of_the_offer(capabilities: list[Any], on: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SUBSCRIPTIONS", on)
        servers = [modern(one) for one in capabilities]
        for era in ERAS:
            offer = offered(era, servers, servers)
            assert offer.keys() <= set(NAMES) - {"x"}
            assert all(isinstance(one, dict) for one in offer.values())


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        pytest.param([], None, id="no servers"),
        pytest.param([("a", modern()), ("b", None), ("c", modern(text=""))], None, id="nothing said"),
        pytest.param([("a", modern(text="# Use it"))], "# Use it", id="one server: as it is"),
        pytest.param([("a", modern(text="A")), ("b", modern())], "# a\n\nA", id="one of several: under its name"),
        pytest.param(
            [("a", modern(text="A")), ("b", modern(text="B"))], "# a\n\nA\n\n# b\n\nB", id="several, in their order"
        ),
    ],
)
def test_instructions(servers: list[tuple[str, Dialect | None]], expected: str | None) -> None:
    assert instructions(servers) == expected


@given(count=st.integers(1, 300), size=st.sampled_from([10, 5000, MOST_INSTRUCTIONS, MOST_INSTRUCTIONS + 1]))
def test_instructions_are_bounded_and_nobody_takes_anothers_share(count: int, size: int) -> None:
    text = instructions([(f"s{number}", modern(text="x" * size)) for number in range(count)])
    assert text is not None
    assert len(text) <= MOST_INSTRUCTIONS
    assert (CUT in text) == (len(text) < count * size)
    assert count == 1 or text.count("# s") == count
