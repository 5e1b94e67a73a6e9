"""Conditions: rows for what CEL says, and the promise that closures and the engine never differ."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex.flow.policy import conditions
from narthex.flow.policy.arguments import read_arguments, sent
from narthex.flow.policy.conditions import (
    ENGINE_MOST_ARGUMENTS,
    MOST_TEXT,
    BadCondition,
    ConditionFailed,
    compile_condition,
)

FAILED = "failed"


def facts(args: dict[str, Any], **context: Any) -> dict[str, Any]:
    principal = {"roles": ["support", "eu"], "tenant": "acme"}
    seen = read_arguments(msgspec.json.encode(args))
    return {"args": seen, "principal": principal, "resource": {"name": "refund"}, "context": context}


def outcome(met: Any, given: dict[str, Any]) -> bool | str:
    try:
        found = met(given)
    except ConditionFailed:
        return FAILED
    assert found is True or found is False
    return bool(found)


@pytest.mark.parametrize(
    ("text", "args", "expected"),
    [
        pytest.param("args.amount <= 100", {"amount": 100}, True, id="a bound"),
        pytest.param("args.amount <= 100", {"amount": 100.5}, False, id="integers and fractions compare by value"),
        pytest.param("args.amount <= 100", {"amount": "5"}, FAILED, id="a text has no order with a number"),
        pytest.param("args.amount <= 100", {"amount": True}, FAILED, id="true is no number"),
        pytest.param("args.amount <= 100", {}, FAILED, id="a missing argument is no value"),
        pytest.param("args.amount <= 100", {"amount": 1 << 70}, FAILED, id="beyond 64 bits is no value"),
        pytest.param("args.amount == 1", {"amount": True}, False, id="true does not equal 1"),
        pytest.param("args.amount == 1", {"amount": 1.0}, True, id="1.0 equals 1"),
        pytest.param("args.amount != 1", {"amount": "1"}, True, id="other types are unequal"),
        pytest.param("args.amount == null", {"amount": None}, True, id="null equals null"),
        pytest.param("args.a == 1 || true", {}, True, id="or absorbs what has no value"),
        pytest.param("args.a == 1 && false", {}, False, id="and absorbs what has no value"),
        pytest.param("args.a == 1 && true", {}, FAILED, id="and keeps what has no value"),
        pytest.param("args.a == 1 || false", {}, FAILED, id="or keeps what has no value"),
        pytest.param("args.a && true", {"a": 1}, FAILED, id="a number is no truth"),
        pytest.param("args.a", {"a": "yes"}, FAILED, id="a text is no truth, alone too"),
        pytest.param("args.region in ['eu', 'us']", {"region": "eu"}, True, id="one of a list"),
        pytest.param("args.n in [1, 2]", {"n": True}, False, id="true is not one of the numbers"),
        pytest.param("'support' in principal.roles", {}, True, id="a role"),
        pytest.param("'x' in args", {"x": None}, True, id="a map has the member"),
        pytest.param("has(args.x)", {"x": None}, True, id="present, though null"),
        pytest.param("has(args.x.y)", {}, FAILED, id="nothing inside what is missing"),
        pytest.param("!has(args.x) || args.x < 5", {}, True, id="optional with a bound"),
        pytest.param("args.path.startsWith('/srv/')", {"path": "/srv/a"}, True, id="prefix"),
        pytest.param("args.path.startsWith('/srv/')", {"path": 1}, FAILED, id="a number has no prefix"),
        pytest.param("args.path.endsWith('.txt')", {"path": "a.txt"}, True, id="suffix"),
        pytest.param("args.path.contains('..')", {"path": "a/../b"}, True, id="part"),
        pytest.param("args['a-b'] >= 1 && args['a-b'] < 3", {"a-b": 2}, True, id="a range, by index"),
        pytest.param("args.path.matches('^/srv/[a-z]+$')", {"path": "/srv/x"}, True, id="a pattern, by the engine"),
        pytest.param("args.tags.all(t, t != 'prod')", {"tags": ["dev"]}, True, id="every element, by the engine"),
        pytest.param("size(args.tags) <= 2", {"tags": [1, 2]}, True, id="size, by the engine"),
        pytest.param("args.a == args.b", {"a": [1], "b": [1]}, True, id="two facts, by the engine"),
    ],
)
def test_what_cel_says(text: str, args: dict[str, Any], expected: bool | str) -> None:
    assert outcome(compile_condition(text).met, facts(args)) == expected


@pytest.mark.parametrize(
    ("text", "says", "column"),
    [
        pytest.param("args.a <", "Syntax error", 9, id="syntax"),
        pytest.param("arg.a == 1", "undeclared reference to 'arg.a'", 4, id="an unknown name"),
        pytest.param("1 + 1", "neither true nor false", None, id="no condition"),
        pytest.param("'a' + 1 == 'a1'", "no matching overload", 5, id="types that never fit"),
        pytest.param("args.x.all(a, args.y.all(b, a != b))", "inside each other", None, id="nested loops"),
        pytest.param("args.x.all(a, {'b': args.y.all(b, a != b)}.b)", "inside each other", None, id="nested in a map"),
        pytest.param("true || " * 600 + "true", "longer than", None, id="too long"),
    ],
)
def test_what_is_no_condition_says_where(text: str, says: str, column: int | None) -> None:
    with pytest.raises(BadCondition, match=says) as caught:
        compile_condition(text)
    assert caught.value.column == column
    assert MOST_TEXT < 5000


def test_arguments_are_read_only_where_a_condition_speaks_of_them() -> None:
    assert compile_condition("args.a == 1").reads == {"args"}
    assert compile_condition("{'a': [args]}.a[0].b == 1").reads == {"args"}
    assert compile_condition("{args.a: {'b': context}}.size() > 0").reads == {"args", "context"}
    assert compile_condition("principal.roles.exists(r, r in args.roles)").reads == {"principal", "args"}
    assert compile_condition("'eu' in principal.roles && context.endpoint == 'x'").reads == {"principal", "context"}


def test_the_engine_does_not_walk_through_large_arguments() -> None:
    condition = compile_condition("args.tags.all(t, t != 'prod')")
    assert not condition.compiled
    large = facts({"tags": []}, arguments_size=ENGINE_MOST_ARGUMENTS + 1)
    assert outcome(condition.met, large) == FAILED


@pytest.mark.parametrize(
    ("raw", "encoded"),
    [
        pytest.param(b'{ "a" : 1.10, "b" : [ ] }', b'{"a":1.1,"b":[]}', id="spaces and zeros mean nothing"),
        pytest.param(b'{"a":1,"a":2}', b'{"a":2}', id="one value a key: the one that was looked at"),
        pytest.param(b'{"a":123456789012345678901234567890}', b'{"a":123456789012345678901234567890}', id="large"),
        pytest.param(b"[1]", b"[1]", id="not a map, and sent as it is"),
    ],
)
def test_what_was_looked_at_is_what_is_sent(raw: bytes, encoded: bytes) -> None:
    assert sent(read_arguments(raw)) == encoded


# --- closures and engine

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 66), 1 << 66),
    st.integers(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 1.0, 1.5, -0.0, "", "a", "ab", "é", "1", "true"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
)
LITERALS = st.sampled_from(
    ["1", "0", "-2", "1.0", "1.5", "'a'", "'ab'", "''", "true", "false", "null", "9007199254740993"]
)
PATHS = st.sampled_from(["args.a", "args.b", "args.a.b", "args['a']", "principal.roles", "principal.tenant", "args"])
TEXTS = st.sampled_from(["'a'", "''", "'b'", "'é'"])
COMPARED = st.builds(
    lambda path, operator, literal, turned: (
        f"{literal} {operator} {path}" if turned else f"{path} {operator} {literal}"
    ),
    PATHS,
    st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
    LITERALS,
    st.booleans(),
)
ATOMS = st.one_of(
    COMPARED,
    PATHS,
    st.sampled_from(["true", "false"]),
    st.builds("has({})".format, st.sampled_from(["args.a", "args.b", "args.a.b", "principal.roles"])),
    st.builds("{} in [{}, {}]".format, PATHS, LITERALS, LITERALS),
    st.builds("{} in {}".format, TEXTS, PATHS),
    st.builds("{}.{}({})".format, PATHS, st.sampled_from(["startsWith", "endsWith", "contains"]), TEXTS),
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds("({} && {})".format, inner, inner)
        | st.builds("({} || {})".format, inner, inner)
        | st.builds("!({})".format, inner)
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(text=CONDITIONS, args=st.dictionaries(st.sampled_from("ab"), VALUES, max_size=2))
def test_closures_answer_as_the_engine_does(text: str, args: dict[str, Any]) -> None:
    try:
        condition = compile_condition(text)
    except BadCondition:
        return  # types that never fit: refused when it is loaded
    engine = conditions._engine_condition(text)
    assert outcome(condition.met, facts(args)) == outcome(engine.met, facts(args))


@pytest.mark.parametrize(
    "text",
    [
        "args[args.x] == 1",
        '"a".matches(args.x + "(")',
        "int(args.x) > 1",
        'size(args.x + "") > 1 ? args.x : args.x',
        'args.x[args.x + "a"] == 1',
    ],
)
def test_why_it_failed_says_nothing_of_the_arguments(text: str) -> None:
    """It goes into logs and records, also of those who keep no arguments in them."""
    with pytest.raises(ConditionFailed) as failed:
        compile_condition(text).met(facts({"x": "hunter2"}))
    assert "hunter2" not in str(failed.value)
