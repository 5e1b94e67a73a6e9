"""`policy.rego`: rules in Rego, by the engine that is built in."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from narthex.config.kinds import FILE, Choice, Group, Scalar, Setting, duration


def _parse_entrypoint(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)+", text, re.ASCII):
        raise ValueError("an entry point is a rule with its package, such as narthex/decision")
    return text


class RegoSettings(msgspec.Struct, frozen=True):
    """A bundle of Rego, and how it is asked."""

    bundle: Annotated[
        str | None,
        Setting(
            FILE,
            "A folder with `.rego` files and `data.json`, or a tarball as `opa build` makes it. It is looked at once a"
            " second, and ruled by once it compiles.",
            default="required",
        ),
    ] = None
    entrypoint: Annotated[
        str, Setting(Scalar("a rule with its package", _parse_entrypoint), "The rule that decides.")
    ] = "narthex/decision"
    engine: Annotated[
        Literal["helper", "inline"],
        Setting(
            Choice(("helper", "inline")),
            "`helper`: in processes of its own, killed at the deadline. `inline`: in the gateway, quicker by a"
            " process's round trip; all calls wait for as long as one takes, and no deadline ends it.",
        ),
    ] = "helper"
    deadline: Annotated[
        float, Setting(duration("5ms", "10s"), "How long the policy may take for one decision; then it is a denial.")
    ] = 0.1


REGO = Setting(
    Group(RegoSettings, "a map `{bundle, entrypoint, engine, deadline}`"),
    "A bundle that the engine decides by that is built in.",
    default="none",
    nullable=True,
)
