"""`limits`: how much of what may be used, by whom, in which time."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args
from zoneinfo import ZoneInfo

import msgspec

from narthex.config import values
from narthex.config.document import Fault, Node, Path, Reading, quote
from narthex.config.kinds import (
    GLOBS,
    NAME,
    Choice,
    Count,
    Flag,
    Group,
    JsonSchema,
    Listed,
    Mapped,
    Scalar,
    Setting,
    size,
)
from narthex.config.schema.prices import MONEY, Money
from narthex.config.schema.webhook import WebhookSettings
from narthex.config.schema.who import ANYBODY, AnybodySettings
from narthex.quotas import REFUSE
from narthex.types import Period, WhenSpent

PER = (
    "principal", "subject", "agent", "tenant", "team", "project", "role", "group", "endpoint", "server", "tool",
    "global",
)  # fmt: skip
PERIODS = get_args(Period)
MOST = 10**15
SHORTEST_S, LONGEST_S = 1.0, 366 * 86_400.0


class WindowText(msgspec.Struct, frozen=True):
    """A window: so many seconds, or a period of the calendar."""

    seconds: float = 0.0
    period: str = ""


def parse_window(text: str) -> WindowText:
    word, _, period = text.partition(" ")
    if word == "calendar":
        if period not in PERIODS:
            raise ValueError(f"{quote(text)}: the calendar has {', '.join(PERIODS)}; write `calendar day`")
        return WindowText(period=period)
    try:
        seconds = values.parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, or `calendar` and one of {', '.join(PERIODS)}") from None
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise ValueError(f"{quote(text)} is out of bounds; a window has 1s to 366d")
    return WindowText(seconds)


def parse_per(text: str) -> str:
    if text in PER or re.fullmatch(r"arg:(/([^~]|~[01])*)+", text):
        return text
    if text.startswith("claim:"):
        values.parse_claim_path(text.removeprefix("claim:"))
        return text
    if text.startswith("arg:"):
        raise ValueError(f"{quote(text)}: an argument is named by a JSON pointer, such as arg:/account/id")
    raise ValueError(f"{quote(text)} is none of {', '.join(PER)}, claim:NAME, arg:/POINTER")


def parse_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except Exception:
        raise ValueError(f"no time zone {quote(text)}; write one such as Europe/Lisbon or UTC") from None
    return text


def parse_tool(text: str) -> str:
    server, separator, name = text.partition("__")
    if not (separator and server and name) or "*" in text or len(text) > 256:
        raise ValueError(f"{quote(text)} is no name such as search__cheap")
    return text


def parse_share(text: str) -> int:
    match = re.fullmatch("([0-9]{1,3})%", text)
    if match is None or not 1 <= int(match[1]) <= 100:
        raise ValueError(f"{quote(text)} is no share; write 80%")
    return int(match[1])


def _amount(help: str) -> Any:
    return Setting(Count(1, MOST), help, default="another unit is limited")


def _bytes(help: str) -> Any:
    return Setting(size("1B", "1000000GiB"), help, default="another unit is limited")


PATTERNS_HELP = " With patterns of any kind, only what they cover counts."


class WhenSpentKind(msgspec.Struct, frozen=True):
    """`refuse`, `hold`, or a map that says what instead."""

    label: str = "`refuse`, `hold`, `{use: SERVER__TOOL}` or `{lower: {LIMIT: SHARE}}`"

    def read(self, node: Node, path: Path, reading: Reading) -> WhenSpent:
        if node.shape == "map":
            found: InsteadSettings = Group(InsteadSettings, self.label).read(node, path, reading)
            if bool(found.use) == bool(found.lower) and not reading.problems:
                raise Fault(node.mark, f"wants {self.label}")
            return WhenSpent(use=found.use, lower=tuple(found.lower.items()))
        word = Choice(("refuse", "hold")).read(node, path, reading)
        return WhenSpent(hold=word == "hold")

    def show(self, value: Any) -> str:
        return "`refuse`"

    def schema(self) -> JsonSchema:
        return {"anyOf": [Choice(("refuse", "hold")).schema(), Group(InsteadSettings, "").schema()]}


class InsteadSettings(msgspec.Struct, frozen=True):
    """What happens in the place of a refusal."""

    use: Annotated[
        str, Setting(Scalar("a tool's canonical name", parse_tool), "The tool that answers.", default="none")
    ] = ""
    lower: Annotated[
        dict[str, int],
        Setting(
            Mapped(Scalar("a limit's name", values.parse_label), Scalar("a share, 1% to 100%", parse_share), "limits"),
            "Limits, and how much of each may then be used.",
        ),
    ] = {}


class LimitSettings(msgspec.Struct, frozen=True):
    """One limit: of one unit, in one window, with a bucket for each value of what it is `per`. `tools/call`,
    `prompts/get` and `resources/read` count; lists, and what the gateway asks for itself, never do."""

    name: Annotated[
        str,
        Setting(
            Scalar("a text", values.parse_label),
            "What it is called in refusals, headers and records; counters stay with it over a reload.",
            default="required",
        ),
    ] = ""
    per: Annotated[
        tuple[str, ...],
        Setting(
            Listed(Scalar("a word of the following", parse_per), "words"),
            "What has a bucket of its own: `principal` (human or service, with its agent), `subject` (with any agent), "
            "`agent`, `tenant`, `team` (of `teams`), `project` (of the endpoint), `role`, `group`, `claim:NAME` (of "
            "the caller's token), `endpoint`, `server`, `tool`, `arg:/POINTER` (the value of an argument), and any "
            "combination. With `global` all tenants share; otherwise each has its own. A caller with several roles, "
            "groups or values of a claim counts in the bucket of each.",
            default="one bucket a tenant",
        ),
    ] = ()
    who: Annotated[AnybodySettings, Setting(ANYBODY, "Whom it is for; everybody, where it says nothing.")] = (
        AnybodySettings()
    )
    tools: Annotated[tuple[str, ...], Setting(GLOBS, "Tools that count." + PATTERNS_HELP, default="all")] = ()
    prompts: Annotated[tuple[str, ...], Setting(GLOBS, "Prompts that count." + PATTERNS_HELP, default="all")] = ()
    resources: Annotated[tuple[str, ...], Setting(GLOBS, "Resources that count." + PATTERNS_HELP, default="all")] = ()
    endpoints: Annotated[
        tuple[str, ...], Setting(Listed(NAME, "endpoint names"), "It counts at these endpoints.", default="all")
    ] = ()
    calls: Annotated[int | None, _amount("Calls.")] = None
    concurrent: Annotated[int | None, _amount("Calls under way at one time; needs no window.")] = None
    bytes: Annotated[int | None, _bytes("Bytes of requests and answers together.")] = None
    bytes_in: Annotated[int | None, _bytes("Bytes of requests.")] = None
    bytes_out: Annotated[int | None, _bytes("Bytes of answers.")] = None
    tokens: Annotated[int | None, _amount("Tokens of arguments and answers together, estimated.")] = None
    tokens_in: Annotated[int | None, _amount("Tokens of arguments, estimated.")] = None
    tokens_out: Annotated[int | None, _amount("Tokens of answers, estimated.")] = None
    money: Annotated[
        Money | None,
        Setting(MONEY, "What calls cost, by `prices` in this currency.", default="another unit is limited"),
    ] = None
    window: Annotated[
        WindowText | None,
        Setting(
            Scalar("a duration, 1s to 366d, or `calendar` and `hour`, `day`, `week` or `month`", parse_window),
            "In which time.",
            default="required, but for `concurrent`",
        ),
    ] = None
    zone: Annotated[
        str, Setting(Scalar("a time zone", parse_zone), "Where the calendar hangs: days begin at its midnight.")
    ] = "UTC"
    algorithm: Annotated[
        str | None,
        Setting(
            Choice(("sliding", "bucket", "fixed", "calendar")),
            "`sliding`: at most so many in any interval of the window's length. `bucket`: so many in a window on "
            "average, `burst` at once. `fixed`: so many in each window, one after the other.",
            default="`sliding`; `calendar` with a calendar's window",
        ),
    ] = None
    burst: Annotated[
        int | None, Setting(Count(1, MOST), "Of a `bucket`: how much may be used at once.", default="as the unit says")
    ] = None
    soft: Annotated[
        bool,
        Setting(Flag(), "`true`: calls beyond it go on, and are counted; `alerts` and `narthex limits` tell of them."),
    ] = False
    alerts: Annotated[
        tuple[int, ...],
        Setting(
            Listed(Scalar("a share, 1% to 100%", parse_share), "shares", most=10),
            "Shares at which the log says so: once on the way up, for each bucket.",
            default="none",
        ),
    ] = ()
    webhook: Annotated[
        WebhookSettings | None,
        Setting(Group(WebhookSettings, "a map `{url, secret}`"), "Who is told of `alerts`, too.", nullable=True),
    ] = None
    when_spent: Annotated[
        WhenSpent,
        Setting(
            WhenSpentKind(),
            "What becomes of a call that it has no room for. `refuse`; `hold`: a person may let it through, as "
            "`approvals` says; `{use: SERVER__TOOL}`: that tool answers in its place, if the caller may call it; "
            "`{lower: {LIMIT: 10%}}`: it goes on, and only so much of other limits may be used.",
            default="`refuse`",
        ),
    ] = REFUSE


LIMITS = Setting(
    Listed(Group(LimitSettings, "a map with the settings of a limit"), "limits"),
    "Rates, quotas and budgets. A call takes what it needs of all that cover it, or of none.",
)
