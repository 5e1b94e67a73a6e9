"""Each rule on runs explained: what it looked at, and the verdict that a call gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from narthex.flow.policy.explanation import explain
from narthex.flow.policy.grants import Grants
from narthex.flow.policy.runs.explanation import imagined
from narthex.flow.policy.runs.rules import RunRules
from narthex.testing import FakeClock
from narthex.types import LOCAL, Grant, Patterns, RunRule, RunSpec, Who
from tests.flow.policy.runs.test_runs import ASK, FEW, HOUR, LABELS, LOOK_FIRST, NOT_AFTER, SITE, SLOWLY, TRIFECTA

OTHERS = RunRule("others", "deny", Patterns(("*",)), Who(role=("dev",)), labels=("untrusted",))
ALL = tuple(
    replace(one, line=line)
    for line, one in enumerate((TRIFECTA, LOOK_FIRST, NOT_AFTER, FEW, SLOWLY, ASK, OTHERS), start=10)
)


def steps(name: str, labels: list[str], calls: dict[str, int], *rules: RunRule) -> dict[str, tuple[str, str]]:
    runs = imagined(RunRules(RunSpec(HOUR, labels=LABELS, rules=rules), SITE), FakeClock(), LOCAL, "e", labels, calls)
    server, _, own = name.partition("__")
    found = explain(None, LOCAL, "e", "tools", (server, own), {}, {}, 0.0, runs)
    return {one.rule: (one.verdict, one.text) for one in found.steps}


@pytest.mark.parametrize(
    ("name", "labels", "calls", "rule", "said"),
    [
        pytest.param(
            "mail__send",
            ["untrusted"],
            {},
            TRIFECTA,
            ("not met", "the run has the label untrusted; the run lacks the label private"),
            id="a label of two",
        ),
        pytest.param(
            "mail__send",
            ["untrusted"],
            {"crm__find": 1},
            TRIFECTA,
            ("applies", "the run has the label untrusted; the run has the label private"),
            id="a call labels",
        ),
        pytest.param(
            "crm__refund", [], {}, LOOK_FIRST, ("applies", "none of crm__find has answered"), id="has to come first"
        ),
        pytest.param("crm__refund", [], {"crm__find": 1}, LOOK_FIRST, ("not met", "crm__find has answered"), id="came"),
        pytest.param("mail__x", [], {"crm__x": 1}, NOT_AFTER, ("applies", "crm__*, crm__* was used"), id="after"),
        pytest.param(
            "crm__refund", [], {"crm__refund": 1}, FEW, ("not met", "1 of at most 2 in 3600 s"), id="how many"
        ),
        pytest.param(
            "mail__send", [], {"mail__send": 1}, SLOWLY, ("applies", "one was in the last 30 s"), id="how long ago"
        ),
        pytest.param("crm__x", [], {}, SLOWLY, ("skipped", "no pattern of it covers crm__x"), id="another name"),
        pytest.param("crm__x", [], {}, OTHERS, ("skipped", "it is for others"), id="another caller"),
    ],
)
def test_step(name: str, labels: list[str], calls: dict[str, int], rule: RunRule, said: tuple[str, str]) -> None:
    assert steps(name, labels, calls, rule)[rule.name] == said


NAMES = ("mail__send", "crm__refund", "web__get", "crm__find")
GRANTS = (
    Grant("all", "allow", tools=("*",)),
    Grant("tainted", "deny", tools=("crm__refund",), when="'people' in run.labels"),
)


@given(
    st.sets(st.sampled_from(["untrusted", "private", "people"])),
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 3)),
    st.sampled_from(NAMES),
    st.booleans(),
)
def test_the_decision_is_that_of_the_first_step_that_applies(
    labels: set[str], calls: dict[str, int], name: str, granted: bool
) -> None:
    rules = RunRules(RunSpec(HOUR, labels=LABELS, rules=ALL), SITE)
    runs = imagined(rules, FakeClock(), LOCAL, "e", sorted(labels), calls)
    server, _, own = name.partition("__")
    grants = Grants(GRANTS, SITE) if granted else None
    found = explain(grants, LOCAL, "e", "tools", (server, own), {}, {}, 0.0, runs)
    applying = [one for one in found.steps if one.verdict == "applies" and one.effect != "allow"]
    applying.sort(key=lambda one: one.effect != "deny")
    assert found.decision.effect == (applying[0].effect if applying else "allow")
    if applying:
        assert found.decision.rule == applying[0].rule
