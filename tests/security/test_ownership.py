"""What the gateway hands out to one principal (sessions, tasks, cursors, states of a question) opens for nobody else.

A principal is tenant, issuer, subject and agent; the token does not count: a new one of the same principal goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from narthex.testing.server import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import CAPABILITIES, LEGACY, Era, Gateway, Wire, message, render, routing_headers, text
from tests.e2e.servers import npm_server
from tests.identity.rig import Caller, Issuer, issuing

pytestmark = pytest.mark.e2e
MANY = 1500
"""Tools: more than a page of a list has."""
ALICE: dict[str, Any] = {"sub": "alice", "azp": "agent"}
OTHERS = {
    "another human": {**ALICE, "sub": "bob"},
    "another agent of the same human": {**ALICE, "azp": "other-agent"},
    "the same name in another tenant": {**ALICE, "org": "evil"},
    "the same name at another issuer": {**ALICE, "iss": "OTHER"},
}
each_other = pytest.mark.parametrize("other", OTHERS)


def asks(params: dict[str, Any]) -> dict[str, Any]:
    """Ask for a name, then greet: the state of the question stands in `requestState`."""
    if "requestState" in params:
        name = params["inputResponses"]["who"]["content"]["name"]
        return {"content": [{"type": "text", "text": f"{params['requestState']}: hello {name}"}]}
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    question = {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": "who?", "requestedSchema": schema},
    }
    return {"resultType": "input_required", "inputRequests": {"who": question}, "requestState": "alice asked"}


@dataclass
class Scene:
    gateway: Gateway
    issuers: tuple[Issuer, Issuer]
    upstream: FakeServer

    def token(self, iss: str = "", **claims: Any) -> str:
        return self.issuers[1 if iss else 0].token(**{"org": "good", **claims})

    def caller(self, era: Era = "modern", **claims: Any) -> Caller:
        return Caller(self.gateway.mcp, self.token(**(claims or ALICE)), era)

    def others(self, other: str, era: Era = "modern") -> Caller:
        return self.caller(era, **OTHERS[other])


@pytest.fixture(scope="module")
def scene(module_gateway: StartGateway, node: str, node_modules: Path) -> Iterator[Scene]:
    tools: list[dict[str, Any]] = [{"name": f"t{n:04}", "inputSchema": {"type": "object"}} for n in range(MANY)]
    tools.append({"name": "asks", "inputSchema": {"type": "object"}})
    everything = npm_server(node, node_modules, "server-everything", "stdio")
    with issuing() as one, issuing() as two, FakeServer(tools=tools, answers={"asks": asks}, eras="modern") as upstream:
        tenants = {"claims": {"tenant": "org"}, "audiences": ["gateway"]}
        identity = {"issuers": {name: {"issuer": each.base, **tenants} for name, each in (("one", one), ("two", two))}}
        servers = {"up": {"url": upstream.url}, "tasks": {**everything, "sharing": "session", "list_timeout": "30s"}}
        yield Scene(module_gateway({"version": 1, "servers": servers, "identity": identity}), (one, two), upstream)


# --- sessions


@each_other
def test_anothers_session_does_not_exist(scene: Scene, other: str) -> None:
    mine, theirs = scene.caller("legacy"), scene.others(other, "legacy")
    theirs.session = mine.session
    assert theirs.post("tools/list").status == 404
    assert theirs.try_call("up__t0000").status == 404
    headers = [("authorization", f"Bearer {theirs.bearer}"), ("mcp-session-id", str(mine.session))]
    headers.append(("mcp-protocol-version", LEGACY))
    with Wire(scene.gateway.mcp) as wire:
        assert wire.request("GET", headers=[*headers, ("accept", "text/event-stream")]).status == 404
    with Wire(scene.gateway.mcp) as wire:
        events = [("accept", "text/event-stream"), ("last-event-id", "1")]
        assert wire.request("GET", headers=[*headers, *events]).status in (400, 404)
    with Wire(scene.gateway.mcp) as wire:
        assert wire.request("DELETE", headers=headers).status == 404
    assert mine.post("tools/list").status == 200, "it was not ended by another"


def test_a_session_without_a_token_does_not_exist(scene: Scene) -> None:
    mine = scene.caller("legacy")
    with Wire(scene.gateway.mcp) as wire:
        body = message("tools/list", era="legacy")
        answer = wire.request("POST", headers=routing_headers(body, era="legacy", session=mine.session), body=b"{}")
        assert answer.status == 401


def test_a_session_goes_on_with_a_new_token(scene: Scene) -> None:
    mine = scene.caller("legacy")
    mine.bearer = scene.token(**ALICE, jti="new")
    assert mine.post("ping").status == 200


@each_other
def test_anothers_call_is_not_cancelled(scene: Scene, other: str) -> None:
    """A cancellation names a request id, and ids are small numbers that everybody uses."""
    mine, theirs = scene.caller("legacy"), scene.others(other, "legacy")
    running = mine.start(
        "tools/call",
        {"name": "tasks__trigger-long-running-operation", "arguments": {"duration": 0.6, "steps": 2}},
    )
    assert theirs.post("notifications/cancelled", {"requestId": running.id}, notification=True).status == 202
    assert "completed" in text(running.answer()["result"])


# --- cursors


@each_other
@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_anothers_cursor_opens_nothing(scene: Scene, other: str, era: Era) -> None:
    mine, theirs = scene.caller(era), scene.others(other, era)
    cursor = {"cursor": mine.result("tools/list")["nextCursor"]}
    assert theirs.error("tools/list", cursor)["code"] == -32602
    assert mine.result("tools/list", cursor)["tools"]


# --- questions


def ask(caller: Caller, more: dict[str, Any] | None = None) -> Any:
    meta = {CAPABILITIES: {"elicitation": {"form": {}}}}
    params = {"name": "up__asks", "arguments": {}, "_meta": meta, **(more or {})}
    return caller.ask("tools/call", params)


@each_other
def test_anothers_state_opens_nothing(scene: Scene, other: str) -> None:
    mine, theirs = scene.caller(), scene.others(other)
    asked = ask(mine)["result"]
    reply = {"action": "accept", "content": {"name": "Alice"}}
    answer = {"requestState": asked["requestState"], "inputResponses": {"who": reply}}
    before = len(scene.upstream.requests("tools/call"))
    assert ask(theirs, answer)["error"]["code"] == -32602
    assert len(scene.upstream.requests("tools/call")) == before
    assert text(ask(mine, answer)["result"]) == "alice asked: hello Alice"


# --- tasks


def client_of(scene: Scene, **claims: Any) -> Caller:
    """A legacy client that can be asked, as the server's tasks want it."""
    caller = scene.caller("legacy", **claims)
    info = {"name": "e2e", "version": "1"}
    params = {"protocolVersion": LEGACY, "capabilities": {"elicitation": {}}, "clientInfo": info}
    caller.session = caller.post("initialize", params).header("mcp-session-id")
    return caller


@each_other
def test_anothers_task_does_not_exist(scene: Scene, other: str) -> None:
    mine, theirs = client_of(scene, **ALICE), client_of(scene, **OTHERS[other])
    name = "tasks__simulate-research-query"
    task = {"name": name, "arguments": {"topic": "python"}, "task": {"ttl": 60000}}
    id_ = mine.result("tools/call", task)["task"]["taskId"]
    for method in ("tasks/get", "tasks/result", "tasks/cancel"):
        assert theirs.error(method, {"taskId": id_})["code"] == -32602, method
    assert theirs.result("tasks/list")["tasks"] == []
    assert text(mine.result("tasks/result", {"taskId": id_})).startswith("# Research Report: python")


# --- what is on its way


def test_a_pipelined_request_does_not_inherit_the_credential_before_it(scene: Scene) -> None:
    """Behind a proxy that shares connections, the next request on a connection is somebody else's."""
    body = message("tools/call", {"name": "up__t0001", "arguments": {}})
    headers, raw = routing_headers(body), json.dumps(body).encode()
    good = [("host", scene.gateway.mcp.split("/")[2]), ("authorization", f"Bearer {scene.token(**ALICE)}"), *headers]
    with Wire(scene.gateway.mcp) as wire:
        wire.send(render("POST", "/mcp", good, raw) + render("POST", "/mcp", [good[0], *headers], raw))
        assert [wire.read().status, wire.read().status] == [200, 401]
