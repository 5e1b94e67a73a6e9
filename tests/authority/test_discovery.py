from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.authority.discovery import (
    Challenge,
    Resource,
    Server,
    Untrusted,
    canonical,
    choose_server,
    is_above,
    read_challenge,
    read_resource,
    read_scopes,
    read_server,
    resource_urls,
    server_urls,
)

MCP = "https://mcp.example.com/mcp"
ISSUER = "https://as.example.com/tenant1"
PRM = "https://mcp.example.com/.well-known/oauth-protected-resource"


def document(**members: Any) -> bytes:
    return json.dumps(members).encode()


@pytest.mark.parametrize(
    ("header", "found"),
    [
        pytest.param("Bearer", Challenge(), id="no parameters"),
        pytest.param(
            f'Bearer resource_metadata="{PRM}", scope="a b", error="insufficient_scope"',
            Challenge(("a", "b"), PRM, "insufficient_scope"),
            id="all that MCP says",
        ),
        pytest.param('bearer SCOPE = "a"', Challenge(("a",)), id="names in any case, space around ="),
        pytest.param(f"Bearer scope=a, resource_metadata={PRM}", Challenge(("a",), PRM), id="without quotes"),
        pytest.param('Basic realm="x, Bearer y", Bearer scope="a"', Challenge(("a",)), id="behind another scheme"),
        pytest.param('Bearer scope="a", DPoP scope="b"', Challenge(("a",)), id="the next scheme's are not ours"),
        pytest.param('Negotiate YWJj==, Bearer scope="a"', Challenge(("a",)), id="behind a token68"),
        pytest.param('Bearer error_description="say \\"a, b\\"", scope="c"', Challenge(("c",)), id="quoted pairs"),
        pytest.param('DPoP scope="b"', Challenge(), id="another scheme alone"),
        pytest.param('Bearer scope="a\x00b c"', Challenge(("c",)), id="what is no scope is left out"),
        pytest.param('Bearer scope="unfinished', Challenge(), id="a quote without end"),
        pytest.param("", Challenge(), id="empty"),
        pytest.param('Bearer scope="' + "a" * 10_000 + '"', Challenge(), id="too long"),
    ],
)
def test_a_challenge_is_read(header: str, found: Challenge) -> None:
    assert read_challenge(header) == found


@given(st.text())
def test_no_text_of_a_challenge_is_too_strange(text: str) -> None:
    found = read_challenge(f"Bearer {text}")
    assert all(scope == read_scopes(scope)[0] for scope in found.scopes)


@pytest.mark.parametrize(
    ("server", "challenge", "urls"),
    [
        pytest.param(MCP, Challenge(metadata=PRM), (PRM,), id="as the server says, and nowhere else"),
        pytest.param(MCP, Challenge(), (f"{PRM}/mcp", PRM), id="at the path, then at the root"),
        pytest.param("https://mcp.example.com/", Challenge(), (PRM,), id="no path"),
        pytest.param(f"{MCP}?a=b", Challenge(), (f"{PRM}/mcp", PRM), id="its query is no part of it"),
    ],
)
def test_where_a_resource_tells_of_itself(server: str, challenge: Challenge, urls: tuple[str, ...]) -> None:
    assert resource_urls(server, challenge) == urls


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        pytest.param(
            "https://as.example.com",
            (
                "https://as.example.com/.well-known/oauth-authorization-server",
                "https://as.example.com/.well-known/openid-configuration",
            ),
            id="without a path: RFC 8414, then OpenID",
        ),
        pytest.param(
            ISSUER,
            (
                "https://as.example.com/.well-known/oauth-authorization-server/tenant1",
                "https://as.example.com/.well-known/openid-configuration/tenant1",
                "https://as.example.com/tenant1/.well-known/openid-configuration",
            ),
            id="with a path: inserted, inserted, appended",
        ),
    ],
)
def test_where_an_issuer_tells_of_itself(issuer: str, urls: tuple[str, ...]) -> None:
    assert server_urls(issuer) == urls


@pytest.mark.parametrize(
    ("resource", "above"),
    [
        pytest.param(MCP, True, id="itself"),
        pytest.param(f"{MCP}/", True, id="with a slash"),
        pytest.param("https://mcp.example.com", True, id="its host"),
        pytest.param("https://mcp.example.com:443/mcp", True, id="the port said"),
        pytest.param("https://mcp.example.com/mc", False, id="a part of a name"),
        pytest.param(f"{MCP}/other", False, id="below"),
        pytest.param("https://evil.example.com/mcp", False, id="another host"),
        pytest.param("http://mcp.example.com/mcp", False, id="another scheme"),
        pytest.param(f"{MCP}#a", False, id="a fragment"),
        pytest.param(f"{MCP}?a=b", False, id="a query of its own"),
        pytest.param("https://mcp.example.com:99999/mcp", False, id="no URL"),
    ],
)
def test_whose_resource_it_is(resource: str, above: bool) -> None:
    assert is_above(resource, MCP) is above
    data = document(resource=resource, authorization_servers=[ISSUER], scopes_supported=["a", 3])
    if above:
        assert read_resource(data, MCP) == Resource(resource, (ISSUER,), ("a",))
    else:
        with pytest.raises(Untrusted, match="speaks of"):
            read_resource(data, MCP)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"<html>", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(document(authorization_servers=[ISSUER]), id="no resource"),
        pytest.param(document(resource=7, authorization_servers=[ISSUER]), id="a number for a resource"),
        pytest.param(document(resource=MCP), id="no authorization server"),
        pytest.param(document(resource=MCP, authorization_servers=ISSUER), id="a text for a list"),
        pytest.param(document(resource=MCP, authorization_servers=[ISSUER] * 1000), id="a list without end"),
        pytest.param(b"[" * 100_000, id="deeper than anybody reads"),
    ],
)
def test_what_is_no_metadata_of_a_resource(data: bytes) -> None:
    with pytest.raises(Untrusted):
        read_resource(data, MCP)


def test_an_issuers_metadata() -> None:
    data = document(issuer=ISSUER, token_endpoint=f"{ISSUER}/token", token_endpoint_auth_methods_supported=["none"])
    assert read_server(data, ISSUER) == Server(ISSUER, f"{ISSUER}/token", ("none",))


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(f"{ISSUER}/", id="a slash more"),
        pytest.param("https://AS.example.com/tenant1", id="another case"),
        pytest.param("https://as.example.com:443/tenant1", id="the port said"),
        pytest.param("https://evil.example.com", id="another issuer"),
    ],
)
def test_an_issuer_is_compared_as_text(said: str) -> None:
    with pytest.raises(Untrusted, match="says that its issuer is"):
        read_server(document(issuer=said, token_endpoint="https://as.example.com/token"), ISSUER)


def test_a_credential_is_one_issuers_alone() -> None:
    resource = Resource(MCP, ("https://new.example.com", ISSUER))
    assert choose_server(resource, "") == "https://new.example.com"
    assert choose_server(resource, ISSUER) == ISSUER
    with pytest.raises(Untrusted, match="no longer names"):
        choose_server(resource, "https://old.example.com")


def test_a_resource_identifier() -> None:
    assert canonical("HTTPS://Mcp.Example.com/mcp/?key=secret#a") == "https://mcp.example.com/mcp"
    assert canonical("https://mcp.example.com/") == "https://mcp.example.com"
