"""Which rule keeps a thing's answers, whose word counts for that, and what ends them: a row a rule."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from narthex.flow.cache.plans import Plans, says_harmless
from narthex.types import Authority as Issuer
from narthex.types import CacheRule, CacheSpec, ClearRule, HttpTarget, Kind, ServerSpec, TokenCredential, Use, Who


def server(name: str, **settings: Any) -> ServerSpec:
    return ServerSpec(name, HttpTarget("http://x/", "http", "x", 80, "/"), "auto", **settings)


SERVERS = {"one": server("one"), "good": server("good", trusts_annotations=True)}


def plans(*rules: CacheRule, clears: tuple[ClearRule, ...] = (), servers: dict[str, ServerSpec] | None = None) -> Plans:
    return Plans(CacheSpec(rules, clears), servers or SERVERS)


def tool(**annotations: Any) -> Raw:
    return Raw(json.dumps({"name": "get", "annotations": annotations}).encode())


HARMLESS = tool(readOnlyHint=True, idempotentHint=True)
MARKED = CacheRule("marked", 60.0, tools=("*__get",))
ANNOTATED = CacheRule("annotated", 60.0, tools=("*",), annotated=True)


@pytest.mark.parametrize(
    ("said", "harmless"),
    [
        pytest.param({"readOnlyHint": True, "idempotentHint": True}, True, id="both, in so many words"),
        pytest.param({"readOnlyHint": True}, False, id="reading alone"),
        pytest.param({"idempotentHint": True}, False, id="twice the same alone: it writes"),
        pytest.param({"readOnlyHint": "true", "idempotentHint": True}, False, id="a text is no yes"),
        pytest.param({"readOnlyHint": 1, "idempotentHint": 1}, False, id="a number is no yes"),
        pytest.param({}, False, id="nothing"),
    ],
)
def test_what_annotations_say(said: dict[str, Any], harmless: bool) -> None:
    assert says_harmless(tool(**said)) is harmless


def test_annotations_that_cannot_be_read_say_nothing() -> None:
    assert not says_harmless(Raw(b'{"annotations": [1]}'))
    assert not says_harmless(
        Raw(b'{"annotations": {"readOnlyHint": true, "idempotentHint": true}, "x": "%b"}' % (b"x" * 65536))
    )


@pytest.mark.parametrize(
    ("rule", "of", "listed", "kept"),
    [
        pytest.param(MARKED, ("tools", "one", "get"), tool(), True, id="a tool that the operator names"),
        pytest.param(MARKED, ("tools", "one", "put"), tool(), False, id="another tool"),
        pytest.param(MARKED, ("prompts", "one", "get"), tool(), False, id="a prompt of that name"),
        pytest.param(ANNOTATED, ("tools", "good", "get"), HARMLESS, True, id="a harmless tool of a trusted server"),
        pytest.param(ANNOTATED, ("tools", "one", "get"), HARMLESS, False, id="the word of a server nobody trusts"),
        pytest.param(ANNOTATED, ("tools", "good", "get"), tool(readOnlyHint=True), False, id="half a word"),
        pytest.param(ANNOTATED, ("tools", "good", "get"), None, False, id="a tool in no list"),
        pytest.param(CacheRule("r", 1.0, resources=("one__file:///*",)), ("resources", "one", "file:///a"), None, True,
                     id="a resource in no list"),
        pytest.param(CacheRule("p", 1.0, prompts=("one__*",)), ("prompts", "one", "hi"), tool(), True, id="a prompt"),
        pytest.param(CacheRule("e", 1.0, tools=("*",), endpoints=("other",)), ("tools", "one", "get"), tool(), False,
                     id="at another endpoint"),
        pytest.param(CacheRule("s", 1.0, resources=("*",)), ("skills", "one", "skill:x"), tool(), False, id="a skill"),
    ],
)  # fmt: skip
def test_what_is_kept(rule: CacheRule, of: tuple[Kind, str, str], listed: Raw | None, kept: bool) -> None:
    kind, name, thing = of
    plan = plans(rule).of(kind, "default", name, thing, listed)
    assert (plan is not None and plan.rule is rule) is kept


def test_the_first_rule_that_covers_it_counts() -> None:
    first, second = CacheRule("first", 1.0, tools=("one__*",)), CacheRule("second", 2.0, tools=("*",))
    plan = plans(first, second).of("tools", "default", "one", "get", tool())
    assert plan is not None and plan.rule is first


def test_another_definition_is_another_plan() -> None:
    some = plans(MARKED)
    before, after = some.of("tools", "d", "one", "get", tool()), some.of("tools", "d", "one", "get", HARMLESS)
    assert before is not None and after is not None and before.place != after.place


def test_where_the_callers_own_token_is_shown_nothing_is_shared() -> None:
    rule = CacheRule("shared", 1.0, tools=("*",), shared=True)
    token = TokenCredential("t", "token_exchange", Issuer("me"))
    servers = {"own": server("own", accounts=(Use(Who(), token),)), "one": server("one")}
    some = plans(rule, servers=servers)
    own, one = some.of("tools", "d", "own", "x", tool()), some.of("tools", "d", "one", "x", tool())
    assert own is not None and not own.shared
    assert one is not None and one.shared


# --- what ends it

CLEAR = ClearRule(("one__put",), tools=("one__get",), same=(("/id", "/item/id"),))


def ends(clear: ClearRule, put: Any, got: Any, tenant: str = "t") -> bool:
    """Does a call of `put` with these arguments end what `get` answered to these?"""
    some = plans(MARKED, clears=(clear,))
    read, write = some.of("tools", "d", "one", "get", tool()), some.of("tools", "d", "one", "put", tool())
    assert read is not None and write is not None and write.rule is None
    return bool(set(read.lots("t", got)) & {name for one in write.ends for name in one.ended(tenant, put)})


@pytest.mark.parametrize(
    ("put", "got", "ended"),
    [
        pytest.param({"id": 7}, {"item": {"id": 7}}, True, id="the same value"),
        pytest.param({"id": 7}, {"item": {"id": 8}}, False, id="another value"),
        pytest.param({"id": 7}, {"item": {"id": "7"}}, True, id="a text that servers may read as the same number"),
        pytest.param({"id": 7.0}, {"item": {"id": 7}}, True, id="the same number, written otherwise"),
        pytest.param({"id": "x" * 99}, {"item": {"id": "x" * 99}}, True, id="a long text"),
        pytest.param({}, {"item": {"id": 8}}, True, id="a write that does not say which"),
        pytest.param(None, {"item": {"id": 8}}, True, id="a write without arguments"),
        pytest.param({"id": 7}, {}, True, id="a read that did not say which"),
        pytest.param({"id": None}, {"item": {"id": 8}}, True, id="null says nothing"),
        pytest.param({"id": [1, {"a": 2}]}, {"item": {"id": [1, {"a": 2}]}}, True, id="a list"),
    ],
)
def test_a_write_ends_the_reads_of_the_same(put: Any, got: Any, ended: bool) -> None:
    assert ends(CLEAR, put, got) is ended


def test_without_values_to_compare_a_write_ends_all() -> None:
    assert ends(ClearRule(("one__put",), tools=("one__*",)), {"id": 1}, {"item": {"id": 2}})


def test_a_write_ends_nothing_of_another_tenant() -> None:
    assert not ends(CLEAR, {"id": 7}, {"item": {"id": 7}}, tenant="other")


def test_what_ends_nothing_and_is_not_kept_has_no_plan() -> None:
    assert plans(MARKED, clears=(CLEAR,)).of("tools", "d", "one", "neither", tool()) is None
