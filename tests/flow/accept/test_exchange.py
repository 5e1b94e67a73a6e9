"""One call under way, in every way that it can go and end, between a real client connection and a real server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from narthex.testing import FakeServer, JsonRpcError
from tests.flow.gateway import META, Running, run, spec, until
from tests.flow.upstream.test_http import CLOSE, HOLD, RESET, STREAM, Scripted, Step, answer, event, rpc

TOOLS: list[dict[str, Any]] = [{"name": "echo", "inputSchema": {"type": "object"}}]
CALL = {"name": "one__echo", "arguments": {"a": 1}}
ERAS = pytest.mark.parametrize("modern", [False, True], ids=["legacy client", "modern client"])


def over(server: FakeServer, **settings: Any) -> Running:
    return Running({"one": spec("one", server.url, **settings)})


class Mcp(Scripted):
    """A modern server that behaves until a call comes; the call it answers by the script."""

    def __init__(self, *script: Step) -> None:
        discovered = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
        listed = {"tools": TOOLS, "resultType": "complete"}
        super().__init__((answer(rpc(1, result=discovered)),), (answer(rpc(2, result=listed)),), script)

    @property
    def calls(self) -> int:
        return max(0, len(self.requests) - 2)

    def gateway(self, **settings: Any) -> Running:
        return Running({"one": spec("one", f"http://127.0.0.1:{self.port}/mcp", **settings)})


DONE = {"resultType": "complete", "content": [{"type": "text", "text": "done"}]}


# --- answers


@ERAS
def test_an_event_stream_is_relayed(modern: bool) -> None:
    async def main() -> None:
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 3, "progress": 1}}
        async with FakeServer(tools=TOOLS, stream=True, events=[note, note]) as server, over(server) as gateway:
            client = await gateway.client(session=not modern)
            ask = client.modern if modern else client.legacy
            got = await ask("tools/call", CALL, meta={"progressToken": "mine"})
            assert got.headers["content-type"] == "text/event-stream"
            assert [one.get("method") for one in got.messages] == ["notifications/progress"] * 2 + [None]
            assert {one["params"]["progressToken"] for one in got.messages[:2]} == {"mine"}
            assert json.loads(got.text) == {"a": 1}
            assert (await ask("tools/call", CALL)).text == got.text, "the connection goes on"
            await until(gateway.settled)
            assert gateway.counted("tools/call", "echo") == {"ok": 2}

    run(main)


def test_who_takes_no_stream_gets_json() -> None:
    async def main() -> None:
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 3, "progress": 1}}
        async with FakeServer(tools=TOOLS, stream=True, events=[note]) as server, over(server) as gateway:
            client = await gateway.client()
            got = await client.modern("tools/call", CALL, headers={"Accept": "application/json"})
            assert got.headers["content-type"] == "application/json"
            assert json.loads(got.text) == {"a": 1}

    run(main)


@pytest.mark.parametrize("size", [10_000, 70_000, 5_000_000])
@pytest.mark.parametrize("eras", ["legacy", "modern"])
@ERAS
def test_a_result_of_any_size_arrives_whole(size: int, eras: Any, modern: bool) -> None:
    async def main() -> None:
        result = {"content": [{"type": "text", "text": "ö" * (size // 2)}], "x": [1, 2]}
        async with FakeServer(tools=TOOLS, answers={"echo": result}, eras=eras) as server, over(server) as gateway:
            client = await gateway.client(session=not modern)
            for _ in range(2):
                got = await (client.modern if modern else client.legacy)("tools/call", CALL)
                assert got.result["content"] == result["content"]
                assert got.result["x"] == [1, 2]
            await until(gateway.settled)
            assert gateway.counted("tools/call", "echo") == {"ok": 2}

    run(main)


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        pytest.param({"content": []}, "ok", id="a result"),
        pytest.param({"content": [], "isError": False}, "ok", id="a result that says so"),
    ],
)
def test_accounted(result: dict[str, Any], outcome: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, answers={"echo": result}) as server, over(server) as gateway:
            await (await gateway.client()).modern("tools/call", CALL)
            assert gateway.counted("tools/call", "echo") == {outcome: 1}

    run(main)


def test_a_tools_own_error_is_a_result_and_counted_apart() -> None:
    async def main() -> None:
        body = b'{"jsonrpc":"2.0","id":3,"result":{"resultType":"complete","content":[],"isError":true}}'
        async with Mcp(answer(body)) as server, server.gateway() as gateway:
            got = await (await gateway.client()).modern("tools/call", CALL)
            assert got.result["isError"] is True
            assert gateway.counted("tools/call", "echo") == {"tool_error": 1}

    run(main)


def test_a_servers_json_rpc_error_passes() -> None:
    def refuse(params: dict[str, Any]) -> dict[str, Any]:
        raise JsonRpcError(-32050, "mine", data={"why": "x"})

    async def main() -> None:
        async with FakeServer(tools=TOOLS, answers={"echo": refuse}) as server, over(server) as gateway:
            got = await (await gateway.client()).modern("tools/call", CALL)
            assert got.status == 200
            assert got.error == {"code": -32050, "message": "mine", "data": {"why": "x"}}
            assert gateway.counted("tools/call", "echo") == {"rpc_error": 1}

    run(main)


# --- failures


@pytest.mark.parametrize(
    "script",
    [
        pytest.param((CLOSE,), id="closes"),
        pytest.param((RESET,), id="resets"),
        pytest.param((answer(b"nonsense"),), id="garbage"),
        pytest.param((answer(rpc(99, result=DONE)),), id="another request's answer"),
        pytest.param((answer(rpc(3)),), id="neither result nor error"),
        pytest.param((answer(rpc(3, result=[1])),), id="a result that is no object"),
        pytest.param((answer(rpc(3, error="x")),), id="an error that is no object"),
        pytest.param((answer(b"", "500 Oops"),), id="500"),
        pytest.param((STREAM + b"0\r\n\r\n",), id="an empty stream"),
        pytest.param((STREAM, CLOSE), id="a stream that breaks off"),
    ],
)
def test_a_server_that_fails_costs_its_call(script: tuple[Step, ...]) -> None:
    async def main() -> None:
        async with Mcp(*script) as server, server.gateway() as gateway:
            client = await gateway.client()
            got = await client.modern("tools/call", CALL)
            assert got.status == 200
            assert got.error["code"] == -31005
            assert got.error["data"]["sent"] is True
            assert got.error["data"]["reason"] == "upstream_unavailable"
            assert (await client.modern("server/discover")).status == 200, "the connection goes on"
            await until(gateway.settled)
            assert gateway.counted("tools/call", "echo") == {"upstream_unavailable": 1}

    run(main)


def test_a_spliced_answer_that_breaks_off_breaks_the_clients_too() -> None:
    async def main() -> None:
        body = rpc(3, result={**DONE, "x": "y" * 300_000}).replace(b": ", b":").replace(b", ", b",")
        async with Mcp(answer(body)[:-1000], CLOSE) as server, server.gateway() as gateway:
            client = await gateway.client()
            client.send("tools/call", CALL, modern=True)
            with pytest.raises(asyncio.IncompleteReadError):
                await client.read()
            await until(gateway.settled)

    run(main)


def test_a_session_that_the_server_lost_is_opened_anew_once() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="legacy") as server, over(server) as gateway:
            client = await gateway.client()
            await client.modern("tools/call", CALL)
            server.forget_sessions()
            assert json.loads((await client.modern("tools/call", CALL)).text) == {"a": 1}
            assert len(server.requests("initialize")) == 2
            assert gateway.counted("tools/call", "echo") == {"ok": 2}

    run(main)


def test_a_deadline_ends_the_call_and_the_server_is_left() -> None:
    async def main() -> None:
        async with Mcp(HOLD) as server, server.gateway(call_timeout_s=60) as gateway:
            client = await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await until(lambda: server.calls)
            gateway.pass_time(59)
            assert gateway.front.calls.active
            gateway.pass_time(3)
            got = await client.read()
            assert (got.status, got.error["code"]) == (200, -31006)
            await until(lambda: server.gone == 1)
            assert gateway.settled()
            assert gateway.counted("tools/call", "echo") == {"upstream_timeout": 1}

    run(main)


def test_a_deadline_in_a_stream_ends_it_with_an_error() -> None:
    async def main() -> None:
        async with Mcp(STREAM, HOLD) as server, server.gateway() as gateway:
            client = await gateway.client()
            client.send("tools/call", CALL, modern=True)
            status, headers = await client.read_head()
            assert (status, headers["content-type"]) == (200, "text/event-stream")
            gateway.pass_time(100)
            assert b'"code":-31006' in await client.read_chunk()
            assert await client.read_chunk() == b""
            assert gateway.settled()

    run(main)


def test_a_silent_stream_is_kept_alive() -> None:
    async def main() -> None:
        async with Mcp(STREAM, HOLD) as server, server.gateway() as gateway:
            client = await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await client.read_head()
            gateway.pass_time(16)
            assert await client.read_chunk() == b":\n\n"

    run(main)


# --- who gives up


@ERAS
def test_closing_cancels_for_a_modern_client_alone(modern: bool) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, held=asyncio.Event()) as server, over(server) as gateway:
            client = await gateway.client(session=not modern)
            client.send("tools/call", CALL, modern=modern)
            await until(lambda: server.requests("tools/call"))
            client.close()
            await until(lambda: not gateway.shared.connections)
            assert server.held is not None
            if not modern:
                assert len(gateway.front.calls.active) == 1, "it goes on without its client"
                server.held.set()
            await until(gateway.settled)
            assert gateway.counted("tools/call", "echo") == ({"cancelled": 1} if modern else {"ok": 1})

    run(main)


def test_a_legacy_client_cancels_by_saying_so() -> None:
    async def main() -> None:
        server = FakeServer(tools=TOOLS, held=asyncio.Event(), eras="legacy")
        async with server, over(server) as gateway:
            client, other = await gateway.client(session=True), await gateway.client()
            id_ = client.send("tools/call", CALL)
            await until(lambda: server.requests("tools/call"))
            await other.legacy("notifications/cancelled", {"requestId": id_}, id_=None)
            assert len(gateway.front.calls.active) == 1, "another client's request is none of its business"
            other.session = client.session
            await other.legacy("notifications/cancelled", {"requestId": id_}, id_=None)
            await until(gateway.settled)
            await until(lambda: server.requests("notifications/cancelled"))
            sent = server.requests("tools/call")[0].message
            assert sent is not None
            assert server.requests("notifications/cancelled")[0].params["requestId"] == sent["id"]
            assert gateway.counted("tools/call", "echo") == {"cancelled": 1}

    run(main)


def test_closing_before_the_server_is_even_open_leaves_nothing() -> None:
    async def main() -> None:
        async with (
            Scripted((HOLD,)) as server,
            Running({"one": spec("one", f"http://127.0.0.1:{server.port}/")}) as gateway,
        ):
            client = await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await until(lambda: gateway.front.calls.active)
            client.close()
            await until(gateway.settled)

    run(main)


# --- a reader that is too slow


def test_a_slow_reader_overflows_or_pauses_and_costs_nobody_else() -> None:
    async def main() -> None:
        note = json.dumps(
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 3, "x": "y" * 60_000}}
        ).encode()
        last = event(rpc(3, result=DONE)) + b"0\r\n\r\n"
        async with Mcp(STREAM, *[event(note)] * 400, last) as server, server.gateway() as gateway:
            client, other = await gateway.client(), await gateway.client()
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            client.send("tools/call", CALL, modern=True, meta={**META, "progressToken": 1})
            await until(lambda: any(one.paused for one in gateway.shared.connections))
            assert (await other.modern("server/discover")).status == 200
            written = max(one.transport.get_write_buffer_size() for one in gateway.shared.connections)
            assert written < 4 * 1024 * 1024, "what waits for one reader is bounded"
            client.close()
            await until(gateway.settled)

    run(main)


# --- bounds of a server


def test_a_server_takes_so_many_calls_and_no_more() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, held=asyncio.Event()) as server, over(server, max_in_flight=1) as gateway:
            first, second = await gateway.client(), await gateway.client()
            first.send("tools/call", CALL, modern=True)
            await until(lambda: server.requests("tools/call"))
            assert (await second.modern("tools/call", CALL)).error["code"] == -31009
            assert server.held is not None
            server.held.set()
            assert (await first.read()).status == 200
            assert (await second.modern("tools/call", CALL)).status == 200
            await until(gateway.settled)

    run(main)


def test_when_the_gateway_stops_calls_are_told() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, held=asyncio.Event()) as server, over(server) as gateway:
            client = await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await until(lambda: server.requests("tools/call"))
            for one in list(gateway.front.calls.active):
                one.end_stream()
            assert (await client.read()).error["code"] == -31009
            assert gateway.settled()

    run(main)
