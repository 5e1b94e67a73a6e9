"""`audit`: where the record of every call goes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from narthex.config.kinds import FILE, Choice, Group, Setting, later


class AuditSettings(msgspec.Struct, frozen=True):
    """The record of every call, a line of JSON each, chained and signed. Without this section nothing is recorded."""

    dir: Annotated[
        str | None,
        Setting(FILE, "Folder of the journal, relative to the configuration file.", default="required"),
    ] = None
    checkpoints: Annotated[
        str | None,
        Setting(
            FILE,
            "Another folder, on another disk or a share, that gets the journal's signed checkpoints too: who may write"
            " the one cannot cut the journal's end off unseen. However slow it is, nothing waits for it.",
            default="no second place",
        ),
    ] = None
    inputs: Annotated[
        Literal["none", "digest", "full"],
        Setting(
            Choice(("none", "digest", "full")),
            "What is kept of what a decision was taken on, so that it can be replayed: `digest` everything but the"
            " arguments, of which only a SHA-256, `full` the arguments too (up to 64 KiB of a call): they are payload.",
        ),
    ] = "none"
    durable: Annotated[None, later("Which calls wait until their record is on the disk.")] = None
    on_failure: Annotated[None, later("What becomes of calls that cannot be recorded.")] = None


AUDIT = Setting(
    Group(AuditSettings, "a map `{dir}`"), "The record of every call.", default="nothing is recorded", nullable=True
)
