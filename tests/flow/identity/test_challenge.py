"""Challenges and documents, as clients read them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import Unauthorized
from narthex.flow.identity.challenge import challenge, metadata_path, missing_scopes, resource_document

URL = "https://gw.example.com/.well-known/oauth-protected-resource/mcp"
BARE = f'Bearer resource_metadata="{URL}"'


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(Unauthorized("x"), BARE, id="no credential: no error code"),
        pytest.param(
            Unauthorized("x", scopes=("b", "a", "b")),
            f'Bearer scope="a b", resource_metadata="{URL}"',
            id="scopes",
        ),
        pytest.param(
            Unauthorized("the token has expired", error="invalid_token", scopes=("mcp",)),
            f'Bearer error="invalid_token", error_description="the token has expired", scope="mcp", '
            f'resource_metadata="{URL}"',
            id="a token that does not do",
        ),
        pytest.param(
            missing_scopes(("tools:write", "mcp")),
            'Bearer error="insufficient_scope", error_description="the token lacks a scope that this needs", '
            f'scope="mcp tools:write", resource_metadata="{URL}"',
            id="all scopes that the operation needs",
        ),
        pytest.param(Unauthorized("x", scopes=("offline_access",)), BARE, id="never offline"),
        pytest.param(Unauthorized("x", scopes=('a"b', "a b", "ä")), BARE, id="no such scopes"),
    ],
)
def test_challenges(error: Unauthorized, said: str) -> None:
    assert challenge(error, URL) == said


def test_without_an_issuer_there_is_nowhere_to_go() -> None:
    assert challenge(Unauthorized("x"), "") == "Bearer"


@given(st.text())
def test_no_text_breaks_out_of_the_header(text: str) -> None:
    said = challenge(Unauthorized(text, error="invalid_token"), URL)
    assert said.isascii() and said.isprintable() and said.count('"') == 6


def test_documents() -> None:
    assert metadata_path("/mcp/support") == "/.well-known/oauth-protected-resource/mcp/support"
    document = json.loads(resource_document("https://gw.example.com/mcp", ["https://sso"], ["mcp"], "Narthex"))
    assert document == {
        "resource": "https://gw.example.com/mcp",
        "authorization_servers": ["https://sso"],
        "bearer_methods_supported": ["header"],
        "resource_name": "Narthex",
        "scopes_supported": ["mcp"],
    }
    assert "scopes_supported" not in json.loads(resource_document("r", [], [], "n"))
