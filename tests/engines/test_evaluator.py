"""Bundles compiled by the engine that is built in: what is refused when they are loaded, and with which place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narthex.engines.evaluator import UNDEFINED, EvaluationFailed, Evaluator, functions
from narthex.engines.frames import Flawed, Source
from tests.engines.policies import ENTRY, HEAD, LOOPS, REAL, ROLES, asks, source


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        pytest.param(HEAD + "decision := {", "policy.rego:5:14: expecting expression", id="syntax"),
        pytest.param("package narthex\ndecision { true }", "policy.rego:2:10: `if` keyword is required", id="Rego v0"),
        pytest.param(HEAD + "default decision := false\ndecision if nosuch", "policy.rego:6:13: use of undefined",
                     id="a variable that is none"),
        pytest.param(HEAD + "decision := io.jwt.decode(input.x)", "policy.rego:5:26: io.jwt.decode is not among",
                     id="a function that is not there"),
        pytest.param(HEAD + "default decision := f(1)\nf(x) := f(x)", "data.narthex.f needs itself", id="recursion"),
        pytest.param(HEAD + "x := 1", "data.narthex.decision: the entry point is not there", id="no entry point"),
        pytest.param(HEAD + 'decision if input.action == "tools/call"',
                     'data.narthex.decision: says nothing where input.action is "list"', id="undefined for lists"),
        pytest.param(HEAD + 'decision := 1 / 0 if input.action == "list"', "policy.rego:5:15: divide by zero",
                     id="fails for lists"),
        pytest.param(HEAD + "decision := true\ndecision := false", "policy.rego:6:1: rule conflicts",
                     id="rules that contradict each other"),
    ],
)  # fmt: skip
def test_refused_when_it_is_loaded(text: str, flaw: str) -> None:
    with pytest.raises(Flawed) as raised:
        Evaluator(source(text))
    assert flaw in str(raised.value)
    assert "backtrace" not in str(raised.value)


def test_every_file_that_is_wrong_is_named() -> None:
    with pytest.raises(Flawed) as raised:
        Evaluator(Source({"a.rego": "package a\nx := {", "b.rego": "package b\ny :="}, {}, ENTRY))
    assert [flaw.file for flaw in raised.value.flaws] == ["a.rego", "b.rego"]


@pytest.mark.parametrize(
    ("text", "asked", "value"),
    [
        (LOOPS, json.loads(asks(amount=5)), True),
        (LOOPS, json.loads(asks(amount=500)), False),
        (
            HEAD + "default decision := false\ndecision contains x if { some x in input.s }",
            {"s": ["b", "a"]},
            ["a", "b"],
        ),
        (HEAD + 'decision := {"reasons": {"b", "a"}, "allow": false}', {}, {"allow": False, "reasons": ["a", "b"]}),
    ],
)
def test_values(text: str, asked: Any, value: Any) -> None:
    assert json.loads(Evaluator(source(text)).evaluate(json.dumps(asked))) == value


def test_undefined_and_errors() -> None:
    one = Evaluator(source(HEAD + 'decision if input.action == "list"\ndecision if 1 / input.n > 0'))
    assert one.evaluate('{"n": -1}') == UNDEFINED
    with pytest.raises(EvaluationFailed, match="divide by zero"):
        one.evaluate('{"n": 0}')
    with pytest.raises(EvaluationFailed):
        one.evaluate("{")
    assert one.evaluate('{"n": 1}') == "true", "and goes on"


def test_what_is_printed_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    one = Evaluator(source(HEAD + 'decision if print("a secret", input)'))
    assert one.uses.prints
    one.evaluate("{}")
    assert capfd.readouterr() == ("", "")


def test_what_it_uses() -> None:
    assert Evaluator(source(REAL, ROLES)).uses.paths == (
        ("action",),
        ("context", "endpoint"),
        ("context", "ip"),
        ("mcp", "arguments", "amount"),
        ("resource", "name"),
        ("resource", "server"),
        ("subject", "roles"),
    )


def test_the_functions_are_the_engines_own() -> None:
    assert {"count", "glob.match", "net.cidr_contains", "semver.compare"} <= functions()
    assert not {"io.jwt.decode", "crypto.sha256", "net.cidr_merge", "net.lookup_ip_addr"} & functions()
