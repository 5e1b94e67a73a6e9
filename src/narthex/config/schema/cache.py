"""`cache`: which answers are kept and given again."""

from __future__ import annotations

from typing import Annotated

import msgspec

from narthex.config import values
from narthex.config.kinds import GLOBS, NAME, Count, Flag, Group, Listed, Mapped, Scalar, Setting, duration, size
from narthex.config.schema.limits import parse_share
from narthex.config.schema.prices import POINTER
from narthex.types import CacheRule, CacheSpec

RULE, SPEC = CacheRule("", 1.0), CacheSpec()


def parse_hit(text: str) -> int:
    """Hundredths of the price."""
    if text in ("free", "full"):
        return 100 if text == "full" else 0
    try:
        return parse_share(text)
    except ValueError as error:
        raise ValueError(f"{error}, `free` or `full`") from None


def show_hit(share: int) -> str:
    return {0: "free", 100: "full"}.get(share, f"{share}%")


class CacheRuleSettings(msgspec.Struct, frozen=True):
    """Answers of some tools, prompts and resources, for how long, and for whom. Of several that cover a call the first
    counts. Errors, tasks, and what asks the client something are never kept."""

    name: Annotated[
        str,
        Setting(Scalar("a text", values.parse_label), "What it is called where the cache is shown.",
                default="required"),
    ] = ""  # fmt: skip
    tools: Annotated[tuple[str, ...], Setting(GLOBS, "Tools whose answers are kept.", default="none")] = ()
    prompts: Annotated[tuple[str, ...], Setting(GLOBS, "Prompts whose answers are kept.", default="none")] = ()
    resources: Annotated[tuple[str, ...], Setting(GLOBS, "Resources that are kept.", default="none")] = ()
    endpoints: Annotated[
        tuple[str, ...], Setting(Listed(NAME, "endpoint names"), "It counts at these endpoints.", default="all")
    ] = ()
    annotated: Annotated[
        bool,
        Setting(
            Flag(),
            "`true`: of `tools` only those whose annotations say `readOnlyHint` and `idempotentHint`, at servers with "
            "`annotations: trusted`.",
        ),
    ] = False
    ttl: Annotated[
        float | None,
        Setting(
            duration("100ms", "7d"),
            "How long an answer is fresh. A server that says less (`ttlMs`) is heard, one that says more is not.",
            default="required",
        ),
    ] = None
    stale: Annotated[
        float,
        Setting(
            duration("0s", "7d"), "How much longer it is given while a new one is fetched, or where none can be had."
        ),
    ] = RULE.stale_s
    shared: Annotated[
        bool,
        Setting(
            Flag(),
            "`true`: an answer is given to every caller of the tenant who may make the call and uses the same account "
            "with the server. `false`: only to the principal who got it.",
        ),
    ] = False
    hit: Annotated[
        int,
        Setting(
            Scalar("`free`, `full` or a share such as `25%`", parse_hit, show_hit),
            "What an answer from memory costs of its price.",
        ),
    ] = RULE.hit
    counts: Annotated[
        bool, Setting(Flag(), "`false`: an answer from memory counts in no limit; goes with `hit: free`.")
    ] = True
    max_entry: Annotated[int, Setting(size("1KiB", "16MiB"), "Larger answers are not kept.")] = RULE.most


class ClearSettings(msgspec.Struct, frozen=True):
    """A call of a tool that ends kept answers, of the same tenant, whatever came of it once it was sent."""

    after: Annotated[tuple[str, ...], Setting(GLOBS, "Tools whose calls do.", default="required")] = ()
    tools: Annotated[tuple[str, ...], Setting(GLOBS, "Tools whose answers end.", default="none")] = ()
    prompts: Annotated[tuple[str, ...], Setting(GLOBS, "Prompts whose answers end.", default="none")] = ()
    resources: Annotated[tuple[str, ...], Setting(GLOBS, "Resources that end.", default="none")] = ()
    same: Annotated[
        dict[str, str],
        Setting(
            Mapped(POINTER, POINTER, "pointers", 4),
            "Only answers to calls whose arguments have the same value: JSON pointer into the arguments of `after` -> "
            "pointer into theirs. Where one of them has none, they end.",
            default="all of them",
        ),
    ] = {}


class CacheSettings(msgspec.Struct, frozen=True):
    """Answers that are kept, in the memory of the process."""

    rules: Annotated[
        tuple[CacheRuleSettings, ...],
        Setting(Listed(Group(CacheRuleSettings, "a map with the settings of a rule"), "rules"), "What is kept."),
    ] = ()
    clears: Annotated[
        tuple[ClearSettings, ...],
        Setting(Listed(Group(ClearSettings, "a map `{after, tools, prompts, resources, same}`"), "rules", most=100),
                "What ends it before its time."),
    ] = ()  # fmt: skip
    max_bytes: Annotated[int, Setting(size("64KiB", "16GiB"), "All answers together.")] = SPEC.most_bytes
    max_entries: Annotated[int, Setting(Count(1, 1_000_000), "All answers together.")] = SPEC.most_entries
    tenant_share: Annotated[
        int,
        Setting(
            Scalar("a share, 1% to 100%", parse_share, lambda share: f"{share}%"),
            "Of both, what one tenant's answers may take up. Where all together have too much, those of the tenant "
            "that has most go first.",
        ),
    ] = SPEC.tenant_share


CACHE = Setting(
    Group(CacheSettings, "a map `{rules, clears, max_bytes, max_entries, tenant_share}`"),
    "Answers that are kept and given again to equal calls.",
    nullable=True,
)
