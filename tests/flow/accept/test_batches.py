"""Batches: one answer for all messages, in their order; who may send them; bounds; nothing is left behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from narthex.flow.accept import batches
from narthex.flow.codec.batch import MOST
from narthex.testing import FakeServer
from narthex.types import Limits
from tests.flow.gateway import LEGACY, META, MODERN, Answer, Client, Running, run, spec, until

TOOLS: list[dict[str, Any]] = [
    {"name": "echo", "inputSchema": {"type": "object"}},
    {"name": "large", "inputSchema": {"type": "object"}},
]
OLD = "2025-03-26"


def one(server: FakeServer, **settings: Any) -> Running:
    return Running({"one": spec("one", server.url)}, settings=settings)


def call(id_: Any, tool: str = "echo", **arguments: Any) -> dict[str, Any]:
    params = {"name": f"one__{tool}", "arguments": arguments}
    return {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params}


def ping(id_: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "method": "ping"}


NOTE = {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}


async def send(client: Client, messages: Any, **headers: str | None) -> Answer:
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    client.http("POST", "/mcp", lines, json.dumps(messages).encode())
    return await client.read()


def ids(answer: Answer) -> list[Any]:
    return [message["id"] for message in json.loads(answer.body)]


@pytest.mark.parametrize("stream", [False, True], ids=["as JSON", "as streams"])
@pytest.mark.parametrize("eras", ["legacy", "modern"])
def test_answers_come_together_in_the_order_of_what_was_asked(eras: Any, stream: bool) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras=eras, stream=stream) as server, one(server) as gateway:
            client = await gateway.client()
            answer = await send(
                client, [call(1, a=1), NOTE, ping("p"), call(1, a=2), {**NOTE, "id": 7}, call(-3, "none")]
            )
            assert answer.status == 200
            assert answer.headers["content-type"] == "application/json"
            first, second, third, fourth, fifth = json.loads(answer.body)
            assert [m["id"] for m in (first, second, third, fourth, fifth)] == [1, "p", 1, 7, -3]
            assert [json.loads(m["result"]["content"][0]["text"]) for m in (first, third)] == [{"a": 1}, {"a": 2}]
            assert second["result"] == {}
            assert (fourth["error"]["code"], fifth["error"]["code"]) == (-32601, -32602)
            await until(gateway.settled)
            assert (await client.legacy("ping")).result == {}, "the connection goes on"

    run(main)


def test_what_is_listed_and_initialized_within_a_batch() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            client = await gateway.client()
            answer = await send(client, [{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, ping(2)])
            assert [tool["name"] for tool in json.loads(answer.body)[0]["result"]["tools"]] == [
                "one__echo",
                "one__large",
            ]
            refused = await send(client, [{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}])
            assert (refused.status, refused.error["code"]) == (400, -32600)

    run(main)


@pytest.mark.parametrize(
    ("messages", "status", "answered"),
    [
        pytest.param([NOTE, NOTE], 202, None, id="notifications get none"),
        pytest.param([1], 400, [None], id="a message that is none"),
        pytest.param([1, ping(1)], 200, [None, 1], id="one that is none beside one that is"),
        pytest.param([NOTE, 1], 400, [None], id="one that is none beside a notification"),
        pytest.param([call(1, "none")], 200, [1], id="an error of a known request"),
        pytest.param([{"jsonrpc": "1.0", "id": 4, "method": "ping"}], 400, [None], id="another JSON-RPC"),
    ],
)
def test_what_a_batch_is_answered_with(messages: Any, status: int, answered: list[Any] | None) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            answer = await send(await gateway.client(), messages)
            assert answer.status == status
            assert answer.body == b"" if answered is None else ids(answer) == answered

    run(main)


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        pytest.param([], {}, -32600, id="empty"),
        pytest.param([[ping(1)]], {}, -32600, id="one in another"),
        pytest.param([ping(n) for n in range(MOST + 1)], {}, -32600, id="too many"),
        pytest.param(
            [ping(1), {"jsonrpc": "2.0", "id": 2, "result": {}}], {}, -32600, id="a response beside a request"
        ),
        pytest.param([ping(1)], {"MCP_Protocol_Version": LEGACY}, -32600, id="of a revision without batches"),
        pytest.param([ping(1)], {"MCP_Protocol_Version": "2024-11-05"}, -32600, id="of one that had none yet"),
        pytest.param([ping(1)], {"MCP_Protocol_Version": "1999-01-01"}, -32022, id="of none that is known"),
        pytest.param([ping(1)], {"MCP_Protocol_Version": MODERN}, -32600, id="of a modern client"),
    ],
)
def test_refused_whole(body: Any, headers: dict[str, str], code: int) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            client = await gateway.client()
            answer = await send(client, body, **headers)
            assert (answer.status, answer.error["code"]) == (400, code)
            assert (await send(client, [ping(1)], MCP_Protocol_Version=OLD)).status == 200

    run(main)


def test_the_session_says_which_revision_it_is() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            client = await gateway.client()
            for asked, status in ((LEGACY, 400), (OLD, 200)):
                params = {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
                session = (await client.legacy("initialize", params)).headers["mcp-session-id"]
                for version in (None, OLD, LEGACY):
                    answer = await send(client, [ping(1)], Mcp_Session_Id=session, MCP_Protocol_Version=version)
                    assert answer.status == status
            assert (await send(client, [ping(1)], Mcp_Session_Id="none")).status == 404

    run(main)


def test_a_modern_message_in_a_batch_has_not_got_its_headers() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
            answer = await send(await gateway.client(), [message])
            assert (answer.status, json.loads(answer.body)[0]["error"]["code"]) == (400, -32020)

    run(main)


def test_an_answer_that_is_too_large_is_replaced_and_the_others_come(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        text = "x" * 300_000  # large enough to come piece by piece
        answers: Any = {"large": {"content": [{"type": "text", "text": text}]}}
        monkeypatch.setattr(batches, "MOST_ANSWERS", 400_000)
        async with FakeServer(tools=TOOLS, answers=answers) as server, one(server) as gateway:
            client = await gateway.client()
            answer = await send(client, [call(1, "large"), call(2), call(3, "large"), call(4)])
            found = {message["id"]: message for message in json.loads(answer.body)}
            assert list(found) == [1, 2, 3, 4]
            lost, whole = sorted((found[1], found[3]), key=lambda message: "result" in message)
            assert lost["error"]["code"] == -31007
            assert whole["result"]["content"][0]["text"] == text
            assert "result" in found[2] and "result" in found[4]
            await until(gateway.settled)

    run(main)


def test_who_goes_before_the_answers_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            await (await gateway.client()).legacy("tools/list")
            server.held = asyncio.Event()
            client = await gateway.client()
            client.http("POST", "/mcp", {}, json.dumps([ping(1), call(2), call(3)]).encode())
            await until(lambda: len(server.requests("tools/call")) == 2)
            client.close()
            await until(lambda: len(gateway.shared.connections) == 1)
            server.held.set()
            await until(gateway.settled)
            assert gateway.counted("tools/call", "echo") == {"ok": 2}, "going is no cancellation"

    run(main)


def test_a_call_of_a_batch_can_be_cancelled_and_then_has_no_answer() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server) as gateway:
            client, other = await gateway.client(), await gateway.client()
            params = {"protocolVersion": OLD, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            session = (await client.legacy("initialize", params)).headers["mcp-session-id"]
            await client.legacy("tools/list")
            server.held = asyncio.Event()
            lines = {"Mcp-Session-Id": session}
            client.http("POST", "/mcp", lines, json.dumps([call(1), call(2)]).encode())
            await until(lambda: len(server.requests("tools/call")) == 2)
            note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
            assert (await send(other, [note], **lines)).status == 202
            server.held.set()
            assert ids(await client.read()) == [2]
            await until(gateway.settled)

    run(main)


def test_every_message_of_a_batch_counts_in_the_bound_on_requests() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, one(server, limits=Limits(principal_rate=3)) as gateway:
            client = await gateway.client()
            got = json.loads((await send(client, [ping(n) for n in range(5)])).body)
            reasons = [message.get("error", {}).get("data", {}).get("reason") for message in got]
            assert reasons == [None, None, None, "rate_limited", "rate_limited"]

    run(main)
