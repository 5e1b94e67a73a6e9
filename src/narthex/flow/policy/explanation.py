"""Why a call is allowed or denied: every rule looked at, what it said, and the line it is on.

In: grants, a principal, a name and the facts of a call, real or imagined. Out: an `Explanation`, whose decision is the
one that a call gets: it is taken by the same code. Cases: `tests/flow/policy/test_explanation.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from narthex.flow.codec.jsonrpc import RawMap
from narthex.flow.identity.who import fits
from narthex.flow.policy.admission import Admission, facts_of
from narthex.flow.policy.conditions import ConditionFailed, Facts
from narthex.flow.policy.decision import ALLOW, DENIED_BY_RULE, HIDDEN, Decision
from narthex.flow.policy.grants import (
    Grants,
    Rule,
    applies_to,
    at_endpoint,
    covers,
    covers_class,
    in_environment,
    in_time,
)
from narthex.flow.policy.site import Site
from narthex.types import Grant, Kind, Principal

Verdict = Literal["applies", "skipped", "not met", "failed"]


class Step(msgspec.Struct, frozen=True):
    """One rule: whether it had a say, and why."""

    rule: str
    line: int
    effect: str
    verdict: Verdict
    text: str


class Explanation(msgspec.Struct, frozen=True):
    """`steps` in the order of the file; `visible`: whether the caller sees the thing at all."""

    decision: Decision
    visible: bool
    steps: tuple[Step, ...]


def explain(
    grants: Grants | None,
    principal: Principal,
    endpoint: str,
    kind: Kind,
    target: tuple[str, str],
    params: RawMap,
    context: Mapping[str, Any],
    now: float,
) -> Explanation:
    """Decide a call, and say how.

    Args:
        target: Server, and the name as the server gives it.
        params: `arguments` in it are what the call brings. context: the client's `address`.
        now: Unix seconds.
    """
    if grants is None:
        return Explanation(ALLOW, True, ())
    rights = grants.rights(principal, endpoint, now)
    admission = Admission(principal, endpoint, rights, None, site=grants.site)
    facts = facts_of(admission, kind, target, params, context)
    steps = tuple(_step(rule, grants.site, principal, endpoint, kind, facts, now) for rule in grants.rules)
    if not admission.sees(kind, *target):
        return Explanation(_hiding(steps), False, steps)
    decision, _ = admission.decide(kind, *target, params, context)
    assert decision is not None
    return Explanation(decision, True, steps)


def _hiding(steps: tuple[Step, ...]) -> Decision:
    """What is hidden by a denial names it; else nothing grants it."""
    denial = next((one for one in steps if one.effect == "deny" and one.verdict == "applies"), None)
    if denial is None:
        return HIDDEN
    return Decision("deny", DENIED_BY_RULE, denial.rule, denial.line)


def _step(rule: Rule, site: Site, principal: Principal, endpoint: str, kind: Kind, facts: Facts, now: float) -> Step:
    grant = rule.grant
    verdict, text = _verdict(rule, site, principal, endpoint, kind, facts, now)
    return Step(grant.name, grant.line, grant.effect, verdict, text)


def _verdict(
    rule: Rule, site: Site, principal: Principal, endpoint: str, kind: Kind, facts: Facts, now: float
) -> tuple[Verdict, str]:
    grant, resource = rule.grant, facts["resource"]
    name = str(resource["canonical"])
    if not covers(grant, kind, name):
        return "skipped", f"no pattern of it covers {name}"
    if not covers_class(grant, kind, name, site):
        return (
            "skipped",
            f"it is for data of other classes; this is {resource['classification']}, {resource['privacy']}",
        )
    if not in_environment(grant, site):
        return "skipped", f"it is for other environments: {', '.join(grant.environments)}"
    if not applies_to(grant, principal):
        return "skipped", "it is for others: " + _others(grant, principal)
    if not at_endpoint(grant, endpoint):
        return "skipped", f"it is for other endpoints: {', '.join(grant.endpoints)}"
    if not in_time(grant, now):
        return "skipped", "it has expired" if grant.expires_at and now >= grant.expires_at else "outside its hours"
    if rule.is_plain:
        return "applies", "without a condition"
    try:
        met = rule.met(facts)
    except ConditionFailed as error:
        return "failed", str(error)
    where = f"from {facts['context'].get('address')}" if grant.networks else ""
    said = " and ".join(filter(None, (grant.when, where)))
    return ("applies", f"true: {said}") if met else ("not met", f"false: {said}")


def _others(grant: Grant, principal: Principal) -> str:
    """Which part of `who` does not fit."""
    if grant.who.anonymous:
        return "anonymous callers"
    if principal.method == "anonymous":
        return "those who have signed in"
    for key in grant.who.__struct_fields__:
        values = getattr(grant.who, key)
        if values and key != "anonymous":
            alone = type(grant.who)(**{key: values})
            if not fits(alone, principal):
                return f"{key} {' or '.join(values)}"
    return "nobody"
