"""The abuse table of identity, at the wire of a running gateway: each row is an attack, and what becomes of it.

What a token must say is tested in `tests/flow/identity/test_tokens.py`; here the whole gateway is asked, and what the
upstream and a bystander got to see is looked at.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.e2e.harness import Closed, Gateway, Response, Wire, message, routing_headers
from tests.faulty.server import FaultyServer
from tests.flow.identity.issuer import base64url, key, public
from tests.identity.rig import Caller, Issuer, issuing

pytestmark = pytest.mark.e2e
Make = Callable[[Issuer, str], str]


@dataclass
class Scene:
    """A gateway, its issuer, and a server of the attacker."""

    gateway: Gateway
    issuer: Issuer
    evil: Issuer

    def send(self, *headers: tuple[str, str], path: str = "", body: Any = None) -> Response:
        """A call with exactly these headers beside those of the protocol."""
        said = body or message("tools/call", {"name": "up__echo", "arguments": {"text": "let in"}})
        with Wire(self.gateway.mcp) as wire:
            return wire.request("POST", path or None, [*routing_headers(said), *headers], json.dumps(said).encode())


@pytest.fixture(scope="module")
def scene(module_gateway: StartGateway, faulty: FaultyServer) -> Iterator[Scene]:
    with issuing() as issuer, issuing() as evil:
        evil.keys = ["rsa2"]
        config = {
            "version": 1,
            "servers": {"up": {"url": faulty.url()}},
            "identity": {"api_keys": True, "issuers": {"corp": {"issuer": issuer.base, "audiences": ["gateway"]}}},
        }
        found = Scene(module_gateway(config), issuer, evil)
        assert found.send(bearer(issuer.token())).status == 200, "what every row differs from"
        yield found


@pytest.fixture(autouse=True)
def nothing_gets_through(scene: Scene, faulty: FaultyServer) -> Iterator[None]:
    """After each row: the upstream saw no call, and nobody asked the attacker's server for anything."""
    before = len(faulty.requests("tools/call"))
    scene.evil.asked.clear()
    yield
    assert len(faulty.requests("tools/call")) == before
    assert scene.evil.asked == []


def bearer(value: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {value}")


# --- forged tokens


def unsigned(issuer: Issuer, evil: str) -> str:
    return issuer.token(header={"alg": "none"}).rpartition(".")[0] + "."


def confused(issuer: Issuer, evil: str) -> str:
    """HS256 with the public key, which everybody has, as the shared secret."""
    signing = issuer.token(header={"alg": "HS256"}).rpartition(".")[0].encode()
    digest = hmac.new(key("rsa").as_pem(private=False), signing, hashlib.sha256).digest()
    return (signing + b"." + base64url(digest)).decode()


def stripped(issuer: Issuer, evil: str) -> str:
    return issuer.token().rpartition(".")[0] + "."


def tampered(issuer: Issuer, evil: str) -> str:
    """Another's claims under a good signature."""
    head, _, signature = issuer.token().split(".")
    return f"{head}.{issuer.token(sub='admin').split('.')[1]}.{signature}"


def foreign(**header: Any) -> Make:
    """Signed by the attacker's key; `EVIL` in the header is where his key document lies."""

    def make(issuer: Issuer, evil: str) -> str:
        said = {name: evil + "/keys" if value == "EVIL" else value for name, value in header.items()}
        return issuer.token(by="rsa2", header=said)

    return make


def good_but(**claims: Any) -> Make:
    return lambda issuer, evil: issuer.token(**claims)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(unsigned, id="alg none"),
        pytest.param(confused, id="HS256 with the public key"),
        pytest.param(stripped, id="the signature left out"),
        pytest.param(tampered, id="another's claims under a good signature"),
        pytest.param(foreign(), id="a key that nobody knows"),
        pytest.param(foreign(kid="rsa"), id="kid: a known one, for another's key"),
        pytest.param(foreign(kid="../../../../../dev/null"), id="kid: a path"),
        pytest.param(foreign(kid="x' UNION SELECT 'secret"), id="kid: SQL"),
        pytest.param(foreign(kid="EVIL"), id="kid: a URL"),
        pytest.param(foreign(jku="EVIL"), id="jku: the attacker's keys"),
        pytest.param(foreign(x5u="EVIL"), id="x5u: the attacker's certificate"),
        pytest.param(foreign(jwk=public("rsa2")), id="jwk: the attacker's key in the token"),
        pytest.param(foreign(kid=None, jwk=public("rsa2")), id="jwk without kid"),
        pytest.param(lambda issuer, evil: issuer.token(by="rsa2", iss=evil), id="the attacker's own issuer"),
        pytest.param(good_but(iss="https://sso.example.com"), id="another issuer"),
        pytest.param(good_but(aud="https://other.example.com"), id="another audience"),
        pytest.param(good_but(aud=None), id="no audience"),
        pytest.param(good_but(exp=1_000_000_000), id="expired"),
        pytest.param(good_but(exp=None), id="never expires"),
        pytest.param(good_but(nbf=4_000_000_000), id="not yet valid"),
        pytest.param(good_but(iat=4_000_000_000), id="issued in the future"),
        pytest.param(good_but(at_hash="x"), id="an ID token"),
        pytest.param(good_but(cnf={"jkt": "x"}), id="bound to a key, stolen"),
        pytest.param(good_but(cnf={"x5t#S256": "x"}), id="bound to a certificate, stolen"),
        pytest.param(good_but(sub=None), id="for nobody"),
        pytest.param(lambda issuer, evil: "nx_" + "a" * 43, id="an invented API key"),
        pytest.param(lambda issuer, evil: "null", id="null"),
        pytest.param(lambda issuer, evil: "a.b.c", id="three letters"),
        pytest.param(lambda issuer, evil: "..", id="dots"),
        pytest.param(lambda issuer, evil: "eyJ" + "." * 5000, id="thousands of segments"),
    ],
)
def test_a_forged_token_is_refused(scene: Scene, make: Make) -> None:
    token = make(scene.issuer, scene.evil.base)
    answer = scene.send(bearer(token))
    assert answer.status == 401, answer
    line = answer.header("www-authenticate") or ""
    assert line.startswith("Bearer ") and 'error="invalid_token"' in line
    shown = answer.body.decode() + line + scene.gateway.log()
    assert len(token) < 6 or token not in shown
    assert not re.search(r"eyJ[\w-]{20}", shown), "no part of a token is shown"


@pytest.mark.parametrize("size", [17_000, 60_000, 200_000, 2_000_000])
def test_a_huge_token_is_refused_cheaply(scene: Scene, size: int) -> None:
    before = scene.gateway.rss()
    for _ in range(20):
        try:
            assert scene.send(bearer("a" * size)).status in (401, 431)
        except Closed:  # it did not even listen to the end
            assert size > 16_384
    assert scene.gateway.rss() - before < 32 * 1024 * 1024


def test_a_flood_of_unknown_keys_is_not_the_issuers_burden(scene: Scene) -> None:
    scene.issuer.asked.clear()
    for number in range(200):
        assert scene.send(bearer(scene.issuer.token(by="rsa2", header={"kid": f"invented-{number}"}))).status == 401
    assert len(scene.issuer.asked) <= 20


# --- credentials where they do not belong, or more than one


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(["Basic {basic}"], id="another scheme"),
        pytest.param(["{token}"], id="no scheme"),
        pytest.param(["Bearer"], id="a scheme alone"),
        pytest.param(["Bearer "], id="nothing after the scheme"),
        pytest.param(["Bearer {token} {token}"], id="two tokens"),
        pytest.param(["Bearer {token}, Bearer {token}"], id="two credentials in a list"),
        pytest.param(["Bearer {token}", "Bearer {token}"], id="the same header twice"),
        pytest.param(["Bearer {token}", "Basic {basic}"], id="two schemes"),
        pytest.param(["Basic {basic}", "Bearer {token}"], id="two schemes, the other way"),
        pytest.param(['Bearer "{token}"'], id="in quotes"),
        pytest.param(["Bearer {token};"], id="with a semicolon"),
        pytest.param(["Bearer\x0b{token}"], id="a vertical tab"),
        pytest.param(["Bearer \x7f{token}"], id="a control character"),
        pytest.param(["Bearer \xa0{token}"], id="a space of another alphabet"),
    ],
)
def test_credentials_of_another_form_are_refused(scene: Scene, headers: list[str]) -> None:
    fill = {"token": scene.issuer.token(), "basic": "YWxpY2U6c2VjcmV0"}
    answer = scene.send(*[("authorization", line.format(**fill)) for line in headers])
    assert answer.status in (400, 401), answer


@pytest.mark.parametrize("name", ["access_token", "token", "api_key", "key", "authorization"])
def test_a_token_in_the_query_is_no_credential(scene: Scene, name: str) -> None:
    token = scene.issuer.token()
    assert scene.send(path=f"/mcp?{name}={token}").status in (400, 401)
    assert token not in scene.gateway.log()


def test_a_token_in_the_query_spoils_a_good_one(scene: Scene) -> None:
    """RFC 6750 §2: no more than one method a request; a token in an address ends in logs."""
    token = scene.issuer.token()
    assert scene.send(bearer(token), path=f"/mcp?access_token={token}").status in (400, 401)


def test_a_token_in_the_body_is_no_credential(scene: Scene) -> None:
    said = message(
        "tools/call", {"name": "up__echo", "arguments": {}, "_meta": {"authorization": scene.issuer.token()}}
    )
    assert scene.send(body={**said, "access_token": scene.issuer.token()}).status in (400, 401)


@pytest.mark.parametrize(
    "name",
    [
        *("x-forwarded-user", "x-forwarded-email", "x-forwarded-access-token", "x-auth-request-user", "x-remote-user"),
        *(
            "remote-user",
            "x-user",
            "x-user-id",
            "x-tenant",
            "x-narthex-principal",
            "x-api-key",
            "api-key",
            "x-ms-token",
        ),
        *("proxy-authorization", "cookie", "x-goog-iap-jwt-assertion", "cf-access-jwt-assertion", "x-amzn-oidc-data"),
        *("x-forwarded-for", "x-real-ip", "forwarded", "x-authorization", "x-original-authorization"),
    ],
)
def test_no_other_header_is_an_identity(scene: Scene, name: str) -> None:
    for value in ("admin", f"Bearer {scene.issuer.token()}", "127.0.0.1"):
        assert scene.send((name, value)).status in (400, 401)


XFCC = "Hash=" + "a" * 64 + ';URI=spiffe://example.org/agent;Subject="CN=admin"'


@pytest.mark.parametrize("extra", [[], [("x-forwarded-for", "127.0.0.1")], [("forwarded", "for=127.0.0.1")]])
def test_a_certificate_that_nobody_vouches_for(scene: Scene, extra: list[tuple[str, str]]) -> None:
    assert scene.send(("x-forwarded-client-cert", XFCC), *extra).status in (400, 401)


def test_a_forwarded_header_does_not_change_where_to_sign_in(scene: Scene) -> None:
    """Otherwise a caller could send another's client to an authorization server of its own."""
    answer = scene.send(("x-forwarded-host", "evil.example"), ("x-forwarded-proto", "https"))
    assert answer.status in (400, 401, 403)
    assert "evil.example" not in (answer.header("www-authenticate") or "") + answer.body.decode()


def test_a_host_of_anothers_choice_does_not_change_where_to_sign_in(scene: Scene) -> None:
    with Wire(scene.gateway.mcp) as wire:
        answer = wire.request("POST", headers=routing_headers(message("ping")), body=b"{}", host="evil.example")
    assert answer.status in (400, 403, 421)
    assert "evil.example" not in (answer.header("www-authenticate") or "")


# --- an issuer's own documents, written by somebody who got at them


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        pytest.param("metadata", {"jwks_uri": "EVIL/keys"}, id="keys at another address of the network"),
        pytest.param(
            "metadata", {"jwks_uri": "http://169.254.169.254/latest/meta-data"}, id="keys at the cloud's metadata"
        ),
        pytest.param("metadata", {"jwks_uri": "file:///etc/passwd"}, id="keys in a file"),
        pytest.param("metadata", {"jwks_uri": "http://localhost:1/"}, id="keys on this machine, by name"),
        pytest.param("metadata", {"issuer": "EVIL"}, id="it says that it is another"),
        pytest.param("metadata", "redirect", id="metadata sends elsewhere"),
        pytest.param("keys", "redirect", id="keys send elsewhere"),
    ],
)
def test_an_issuers_documents_lead_nowhere_else(
    start_gateway: StartGateway, scene: Scene, faulty: FaultyServer, path: str, answer: Any
) -> None:
    with issuing() as issuer:
        place = "/keys" if path == "keys" else "/.well-known/openid-configuration"
        if answer == "redirect":
            to = scene.evil.base + ("/keys" if path == "keys" else place)
            issuer.pages[place] = (302, {"location": to}, "")
        else:
            filled = {name: value.replace("EVIL", scene.evil.base) for name, value in answer.items()}
            issuer.pages[place] = (200, {}, issuer.metadata(**filled))
        identity = {"issuers": {"corp": {"issuer": issuer.base, "audiences": ["gateway"]}}}
        gateway = start_gateway({"version": 1, "servers": {"up": {"url": faulty.url()}}, "identity": identity})
        for by in ("rsa", "rsa2"):
            assert Caller(gateway.mcp, issuer.token(by=by)).try_call().status in (401, 503)


def test_keys_that_are_too_many_or_too_large_are_not_taken(start_gateway: StartGateway, faulty: FaultyServer) -> None:
    with issuing() as issuer:
        issuer.pages["/keys"] = (200, {}, '{"keys": [' + ",".join(['{"kty": "RSA"}'] * 200_000) + "]}")
        identity = {"issuers": {"corp": {"issuer": issuer.base, "audiences": ["gateway"]}}}
        gateway = start_gateway({"version": 1, "servers": {"up": {"url": faulty.url()}}, "identity": identity})
        assert Caller(gateway.mcp, issuer.token()).try_call().status == 503
