"""Tokens that say nothing by themselves: npm's `oidc-provider` is asked about them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.counterparts.oidc import Oidc
from tests.e2e.harness import Gateway
from tests.faulty.server import FaultyServer
from tests.identity.rig import Caller

pytestmark = pytest.mark.e2e
RESOURCE = "https://gateway.example.com/mcp/opaque"
ASKS: dict[str, Any] = {"client_id": "narthex", "client_secret": "narthex-secret"}


def gateway(start: StartGateway, oidc: Oidc, upstream: str, secret: str = "narthex-secret", **asks: Any) -> Gateway:
    issuer: dict[str, Any] = {"issuer": oidc.issuer, "audiences": [RESOURCE, "https://gateway.example.com/mcp"]}
    issuer["claims"] = {"subject": ["sub", "client_id"]}  # an app has no `sub` there
    issuer["introspection"] = {**ASKS, "client_secret": secret, **asks}
    config = {"version": 1, "servers": {"up": {"url": upstream}}, "identity": {"issuers": {"daily": issuer}}}
    return start(config)


def test_an_opaque_token_counts_until_it_is_revoked(
    start_gateway: StartGateway, oidc: Oidc, faulty: FaultyServer
) -> None:
    url = gateway(start_gateway, oidc, faulty.url(), ttl="0s").mcp
    bearer = oidc.token(RESOURCE)
    assert Caller(url, bearer).try_call().status == 200
    oidc.revoke(bearer)
    assert Caller(url, bearer).try_call().status == 401


def test_an_answer_is_believed_for_a_while(start_gateway: StartGateway, oidc: Oidc, faulty: FaultyServer) -> None:
    url = gateway(start_gateway, oidc, faulty.url(), ttl="1h").mcp
    bearer = oidc.token(RESOURCE)
    assert Caller(url, bearer).try_call().status == 200
    oidc.revoke(bearer)
    assert Caller(url, bearer).try_call().status == 200


def test_a_jwt_of_the_same_issuer_is_not_asked_about(
    start_gateway: StartGateway, oidc: Oidc, faulty: FaultyServer
) -> None:
    url = gateway(start_gateway, oidc, faulty.url()).mcp
    bearer = oidc.token("https://gateway.example.com/mcp")
    assert bearer.count(".") == 2
    assert Caller(url, bearer).try_call().status == 200


@pytest.mark.parametrize("bearer", ["invented", "a" * 43])
def test_an_invented_token_is_refused(
    start_gateway: StartGateway, oidc: Oidc, faulty: FaultyServer, bearer: str
) -> None:
    assert Caller(gateway(start_gateway, oidc, faulty.url()).mcp, bearer).try_call().status == 401


def test_a_token_for_nobody_in_particular(start_gateway: StartGateway, oidc: Oidc, faulty: FaultyServer) -> None:
    """It is refused, unless the operator says that the issuer has no other resource."""
    bearer = oidc.token()
    assert Caller(gateway(start_gateway, oidc, faulty.url()).mcp, bearer).try_call().status == 401
    lenient = gateway(start_gateway, oidc, faulty.url(), audience="optional")
    assert Caller(lenient.mcp, bearer).try_call().status == 200


def test_an_issuer_that_does_not_know_us_is_no_reason_to_let_anybody_in(
    start_gateway: StartGateway, oidc: Oidc, faulty: FaultyServer
) -> None:
    one = gateway(start_gateway, oidc, faulty.url(), secret="a-wrong-secret")
    answer = Caller(one.mcp, oidc.token(RESOURCE)).try_call()
    assert answer.status == 503
    assert "a-wrong-secret" not in one.log() and b"a-wrong-secret" not in answer.body
