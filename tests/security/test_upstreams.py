"""What a hostile or sick upstream does: it costs its own tools only, and never our connections or our memory."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from narthex.flow.codec import headers
from narthex.flow.codec.jsonrpc import Raw, decode_request
from narthex.flow.codec.subscriptions import Wanted
from narthex.flow.route.index import Items, merge
from narthex.flow.route.resources import find_resource
from narthex.flow.upstream.breaker import IN_A_ROW
from narthex.types import EndpointSpec
from tests.flow.gateway import Running, run, snapshot, spec, until
from tests.security.upstream import TOOLS, Upstream, accept, encoded, reply


def test_a_list_that_was_never_answered_is_asked_for_again() -> None:
    async def answer(up: Upstream, writer: asyncio.StreamWriter, body: Any) -> None:
        if up.asked("tools/list") > 1:
            reply(writer, body, TOOLS)

    async def main() -> None:
        async with Upstream(answer) as up:
            one = spec("one", up.url, list_timeout_s=0.5)
            async with Running({"one": one}) as gateway:
                client = await gateway.client(session=True)
                assert (await client.legacy("tools/list")).result["tools"] == []
                while not (await client.legacy("tools/list")).result["tools"]:
                    gateway.pass_time(2)  # the first asking may still be under way, and serves who comes meanwhile
                await until(gateway.settled)

    run(main)


def test_a_reload_during_a_list_leaves_nobody_without_an_answer() -> None:
    async def answer(up: Upstream, writer: asyncio.StreamWriter, body: Any) -> None:
        return

    async def main() -> None:
        one = dict[str, Any](list_timeout_s=600.0, call_timeout_s=600.0)  # nobody is answered because time is over
        async with Upstream(answer) as up, Running({"one": spec("one", up.url, **one)}) as gateway:
            client, caller = await gateway.client(session=True), await gateway.client(session=True)
            client.send("tools/list")
            caller.send("tools/call", {"name": "one__t", "arguments": {}})
            await until(lambda: up.asked("tools/list"))
            gateway.fleet.apply(snapshot({}))
            async with asyncio.timeout(60):
                assert (await client.read()).status == 200
                assert (await caller.read()).error["code"] in (-31005, -32602)

    run(main)


def test_a_list_is_bounded_in_bytes_over_all_its_pages() -> None:
    async def answer(up: Upstream, writer: asyncio.StreamWriter, body: Any) -> None:
        tool = {**TOOLS["tools"][0], "name": f"t{len(up.requests)}", "description": "d" * 60_000}
        reply(writer, body, {"tools": [tool], "nextCursor": "more"})

    async def main() -> None:
        async with Upstream(answer) as up, Running({"one": spec("one", up.url, max_answer=200_000)}) as gateway:
            client = await gateway.client(session=True)
            assert (await client.legacy("tools/list")).result["tools"] == []
            assert up.asked("tools/list") <= 5

    run(main)


def test_a_notification_that_is_never_acknowledged_costs_no_connection_for_ever() -> None:
    async def answer(up: Upstream, writer: asyncio.StreamWriter, body: Any) -> None:
        if body.get("method") == "tools/list":
            reply(writer, body, TOOLS)

    async def main() -> None:
        async with Upstream(answer) as up, Running({"one": spec("one", up.url)}) as gateway:
            for number in range(1, 41):
                client = await gateway.client(session=True)
                client.send("tools/call", {"name": "one__t", "arguments": {}}, id_=number)
                while up.asked("tools/call") < number:
                    await asyncio.sleep(0.001)
                other = await gateway.client()
                other.session = client.session
                other.send("notifications/cancelled", {"requestId": number}, id_=None)
                await other.read()
            await until(lambda: gateway.settled() and up.asked("notifications/cancelled") >= 16)
            assert up.most_open <= 20

    run(main)


def test_a_flood_of_requests_by_a_server_opens_no_flood_of_connections() -> None:
    event = b'data: {"jsonrpc":"2.0","id":%d,"method":"ping"}\n\n'
    flood = b"".join(event % number for number in range(300))

    async def answer(up: Upstream, writer: asyncio.StreamWriter, body: Any) -> None:
        if body.get("method") == "tools/list":
            reply(writer, body, TOOLS)
        elif body.get("method") == "tools/call":
            last = b"data: %b\n\n" % encoded(body, {"content": []})
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            writer.write(head + flood)
            await writer.drain()
            await until(lambda: up.requests[-1].get("result") == {})
            writer.write(last)
            writer.close()

    async def main() -> None:
        async with Upstream(answer) as up, Running({"one": spec("one", up.url)}) as gateway:
            client = await gateway.client(session=True)
            client.send("tools/call", {"name": "one__t", "arguments": {}})
            assert (await client.read()).result == {"content": []}
            assert up.most_open <= 40

    run(main)


def test_a_flood_on_the_stream_of_a_server_opens_no_flood_of_connections() -> None:
    event = b'data: {"jsonrpc":"2.0","id":%d,"method":"%b"}\n\n'
    flood = b"".join(event % (n, (b"ping", b"roots/list", b"x")[n % 3]) for n in range(600))

    async def answer(up: Upstream, writer: asyncio.StreamWriter, body: Any) -> None:
        if not body:  # the GET
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + flood)

    async def main() -> None:
        async with Upstream(answer) as up, Running({"one": spec("one", up.url)}) as gateway:
            server = gateway.fleet.servers["one"]
            server.listen(("t",), Wanted(uris=frozenset({"x:a"})))
            await until(lambda: sum("result" in one or "error" in one for one in up.requests) >= 16)
            assert up.most_open <= 20
            assert server.ready(("t",)) is not None

    run(main)


def test_a_list_that_needs_no_request_does_not_keep_the_probe_of_a_breaker() -> None:
    async def answer(up: Upstream, writer: asyncio.StreamWriter, body: Any) -> None:
        if body.get("method") == "tools/list":
            reply(writer, body, TOOLS)
        else:
            reply(writer, body, {"content": []})

    async def main() -> None:
        async with Upstream(answer) as up, Running({"one": spec("one", up.url)}) as gateway:
            client = await gateway.client(session=True)
            await client.legacy("tools/call", {"name": "one__t", "arguments": {}})
            server = gateway.fleet.servers["one"]
            for _ in range(IN_A_ROW):
                server.breaker.failure(gateway.clock())
            gateway.pass_time(2)
            await client.legacy("prompts/list")  # it has none: nothing is sent, nothing is learnt
            called = await client.legacy("tools/call", {"name": "one__t", "arguments": {}})
            assert called.result == {"content": []}

    run(main)


def test_the_lists_of_sessions_that_were_dropped_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(up: Upstream, writer: asyncio.StreamWriter, body: Any) -> None:
        if "id" in body:
            reply(writer, body, TOOLS)
        else:
            accept(writer)

    async def main() -> None:
        monkeypatch.setattr("narthex.flow.upstream.server.MOST_CHANNELS", 3)
        async with Upstream(answer) as up, Running({"one": spec("one", up.url, sharing="session")}) as gateway:
            for _ in range(10):
                client = await gateway.client(session=True)
                await client.legacy("tools/list")
                client.close()
            assert len(gateway.fleet.servers["one"]._lists._lists) <= 3

    run(main)


def test_a_uri_of_a_client_is_bounded_before_it_is_kept_anywhere() -> None:
    endpoint = EndpointSpec("default", ("one",))
    items = Items("one", (("file:///a", Raw(b'{"uri":"file:///a"}')),))
    indexes = []
    for kind, listed in (("resources", [items]), ("templates", [])):
        steps = merge(endpoint, kind, listed, ())  # type: ignore[arg-type]
        while True:
            try:
                next(steps)
            except StopIteration as done:
                indexes.append(done.value)
                break
    known = dict(zip(("resources", "templates"), indexes, strict=True))
    assert find_resource(endpoint, known, "file:///" + "b" * 100) is not None  # type: ignore[arg-type]
    assert find_resource(endpoint, known, "file:///" + "b" * 5000) is None  # type: ignore[arg-type]
    before = headers._kept_lines.cache_info().currsize
    headers.routing_headers("resources/read", "file:///" + "b" * 4000)
    assert headers._kept_lines.cache_info().currsize == before


def test_a_body_that_is_not_compact_does_not_stop_the_loop() -> None:
    body = b'{"jsonrpc":"2.0", "id":1,"method":"ping","params":{"a":[' + b'{"":1},' * 500_000 + b"1]}}"
    fast = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":[' + b'{"":1},' * 500_000 + b"1]}}"

    def least_s(body: bytes) -> float:
        """CPU of the best of some: what else runs here only adds to it."""
        taken = []
        for _ in range(5):
            began = time.thread_time()
            decode_request(body)
            taken.append(time.thread_time() - began)
        return min(taken)

    assert least_s(body) < 10 * least_s(fast) + 0.05
