"""From claims to principals: rows for the rules, properties for what must never happen."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.identity.claims import principal_of, with_included
from narthex.flow.identity.presets import PRESETS
from narthex.flow.identity.tokens import TokenRefused
from narthex.types import ClaimRules, Principal
from tests.flow.identity.issuer import ISSUER, NOW, claims

KEYCLOAK = ClaimRules(
    roles=(("realm_access", "roles"), ("resource_access", "gateway", "roles")),
    groups=(("groups",),),
    role_map={"gw-support": ("support",), "gw-boss": ("support", "approver")},
    role_prefix="narthex-",
    group_map={"/support": ("support",), "/ops/admins": ("admin",)},
    subject_map={"svc-*": ("robot",)},
    preset="keycloak",
)


def read(rules: ClaimRules = KEYCLOAK, **more: Any) -> Principal:
    return principal_of(claims(**more), rules, issuer=ISSUER, method="jwt")


def test_who() -> None:
    found = read(azp="agent", scope="mcp read", auth_time=NOW - 50, preferred_username="alice")
    assert found.key == ("default", ISSUER, "alice", "agent")
    assert found.scopes == {"mcp", "read"}
    assert (found.kind, found.method) == ("human", "jwt")
    assert (found.authenticated_at, found.expires_at) == (NOW - 50, NOW + 300)


@pytest.mark.parametrize(
    ("said", "roles"),
    [
        pytest.param({}, (), id="nothing gives nothing"),
        pytest.param({"realm_access": {"roles": ["admin", "support"]}}, (), id="roles that no rule names"),
        pytest.param({"realm_access": {"roles": ["gw-support"]}}, ("support",), id="role_map"),
        pytest.param({"realm_access": {"roles": ["gw-boss"]}}, ("support", "approver"), id="one gives two"),
        pytest.param({"resource_access": {"gateway": {"roles": ["gw-support"]}}}, ("support",), id="another path"),
        pytest.param({"resource_access": {"other": {"roles": ["gw-support"]}}}, (), id="roles of another client"),
        pytest.param({"realm_access": {"roles": ["narthex-x"]}}, ("x",), id="role_prefix"),
        pytest.param({"realm_access": {"roles": ["narthex-"]}}, (), id="a prefix and nothing behind it"),
        pytest.param({"realm_access": {"roles": "gw-support"}}, ("support",), id="a text is a list of one"),
        pytest.param({"realm_access": {"roles": "gw-support gw-boss"}}, (), id="which is not split"),
        pytest.param({"realm_access": ["gw-support"]}, (), id="a list on the way"),
        pytest.param({"realm_access.roles": ["gw-support"]}, (), id="a name that looks like the way"),
        pytest.param({"roles": ["gw-support"]}, (), id="a place that no rule names"),
        pytest.param({"groups": ["/support"]}, ("support",), id="group_map"),
        pytest.param({"groups": ["/support/sub", "support", "/SUPPORT"]}, (), id="groups are exact"),
        pytest.param({"groups": [["/support"], {"a": "/support"}, 5]}, (), id="groups that are no texts"),
        pytest.param({"groups": ["/support", "/ops/admins"]}, ("support", "admin"), id="several, each once, in order"),
        pytest.param({"sub": "svc-1"}, ("robot",), id="subject_map"),
        pytest.param({"sub": "x-svc-1"}, (), id="a glob is on all of the subject"),
    ],
)
def test_roles(said: dict[str, Any], roles: tuple[str, ...]) -> None:
    assert read(**said).roles == roles


@pytest.mark.parametrize(
    ("said", "values"),
    [
        pytest.param({"unit": "a"}, ("a",), id="a text"),
        pytest.param({"unit": 7}, ("7",), id="a number"),
        pytest.param({"unit": True}, ("true",), id="a boolean"),
        pytest.param({"unit": ["b", 7, {}, "a"]}, ("7", "a", "b"), id="a list"),
        pytest.param({"unit": {"a": 1}}, (), id="an object"),
        pytest.param({}, (), id="none"),
    ],
)
def test_claims_that_limits_count_by(said: dict[str, Any], values: tuple[str, ...]) -> None:
    rules = msgspec.structs.replace(KEYCLOAK, kept=(("unit", ("unit",)),))
    assert read(rules, **said).claims == (("unit", values),)


def test_groups_are_kept_and_open_nothing() -> None:
    found = read(groups=["/a", "/b", "/a"])
    assert found.groups == ("/a", "/b") and found.roles == ()


@pytest.mark.parametrize(
    ("rules", "said", "failed"),
    [
        pytest.param({}, {"sub": None}, "subject", id="no subject"),
        pytest.param({}, {"sub": ""}, "subject", id="an empty subject"),
        pytest.param({}, {"sub": ["alice"]}, "subject", id="a subject that is a list"),
        pytest.param({}, {"sub": 5}, "subject", id="a subject that is a number"),
        pytest.param({}, {"sub": "a\nb"}, "form", id="a subject that would write its own log line"),
        pytest.param({}, {"sub": "a" * 600}, "form", id="an endless subject"),
        pytest.param({"subjects": ("svc-*",)}, {}, "subject", id="a subject that is not let in"),
        pytest.param({"tenant_claim": ("tid",)}, {}, "tenant", id="no tenant"),
        pytest.param({"tenant_claim": ("tid",)}, {"tid": "a/b"}, "tenant", id="a tenant of other characters"),
        pytest.param({"tenant_claim": ("tid",)}, {"tid": ["t"]}, "tenant", id="a tenant that is a list"),
        pytest.param({"tenant_claim": ("tid",), "tenant_map": {"t1": "acme"}}, {"tid": "t2"}, "tenant", id="unmapped"),
        pytest.param({}, {"_claim_names": {"groups": "src1"}}, "groups", id="overage: names"),
        pytest.param({}, {"hasgroups": True}, "groups", id="overage: hasgroups"),
        pytest.param({}, {"groups": ["x"] * 1001}, "size", id="groups without end"),
        pytest.param({}, {"act": {"act": {"act": {"act": {"act": {"act": {"act": {"act": {"act": {}}}}}}}}}}, "actors",
                     id="actors without end"),
    ],
)  # fmt: skip
def test_refused(rules: dict[str, Any], said: dict[str, Any], failed: str) -> None:
    with pytest.raises(TokenRefused) as caught:
        read(msgspec.structs.replace(KEYCLOAK, **rules), **said)
    assert caught.value.check == failed


def test_tenants() -> None:
    rules = msgspec.structs.replace(KEYCLOAK, tenant_claim=("org", "id"), tenant_map={"1": "acme"})
    assert read(rules, org={"id": "1"}).tenant == "acme"
    assert read(msgspec.structs.replace(rules, tenant_map={}), org={"id": "1"}).tenant == "1"


def test_overage_may_be_ignored() -> None:
    rules = msgspec.structs.replace(KEYCLOAK, overage="ignore")
    assert read(rules, _claim_names={"groups": "src1"}).groups == ()


def test_actors_the_last_first() -> None:
    assert read(act={"sub": "agent", "act": {"client_id": "app", "act": {"x": 1}}}).actors == ("agent", "app", "?")


def test_scopes() -> None:
    rules = msgspec.structs.replace(KEYCLOAK, scopes=(("scp",),), scope_prefix="api://gw/")
    found = principal_of(
        claims(scp=["read", "api://gw/x"], scope="other"), rules, issuer="i", method="jwt",
        includes={"read": ("list",), "list": ("ping", "read")},
    )  # fmt: skip
    assert found.scopes == {"read", "api://gw/read", "api://gw/x", "list", "ping"}


def test_included_scopes_end_even_in_a_circle() -> None:
    assert with_included(["a"], {"a": ("b",), "b": ("a", "c")}) == {"a", "b", "c"}


def test_the_explanation_names_each_step() -> None:
    steps: list[tuple[str, str]] = []
    principal_of(
        claims(groups=["/support"], scope="x"), KEYCLOAK, issuer="i", method="jwt",
        say=lambda step, text: steps.append((step, text)),
    )  # fmt: skip
    assert ("subject", "alice (from sub)") in steps
    assert ("role", "support (group_map: /support)") in steps
    assert ("scopes", "x (from scope)") in steps


def test_equal_values_are_one_value() -> None:
    one, two = read(sub="a", groups=["/support"], scope="x"), read(sub="b", groups=["/support"], scope="x")
    assert one.groups is two.groups and one.roles is two.roles and one.scopes is two.scopes


# --- properties

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["gw-support", "narthex-a", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["sub", "roles", "groups", "realm_access", "resource_access", "gateway", "act", "scope", "azp", "tid", "hasgroups"]
)
claim_sets = st.dictionaries(names | st.text(max_size=6), values, max_size=8)


@given(claim_sets)
def test_without_rules_no_claims_give_a_role(said: dict[str, Any]) -> None:
    for preset in PRESETS.values():
        rules = ClaimRules(roles=preset.roles, groups=preset.groups, subject=preset.subject, preset=preset.name)
        try:
            found = principal_of({"sub": "alice", "oid": "alice", **said}, rules, issuer="i", method="jwt")
        except TokenRefused:
            continue
        assert found.roles == ()


@given(claim_sets)
def test_every_role_is_one_that_a_rule_gives(said: dict[str, Any]) -> None:
    try:
        found = principal_of({"sub": "alice", **said}, KEYCLOAK, issuer="i", method="jwt")
    except TokenRefused:
        return
    given_by_maps = {"support", "approver", "admin", "robot"}
    assert all(role in given_by_maps or "narthex-" + role in repr(said) for role in found.roles)
    assert found.tenant == "default" and found.issuer == "i", "neither comes from a claim that no rule names"


@given(claim_sets)
def test_a_principal_can_be_written_to_a_log(said: dict[str, Any]) -> None:
    try:
        found = principal_of({"sub": "alice", **said}, KEYCLOAK, issuer="i", method="jwt")
    except TokenRefused:
        return
    for text in (*found.key, *found.groups, *found.roles, *found.actors, *found.scopes):
        assert "\n" not in text and "\x1b" not in text
