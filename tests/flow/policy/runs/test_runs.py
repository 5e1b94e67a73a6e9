"""Rules over the calls of a run: a row a rule."""

from __future__ import annotations

from typing import Any

import pytest

from narthex.errors import Overloaded
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.policy.runs.rules import RunRules, uncounted
from narthex.flow.policy.runs.runs import End, RunKey, Runs, Taken
from narthex.flow.policy.site import Site
from narthex.testing import FakeClock
from narthex.types import LOCAL, DataSpec, Kind, LabelRow, Patterns, Principal, RunRule, RunSpec, Who

HOUR = 3600.0
SITE = Site(
    "", DataSpec({"web": ("public", "none"), "crm": ("confidential", "personal"), "mail": ("internal", "none")})
)
LABELS = (
    LabelRow(("untrusted",), Patterns(("web__*",), ("web__*",), ("web__*",))),
    LabelRow(("private",), None, frozenset({"confidential", "restricted"})),
    LabelRow(("people",), Patterns(("crm__*",)), privacy=frozenset({"personal"})),
)
SUPPORT = Principal("acme", "idp", "ada", "bot", roles=("support",), method="jwt")
TRIFECTA = RunRule("trifecta", "deny", Patterns(("mail__send",)), labels=("untrusted", "private"), line=3)
LOOK_FIRST = RunRule("look first", "deny", Patterns(("crm__refund",)), unless_after=Patterns(("crm__find",)))
NOT_AFTER = RunRule("not after", "deny", Patterns(("mail__*",)), after=Patterns(("crm__*",), (), ("crm__*",)))
FEW = RunRule("few", "deny", Patterns(("crm__refund",)), at_most=2)
FEW_A_MINUTE = RunRule("few a minute", "deny", Patterns(("crm__refund",)), at_most=2, within_s=60.0)
SLOWLY = RunRule("slowly", "deny", Patterns(("mail__send",)), cool_down_s=30.0)
ASK = RunRule("ask", "hold", Patterns(("mail__send",)), labels=("untrusted",))


class Watched:
    """Runs with a clock, asked by name."""

    def __init__(self, *rules: RunRule, **spec: Any) -> None:
        self.clock = FakeClock()
        self.spec = RunSpec(HOUR, labels=LABELS, rules=rules, **spec)
        self.runs = Runs(RunRules(self.spec, SITE), self.clock)

    def begin(
        self, name: str, who: Principal = LOCAL, *, kind: Kind = "tools", endpoint: str = "default", id_: str = ""
    ) -> tuple[str, Taken | None]:
        plan = self.runs.rules.plans(who).plan(kind, name)
        decision, taken = self.runs.admit((who.key, endpoint, id_), plan, name)
        return ("allowed" if decision is None else f"{decision.effect}: {decision.reason} by {decision.rule}"), taken

    def call(self, name: str, end: End = "done", **more: Any) -> str:
        said, taken = self.begin(name, **more)
        if taken is not None:
            taken.end(end)
        return said

    def labels(self, key: RunKey = (LOCAL.key, "default", "")) -> list[str]:
        return list(self.runs.facts(key)["labels"])


Step = str | tuple[str, End] | float


@pytest.mark.parametrize(
    ("rules", "steps", "said"),
    [
        pytest.param([TRIFECTA], ["web__get", "mail__send"], "allowed", id="one label of two"),
        pytest.param(
            [TRIFECTA], ["web__get", "crm__find", "mail__send"], "deny: run_labels by trifecta", id="both labels"
        ),
        pytest.param(
            [TRIFECTA], ["crm__find", "web__get", "mail__send"], "deny: run_labels by trifecta", id="in any order"
        ),
        pytest.param(
            [TRIFECTA],
            [("web__get", "failed"), ("crm__find", "failed"), "mail__send"],
            "deny: run_labels by trifecta",
            id="an error taints too",
        ),
        pytest.param(
            [TRIFECTA],
            [("web__get", "asked"), ("crm__find", "done"), "mail__send"],
            "deny: run_labels by trifecta",
            id="a question taints too",
        ),
        pytest.param(
            [TRIFECTA], [("web__get", "unsent"), "crm__find", "mail__send"], "allowed", id="what was not sent does not"
        ),
        pytest.param([TRIFECTA], ["web__get", "crm__find", HOUR, "mail__send"], "allowed", id="the window has passed"),
        pytest.param(
            [TRIFECTA],
            ["web__get", "crm__find", HOUR - 1, "mail__send"],
            "deny: run_labels by trifecta",
            id="the window has not passed",
        ),
        pytest.param(
            [TRIFECTA],
            ["web__get", HOUR / 2, "web__get", "crm__find", HOUR - 1, "mail__send"],
            "deny: run_labels by trifecta",
            id="the last time counts",
        ),
        pytest.param([LOOK_FIRST], ["crm__refund"], "deny: run_order by look first", id="not before"),
        pytest.param([LOOK_FIRST], ["crm__find", "crm__refund"], "allowed", id="after"),
        pytest.param(
            [LOOK_FIRST],
            [("crm__find", "failed"), "crm__refund"],
            "deny: run_order by look first",
            id="an error is no answer",
        ),
        pytest.param(
            [LOOK_FIRST], ["crm__find", HOUR, "crm__refund"], "deny: run_order by look first", id="too long ago"
        ),
        pytest.param([NOT_AFTER], ["mail__send", "crm__find"], "allowed", id="before"),
        pytest.param([NOT_AFTER], ["crm__find", "mail__send"], "deny: run_after by not after", id="never after"),
        pytest.param(
            [NOT_AFTER],
            [("crm__find", "failed"), "mail__send"],
            "deny: run_after by not after",
            id="never after, failed too",
        ),
        pytest.param([FEW], ["crm__refund", "crm__refund"], "allowed", id="as many as may be"),
        pytest.param([FEW], ["crm__refund"] * 3, "deny: run_count by few", id="one more"),
        pytest.param(
            [FEW],
            [("crm__refund", "unsent"), ("crm__refund", "asked"), ("crm__refund", "failed"), "crm__refund"],
            "allowed",
            id="what was not made is not counted",
        ),
        pytest.param(
            [FEW_A_MINUTE],
            ["crm__refund", 59.0, "crm__refund", "crm__refund"],
            "deny: run_count by few a minute",
            id="within",
        ),
        pytest.param([FEW_A_MINUTE], ["crm__refund", 60.0, "crm__refund", "crm__refund"], "allowed", id="slides"),
        pytest.param([SLOWLY], ["mail__send", 29.0, "mail__send"], "deny: run_cool_down by slowly", id="too soon"),
        pytest.param([SLOWLY], ["mail__send", 30.0, "mail__send"], "allowed", id="cooled down"),
        pytest.param([ASK], ["web__get", "mail__send"], "hold: run_labels by ask", id="hold"),
        pytest.param(
            [ASK, TRIFECTA], ["web__get", "crm__x", "mail__send"], "deny: run_labels by trifecta", id="deny before hold"
        ),
    ],
)
def test_rule(rules: list[RunRule], steps: list[Step], said: str) -> None:
    watched, found = Watched(*rules), ""
    for step in steps:
        if isinstance(step, float):
            watched.clock.advance(step)
        else:
            name, end = (step, "done") if isinstance(step, str) else step
            found = watched.call(name, end)  # type: ignore[arg-type]
    assert found == said


def test_labels_by_name_by_class_and_by_both() -> None:
    watched = Watched()
    for kind, name, labels in (
        ("tools", "mail__send", []),
        ("prompts", "web__p", ["untrusted"]),
        ("resources", "crm__file:a", ["private", "untrusted"]),
        ("tools", "crm__find", ["people", "private", "untrusted"]),
    ):
        watched.call(name, kind=kind)
        assert watched.labels() == labels


def test_a_call_under_way_counts() -> None:
    watched = Watched(TRIFECTA, FEW)
    _, web = watched.begin("web__get")
    _, crm = watched.begin("crm__find")
    assert watched.call("mail__send") == "deny: run_labels by trifecta"
    assert web is not None and crm is not None
    web.end("unsent")
    web.end("done")  # the first time counts
    assert watched.call("mail__send") == "allowed"
    watched.clock.advance(10 * HOUR)
    assert watched.labels() == ["people", "private"]
    first, second = watched.begin("crm__refund")[1], watched.begin("crm__refund")[1]
    assert watched.call("crm__refund") == "deny: run_count by few"
    assert first is not None and second is not None
    first.end("unsent")
    assert watched.call("crm__refund") == "allowed"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({"who": SUPPORT}, {"who": LOCAL}, id="principal"),
        pytest.param({"who": SUPPORT}, {"who": Principal("acme", "idp", "ada", "ide", method="jwt")}, id="agent"),
        pytest.param({"who": SUPPORT}, {"who": Principal("evil", "idp", "ada", "bot", method="jwt")}, id="tenant"),
        pytest.param({"endpoint": "default"}, {"endpoint": "other"}, id="endpoint"),
        pytest.param({"id_": "a"}, {"id_": "b"}, id="the id of a trusted agent"),
    ],
)
def test_runs_are_apart(first: dict[str, Any], second: dict[str, Any]) -> None:
    watched = Watched(NOT_AFTER)
    watched.call("crm__find", **first)
    assert watched.call("mail__send", **first) == "deny: run_after by not after"
    assert watched.call("mail__send", **second) == "allowed"


def test_a_rule_is_for_some_and_what_they_did_before_they_were_counts() -> None:
    rule = RunRule("not after", "deny", Patterns(("mail__*",)), Who(role=("support",)), after=Patterns(("crm__*",)))
    watched = Watched(rule)
    plain = Principal("acme", "idp", "ada", "bot", method="jwt")
    watched.call("crm__find", who=plain)
    assert watched.call("mail__send", who=plain) == "allowed"
    assert watched.call("mail__send", who=SUPPORT) == "deny: run_after by not after"


def test_a_retry_is_not_stopped_by_its_own_call_but_by_others() -> None:
    watched = Watched(SLOWLY, TRIFECTA)
    _, held = watched.begin("mail__send")
    assert held is not None
    plan = watched.runs.rules.plans(LOCAL).plan("tools", "mail__send")
    assert held.decide_again(plan) is None
    watched.call("crm__find")
    watched.call("web__get")
    decision = held.decide_again(plan)
    assert decision is not None and decision.rule == "trifecta"
    held.end("done")
    assert watched.call("mail__send") == "deny: run_cool_down by slowly"


def test_a_completion_is_no_call_that_is_counted() -> None:
    rule = RunRule("few", "deny", Patterns((), ("web__*",)), at_most=1)
    watched = Watched(rule, RunRule("no", "deny", Patterns((), ("web__*",)), after=Patterns(("crm__*",))))
    plan = uncounted(watched.runs.rules.plans(LOCAL).plan("prompts", "web__p"))
    assert [one.rule.name for one in plan.rules] == ["no"]
    assert not plan.counted
    assert [mark.key for mark in plan.begins] == [("label", "untrusted")]


@pytest.mark.parametrize(
    ("tool", "end", "labels", "said"),
    [
        pytest.param("find", "done", ["people", "private"], "allowed", id="its answer"),
        pytest.param("find", "failed", ["people", "private"], "deny: run_order by look first", id="news of it"),
        pytest.param("", "done", ["people", "private"], "deny: run_order by look first", id="nobody knows which tool"),
    ],
)
def test_what_a_task_gives_taints_as_its_call_does(tool: str, end: End, labels: list[str], said: str) -> None:
    watched = Watched(LOOK_FIRST, NOT_AFTER)
    plan = watched.runs.rules.plans(LOCAL).plan_of_answer("crm", tool, tells=False)
    _, taken = watched.runs.admit((LOCAL.key, "default", ""), plan, "", tallied=False)
    assert taken is not None
    taken.end(end)
    assert watched.labels() == labels
    assert watched.call("mail__x") == "deny: run_after by not after"
    assert watched.call("crm__refund") == said


def test_a_reload_takes_no_label_off() -> None:
    watched = Watched(TRIFECTA)
    _, under_way = watched.begin("web__get")
    watched.call("crm__find")
    other = RunRule("other", "deny", Patterns(("mail__*",)), labels=("untrusted", "people"))
    watched.runs.apply(RunRules(RunSpec(HOUR, labels=LABELS, rules=(other,)), SITE), tallies=True)
    assert watched.call("mail__send") == "deny: run_labels by other"
    assert under_way is not None
    under_way.end("done")
    assert watched.labels() == ["people", "private", "untrusted"]


def test_what_was_called_how_often() -> None:
    watched = Watched()
    for name in ("web__get", "web__get", "crm__find"):
        watched.call(name)
    assert watched.runs.facts((LOCAL.key, "default", ""))["calls"] == {"web__get": 2, "crm__find": 1}
    assert watched.runs.facts((LOCAL.key, "other", "")) == {"labels": [], "calls": {}}


def test_nothing_is_kept_of_what_no_rule_asks() -> None:
    watched = Watched(LOOK_FIRST)
    watched.runs.apply(RunRules(RunSpec(rules=(LOOK_FIRST,)), SITE), tallies=False)
    watched.call("mail__send")
    assert len(watched.runs) == 0
    watched.call("crm__find")
    assert len(watched.runs) == 1


def test_runs_are_forgotten_once_nothing_of_them_counts() -> None:
    watched = Watched(TRIFECTA, FEW)
    watched.call("web__get", endpoint="a")
    _, open_ = watched.begin("web__get", endpoint="b")
    watched.clock.advance(HOUR / 2)
    watched.call("mail__send", endpoint="a")
    watched.clock.advance(HOUR / 2)
    watched.runs.sweep()
    assert len(watched.runs) == 2
    watched.clock.advance(HOUR)
    watched.runs.sweep()
    assert len(watched.runs) == 1
    assert open_ is not None
    open_.end("done")
    watched.clock.advance(HOUR - 1)
    watched.runs.sweep()
    assert len(watched.runs) == 1
    watched.clock.advance(HOUR)
    watched.runs.sweep()
    assert len(watched.runs) == 0


def test_a_full_gateway_begins_no_run_and_forgets_none() -> None:
    watched = Watched(TRIFECTA, most_runs=8)
    who = [Principal("acme", "idp", f"ada{number}", method="jwt") for number in range(9)]
    for one in who[:4]:
        for endpoint in ("a", "b"):
            assert watched.call("web__get", who=one, endpoint=endpoint) == "allowed"
    with pytest.raises(Overloaded):
        watched.call("web__get", who=who[8])
    watched.call("crm__find", who=who[0], endpoint="a")
    assert watched.call("mail__send", who=who[0], endpoint="a") == "deny: run_labels by trifecta"
    watched.clock.advance(HOUR)
    assert watched.call("web__get", who=who[8]) == "allowed"


def test_nobody_may_use_up_all_runs_with_however_many_agents() -> None:
    watched = Watched(TRIFECTA, most_runs=8)

    def call(subject: str, agent: str) -> str:
        return watched.call("web__get", who=Principal("acme", "idp", subject, agent, method="jwt"))

    assert [call("ada", "bot"), call("ada", "ide")] == ["allowed", "allowed"]
    with pytest.raises(Overloaded):
        call("ada", "registered a moment ago")
    assert call("bea", "bot") == "allowed"


def test_rules_with_many_marks_leave_room_for_fewer_runs() -> None:
    many = tuple(RunRule(f"r{number}", "deny", Patterns(("*",)), at_most=1000) for number in range(100))
    small, large = RunRules(RunSpec(rules=(FEW,)), SITE), RunRules(RunSpec(rules=many), SITE)
    assert Runs(small, FakeClock())._most == RunSpec().most_runs
    assert Runs(large, FakeClock())._most < 50


@pytest.mark.parametrize(
    ("key", "meta", "id_"),
    [
        pytest.param("io.narthex/run", {"io.narthex/run": b'"a"'}, "a", id="id"),
        pytest.param("io.narthex/run", {}, "", id="none"),
        pytest.param("io.narthex/run", {"io.narthex/run": b"7"}, "", id="no text"),
        pytest.param("io.narthex/run", {"io.narthex/run": b'"' + b"x" * 129 + b'"'}, "", id="too long"),
        pytest.param(
            "traceparent", {"traceparent": b'"00-%b-b7ad6b7169203331-01"' % (b"a" * 32)}, "a" * 32, id="trace"
        ),
        pytest.param("traceparent", {"traceparent": b'"00-abc-b7ad6b7169203331-01"'}, "", id="no trace"),
    ],
)
def test_the_id_that_an_agent_gives(key: str, meta: dict[str, bytes], id_: str) -> None:
    watched = Watched(run_id=key)
    assert watched.runs.id_of({name: Raw(raw) for name, raw in meta.items()}) == id_


@pytest.mark.parametrize(
    ("trusted", "is_trusted"),
    [
        pytest.param((), False, id="nobody"),
        pytest.param((Who(client=("bot",)),), True, id="by name"),
        pytest.param((Who(client=("bot",), issuer=("other",)),), False, id="another issuer's agent of that name"),
    ],
)
def test_trusted_agents(trusted: tuple[Who, ...], is_trusted: bool) -> None:
    assert Watched(trusted=trusted).runs.trusts(SUPPORT) is is_trusted


@pytest.mark.parametrize(
    ("rules", "steps", "wait_s"),
    [
        pytest.param([SLOWLY], ["mail__send", 10.0], 20.0, id="cooling down"),
        pytest.param([FEW_A_MINUTE], ["crm__refund", 10.0, "crm__refund", 5.0], 45.0, id="until the first falls out"),
        pytest.param([FEW, FEW_A_MINUTE], ["crm__refund", "crm__refund"], HOUR, id="the rule that said so"),
    ],
)
def test_who_comes_too_soon_is_told_when_to_come(rules: list[RunRule], steps: list[Any], wait_s: float) -> None:
    watched, name = Watched(*rules), ""
    for step in steps:
        if isinstance(step, float):
            watched.clock.advance(step)
        else:
            name = step
            watched.call(name)
    plan = watched.runs.rules.plans(LOCAL).plan("tools", name)
    decision, _ = watched.runs.admit((LOCAL.key, "default", ""), plan, name)
    assert decision is not None
    run = watched.runs.get((LOCAL.key, "default", ""))
    assert run.wait_s(plan, decision, watched.clock()) == pytest.approx(wait_s)
    watched.clock.advance(wait_s)
    assert watched.call(name) == "allowed"


def test_a_place_that_calls_under_way_hold_is_free_nobody_knows_when() -> None:
    watched = Watched(FEW)
    for _ in range(2):
        watched.begin("crm__refund")
    plan = watched.runs.rules.plans(LOCAL).plan("tools", "crm__refund")
    decision, _ = watched.runs.admit((LOCAL.key, "default", ""), plan, "crm__refund")
    assert decision is not None
    assert watched.runs.get((LOCAL.key, "default", "")).wait_s(plan, decision, watched.clock()) is None
