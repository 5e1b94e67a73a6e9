"""The everyday provider gives the two kinds of token that the tests of identity rest on."""

from __future__ import annotations

import jwt
import pytest

from tests.counterparts.oidc import Oidc

pytestmark = pytest.mark.e2e
RESOURCE = "http://127.0.0.1:12345/mcp"


def test_a_resource_has_tokens_that_say_so(oidc: Oidc) -> None:
    token = oidc.token(RESOURCE, "tools:read")
    keys = jwt.PyJWKClient(oidc.metadata["jwks_uri"])
    claims = jwt.decode(token, keys.get_signing_key_from_jwt(token).key, ["RS256"], audience=RESOURCE)
    assert (claims["iss"], claims["scope"], claims["client_id"]) == (oidc.issuer, "tools:read", "agent")
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"


def test_an_opaque_token_is_known_until_it_is_revoked(oidc: Oidc) -> None:
    token = oidc.token(RESOURCE + "/opaque", "tools:read")
    assert "." not in token
    said = oidc.introspect(token)
    assert (said["active"], said["client_id"], said["aud"]) == (True, "agent", RESOURCE + "/opaque")
    oidc.revoke(token)
    assert oidc.introspect(token) == {"active": False}
