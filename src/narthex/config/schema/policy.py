"""`policy`: who decides beside the grants."""

from __future__ import annotations

from typing import Annotated

import msgspec

from narthex.config.kinds import Group, Setting, later
from narthex.config.schema.opa import OPA, OpaSettings


class PolicySettings(msgspec.Struct, frozen=True):
    """Rules in Rego. Beside grants both must allow a call; without any, these alone decide."""

    rego: Annotated[None, later("A bundle that the engine decides by that is built in.")] = None
    opa: Annotated[OpaSettings | None, OPA] = None


POLICY = Setting(
    Group(PolicySettings, "a map `{rego}` or `{opa}`"), "Rules in Rego.", default="the grants decide", nullable=True
)
