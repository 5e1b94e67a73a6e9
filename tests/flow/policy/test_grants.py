"""Grants: a row a rule, and the promises that hold for any grants, principals and names."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, time
from fnmatch import fnmatchcase
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.policy.conditions import ConditionFailed
from narthex.flow.policy.decision import (
    APPROVAL_REQUIRED,
    CONDITION_NOT_MET,
    DENIED_BY_RULE,
    GRANTED,
    NOT_GRANTED,
    RULE_FAILED,
)
from narthex.flow.policy.grants import Grants, applies_to, compile_rule, in_time, is_open
from narthex.flow.policy.site import NOWHERE, Site
from narthex.flow.policy.slices import finished
from narthex.types import (
    ANONYMOUS,
    CLASSIFICATIONS,
    LOCAL,
    PRIVACY,
    DataRow,
    DataSpec,
    Grant,
    Hours,
    Kind,
    Principal,
    Who,
)

NOW = datetime(2026, 11, 27, 10, 0, tzinfo=UTC).timestamp()  # a Friday
SUPPORT = Principal("acme", "https://idp", "ada", "helpdesk-bot", roles=("support",), method="jwt")
EVERYBODY = (SUPPORT, LOCAL, ANONYMOUS, Principal("acme", "https://idp", "bob", roles=("dev",), method="jwt"))


def facts(args: dict[str, Any] | None = None, address: str | None = None) -> dict[str, Any]:
    context = {"address": address} if address else {}
    return {"args": args or {}, "principal": {}, "resource": {}, "context": context}


def split(name: str) -> tuple[str, str]:
    """The server, and the name that it gives, of a canonical name."""
    server, _, own = name.partition("__")
    return server, own


def decided(
    grants: Iterable[Grant],
    name: str = "billing__refund",
    args: dict[str, Any] | None = None,
    *,
    who: Principal = SUPPORT,
    kind: Kind = "tools",
    endpoint: str = "default",
    now: float = NOW,
    address: str | None = None,
    site: Site = NOWHERE,
) -> tuple[str, str, str]:
    checks = Grants(tuple(grants), site).rights(who, endpoint, now).checks(kind, *split(name))
    decision = checks.decide(facts(args, address))
    return ("hidden" if not checks.visible else decision.effect, decision.reason, decision.rule)


ALLOW = Grant("all of billing", "allow", tools=("billing__*",))
SMALL = Grant("small refunds", "allow", tools=("billing__refund",), when="args.amount <= 100")
NO_DELETES = Grant("no deletes", "deny", tools=("*__delete_*",))
NOT_ABROAD = Grant("not abroad", "deny", tools=("billing__*",), when="args.country != 'PT'")
ASK = Grant("ask first", "hold", tools=("billing__refund",), when="args.amount > 100")
OFFICE = Grant("office", "allow", tools=("*",), networks=(ip_network("10.0.0.0/8"),))
LISBON = "Europe/Lisbon"


@pytest.mark.parametrize(
    ("grants", "given_", "expected"),
    [
        pytest.param([ALLOW], {}, ("allow", GRANTED, "all of billing"), id="granted"),
        pytest.param([ALLOW], {"name": "git__log"}, ("hidden", NOT_GRANTED, ""), id="default deny hides"),
        pytest.param(
            [ALLOW], {"name": "my-billing__x"}, ("hidden", NOT_GRANTED, ""), id="a pattern covers the whole name"
        ),
        pytest.param([ALLOW], {"kind": "prompts"}, ("hidden", NOT_GRANTED, ""), id="a tool's pattern is no prompt's"),
        pytest.param([], {}, ("hidden", NOT_GRANTED, ""), id="no grant fits"),
        pytest.param(
            [ALLOW, NO_DELETES], {"name": "billing__delete_all"}, ("hidden", NOT_GRANTED, ""), id="deny wins and hides"
        ),
        pytest.param([SMALL], {"args": {"amount": 7}}, ("allow", GRANTED, "small refunds"), id="condition met"),
        pytest.param(
            [SMALL], {"args": {"amount": 700}}, ("deny", CONDITION_NOT_MET, "small refunds"), id="condition not met"
        ),
        pytest.param([SMALL], {"args": {}}, ("deny", RULE_FAILED, "small refunds"), id="a missing fact denies"),
        pytest.param(
            [SMALL, ALLOW], {"args": {}}, ("allow", GRANTED, "all of billing"), id="another rule allows all the same"
        ),
        pytest.param(
            [ALLOW, NOT_ABROAD],
            {"args": {"country": "ES"}},
            ("deny", DENIED_BY_RULE, "not abroad"),
            id="a denial with a condition is visible",
        ),
        pytest.param(
            [ALLOW, NOT_ABROAD], {"args": {"country": "PT"}}, ("allow", GRANTED, "all of billing"), id="not denied"
        ),
        pytest.param(
            [ALLOW, NOT_ABROAD], {}, ("deny", RULE_FAILED, "not abroad"), id="a denial that cannot tell, denies"
        ),
        pytest.param(
            [ALLOW, ASK], {"args": {"amount": 700}}, ("hold", APPROVAL_REQUIRED, "ask first"), id="hold before allow"
        ),
        pytest.param([ALLOW, ASK], {"args": {"amount": 7}}, ("allow", GRANTED, "all of billing"), id="nothing to hold"),
        pytest.param([OFFICE], {"address": "10.1.2.3"}, ("allow", GRANTED, "office"), id="in the network"),
        pytest.param(
            [OFFICE], {"address": "192.0.2.1"}, ("deny", CONDITION_NOT_MET, "office"), id="outside, but visible"
        ),
        pytest.param([OFFICE], {}, ("deny", RULE_FAILED, "office"), id="an unknown address denies"),
        pytest.param(
            [Grant("g", "allow", tools=("*",), endpoints=("other",))],
            {},
            ("hidden", NOT_GRANTED, ""),
            id="other endpoint",
        ),
        pytest.param(
            [Grant("g", "allow", tools=("*",), expires_at=NOW)], {}, ("hidden", NOT_GRANTED, ""), id="expired"
        ),
        pytest.param(
            [Grant("g", "allow", tools=("*",), expires_at=NOW + 1)], {}, ("allow", GRANTED, "g"), id="not yet expired"
        ),
        pytest.param(
            [Grant("g", "allow", Who(role=("support",), client=("helpdesk-bot",)), tools=("*",))],
            {},
            ("allow", GRANTED, "g"),
            id="role and agent",
        ),
        pytest.param(
            [Grant("g", "allow", Who(role=("support",), client=("other",)), tools=("*",))],
            {},
            ("hidden", NOT_GRANTED, ""),
            id="role, but another agent",
        ),
        pytest.param([ALLOW], {"who": LOCAL}, ("allow", GRANTED, "all of billing"), id="local is everybody"),
        pytest.param([ALLOW], {"who": ANONYMOUS}, ("hidden", NOT_GRANTED, ""), id="anonymous is not everybody"),
        pytest.param(
            [Grant("g", "allow", Who(anonymous=True), tools=("*",))],
            {"who": ANONYMOUS},
            ("allow", GRANTED, "g"),
            id="anonymous where it says so",
        ),
        pytest.param(
            [Grant("g", "allow", Who(anonymous=True), tools=("*",))],
            {},
            ("hidden", NOT_GRANTED, ""),
            id="only anonymous",
        ),
        pytest.param(
            [Grant("g", "allow", Who(anonymous=True), tools=("*",)), NO_DELETES],
            {"who": ANONYMOUS, "name": "a__delete_b"},
            ("hidden", NOT_GRANTED, ""),
            id="denials hit everybody",
        ),
    ],
)
def test_decision(grants: list[Grant], given_: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert decided(grants, **given_) == expected


@pytest.mark.parametrize(
    ("hours", "at", "open_"),
    [
        pytest.param(Hours(time(8), time(18), LISBON), (2026, 11, 27, 8, 0), True, id="the beginning belongs to it"),
        pytest.param(Hours(time(8), time(18), LISBON), (2026, 11, 27, 18, 0), False, id="the end does not"),
        pytest.param(Hours(time(8), time(18), LISBON, frozenset({0})), (2026, 11, 27, 9, 0), False, id="another day"),
        pytest.param(Hours(time(8), time(18), LISBON), (2026, 7, 1, 7, 30), True, id="local time, in summer too"),
        pytest.param(Hours(time(22), time(6), "UTC"), (2026, 11, 27, 23, 0), True, id="over midnight, before it"),
        pytest.param(
            Hours(time(22), time(6), "UTC", frozenset({4})), (2026, 11, 28, 5, 59), True, id="Friday's night ends"
        ),
        pytest.param(
            Hours(time(22), time(6), "UTC", frozenset({4})), (2026, 11, 27, 5, 0), False, id="Thursday's night"
        ),
        pytest.param(Hours(time(0), time(0), "UTC"), (2026, 11, 27, 5, 0), True, id="the whole day"),
    ],
)
def test_hours(hours: Hours, at: tuple[int, int, int, int, int], open_: bool) -> None:
    assert is_open(hours, datetime(*at, tzinfo=UTC).timestamp()) is open_


def test_a_window_opens_and_closes_by_itself() -> None:
    grants = Grants((Grant("day", "allow", tools=("*",), hours=Hours(time(10, 1), time(10, 2), "UTC")),))
    seen = [grants.rights(SUPPORT, "default", NOW + s).sees("tools", "a__b") for s in (0, 59, 60, 119, 120)]
    assert seen == [False, False, True, True, False]


def test_a_grant_ends_at_its_moment() -> None:
    grants = Grants((Grant("g", "allow", tools=("*",), expires_at=NOW + 5.5),))
    assert [grants.rights(SUPPORT, "default", NOW + s).sees("tools", "a__b") for s in (0, 5, 5.5)] == [
        True,
        True,
        False,
    ]


def test_principals_whom_the_same_grants_fit_share_their_rights() -> None:
    grants = Grants((ALLOW, Grant("dev", "allow", Who(role=("dev",)), tools=("git__*",))))
    ada, bob = grants.rights(SUPPORT, "default", NOW), grants.rights(EVERYBODY[3], "default", NOW)
    carla = grants.rights(Principal("acme", "https://idp", "carla", roles=("support",), method="jwt"), "default", NOW)
    assert ada is carla
    assert ada is not bob


# --- properties

NAMES = st.sampled_from(["a__x", "a__xy", "a__delete_x", "b__x", "b__", "a__b__x", "é__ü"])
GLOBS = st.lists(st.sampled_from(["*", "a__*", "*__x", "a__x", "*delete*", "b__?", "a__b__*"]), max_size=3).map(tuple)
CONDITIONS = st.sampled_from(["args.n > 1", "args.s == 'x'", "has(args.n)"])
GRANTS = st.builds(
    Grant,
    name=st.sampled_from("pqrs"),
    effect=st.sampled_from(["allow", "deny", "hold"]),
    who=st.builds(
        Who,
        role=st.sampled_from([(), ("support",), ("dev", "support")]),
        tenant=st.sampled_from([(), ("acme",)]),
        anonymous=st.sampled_from([False, False, False, True]),
    ),
    tools=GLOBS,
    prompts=GLOBS,
    resources=GLOBS,
    when=st.just("") | CONDITIONS,
    networks=st.sampled_from([(), (), (ip_network("10.0.0.0/8"),)]),
    expires_at=st.sampled_from([0.0, 0.0, NOW - 1, NOW + 1]),
    classification=st.sampled_from([frozenset[str](), frozenset({"public"}), frozenset({"internal", "restricted"})]),
    privacy=st.sampled_from([frozenset[str](), frozenset[str](), frozenset({"none", "sensitive"})]),
    environments=st.sampled_from([(), (), ("production",), ("test", "staging")]),
)
SITES = st.builds(
    Site,
    st.sampled_from(["", "production", "test"]),
    st.builds(
        DataSpec,
        st.dictionaries(
            st.sampled_from("ab"),
            st.tuples(st.sampled_from(["", *CLASSIFICATIONS]), st.sampled_from(["", "none", "personal"])),
        ),
        st.lists(
            st.builds(
                DataRow, GLOBS, GLOBS, GLOBS, st.sampled_from(["", "public", "internal"]), st.sampled_from(["", "none"])
            ),
            max_size=2,
        ).map(tuple),
    ),
)
KINDS: st.SearchStrategy[Kind] = st.sampled_from(["tools", "prompts", "resources", "templates"])
ARGS = st.dictionaries(st.sampled_from("ns"), st.integers(0, 3) | st.sampled_from("xy"), max_size=2)


def oracle(
    grants: list[Grant], who: Principal, kind: Kind, name: str, args: dict[str, Any], address: str | None, site: Site
) -> str:
    """The same by the words of the design, rule by rule, with nothing remembered."""
    patterns = "resources" if kind == "templates" else kind
    classification, privacy = site.data(kind, name)
    mine = [
        compile_rule(one)
        for one in grants
        if in_time(one, NOW) and applies_to(one, who) and any(fnmatchcase(name, g) for g in getattr(one, patterns))
        if classification in (one.classification or CLASSIFICATIONS)
        if privacy in (one.privacy or PRIVACY)
        if not one.environments or site.environment in one.environments
    ]
    if all(one.grant.effect == "deny" for one in mine):
        return "hidden"
    if any(one.grant.effect == "deny" and not one.grant.when and not one.grant.networks for one in mine):
        return "hidden"
    for effect in ("deny", "hold", "allow"):
        for one in [one for one in mine if one.grant.effect == effect]:
            try:
                met = one.met(facts(args, address))
            except ConditionFailed:
                if effect != "allow":
                    return "deny"
                continue
            if met:
                return effect
    return "deny"


@given(
    st.lists(GRANTS, max_size=6),
    st.sampled_from(EVERYBODY),
    KINDS,
    NAMES,
    ARGS,
    st.sampled_from([None, "10.1.1.1", "::1"]),
    SITES,
)
def test_decides_as_the_words_of_the_design(
    grants: list[Grant], who: Principal, kind: Kind, name: str, args: dict[str, Any], address: str | None, site: Site
) -> None:
    found, _, _ = decided(grants, name, args, who=who, kind=kind, address=address, site=site)
    assert found == oracle(grants, who, kind, name, args, address, site)


@given(st.lists(GRANTS, max_size=6), st.sampled_from(EVERYBODY), KINDS, st.lists(NAMES, unique=True), SITES)
def test_what_is_listed_is_exactly_what_is_not_hidden(
    grants: list[Grant], who: Principal, kind: Kind, names: list[str], site: Site
) -> None:
    rights = Grants(tuple(grants), site).rights(who, "default", NOW)
    bits = finished(rights.bits(kind, [tuple(name.split("__", 1)) for name in names]))  # type: ignore[misc]
    for at, name in enumerate(names):
        assert bool(bits >> at & 1) is rights.sees(kind, name) is rights.checks(kind, *split(name)).visible
        assert rights.knows(kind, name.split("__")[0]) or not rights.sees(kind, name)


@given(st.lists(GRANTS, max_size=6), st.sampled_from(EVERYBODY), KINDS, NAMES, ARGS)
def test_a_further_denial_never_opens_anything(
    grants: list[Grant], who: Principal, kind: Kind, name: str, args: dict[str, Any]
) -> None:
    before, _, _ = decided(grants, name, args, who=who, kind=kind)
    more = [*grants, Grant("z", "deny", tools=("*",), prompts=("*",), resources=("*",))]
    assert decided(more, name, args, who=who, kind=kind)[0] == "hidden"
    assert before in ("hidden", "deny", "hold", "allow")


@pytest.mark.parametrize(
    ("address", "denied", "allowed"),
    [
        pytest.param("10.1.2.3", "denied_by_rule", "granted", id="IPv4"),
        pytest.param("::ffff:10.1.2.3", "denied_by_rule", "granted", id="IPv4 as a socket for both shows it"),
        pytest.param("::ffff:11.1.2.3", "granted", "condition_not_met", id="another, shown so"),
        pytest.param("fe80::1%eth0", "granted", "condition_not_met", id="IPv6 with its interface"),
        pytest.param("somewhere", "rule_failed", "rule_failed", id="what is no address"),
    ],
)
def test_a_network_holds_an_address_in_each_of_its_forms(address: str, denied: str, allowed: str) -> None:
    away = Grant("away", "deny", tools=("*",), networks=OFFICE.networks)
    assert decided([ALLOW, away], address=address)[1] == denied
    assert decided([OFFICE], address=address)[1] == allowed


def test_without_an_address_a_rule_with_networks_has_failed() -> None:
    context = {**facts(), "context": {"address": ""}}
    checks = Grants((OFFICE,)).rights(SUPPORT, "default", NOW).checks("tools", "a", "b")
    assert checks.decide(context).reason == RULE_FAILED
