"""What would have been decided of a call if the rules in shadow mode counted.

In: what each part has said of it: rules over several calls, an engine; what the grants say. Out: the decision of all of
them together. Rules over calls and engines are asked while the call passes, because later their state is another one;
grants are decided again when the record is written. Made only where something is in shadow mode.
Cases: `tests/flow/policy/test_shadow.py`.
"""

from __future__ import annotations

from narthex.flow.policy.decision import Decision, both
from narthex.types import Snapshot


class Shadow:
    """`watched`: what a rule over several calls says against it, `would_watch` one
    in shadow mode. `said`: by the engine; `would_say`: by one in shadow mode. None: nothing, or it was not asked."""

    __slots__ = ("said", "watched", "would_say", "would_watch")

    def __init__(self) -> None:
        self.watched: Decision | None = None
        self.would_watch: Decision | None = None
        self.said: Decision | None = None
        self.would_say: Decision | None = None

    def decision(self, granted: Decision) -> Decision:
        """Of all of them. `granted`: by the grants, those in shadow mode too."""
        found = granted
        for one in (self.watched, self.would_watch):
            if one is not None and found.effect != "deny" and (one.effect == "deny" or found.effect == "allow"):
                found = one
        for one in (self.said, self.would_say):
            if one is not None:
                found = both(found, one)
        return found


def shadows_of(snapshot: Snapshot) -> bool:
    """Is anything of a configuration in shadow mode?"""
    runs = snapshot.runs
    return (
        bool(snapshot.trial) or snapshot.policy_shadow or (runs is not None and any(one.shadow for one in runs.rules))
    )
