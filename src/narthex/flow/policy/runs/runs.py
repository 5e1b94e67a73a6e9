"""The runs of a process: what each has done lately, and what its next call may therefore not do.

In: calls as they are let through and as they end, the time. Out: the `Decision` of a rule, None where none objects;
`Taken`, which is told what became of the call; labels and counts for conditions. A call is decided and taken in one
step, so of two that come at once the second one sees the first. All of it lies in memory and has bounds; where they are
reached new runs are refused, for forgetting one would take its labels off.
Cases: `tests/flow/policy/runs/test_runs.py`, `test_runs_machine.py`. Source: design §3 and §4 (the tenant is in
every key); `docs/decisions/what-a-run-is.md`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Literal

import msgspec

from narthex.errors import Overloaded
from narthex.flow.codec.jsonrpc import BAD_JSON, RawMap
from narthex.flow.identity.who import fits
from narthex.flow.policy.decision import Decision
from narthex.flow.policy.runs.rules import Mark, Plan, RunRules, Watching, label_key
from narthex.flow.policy.runs.tally import Room, Tally
from narthex.types import Principal

MOST_BYTES = 128 * 1024 * 1024
"""What the marks of all runs may take; of rules that leave many, there can be fewer runs than configured."""
MOST_TALLIED = 100_000
"""Names that the tallies of all runs tell apart."""
LONGEST_ID = 128
SHARE = 4
"""One principal may have the n-th part of all runs: an agent that invents ids leaves room for others."""
FORGOTTEN_AT_ONCE = 500
_BYTES_OF_RUN, _BYTES_OF_MARK, _BYTES_OF_TIME = 1024, 256, 32

End = Literal["done", "failed", "asked", "unsent"]
"""What became of a call: answered without an error; sent, and anything else; the server only asked for input, and the
call comes again with it; nothing was sent."""
RunKey = tuple[tuple[str, str, str, str], str, str]
"""The principal's key (tenant, issuer, subject, agent), the endpoint, and the id a trusted agent gave, or empty."""
UNWATCHED: Mapping[str, Any] = {"labels": [], "calls": {}}
"""What can be said of a run that nobody watches, or that has done nothing."""
_read_text = msgspec.json.Decoder(str).decode


def id_in(meta: RawMap, name: str) -> str:
    """The id of a run that this member of `_meta` gives; empty where there is none that can be used."""
    raw = meta.get(name)
    if raw is None:
        return ""
    try:
        text = _read_text(raw)
    except BAD_JSON:
        return ""
    if name == "traceparent":  # W3C Trace Context §3.2: version, trace, parent, flags
        parts = text.split("-")
        text = parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else ""
    return text if len(text) <= LONGEST_ID else ""


class Recent:
    """How often something was, lately: calls under way, and when the last of those that have ended did."""

    __slots__ = ("ended", "under_way")

    def __init__(self) -> None:
        self.under_way = 0
        self.ended: list[float] = []

    def count(self, mark: Mark, now: float) -> int:
        """How many of the last `within_s`."""
        ended = self.ended
        if ended and ended[0] <= (since := now - mark.within_s):
            del ended[: bisect_right(ended, since)]
        return self.under_way + len(ended)

    def end(self, mark: Mark, now: float) -> None:
        """One has ended, or began and ended."""
        self.ended.append(now)
        if len(self.ended) > mark.most:
            del self.ended[0]


class Run:
    """What one run has done. `open`: its calls under way; `touched`: when one last began or ended."""

    __slots__ = ("calls", "key", "marks", "open", "placed", "touched")

    def __init__(self, key: RunKey, now: float) -> None:
        self.key = key
        self.marks: dict[tuple[str, ...], Recent] = {}
        self.calls: Tally | None = None
        self.open = 0
        self.touched = self.placed = now

    def recent(self, mark: Mark) -> Recent:
        """Where this mark is counted."""
        found = self.marks.get(mark.key)
        if found is None:
            found = self.marks[mark.key] = Recent()
        return found

    def count(self, mark: Mark, now: float) -> int:
        """How often it was left, lately."""
        recent = self.marks.get(mark.key)
        return recent.count(mark, now) if recent is not None else 0

    def wait_s(self, plan: Plan, decision: Decision, now: float) -> float | None:
        """Seconds until the rule that said this has room again, if no other call takes it; None: nobody can tell."""
        waits = [
            recent.ended[recent.under_way - mark.most] + mark.within_s - now
            for rule in plan.rules
            if rule.decision is decision
            for mark in rule.needs
            if mark in plan.counted and (recent := self.marks.get(mark.key)) is not None
            if recent.under_way < mark.most <= recent.count(mark, now)
        ]
        return min(waits, default=None)

    def meets(self, rule: Watching, now: float) -> bool:
        """Does the rule hold for it now?"""
        for mark in rule.needs:
            if self.count(mark, now) < mark.most:
                return False
        for mark in rule.lacks:  # noqa: SIM110 - a generator costs more than what it runs
            if self.count(mark, now):
                return False
        return True


_NEW = Run((("", "", "", ""), "", ""), 0.0)
"""What has done nothing yet."""


class Taken:
    """A call that was let through: what it leaves on its run, until it is told what became of it."""

    __slots__ = ("_plan", "_run", "_runs")

    def __init__(self, runs: Runs, run: Run, plan: Plan) -> None:
        self._runs = runs
        self._run = run
        self._plan: Plan | None = plan
        run.open += 1
        for mark in plan.begins:
            run.recent(mark).under_way += 1
        for mark in plan.counted:
            run.recent(mark).under_way += 1

    @property
    def asks(self) -> bool:
        """Does it matter whether the answer is an error?"""
        return self._plan is not None and bool(self._plan.done)

    def end(self, end: End) -> None:
        """The call has ended. The first time counts."""
        plan, run = self._plan, self._run
        if plan is None:
            return
        self._plan = None
        run.open -= 1
        run.touched = now = self._runs.clock()
        for mark in plan.begins:
            recent = run.recent(mark)
            recent.under_way -= 1
            if end != "unsent":
                recent.end(mark, now)
        for mark in plan.counted:
            recent = run.recent(mark)
            recent.under_way -= 1
            if end == "done" or end == "failed":
                recent.end(mark, now)
        if end == "done":
            for mark in plan.done:
                run.recent(mark).end(mark, now)

    def decide_again(self, plan: Plan) -> Decision | None:
        """What a rule says against going on with it, by what else its run has done meanwhile; None: nothing."""
        mine, run = self._plan, self._run
        if mine is None:
            return None
        own = [run.recent(mark) for mark in (*mine.begins, *mine.counted)]
        for recent in own:
            recent.under_way -= 1
        try:
            return self._runs.decide(run, plan)
        finally:
            for recent in own:
                recent.under_way += 1


class Runs:
    """All runs.

    Args:
        clock: Monotonic seconds.
        tallies: Does anything ask how often what was called?
        told: Is what a run was before a call told to an engine, or recorded?
    """

    def __init__(
        self, rules: RunRules, clock: Callable[[], float], *, tallies: bool = True, told: bool = False
    ) -> None:
        self.clock = clock
        self._runs: dict[RunKey, Run] = {}
        self._of_subject: dict[tuple[str, ...], int] = {}
        self._room = Room(MOST_TALLIED)
        self.apply(rules, tallies=tallies, told=told)

    def apply(self, rules: RunRules, *, tallies: bool, told: bool = False) -> None:
        """Take over another configuration. What runs have done is kept: a reload takes no label off."""
        self.rules = rules
        self.told = told
        self._tallies = tallies
        worst = _BYTES_OF_RUN + sum(_BYTES_OF_MARK + _BYTES_OF_TIME * mark.most for mark in rules.marks)
        self._most = max(1, min(rules.spec.most_runs, MOST_BYTES // worst))
        self._most_of_one = max(1, self._most // SHARE)

    def __len__(self) -> int:
        return len(self._runs)

    def trusts(self, principal: Principal) -> bool:
        """May this agent say which run a call is part of?"""
        return any(fits(one, principal) for one in self.rules.spec.trusted)

    def key_of(self, principal: Principal, endpoint: str) -> RunKey:
        """The run of calls that give no id."""
        return (principal.key, endpoint if self.rules.spec.endpoints == "apart" else "", "")

    def id_of(self, meta: RawMap) -> str:
        """The id that `_meta` gives; empty where there is none that can be used: then the call is part of the run of
        all that give none."""
        return id_in(meta, self.rules.spec.run_id)

    def admit(
        self, key: RunKey, plan: Plan, name: str, *, tallied: bool = True
    ) -> tuple[Decision | None, Taken | None]:
        """Decide a call, and count it where it is let through or held.

        Args:
            name: The canonical name, by which it is tallied.
        Returns: what a rule says against it (None: nothing); and who is to be told what becomes of it (None: nobody).
        Raises:
            Overloaded: It would begin a run, and there are too many.
        """
        run = self._runs.get(key)
        decision = self.decide(run, plan) if plan.rules else None
        if decision is not None and decision.effect == "deny":
            return decision, None
        tallied = tallied and self._tallies
        if not (tallied or plan.begins or plan.counted or plan.done):
            return decision, None
        now = self.clock()
        if run is None:
            run = self._begin(key, now)
        elif now - run.placed > self.rules.horizon_s / 16:
            self._place(run, now)
        run.touched = now
        if tallied:
            if run.calls is None:
                run.calls = Tally(self._room)
            run.calls.add(name, now, self.rules.spec.window_s)
        return decision, Taken(self, run, plan)

    def decide(self, run: Run | None, plan: Plan) -> Decision | None:
        """What the first rule that holds says: a denial, if one does."""
        run, now = run or _NEW, self.clock()
        for rule in plan.rules:
            if run.meets(rule, now):
                return rule.decision
        return None

    def would(self, run: Run, plan: Plan) -> Decision | None:
        """The same of the rules in shadow mode."""
        now = self.clock()
        return next((rule.decision for rule in plan.trial if run.meets(rule, now)), None)

    def get(self, key: RunKey) -> Run:
        """What this run has done: to be looked at only."""
        return self._runs.get(key, _NEW)

    def facts(self, key: RunKey) -> Mapping[str, Any]:
        """What conditions can say of a run: its labels, and its calls by canonical name."""
        run = self._runs.get(key)
        if run is None:
            return UNWATCHED
        now, window_s = self.clock(), self.rules.spec.window_s
        labels = [
            one[1] for one, recent in run.marks.items() if one[0] == "label" and recent.count(Mark(one, window_s), now)
        ]
        return {"labels": sorted(labels), "calls": run.calls.counts(now, window_s) if run.calls is not None else {}}

    def label(self, key: RunKey, label: str) -> None:
        """Put a label on a run, as a call that has just ended would: for a call that is only imagined."""
        now = self.clock()
        run = self._runs.get(key) or self._begin(key, now)
        mark = Mark(label_key(label), self.rules.spec.window_s)
        run.recent(mark).end(mark, now)

    # --- which there are, the longest untouched first

    def _begin(self, key: RunKey, now: float) -> Run:
        """Raises Overloaded."""
        if self._is_full(key):
            self.sweep()
            if self._is_full(key):
                raise Overloaded("the gateway watches too many runs; try again later")
        run = self._runs[key] = Run(key, now)
        subject = key[0][:3]  # with any agent: who may register clients would have all the runs otherwise
        self._of_subject[subject] = self._of_subject.get(subject, 0) + 1
        return run

    def _is_full(self, key: RunKey) -> bool:
        of = self._of_subject.get(key[0][:3], 0)
        return len(self._runs) >= self._most or of >= self._most_of_one

    def _place(self, run: Run, now: float) -> None:
        del self._runs[run.key]
        self._runs[run.key] = run
        run.placed = now

    def sweep(self) -> None:
        """Once a second: forget runs of which nothing counts any more."""
        now = self.clock()
        before = now - self.rules.horizon_s
        for run in list(islice(self._runs.values(), FORGOTTEN_AT_ONCE)):
            if run.placed > before:
                break
            if run.open or run.touched > before:
                self._place(run, now)
            else:
                self._forget(run)

    def _forget(self, run: Run) -> None:
        del self._runs[run.key]
        if run.calls is not None:
            run.calls.clear()
        subject = run.key[0][:3]
        left = self._of_subject[subject] - 1
        if left:
            self._of_subject[subject] = left
        else:
            del self._of_subject[subject]
