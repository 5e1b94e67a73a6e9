"""An explanation decides as a call is decided, and names every rule with its line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.policy.admission import Admission
from narthex.flow.policy.explanation import Explanation, explain
from narthex.flow.policy.grants import Grants
from narthex.types import ANONYMOUS, Grant, Kind, Principal, Who
from tests.flow.policy.test_grants import ARGS, EVERYBODY, GRANTS, KINDS, NAMES, NOW, SUPPORT

RULES = (
    Grant("reads", "allow", Who(role=("support",)), tools=("billing__get_*",), line=3),
    Grant("small", "allow", Who(role=("support",)), tools=("billing__refund",), when="args.amount <= 100", line=4),
    Grant("others", "allow", Who(role=("dev",), client=("ide",)), tools=("*",), line=5),
    Grant("no deletes", "deny", tools=("*__delete_*",), line=6),
    Grant("guests", "allow", Who(anonymous=True), tools=("*__ping",), line=7),
    Grant("old", "allow", tools=("billing__*",), expires_at=NOW - 1, line=8),
)


def explained(
    name: str, args: dict[str, Any] | None = None, who: Principal = SUPPORT, grants: tuple[Grant, ...] = RULES
) -> Explanation:
    server, _, own = name.partition("__")
    params = {"arguments": Raw(json.dumps(args or {}).encode())}
    return explain(Grants(grants), who, "default", "tools", (server, own), params, {}, NOW)


@pytest.mark.parametrize(
    ("name", "args", "decision", "said"),
    [
        pytest.param(
            "billing__refund",
            {"amount": 7},
            ("allow", "granted", 4),
            {"small": "true: args.amount <= 100"},
            id="granted",
        ),
        pytest.param(
            "billing__refund",
            {"amount": 700},
            ("deny", "condition_not_met", 4),
            {"small": "false: args.amount <= 100", "others": "it is for others: role dev"},
            id="condition",
        ),
        pytest.param(
            "billing__refund", {}, ("deny", "rule_failed", 4), {"small": "'amount' is missing"}, id="missing argument"
        ),
        pytest.param(
            "billing__delete_all",
            {},
            ("deny", "denied_by_rule", 6),
            {"no deletes": "without a condition", "old": "it has expired"},
            id="hidden by a denial",
        ),
        pytest.param(
            "git__log",
            {},
            ("deny", "not_granted", 0),
            {"reads": "no pattern of it covers git__log"},
            id="nothing grants it",
        ),
        pytest.param(
            "x__ping", {}, ("deny", "not_granted", 0), {"guests": "it is for others: anonymous callers"}, id="guests"
        ),
    ],
)
def test_each_rule_says_why(
    name: str, args: dict[str, Any], decision: tuple[str, str, int], said: dict[str, str]
) -> None:
    found = explained(name, args)
    assert (found.decision.effect, found.decision.reason, found.decision.line) == decision
    assert [step.line for step in found.steps] == [3, 4, 5, 6, 7, 8]
    assert {step.rule: step.text for step in found.steps if step.rule in said} == said


def test_anonymous_callers_learn_that_it_is_for_others() -> None:
    found = explained("billing__refund", {"amount": 1}, ANONYMOUS)
    assert {step.rule: step.text for step in found.steps}["small"] == "it is for others: those who have signed in"


def test_without_grants_everything_is_allowed() -> None:
    found = explain(None, SUPPORT, "default", "tools", ("a", "b"), {}, {}, NOW)
    assert (found.decision.effect, found.visible, found.steps) == ("allow", True, ())


@given(st.lists(GRANTS, max_size=6), st.sampled_from(EVERYBODY), KINDS, NAMES, ARGS)
def test_decides_as_a_call_is_decided(
    grants: list[Grant], who: Principal, kind: Kind, name: str, args: dict[str, Any]
) -> None:
    server, _, own = name.partition("__")
    params = {"arguments": Raw(json.dumps(args).encode())}
    found = explain(Grants(tuple(grants)), who, "default", kind, (server, own), params, {}, NOW)
    admission = Admission(who, "default", Grants(tuple(grants)).rights(who, "default", NOW), None)
    assert found.visible is admission.sees(kind, server, own)
    if found.visible:
        assert found.decision == admission.decide(kind, server, own, params, {})[0]
    else:
        assert found.decision.effect == "deny"
    assert len(found.steps) == len(grants)
