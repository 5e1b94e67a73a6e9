"""Answers from memory at a running gateway: in front of official servers over HTTP and stdio, in both eras;
and what its operator sees of it, and ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import Client, Gateway, get, text, wait_for
from tests.e2e.servers import everything_over_http, npm_server
from tests.e2e.test_kept import command, records

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def real(
    module_gateway: StartGateway,
    node: str,
    node_modules: Path,
    python_servers: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    graph = tmp_path_factory.mktemp("memory") / "graph.json"
    with everything_over_http(node, node_modules, "streamableHttp") as streamable:
        memory = npm_server(node, node_modules, "server-memory")
        yield module_gateway(
            {
                "version": 1,
                "servers": {
                    "time": {"command": python_servers("mcp-server-time"), "args": ["--local-timezone", "UTC"]},
                    "memory": {**memory, "env": {"MEMORY_FILE_PATH": str(graph)}, "list_timeout": "30s"},
                    "everything": {"url": streamable, "list_timeout": "30s"},
                },
                "cache": {
                    "rules": [
                        {"name": "clock", "tools": ["time__get_current_time"], "ttl": "1h"},
                        {"name": "graph", "tools": ["memory__read_graph", "memory__search_nodes"], "ttl": "1h"},
                        {"name": "more", "tools": ["everything__*"], "resources": ["everything__*"],
                         "prompts": ["everything__*"], "ttl": "1h"},
                    ],
                    "clears": [{"after": ["memory__create_*", "memory__delete_*"], "tools": ["memory__*"]}],
                },
                "audit": {"dir": "audit", "durable": "none", "on_failure": "degrade"},
            }
        )  # fmt: skip


@pytest.fixture(params=["modern", "legacy"], scope="module")
def client(real: Gateway, request: pytest.FixtureRequest) -> Client:
    return real.client(era=request.param)


def hits(gateway: Gateway) -> int:
    """How many answers came from memory so far."""
    found: int = shown(gateway)["asked"]["hits"]
    return found


def shown(gateway: Gateway) -> Any:
    return json.loads(command(gateway, "cache", "show", "--json", "--admin", gateway.admin))["cache"]


def test_a_real_clock_stands_still(client: Client) -> None:
    zone = {"timezone": "Europe/Lisbon"}
    first = client.call("time__get_current_time", zone)
    assert first["content"] and client.call("time__get_current_time", zone) == first
    assert "error" not in client.ask("tools/call", {"name": "time__get_current_time", "arguments": {"timezone": "UTC"}})


def test_what_is_written_is_read(client: Client) -> None:
    def read() -> Any:
        return json.loads(text(client.call("memory__read_graph")))

    name = f"thing of {client.era}"
    before = read()
    assert read() == before
    client.call("memory__create_entities", {"entities": [{"name": name, "entityType": "t", "observations": []}]})
    assert [one["name"] for one in read()["entities"] if one["name"] == name] == [name]
    client.call("memory__delete_entities", {"entityNames": [name]})
    assert read() == before


def test_an_error_of_a_real_tool_is_not_kept(real: Gateway, client: Client) -> None:
    before = hits(real)
    for _ in range(2):
        assert client.call("time__get_current_time", {"timezone": "Nowhere/Land"})["isError"]
    assert hits(real) == before


def test_prompts_and_resources_of_a_real_server(real: Gateway, client: Client) -> None:
    before = hits(real)
    (prompt, *_) = [one["name"] for one in client.result("prompts/list")["prompts"] if not one.get("arguments")]
    uri = next(one["uri"] for one in client.result("resources/list")["resources"] if one["uri"].startswith("demo:"))
    for method, params in (("prompts/get", {"name": prompt}), ("resources/read", {"uri": uri})):
        first = client.result(method, params)
        assert client.result(method, params) == first
    assert hits(real) - before in (2, 4), "the client of the other era may have asked before"


def test_progress_on_the_way_is_nothing_to_miss(client: Client) -> None:
    slow = {"name": "everything__trigger-long-running-operation", "arguments": {"duration": 0.2, "steps": 2}}
    first = client.result("tools/call", slow)
    assert client.result("tools/call", slow) == first


# --- what the operator sees

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("get", "other")]


@pytest.fixture
def counted() -> Iterator[tuple[FakeServer, list[int]]]:
    """A server whose answers are the numbers of their calls."""
    calls: list[int] = []

    def answer(params: dict[str, Any]) -> dict[str, Any]:
        calls.append(len(calls) + 1)
        return {"content": [{"type": "text", "text": str(calls[-1])}]}

    with FakeServer(tools=TOOLS, answers={"get": answer, "other": answer}) as server:
        yield server, calls


def config(server: FakeServer, **cache: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "servers": {"one": {"url": server.url}},
        "cache": {"rules": [{"name": "gets", "tools": ["one__get"], "ttl": "1h"}], **cache},
        "audit": {"dir": "audit", "durable": "all"},
    }


def test_what_is_kept_is_shown_recorded_counted_and_ended(
    start_gateway: StartGateway, counted: tuple[FakeServer, list[int]]
) -> None:
    server, calls = counted
    running = start_gateway(config(server))
    modern, legacy = running.client(), running.client(era="legacy")
    assert [text(one.call("one__get", {"id": 1})) for one in (modern, legacy, modern)] == ["1", "1", "1"]
    assert [text(modern.call("one__other")) for _ in range(2)] == ["2", "3"]
    (row,) = shown(running)["rows"]
    assert (row["name"], row["rule"], row["entries"], row["hits"], row["tenant"]) == (
        "one__get",
        "gets",
        1,
        2,
        "default",
    )
    assert "one__get" in command(running, "cache", "show", "--admin", running.admin)
    metrics = get(f"{running.admin}/metrics").body.decode()
    assert "narthex_cache_hits_total 2" in metrics and "narthex_cache_entries 1" in metrics
    found = [(one.get("name"), one.get("cache"), "age" in one) for one in records(running) if one["event"] == "call"]
    assert found == [
        ("get", "miss", False), ("get", "hit", True), ("get", "hit", True),
        ("other", None, False), ("other", None, False),
    ]  # fmt: skip
    assert command(running, "cache", "clear", "one__other", "--admin", running.admin) == "0 answers are gone.\n"
    assert command(running, "cache", "clear", "one__*", "--admin", running.admin) == "1 answer is gone.\n"
    assert text(modern.call("one__get", {"id": 1})) == "4"


def test_a_reload_with_other_rules_begins_anew(
    start_gateway: StartGateway, counted: tuple[FakeServer, list[int]]
) -> None:
    server, calls = counted
    running = start_gateway(config(server))
    client = running.client()
    assert [text(client.call("one__get")) for _ in range(2)] == ["1", "1"]
    (running.folder / running.file).write_text(json.dumps(config(server, max_entries=5)))
    wait_for(lambda: shown(running)["most_entries"] == 5, "the reload")
    assert [text(client.call("one__get")) for _ in range(2)] == ["2", "2"]


def test_many_clients_at_one_time_make_one_call(
    start_gateway: StartGateway, counted: tuple[FakeServer, list[int]]
) -> None:
    server, calls = counted
    gate = threading.Event()
    answer = server.answers["get"]

    def slowly(params: dict[str, Any]) -> dict[str, Any]:
        assert gate.wait(60)
        return dict(answer(params))  # type: ignore[operator]

    server.answers["get"] = slowly
    running = start_gateway({**config(server), "audit": None})  # nothing is waited for but the server
    running.client().tools()
    clients = [running.client() for _ in range(20)]
    started = [one.start("tools/call", {"name": "one__get", "arguments": {"id": 1}}) for one in clients]
    wait_for(lambda: "narthex_open_calls 20" in get(f"{running.admin}/metrics").body.decode(), "all of them")
    gate.set()
    assert [text(one.answer()["result"]) for one in started] == ["1"] * 20
    assert len(calls) == 1
    assert shown(running)["asked"] | {"kept": 1} == {"hits": 0, "stale": 0, "joined": 19, "misses": 1, "kept": 1}
