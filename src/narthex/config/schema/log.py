"""`log:`: what is written to stderr."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from narthex.config.kinds import Choice, Flag, Setting


class LogSettings(msgspec.Struct, frozen=True):
    """What is written to stderr."""

    calls: Annotated[bool, Setting(Flag(), "One line for each call.")] = False
    format: Annotated[
        Literal["text", "json"], Setting(Choice(("text", "json")), "Lines for people, or one JSON object a line.")
    ] = "text"
