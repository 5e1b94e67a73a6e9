"""The realm that the tests of identity rest on gives what its description says."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.counterparts.keycloak.server import Keycloak, Refused

pytestmark = pytest.mark.e2e


def read(token: str, part: int = 1) -> Any:
    text = token.split(".")[part]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_a_users_token_has_roles_groups_and_audiences(keycloak: Keycloak) -> None:
    claims = read(keycloak.token(user="alice", scope="tools:read"))
    assert claims["iss"] == keycloak.issuer and set(claims["aud"]) == {"gateway", "narthex"}
    assert "support" in claims["realm_access"]["roles"] and claims["groups"] == ["/staff/support"]
    assert claims["resource_access"]["gateway"]["roles"] == ["reader"]
    assert claims["azp"] == "agent" and "tools:read" in claims["scope"].split()


def test_a_token_without_audience_mapper_is_for_nobody(keycloak: Keycloak) -> None:
    assert "gateway" not in read(keycloak.token("stranger")).get("aud", [])


def test_a_resource_indicator_narrows_the_audience(keycloak: Keycloak) -> None:
    assert read(keycloak.token(resource="https://gateway.example.com/mcp"))["aud"] == "https://gateway.example.com/mcp"
    with pytest.raises(Refused, match="invalid_target"):
        keycloak.token(resource="https://unknown.example.com/mcp")


def test_a_token_is_exchanged_for_one_of_another_audience(keycloak: Keycloak) -> None:
    mine = keycloak.token(user="alice")
    theirs = read(keycloak.exchange(mine, audience="upstream", scope="upstream-audience"))
    assert (theirs["aud"], theirs["azp"], theirs["sub"]) == ("upstream", "narthex", read(mine)["sub"])


def test_a_rotated_key_signs_and_a_realm_of_its_own_disturbs_nobody(keycloak: Keycloak) -> None:
    own = keycloak.new_realm()
    before, shared = read(own.token(), 0)["kid"], read(keycloak.token(), 0)["kid"]
    after = own.rotate_key()
    assert read(own.token(), 0)["kid"] == after != before
    assert read(keycloak.token(), 0)["kid"] == shared


def test_a_new_resource_is_one_that_tokens_may_be_for(keycloak: Keycloak) -> None:
    own = keycloak.new_realm()
    own.add_resource("http://127.0.0.1:12345/mcp", "agent")
    assert read(own.token(resource="http://127.0.0.1:12345/mcp"))["aud"] == "http://127.0.0.1:12345/mcp"
