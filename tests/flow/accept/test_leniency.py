"""Headers that are missing are excused where the endpoint says so; wrong ones nowhere; the reason is told once."""

from __future__ import annotations

import logging
from typing import Any, Literal

import pytest

from narthex.flow.accept.leniency import MOST_TOLD
from narthex.testing import FakeServer
from narthex.types import EndpointSpec
from tests.flow.gateway import Answer, Client, Running, run, spec

TOOLS: list[dict[str, Any]] = [{"name": "echo", "inputSchema": {"type": "object"}}]
CALL = {"name": "one__echo", "arguments": {}}
INFO = "io.modelcontextprotocol/clientInfo"


def one(server: FakeServer, headers: Literal["strict", "lenient"]) -> Running:
    return Running({"one": spec("one", server.url)}, {"default": EndpointSpec("default", ("one",), headers=headers)})


async def ask(client: Client, headers: dict[str, str | None], name: str = "t", method: str = "tools/call") -> Answer:
    return await client.modern(method, CALL, headers=headers, meta={INFO: {"name": name, "version": "1"}})


@pytest.mark.parametrize(
    ("headers", "lenient"),
    [
        pytest.param({"Mcp-Method": None}, True, id="no method"),
        pytest.param({"Mcp-Name": None}, True, id="no name"),
        pytest.param({"Mcp-Method": None, "Mcp-Name": None}, True, id="neither"),
        pytest.param({"Mcp-Method": "tools/list"}, False, id="another method"),
        pytest.param({"Mcp-Method": ""}, False, id="an empty method"),
        pytest.param({"Mcp-Method": None, "Mcp-Name": "one__other"}, False, id="no method and another name"),
        pytest.param({"Mcp-Method": "tools/list", "Mcp-Name": None}, False, id="another method and no name"),
        pytest.param({"MCP-Protocol-Version": None}, False, id="no version"),
    ],
)
def test_what_is_missing_is_excused_and_what_is_wrong_is_not(headers: dict[str, str | None], lenient: bool) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server, "strict") as strict, one(server, "lenient") as soft:
            refused = await ask(await strict.client(), headers)
            assert (refused.status, refused.error["code"]) == (400, -32020)
            answer = await ask(await soft.client(), headers)
            assert (answer.status, "result" in answer.messages[0]) == ((200, True) if lenient else (400, False))
            sent = server.requests("tools/call")
            assert [one.headers["mcp-name"] for one in sent] == ["echo"] * lenient, "and upstream they are there"

    run(main)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if one.name == "narthex.front"]


def test_the_reason_is_told_once_for_each_client(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server, "strict") as strict, one(server, "lenient") as soft:
            hard, mild = await strict.client(), await soft.client()
            for _ in range(3):
                await ask(hard, {"Mcp-Name": None}, "a")
                await ask(mild, {"Mcp-Name": None, "Mcp-Method": None}, "a\nb")
                await ask(mild, {"Mcp-Name": "sub"}, "c")
            assert told(caplog) == [
                "endpoint default, client 'a 1': refused: Mcp-Name missing; `headers: lenient` lets such pass",
                "endpoint default, client 'a\\nb 1': let pass without Mcp-Method and Mcp-Name",
                "endpoint default, client 'c 1': refused: header Mcp-Name does not match the body: "
                "got b'sub', body says 'one__echo'",
            ]
            await mild.modern("tools/list", headers={"Mcp-Method": None})
            assert told(caplog)[-1] == "endpoint default, client unnamed: let pass without Mcp-Method"

    with caplog.at_level(logging.WARNING, "narthex.front"):
        run(main)


def test_clients_that_call_themselves_always_otherwise_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server, "lenient") as gateway:
            client = await gateway.client()
            for number in range(MOST_TOLD + 5):
                assert "result" in (await ask(client, {"Mcp-Method": None}, f"{number}" + "x" * 1000)).messages[0]
            assert len(told(caplog)) == MOST_TOLD
            assert max(map(len, told(caplog))) < 200
            gateway.front.apply(gateway.front.snapshot)
            await ask(client, {"Mcp-Method": None}, "after a reload")
            assert len(told(caplog)) == MOST_TOLD + 1

    with caplog.at_level(logging.WARNING, "narthex.front"):
        run(main)


@pytest.mark.parametrize("info", [None, 7, "x", {"name": 1}, {"name": "a" * 70_000}])
def test_whatever_a_client_says_of_itself_is_served(info: Any) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server, "lenient") as gateway:
            client = await gateway.client()
            answer = await client.modern("tools/call", CALL, headers={"Mcp-Method": None}, meta={INFO: info})
            assert "result" in answer.messages[0]

    run(main)
