"""`grants`: who may use what."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from narthex.config import values
from narthex.config.document import Node, Path, Reading
from narthex.config.kinds import GLOBS, NAME, NETWORK, Choice, Group, JsonSchema, Listed, Scalar, Setting
from narthex.config.schema.approvals import HOLD, HoldSettings
from narthex.config.schema.data import OF_CLASSIFICATION, OF_PRIVACY
from narthex.config.schema.who import ANYBODY, TEXTS, AnybodySettings, OneOrMore
from narthex.types import Network

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _parse_time(text: str) -> time:
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text):
        raise ValueError('a time of day is "08:00" to "23:59", in quotes')
    return time.fromisoformat(text)


def _parse_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except Exception:
        raise ValueError(f"no time zone {text[:64]!r}; write one such as Europe/Lisbon or UTC") from None
    return text


def parse_moment(text: str) -> float:
    """A date (its first moment, UTC) or a time with its zone, as Unix seconds."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("write a date such as 2026-12-31, or a time such as 2026-12-31T18:00:00Z") from None
    if moment.tzinfo is None:
        if "T" in text or " " in text.strip():
            raise ValueError("the time needs its zone, such as 2026-12-31T18:00:00Z")
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


class HoursSettings(msgspec.Struct, frozen=True):
    """When a grant counts, by the clock on the wall of a place."""

    since: Annotated[time, Setting(Scalar("a time of day", _parse_time), "Its first moment.", default='"00:00"')] = (
        time()
    )
    until: Annotated[
        time,
        Setting(
            Scalar("a time of day", _parse_time),
            "The first moment that it counts no more; at or before `since` it goes over midnight.",
            default='"00:00"',
        ),
    ] = time()
    days: Annotated[
        tuple[str, ...],
        Setting(
            OneOrMore(Choice(DAYS), "a day (`mon` to `sun`) or a list"), "The days it begins on.", default="every day"
        ),
    ] = DAYS
    zone: Annotated[str, Setting(Scalar("a time zone", _parse_zone), "Where the clock hangs.")] = "UTC"


class PatternSettings(msgspec.Struct, frozen=True):
    """What is meant, by patterns on canonical names `<server>__<name>`."""

    tools: Annotated[tuple[str, ...], Setting(GLOBS, "Tools.")] = ()
    prompts: Annotated[tuple[str, ...], Setting(GLOBS, "Prompts.")] = ()
    resources: Annotated[tuple[str, ...], Setting(GLOBS, "Resources and templates: `<server>__<URI>`.")] = ()
    admin: Annotated[
        tuple[str, ...],
        Setting(
            GLOBS,
            "Actions of the admin side, such as `reload` or `approvals.*`. Who has the admin role may do all that no"
            " grant denies.",
        ),
    ] = ()


class PatternsKind(msgspec.Struct, frozen=True):
    """`allow: [PATTERN]` is short for `allow: {tools: [PATTERN]}`."""

    label: str = "a list of patterns on tools, or a map `{tools, prompts, resources, admin}`"

    def read(self, node: Node, path: Path, reading: Reading) -> PatternSettings:
        if node.shape == "map":
            found: PatternSettings = Group(PatternSettings, self.label).read(node, path, reading)
            return found
        return PatternSettings(tools=GLOBS.read(node, path, reading))

    def show(self, value: Any) -> str:
        return "nothing"

    def schema(self) -> JsonSchema:
        return {"anyOf": [GLOBS.schema(), Group(PatternSettings, "").schema()]}


PATTERNS = PatternsKind()


MODE = Setting(
    Choice(("enforce", "shadow")),
    "`shadow`: it does not count yet; records say what would be decided if it did (needs `audit`).",
)


class GrantSettings(msgspec.Struct, frozen=True):
    """One rule. A denial wins over what holds, and that over what allows; what no rule allows is denied."""

    name: Annotated[
        str,
        Setting(Scalar("a text", values.parse_text), "What it is called in decisions and records.", default="required"),
    ] = ""
    who: Annotated[AnybodySettings, Setting(ANYBODY, "Whom it is for; `{}` is everybody who has signed in.")] = (
        AnybodySettings()
    )
    allow: Annotated[PatternSettings | None, Setting(PATTERNS, "What they may use.", default="nothing")] = None
    deny: Annotated[
        PatternSettings | None, Setting(PATTERNS, "What they may not use, whatever else allows it.", default="nothing")
    ] = None
    hold: Annotated[
        PatternSettings | None,
        Setting(
            PATTERNS,
            "What they may use once a person has approved the very call, whatever else allows it.",
            default="nothing",
        ),
    ] = None
    approval: Annotated[HoldSettings | None, HOLD] = None
    when: Annotated[
        str,
        Setting(
            Scalar("a condition in CEL", values.parse_text),
            "It counts where this is true, such as `args.amount <= 100`; `args`, `principal`, `resource`, `context` and"
            " `run` can be spoken of.",
            default="always",
        ),
    ] = ""
    networks: Annotated[
        tuple[Network, ...], Setting(Listed(NETWORK, "networks"), "It counts for clients from these.", default="all")
    ] = ()
    hours: Annotated[
        HoursSettings | None,
        Setting(Group(HoursSettings, "a map `{since, until, days, zone}`"), "When it counts.", default="always"),
    ] = None
    expires: Annotated[
        float,
        Setting(
            Scalar("a date, or a time with its zone", parse_moment, lambda value: "never"),
            "It counts no more from this moment on.",
            default="never",
        ),
    ] = 0.0
    endpoints: Annotated[
        tuple[str, ...], Setting(Listed(NAME, "endpoint names"), "It counts at these endpoints.", default="all")
    ] = ()
    environment: Annotated[
        tuple[str, ...], Setting(TEXTS, "It counts where the file's `environment` is one of these.", default="all")
    ] = ()
    classification: Annotated[
        tuple[str, ...], Setting(OF_CLASSIFICATION, "It counts for what is classed so.", default="all")
    ] = ()
    privacy: Annotated[
        tuple[str, ...], Setting(OF_PRIVACY, "It counts for what gives data of these.", default="all")
    ] = ()
    mode: Annotated[Literal["enforce", "shadow"], MODE] = "enforce"


GRANTS = Setting(
    Listed(Group(GrantSettings, "a map with the settings of a grant"), "grants"),
    "Who may call what. Without any, whoever is let in may call everything; with one, what no grant allows is denied.",
)
