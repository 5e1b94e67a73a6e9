"""Rules on runs from what a record tells: held, did not, or cannot be told; never another answer than was given."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import Denied
from narthex.flow.codec.jsonrpc import encode
from narthex.flow.policy.admissions import Admissions
from narthex.flow.policy.evidence.again import Again
from narthex.flow.policy.evidence.recorded import Reader
from narthex.flow.policy.grants import Grants
from narthex.flow.policy.runs.again import Unclear, decided_from
from narthex.flow.policy.runs.rules import RunRules
from narthex.flow.policy.runs.runs import End, Runs
from narthex.flow.policy.site import NOWHERE
from narthex.flow.route.target import Target
from narthex.telemetry.inputs import input_of
from narthex.testing import FakeClock
from narthex.types import LOCAL, Call, Grant, Patterns, RunRule, RunSpec
from tests.flow.policy.runs.test_runs import FEW, HOUR, LABELS, LOOK_FIRST, NOT_AFTER, SITE, SLOWLY, TRIFECTA
from tests.flow.policy.runs.test_runs_machine import RULES, TOOLS, WINDOW_S

NOW = 1_800_000_000.0
GRANTS = (
    Grant("all", "allow", tools=("*",)),
    Grant("no refunds of strangers", "deny", tools=("crm__refund",), when="'web__get' in run.calls"),
)
WEEKLY = RunRule("weekly", "deny", Patterns(("crm__refund",)), at_most=2, within_s=7 * 86_400.0)
SEND, REFUND = "mail__send", "crm__refund"


@pytest.mark.parametrize(
    ("rule", "name", "labels", "calls", "said"),
    [
        pytest.param(TRIFECTA, SEND, ["untrusted", "private"], {}, "deny", id="labels"),
        pytest.param(TRIFECTA, SEND, ["untrusted"], {}, "allow", id="a label of two"),
        pytest.param(TRIFECTA, REFUND, ["untrusted", "private"], {}, "allow", id="of another name"),
        pytest.param(NOT_AFTER, SEND, [], {"web__get": 3}, "allow", id="never after what was not used"),
        pytest.param(NOT_AFTER, SEND, [], {"crm__find": 1}, "unclear", id="after: was it sent, and how long ago?"),
        pytest.param(LOOK_FIRST, REFUND, [], {"web__get": 3}, "deny", id="nothing came first"),
        pytest.param(LOOK_FIRST, REFUND, [], {"crm__find": 1}, "unclear", id="did it answer?"),
        pytest.param(FEW, REFUND, [], {REFUND: 1}, "allow", id="fewer than may be"),
        pytest.param(FEW, REFUND, [], {REFUND: 2}, "unclear", id="were they within?"),
        pytest.param(FEW, REFUND, [], {"*": 2}, "unclear", id="names that were not told apart"),
        pytest.param(WEEKLY, REFUND, [], {}, "unclear", id="longer than the run's window"),
        pytest.param(SLOWLY, SEND, [], {}, "allow", id="none to cool down from"),
        pytest.param(SLOWLY, SEND, [], {SEND: 1}, "unclear", id="how long ago?"),
        pytest.param(TRIFECTA, SEND, None, None, "unclear", id="nothing recorded"),
    ],
)
def test_rule(rule: RunRule, name: str, labels: Any, calls: Any, said: str) -> None:
    plan = RunRules(RunSpec(HOUR, labels=LABELS, rules=(rule,)), SITE).plans(LOCAL).plan("tools", name)
    run = None if labels is None else {"labels": labels, "calls": calls}
    try:
        decision = decided_from(plan, run, HOUR)
    except Unclear as error:
        assert said == "unclear"
        assert f"'{rule.name}'" in str(error)
    else:
        assert (decision.effect if decision is not None else "allow") == said


STEPS = st.lists(
    st.tuples(
        st.sampled_from(TOOLS),
        st.sampled_from(["done", "failed", "asked", "unsent"]),
        st.sampled_from([0.0, 1.0, 5.0, 20.0, 60.0]),
    ),
    max_size=12,
)


@given(st.sets(st.sampled_from(RULES), min_size=1), STEPS, st.sampled_from(TOOLS))
def test_what_is_told_is_what_was_decided(rules: set[RunRule], steps: list[tuple[str, End, float]], name: str) -> None:
    clock = FakeClock(1000.0)
    spec = RunSpec(WINDOW_S, labels=LABELS, rules=tuple(one for one in RULES if one in rules))
    runs, key = Runs(RunRules(spec, NOWHERE), clock), (LOCAL.key, "default", "")
    plans = runs.rules.plans(LOCAL)
    for called, end, wait in steps:
        _, taken = runs.admit(key, plans.plan("tools", called), called)
        if taken is not None:
            taken.end(end)
        clock.advance(wait)
    facts, plan = runs.facts(key), plans.plan("tools", name)
    decision, _ = runs.admit(key, plan, name)
    with suppress(Unclear):
        assert decided_from(plan, facts, WINDOW_S) == decision


def test_a_record_says_enough_to_decide_again() -> None:
    rules, grants = RunRules(RunSpec(HOUR, labels=LABELS, rules=(TRIFECTA,)), SITE), Grants(GRANTS, SITE)
    runs = Runs(rules, FakeClock(), told=True)
    admissions = Admissions(grants, {}, lambda: NOW, None, SITE, runs)
    found = []
    for name in ("web__get", "mail__send", "crm__find", "mail__send", "crm__refund"):
        server, own = name.split("__")
        call = Call("tools/call", {}, {}, b"1", "modern", "2026-07-28", LOCAL, "default", name)
        check = admissions.check(LOCAL, "default", "")
        with suppress(Denied):
            check.admit("tools", Target(server, own, encode(own)), {})
        check.end("done")
        record = Reader().read(encode({"input": input_of(check, call, full=True)}))
        assert record is not None and check.decision is not None
        again = asyncio.run(Again(grants, {}, site=SITE, runs=rules).decide(record.asked))
        assert again == check.decision
        found.append(again.rule)
    assert found == ["all", "all", "all", "trifecta", "no refunds of strangers"]
