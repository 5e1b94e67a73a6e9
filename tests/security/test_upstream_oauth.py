"""A server that wants a token says where to get one: what it, or who got at it, can make the gateway do.

The gateway holds a client secret for it. Each row is a way to send that secret, or a request of the gateway's, where it
does not belong; a bystander on loopback, which stands for anything inside a network, must not be asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.e2e.harness import Gateway, check_error
from tests.identity.rig import Issuer, issuing
from tests.identity.upstream import Guarded

pytestmark = pytest.mark.e2e
SECRET = "the-secret-of-the-client"
METADATA = "/.well-known/oauth-protected-resource/mcp"
SERVER = "/.well-known/oauth-authorization-server"


@pytest.fixture
def evil() -> Iterator[Issuer]:
    """A bystander that would give a token to anybody."""
    with issuing() as issuer:
        issuer.pages["/token"] = (200, {}, json.dumps({"access_token": "stolen", "token_type": "Bearer"}))
        issuer.pages[SERVER] = (200, {}, json.dumps({"issuer": issuer.base, "token_endpoint": issuer.base + "/token"}))
        yield issuer


@pytest.fixture
def upstream() -> Iterator[Guarded]:
    with Guarded(accepts=lambda token: token == "good") as server:
        yield server


def gateway(start: StartGateway, upstream: Guarded, **more: Any) -> Gateway:
    out = {"kind": "client_credentials", "client_id": "narthex", "client_secret": "${secret:out}", **more}
    servers = {"up": {"url": upstream.url, "credential": "out"}}
    config = {"version": 1, "servers": servers, "credentials": {"out": out}, "secrets": {"out": "env:OUT"}}
    return start(config, env={"OUT": SECRET})


def own(upstream: Guarded) -> str:
    return upstream.url.removesuffix("/mcp")


def resource(upstream: Guarded, *servers: str, **more: Any) -> tuple[int, dict[str, str], str]:
    return (200, {}, json.dumps({"resource": upstream.url, "authorization_servers": list(servers), **more}))


def points_to(url: str) -> Any:
    """The challenge says that the metadata is there."""

    def set_up(upstream: Guarded, evil: Issuer) -> None:
        upstream.challenge = f'Bearer resource_metadata="{url.format(evil=evil.base)}"'

    return set_up


def names(server: str) -> Any:
    """The metadata names this authorization server."""

    def set_up(upstream: Guarded, evil: Issuer) -> None:
        upstream.pages[METADATA] = resource(upstream, server.format(evil=evil.base))

    return set_up


def has_its_tokens_at(url: str) -> Any:
    """The authorization server is the server itself, and has its token endpoint there."""

    def set_up(upstream: Guarded, evil: Issuer) -> None:
        base = own(upstream)
        upstream.pages[METADATA] = resource(upstream, base)
        said = {"issuer": base, "token_endpoint": url.format(evil=evil.base)}
        upstream.pages[SERVER] = (200, {}, json.dumps(said))

    return set_up


def is_anothers(upstream: Guarded, evil: Issuer) -> None:
    upstream.pages[METADATA] = resource(upstream, own(upstream), resource=f"{evil.base}/mcp")


def redirects(path: str) -> Any:
    def set_up(upstream: Guarded, evil: Issuer) -> None:
        upstream.pages[METADATA] = resource(upstream, own(upstream))
        upstream.pages[path] = (302, {"Location": evil.base + path}, "")

    return set_up


def poses_as_another(upstream: Guarded, evil: Issuer) -> None:
    """Its own metadata says that it is somebody else's issuer."""
    upstream.pages[METADATA] = resource(upstream, own(upstream))
    said = {"issuer": evil.base, "token_endpoint": own(upstream) + "/token"}
    upstream.pages[SERVER] = (200, {}, json.dumps(said))


def test_a_server_that_says_the_truth_is_believed(start_gateway: StartGateway, upstream: Guarded) -> None:
    """What every row below differs from: the server gives its tokens itself."""
    base = own(upstream)
    upstream.pages[METADATA] = resource(upstream, base)
    upstream.pages[SERVER] = (200, {}, json.dumps({"issuer": base, "token_endpoint": f"{base}/token"}))
    good = {"access_token": "good", "token_type": "Bearer"}
    upstream.pages["/token"] = (200, {}, json.dumps(good))
    gateway(start_gateway, upstream).client().call("up__echo", {"text": "hello"})
    assert upstream.shown == ["good"]


ROWS = [
    pytest.param(points_to("{evil}/resource"), id="the challenge names another address of the network"),
    pytest.param(points_to("http://169.254.169.254/latest/meta-data"), id="the challenge names the cloud's metadata"),
    pytest.param(points_to("http://[::ffff:127.0.0.1]:1/"), id="the challenge names loopback in another form"),
    pytest.param(points_to("https://localhost:1/"), id="the challenge names this machine"),
    pytest.param(points_to("file:///etc/passwd"), id="the challenge names a file"),
    pytest.param(points_to("gopher://127.0.0.1:25/"), id="the challenge names another protocol"),
    pytest.param(names("{evil}"), id="the metadata names an issuer inside the network"),
    pytest.param(names("https://10.0.0.1"), id="the metadata names a private address"),
    pytest.param(names("https://metadata.google.internal"), id="the metadata names the cloud's metadata by name"),
    pytest.param(names(""), id="the metadata names nobody"),
    pytest.param(is_anothers, id="the metadata speaks of another resource"),
    pytest.param(poses_as_another, id="the issuer poses as another"),
    pytest.param(has_its_tokens_at("{evil}/token"), id="the token endpoint is inside the network"),
    pytest.param(has_its_tokens_at("http://169.254.169.254/token"), id="the token endpoint is the cloud's metadata"),
    pytest.param(has_its_tokens_at("file:///etc/passwd"), id="the token endpoint is a file"),
    pytest.param(redirects(METADATA), id="the metadata redirects"),
    pytest.param(redirects(SERVER), id="the issuer's metadata redirects"),
]


@pytest.mark.parametrize("set_up", ROWS)
def test_a_server_leads_us_nowhere(start_gateway: StartGateway, upstream: Guarded, evil: Issuer, set_up: Any) -> None:
    set_up(upstream, evil)
    one = gateway(start_gateway, upstream)
    error = one.client().call_error("up__echo", {"text": "hello"})
    check_error(error, -31005)
    assert evil.asked == [], "a bystander was asked"
    assert SECRET not in json.dumps(error) + repr([asked.body for asked in upstream.asked])
    assert not any("authorization" in asked.headers for asked in upstream.asked if asked.verb == "GET")


def test_the_secret_of_one_issuer_is_not_shown_to_another(
    start_gateway: StartGateway, upstream: Guarded, evil: Issuer
) -> None:
    """The operator named the issuer. The server may not put another one in its place, not even itself."""
    upstream.pages[METADATA] = resource(upstream, own(upstream))
    said = {"issuer": own(upstream), "token_endpoint": own(upstream) + "/token"}
    upstream.pages[SERVER] = (200, {}, json.dumps(said))
    one = gateway(start_gateway, upstream, issuer=evil.base)
    check_error(one.client().call_error("up__echo", {"text": "hello"}), -31005)
    assert not [asked for asked in upstream.asked if asked.path == "/token"]


def test_a_token_endpoint_that_redirects_is_not_followed(
    start_gateway: StartGateway, upstream: Guarded, evil: Issuer
) -> None:
    """A redirected POST would carry the secret along."""
    with issuing() as issuer:
        issuer.pages["/token"] = (307, {"location": evil.base + "/token"}, "")
        one = gateway(start_gateway, upstream, token_endpoint=issuer.base + "/token")
        check_error(one.client().call_error("up__echo", {"text": "hello"}), -31005)
        assert "/token" in issuer.asked and evil.asked == []
