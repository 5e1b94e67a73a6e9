"""Arguments repeated in headers, through the whole gateway: checked on the way in, made anew on the way out."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from narthex.testing import FakeServer
from narthex.testing.server import Asked, JsonRpcError
from tests.flow.accept.asking import Asker, arguments_of, ask_modern, nothing_left, over, retry_of
from tests.flow.gateway import Client, Running, run, spec, until

REGION = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
TOOLS: list[dict[str, Any]] = [
    {"name": "spoken", "inputSchema": REGION},
    {"name": "plain", "inputSchema": {"type": "object"}},
]


def one(server: FakeServer) -> Running:
    return Running({"one": spec("one", server.url)})


def call(tool: str = "spoken", **arguments: Any) -> dict[str, Any]:
    return {"name": f"one__{tool}", "arguments": arguments}


def params_of(asked: Asked) -> dict[str, str]:
    return {name: value for name, value in asked.headers.items() if name.startswith("mcp-param-")}


async def listed(client: Client) -> None:
    """A tool is called by who has seen it; without that, its first call finds it. Both are tried."""
    await client.modern("tools/list")


@pytest.mark.parametrize("known", [True, False], ids=["listed before", "found by the call"])
@pytest.mark.parametrize(
    ("headers", "arguments", "accepted"),
    [
        pytest.param({"Mcp-Param-Region": "eu"}, {"region": "eu"}, True, id="agree"),
        pytest.param({"mcp-param-REGION": " eu "}, {"region": "eu"}, True, id="names in any case, spaces around"),
        pytest.param({"Mcp-Param-Region": "=?base64?w7Y=?="}, {"region": "ö"}, True, id="encoded"),
        pytest.param({}, {}, True, id="nothing to say"),
        pytest.param({}, {"region": "eu"}, False, id="missing"),
        pytest.param({"Mcp-Param-Region": "us"}, {"region": "eu"}, False, id="another value"),
        pytest.param({"Mcp-Param-Region": "eu"}, {}, False, id="a value for nothing"),
        pytest.param({"Mcp-Param-Region": "eu", "mcp-param-region": "eu"}, {"region": "eu"}, False, id="twice"),
    ],
)
def test_a_modern_clients_headers_are_checked_before_anything_is_sent(
    headers: dict[str, str | None], arguments: dict[str, Any], accepted: bool, known: bool
) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            client = await gateway.client()
            if known:
                await listed(client)
            answer = await client.modern("tools/call", call(**arguments), headers=headers)
            if accepted:
                assert (answer.status, "result" in answer.messages[0]) == (200, True)
            else:
                assert (answer.status, answer.error["code"]) == (400, -32020)
            assert len(server.requests("tools/call")) == accepted
            assert gateway.settled()

    run(main)


@pytest.mark.parametrize("eras", ["legacy", "modern"])
@pytest.mark.parametrize("client_era", ["legacy", "modern"])
def test_only_a_modern_server_gets_them_whoever_calls(client_era: str, eras: Any) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras=eras) as server, one(server) as gateway:
            client = await gateway.client(session=client_era == "legacy")
            ask = client.legacy if client_era == "legacy" else client.modern
            answer = await ask(
                "tools/call", call(region="größe"), headers={"Mcp-Param-Region": "=?base64?Z3LDtsOfZQ==?="}
            )
            assert answer.status == 200
            (asked,) = server.requests("tools/call")
            assert params_of(asked) == ({"mcp-param-region": "=?base64?Z3LDtsOfZQ==?="} if eras == "modern" else {})

    run(main)


@pytest.mark.parametrize("tool", ["spoken", "plain"])
@pytest.mark.parametrize("eras", ["legacy", "modern"])
def test_headers_that_nobody_knows_are_forwarded_to_a_modern_server(eras: Any, tool: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras=eras) as server, one(server) as gateway:
            client = await gateway.client()
            await listed(client)
            answer = await client.modern("tools/call", call(tool), headers={"Mcp-Param-New": "a b", "X-Param": "no"})
            assert answer.status == 200
            (asked,) = server.requests("tools/call")
            assert params_of(asked) == ({"mcp-param-new": "a b"} if eras == "modern" else {})
            assert "x-param" not in asked.headers
            await client.modern("tools/call", call(tool))
            assert params_of(server.requests("tools/call")[1]) == {}, "with that request alone"

    run(main)


def test_a_header_that_nobody_knows_is_not_forwarded_in_part() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="modern") as server, one(server) as gateway:
            client = await gateway.client()
            for headers in ({"Mcp-Param-New": "ö"}, {"Mcp-Param-New": "1", "mcp-param-new": "2"}):
                answer = await client.modern("tools/call", call("plain"), headers=headers)
                assert (answer.status, answer.error["code"]) == (400, -32020)
            assert not server.requests("tools/call")

    run(main)


def test_a_legacy_clients_argument_that_no_header_can_say_is_refused() -> None:
    async def main() -> None:
        count = {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}}
        async with FakeServer(tools=[{"name": "count", "inputSchema": count}]) as server, one(server) as gateway:
            client = await gateway.client(session=True)
            answer = await client.legacy("tools/call", call("count", n=2**53))
            assert (answer.status, answer.error["code"]) == (200, -32602)
            await client.legacy("tools/call", call("count", n=2**53 - 1))
            assert [params_of(asked) for asked in server.requests("tools/call")] == [{"mcp-param-n": str(2**53 - 1)}]

    run(main)


def test_a_tool_with_an_annotation_that_cannot_be_sent_is_not_there_and_the_log_says_why_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        bad = {
            "name": "bad",
            "inputSchema": {"type": "object", "properties": {"a": {"type": "number", "x-mcp-header": "A"}}},
        }
        async with FakeServer(tools=[*TOOLS, bad]) as server, one(server) as gateway:
            for _ in range(2):
                client = await gateway.client()
                tools = (await client.modern("tools/list")).result["tools"]
                assert [tool["name"] for tool in tools] == ["one__spoken", "one__plain"]
                assert (await client.modern("tools/call", call("bad", a=1))).error["code"] == -32602
                gateway.pass_time(120)
            lines = [one.message for one in caplog.records if "x-mcp-header" in one.message]
            assert len(lines) == 1
            assert "tool bad of server one" in lines[0]

    with caplog.at_level(logging.WARNING, "narthex.upstream"):
        run(main)


@pytest.mark.parametrize("eras", ["legacy", "modern"])
def test_a_retry_of_a_call_that_asked_says_them_again(eras: Any) -> None:
    async def main() -> None:
        async with Asker(tools=[{"name": "ask", "inputSchema": REGION}], eras=eras) as server, over(server) as gateway:
            client = await gateway.client()
            params = arguments_of(rounds=[["form"]], region="eu")
            right = {"Mcp-Param-Region": "eu"}
            asked = await ask_modern(client, params, headers=right)
            retry = retry_of(params, asked)
            for wrong in ({}, {"Mcp-Param-Region": "us"}):
                refused = await ask_modern(client, retry, headers=wrong)
                assert (refused.status, refused.error["code"]) == (400, -32020)
            done = await ask_modern(client, retry, headers=right)
            assert done.result["resultType"] == "complete", "what was refused has cost nothing"
            await until(lambda: nothing_left(gateway))

    run(main)


# --- errors of a server, by the era of who gets them


@pytest.mark.parametrize(
    ("code", "status", "modern", "legacy"),
    [
        pytest.param(-32020, 400, (400, -32020), -32603, id="headers"),
        pytest.param(-32021, 400, (400, -32021), -32600, id="capability"),
        pytest.param(-32022, 400, (400, -32022), -32603, id="version"),
        pytest.param(-32601, 404, (404, -32601), -32601, id="method"),
        pytest.param(-32021, 200, (400, -32021), -32600, id="capability, said with 200"),
        pytest.param(-32602, 200, (200, -32602), -32602, id="another one"),
        pytest.param(-32602, 400, (200, -32602), -32602, id="another one, said with 400"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "a stream"])
def test_a_modern_servers_error(code: int, status: int, modern: tuple[int, int], legacy: int, stream: bool) -> None:
    def fail(params: Any) -> Any:
        raise JsonRpcError(code, "no", status=status, data={"requiredCapabilities": {"roots": {}}})

    async def main() -> None:
        fake = FakeServer(tools=TOOLS, answers={"plain": fail}, eras="modern", stream=stream)
        async with fake as server, one(server) as gateway:
            client = await gateway.client()
            answer = await client.modern("tools/call", call("plain"))
            assert (answer.status, answer.error["code"]) == modern
            assert answer.error["data"] == {"requiredCapabilities": {"roots": {}}}
            client = await gateway.client(session=True)
            answer = await client.legacy("tools/call", call("plain"))
            assert (answer.status, answer.error["code"], answer.error["message"]) == (200, legacy, "no")
            await until(gateway.settled)

    run(main)


def test_a_legacy_servers_codes_do_not_pass_for_those_of_the_specification() -> None:
    def fail(params: Any) -> Any:
        raise JsonRpcError(-32021, "mine")

    async def main() -> None:
        async with FakeServer(tools=TOOLS, answers={"plain": fail}, eras="legacy") as server, one(server) as gateway:
            answer = await (await gateway.client()).modern("tools/call", call("plain"))
            assert (answer.status, answer.error) == (200, {"code": -32603, "message": "mine"})
            answer = await (await gateway.client(session=True)).legacy("tools/call", call("plain"))
            assert answer.error["code"] == -32021

    run(main)


def test_a_server_that_wants_other_headers_than_it_listed_is_asked_for_its_list_again() -> None:
    async def main() -> None:
        def strict(params: Any) -> Any:
            asked = server.requests("tools/call")[-1]
            if params["arguments"].get("region") and "mcp-param-region" not in asked.headers:
                raise JsonRpcError(-32020, "Mcp-Param-Region is missing", status=400)
            return {"content": []}

        old = {"name": "spoken", "inputSchema": {"type": "object"}}
        async with FakeServer(tools=[old], answers={"spoken": strict}, eras="modern") as server, one(server) as gateway:
            client = await gateway.client()
            assert "result" in (await client.modern("tools/call", call())).messages[0]
            server.tools = TOOLS
            refused = await client.modern("tools/call", call(region="eu"))
            assert (refused.status, refused.error["code"]) == (400, -32020)
            tools = (await client.modern("tools/list")).result["tools"]
            assert "x-mcp-header" in str(tools), "as the specification tells clients to"
            answer = await client.modern("tools/call", call(region="eu"), headers={"Mcp-Param-Region": "eu"})
            assert "result" in answer.messages[0]

    run(main)


# --- which era, which revision


def test_initialize_is_gone_from_the_modern_era_and_stays_in_the_old_one() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            client = await gateway.client()
            params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            answer = await client.modern("initialize", params)
            assert (answer.status, answer.error["code"]) == (404, -32601)
            assert "mcp-session-id" not in answer.headers
            answer = await client.legacy("initialize", params, headers={"MCP-Protocol-Version": "2026-07-28"})
            assert (answer.status, answer.result["protocolVersion"]) == (200, "2025-11-25")

    run(main)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        pytest.param("2025-06-18", 200, id="the one agreed on"),
        pytest.param("2025-11-25", 200, id="another one that is known"),
        pytest.param(None, 200, id="none: the session knows"),
        pytest.param("2025-06-18 ", 200, id="spaces do not count"),
        pytest.param("1999-01-01", 400, id="one that nobody knows"),
        pytest.param("", 400, id="empty"),
    ],
)
def test_the_version_header_of_a_session(said: str | None, status: int) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            client = await gateway.client()
            params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            session = (await client.legacy("initialize", params)).headers["mcp-session-id"]
            headers = {"Mcp-Session-Id": session, "MCP-Protocol-Version": said}
            assert (await client.legacy("ping", headers=headers)).status == status
            client.http("DELETE", "/mcp", headers)
            assert (await client.read()).status == (204 if status == 200 else status)

    run(main)
