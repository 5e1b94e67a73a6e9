"""What is said of a call: allowed, denied, or held until a person says so. One type for every stage.

In: nothing. Out: `Decision`. Whoever asks "why?" gets these words: the log, the record, `narthex explain`.
Source: design §2 (nouns), §3; house style, principle 2.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Effect = Literal["allow", "deny", "hold"]

GRANTED = "granted"
DENIED_BY_RULE = "denied_by_rule"
NOT_GRANTED = "not_granted"
CONDITION_NOT_MET = "condition_not_met"
RULE_FAILED = "rule_failed"
APPROVAL_REQUIRED = "approval_required"
NO_RULES = "no_rules"


class Decision(msgspec.Struct, frozen=True):
    """Allow, deny or hold, with a stable reason code, and the rule that said so with its line (0: no file).

    A rule's decisions are made once, when it is compiled: deciding makes no object.
    """

    effect: Effect
    reason: str
    rule: str = ""
    line: int = 0
    detail: str = ""
    """For the operator: which fact was missing. Never shown to a client."""


ALLOW = Decision("allow", NO_RULES)
"""Where nobody has written a rule."""
HIDDEN = Decision("deny", NOT_GRANTED)
"""What no rule grants to this principal, whatever the arguments: it does not exist for them."""
