"""What a hostile client does with its connection: nobody else, and not our memory, may feel it."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import uvloop

from tests.flow.gateway import Running, run, spec, until
from tests.security.upstream import TOOLS, Upstream, accept, encoded, reply


async def serve(up: Upstream, writer: asyncio.StreamWriter, body: Any) -> None:
    if body.get("method") == "tools/list":
        reply(writer, body, TOOLS)
    elif "id" not in body:
        accept(writer)
    elif body["params"]["arguments"].get("big"):
        data = encoded(body, {"content": [{"type": "text", "text": "x" * (12 << 20)}]})
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
    elif not body["params"]["arguments"].get("hang"):
        reply(writer, body, {"content": []})


def test_a_request_without_a_body_does_not_get_the_one_before_it() -> None:
    async def main() -> None:
        async with Running({}) as gateway:
            client = await gateway.client()
            assert (await client.legacy("ping")).status == 200
            client.http("POST", "/mcp")
            assert (await client.read()).status == 400

    run(main)


def test_who_sends_and_never_reads_does_not_fill_the_memory() -> None:
    tools = {"tools": [{**TOOLS["tools"][0], "name": f"t{n}", "description": "d" * 1000} for n in range(1000)]}

    async def answer(up: Upstream, writer: asyncio.StreamWriter, body: Any) -> None:
        reply(writer, body, tools)

    async def main() -> None:
        async with Upstream(answer) as up, Running({"one": spec("one", up.url)}) as gateway:
            client = await gateway.client(session=True)
            size = len((await client.legacy("tools/list")).body)
            (connection,) = gateway.shared.connections
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(100):
                client.send("tools/list")
            await until(lambda: connection.paused)
            other = await gateway.client(session=True)
            for _ in range(50):  # the loop goes round: whatever would be answered is
                await other.legacy("ping")
            assert connection.transport.get_write_buffer_size() < 5 * size
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            for _ in range(100):
                assert len((await client.read()).body) in range(size, size + 9)

    run(main)


def test_a_body_in_tiny_chunks_costs_no_more_than_its_size() -> None:
    chunks = 100_000

    async def main() -> None:
        async with Running({}) as gateway:
            client = await gateway.client()
            client.http("POST", "/mcp", {"Content-Length": None, "Transfer-Encoding": "chunked"})
            tracemalloc.start()
            for _ in range(50):
                client.writer.write(b"2\r\nab\r\n" * (chunks // 50))
                await client.writer.drain()
            await until(lambda: gateway.held.used >= 2 * chunks)
            assert tracemalloc.get_traced_memory()[0] < 8 * chunks
            tracemalloc.stop()

    run(main)


def test_a_slow_reader_does_not_stop_an_upstream_connection_for_the_next_caller() -> None:
    async def main() -> None:
        async with Upstream(serve) as up, Running({"one": spec("one", up.url)}) as gateway:
            slow, next_one = await gateway.client(session=True), await gateway.client(session=True)
            await next_one.legacy("tools/call", {"name": "one__t", "arguments": {}})
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            slow.send("tools/call", {"name": "one__t", "arguments": {"big": True}})
            await until(lambda: up.asked("tools/call") == 2 and gateway.settled())
            async with asyncio.timeout(60):
                answer = await next_one.legacy("tools/call", {"name": "one__t", "arguments": {}})
            assert answer.result == {"content": []}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as served: its writes pause at once
        runner.run(main())


def test_a_cancelled_call_ends_cleanly_for_the_client() -> None:
    async def main() -> None:
        async with Upstream(serve) as up, Running({"one": spec("one", up.url)}) as gateway:
            client, other = await gateway.client(session=True), await gateway.client()
            other.session = client.session
            id_ = client.send("tools/call", {"name": "one__t", "arguments": {"hang": True}})
            await until(lambda: up.asked("tools/call"))
            other.send("notifications/cancelled", {"requestId": id_}, id_=None)
            assert (await other.read()).status == 202
            assert (await client.read()).status == 200
            assert (await client.legacy("ping")).status == 200
            await until(gateway.settled)

    run(main)
