"""The official servers behind one endpoint: all that they offer arrives, under the right names, in a stable order."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.e2e.harness import LEGACY, MODERN, Client, Era, Gateway, check_error, text, wait_for
from tests.e2e.servers import everything_over_http, official

pytestmark = pytest.mark.e2e
ORDER = ["time", "git", "fetch", "everything", "filesystem", "memory", "streamable", "sse"]
EVERYTHING = ["everything", "streamable", "sse"]
COUNTS = {
    "time": 2,
    "git": 12,
    "fetch": 1,
    "everything": 13,
    "filesystem": 14,
    "memory": 9,
    "streamable": 13,
    "sse": 13,
}


@pytest.fixture(scope="module")
def gateway(
    module_gateway: StartGateway,
    node: str,
    node_modules: Path,
    python_servers: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("servers")
    with (
        everything_over_http(node, node_modules, "streamableHttp") as streamable,
        everything_over_http(node, node_modules, "sse") as sse,
    ):
        servers = official(node, node_modules, python_servers, folder)
        servers |= {"streamable": {"url": streamable}, "sse": {"url": sse}}
        gateway = module_gateway(
            {
                "version": 1,
                "servers": {name: {"list_timeout": "30s", **entry} for name, entry in servers.items()},
                "endpoints": {
                    "default": {"servers": ORDER},
                    "plain": {"servers": ["time", "memory"], "naming": "none"},
                    "chosen": {
                        "servers": ["git", "time", "everything"],
                        "tools": {"include": ["git__git_*", "time__*"], "exclude": ["*_commit", "git__git_reset"]},
                        "prompts": {"exclude": ["everything__*"]},
                        "resources": {"include": ["nothing__*"]},
                    },
                },
            }
        )
        gateway.folder.joinpath("servers").write_text(str(folder))
        yield gateway


@pytest.fixture(params=["modern", "legacy"], scope="module")
def client(gateway: Gateway, request: pytest.FixtureRequest) -> Client:
    era: Era = request.param
    return gateway.client(era=era)


def names(client: Client, method: str, key: str, field: str = "name") -> list[str]:
    return [item[field] for item in client.result(method)[key]]


def test_every_tool_of_every_server_is_listed_in_the_order_of_the_endpoint(client: Client) -> None:
    listed = client.tools()
    assert [name for name, _ in _runs(listed)] == ORDER
    assert dict(_runs(listed)) == COUNTS
    assert client.tools() == listed, "not the same twice"


def _runs(tools: list[str]) -> list[tuple[str, int]]:
    runs: list[tuple[str, int]] = []
    for tool in tools:
        server = tool.partition("__")[0]
        if runs and runs[-1][0] == server:
            runs[-1] = (server, runs[-1][1] + 1)
        else:
            runs.append((server, 1))
    return runs


def test_a_tool_is_listed_as_its_server_gives_it_but_for_the_name(client: Client) -> None:
    tools = {tool["name"]: tool for tool in client.result("tools/list")["tools"]}
    over_stdio, over_http = (tools[f"{name}__get-structured-content"] for name in ("everything", "streamable"))
    assert over_stdio["outputSchema"]["required"] == ["temperature", "conditions", "humidity"]
    assert {**over_stdio, "name": ""} == {**over_http, "name": ""}
    assert tools["filesystem__read_file"]["annotations"]["readOnlyHint"] is True


@pytest.mark.parametrize("server", EVERYTHING)
def test_tools_are_called(client: Client, server: str) -> None:
    assert text(client.call(f"{server}__echo", {"message": "héllo \U0001f600"})) == "Echo: héllo \U0001f600"
    assert "42" in text(client.call(f"{server}__get-sum", {"a": 2, "b": 40}))
    structured = client.call(f"{server}__get-structured-content", {"location": "Chicago"})
    assert structured["structuredContent"].keys() == {"temperature", "conditions", "humidity"}
    image = next(item for item in client.call(f"{server}__get-tiny-image")["content"] if item["type"] == "image")
    assert image["mimeType"] == "image/png"
    assert client.call(f"{server}__get-sum", {"a": "two"})["isError"] is True


def test_the_official_servers_do_their_work(client: Client, gateway: Gateway) -> None:
    folder = Path(gateway.folder.joinpath("servers").read_text())
    now = json.loads(text(client.call("time__get_current_time", {"timezone": "Asia/Tokyo"})))
    assert now["timezone"] == "Asia/Tokyo"
    log = text(client.call("git__git_log", {"repo_path": str(folder / "repository")}))
    assert "the first commit" in log
    assert text(client.call("filesystem__read_text_file", {"path": str(folder / "files" / "note.txt")})) == "a note\n"
    entity = {"name": client.era, "entityType": "client", "observations": ["calls"]}
    client.call("memory__create_entities", {"entities": [entity]})
    assert client.era in text(client.call("memory__read_graph"))


def test_fetch_fetches_through_the_gateway(client: Client) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html><body><h1>A page</h1><p>with words in it, some of them long.</p></body></html>")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        result = client.call("fetch__fetch", {"url": f"http://127.0.0.1:{pages.server_port}/", "raw": True})
        pages.shutdown()
    assert "with words in it" in text(result)


def test_prompts_are_listed_and_given(client: Client) -> None:
    listed = names(client, "prompts/list", "prompts")
    assert listed[0] == "fetch__fetch"
    assert [name for name in listed if name.endswith("__args-prompt")] == [
        f"{name}__args-prompt" for name in EVERYTHING
    ]
    for server in EVERYTHING:
        params = {"name": f"{server}__args-prompt", "arguments": {"city": "Oslo", "state": "Norway"}}
        assert "Oslo, Norway" in client.result("prompts/get", params)["messages"][0]["content"]["text"]


def test_resources_are_listed_once_and_read(client: Client) -> None:
    listed = names(client, "resources/list", "resources", "uri")
    assert len(listed) == len(set(listed)) == 8
    assert "memory://knowledge-graph" in listed
    contents = client.result("resources/read", {"uri": "demo://resource/static/document/features.md"})["contents"]
    assert contents[0]["mimeType"] == "text/markdown"
    graph = client.result("resources/read", {"uri": "memory://knowledge-graph"})["contents"][0]
    assert graph["uri"] == "memory://knowledge-graph"


def test_templates_are_listed_and_what_they_match_is_read(client: Client) -> None:
    listed = names(client, "resources/templates/list", "resourceTemplates", "uriTemplate")
    assert listed == ["demo://resource/dynamic/text/{resourceId}", "demo://resource/dynamic/blob/{resourceId}"]
    contents = client.result("resources/read", {"uri": "demo://resource/dynamic/text/7"})["contents"]
    assert contents[0]["uri"] == "demo://resource/dynamic/text/7"


def test_arguments_are_completed(client: Client) -> None:
    for server in EVERYTHING:
        ref = {"type": "ref/prompt", "name": f"{server}__completable-prompt"}
        found = client.result("completion/complete", {"ref": ref, "argument": {"name": "department", "value": "E"}})
        assert found["completion"]["values"] == ["Engineering"]
    ref = {"type": "ref/resource", "uri": "demo://resource/dynamic/text/{resourceId}"}
    found = client.result("completion/complete", {"ref": ref, "argument": {"name": "resourceId", "value": "1"}})
    assert found["completion"]["values"] == ["1"]


def test_progress_reaches_the_caller_with_its_own_token(client: Client) -> None:
    for server in EVERYTHING:
        params = {
            "name": f"{server}__trigger-long-running-operation",
            "arguments": {"duration": 0.3, "steps": 3},
            "_meta": {"progressToken": f"token-{server}"},
        }
        messages = client.post("tools/call", params).messages
        assert [item["params"]["progressToken"] for item in messages[:-1]] == [f"token-{server}"] * 3
        assert [item["params"]["progress"] for item in messages[:-1]] == [1, 2, 3]
        assert "completed" in text(messages[-1]["result"])


def test_hidden_and_missing_answer_alike(gateway: Gateway) -> None:
    client = gateway.client("chosen")
    listed = client.tools()
    assert listed and all(name.startswith(("git__", "time__")) for name in listed)
    hidden = [
        client.call_error(name) for name in ("git__git_commit", "git__git_reset", "everything__echo", "git__nope")
    ]
    for error in hidden:
        check_error(error, -32602)
    shapes = {json.dumps({**error, "message": "", "data": sorted(error["data"])}) for error in hidden}
    assert len(shapes) == 1
    assert names(client, "prompts/list", "prompts") == []
    assert names(client, "resources/list", "resources", "uri") == []
    check_error(client.error("prompts/get", {"name": "everything__simple-prompt"}), -32602)
    check_error(client.error("resources/read", {"uri": "demo://resource/static/document/features.md"}), -32602)
    check_error(client.error("resources/read", {"uri": "demo://resource/dynamic/text/7"}), -32602)


def test_an_endpoint_without_prefixes_shows_names_as_given(gateway: Gateway) -> None:
    client = gateway.client("plain", "legacy")
    assert client.tools()[:3] == ["get_current_time", "convert_time", "create_entities"]
    assert "UTC" in text(client.call("get_current_time", {"timezone": "UTC"}))
    check_error(client.call_error("time__get_current_time"), -32602)


def test_discovery_says_what_the_endpoint_can(gateway: Gateway) -> None:
    found = gateway.client().result("server/discover")
    assert MODERN in found["supportedVersions"]
    assert {"tools", "prompts", "resources", "completions"} <= found["capabilities"].keys()
    initialized = gateway.client(era="legacy").initialized
    assert initialized["protocolVersion"] == LEGACY
    assert {"tools", "prompts", "resources", "completions"} <= initialized["capabilities"].keys()


def test_modern_results_carry_what_the_revision_asks_for(gateway: Gateway) -> None:
    client = gateway.client()
    for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "server/discover"):
        result = client.result(method)
        assert result["resultType"] == "complete"
        assert result["ttlMs"] >= 0 and result["cacheScope"] in ("public", "private")
    assert client.call("everything__echo", {"message": "x"})["resultType"] == "complete"


def test_many_calls_share_one_process_and_one_session(gateway: Gateway) -> None:
    before = gateway.descendants()
    clients = [gateway.client(era=era) for era in ("legacy", "modern") for _ in range(5)]
    for client in clients:
        assert text(client.call("everything__echo", {"message": "x"})) == "Echo: x"
    wait_for(lambda: gateway.descendants() == before, "no further process")
