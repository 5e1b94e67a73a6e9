"""The gateway as a resource server of a real Keycloak: whose tokens it takes, and what it answers to others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import StartGateway
from tests.counterparts.keycloak.server import Keycloak
from tests.e2e.harness import Era, Wire, get, text, wait_for
from tests.faulty.server import FaultyServer
from tests.identity.rig import Caller, Protected, Relay, protected

pytestmark = pytest.mark.e2e
ERAS: list[Era] = ["modern", "legacy"]
BY_MAPPER = {"audiences": ["gateway"]}
SCOPES = {
    "default": {"servers": ["up"], "base_scopes": ["tools:read"], "scopes": {"up__slow": ["tools:write"]}},
    "open": {"servers": ["up"], "auth": "anonymous"},
}


@pytest.fixture(scope="module")
def place(module_gateway: StartGateway, keycloak: Keycloak, faulty: FaultyServer) -> Protected:
    """Tokens count by their audience mapper; calls need `tools:read`, `slow` needs `tools:write` besides."""
    return protected(module_gateway, keycloak, faulty.url(), BY_MAPPER, endpoints=SCOPES)


@pytest.mark.parametrize("era", ERAS)
def test_a_token_for_the_gateway_is_let_in(place: Protected, era: Era) -> None:
    for bearer in (place.realm.token(scope="tools:read"), place.realm.token(user="alice", scope="tools:read")):
        caller = place.caller(bearer, era)
        assert caller.tools() == ["up__echo", "up__slow"]
        assert text(caller.call("up__echo", {"text": "hello"})) == "hello"


def test_the_token_goes_no_further(place: Protected, faulty: FaultyServer) -> None:
    bearer = place.realm.token(scope="tools:read")
    place.caller(bearer).call("up__echo", {"text": "no further"})
    assert faulty.seen
    for seen in list(faulty.seen):
        assert "authorization" not in seen.headers and bearer not in repr(seen)


def challenge(answer: Any) -> dict[str, str]:
    """The parameters of the one Bearer challenge."""
    (line,) = (value for name, value in answer.headers if name == "www-authenticate")
    scheme, _, rest = line.partition(" ")
    assert scheme == "Bearer"
    return {name: value.strip('"') for name, _, value in (part.partition("=") for part in rest.split(", "))}


def test_nobody_is_asked_to_sign_in_with_what_he_needs(place: Protected) -> None:
    answer = place.caller().try_call()
    assert answer.status == 401
    parts = urlsplit(place.url)
    where = f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path}"
    assert challenge(answer) == {"scope": "tools:read", "resource_metadata": where}
    document = get(where)
    assert document.status == 200 and document.header("content-type") == "application/json"
    assert document.json["resource"] == place.url
    assert document.json["authorization_servers"] == [place.realm.issuer]
    assert document.json["scopes_supported"] == ["tools:read"]


def test_every_request_is_asked(place: Protected) -> None:
    for method in ("initialize", "server/discover", "tools/list", "ping", "notifications/initialized"):
        assert place.caller().post(method).status == 401, method
    with Wire(place.url) as wire:
        assert wire.request("GET", headers=[("accept", "text/event-stream")]).status == 401
        assert wire.request("DELETE", headers=[("mcp-session-id", "x")]).status == 401


def test_an_anonymous_endpoint_asks_nobody(place: Protected) -> None:
    assert Caller(f"{place.url}/open").try_call().status == 200


def test_a_token_for_somebody_else_is_refused(place: Protected) -> None:
    answer = place.caller(place.realm.token("stranger")).try_call()
    assert answer.status == 401
    assert challenge(answer)["error"] == "invalid_token"


def test_a_token_without_a_scope_can_be_stepped_up(place: Protected) -> None:
    caller = place.caller(place.realm.token(scope="tools:read"))
    answer = caller.try_call("up__slow")
    assert answer.status == 403
    said = challenge(answer)
    assert said["error"] == "insufficient_scope" and set(said["scope"].split()) >= {"tools:write"}
    caller.bearer = place.realm.token(scope=f"{said['scope']} tools:read")
    running = caller.start("tools/call", {"name": "up__slow", "arguments": {"text": "now"}})
    running.wire.close()


def test_a_token_without_the_scope_of_all_is_refused(place: Protected) -> None:
    answer = place.caller(place.realm.token()).try_call()
    assert answer.status == 403
    assert challenge(answer)["scope"] == "tools:read"


def test_a_resource_indicator_is_the_audience(
    start_gateway: StartGateway, keycloak: Keycloak, faulty: FaultyServer
) -> None:
    """Without `audiences` a token must be for the endpoint's own URL; one for another endpoint is no good."""
    realm = keycloak.new_realm()
    endpoints = {name: {"servers": ["up"]} for name in ("default", "other")}
    place = protected(start_gateway, realm, faulty.url(), endpoints=endpoints)
    realm.add_resource(place.url, "agent")
    realm.add_resource(f"{place.url}/other", "agent")
    mine, theirs = realm.token(resource=place.url), realm.token(resource=f"{place.url}/other")
    assert place.caller(mine).try_call().status == 200
    assert Caller(f"{place.url}/other", theirs).try_call().status == 200
    assert place.caller(theirs).try_call().status == 401
    assert Caller(f"{place.url}/other", mine).try_call().status == 401
    assert place.caller(realm.token()).try_call().status == 401


def test_keys_are_rotated_in_the_middle_of_traffic(
    start_gateway: StartGateway, keycloak: Keycloak, faulty: FaultyServer
) -> None:
    realm = keycloak.new_realm()
    place = protected(start_gateway, realm, faulty.url(), BY_MAPPER)
    stop, failed, calls = threading.Event(), [], [0, 0]

    def traffic(worker: int) -> None:
        caller = place.caller()
        while not stop.is_set():
            caller.bearer = realm.token()  # a new one for every call
            answer = caller.try_call()
            calls[worker] += 1
            if answer.status != 200 or "result" not in answer.answer:
                failed.append(answer)

    threads = [threading.Thread(target=traffic, args=(worker,)) for worker in range(2)]
    for thread in threads:
        thread.start()

    def go_on() -> None:
        before = list(calls)
        wait_for(lambda: all(now > then + 2 for now, then in zip(calls, before, strict=True)), "more calls")

    try:
        for _ in range(3):
            go_on()
            realm.rotate_key()
        go_on()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, failed[:3]


@pytest.fixture
def relay(keycloak: Keycloak) -> Iterator[Relay]:
    with Relay(keycloak.base) as one:
        yield one


def test_a_dead_provider_changes_nothing_for_keys_that_are_known(
    start_gateway: StartGateway, keycloak: Keycloak, relay: Relay, faulty: FaultyServer
) -> None:
    realm = replace(keycloak, base=relay.url)
    place = protected(start_gateway, realm, faulty.url(), BY_MAPPER)
    first, second = realm.token(), realm.token(user="alice")
    assert place.caller(first).try_call().status == 200
    relay.cut()
    assert place.caller(first).try_call().status == 200, "a token that was seen before"
    assert place.caller(second).try_call().status == 200, "a new one, signed with a key that is known"


def test_a_provider_that_was_never_reached_is_not_the_callers_fault(
    start_gateway: StartGateway, keycloak: Keycloak, relay: Relay, faulty: FaultyServer
) -> None:
    realm = replace(keycloak, base=relay.url)
    place = protected(start_gateway, realm, faulty.url(), BY_MAPPER)
    bearer = realm.token()
    relay.cut()
    answer = place.caller(bearer).try_call()
    assert answer.status == 503 and answer.header("retry-after"), answer
    assert place.gateway.ready().status == 200


def test_a_session_that_was_ended_at_the_provider(
    start_gateway: StartGateway, keycloak: Keycloak, faulty: FaultyServer
) -> None:
    """With `use: always` a JWT that its issuer has revoked is refused, though its signature still holds."""
    introspection = {"client_id": "narthex", "client_secret": "narthex-secret", "use": "always", "ttl": "0s"}
    place = protected(start_gateway, keycloak, faulty.url(), {**BY_MAPPER, "introspection": introspection})
    bearer = keycloak.token(user="alice")
    caller = place.caller(bearer)
    assert caller.try_call().status == 200
    keycloak.revoke(bearer)
    assert caller.try_call().status == 401


def test_a_token_expires(start_gateway: StartGateway, keycloak: Keycloak, faulty: FaultyServer) -> None:
    """Its issuer says so by introspection at once; by signature alone, a minute of leeway goes by first."""
    realm = keycloak.new_realm()
    realm.admin("PUT", "", {"accessTokenLifespan": 1})
    introspection = {"client_id": "narthex", "client_secret": "narthex-secret", "use": "always", "ttl": "0s"}
    place = protected(start_gateway, realm, faulty.url(), {**BY_MAPPER, "introspection": introspection})
    caller, end = place.caller(realm.token()), time.monotonic() + 50
    while caller.try_call().status == 200:
        assert time.monotonic() < end, "a token of one second still counts"
