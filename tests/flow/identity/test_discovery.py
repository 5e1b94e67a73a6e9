"""Where an issuer's metadata lies, and whose it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.identity.discovery import MAX_DOCUMENT, metadata_urls, read_metadata

ISSUER = "https://sso.example.com/realms/corp"


def test_the_order_of_mcp() -> None:
    assert metadata_urls(ISSUER) == (
        "https://sso.example.com/.well-known/oauth-authorization-server/realms/corp",
        "https://sso.example.com/.well-known/openid-configuration/realms/corp",
        "https://sso.example.com/realms/corp/.well-known/openid-configuration",
    )
    assert metadata_urls(ISSUER, "oidc")[0] == "https://sso.example.com/realms/corp/.well-known/openid-configuration"


@pytest.mark.parametrize("issuer", ["https://sso.example.com", "https://sso.example.com/"])
def test_without_a_path_there_are_two(issuer: str) -> None:
    assert metadata_urls(issuer) == (
        "https://sso.example.com/.well-known/oauth-authorization-server",
        "https://sso.example.com/.well-known/openid-configuration",
    )


def test_an_issuer_of_several_tenants() -> None:
    issuer = "https://login.example/{tid}/v2.0"
    assert (
        metadata_urls(issuer, "oidc")[0] == "https://login.example/organizations/v2.0/.well-known/openid-configuration"
    )
    assert read_metadata(b'{"issuer":"https://login.example/{tenantid}/v2.0"}', issuer).issuer


def document(**more: Any) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": ISSUER + "/keys", **more}).encode()


def test_what_is_read() -> None:
    found = read_metadata(document(unknown={"a": 1}, introspection_endpoint=None), ISSUER)
    assert (found.jwks_uri, found.introspection_endpoint) == (ISSUER + "/keys", "")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(document(issuer=ISSUER + "/"), id="another issuer: a final slash"),
        pytest.param(document(issuer="https://SSO.example.com/realms/corp"), id="another issuer: other case"),
        pytest.param(document(issuer=None), id="no issuer"),
        pytest.param(document(jwks_uri=["a"]), id="an address that is a list"),
        pytest.param(document(introspection_endpoint={"a": 1}), id="an address that is an object"),
        pytest.param(b"<html>", id="a page"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"[" * 100_000, id="nested without end"),
        pytest.param(document() + b" " * MAX_DOCUMENT, id="too large"),
    ],
)
def test_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        read_metadata(text, ISSUER)


@given(st.binary())
def test_any_bytes_are_metadata_or_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_metadata(data, ISSUER)
