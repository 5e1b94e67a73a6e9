"""What each rule on runs says of a call, and what its run had done: for `narthex explain`.

In: the rules, and a run, real or imagined. Out: a step a rule, in the order of the file; the verdict is that of the
code that decides calls. Cases: `tests/flow/policy/runs/test_explanation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from narthex.flow.identity.who import fits
from narthex.flow.policy.runs.rules import Mark, RunRules, Watching, covers
from narthex.flow.policy.runs.runs import Run, Runs
from narthex.flow.policy.step import Step
from narthex.types import Kind, Principal


def imagined(
    rules: RunRules,
    clock: Callable[[], float],
    principal: Principal,
    endpoint: str,
    labels: Iterable[str],
    calls: Mapping[str, int],
) -> Runs:
    """Runs of which that of this principal has these labels, and has made these calls just now, each answered.

    Args:
        calls: Canonical names of tools, and how often.
    """
    runs = Runs(rules, clock)
    key = runs.key_of(principal, endpoint)
    for label in labels:
        runs.label(key, label)
    for name, count in calls.items():
        plan = rules.plans(principal).plan("tools", name)
        for _ in range(min(count, 1000)):
            _, taken = runs.admit(key, plan._replace(rules=()), name)
            if taken is not None:
                taken.end("done")
    return runs


def steps_of(runs: Runs, principal: Principal, endpoint: str, kind: Kind, name: str) -> tuple[Step, ...]:
    """What each rule says of a call of this canonical name."""
    run, now = runs.get(runs.key_of(principal, endpoint)), runs.clock()
    rules = sorted(runs.rules.rules, key=lambda one: one.rule.line)
    return tuple(_step(one, run, principal, kind, name, now) for one in rules)


def _step(one: Watching, run: Run, principal: Principal, kind: Kind, name: str, now: float) -> Step:
    rule = one.rule
    if not covers(rule.what, kind, name):
        return Step(rule.name, rule.line, rule.effect, "skipped", f"no pattern of it covers {name}")
    if not fits(rule.who, principal):
        return Step(rule.name, rule.line, rule.effect, "skipped", "it is for others")
    text = "; ".join(_said(one, mark, run, now) for mark in (*one.needs, *one.lacks))
    if rule.shadow:
        text = f"in shadow mode: {text}"
    return Step(rule.name, rule.line, rule.effect, "applies" if run.meets(one, now) else "not met", text)


def _said(one: Watching, mark: Mark, run: Run, now: float) -> str:
    """What is so of one mark that the rule looks at."""
    count, word = run.count(mark, now), mark.key[0]
    if word == "label":
        return f"the run {'has' if count else 'lacks'} the label {mark.key[1]}"
    if word in ("after", "done"):
        names = ", ".join(filter(None, mark.key[1:]))
        what = "was used" if word == "after" else "has answered"
        return f"{names} {what}" if count else f"none of {names} {what}"
    if word == "cool_down":
        return f"{'one' if count else 'none'} was in the last {mark.within_s:g} s"
    return f"{count} of at most {mark.most} in {mark.within_s:g} s"
