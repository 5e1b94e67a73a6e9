"""`policy`: who decides beside the grants."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from narthex.config.kinds import Choice, Flag, Group, Setting
from narthex.config.schema.decision_logs import DECISION_LOGS, DecisionLogSettings
from narthex.config.schema.opa import OPA, OpaSettings
from narthex.config.schema.rego import REGO, RegoSettings


class PolicySettings(msgspec.Struct, frozen=True):
    """Rules in Rego. Beside grants both must allow a call; without any, these alone decide."""

    rego: Annotated[RegoSettings | None, REGO] = None
    opa: Annotated[OpaSettings | None, OPA] = None
    mode: Annotated[
        Literal["enforce", "shadow"],
        Setting(
            Choice(("enforce", "shadow")),
            "`shadow`: it is asked, and calls wait for it, but what it says is only recorded (needs `audit`), and"
            " logged; it hides nothing.",
        ),
    ] = "enforce"
    admin: Annotated[
        bool,
        Setting(
            Flag(),
            "`true`: on the admin side it must allow, too (`input.action` is `admin`), beside admin role and grants.",
        ),
    ] = False
    decision_logs: Annotated[DecisionLogSettings | None, DECISION_LOGS] = None


POLICY = Setting(
    Group(PolicySettings, "a map `{rego}` or `{opa}`"), "Rules in Rego.", default="the grants decide", nullable=True
)
