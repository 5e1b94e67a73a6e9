"""Recorded decisions beside those that are taken today: do they agree, or what would change?

In: recorded decisions, an `Again`. Out: `Replayed`: how many were decided, each `Difference` and how often it came.
Cases: `tests/flow/policy/evidence/test_replay.py`.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from narthex.flow.policy.decision import FAILED_OPEN, NOT_GRANTED, UNANSWERED, Decision
from narthex.flow.policy.evidence.again import Again, Untold
from narthex.flow.policy.evidence.recorded import Recorded
from narthex.types import Principal

MOST_DIFFERENCES = 100_000
_NO_DECISION = UNANSWERED | {FAILED_OPEN}


class Difference(msgspec.Struct, frozen=True):
    """One way in which today's decision is another: for whom, of what, from what to what."""

    principal: tuple[str, str, str, str]
    """Tenant, issuer, subject, client."""
    kind: str
    resource: str
    before: Decision
    after: Decision


class Seen(msgspec.Struct):
    """How often a difference came, and the first and last record of it."""

    count: int
    first: str
    last: str
    id: str


class Replayed(msgspec.Struct):
    """`decided` were compared. `untold`: why others could not be, and how many; `silent`: lines without a decision."""

    decided: int = 0
    differences: dict[Difference, Seen] = {}
    more: int = 0
    """Differences of further kinds, beyond the most that are kept."""
    untold: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def agrees(self) -> bool:
        return not self.differences and not self.more


async def replay(one: Recorded, again: Again, found: Replayed, *, by_effect: bool) -> None:
    """Decide one recorded call again and note what came of it.

    Args:
        by_effect: Against another policy: only what becomes of the call counts, not which rule says so.
    """
    before = one.said
    if before is None:
        found.untold["the record does not say what was decided"] += 1
        return
    if before.reason in _NO_DECISION:
        found.untold[f"the engine had not answered ({before.reason})"] += 1
        return
    try:
        after = await again.decide(one.asked)
    except Untold as error:
        found.untold[str(error)] += 1
        return
    if after.reason in _NO_DECISION:
        found.untold[f"the engine does not answer ({after.reason})"] += 1
        return
    found.decided += 1
    if (effect_of(before) == effect_of(after)) if by_effect else agree(before, after):
        return
    asked = one.asked
    key = Difference(asked.call.principal.key, asked.kind, asked.resource, stripped(before), stripped(after))
    seen = found.differences.get(key)
    if seen is not None:
        seen.count += 1
        seen.last = one.time
    elif len(found.differences) < MOST_DIFFERENCES:
        found.differences[key] = Seen(1, one.time, one.time, one.id)
    else:
        found.more += 1


def agree(before: Decision, after: Decision) -> bool:
    """The same effect, reason and rule: lines move as a file is edited. A log without reasons is believed about the
    effect."""
    if before.effect != after.effect or (before.reason and before.reason != after.reason):
        return False
    return not before.rule or before.rule == after.rule


def effect_of(decision: Decision) -> str:
    """What the caller meets: `hidden` answers as what is not there."""
    return "hidden" if decision.effect == "deny" and decision.reason in (NOT_GRANTED, "not_found") else decision.effect


def stripped(decision: Decision) -> Decision:
    """Without what differs from call to call."""
    return Decision(decision.effect, decision.reason, decision.rule, decision.line)


def name_of(principal: Principal | tuple[str, str, str, str]) -> str:
    """A principal for people: the subject, and the agent that acts for them."""
    _, _, subject, client = principal.key if isinstance(principal, Principal) else principal
    return f"{subject} by {client}" if client and client != subject else subject
