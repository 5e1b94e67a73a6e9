"""The helpers keep their own promises: a fake that answers wrongly makes other tests lie."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from narthex.testing import FakeClock, FakeServer, JsonRpcError

TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}, {"name": "b", "inputSchema": {}}]
MODERN = {"MCP-Protocol-Version": "2026-07-28"}


def post(server: FakeServer, method: str, params: Any, headers: dict[str, str]) -> tuple[int, Any, Any]:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(server.url, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_it_runs_in_a_thread_and_keeps_what_was_asked() -> None:
    with FakeServer(tools=TOOLS) as server:
        _, _, body = post(server, "tools/call", {"name": "echo", "arguments": {"a": 1}}, MODERN)
    assert json.loads(body)["result"]["content"] == [{"type": "text", "text": '{"a": 1}'}]
    (asked,) = server.requests("tools/call")
    assert asked.params["name"] == "echo"
    assert asked.headers["mcp-protocol-version"] == "2026-07-28"


def test_it_runs_in_a_loop() -> None:
    async def main() -> int:
        async with FakeServer(tools=TOOLS) as server:
            return (await asyncio.to_thread(post, server, "tools/list", {}, MODERN))[0]

    assert asyncio.run(main()) == 200


def test_lists_have_pages() -> None:
    with FakeServer(tools=TOOLS, page=1) as server:
        first = json.loads(post(server, "tools/list", {}, MODERN)[2])["result"]
        second = json.loads(post(server, "tools/list", {"cursor": first["nextCursor"]}, MODERN)[2])["result"]
    assert [first["tools"], second["tools"]] == [TOOLS[:1], TOOLS[1:]]
    assert "nextCursor" not in second


def test_a_legacy_session_can_be_lost() -> None:
    with FakeServer(tools=TOOLS, eras="legacy") as server:
        _, headers, _ = post(server, "initialize", {}, {})
        session = {"Mcp-Session-Id": headers["Mcp-Session-Id"]}
        assert post(server, "tools/list", {}, session)[0] == 200
        assert post(server, "tools/list", {}, {})[0] == 400
        server.forget_sessions()
        assert post(server, "tools/list", {}, session)[0] == 404


@pytest.mark.parametrize(("eras", "headers", "status"), [("modern", {}, 400), ("legacy", MODERN, 400)])
def test_another_era_is_refused(eras: Any, headers: dict[str, str], status: int) -> None:
    with FakeServer(tools=TOOLS, eras=eras) as server:
        assert post(server, "tools/list", {}, headers)[0] == status


def test_answers_are_values_functions_or_errors() -> None:
    def refuse(params: dict[str, Any]) -> dict[str, Any]:
        raise JsonRpcError(-32602, "no", data={"why": params["name"]})

    answers: Any = {"value": {"content": []}, "refuse": refuse}
    with FakeServer(answers=answers, stream=True, events=[{"jsonrpc": "2.0", "method": "notifications/x"}]) as server:
        stream = post(server, "tools/call", {"name": "value"}, MODERN)[2]
        refused = post(server, "tools/call", {"name": "refuse"}, MODERN)[2]
    assert stream.count(b"data: ") == 2
    assert json.loads(refused.partition(b"\n\n")[2].partition(b"data: ")[2])["error"] == {
        "code": -32602,
        "message": "no",
        "data": {"why": "refuse"},
    }


def test_the_clock_passes_when_told_to() -> None:
    clock = FakeClock(10.0, epoch=1000.0)
    assert (clock(), clock.wall()) == (10.0, 1000.0)
    assert clock.advance(5.0) == clock() == 15.0
    clock.set_wall(500.0)
    assert (clock(), clock.wall()) == (15.0, 500.0)
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1.0)
