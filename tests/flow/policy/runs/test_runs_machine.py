"""Runs against a model that remembers every call: windows slide, labels stay on, calls at once pass no bound."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from narthex.flow.policy.runs.rules import RunRules
from narthex.flow.policy.runs.runs import End, Runs, Taken
from narthex.flow.policy.site import NOWHERE
from narthex.testing import FakeClock
from narthex.types import LOCAL, LabelRow, Patterns, RunRule, RunSpec

WINDOW_S, SHORT_S = 60.0, 10.0
TOOLS = ("web__get", "crm__find", "crm__refund", "mail__send")
LABELS = {"untrusted": "web__*", "private": "crm__*"}
RULES = (
    RunRule("trifecta", "deny", Patterns(("mail__*",)), labels=("untrusted", "private")),
    RunRule("after", "deny", Patterns(("web__*",)), after=Patterns(("crm__refund",))),
    RunRule("first", "deny", Patterns(("crm__refund",)), unless_after=Patterns(("crm__find",))),
    RunRule("few", "deny", Patterns(("crm__*",)), at_most=3),
    RunRule("slow", "hold", Patterns(("mail__*",)), cool_down_s=SHORT_S),
    RunRule("labelled few", "deny", Patterns(("web__*",)), labels=("private",), at_most=2, within_s=SHORT_S),
)
IDS = ("", "a", "b")


@dataclass
class Past:
    """A call that was let through, as the model remembers it."""

    name: str
    id_: str
    taken: Taken | None
    end: End | None = None
    ended_at: float = 0.0


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(1000.0)
        self.labels = tuple(LabelRow((label,), Patterns((glob,))) for label, glob in LABELS.items())
        self.runs = Runs(self._rules(RULES), self.clock)
        self.rules = RULES
        self.past: list[Past] = []

    def _rules(self, rules: tuple[RunRule, ...]) -> RunRules:
        return RunRules(RunSpec(WINDOW_S, labels=self.labels, rules=rules), NOWHERE)

    # --- the model

    def counted(self, glob: str, id_: str, within_s: float, *ends: End) -> int:
        """Calls under way, and those that ended so within the time."""
        return sum(
            fnmatchcase(one.name, glob)
            and one.id_ == id_
            and (one.end is None or (one.end in ends and one.ended_at > self.clock() - within_s))
            for one in self.past
        )

    def answered(self, glob: str, id_: str) -> bool:
        return any(
            fnmatchcase(one.name, glob)
            and one.id_ == id_
            and one.end == "done"
            and one.ended_at > self.clock() - WINDOW_S
            for one in self.past
        )

    def labelled(self, id_: str) -> list[str]:
        return sorted(
            label for label, glob in LABELS.items() if self.counted(glob, id_, WINDOW_S, "done", "failed", "asked")
        )

    def holds(self, one: RunRule, name: str, id_: str) -> bool:
        (glob,) = one.what.tools
        if not fnmatchcase(name, glob) or not set(one.labels) <= set(self.labelled(id_)):
            return False
        if one.after and not self.counted(one.after.tools[0], id_, WINDOW_S, "done", "failed", "asked"):
            return False
        if one.unless_after and self.answered(one.unless_after.tools[0], id_):
            return False
        if one.at_most and self.counted(glob, id_, one.within_s or WINDOW_S, "done", "failed") < one.at_most:
            return False
        return not one.cool_down_s or self.counted(glob, id_, one.cool_down_s, "done", "failed") > 0

    def expected(self, name: str, id_: str) -> tuple[str, str] | None:
        holding = [one for one in self.rules if self.holds(one, name, id_)]
        holding.sort(key=lambda one: one.effect != "deny")
        return (holding[0].effect, holding[0].name) if holding else None

    # --- what happens

    @rule(name=st.sampled_from(TOOLS), id_=st.sampled_from(IDS))
    def begin(self, name: str, id_: str) -> None:
        plan = self.runs.rules.plans(LOCAL).plan("tools", name)
        expected = self.expected(name, id_)
        decision, taken = self.runs.admit((LOCAL.key, "default", id_), plan, name)
        assert (None if decision is None else (decision.effect, decision.rule)) == expected
        if decision is None or decision.effect != "deny":
            self.past.append(Past(name, id_, taken))
        else:
            assert taken is None

    @precondition(lambda self: any(one.end is None for one in self.past))
    @rule(data=st.data(), end=st.sampled_from(["done", "done", "failed", "asked", "unsent"]))
    def end(self, data: st.DataObject, end: End) -> None:
        one = data.draw(st.sampled_from([one for one in self.past if one.end is None]))
        assert one.taken is not None
        one.taken.end(end)
        one.taken.end("unsent")
        one.end, one.ended_at = end, self.clock()

    @precondition(lambda self: any(one.end is None for one in self.past))
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([one for one in self.past if one.end is None]))
        self.past.remove(one)
        expected = self.expected(one.name, one.id_)
        self.past.append(one)
        assert one.taken is not None
        decision = one.taken.decide_again(self.runs.rules.plans(LOCAL).plan("tools", one.name))
        assert (None if decision is None else (decision.effect, decision.rule)) == expected

    @rule(seconds=st.sampled_from([0.5, 5.0, SHORT_S, 30.0, WINDOW_S, 3 * WINDOW_S]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.runs.sweep()

    @rule(kept=st.sets(st.sampled_from(RULES)))
    def reload(self, kept: set[RunRule]) -> None:
        """Rules go, and what is left still counts what was before."""
        left = tuple(one for one in self.rules if one in kept) or self.rules
        self.rules = left
        self.runs.apply(self._rules(left), tallies=True)

    # --- what always holds

    @invariant()
    def labels_are_those_of_the_calls(self) -> None:
        for id_ in IDS:
            assert self.runs.facts((LOCAL.key, "default", id_))["labels"] == self.labelled(id_)

    @invariant()
    def no_bound_is_passed(self) -> None:
        if any(one.name == "few" for one in self.rules):
            for id_ in IDS:
                assert self.counted("crm__*", id_, WINDOW_S, "done", "failed") <= 3

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        assert len(self.runs) <= len(IDS)


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestRuns = Machine.TestCase
