"""What a decided call's record says of every rule is what an explanation of the same call says."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import Denied, GatewayError, Overloaded
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.policy.admission import Admission
from narthex.flow.policy.check import Check
from narthex.flow.policy.engines.obligations import FORMS, MOST_POINTERS, read
from narthex.flow.policy.evidence.rules import LONGEST, Ruled, duties_of, rules_of
from narthex.flow.policy.explanation import explain
from narthex.flow.policy.grants import Grants
from narthex.flow.policy.runs.rules import RunRules
from narthex.flow.policy.runs.runs import Runs
from narthex.flow.policy.site import NOWHERE
from narthex.flow.route.target import Target
from narthex.testing import FakeClock
from narthex.types import Grant, Kind, Patterns, Principal, RunRule, RunSpec
from tests.flow.policy.test_grants import (
    ALLOW,
    ARGS,
    ASK,
    EVERYBODY,
    GRANTS,
    KINDS,
    NAMES,
    NO_DELETES,
    NOT_ABROAD,
    NOW,
    SMALL,
    SUPPORT,
)

LATE = Grant("large refunds", "allow", tools=("billing__refund",), when="args.amount > 100")
CANNOT_TELL = Grant("by reason", "allow", tools=("billing__refund",), when="args.why == 'x'")


def checked(
    grants: list[Grant] | None,
    name: str,
    args: dict[str, Any] | None = None,
    *,
    who: Principal = SUPPORT,
    kind: Kind = "tools",
    runs: Runs | None = None,
    counts: bool = True,
) -> Check:
    """A call, as far as memory decides it."""
    server, _, own = name.partition("__")
    rights = Grants(tuple(grants)).rights(who, "default", NOW) if grants is not None else None
    check, target = Check(Admission(who, "default", rights, None, runs=runs)), Target(server, own, b"")
    with suppress(GatewayError):
        if check.sees(kind, target):
            check.admit(kind, target, {"arguments": Raw(json.dumps(args or {}).encode())}, counts=counts)
    return check


def words(*args: Any, **options: Any) -> list[tuple[str, str]]:
    return [(one.rule, one.said) for one in rules_of(checked(*args, **options))]


REFUND = "billing__refund"


@pytest.mark.parametrize(
    ("grants", "name", "args", "said"),
    [
        pytest.param([ALLOW], REFUND, {}, [("all of billing", "met")], id="the one that allows"),
        pytest.param(
            [ALLOW, SMALL], REFUND, {}, [("all of billing", "met"), ("small refunds", "not_asked")],
            id="one behind it was not asked",
        ),
        pytest.param(
            [SMALL, ALLOW], REFUND, {"amount": 700}, [("small refunds", "not_met"), ("all of billing", "met")],
            id="one before it did not hold",
        ),
        pytest.param(
            [CANNOT_TELL, ALLOW], REFUND, {}, [("by reason", "not_met"), ("all of billing", "met")],
            id="one that could not tell, where another allows",
        ),
        pytest.param(
            [ALLOW, NOT_ABROAD, ASK], REFUND, {"country": "PT", "amount": 700},
            [("not abroad", "not_met"), ("ask first", "met"), ("all of billing", "met")],
            id="denials first, then holds; what has no condition holds in any case",
        ),
        pytest.param(
            [ALLOW, NOT_ABROAD], REFUND, {}, [("not abroad", "failed"), ("all of billing", "met")],
            id="a denial that could not tell",
        ),
        pytest.param(
            [CANNOT_TELL, SMALL, LATE], REFUND, {"amount": "x"},
            [("by reason", "failed"), ("small refunds", "not_met"), ("large refunds", "not_met")],
            id="nothing allows it, and the first that could not tell is named",
        ),
        pytest.param(
            [SMALL, LATE], REFUND, {"amount": 100.5, "n": 0}, [("small refunds", "not_met"), ("large refunds", "met")],
            id="the second of two",
        ),
        pytest.param([SMALL], REFUND, {"amount": 700}, [("small refunds", "not_met")], id="nothing allows it"),
        pytest.param(
            [ALLOW, NO_DELETES], "billing__delete_all", {}, [("no deletes", "met"), ("all of billing", "met")],
            id="what is hidden by a denial says so",
        ),
        pytest.param([ALLOW], "git__log", {}, [], id="what nothing grants"),
        pytest.param(None, REFUND, {}, [], id="nobody has written a rule"),
    ],
)  # fmt: skip
def test_every_rule_says_what_it_did(
    grants: list[Grant] | None, name: str, args: dict[str, Any], said: list[tuple[str, str]]
) -> None:
    assert words(grants, name, args) == said


@given(st.lists(GRANTS, max_size=6), st.sampled_from(EVERYBODY), KINDS, NAMES, ARGS)
def test_it_is_what_an_explanation_says(
    grants: list[Grant], who: Principal, kind: Kind, name: str, args: dict[str, Any]
) -> None:
    grants = [
        Grant(**{**{f: getattr(one, f) for f in one.__struct_fields__}, "name": str(at), "line": at})
        for at, one in enumerate(grants, 1)
    ]
    server, _, own = name.partition("__")
    params = {"arguments": Raw(json.dumps(args).encode())}
    explained = explain(Grants(tuple(grants)), who, "default", kind, (server, own), params, {}, NOW)
    steps = {step.rule: step for step in explained.steps if step.verdict != "skipped"}
    found = rules_of(checked(grants, name, args, who=who, kind=kind))
    order = {"deny": 0, "hold": 1, "allow": 2}
    assert [one.rule for one in found] == sorted(steps, key=lambda rule: order[steps[rule].effect])
    for one in found:
        verdict = steps[one.rule].verdict
        assert (one.effect, one.line) == (steps[one.rule].effect, steps[one.rule].line)
        if one.said == "not_met":
            assert verdict == "not met" or (verdict == "failed" and one.effect == "allow")
        elif one.said != "not_asked":
            assert verdict == {"met": "applies", "failed": "failed"}[one.said]
    deciding = [one for one in found if (one.rule, one.line) == (explained.decision.rule, explained.decision.line)]
    assert all(one.said in ("met", "failed", "not_met") for one in deciding)


# --- rules over several calls

ONCE = RunRule("once", "deny", Patterns(("billing__*",)), at_most=1, line=20)
ASK_RUN = RunRule("ask in runs", "hold", Patterns(("billing__*",)), unless_after=Patterns(("billing__find",)), line=21)
NEVER = RunRule("not after git", "deny", Patterns(("billing__*",)), after=Patterns(("git__*",)), line=22)


def watched(*rules: RunRule, **spec: Any) -> Runs:
    return Runs(RunRules(RunSpec(rules=rules, **spec), NOWHERE), FakeClock())


def test_rules_over_several_calls_say_it_too() -> None:
    runs = watched(NEVER, ONCE, ASK_RUN)
    first = rules_of(checked([ALLOW], REFUND, runs=runs))
    assert first[1:] == [
        Ruled("not after git", "deny", "not_met", 22, "runs"),
        Ruled("once", "deny", "not_met", 20, "runs"),
        Ruled("ask in runs", "hold", "met", 21, "runs"),
    ]
    second = words([ALLOW], REFUND, runs=runs)
    assert second[1:] == [("not after git", "not_met"), ("once", "met"), ("ask in runs", "not_asked")]


def test_a_hold_over_several_calls_is_told_also_where_a_grant_holds_the_call_anyway() -> None:
    found = words([ASK], REFUND, {"amount": 700}, runs=watched(ASK_RUN))
    assert found == [("ask first", "met"), ("ask in runs", "met")]


def test_what_the_grants_deny_asks_no_rule_over_several_calls() -> None:
    assert words([SMALL], REFUND, {"amount": 700}, runs=watched(ONCE))[1:] == [("once", "not_asked")]


def test_where_no_run_can_begin_no_rule_was_asked() -> None:
    runs = watched(ONCE, most_runs=1)
    checked([ALLOW], REFUND, who=EVERYBODY[3], runs=runs)
    check = checked([ALLOW], REFUND, runs=runs)
    if check.decision is not None and check.decision.reason == Overloaded.reason:
        assert [one.said for one in rules_of(check)] == ["met", "not_asked"]
    else:
        pytest.fail("a second run has begun")


def test_a_completion_is_bounded_by_no_count() -> None:
    runs = watched(ONCE, NEVER)
    check = checked([ALLOW], REFUND, runs=runs, counts=False)
    assert [one.rule for one in rules_of(check, counts=False)] == ["all of billing", "not after git"]


def test_what_was_said_of_one_tool_is_not_said_of_the_next() -> None:
    runs = watched(ONCE)
    check = checked([ALLOW, Grant("git", "allow", tools=("git__*",), when="args.n > 1")], REFUND, runs=runs)
    with pytest.raises(Denied):
        check.admit("tools", Target("git", "log", b""), {"arguments": Raw(b'{"n":0}')})
    assert [(one.rule, one.said) for one in rules_of(check)] == [("git", "not_met")]


# --- what the call was let through for


def test_duties_say_what_they_say_and_of_a_rewrite_only_where() -> None:
    said = {
        "redact": ["/a", "/b"], "require_approval": True, "max_results": 3, "step_up_scope": "write",
        "rewrite": {"limit": "planted", "deep": {"a/b": "planted", "c~": None}, "empty": {}}, "log": "meta",
        "cache_ttl_s": 1.5,
    }  # fmt: skip
    assert said.keys() == FORMS.keys(), "one that is new has to be looked at: may what it says be shown?"
    assert duties_of(read(said)) == {
        **said,
        "redact": ("/a", "/b"),
        "step_up_scope": ("write",),
        "rewrite": ("/limit", "/deep/a~1b", "/deep/c~0", "/empty"),
    }


def test_duties_have_a_bound() -> None:
    (scopes,) = duties_of(read({"step_up_scope": ["s" * 1000] * 1000})).values()
    assert len(scopes) == MOST_POINTERS and {len(one) for one in scopes} == {LONGEST}
    (places,) = duties_of(read({"rewrite": {f"{at}" * 1000: 1 for at in range(1000)}})).values()
    assert len(places) == MOST_POINTERS and {len(one) for one in places} == {LONGEST}
