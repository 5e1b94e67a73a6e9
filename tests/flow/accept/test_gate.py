"""An endpoint that asks who calls: challenges, documents, scopes, and that everything belongs to whoever made it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from narthex.authority.identify import Identity
from narthex.testing import FakeClock, FakeServer
from narthex.types import (
    CertificateRules,
    ClaimRules,
    EndpointSpec,
    IdentitySpec,
    IssuerSpec,
    Limits,
    Principal,
    Snapshot,
)
from tests.authority.issuing import LiveIssuer, fetcher, issuing
from tests.flow.accept.asking import META_ABLE, Asker, retry_of
from tests.flow.gateway import Answer, Client, Running, run, spec, until
from tests.flow.identity.issuer import AUDIENCE, NOW, claims, token

TOOLS: list[dict[str, Any]] = [
    {"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "delete_all", "wait")
]
KEY = "nx_abcdefgh_robot"
ROBOT = Principal("default", "narthex/keys", "robot", method="api_key", scopes=frozenset({"mcp"}))
ENDPOINTS = {
    "default": EndpointSpec("default", ("one",), base_scopes=("mcp",), scopes=(("one__delete_*", ("write", "admin")),)),
    "hiding": EndpointSpec("hiding", ("one",), scopes=(("one__delete_*", ("write",)),), hide_unscoped=True),
    "open": EndpointSpec("open", ("one",), auth="anonymous", scopes=(("one__delete_*", ("write",)),)),
    "plain": EndpointSpec("plain", ("one",)),
}
CALL = {"name": "one__echo", "arguments": {"a": 1}}
DELETE = {"name": "one__delete_all", "arguments": {}}


class Keys:
    def find(self, presented: bytes) -> Principal | None:
        return ROBOT if presented == KEY.encode() else None

    def holds(self, principal: Principal) -> bool:
        return principal.key == ROBOT.key


class World:
    def __init__(self, server: FakeServer, live: LiveIssuer, clock: FakeClock) -> None:
        self.server, self.live, self.clock = server, live, clock
        self.gateway: Running
        self.client: Client

    def token(self, sub: str = "alice", scope: str = "mcp", **more: Any) -> dict[str, str]:
        bearer = token(claims(iss=self.live.url, sub=sub, scope=scope, **more))
        return {"Authorization": f"Bearer {bearer.decode()}"}

    async def call(self, params: Any = CALL, *, path: str = "/mcp", era: str = "modern", **headers: str) -> Answer:
        ask = self.client.modern if era == "modern" else self.client.legacy
        return await ask("tools/call", params, path=path, headers={k.replace("_", "-"): v for k, v in headers.items()})


def served(
    work: Callable[[World], Awaitable[None]],
    *,
    certificates: Any = None,
    upstream: Callable[..., FakeServer] = FakeServer,
    **settings: Any,
) -> None:
    async def main() -> None:
        clock = FakeClock(epoch=NOW)
        async with upstream(tools=TOOLS) as server, issuing() as live:
            fetch = fetcher()
            issuer = IssuerSpec("corp", "keycloak", live.url, ClaimRules(), audiences=(AUDIENCE,))
            identity = IdentitySpec(api_keys=True, issuers={"corp": issuer}, certificates=certificates)

            def identify(snapshot: Snapshot) -> Identity:
                assert snapshot.identity is not None
                return Identity(
                    snapshot.identity, snapshot.endpoints, keys=Keys(), fetch=fetch.fetch, secrets=None,
                    now=clock.wall, clock=clock, chance=lambda: 0.5,
                )  # fmt: skip

            world = World(server, live, clock)
            settings.update(identity=identity)
            sharing = "principal" if upstream is FakeServer else "session"
            async with Running(
                {"one": spec("one", server.url, sharing=sharing)}, ENDPOINTS, settings, identify=identify
            ) as world.gateway:
                world.client = await world.gateway.client()
                await work(world)
                front = world.gateway.front
                await until(lambda: not (front.calls.active or front.identifying or world.gateway.held.used))
            fetch.close()

    run(main)


def test_a_token_that_a_connection_shows_again_and_again_stands_for_nothing_else() -> None:
    """It is known before it is read, from the fourth time on; each other one is read, checked and refused as ever."""

    async def work(world: World) -> None:
        alice, bob = world.token(), world.token("bob", scope="other")
        forged = {"Authorization": alice["Authorization"][:-4] + "AAAA"}
        for _ in range(3):
            for shown, status in [(alice, 200)] * 5 + [({}, 401), (forged, 401), (bob, 403), (alice, 200)]:
                assert (await world.call(**shown)).status == status
        assert len(world.gateway.shared.connections) == 1, "all on one"
        (connection,) = world.gateway.shared.connections
        for _ in range(5):
            assert (await world.call(**alice)).status == 200
        assert connection._line is not None and connection.shown is not None
        assert connection._line.value is connection.shown.header
        world.clock.advance(500)
        for _ in range(2):
            assert (await world.call(**alice)).status == 401, "it has expired"

    served(work)


RESOURCE = 'resource_metadata="http://localhost/.well-known/oauth-protected-resource/mcp"'


def test_without_a_credential_a_client_is_told_where_to_get_one() -> None:
    async def work(world: World) -> None:
        for answer in (await world.call(), await world.call(era="legacy")):
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == f'Bearer scope="mcp", {RESOURCE}'
            assert answer.error["data"]["reason"] == "unauthorized"
        assert world.server.requests("tools/call") == [], "nothing was sent on"

    served(work)


def test_the_document_says_what_the_challenge_promises() -> None:
    async def work(world: World) -> None:
        for path, resource in [
            ("/mcp", "/mcp"), ("", "/mcp"), ("/mcp/default", "/mcp/default"), ("/mcp/", "/mcp/"),
            ("/mcp/hiding", "/mcp/hiding"),
        ]:  # fmt: skip
            world.client.http("GET", "/.well-known/oauth-protected-resource" + path)
            answer = await world.client.read()
            document = json.loads(answer.body)
            assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
            assert document["resource"] == "http://localhost" + resource
            assert document["authorization_servers"] == [world.live.url]
            assert document.get("scopes_supported") == (["mcp"] if "hiding" not in path else None)
        for path in ("/mcp/nothing", "/x", "x"):
            world.client.http("GET", "/.well-known/oauth-protected-resource" + path)
            assert (await world.client.read()).status == 404
        world.client.http("POST", "/.well-known/oauth-protected-resource")
        assert (await world.client.read()).status == 405

    served(work)


@pytest.mark.parametrize(
    ("settings", "headers", "base"),
    [
        pytest.param({"public_url": "https://gw.example.com"}, {"Host": "gw.example.com"}, "https://gw.example.com",
                     id="public_url"),
        pytest.param({"allowed_hosts": ("gw.example.com",)}, {"Host": "GW.example.com:8443"},
                     "http://gw.example.com:8443", id="a Host that is ours"),
        pytest.param({"allowed_hosts": ("gw.example.com",), "trusted_proxies": (ip_network("127.0.0.0/8"),)},
                     {"X-Forwarded-Host": "gw.example.com", "X-Forwarded-Proto": "https"}, "https://gw.example.com",
                     id="a trusted proxy's word"),
        pytest.param({"trusted_proxies": (ip_network("10.0.0.0/8"),)},
                     {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}, "http://localhost",
                     id="anybody else's word does not count"),
    ],
)  # fmt: skip
def test_the_resource_is_the_url_that_clients_use(settings: Any, headers: Any, base: str) -> None:
    async def work(world: World) -> None:
        world.client.http("GET", "/.well-known/oauth-protected-resource/mcp", headers)
        assert json.loads((await world.client.read()).body)["resource"] == base + "/mcp"
        answer = await world.call(**{name.replace("-", "_"): value for name, value in headers.items()})
        assert (
            f'resource_metadata="{base}/.well-known/oauth-protected-resource/mcp"' in answer.headers["www-authenticate"]
        )

    served(work, **settings)


def test_tokens_and_keys_let_in_and_nothing_of_them_goes_on() -> None:
    async def work(world: World) -> None:
        bearer = world.token()
        for headers in (bearer, bearer, {"Authorization": f"Bearer {KEY}"}):
            assert (await world.call(**headers)).text == '{"a": 1}'
        for request in world.server.requests("tools/call"):
            assert "authorization" not in request.headers
            assert bearer["Authorization"][7:] not in json.dumps(request.params)
            assert KEY not in json.dumps(request.params)

    served(work)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_tool_that_needs_more_is_refused_once_with_all_of_it(era: str) -> None:
    async def work(world: World) -> None:
        answer = await world.call(DELETE, era=era, **world.token(scope="mcp write"))
        assert answer.status == 403
        said = answer.headers["www-authenticate"]
        assert 'error="insufficient_scope"' in said and 'scope="admin mcp write"' in said and RESOURCE in said
        assert answer.error["data"]["reason"] == "insufficient_scope"
        assert world.server.requests("tools/call") == []
        assert (await world.call(DELETE, era=era, **world.token(scope="mcp write admin"))).status == 200
        listed = (await world.client.modern("tools/list", headers=world.token())).result
        assert len(listed["tools"]) == 3, "it may ask for more, so it sees the tool"
        assert listed.get("cacheScope") == "private"

    served(work)


def test_without_the_base_scopes_nothing_is_open() -> None:
    async def work(world: World) -> None:
        for method in ("tools/list", "ping", "initialize", "server/discover"):
            answer = await world.client.legacy(method, headers=world.token(scope="other"))
            assert answer.status == 403 and 'scope="mcp"' in answer.headers["www-authenticate"]

    served(work)


def test_hidden_tools_are_as_if_they_were_not_there() -> None:
    async def work(world: World) -> None:
        poor, rich = world.token(), world.token(scope="write")
        missing = {"name": "one__nothing", "arguments": {}}
        for headers, names in ((poor, ["one__echo", "one__wait"]), (rich, [f"one__{t['name']}" for t in TOOLS])):
            listed = (await world.client.modern("tools/list", path="/mcp/hiding", headers=headers)).result
            assert [tool["name"] for tool in listed["tools"]] == names
        hidden = await world.call(DELETE, path="/mcp/hiding", **poor)
        absent = await world.call(missing, path="/mcp/hiding", **poor)
        assert hidden.status == absent.status == 200
        assert hidden.error["code"] == absent.error["code"] == -32602
        assert "www-authenticate" not in hidden.headers
        assert (await world.call(DELETE, path="/mcp/hiding", **rich)).status == 200

    served(work)


def test_an_endpoint_for_everybody_and_what_it_keeps_back() -> None:
    async def work(world: World) -> None:
        assert (await world.call(path="/mcp/open")).status == 200
        answer = await world.call(DELETE, path="/mcp/open")
        assert answer.status == 401 and 'scope="write"' in answer.headers["www-authenticate"]
        assert (await world.call(DELETE, path="/mcp/open", **world.token(scope="write"))).status == 200
        assert (await world.call(path="/mcp/open", Authorization="Bearer bad")).status == 401

    served(work)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        pytest.param("/mcp?access_token=x", {}, 400, id="a token in the URL"),
        pytest.param("/mcp?access_token=x", {"Authorization": f"Bearer {KEY}"}, 400, id="one there and one here"),
        pytest.param("/mcp", {"Authorization": f"Bearer {KEY}, Bearer {KEY}"}, 400, id="two in one header"),
        pytest.param("/mcp", {"Authorization": f"Bearer {KEY}\r\nAuthorization: Bearer {KEY}"}, 400, id="two headers"),
        pytest.param("/mcp", {"Authorization": "Basic YTpi"}, 401, id="another scheme"),
        pytest.param("/mcp", {"X-API-Key": KEY}, 401, id="another header"),
        pytest.param("/mcp", {"X-Forwarded-User": "admin", "X-Remote-User": "admin"}, 401, id="names in headers"),
        pytest.param("/mcp", {"X-Forwarded-Client-Cert": f"Hash={'4' * 64};URI=spiffe://prod/a"}, 401, id="XFCC"),
    ],
)
def test_what_lets_nobody_in(path: str, headers: dict[str, str], status: int) -> None:
    async def work(world: World) -> None:
        answer = await world.client.modern("tools/call", CALL, path=path, headers=headers)
        assert answer.status == status
        assert world.server.requests("tools/call") == []

    served(work)


XFCC = {"X-Forwarded-Client-Cert": f"Hash={'4' * 64};URI=spiffe://prod/a"}
RULES = CertificateRules({"URI:spiffe://prod/*": ("robot",)}, xfcc=True)


@pytest.mark.parametrize(
    ("proxies", "headers", "status"),
    [
        pytest.param("127.0.0.0/8", XFCC, 200, id="a trusted proxy tells of a certificate"),
        pytest.param("10.0.0.0/8", XFCC, 400, id="anybody else may not"),
        pytest.param("127.0.0.0/8", {"X-Forwarded-Client-Cert": XFCC["X-Forwarded-Client-Cert"] + ",Hash=" + "5" * 64},
                     400, id="two certificates"),
        pytest.param("127.0.0.0/8", {**XFCC, "x-forwarded-client-cert": XFCC["X-Forwarded-Client-Cert"]}, 400,
                     id="two headers"),
        pytest.param("127.0.0.0/8", {"X-Forwarded-Client-Cert": f"Hash={'4' * 64};URI=spiffe://dev/a"}, 401,
                     id="a certificate that no rule names"),
        pytest.param("127.0.0.0/8", {}, 401, id="a trusted proxy that says nothing"),
    ],
)  # fmt: skip
def test_certificates_of_a_proxy(proxies: str, headers: dict[str, str], status: int) -> None:
    async def work(world: World) -> None:
        answer = await world.client.modern("tools/call", CALL, path="/mcp/plain", headers=headers)
        assert answer.status == status

    served(work, certificates=RULES, trusted_proxies=(ip_network(proxies),))


def test_a_retry_of_a_call_that_is_held_is_challenged_like_any_other() -> None:
    async def work(world: World) -> None:
        params = {"name": "one__delete_all", "arguments": {"rounds": [["roots"]]}}

        async def ask(params: Any, scope: str) -> Answer:
            headers = world.token(scope=scope)
            return await world.client.modern("tools/call", params, meta=META_ABLE, headers=headers)

        asked = await ask(params, "mcp write admin")
        lacks = await ask(retry_of(params, asked), "mcp")
        assert lacks.status == 403
        said = 'error_description="the token lacks a scope that this needs", scope="admin mcp write"'
        assert lacks.headers["www-authenticate"] == f'Bearer error="insufficient_scope", {said}, {RESOURCE}'
        assert "roots" in (await ask(retry_of(params, asked), "mcp write admin")).text, "the call was not lost"

    served(work, upstream=partial(Asker, eras="legacy"))


# --- what is whose


def test_a_session_is_its_principals_alone() -> None:
    async def work(world: World) -> None:
        alice, bob = world.token("alice"), world.token("bob")
        params = {"protocolVersion": "2025-11-25", "capabilities": {}}
        session = (await world.client.legacy("initialize", params, headers=alice)).headers["mcp-session-id"]
        mine = {"Mcp-Session-Id": session}
        assert (await world.client.legacy("ping", headers={**mine, **alice})).status == 200
        renewed = world.token("alice", exp=NOW + 999)
        assert (await world.client.legacy("ping", headers={**mine, **renewed})).status == 200, "not the token's"
        for other in (bob, {"Authorization": f"Bearer {KEY}"}, world.token("alice", azp="another-agent")):
            assert (await world.client.legacy("ping", headers={**mine, **other})).status == 404
            world.client.http("GET", "/mcp", {**mine, **other, "Accept": "text/event-stream"})
            assert (await world.client.read()).status == 404
            world.client.http("DELETE", "/mcp", {**mine, **other})
            assert (await world.client.read()).status == 404
        assert (await world.client.legacy("ping", headers=mine)).status == 401, "a session is no proof"
        assert (await world.client.legacy("ping", headers={**mine, **alice})).status == 200

    served(work)


def test_one_principal_cannot_cancel_anothers_call() -> None:
    async def work(world: World) -> None:
        alice, bob = world.token("alice"), world.token("bob")
        params = {"protocolVersion": "2025-11-25", "capabilities": {}}
        session = (await world.client.legacy("initialize", params, headers=alice)).headers["mcp-session-id"]
        other = await world.gateway.client()
        said = {"requestId": 1}
        answer = await other.legacy(
            "notifications/cancelled", said, id_=None, headers={"Mcp-Session-Id": session, **bob}
        )
        assert answer.status == 404

    served(work)


def test_upstream_sessions_are_a_principals_own() -> None:
    async def work(world: World) -> None:
        for who in ("alice", "bob", "alice"):
            assert (await world.call(**world.token(who))).status == 200
        channels = world.gateway.fleet.servers["one"].channels
        assert len(channels) == 2

    served(work)


# --- waiting for an issuer


def test_a_client_that_leaves_waits_no_longer() -> None:
    async def work(world: World) -> None:
        world.live.hangs = True
        world.client.send("tools/call", CALL, modern=True, headers=world.token())
        await until(lambda: world.gateway.front.identifying and world.live.asked)
        world.client.close()
        await until(lambda: not world.gateway.front.identifying)

    served(work)


def test_requests_that_wait_are_bounded() -> None:
    async def work(world: World) -> None:
        world.live.hangs = True
        waiting = [await world.gateway.client() for _ in range(2)]
        for client in waiting:
            client.send("tools/call", CALL, modern=True, headers=world.token())
        await until(lambda: len(world.gateway.front.identifying) == 2)
        answer = await world.call(**world.token("bob"))
        assert answer.status == 200 and answer.error["data"]["reason"] == "overloaded"
        world.live.hangs = False
        for client in waiting:
            assert (await client.read()).text == '{"a": 1}'

    served(work, limits=Limits(max_calls=2))


def test_a_dead_issuer_is_503_and_no_challenge() -> None:
    async def work(world: World) -> None:
        world.live.broken = 500
        answer = await world.call(**world.token())
        assert answer.status == 503 and "www-authenticate" not in answer.headers
        assert answer.error["data"]["reason"] == "authority_unavailable"

    served(work)


def test_a_batch_is_one_principals() -> None:
    async def work(world: World) -> None:
        bearer = world.token()
        params = {"protocolVersion": "2025-03-26", "capabilities": {}}
        session = (await world.client.legacy("initialize", params, headers=bearer)).headers["mcp-session-id"]
        messages = [{"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
                    for number, params in enumerate((CALL, DELETE))]  # fmt: skip
        world.client.http("POST", "/mcp", {"Mcp-Session-Id": session, **bearer}, json.dumps(messages).encode())
        answers = {one["id"]: one for one in json.loads((await world.client.read()).body)}
        assert "result" in answers[0] and answers[1]["error"]["data"]["reason"] == "insufficient_scope"

    served(work)


def test_a_stream_ends_with_its_token() -> None:
    async def work(world: World) -> None:
        bearer = world.token(exp=NOW + 100)
        params = {"protocolVersion": "2025-11-25", "capabilities": {}}
        session = (await world.client.legacy("initialize", params, headers=bearer)).headers["mcp-session-id"]
        stream = await world.gateway.client()
        stream.http("GET", "/mcp", {"Mcp-Session-Id": session, **bearer, "Accept": "text/event-stream"})
        assert (await stream.read_head())[0] == 200
        world.gateway.pass_time(1)
        assert world.gateway.front.hub.streams
        world.clock.advance(200)
        world.gateway.pass_time(1)
        assert not world.gateway.front.hub.streams
        assert (await world.client.legacy("ping", headers={"Mcp-Session-Id": session, **bearer})).status == 401

    served(work)


def test_a_snapshot_with_an_identity_never_runs_without_it() -> None:
    async def work(world: World) -> None:
        front = world.gateway.front
        with pytest.raises(ValueError):
            front.apply(front.snapshot)
        assert (await world.call()).status == 401

    served(work)


def test_requests_in_parallel_are_each_their_own() -> None:
    async def work(world: World) -> None:
        async def one(number: int) -> None:
            client = await world.gateway.client()
            who = world.token(f"user{number}")
            for _ in range(3):
                params = {**CALL, "arguments": {"n": number}}
                assert (await client.modern("tools/call", params, headers=who)).text == json.dumps({"n": number})

        await asyncio.gather(*(one(number) for number in range(10)))
        assert world.live.count("/keys") == 1

    served(work)


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        pytest.param({"endpoints": {"plain": ENDPOINTS["plain"]}}, 404, id="its endpoint is gone"),
        pytest.param({"identity": IdentitySpec(api_keys=True, issuers={}, certificates=None)}, 401, id="its issuer is"),
        pytest.param({}, 200, id="nothing of it"),
    ],
)
def test_a_request_that_waited_over_a_reload_comes_in_as_the_configuration_is_now(settings: Any, status: int) -> None:
    async def work(world: World) -> None:
        gateway = world.gateway
        front = gateway.front
        world.live.hangs = True
        world.client.send("tools/call", CALL, modern=True, headers=world.token())
        await until(lambda: front.identifying and world.live.asked)
        snapshot = msgspec.structs.replace(front.snapshot, **settings)
        gateway.fleet.apply(snapshot)
        assert gateway.identify is not None
        front.apply(snapshot, gateway.identify(snapshot))
        world.live.hangs = False
        answer = await world.client.read()
        assert answer.status == status

    served(work)
