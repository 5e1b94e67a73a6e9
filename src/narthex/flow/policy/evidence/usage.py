"""What was used of what is granted, from recorded decisions: grants that nobody used, patterns that are broader than
what was, and who used what last.

In: recorded decisions, grants. Out: `Usage`, the `Excess` of each grant, the rows of an access review.
Cases: `tests/flow/policy/evidence/test_usage.py`. Source: SOC 2 CC6.3 and ISO 27001 A.5.18 ask for the review.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from narthex.flow.policy.evidence.again import Again, Untold
from narthex.flow.policy.evidence.recorded import Recorded
from narthex.flow.policy.grants import applies_to, covers, in_time
from narthex.flow.policy.site import PATTERNS_OF, PatternKey
from narthex.flow.route.patterns import compile_globs
from narthex.types import Grant, Kind, Principal

_KEYS: tuple[PatternKey, ...] = ("tools", "prompts", "resources")
MOST_NAMES = 50
"""Names that a narrower grant lists one by one; where more were used, its pattern stays."""


class Used(msgspec.Struct):
    """How often, when first and when last."""

    count: int
    first: str
    last: str


class Row(msgspec.Struct, frozen=True):
    """Who used what, and which grant let them."""

    principal: Principal
    kind: Kind
    resource: str
    rule: str


class Usage:
    """What was used.

    `allowed` counts records of calls that were let through; `untold` those of them that cannot be decided again: they
    count for every grant that may have let them, and so do those that an engine has decided, too.
    """

    def __init__(self, grants: Sequence[Grant]) -> None:
        self._allowing = [one for one in grants if one.effect != "deny"]
        self.grants = tuple(grants)
        self.rows: dict[Row, Used] = {}
        self.by_rule: dict[str, dict[tuple[Kind, str], Used]] = {}
        self.people: dict[tuple[str, str, str, str], Principal] = {}
        self.allowed = self.untold = 0
        self.since = self.until = ""

    async def take(self, one: Recorded, again: Again) -> None:
        """Count one record. Which grant lets the call through is decided anew: rules may have been renamed since."""
        asked, principal = one.asked, one.asked.call.principal
        self.since = min(self.since or one.time, one.time)
        self.until = max(self.until, one.time)
        self.people[principal.key] = principal
        if one.said is None or one.said.effect == "deny" or not one.went:
            return
        self.allowed += 1
        try:
            decision = await again.decide(asked)
            rules = [decision.rule] if decision.effect != "deny" else []
            if decision.engine:  # both have let it through: which grant, the engine's word does not say
                rules = self._possible(asked.kind, asked.resource, principal)
        except Untold:
            self.untold += 1
            rules = self._possible(asked.kind, asked.resource, principal)
        for rule in rules:
            _count(self.rows, Row(principal, asked.kind, asked.resource, rule), one.time)
            _count(self.by_rule.setdefault(rule, {}), (asked.kind, asked.resource), one.time)

    def _possible(self, kind: Kind, resource: str, principal: Principal) -> list[str]:
        """Every grant that may have let it through, whatever its condition."""
        return [one.name for one in self._allowing if covers(one, kind, resource) and applies_to(one, principal)]


def _count(counted: dict[Any, Used], key: Hashable, time: str) -> None:
    used = counted.get(key)
    if used is None:
        counted[key] = Used(1, time, time)
        return
    used.count += 1
    used.first, used.last = min(used.first, time), max(used.last, time)


class Excess(msgspec.Struct, frozen=True):
    """What a grant allows beyond what was used. `narrower`: its patterns as they would suffice; None: as they are."""

    grant: Grant
    used: int
    last: str
    narrower: Mapping[PatternKey, tuple[str, ...]] | None

    @property
    def is_unused(self) -> bool:
        return not self.used


def excess(usage: Usage) -> Iterator[Excess]:
    """Of each grant that allows, in the order of the file. What denies or holds only takes away."""
    for grant in usage.grants:
        if grant.effect != "allow":
            continue
        used = usage.by_rule.get(grant.name, {})
        count = sum(one.count for one in used.values())
        patterns: dict[PatternKey, tuple[str, ...]] = {}
        for key in _KEYS:
            names = sorted({name for kind, name in used if PATTERNS_OF[kind] == key})
            patterns[key] = _narrowed(getattr(grant, key), names)
        same = all(patterns[key] == getattr(grant, key) for key in patterns)
        last = max((one.last for one in used.values()), default="")
        yield Excess(grant, count, last, None if same or not count else patterns)


def _narrowed(patterns: tuple[str, ...], names: list[str]) -> tuple[str, ...]:
    """The names that were used instead of the patterns that cover them: in the order of the patterns, each once. A name
    that would itself be a pattern might cover more than before: there the pattern stays."""
    if len(names) > MOST_NAMES:
        return patterns
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = compile_globs((pattern,))
        used = [name for name in names if matches(name)]
        found |= dict.fromkeys([pattern] if any("*" in name or "?" in name for name in used) else used)
    return tuple(found)


def review(usage: Usage, now: float) -> Iterator[tuple[Row, Used | None]]:
    """Who used what by which grant; then what else each of them is granted, pattern by pattern, and has not used.

    Args:
        now: Unix seconds; what does not count at this moment is not granted.
    """
    yield from sorted(usage.rows.items(), key=lambda one: (one[0].principal.key, one[0].resource, one[0].rule))
    used: defaultdict[tuple[Hashable, str, PatternKey], list[str]] = defaultdict(list)
    for row in usage.rows:
        used[row.principal.key, row.rule, PATTERNS_OF[row.kind]].append(row.resource)
    for key, principal in sorted(usage.people.items()):
        for grant in usage.grants:
            if grant.effect == "deny" or not applies_to(grant, principal) or not in_time(grant, now):
                continue
            for kind in _KEYS:
                names = used.get((key, grant.name, kind), ())
                for pattern in getattr(grant, kind):
                    if not any(map(compile_globs((pattern,)), names)):
                        yield Row(principal, kind, pattern, grant.name), None
