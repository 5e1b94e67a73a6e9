"""`approvals`, and `approval` of a grant: what becomes of a call that waits for a person."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from narthex.config.kinds import Choice, Count, Flag, Group, Setting, duration
from narthex.config.schema.webhook import WebhookSettings
from narthex.types import ApprovalSpec, HoldTerms

SPEC, TERMS = ApprovalSpec(), HoldTerms()
By = Literal["approver", "user"]
_BY = Choice(("approver", "user"))
_WAIT, _USE = duration("10s", "7d"), duration("10s", "1d")
_HELP = {
    "by": "Who may say yes. `approver`: somebody at the terminal or the admin side, never the caller. `user`: also the"
    " user of the client that calls, who is asked where the client can ask (elicitation).",
    "wait": "How long a call that is held may be approved.",
    "use_within": "How long the same call may be made once it is approved; it passes once.",
}


class HoldSettings(msgspec.Struct, frozen=True):
    """How calls that this grant holds are approved."""

    by: Annotated[By | None, Setting(_BY, _HELP["by"], default="`approvals.by`")] = None
    wait: Annotated[float | None, Setting(_WAIT, _HELP["wait"], default="`approvals.wait`")] = None
    use_within: Annotated[float | None, Setting(_USE, _HELP["use_within"], default="`approvals.use_within`")] = None


HOLD = Setting(
    Group(HoldSettings, "a map `{by, wait, use_within}`"), "With `hold`: how.", default="as `approvals` says"
)


class HeldHookSettings(WebhookSettings, frozen=True):
    """Who is told of each step of a held call: a POST of JSON, in the form of Standard Webhooks."""

    arguments: Annotated[bool, Setting(Flag(), "`true`: the arguments of the call are told too.")] = False


class ApprovalSettings(msgspec.Struct, frozen=True):
    """Calls that are held until a person approves them."""

    by: Annotated[By, Setting(_BY, _HELP["by"])] = TERMS.by
    wait: Annotated[float, Setting(_WAIT, _HELP["wait"])] = TERMS.wait_s
    use_within: Annotated[float, Setting(_USE, _HELP["use_within"])] = TERMS.use_within_s
    most: Annotated[int, Setting(Count(1, 5000), "Calls that may wait at a time, in all; more are refused.")] = (
        SPEC.most
    )
    most_each: Annotated[int, Setting(Count(1, 1000), "Calls of one principal that may wait at a time.")] = (
        SPEC.most_each
    )
    webhook: Annotated[
        HeldHookSettings | None,
        Setting(Group(HeldHookSettings, "a map `{url, secret, arguments}`"), "Who is told.", nullable=True),
    ] = None


APPROVALS = Setting(
    Group(ApprovalSettings, "a map `{by, wait, use_within, most, most_each, webhook}`"),
    "Calls that a grant holds (`hold`), or a policy.",
)
