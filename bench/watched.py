"""What rules over the calls of a run cost a call: one that they leave alone, one that taints, one under three of them.
For `steps.py`."""

from __future__ import annotations

from typing import Any

from granted import under
from kept import Least
from rooms import Rooms

from narthex.flow.policy.admissions import Admissions
from narthex.flow.policy.runs.rules import RunRules
from narthex.flow.policy.runs.runs import Runs
from narthex.flow.policy.site import NOWHERE
from narthex.types import LabelRow, Patterns, RunRule, RunSpec

ALL, OTHER = Patterns(("server__*",)), Patterns(("other__*",))
AT_ONCE_S = 0.001
"""A window in which fewer calls pass than `at_most` allows, however long this runs."""
UNDER_THREE = (
    RunRule("labels", "deny", ALL, labels=("untrusted", "private")),
    RunRule("order", "deny", ALL, after=OTHER),
    RunRule("count", "deny", ALL, at_most=1000, within_s=AT_ONCE_S),
)


def watched(r: Rooms, least: Least, repeats: int) -> list[dict[str, Any]]:
    """What a call costs more."""
    front = r.gateway.front

    def admissions(what: Patterns, *rules: RunRule) -> Admissions:
        spec = RunSpec(labels=(LabelRow(("untrusted",), what), LabelRow(("private",), OTHER)), rules=rules)
        runs = Runs(RunRules(spec, NOWHERE), front.clock, tallies=False)
        return Admissions(None, {}, front.now, runs=runs)

    alone = RunRule("another", "deny", OTHER, labels=("untrusted",))
    kinds = [None, admissions(OTHER, alone), admissions(ALL, alone), admissions(ALL, *UNDER_THREE)]
    try:
        none, aside, taints, three = least([under(r, one) for one in kinds], max(repeats, 100))
    finally:
        front.admissions = front._admissions = None
    return [
        {"room": "policy", "step": "a call that rules on runs leave alone", "us": max(0.0, aside - none)},
        {"room": "policy", "step": "a call that puts a label on its run", "us": max(0.0, taints - none)},
        {"room": "policy", "step": "a call that also three rules on its run look at", "us": max(0.0, three - none)},
    ]
