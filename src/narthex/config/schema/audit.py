"""`audit`: where the record of every call goes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from narthex.config.kinds import FILE, GLOBS, NAME, Choice, Flag, Group, Listed, Setting, duration
from narthex.config.schema.data import OF_CLASSIFICATION
from narthex.config.schema.exports import EXPORT, ExportSettings
from narthex.config.schema.prices import POINTER
from narthex.kept import DETECTORS
from narthex.types import Durable

_FOREVER = duration("1h", "36500d")


class PayloadSettings(msgspec.Struct, frozen=True):
    """What is kept of some calls. A rule without patterns is for all of them."""

    keep: Annotated[
        Literal["full", "redacted", "none"] | None,
        Setting(
            Choice(("full", "redacted", "none")),
            "`redacted`: without what `redact` names; `full`: as it was relayed, secrets included.",
            default="required",
        ),
    ] = None
    parts: Annotated[
        tuple[str, ...],
        Setting(
            Listed(Choice(("arguments", "result", "task")), "parts"),
            "Of the call's arguments, of its result (or error); `task`: what the agent was asked to do, as it says.",
            default="arguments, result",
        ),
    ] = ()
    endpoints: Annotated[tuple[str, ...], Setting(Listed(NAME, "endpoints"), "At these endpoints.", default="all")] = ()
    servers: Annotated[tuple[str, ...], Setting(Listed(NAME, "servers"), "Of these servers.", default="all")] = ()
    tools: Annotated[tuple[str, ...], Setting(GLOBS, "Of these tools.", default="all")] = ()
    prompts: Annotated[tuple[str, ...], Setting(GLOBS, "Of these prompts.", default="all")] = ()
    resources: Annotated[tuple[str, ...], Setting(GLOBS, "Of these resources.", default="all")] = ()
    classification: Annotated[
        tuple[str, ...],
        Setting(OF_CLASSIFICATION, "Of what is classed so; what is not classed is `restricted`.", default="any"),
    ] = ()


class RedactSettings(msgspec.Struct, frozen=True):
    """What nobody is to read in a payload."""

    pointers: Annotated[
        tuple[str, ...],
        Setting(
            Listed(POINTER, "JSON pointers"),
            "Places: `/arguments/…`, `/result/…` or `/error/…`; `*` stands for every member or element.",
        ),
    ] = ()
    detectors: Annotated[
        tuple[str, ...],
        Setting(
            Listed(Choice(DETECTORS), "detectors"),
            "What is looked for in every text: `secrets` (behind names such as password or token, in headers, in URLs),"
            " `keys` (tokens of known providers, private keys), `jwts`, `cards` and `ibans` by their check digits,"
            " `emails`, `ssns` (US social security).",
        ),
    ] = DETECTORS


class RetentionSettings(msgspec.Struct, frozen=True):
    """How long something stays. What is older is removed by the day, and a record says so."""

    records: Annotated[
        float | None, Setting(_FOREVER, "Segments of the journal.", default="for ever", nullable=True)
    ] = None
    payloads: Annotated[float | None, Setting(_FOREVER, "Payloads.", default="for ever", nullable=True)] = None
    public: Annotated[float | None, Setting(_FOREVER, "Payloads classed so.", default="as `payloads`")] = None
    internal: Annotated[float | None, Setting(_FOREVER, "Payloads classed so.", default="as `payloads`")] = None
    confidential: Annotated[float | None, Setting(_FOREVER, "Payloads classed so.", default="as `payloads`")] = None
    restricted: Annotated[
        float | None, Setting(_FOREVER, "Payloads classed so, and what is not classed.", default="as `payloads`")
    ] = None


DURABLE = Choice(("none", "writes", "all"))
ON_FAILURE = Choice(("block", "degrade"))


class EndpointAuditSettings(msgspec.Struct, frozen=True):
    """What is another matter at this endpoint than `audit` says for all."""

    durable: Annotated[
        Durable | None, Setting(DURABLE, "Which of its calls wait for the disk.", default="as `audit.durable`")
    ] = None
    on_failure: Annotated[
        Literal["block", "degrade"] | None,
        Setting(ON_FAILURE, "What becomes of its calls that cannot be recorded.", default="as `audit.on_failure`"),
    ] = None


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
            DURABLE,
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
    wait: Annotated[
        float,
        Setting(
            duration("100ms", "10m"),
            "How long a call waits for the disk, within its own time: one that has to wait longer counts as one that"
            " cannot be recorded (`on_failure`).",
            default="5s",
        ),
    ] = 5.0
    payloads: Annotated[
        tuple[PayloadSettings, ...],
        Setting(
            Listed(Group(PayloadSettings, "a map with the settings of a rule"), "rules"),
            "What is kept of what calls say, in files apart from the records, where it can be erased. The first rule"
            " that fits counts, for each part; a policy's obligation `log` goes before.",
        ),
    ] = ()
    redact: Annotated[
        RedactSettings,
        Setting(
            Group(RedactSettings, "a map `{pointers, detectors}`"),
            "What is taken out of payloads that are kept `redacted`, before anything is hashed or written.",
        ),
    ] = RedactSettings()
    seal: Annotated[
        bool,
        Setting(
            Flag(),
            "Payloads are sealed for the disk, with the master key as secrets are: who has only the files"
            " cannot read them.",
        ),
    ] = False
    retention: Annotated[
        RetentionSettings,
        Setting(
            Group(RetentionSettings, "a map of durations"),
            "How long records and payloads stay; what a legal hold covers stays longer.",
        ),
    ] = RetentionSettings()
    compress_after: Annotated[
        float | None,
        Setting(
            duration("1m", "3650d"),
            "Files that have been closed for so long are compressed (gzip). All commands read them so, too.",
            default="never",
            nullable=True,
        ),
    ] = None
    on_failure: Annotated[
        Literal["block", "degrade"],
        Setting(
            ON_FAILURE,
            "What becomes of calls that cannot be recorded. `block`: they are refused with `audit_unavailable`; where"
            " nobody waits for the disk, once there is no room left for records. `degrade`: they go on, and what is"
            " missing is counted.",
        ),
    ] = "block"
    index: Annotated[
        bool,
        Setting(
            Flag(),
            "Whether a process beside the gateway keeps an index of the records up to date, and searches in it for the"
            " admin API. `narthex audit search` works without it, and takes longer.",
        ),
    ] = True
    export: Annotated[dict[str, ExportSettings], EXPORT] = {}


AUDIT = Setting(
    Group(AuditSettings, "a map `{dir}`"), "The record of every call.", default="nothing is recorded", nullable=True
)
