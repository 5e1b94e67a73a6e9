"""Tokens that the gateway gets for upstreams: at a real Keycloak, and by Entra's own grant at the emulator."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import jwt
import msal
import pytest
import requests
from cryptography.hazmat.primitives import serialization

from tests.conftest import StartGateway
from tests.counterparts.entra import App, Entra, Key, User, application
from tests.counterparts.keycloak.server import Keycloak
from tests.counterparts.serving import served
from tests.e2e.certificates import Authority
from tests.e2e.harness import Gateway, check_error, wait_for
from tests.identity.rig import Caller
from tests.identity.upstream import Guarded

pytestmark = pytest.mark.e2e
PEM = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()


@pytest.fixture
def upstream() -> Iterator[Guarded]:
    with Guarded() as server:
        yield server


def gateway(start: StartGateway, realm: Keycloak, upstream: Guarded, secret: str = "", **credential: Any) -> Gateway:
    """A gateway that takes the realm's tokens, and shows `upstream` what `credential` says."""
    said = {"issuer": realm.issuer, "client_id": "narthex", "client_secret": "${secret:out}", **credential}
    said = {name: value for name, value in said.items() if value is not None}
    config = {
        "version": 1,
        "servers": {"up": {"url": upstream.url, "credential": "out"}},
        "identity": {"issuers": {"corp": {"preset": "keycloak", "issuer": realm.issuer, "audiences": ["gateway"]}}},
        "credentials": {"out": said},
        "secrets": {"out": "env:OUT"},
    }
    return start(config, env={"OUT": secret or "narthex-secret"})


def call(gateway: Gateway, bearer: str) -> Any:
    return Caller(gateway.mcp, bearer).call("up__echo", {"text": "hello"})


FOR_UPSTREAM = {"scopes": ["upstream-audience"], "resource": "none"}


def test_client_credentials(start_gateway: StartGateway, keycloak: Keycloak, upstream: Guarded) -> None:
    """The gateway's own account: whoever calls, the upstream sees it alone, and one token serves all."""
    one = gateway(start_gateway, keycloak, upstream, kind="client_credentials", **FOR_UPSTREAM)
    for bearer in (keycloak.token(), keycloak.token(user="alice")):
        call(one, bearer)
    claims = upstream.last()
    assert claims["azp"] == "narthex" and claims["aud"] == "upstream"
    assert len(set(upstream.shown)) == 1


def test_many_callers_at_once_get_one_token(start_gateway: StartGateway, keycloak: Keycloak, upstream: Guarded) -> None:
    one = gateway(start_gateway, keycloak, upstream, kind="client_credentials", **FOR_UPSTREAM)
    bearers = [keycloak.token() for _ in range(8)]
    threads = [threading.Thread(target=call, args=(one, bearer)) for bearer in bearers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(upstream.shown) == 8 and len(set(upstream.shown)) == 1


def test_a_resource_indicator_is_sent(start_gateway: StartGateway, keycloak: Keycloak, upstream: Guarded) -> None:
    """By default the token is asked for the server's own address, and is good nowhere else."""
    realm = keycloak.new_realm()
    realm.add_resource(upstream.url, "narthex")
    one = gateway(start_gateway, realm, upstream, kind="client_credentials", scopes=["tools:read"])
    call(one, realm.token())
    assert upstream.last()["aud"] == upstream.url


def test_a_key_instead_of_a_secret(start_gateway: StartGateway, keycloak: Keycloak, upstream: Guarded) -> None:
    realm, key = keycloak.new_realm(), Key()
    attributes = {"use.jwks.string": "true", "jwks.string": json.dumps({"keys": [{**key.jwk, "alg": "RS256"}]})}
    realm.change_client("narthex", clientAuthenticatorType="client-jwt", attributes=attributes)
    own = {"client_secret": None, "private_key": "${secret:out}", "key_id": key.kid, **FOR_UPSTREAM}
    pem = key.private.private_bytes(*PEM).decode()
    one = gateway(start_gateway, realm, upstream, pem, kind="client_credentials", **own)
    call(one, realm.token())
    assert upstream.last()["azp"] == "narthex"


def test_token_exchange(start_gateway: StartGateway, keycloak: Keycloak, upstream: Guarded) -> None:
    """Each caller's own token becomes one of theirs for the upstream, and never that of another."""
    one = gateway(start_gateway, keycloak, upstream, kind="token_exchange", audience="upstream", **FOR_UPSTREAM)
    seen = {}
    for user in ("alice", "bob", "alice"):
        bearer = keycloak.token(user=user)
        call(one, bearer)
        claims = upstream.last()
        assert claims["aud"] == "upstream" and claims["azp"] == "narthex"
        assert claims["sub"] == jwt.decode(bearer, options={"verify_signature": False})["sub"]
        assert upstream.shown[-1] != bearer
        seen[user] = claims["sub"]
    assert seen["alice"] != seen["bob"]


def test_an_exchange_that_the_provider_refuses(
    start_gateway: StartGateway, keycloak: Keycloak, upstream: Guarded
) -> None:
    one = gateway(start_gateway, keycloak, upstream, kind="token_exchange", audience="nobody", resource="none")
    bearer = keycloak.token(user="alice")
    error = Caller(one.mcp, bearer).call_error("up__echo", {"text": "hello"})
    check_error(error, -31005)
    assert not upstream.shown and bearer not in json.dumps(error) + one.log()


def test_a_refused_token_is_dropped_and_the_call_tried_once_more(
    start_gateway: StartGateway, keycloak: Keycloak, upstream: Guarded
) -> None:
    one = gateway(start_gateway, keycloak, upstream, kind="client_credentials", **FOR_UPSTREAM)
    call(one, keycloak.token())
    old = upstream.shown[-1]
    upstream.accepts = lambda token: token != old  # as if it had been revoked
    call(one, keycloak.token())
    assert upstream.refused == [old] and upstream.shown[-1] != old


def test_a_server_that_refuses_every_token_is_not_asked_for_ever(
    start_gateway: StartGateway, keycloak: Keycloak, upstream: Guarded
) -> None:
    one = gateway(start_gateway, keycloak, upstream, kind="client_credentials", **FOR_UPSTREAM)
    call(one, keycloak.token())
    upstream.accepts = lambda token: False
    error = Caller(one.mcp, keycloak.token()).call_error("up__echo", {"text": "hello"})
    check_error(error, -31005)
    assert 1 <= len(upstream.refused) <= 2
    assert not any(token in json.dumps(error) + one.log() for token in upstream.refused)


# --- Entra


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("entra"))


@pytest.fixture
def entra(authority: Authority) -> Iterator[Entra]:
    desktop = App("api://desktop")
    api = App("api://gateway", "gateway-secret", scopes=("tools.read",), consented={desktop.client_id})
    downstream = App("api://upstream", version=1, consented={api.client_id})
    users = [User("alice@example.com"), User("mfa@example.com", needs_mfa=True)]
    directory = Entra(apps=[api, downstream, desktop], users=users)
    with served(application(directory), authority.issue("login")) as directory.base:
        yield directory


def for_entra(start: StartGateway, entra: Entra, authority: Authority, upstream: Guarded) -> Gateway:
    api = entra.apps[0]
    issuer = {"preset": "entra", "issuer": entra.issuer(), "audiences": [api.client_id]}
    out = {"kind": "on_behalf_of", "issuer": entra.issuer(), "scopes": ["api://upstream/.default"]}
    out |= {"client_id": api.client_id, "client_secret": "${secret:out}", "client_auth": "client_secret_post"}
    config = {
        "version": 1,
        "servers": {"up": {"url": upstream.url, "credential": "out"}},
        "egress": {"ca": authority.file},
        "identity": {"issuers": {"entra": issuer}},
        "credentials": {"out": out},
        "secrets": {"out": "env:OUT"},
    }
    return start(config, env={"OUT": "gateway-secret"})


def test_on_behalf_of(start_gateway: StartGateway, entra: Entra, authority: Authority, upstream: Guarded) -> None:
    """A user signs in with msal, the gateway asks for a token on their behalf, the upstream sees the user."""
    session = requests.Session()
    session.trust_env, session.verify = False, authority.file
    where = {"authority": f"{entra.base}/{entra.tid}", "instance_discovery": False, "http_client": session}
    desktop = msal.PublicClientApplication(entra.apps[2].client_id, **where)
    flow = desktop.initiate_device_flow(["api://gateway/tools.read"])
    entra.sign_in(flow["user_code"], entra.users[0])
    bearer = desktop.acquire_token_by_device_flow(flow)["access_token"]
    one = for_entra(start_gateway, entra, authority, upstream)
    for _ in range(3):
        call(one, bearer)
    claims = upstream.last()
    assert claims["aud"] == "api://upstream" and claims["oid"] == entra.users[0].oid
    assert claims["appid"] == entra.apps[0].client_id and claims["scp"] == "user_impersonation"
    asked = [form for _, form in entra.requests if form.get("requested_token_use") == "on_behalf_of"]
    assert len(asked) == 1 and "resource" not in asked[0], "one request serves all calls, and Entra wants no resource"


def test_a_challenge_of_on_behalf_of_is_told_to_the_operator(
    start_gateway: StartGateway, entra: Entra, authority: Authority, upstream: Guarded
) -> None:
    """A policy wants a second factor, which only the user can give: the log says so, and no secret with it."""
    gateway_api, _, desktop = entra.apps
    bearer = entra.access_token(gateway_api, desktop, entra.users[1], ("tools.read",))
    one = for_entra(start_gateway, entra, authority, upstream)
    answer = Caller(one.mcp, bearer).try_call()
    assert not upstream.shown
    wait_for(lambda: "interaction_required" in one.log(), "the operator to be told")
    shown = answer.body.decode() + json.dumps(answer.headers) + one.log()
    assert "gateway-secret" not in shown and bearer not in shown


def test_a_challenge_of_on_behalf_of_goes_on_to_the_caller_who_meets_it(
    start_gateway: StartGateway, entra: Entra, authority: Authority, upstream: Guarded
) -> None:
    """Microsoft's own client reads the claims out of the 401, signs in with them, and its new token is good."""
    gateway_api, _, desktop = entra.apps
    careful = entra.users[1]
    one = for_entra(start_gateway, entra, authority, upstream)
    caller = Caller(one.mcp, entra.access_token(gateway_api, desktop, careful, ("tools.read",)))
    for _ in range(2):  # the second is answered from memory
        answer = caller.try_call()
        assert answer.status == 401 and answer.json["error"]["data"]["reason"] == "claims_required"
        challenge = answer.header("www-authenticate") or ""
        assert 'error="insufficient_claims"' in challenge
    claims = base64.b64decode(re.search('claims="([^"]+)"', challenge)[1]).decode()  # type: ignore[index]
    assert json.loads(claims)["access_token"]["capolids"]["essential"] is True
    assert (
        Caller(one.mcp, entra.access_token(gateway_api, desktop, entra.users[0], ("tools.read",))).try_call().status
        == 200
    )
    session = requests.Session()
    session.trust_env, session.verify = False, authority.file
    where = {"authority": f"{entra.base}/{entra.tid}", "instance_discovery": False, "http_client": session}
    client = msal.PublicClientApplication(desktop.client_id, **where)
    flow = client.initiate_device_flow(["api://gateway/tools.read"])
    entra.sign_in(flow["user_code"], careful)
    bearer = client.acquire_token_by_device_flow(flow, claims_challenge=claims)["access_token"]
    call(one, bearer)
    assert upstream.last()["oid"] == careful.oid


def test_a_server_that_wants_more_of_the_user_says_so_to_the_caller(
    start_gateway: StartGateway, entra: Entra, authority: Authority, upstream: Guarded
) -> None:
    """Continuous access evaluation: the server itself refuses a token that is good, with claims."""
    gateway_api, _, desktop = entra.apps
    one = for_entra(start_gateway, entra, authority, upstream)
    bearer = entra.access_token(gateway_api, desktop, entra.users[0], ("tools.read",))
    call(one, bearer)
    claims = base64.b64encode(b'{"access_token":{"nbf":{"essential":true,"value":"1"}}}').decode()
    upstream.challenge = f'Bearer error="insufficient_claims", claims="{claims}"'
    upstream.accepts = lambda token: False
    answer = Caller(one.mcp, bearer).try_call()
    assert answer.status == 401 and f'claims="{claims}"' in (answer.header("www-authenticate") or "")


def test_an_app_cannot_act_for_a_user(
    start_gateway: StartGateway, entra: Entra, authority: Authority, upstream: Guarded
) -> None:
    api, _, desktop = entra.apps
    one = for_entra(start_gateway, entra, authority, upstream)
    error = Caller(one.mcp, entra.access_token(api, desktop)).call_error("up__echo", {"text": "hello"})
    check_error(error, -31005)
    assert not upstream.shown
