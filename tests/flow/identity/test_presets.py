"""Each preset reads tokens as its provider documents them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from narthex.flow.identity.claims import principal_of
from narthex.flow.identity.presets import PRESETS, aliases_of, expand_audiences
from narthex.types import ClaimRules, Principal
from tests.flow.identity.issuer import NOW


def read(name: str, said: dict[str, Any]) -> Principal:
    preset = PRESETS[name]
    rules = ClaimRules(
        subject=preset.subject,
        client=preset.client,
        scopes=preset.scopes,
        roles=expand_audiences(preset.roles, ("gateway",)),
        groups=preset.groups,
        role_prefix="gw-",
        group_map={"support": ("support",)},
        preset=name,
    )
    return principal_of({"exp": NOW + 60, "iat": NOW, **said}, rules, issuer="i", method="jwt")


TOKENS: list[Any] = [
    pytest.param(
        "keycloak",
        {"sub": "f00", "azp": "agent", "scope": "openid mcp", "typ": "Bearer", "preferred_username": "alice",
         "realm_access": {"roles": ["gw-a"]}, "resource_access": {"gateway": {"roles": ["gw-b"]}},
         "groups": ["support"]},
        ("f00", "agent", "human", {"openid", "mcp"}, {"a", "b", "support"}), id="keycloak: a human",
    ),
    pytest.param(
        "keycloak", {"sub": "f01", "azp": "robot", "preferred_username": "service-account-robot", "scope": ""},
        ("f01", "robot", "service", set(), set()), id="keycloak: a service account",
    ),
    pytest.param(
        "entra", {"oid": "o1", "sub": "pairwise", "azp": "app", "scp": "mcp.read mcp.write", "roles": ["gw-a"],
                  "tid": "t", "ver": "2.0"},
        ("o1", "app", "human", {"mcp.read", "mcp.write"}, {"a"}), id="entra: version 2, a human",
    ),
    pytest.param(
        "entra", {"oid": "o2", "sub": "o2", "appid": "app", "roles": ["gw-a"], "tid": "t", "ver": "1.0"},
        ("o2", "app", "service", set(), {"a"}), id="entra: version 1, an application",
    ),
    pytest.param(
        "entra", {"oid": "o3", "sub": "o3", "azp": "app", "idtyp": "app", "tid": "t"},
        ("o3", "app", "service", set(), set()), id="entra: idtyp",
    ),
    pytest.param(
        "okta", {"sub": "alice@example.com", "uid": "00u1", "cid": "0oa1", "scp": ["mcp", "groups"],
                 "groups": ["support"]},
        ("00u1", "0oa1", "human", {"mcp", "groups"}, {"support"}), id="okta: a human",
    ),
    pytest.param(
        "okta", {"sub": "0oa1", "cid": "0oa1", "scp": ["mcp"]},
        ("0oa1", "0oa1", "service", {"mcp"}, set()), id="okta: a service",
    ),
    pytest.param(
        "auth0", {"sub": "auth0|1", "azp": "c", "scope": "mcp", "permissions": ["gw-a"]},
        ("auth0|1", "c", "human", {"mcp"}, {"a"}), id="auth0: a human",
    ),
    pytest.param(
        "auth0", {"sub": "c@clients", "azp": "c", "gty": "client-credentials"},
        ("c@clients", "c", "service", set(), set()), id="auth0: a service",
    ),
    pytest.param(
        "cognito", {"sub": "u1", "client_id": "c", "username": "alice", "token_use": "access", "scope": "gw/mcp",
                    "cognito:groups": ["support"]},
        ("u1", "c", "human", {"gw/mcp"}, {"support"}), id="cognito: a human",
    ),
    pytest.param(
        "google", {"sub": "123", "azp": "c", "email": "robot@project.iam.gserviceaccount.com"},
        ("123", "c", "service", set(), set()), id="google: a service account",
    ),
    pytest.param(
        "generic", {"sub": "c1", "client_id": "c1", "scope": "mcp", "roles": ["gw-a"]},
        ("c1", "c1", "service", {"mcp"}, {"a"}), id="generic: client credentials (RFC 9068)",
    ),
    pytest.param(
        "kubernetes",
        {"sub": "system:serviceaccount:agents:helper",
         "kubernetes.io": {"namespace": "agents", "serviceaccount": {"name": "helper", "uid": "u"}}},
        ("system:serviceaccount:agents:helper", "helper", "service", set(), set()), id="kubernetes",
    ),
    pytest.param(
        "spiffe", {"sub": "spiffe://example.org/agents/helper"},
        ("spiffe://example.org/agents/helper", "", "service", set(), set()), id="spiffe",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "said", "expected"), TOKENS)
def test_tokens(name: str, said: dict[str, Any], expected: tuple[str, str, str, set[str], set[str]]) -> None:
    found = read(name, said)
    assert (found.subject, found.client, found.kind, set(found.scopes), set(found.roles)) == expected


def test_every_preset_has_its_token() -> None:
    assert {case.values[0] for case in TOKENS} == set(PRESETS)


@pytest.mark.parametrize(
    ("name", "issuer", "fits"),
    [
        ("keycloak", "https://sso.example.com/realms/corp", True),
        ("keycloak", "https://sso.example.com/realms/corp/", False),
        ("keycloak", "https://sso.example.com", False),
        ("entra", "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", True),
        ("entra", "https://login.microsoftonline.com/{tid}/v2.0", True),
        ("entra", "https://login.microsoftonline.com/common", False),
        ("auth0", "https://example.eu.auth0.com/", True),
        ("auth0", "https://example.eu.auth0.com", False),
        ("spiffe", "spiffe://example.org", True),
        ("spiffe", "https://example.org", False),
        ("generic", "https://sso.example.com?x=1", False),
    ],
)
def test_forms_of_issuers(name: str, issuer: str, fits: bool) -> None:
    assert bool(re.fullmatch(PRESETS[name].issuer, issuer)) is fits


def test_aliases() -> None:
    entra, google = PRESETS["entra"], PRESETS["google"]
    assert aliases_of(entra, "https://login.microsoftonline.com/t1/v2.0") == ("https://sts.windows.net/t1/",)
    assert aliases_of(entra, "https://login.microsoftonline.com/{tid}/v2.0") == ("https://sts.windows.net/{tid}/",)
    assert aliases_of(entra, "https://evil.example/t1/v2.0") == ()
    assert aliases_of(google, "https://accounts.google.com") == ("accounts.google.com",)


def test_a_path_with_an_audience_in_it_is_one_for_each() -> None:
    paths = (("a",), ("b", "{audience}", "c"))
    assert expand_audiences(paths, ("x.y", "z")) == (("a",), ("b", "x.y", "c"), ("b", "z", "c"))
    assert expand_audiences(paths, ()) == (("a",),)
