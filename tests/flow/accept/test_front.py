"""The public side in front of a real server: which request gets what, in which form."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from narthex.flow.accept.front import takes
from narthex.testing import FakeServer
from narthex.types import EndpointSpec, Limits
from tests.flow.gateway import LEGACY, META, MODERN, Running, run, spec, until

TOOLS: list[dict[str, Any]] = [
    {"name": "echo", "description": "é", "inputSchema": {"type": "object"}, "x-unknown": [1, {"a": None}]},
    {"name": "wait", "inputSchema": {"type": "object"}},
]
CALL = {"name": "one__echo", "arguments": {"a": 1}}


def one(server: FakeServer, **settings: Any) -> Running:
    return Running({"one": spec("one", server.url)}, settings=settings)


# --- both eras


@pytest.mark.parametrize("eras", ["legacy", "modern", "dual"])
@pytest.mark.parametrize("client_era", ["legacy", "modern"])
def test_every_client_reaches_every_server(eras: Any, client_era: str) -> None:
    async def main() -> None:
        resources = [{"uri": "file:///a", "name": "a"}]
        answers: Any = {
            "file:///a": {"contents": [{"uri": "file:///a", "text": "A"}]},
            "greet": {"messages": []},
        }
        async with (
            FakeServer(
                tools=TOOLS, prompts=[{"name": "greet"}], resources=resources, answers=answers, eras=eras
            ) as server,
            one(server) as gateway,
        ):
            client = await gateway.client(session=client_era == "legacy")
            ask = client.legacy if client_era == "legacy" else client.modern
            listed = (await ask("tools/list")).result
            assert [tool["name"] for tool in listed["tools"]] == ["one__echo", "one__wait"]
            assert listed["tools"][0]["x-unknown"] == [1, {"a": None}], "unknown keys pass"
            called = await ask("tools/call", CALL)
            assert json.loads(called.text) == {"a": 1}
            got = (await ask("prompts/get", {"name": "one__greet"})).result
            assert got["messages"] == []
            read = (await ask("resources/read", {"uri": "file:///a"})).result
            assert read["contents"][0]["text"] == "A"
            for result in (called.result, got, read):
                assert ("resultType" in result) == (client_era == "modern" or eras != "legacy")
            assert server.requests("tools/call")[0].params["name"] == "echo"
            assert gateway.counted("tools/call", "echo") == {"ok": 1}
            assert gateway.settled()

    run(main)


@pytest.mark.parametrize(("asked", "given"), [(LEGACY, LEGACY), ("2024-11-05", "2024-11-05"), ("1999-01-01", LEGACY)])
def test_initialize_agrees_on_a_version(asked: str, given: str) -> None:
    async def main() -> None:
        async with FakeServer() as server, one(server) as gateway:
            client = await gateway.client()
            answer = await client.legacy("initialize", {"protocolVersion": asked, "capabilities": {}})
            assert answer.result["protocolVersion"] == given
            assert len(answer.headers["mcp-session-id"]) <= 512
            assert (await client.legacy("ping")).result == {}

    run(main)


# --- sessions


def test_a_session_that_was_ended_is_gone() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            client = await gateway.client(session=True)
            client.http("DELETE", "/mcp", {"Mcp-Session-Id": client.session})
            assert (await client.read()).status == 204
            answer = await client.legacy("tools/list")
            assert answer.status == 404
            assert answer.error["data"]["reason"] == "session_not_found"
            client.http("DELETE", "/mcp", {"Mcp-Session-Id": client.session})
            assert (await client.read()).status == 404

    run(main)


@pytest.mark.parametrize("handle", ["forged", "x" * 600, ""])
def test_a_forged_session_is_not_found(handle: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            client = await gateway.client()
            assert (await client.legacy("tools/list", headers={"Mcp-Session-Id": handle})).status == 404

    run(main)


def test_a_session_of_another_endpoint_is_not_found() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server:
            endpoints = {name: EndpointSpec(name, ("one",)) for name in ("default", "other")}
            async with Running({"one": spec("one", server.url)}, endpoints) as gateway:
                client = await gateway.client(session=True)
                assert (await client.legacy("tools/list", path="/mcp/other")).status == 404
                assert (await client.legacy("tools/list", path="/mcp/default")).status == 200

    run(main)


def test_ending_a_session_ends_its_calls() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, held=asyncio.Event()) as server, one(server) as gateway:
            client, other = await gateway.client(session=True), await gateway.client()
            client.send("tools/call", CALL)
            await until(lambda: server.requests("tools/call"))
            other.http("DELETE", "/mcp", {"Mcp-Session-Id": client.session})
            assert (await other.read()).status == 204
            await until(gateway.settled)
            assert gateway.counted("tools/call", "echo") == {"cancelled": 1}

    run(main)


# --- lists


def test_a_list_names_the_server_that_is_missing() -> None:
    async def main() -> None:
        async with FakeServer() as gone:
            dead = spec("dead", gone.url)
        async with (
            FakeServer(tools=TOOLS) as server,
            Running({"one": spec("one", server.url), "dead": dead}) as gateway,
        ):
            result = (await (await gateway.client()).modern("tools/list")).result
            assert [tool["name"] for tool in result["tools"]] == ["one__echo", "one__wait"]
            assert [lost["server"] for lost in result["_meta"]["narthex/missing"]] == ["dead"]
            assert result["ttlMs"] == 0

    run(main)


def test_a_list_is_fetched_once_while_it_is_fresh() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="legacy") as server, one(server) as gateway:
            client = await gateway.client()
            for _ in range(5):
                await client.modern("tools/list")
            assert len(server.requests("tools/list")) == 1
            gateway.pass_time(61)
            server.tools = TOOLS[:1]
            assert len((await client.modern("tools/list")).result["tools"]) == 1

    run(main)


def test_who_goes_while_a_list_is_made_harms_nobody() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            first, second = await gateway.client(), await gateway.client()
            first.send("tools/list", modern=True)
            await until(lambda: gateway.shared.connections and server.asked)
            first.close()
            assert len((await second.modern("tools/list")).result["tools"]) == 2

    run(main)


# --- refusals, one row a rule

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
DEEP = PING[:-1] + b',"params":{"a":' + b"[" * 100_000
OLD = {"MCP-Protocol-Version": "1999-01-01"}
NEW = {"MCP-Protocol-Version": "2025-06-18"}


@pytest.mark.parametrize(
    ("verb", "path", "headers", "body", "status", "reason"),
    [
        pytest.param("GET", "/mcp", {}, b"", 405, "method_not_allowed", id="GET has no stream"),
        pytest.param("PUT", "/mcp", {}, b"", 405, "method_not_allowed", id="PUT"),
        pytest.param("DELETE", "/mcp", {}, b"", 405, "method_not_allowed", id="DELETE without a session"),
        pytest.param("POST", "/mcp", {"Content-Type": "text/plain"}, PING, 415, "unsupported_media_type", id="text"),
        pytest.param("POST", "/mcp", {"Content-Type": None}, PING, 415, "unsupported_media_type", id="no type"),
        pytest.param("POST", "/mcp", {"Accept": "text/html"}, PING, 406, "not_acceptable", id="takes no JSON"),
        pytest.param("POST", "/mcp", {"Host": "evil.example"}, PING, 403, "host_not_allowed", id="a foreign host"),
        pytest.param("POST", "/mcp", {"Host": None}, PING, 400, "host_missing", id="no host"),
        pytest.param("POST", "/mcp", {"Origin": "https://evil.example"}, PING, 403, "origin_not_allowed", id="origin"),
        pytest.param("POST", "/mcp", {}, b"", 400, "parse_error", id="no body"),
        pytest.param("POST", "/mcp", {}, b"{", 400, "parse_error", id="no JSON"),
        pytest.param("POST", "/mcp", {}, DEEP, 400, "parse_error", id="nested deeply"),
        pytest.param("POST", "/mcp", NEW, b"[" + PING + b"]", 400, "invalid_request", id="a batch"),
        pytest.param("POST", "/mcp", {}, PING.replace(b"1,", b"1.5,"), 400, "invalid_request", id="a broken id"),
        pytest.param("POST", "/mcp", {}, PING.replace(b"1,", b"1,\"id\":2,"), 400, "parse_error", id="a key twice"),
        pytest.param("POST", "/mcp", OLD, PING, 400, "unsupported_version", id="version"),
        pytest.param("POST", "/mcp", {"MCP-Protocol-Version": MODERN}, PING, 400, "invalid_params", id="no meta"),
    ],
)  # fmt: skip
def test_refused(verb: str, path: str, headers: dict[str, str | None], body: bytes, status: int, reason: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            client = await gateway.client()
            client.http(verb, path, headers, body)
            answer = await client.read()
            assert answer.status == status
            assert answer.error["data"]["reason"] == reason
            assert (await client.legacy("ping")).result == {}, "the connection goes on"
            assert not server.asked

    run(main)


@pytest.mark.parametrize("path", ["/mcp/none", "/mcp/default/x", "/mcpx", "//mcp", "/MCP"])
def test_no_such_endpoint(path: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            client = await gateway.client()
            client.http("POST", path, {}, PING)
            assert (await client.read()).status == 404
            client.http("GET", "/healthz", {})
            assert (await client.read()).body == b"ok\n"

    run(main)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        pytest.param({"headers": {"Mcp-Method": "tools/list"}}, -32020, id="another method"),
        pytest.param({"headers": {"Mcp-Method": None}}, -32020, id="no method"),
        pytest.param({"headers": {"Mcp-Name": "one__wait"}}, -32020, id="another name"),
        pytest.param({"headers": {"Mcp-Name": None}}, -32020, id="no name"),
        pytest.param({"headers": {"MCP-Protocol-Version": None}}, -32020, id="no version"),
        pytest.param({"headers": {"MCP-Protocol-Version": LEGACY}, "meta": META}, None, id="a legacy header rules"),
    ],
)
def test_routing_headers_agree_with_the_body(options: dict[str, Any], code: int | None) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            answer = await (await gateway.client()).modern("tools/call", CALL, **options)
            if code is None:
                assert answer.status == 200
                return
            assert (answer.status, answer.error["code"]) == (400, code)
            assert not server.requests("tools/call")

    run(main)


@pytest.mark.parametrize(("modern", "status"), [(True, 404), (False, 200)], ids=["modern", "legacy"])
def test_an_unknown_method(modern: bool, status: int) -> None:
    async def main() -> None:
        async with FakeServer() as server, one(server) as gateway:
            client = await gateway.client()
            answer = await (client.modern if modern else client.legacy)("nobody/knows")
            assert (answer.status, answer.error["code"]) == (status, -32601)

    run(main)


@pytest.mark.parametrize("name", ["one__none", "none__echo", "echo", "", "one__", "x" * 5000, "größe"])
def test_a_name_that_is_not_there_is_not_found(name: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            answer = await (await gateway.client(session=True)).legacy("tools/call", {"name": name})
            assert (answer.status, answer.error["code"]) == (200, -32602)
            assert answer.error["data"]["decisionId"]
            assert not server.requests("tools/call")

    run(main)


def test_a_cursor_is_none_of_ours() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            answer = await (await gateway.client()).modern("tools/list", {"cursor": "x"})
            assert answer.error["code"] == -32602

    run(main)


@pytest.mark.parametrize("id_", [7, "seven", 'ünï"', 2**53, ""])
def test_the_clients_id_comes_back_as_it_was(id_: Any) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            client = await gateway.client(session=True)
            for method, params in (
                ("ping", {}),
                ("tools/call", CALL),
                ("tools/list", {}),
                ("tools/call", {"name": "x"}),
            ):
                assert (await client.legacy(method, params, id_=id_)).messages[0]["id"] == id_

    run(main)


def test_a_notification_gets_202() -> None:
    async def main() -> None:
        async with FakeServer() as server, one(server) as gateway:
            client = await gateway.client(session=True)
            answer = await client.legacy("notifications/initialized", id_=None)
            assert (answer.status, answer.body) == (202, b"")

    run(main)


def test_more_calls_than_allowed_are_refused_at_once() -> None:
    async def main() -> None:
        limits = Limits(max_calls=1)
        async with FakeServer(tools=TOOLS, held=asyncio.Event()) as server, one(server, limits=limits) as gateway:
            first, second = await gateway.client(), await gateway.client()
            first.send("tools/call", CALL, modern=True)
            await until(lambda: server.requests("tools/call"))
            answer = await second.modern("tools/call", CALL)
            assert (answer.status, answer.error["code"]) == (200, -31009)
            assert answer.error["data"]["retryAfterSeconds"] == 1
            assert server.held is not None
            server.held.set()
            assert (await first.read()).status == 200
            assert (await second.modern("tools/call", CALL)).status == 200

    run(main)


def test_a_reload_takes_effect_for_the_next_request() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            client = await gateway.client()
            assert len((await client.modern("tools/list")).result["tools"]) == 2
            before = gateway.front.snapshot
            fewer = {"default": EndpointSpec("default", ())}
            after = msgspec.structs.replace(before, servers={}, endpoints=fewer)
            gateway.fleet.apply(after)
            gateway.front.apply(after)
            assert (await client.modern("tools/list")).result["tools"] == []
            assert (await client.modern("tools/call", CALL)).error["code"] == -32602

    run(main)


@pytest.mark.parametrize(
    ("accept", "taken"),
    [
        pytest.param(None, (True, True), id="nothing said"),
        pytest.param(b"application/json, text/event-stream", (True, True), id="both"),
        pytest.param(b"text/event-stream;q=0.5,APPLICATION/JSON", (True, True), id="any order, parameters, case"),
        pytest.param(b"application/json", (True, False), id="JSON alone"),
        pytest.param(b"*/*", (True, True), id="anything"),
        pytest.param(b"application/*", (True, False), id="any application"),
        pytest.param(b"text/html", (False, False), id="neither"),
        pytest.param(b"", (False, False), id="empty"),
    ],
)
def test_what_a_client_takes(accept: bytes | None, taken: tuple[bool, bool]) -> None:
    assert takes(accept) == taken
