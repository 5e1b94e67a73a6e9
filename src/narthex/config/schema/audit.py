"""`audit`: where the record of every call goes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from narthex.config.kinds import FILE, GLOBS, Choice, Group, Setting
from narthex.types import Durable


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
    durable: Annotated[
        Durable,
        Setting(
            Choice(("none", "writes", "all")),
            "Which calls wait for the disk: a record that they begin is there before anything is sent to a server, and"
            " one that they have ended before the client gets the last byte of its answer. `writes`: calls of tools,"
            " but for those in `reads`; `none`: all are recorded a moment later.",
        ),
    ] = "writes"
    reads: Annotated[
        tuple[str, ...],
        Setting(
            GLOBS,
            "Tools that only read, by patterns of `<server>__<tool>`: with `durable: writes` they do not wait. What a"
            " server says of its own tools (`readOnlyHint`) is not believed.",
        ),
    ] = ()
    on_failure: Annotated[
        Literal["block", "degrade"],
        Setting(
            Choice(("block", "degrade")),
            "What becomes of calls that cannot be recorded. `block`: they are refused with `audit_unavailable`; where"
            " nobody waits for the disk, once there is no room left for records. `degrade`: they go on, and what is"
            " missing is counted.",
        ),
    ] = "block"


AUDIT = Setting(
    Group(AuditSettings, "a map `{dir}`"), "The record of every call.", default="nothing is recorded", nullable=True
)
