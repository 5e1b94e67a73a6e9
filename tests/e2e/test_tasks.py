"""The experimental tasks of 2025-11-25 with the official server that has them, over stdio and HTTP, each client with a
session of its own there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.e2e.harness import LEGACY, Client, Gateway, Wire, text, wait_for
from tests.e2e.servers import everything_over_http, npm_server

pytestmark = pytest.mark.e2e
RELATED = "io.modelcontextprotocol/related-task"
SERVERS = ["pipe", "http"]


@pytest.fixture(scope="module")
def gateway(module_gateway: StartGateway, node: str, node_modules: Path) -> Iterator[Gateway]:
    with everything_over_http(node, node_modules, "streamableHttp") as url:
        pipe = npm_server(node, node_modules, "server-everything", "stdio")
        servers: dict[str, Any] = {"pipe": pipe, "http": {"url": url}}
        servers = {name: {**one, "sharing": "session", "list_timeout": "30s"} for name, one in servers.items()}
        yield module_gateway({"version": 1, "servers": {**servers, "shared": {**pipe, "list_timeout": "30s"}}})


def client_of(gateway: Gateway) -> Client:
    """A client that can be asked."""
    client = gateway.client(era="legacy")
    info = {"name": "e2e", "version": "1"}
    params = {"protocolVersion": LEGACY, "capabilities": {"elicitation": {}}, "clientInfo": info}
    response = client.post("initialize", params)
    client.initialized, client.session = response.answer["result"], response.header("mcp-session-id")
    return client


def research(client: Client, server: str, **arguments: Any) -> str:
    """Begin a task; its id."""
    name = f"{server}__simulate-research-query"
    params = {"name": name, "arguments": {"topic": "python", **arguments}, "task": {"ttl": 60000}}
    task = client.result("tools/call", params)["task"]
    assert (task["status"], len(task["taskId"]) > 64) == ("working", True)
    return str(task["taskId"])


def state(client: Client, id_: str) -> Any:
    found = client.result("tasks/get", {"taskId": id_})
    assert found["taskId"] == id_
    return found


@pytest.mark.parametrize("server", SERVERS)
def test_a_task_is_made_watched_listed_and_its_result_taken(gateway: Gateway, server: str) -> None:
    client = client_of(gateway)
    assert client.initialized["capabilities"]["tasks"] == {
        "list": {},
        "cancel": {},
        "requests": {"tools": {"call": {}}},
    }
    id_ = research(client, server)
    assert state(client, id_)["status"] == "working"
    result = client.result("tasks/result", {"taskId": id_})  # blocks until the task has ended
    assert text(result).startswith("# Research Report: python")
    assert result["_meta"][RELATED] == {"taskId": id_}
    assert state(client, id_)["status"] == "completed"
    tasks: list[Any] = []
    page: dict[str, Any] = {"nextCursor": None}
    while "nextCursor" in page:
        page = client.result("tasks/list", {"cursor": page["nextCursor"]})
        tasks += page["tasks"]
    assert [task["status"] for task in tasks] == ["completed"]
    assert state(client, tasks[0]["taskId"])["status"] == "completed"
    assert client.error("tasks/cancel", {"taskId": id_})["code"] == -32602, "it has ended"


@pytest.mark.parametrize("server", SERVERS)
def test_a_task_is_ended_by_its_client_and_nobody_else_knows_it(gateway: Gateway, server: str) -> None:
    client, other = client_of(gateway), client_of(gateway)
    id_ = research(client, server)
    assert other.error("tasks/get", {"taskId": id_})["code"] == -32602, "it is in another session of the server"
    assert other.error("tasks/cancel", {"taskId": id_})["code"] == -32602
    assert client.result("tasks/cancel", {"taskId": id_})["status"] == "cancelled"
    assert state(client, id_)["status"] == "cancelled"


@pytest.mark.parametrize("server", SERVERS)
def test_a_task_asks_its_client_on_the_stream_of_its_result(gateway: Gateway, server: str) -> None:
    client = client_of(gateway)
    id_ = research(client, server, ambiguous=True)
    wait_for(lambda: state(client, id_)["status"] == "input_required", "a question")
    waiting = client.start("tasks/result", {"taskId": id_})
    with contextlib.closing(waiting.wire):
        messages = waiting.wire.events(waiting.wire.read_head())
        asked = next(one for one in messages if one.get("method") == "elicitation/create")
        assert asked["params"]["_meta"][RELATED] == {"taskId": id_}
        content = {"action": "accept", "content": {"interpretation": "snake"}, "_meta": {RELATED: {"taskId": id_}}}
        with Wire(client.url) as wire:
            wire.send(client.render({"jsonrpc": "2.0", "id": asked["id"], "result": content}))
            assert wire.read().status == 202
        result = next(one for one in messages if one.get("id") == waiting.id)["result"]
    assert "snake" in text(result)
    assert result["_meta"][RELATED] == {"taskId": id_}


@pytest.mark.parametrize("server", [*SERVERS, "shared"])
def test_a_tool_that_only_runs_as_a_task_says_so_to_who_calls_it_plainly(gateway: Gateway, server: str) -> None:
    name, arguments = f"{server}__simulate-research-query", {"topic": "python"}
    client = client_of(gateway)
    for one in (client, gateway.client()):
        assert "-32601" in text(one.call(name, arguments)), "this server says it in a result"
    if server == "shared":
        error = client.error("tools/call", {"name": name, "arguments": arguments, "task": {}})
        assert error["code"] == -32601, "its tasks would be everybody's"
