"""What is watched over several calls: the operator's rules on a run, compiled to marks that calls leave and rules that
count them.

In: a `RunSpec`, the site, a principal, a canonical name. Out: a `Plan`: which marks a call of that name leaves, and
which rules look at which marks before it may go on. Pure; the marks of each run are kept in `runs`.
Cases: `tests/flow/policy/test_run_rules.py`. Source: design §3; `docs/guides/runs.md`.

`labels` and `after` count calls from the moment they are let through until the window has passed since their end,
whatever became of them. `unless_after` counts those that were answered without an error. `at_most` and `cool_down`
count calls of what the rule is on, as far as they were made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from narthex.flow.identity.who import fits
from narthex.flow.policy.decision import Decision
from narthex.flow.policy.site import NOWHERE, PATTERNS_OF, Data, Site, fits_class
from narthex.flow.route.names import canonical
from narthex.flow.route.patterns import compile_globs, narrowed, nothing
from narthex.types import Kind, LabelRow, Patterns, Principal, RunRule, RunSpec

RUN_LABELS = "run_labels"
RUN_AFTER = "run_after"
RUN_ORDER = "run_order"
RUN_COUNT = "run_count"
RUN_COOL_DOWN = "run_cool_down"
MOST_NAMES = 50_000
"""Names whose plans one set of rules remembers; then it begins anew."""
LONGEST_NAME = 256
"""Plans of longer ones are made each time: callers make up URIs, and memory is to have a bound."""
MOST_SETS = 1024

_COUNTS = ("count", "cool_down")

Key = tuple[str, ...]
"""What a mark is about. It is made of what the operator wrote, so that marks outlive a reload that leaves it alone."""


class Mark(NamedTuple):
    """What a call leaves on its run: it counts for `within_s`, and so many need be told apart."""

    key: Key
    within_s: float
    most: int = 1


class Watching(NamedTuple):
    """A rule. It holds where each of `needs` was left its `most` times, and none of `lacks` was."""

    rule: RunRule
    decision: Decision
    needs: tuple[Mark, ...]
    lacks: tuple[Mark, ...]


class Plan(NamedTuple):
    """What a call of one name means for the run it is part of.

    `rules`: denials first, then holds, in file order; `trial`: the same of those in shadow mode. `begins`: marks that
    count from when it is let through; `counted`: the same, given back where the call was not made; `done`: marks of an
    answer without an error.
    """

    rules: tuple[Watching, ...] = ()
    begins: tuple[Mark, ...] = ()
    counted: tuple[Mark, ...] = ()
    done: tuple[Mark, ...] = ()
    trial: tuple[Watching, ...] = ()


def label_key(label: str) -> Key:
    return ("label", label)


def _watching(rule: RunRule, window_s: float) -> Watching:
    """A rule with the marks that it looks at. Its reason is the one that says most about what to do now."""
    needs = [Mark(label_key(label), window_s) for label in rule.labels]
    lacks = []
    reason = RUN_LABELS
    if rule.after is not None:
        needs.append(_used("after", rule.after, window_s))
        reason = RUN_AFTER
    if rule.unless_after is not None:
        lacks.append(_used("done", rule.unless_after, window_s))
        reason = RUN_ORDER
    if rule.cool_down_s:
        needs.append(Mark(("cool_down", rule.name), rule.cool_down_s))
        reason = RUN_COOL_DOWN
    if rule.at_most:
        needs.append(Mark(("count", rule.name), rule.within_s or window_s, rule.at_most))
        reason = RUN_COUNT
    decision = Decision(rule.effect, reason, rule.name, rule.line)
    return Watching(rule, decision, tuple(needs), tuple(lacks))


def _used(word: str, what: Patterns, window_s: float) -> Mark:
    return Mark((word, *what.tools, "", *what.prompts, "", *what.resources), window_s)


def covers(what: Patterns | None, kind: Kind, name: str) -> bool:
    """Does a pattern fit this canonical name? None fits all."""
    return what is None or compile_globs(getattr(what, PATTERNS_OF[kind]))(name)


class RunRules:
    """All of them; the plans of a principal are shared by all whom the same rules fit. `all_count`: as if those in
    shadow mode counted."""

    __slots__ = ("_labels", "_plans", "_site", "all_count", "horizon_s", "marks", "rules", "spec")

    def __init__(self, spec: RunSpec, site: Site, *, all_count: bool = False) -> None:
        self.spec = spec
        self.all_count = all_count
        order = sorted(spec.rules, key=lambda one: one.effect != "deny")  # stable: file order within
        self.rules = tuple(_watching(one, spec.window_s) for one in order)
        self._labels = spec.labels
        self._site = site
        self._plans: dict[tuple[int, ...], Plans] = {}
        labels = [Mark(label_key(label), spec.window_s) for row in spec.labels for label in row.adds]
        self.marks = _once([*labels, *(mark for one in self.rules for mark in (*one.needs, *one.lacks))])
        """Every mark that a run can have."""
        self.horizon_s = max([spec.window_s, *(mark.within_s for mark in self.marks)])
        """For how long after its end a call can matter."""

    def plans(self, principal: Principal) -> Plans:
        """What watches this principal."""
        fitting = tuple(at for at, one in enumerate(self.rules) if fits(one.rule.who, principal))
        known = self._plans.get(fitting)
        if known is None:
            if len(self._plans) >= MOST_SETS:
                self._plans.clear()
            known = self._plans[fitting] = Plans(tuple(self.rules[at] for at in fitting), self)
        return known

    def labels(self, kind: Kind, name: str) -> tuple[str, ...]:
        """Which labels the use of this canonical name puts on a run."""
        data = self._site.data(kind, name)
        rows = (
            row
            for row in self._labels
            if covers(row.what, kind, name) and fits_class(data, row.classification, row.privacy)
        )
        return tuple(dict.fromkeys(label for row in rows for label in row.adds))

    def labels_of_server(self, server: str) -> tuple[str, ...]:
        """Every label that the use of some tool of this server could put on a run."""
        possible = self._site.possible("tools", server)
        rows = (row for row in self._labels if _could_cover(row.what, server) and _could_fit(row, possible))
        return tuple(dict.fromkeys(label for row in rows for label in row.adds))


def _could_cover(what: Patterns | None, server: str) -> bool:
    return what is None or narrowed(what.tools, canonical(server, "")) is not nothing


def _could_fit(row: LabelRow, possible: Iterable[Data]) -> bool:
    return any(fits_class(one, row.classification, row.privacy) for one in possible)


class Plans:
    """The rules that fit a principal, ready for each name."""

    __slots__ = ("_known", "_of", "rules")

    def __init__(self, rules: tuple[Watching, ...], of: RunRules) -> None:
        self.rules = rules
        self._of = of
        self._known: dict[tuple[Kind, str], Plan] = {}

    def plan(self, kind: Kind, name: str) -> Plan:
        """What a call of this canonical name means."""
        known = self._known.get((kind, name))
        if known is None:
            if len(self._known) >= MOST_NAMES:
                self._known.clear()
            known = self._make(kind, name)
            if len(name) <= LONGEST_NAME:
                self._known[kind, name] = known
        return known

    def _make(self, kind: Kind, name: str) -> Plan:
        begins = [Mark(label_key(label), self._of.spec.window_s) for label in self._of.labels(kind, name)]
        counted: list[Mark] = []
        done: list[Mark] = []
        for one in self._of.rules:  # whomever they are for: with the next token it may be this caller
            begins += [mark for mark in one.needs if mark.key[0] == "after" and covers(one.rule.after, kind, name)]
            done += [mark for mark in one.lacks if covers(one.rule.unless_after, kind, name)]
            if covers(one.rule.what, kind, name):
                counted += [mark for mark in one.needs if mark.key[0] in _COUNTS]
        rules = [one for one in self.rules if covers(one.rule.what, kind, name)]
        enforced = tuple(one for one in rules if self._of.all_count or not one.rule.shadow)
        trial = tuple(one for one in rules if one not in enforced)
        return Plan(enforced, _once(begins), _once(counted), _once(done), trial)

    def plan_of_answer(self, server: str, tool: str, *, tells: bool) -> Plan:
        """What it means to be told what an earlier call gave, a task: it is that tool's answer, and no call of it. An
        empty `tool` may be any of the server's. `tells`: and to tell the task something."""
        if tool:
            plan = self.plan("tools", canonical(server, tool))
            return Plan(uncounted(plan).rules if tells else (), plan.begins, (), plan.done)
        window_s, prefix = self._of.spec.window_s, canonical(server, "")
        begins = [Mark(label_key(label), window_s) for label in self._of.labels_of_server(server)]
        for one in self._of.rules:
            used = one.rule.after
            if used is not None and narrowed(used.tools, prefix) is not nothing:
                begins += [mark for mark in one.needs if mark.key[0] == "after"]
        return Plan((), _once(begins))


def uncounted(plan: Plan) -> Plan:
    """The same for what is no call that is counted: no bound on how many calls there may be is asked."""
    rules, trial = (
        tuple(one for one in some if not any(mark.key[0] in _COUNTS for mark in one.needs))
        for some in (plan.rules, plan.trial)
    )
    return Plan(rules, plan.begins, trial=trial)


def _once(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    return tuple({mark.key: mark for mark in marks}.values())


NO_PLANS = Plans((), RunRules(RunSpec(), NOWHERE))
"""Where nothing is watched."""
