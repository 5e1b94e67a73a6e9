"""Who may use what: the operator's grants, and what a set of them that fits one principal lets through.

In: grants as configured (`Grant`), a principal, a canonical name, the facts of a call. Out: a `Rights`, which says what
is visible, and a `Decision` for a call. One `Rights` serves every principal whom the same grants fit, so what it has
worked out for a name or for a list is worked out once. Cases: `tests/flow/policy/test_grants.py`.
Source: design §3 (visibility, canonical names, deny wins), §6 (`grants`).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import groupby, islice
from operator import itemgetter
from typing import Any
from zoneinfo import ZoneInfo

from narthex.flow.identity.who import fits
from narthex.flow.policy.conditions import Condition, ConditionFailed, Facts, compile_condition
from narthex.flow.policy.cover import Cover
from narthex.flow.policy.decision import (
    APPROVAL_REQUIRED,
    CONDITION_NOT_MET,
    DENIED_BY_RULE,
    GRANTED,
    HIDDEN,
    RULE_FAILED,
    Decision,
    Effect,
)
from narthex.flow.policy.site import NOWHERE, PATTERNS_OF, Site, fits_class
from narthex.flow.policy.slices import SLICE
from narthex.flow.route.index import Index
from narthex.flow.route.names import canonical
from narthex.flow.route.patterns import compile_globs, everything, nothing
from narthex.types import Grant, Hours, Kind, Principal

MOST_NAMES = 50_000
"""Names whose checks one set of rights remembers; then it begins anew."""
LONGEST_NAME = 256
"""Checks of longer ones are made each time: callers make up URIs, and memory is to have a bound."""
MOST_RIGHTS = 1024
MOST_LISTS = 16
"""Lists whose bits one set of rights remembers: each kind of some views, before and after a change."""
_DENY, _HOLD, _ALLOW = range(3)
_ORDER: Mapping[Effect, int] = {"deny": _DENY, "hold": _HOLD, "allow": _ALLOW}


def is_open(hours: Hours, now: float) -> bool:
    """Is the window open at `now` (Unix seconds)?"""
    local = datetime.fromtimestamp(now, ZoneInfo(hours.zone))
    at, day = local.time(), local.weekday()
    if hours.since < hours.until:
        return day in hours.days and hours.since <= at < hours.until
    return day in hours.days if at >= hours.since else at < hours.until and (day - 1) % 7 in hours.days


class Rule:
    """A grant with its condition compiled."""

    __slots__ = ("condition", "decision", "grant")

    def __init__(
        self,
        grant: Grant,
        condition: Condition | None,
        decision: Decision,
    ) -> None:
        self.grant = grant
        self.condition = condition
        self.decision = decision

    @property
    def is_plain(self) -> bool:
        """Nothing of a single call decides about it: neither its arguments nor where it comes from."""
        return self.condition is None and not self.grant.networks

    @property
    def reads_context(self) -> bool:
        """Does it look at where a call comes from, how large it is, or may it: the engine is told of all?"""
        condition = self.condition
        said = condition is not None and ("context" in condition.reads or not condition.compiled)
        return said or bool(self.grant.networks)

    def met(self, facts: Facts) -> bool:
        """Do its conditions hold for this call? Raises ConditionFailed."""
        networks = self.grant.networks
        if networks:
            where = address_of(facts["context"].get("address", ""))
            if not any(where in network for network in networks):
                return False
        return self.condition is None or self.condition.met(facts)


def address_of(text: str) -> IPv4Address | IPv6Address:
    """An IPv4 address also where a socket for both kinds shows it as IPv6. Raises ConditionFailed: it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        raise ConditionFailed("the address of the client is not known") from None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def compile_rule(grant: Grant) -> Rule:
    """Raises BadCondition."""
    reason = {"deny": DENIED_BY_RULE, "hold": APPROVAL_REQUIRED, "allow": GRANTED}[grant.effect]
    decision = Decision(grant.effect, reason, grant.name, grant.line)
    return Rule(grant, compile_condition(grant.when) if grant.when else None, decision)


def covers(grant: Grant, kind: Kind, name: str) -> bool:
    """Does a pattern of the grant fit this canonical name?"""
    return compile_globs(getattr(grant, PATTERNS_OF[kind]))(name)


def covers_class(grant: Grant, kind: Kind, name: str, site: Site) -> bool:
    """Is it for data that is classed as what this name gives?"""
    if not grant.classification and not grant.privacy:
        return True
    return fits_class(site.data(kind, name), grant.classification, grant.privacy)


def in_environment(grant: Grant, site: Site) -> bool:
    return not grant.environments or site.environment in grant.environments


def in_time(grant: Grant, now: float) -> bool:
    """Does it count at this moment? Part of what is visible (design §3)."""
    return (not grant.expires_at or now < grant.expires_at) and (grant.hours is None or is_open(grant.hours, now))


def applies_to(grant: Grant, principal: Principal) -> bool:
    """Is the principal among those whom the grant is for? Denials hit everybody whom they do not leave out; anonymous
    callers are given only what says so (design §6)."""
    anonymous = principal.method == "anonymous"
    if grant.who.anonymous != anonymous and (grant.who.anonymous or grant.effect != "deny"):
        return False
    return fits(grant.who, principal)


class Checks:
    """What applies to one name for one set of rights: denials first, then holds, then what allows, in file order.

    `plain`: the decision where no rule needs to look at the call. `reads`: what its rules look at (`conditions.ROOTS`).
    `resource`: what they are told of it, once somebody has asked.
    """

    __slots__ = ("plain", "reads", "reads_arguments", "reads_context", "resource", "rules", "visible")

    def __init__(
        self,
        visible: bool,
        rules: tuple[Rule, ...] = (),
        plain: Decision | None = None,
        reads: frozenset[str] = frozenset(),
    ) -> None:
        self.visible = visible
        self.rules = rules
        self.plain = plain
        self.reads = reads
        self.reads_arguments = "args" in reads
        self.reads_context = any(one.reads_context for one in rules)
        self.resource: dict[str, Any] | None = None

    def decide(self, facts: Facts) -> Decision:
        """Deny wins, then hold, then allow; what is not allowed is denied, and so is what a rule cannot tell."""
        if self.plain is not None:
            return self.plain
        failed: Decision | None = None
        for rule in self.rules:
            try:
                if rule.met(facts):
                    return rule.decision
            except ConditionFailed as error:
                grant = rule.grant
                verdict = Decision("deny", RULE_FAILED, grant.name, grant.line, str(error))
                if grant.effect != "allow":
                    return verdict
                failed = failed or verdict
        if failed is not None:
            return failed
        # The last would have allowed it: whose condition to look at.
        return Decision("deny", CONDITION_NOT_MET, self.rules[-1].grant.name, self.rules[-1].grant.line)


INVISIBLE = Checks(False, (), HIDDEN)


class Rights:
    """What a set of rules lets through, until it may change by itself (Unix seconds)."""

    __slots__ = ("_covering", "_denied", "_granted", "_known", "_shown", "_site", "rules", "until")

    def __init__(self, rules: tuple[Rule, ...], until: float, site: Site = NOWHERE) -> None:
        self.rules = tuple(sorted(rules, key=lambda one: _ORDER[one.grant.effect]))  # stable: file order within
        self.until = until
        self._known: dict[tuple[Kind, str, str], Checks] = {}
        self._covering: dict[tuple[Kind, str], tuple[Rule, ...]] = {}
        self._shown: list[tuple[Index, int]] = []
        given = [one.grant for one in rules if one.grant.effect != "deny"]
        taken = [one.grant for one in rules if one.grant.effect == "deny" and one.is_plain]
        self._site = site
        self._granted = {kind: Cover(kind, given, site) for kind in PATTERNS_OF}
        self._denied = {kind: Cover(kind, taken, site) for kind in PATTERNS_OF}

    def sees(self, kind: Kind, name: str) -> bool:
        """Is the item of this canonical name visible? Never a matter of arguments (design §3)."""
        return self._granted[kind](name) and not self._denied[kind](name)

    def knows(self, kind: Kind, server: str) -> bool:
        """Could anything of this kind of the server be visible?"""
        return self._granted[kind].narrowed(canonical(server, "")) is not nothing

    def checks(self, kind: Kind, server: str, name: str) -> Checks:
        """What applies to a call of what a server calls so. By these two it is known: nothing is put together then."""
        known = self._known.get((kind, server, name))
        if known is None:
            if len(self._known) >= MOST_NAMES:
                self._known.clear()
            known = self._make(kind, canonical(server, name))
            if len(name) <= LONGEST_NAME:
                self._known[kind, server, name] = known
        return known

    def _make(self, kind: Kind, name: str) -> Checks:
        if not self.sees(kind, name):
            return INVISIBLE
        rules = self._find(kind, name)
        for at, rule in enumerate(rules):
            if rule.is_plain:  # what stands behind it is never reached
                rules = rules[: at + 1]
                break
        plain = rules[0].decision if rules[0].is_plain else None
        if plain is not None:
            return Checks(True, rules, plain)
        reads = frozenset().union(*(one.condition.reads for one in rules if one.condition is not None))
        return Checks(True, rules, None, reads)

    def _find(self, kind: Kind, name: str) -> tuple[Rule, ...]:
        return tuple(
            one
            for one in self.rules
            if covers(one.grant, kind, name) and covers_class(one.grant, kind, name, self._site)
        )

    def covering(self, kind: Kind, name: str) -> tuple[Rule, ...]:
        """All that are for this canonical name, also where it is not visible, and what stands behind a rule that always
        decides. For records: asked on another thread than calls are."""
        known = self._covering.get((kind, name))
        if known is None:
            known = self._find(kind, name)
            if len(self._covering) >= MOST_NAMES:
                self._covering.clear()
            if len(name) <= LONGEST_NAME:
                self._covering[kind, name] = known
        return known

    def known(self, index: Index) -> int | None:
        """Which items of a list are visible, as bits: the i-th for the i-th of its targets. None: `working` it out."""
        return next((bits for known, bits in self._shown if known is index), None)

    def working(self, index: Index) -> Generator[None, None, int]:
        """The same, once a list and in slices."""
        bits = self.known(index)
        if bits is None:
            bits = yield from self.bits(index.kind, ((one.server, one.name) for one in index.targets.values()))
            self._shown = [*self._shown[-MOST_LISTS + 1 :], (index, bits)]
        return bits

    def bits(self, kind: Kind, names: Iterable[tuple[str, str]]) -> Generator[None, None, int]:
        """The same of `names`: server, and name as the server gives it.

        The names of a server stand together in a list, so only the patterns that can fit one of them are asked.
        """
        bits: list[str] = []
        names = iter(names)
        while some := list(islice(names, SLICE)):
            if bits:
                yield
            for server, items in groupby(some, itemgetter(0)):
                prefix = canonical(server, "")
                full = [prefix + name for _, name in items]
                granted = self._granted[kind].narrowed(prefix, full)
                denied = self._denied[kind].narrowed(prefix, full)
                if granted is nothing or denied is everything:
                    bits.append("0" * len(full))
                elif granted is everything and denied is nothing:
                    bits.append("1" * len(full))
                else:
                    bits.append("".join(["1" if granted(name) and not denied(name) else "0" for name in full]))
        return int("".join(bits)[::-1] or "0", 2)


class Grants:
    """All grants of a configuration. Finds the rights of a principal: one object for all whom the same grants fit.

    Args:
        site: Where they are for; what is for another environment never counts.
    Raises:
        BadCondition: One of them; `config` has refused it before.
    """

    def __init__(self, grants: tuple[Grant, ...], site: Site = NOWHERE) -> None:
        self.rules = tuple(map(compile_rule, grants))
        self.site = site
        self.reads_run = any(one.condition is not None and "run" in one.condition.reads for one in self.rules)
        self._ends = sorted(one.expires_at for one in grants if one.expires_at)
        self._windows = any(one.hours is not None for one in grants)
        self._rights: dict[tuple[int, ...], Rights] = {}

    def rights(self, principal: Principal, endpoint: str, now: float) -> Rights:
        """What this principal may at an endpoint. `now`: Unix seconds."""
        fitting = tuple(
            at
            for at, one in enumerate(self.rules)
            if in_environment(one.grant, self.site)
            and in_time(one.grant, now)
            and at_endpoint(one.grant, endpoint)
            and applies_to(one.grant, principal)
        )
        until = self.until(now)
        known = self._rights.get(fitting)
        if known is not None:
            known.until = until
            return known
        if len(self._rights) >= MOST_RIGHTS:
            self._rights.clear()
        made = self._rights[fitting] = Rights(tuple(self.rules[at] for at in fitting), until, self.site)
        return made

    def until(self, now: float) -> float:
        """When a grant may begin or end to count: windows open and close at full minutes."""
        ends = [end for end in self._ends if end > now]
        if self._windows:
            ends.append((now // 60 + 1) * 60)
        return min(ends, default=math.inf)


def at_endpoint(grant: Grant, endpoint: str) -> bool:
    return not grant.endpoints or endpoint in grant.endpoints
