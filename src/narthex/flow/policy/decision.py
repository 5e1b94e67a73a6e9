"""What is said of a call: allowed, denied, or held until a person says so. One type for every stage.

In: nothing. Out: `Decision`. Whoever asks "why?" gets these words: the log, the record, `narthex explain`.
Source: design §2 (nouns), §3; house style, principle 2.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from narthex.flow.policy.engines.obligations import Obligation

Effect = Literal["allow", "deny", "hold"]

GRANTED = "granted"
DENIED_BY_RULE = "denied_by_rule"
NOT_GRANTED = "not_granted"
CONDITION_NOT_MET = "condition_not_met"
RULE_FAILED = "rule_failed"
APPROVAL_REQUIRED = "approval_required"
NO_RULES = "no_rules"
ALLOWED_BY_POLICY = "allowed_by_policy"
DENIED_BY_POLICY = "denied_by_policy"
POLICY_UNDEFINED = "policy_undefined"
"""The policy says nothing of this call."""
POLICY_FAILED = "policy_failed"
"""The engine raised, or is not there."""
POLICY_ABSENT = "policy_absent"
"""No good policy has come yet."""
POLICY_TIMEOUT = "policy_timeout"
"""The engine was not done at its deadline."""
BAD_POLICY_RESULT = "bad_policy_result"
"""What it says is no decision."""
FAILED_OPEN = "allowed_without_policy"
"""Nobody decided, and the operator's `on_error: allow` let it through."""
UNKNOWN_OBLIGATION = "unknown_obligation"
"""It lets the call through on a condition that nobody here can keep."""
UNANSWERED = frozenset({POLICY_ABSENT, POLICY_FAILED, POLICY_TIMEOUT, BAD_POLICY_RESULT})
"""Denials because an engine did not decide: the next time it may."""


class Decision(msgspec.Struct, frozen=True):
    """Allow, deny or hold, with a stable reason code, and the rule that said so with its line (0: no file).

    A rule's decisions are made once, when it is compiled: deciding makes no object.
    """

    effect: Effect
    reason: str
    rule: str = ""
    line: int = 0
    detail: str = ""
    """For the operator: which fact was missing, or the reasons that a policy gives. Never shown to a client."""
    obligations: tuple[Obligation, ...] = ()
    """What has to be done for it to be allowed."""
    engine: str = ""
    """Who decided beside the grants: `rego`, `opa`. Empty: nobody."""
    bundle: str = ""
    """The revision of that engine's policy."""
    decision_id: str = ""
    """How the engine itself calls this decision, where it says so."""


_WORST: Final = {"allow": 0, "hold": 1, "deny": 2}


def both(ours: Decision, said: Decision) -> Decision:
    """Grants and an engine together: deny wins over hold, hold over allow; what allows is the engine's."""
    if _WORST[ours.effect] > _WORST[said.effect]:
        return msgspec.structs.replace(
            ours, obligations=said.obligations, engine=said.engine, bundle=said.bundle, decision_id=said.decision_id
        )
    return said


ALLOW = Decision("allow", NO_RULES)
"""Where nobody has written a rule."""
HIDDEN = Decision("deny", NOT_GRANTED)
"""What no rule grants to this principal, whatever the arguments: it does not exist for them."""
