"""The official clients, each in the eras it speaks, against one gateway over an old and a dual-era server."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import ListRootsResult, Root

from tests.conformance import suites
from tests.conftest import StartGateway
from tests.e2e.harness import LEGACY, MODERN, Gateway
from tests.e2e.servers import PACKAGES, everything_over_http, npm_server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def gateway(
    module_gateway: StartGateway, node: str, node_modules: Path, python_servers: Callable[[str], str]
) -> Gateway:
    everything = npm_server(node, node_modules, "server-everything", "stdio")
    time = {"command": python_servers("mcp-server-time"), "args": ["--local-timezone", "UTC"]}
    return module_gateway({"version": 1, "servers": {"everything": everything, "time": time}})


@pytest.fixture(scope="module")
def asking(
    module_gateway: StartGateway, node: str, node_modules: Path, python_servers: Callable[[str], str]
) -> Iterator[Gateway]:
    """The same two, and one more of each era that asks its client and tells of changes."""
    everything = npm_server(node, node_modules, "server-everything", "stdio")
    time = {"command": python_servers("mcp-server-time"), "args": ["--local-timezone", "UTC"]}
    with suites.fixture("legacy") as old, suites.fixture("modern") as new:
        asking = {name: {"url": url, "sharing": "session"} for name, url in (("old", old), ("new", new))}
        yield module_gateway({"version": 1, "servers": {"everything": everything, "time": time, **asking}})


def run(command: list[str], expect: int = 0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("mode", "version"), [("auto", MODERN), ("legacy", LEGACY)])
def test_the_python_sdk(gateway: Gateway, mode: Any, version: str) -> None:
    async def talk() -> None:
        progress: list[float] = []

        async def on_progress(done: float, total: float | None, message: str | None) -> None:
            progress.append(done)

        async with Client(gateway.mcp, mode=mode) as client:
            assert client.protocol_version == version
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools][-2:] == ["time__get_current_time", "time__convert_time"]
            result = await client.call_tool("everything__get-sum", {"a": 2, "b": 40})
            assert "42" in result.content[0].text  # type: ignore[union-attr]
            structured = await client.call_tool("everything__get-structured-content", {"location": "Chicago"})
            assert structured.structured_content
            now = await client.call_tool("time__get_current_time", {"timezone": "UTC"})
            assert "UTC" in now.content[0].text  # type: ignore[union-attr]
            prompt = await client.get_prompt("everything__args-prompt", {"city": "Oslo"})
            assert "Oslo" in prompt.messages[0].content.text  # type: ignore[union-attr]
            read = await client.read_resource("demo://resource/dynamic/text/1")
            assert read.contents[0].uri == "demo://resource/dynamic/text/1"
            assert len((await client.list_resource_templates()).resource_templates) == 2
            long = {"duration": 0.3, "steps": 3}
            await client.call_tool("everything__trigger-long-running-operation", long, progress_callback=on_progress)
            assert progress == [1, 2, 3]
            many = [client.call_tool("everything__echo", {"message": str(n)}) for n in range(20)]
            for n, echoed in enumerate(await asyncio.gather(*many)):
                assert echoed.content[0].text == f"Echo: {n}"  # type: ignore[union-attr]
            with pytest.raises(MCPError) as refused:
                await client.call_tool("everything__nope", {})
            assert refused.value.error.code == -32602

    asyncio.run(talk())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_server_that_asks_on_its_own_stream_is_answered_by_the_python_sdk(
    start_gateway: StartGateway, node: str, node_modules: Path, mode: Any
) -> None:
    """`server-everything` asks for roots on the stream of a GET, amid a call; no modern client opens one."""

    async def roots(context: Any) -> ListRootsResult:
        return ListRootsResult(roots=[Root(uri="file:///project", name="project")])  # type: ignore[arg-type]

    async def talk(url: str) -> None:
        async with Client(url, mode=mode, list_roots_callback=roots) as client:
            said = await client.call_tool("everything__get-roots-list", {})
            assert "file:///project" in said.content[0].text  # type: ignore[union-attr]

    with everything_over_http(node, node_modules, "streamableHttp") as url:
        gateway = start_gateway({"version": 1, "servers": {"everything": {"url": url, "sharing": "session"}}})
        asyncio.run(talk(gateway.mcp))


@pytest.mark.parametrize(
    ("generation", "version"), [("v1", LEGACY), ("legacy", LEGACY), ("auto", MODERN), ("modern", MODERN)]
)
def test_the_typescript_sdk(gateway: Gateway, node: str, node_modules: Path, generation: str, version: str) -> None:
    script = str(node_modules.parent / "client.mjs")
    out = json.loads(run([node, script, generation, gateway.mcp]))
    assert out["version"] == version
    assert out["tools"][-2:] == ["time__get_current_time", "time__convert_time"]
    assert "everything__simple-prompt" in out["prompts"] and len(out["resources"]) == 7 and len(out["templates"]) == 2
    assert "42" in out["sum"] and "UTC" in out["time"] and "Oslo" in out["prompt"] and out["resource"]
    assert out["structured"].keys() == {"temperature", "conditions", "humidity"}
    assert out["completion"] == ["Engineering"]
    assert out["unknown"] == -32602


@pytest.mark.parametrize(("era", "version"), [("legacy", LEGACY), ("modern", MODERN)])
def test_the_go_sdk(asking: Gateway, go_programs: Path, era: str, version: str) -> None:
    out = json.loads(run([str(go_programs / "client"), era, asking.mcp]))
    assert out["version"] == version
    assert {"everything__get-sum", "time__convert_time", "old__rich_content", "new__rich_content"} <= set(out["tools"])
    assert "everything__simple-prompt" in out["prompts"] and "new__test_simple_prompt" in out["prompts"]
    assert {"demo://resource/static/document/features.md", "test://static-text"} <= set(out["resources"])
    assert len(out["templates"]) == 3
    assert "42" in out["sum"] and "UTC" in out["time"] and "Oslo" in out["prompt"] and out["resource"]
    assert out["structured"].keys() == {"temperature", "conditions", "humidity"}
    assert out["completion"] == ["Engineering"]
    assert out["unknown"] == -32602
    for server in ("old", "new"):
        assert "gopher@example.com" in out[f"asked by {server}"]
        assert out[f"progress of {server}"] == [0, 50, 100]
    assert out["updated"] == "test://watched-resource"


@pytest.mark.parametrize(
    "era", [[], ["--protocol-era", "modern"], ["--protocol-era", "auto"]], ids=["legacy", "modern", "auto"]
)
def test_the_inspector(gateway: Gateway, node: str, node_modules: Path, era: list[str], tmp_path: Path) -> None:
    launcher = str(node_modules / PACKAGES / "inspector" / "clients" / "launcher" / "build" / "index.js")

    def inspect(*arguments: str) -> Any:
        command = [node, launcher, "--cli", gateway.mcp, "--transport", "http", *era, "--format", "json", *arguments]
        return json.loads(run(command))["result"]

    tools = inspect("--method", "tools/list")["tools"]
    assert "time__convert_time" in [tool["name"] for tool in tools]
    call = inspect("--method", "tools/call", "--tool-name", "everything__get-sum", "--tool-arg", "a=2", "b=40")
    assert "42" in call["content"][0]["text"]


def test_the_inspector_loads_without_an_error(gateway: Gateway, node: str, node_modules: Path) -> None:
    launcher = str(node_modules / PACKAGES / "inspector" / "clients" / "launcher" / "build" / "index.js")
    load = ["--load", "--load-requests", "200", "--load-concurrency", "8", "--format", "json"]
    tool = ["--method", "tools/call", "--tool-name", "everything__echo", "--tool-args-json", '{"message": "x"}']
    out = json.loads(run([node, launcher, "--cli", gateway.mcp, "--transport", "http", *tool, *load]))
    assert (out["result"]["ok"], out["result"]["errorRate"]) == (200, 0), out
