"""Why a call is allowed or denied: every rule looked at, what it said, and the line it is on.

In: grants, a principal, a name and the facts of a call, real or imagined. Out: an `Explanation`, whose decision is the
one that a call gets: it is taken by the same code. Cases: `tests/flow/policy/test_explanation.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from narthex.errors import Denied
from narthex.flow.codec.jsonrpc import RawMap, encode
from narthex.flow.identity.who import fits
from narthex.flow.policy.admission import Admission
from narthex.flow.policy.check import Check
from narthex.flow.policy.conditions import ConditionFailed, Facts
from narthex.flow.policy.decision import DENIED_BY_RULE, HIDDEN, Decision
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
from narthex.flow.policy.runs.explanation import steps_of
from narthex.flow.policy.runs.runs import Runs
from narthex.flow.policy.site import NOWHERE, Site
from narthex.flow.policy.step import Step, Verdict
from narthex.flow.route.names import canonical
from narthex.flow.route.target import Target
from narthex.types import Grant, Kind, Principal


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
    runs: Runs | None = None,
) -> Explanation:
    """Decide a call, and say how.

    Args:
        target: Server, and the name as the server gives it.
        params: `arguments` in it are what the call brings. context: the client's `address`.
        now: Unix seconds. runs: What the caller has done before; None: nothing is watched.
    """
    watched = steps_of(runs, principal, endpoint, kind, canonical(*target)) if runs is not None else ()
    rights, site = (grants.rights(principal, endpoint, now), grants.site) if grants is not None else (None, NOWHERE)
    admission = Admission(principal, endpoint, rights, None, site=site, runs=runs)
    check = Check(admission, context.get("address", ""), now)
    facts = {**admission.facts_of(kind, *target, params, context), "run": check.run_facts()}
    rules = grants.rules if grants is not None else ()
    steps = tuple(_step(rule, site, principal, endpoint, kind, facts, now) for rule in rules)
    if not admission.sees(kind, *target):
        return Explanation(_hiding(steps), False, (*steps, *watched))
    with suppress(Denied):  # the decision says so
        check.admit(kind, Target(*target, encode(target[1])), params)
    assert check.decision is not None
    return Explanation(check.decision, True, (*steps, *watched))


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
