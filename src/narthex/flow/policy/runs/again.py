"""What a rule on runs said, from what a record tells of the run: its labels, and how often what was called.

In: the plan of a name, the record's `input.run`. Out: the decision of the first rule that holds, None where none does.
Counts are those of the run's window in steps of an eighth, and say nothing of how calls ended, so not everything can be
told: then `Unclear` says which rule. Cases: `tests/flow/policy/runs/test_again.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from narthex.flow.policy.decision import Decision
from narthex.flow.policy.runs.rules import Mark, Plan, Watching, covers
from narthex.flow.policy.runs.tally import OTHERS
from narthex.types import Kind, Patterns

Run = Mapping[str, Any]
"""`labels` and `calls` of an input document."""
_KINDS: tuple[Kind, ...] = ("tools", "prompts", "resources")


class Unclear(Exception):
    """A rule may have held or not. The text says which, and why that cannot be told."""


def decided_from(plan: Plan, run: Run | None, window_s: float) -> Decision | None:
    """The decision on a call.

    Args:
        run: None where nothing was recorded. window_s: of the run.
    Raises:
        Unclear: See above.
    """
    for rule in plan.rules:
        if run is None:
            raise Unclear(f"what its run had done was not recorded, and '{rule.rule.name}' looks at it")
        holds = _holds(rule, run, window_s)
        if holds is None:
            raise Unclear(f"how calls before it ended and when is not recorded, and '{rule.rule.name}' looks at it")
        if holds:
            return rule.decision
    return None


def _holds(rule: Watching, run: Run, window_s: float) -> bool | None:
    """None: that depends on more than is known."""
    said = [_was_left(mark, rule, run, window_s) for mark in rule.needs]
    said += [not _called(rule.rule.unless_after, run) or None for _ in rule.lacks]
    if False in said:
        return False
    return None if None in said else True


def _was_left(mark: Mark, rule: Watching, run: Run, window_s: float) -> bool | None:
    word = mark.key[0]
    if word == "label":
        return mark.key[1] in run.get("labels", ())
    calls = _called(rule.rule.after if word == "after" else rule.rule.what, run)
    if mark.within_s > window_s:
        return None
    return None if calls >= mark.most else False


def _called(what: Patterns | None, run: Run) -> int:
    """How many calls there may have been of these; never less than there were."""
    calls: Mapping[str, int] = run.get("calls", {})
    return sum(
        count for name, count in calls.items() if name == OTHERS or any(covers(what, kind, name) for kind in _KINDS)
    )
