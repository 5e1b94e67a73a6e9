"""A server over the old HTTP+SSE, scripted on real sockets. Under both event loops."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from narthex.errors import GatewayError, UpstreamUnavailable
from narthex.flow.codec.jsonrpc import Incoming
from narthex.flow.upstream.connection import HttpPool
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.port import NOBODY, Behalf, Outgoing, SessionLost
from narthex.flow.upstream.sse import SseChannel, endpoint_path, open_sse
from narthex.types import Egress, HttpTarget, ServerSpec

Run = Callable[[Coroutine[Any, Any, None]], None]
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 8\r\n\r\nAccepted"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-store\r\n\r\n"


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def go(coroutine: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await coroutine

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded())

    return go


class Scripted:
    """An old server. What it does at a GET and at a POST may be replaced; usually it answers with what it got."""

    endpoint = "/messages?session=s1"
    version = "2024-11-05"
    stream_head = STREAM

    def __init__(self, **replaced: Any) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.initialized = False
        self.streams: list[asyncio.StreamWriter] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        for name, value in replaced.items():
            setattr(self, name, value)

    async def __aenter__(self) -> Scripted:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append((head[0], headers, json.loads(body) if body else None))
                if head[0].startswith("GET"):
                    await self.get(writer)
                else:
                    await self.post(writer, json.loads(body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def get(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self.stream_head)
        self.streams.append(writer)
        if self.endpoint:
            self.event(self.endpoint, "endpoint")

    async def post(self, writer: asyncio.StreamWriter, message: Any) -> None:
        writer.write(ACCEPTED)
        await self.take(message)

    async def take(self, message: Any) -> None:
        """Usual behaviour with a message."""
        if message.get("method") == "initialize":
            info = {"protocolVersion": self.version, "capabilities": {}, "serverInfo": {"name": "old"}}
            self.send(id=message["id"], result=info)
        elif message.get("method") == "notifications/initialized":
            self.initialized = True
        elif "id" in message and "method" in message:
            await self.call(message)

    async def call(self, message: Any) -> None:
        self.send(id=message["id"], result={"got": message["params"]})

    def event(self, data: str, kind: str = "message") -> None:
        self.streams[-1].write(f"event: {kind}\r\ndata: {data}\r\n\r\n".encode())

    def send(self, **message: Any) -> None:
        self.event(json.dumps({"jsonrpc": "2.0", **message}))


class Opened:
    def __init__(self, server: Scripted, deadline_s: float = 10.0, behalf: Behalf = NOBODY, **options: Any) -> None:
        self.pushed: list[Incoming] = []
        self._behalf = behalf
        url = f"http://127.0.0.1:{server.port}/sse?key=k"
        headers = (("Authorization", "Bearer t"),)
        target = HttpTarget(url, "http", "127.0.0.1", server.port, "/sse?key=k", headers)
        self.spec = ServerSpec("old", target, "sse", **options)
        self._deadline_s = deadline_s
        self._pool = HttpPool(self.spec, target, Dialer(Egress(proxy=None)), time.monotonic)

    async def __aenter__(self) -> tuple[SseChannel, list[Incoming]]:
        self._channel = await open_sse(
            self.spec,
            self._pool,
            on_push=lambda _, message: self.pushed.append(message),
            log=logging.getLogger("test"),
            deadline_s=self._deadline_s,
            behalf=self._behalf,
        )
        return self._channel, self.pushed

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
        await self._channel.close()
        assert not self._channel.alive
        assert not self._channel.posts
        self._pool.close()


class Recorder:
    """A sink that keeps what comes."""

    def __init__(self) -> None:
        self.messages: list[Incoming] = []
        self.ends: list[GatewayError | None] = []
        self.over = asyncio.Event()

    def started(self, streaming: bool) -> None: ...

    def message(self, message: Incoming) -> None:
        assert not self.ends
        self.messages.append(message)

    def splice(self, head: bytes, total: int) -> bool:
        return False

    def chunk(self, data: bytes) -> None: ...

    def finished(self) -> None:
        self.ends.append(None)
        self.over.set()

    def failed(self, error: GatewayError) -> None:
        self.ends.append(error)
        self.over.set()

    async def result(self) -> Any:
        await self.over.wait()
        assert self.ends == [None]
        return json.loads(bytes(self.messages[-1].result))

    async def error(self) -> GatewayError:
        await self.over.wait()
        assert len(self.ends) == 1
        assert self.ends[0] is not None
        return self.ends[0]


def ask(channel: SseChannel, *, resend: bool = False, **params: Any) -> tuple[Recorder, Any]:
    id_ = channel.next_id()
    sink = Recorder()
    body = json.dumps({"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params}).encode()
    return sink, channel.request(Outgoing(id_, "tools/call", body, resend=resend), sink)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def refusal(server: Scripted, deadline_s: float = 10.0, **options: Any) -> UpstreamUnavailable:
    with pytest.raises(UpstreamUnavailable) as caught:
        async with Opened(server, deadline_s, **options):
            pass
    assert not caught.value.sent
    return caught.value


# --- the handshake


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_negotiates_as_the_server_answers(run: Run, version: str) -> None:
    async def scenario() -> None:
        async with Scripted(version=version) as server, Opened(server) as (channel, _):
            assert (channel.dialect.era, channel.dialect.version) == ("legacy", version)
            assert server.initialized, "known before the first call"
            assert await ask(channel, n=1)[0].result() == {"got": {"n": 1}}
            line, headers, _ = server.requests[0]
            assert line == "GET /sse?key=k HTTP/1.1"
            assert headers["accept"] == "text/event-stream"
            assert headers["host"] == f"127.0.0.1:{server.port}"
            assert headers["authorization"] == "Bearer t"
            assert "content-type" not in headers
            for line, headers, _ in server.requests[1:]:
                assert line == "POST /messages?session=s1 HTTP/1.1"
                assert headers["content-type"] == "application/json"
                assert headers["authorization"] == "Bearer t"

    run(scenario())


def answering(status: str, kind: str = "text/plain") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: 2\r\n\r\nno".encode()


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        pytest.param({"stream_head": answering("404 Not Found"), "endpoint": ""}, "404", id="no such page"),
        pytest.param({"stream_head": answering("401 Unauthorized"), "endpoint": ""}, "401", id="not let in"),
        pytest.param({"stream_head": answering("302 Found"), "endpoint": ""}, "302", id="redirects"),
        pytest.param({"stream_head": answering("200 OK"), "endpoint": ""}, "text/plain", id="no event stream"),
        pytest.param({"stream_head": b"SSH-2.0-x\r\n", "endpoint": ""}, "", id="no HTTP"),
        pytest.param({"endpoint": "http://127.0.0.1:1/messages"}, "another origin", id="endpoint on another port"),
        pytest.param({"endpoint": "//example.com/messages"}, "another origin", id="endpoint on another host"),
        pytest.param({"version": "1999-01-01"}, "1999-01-01", id="a version that nobody speaks"),
        pytest.param({"endpoint": ""}, "not answered in time", id="names no endpoint"),
    ],
)
def test_an_unusable_server_is_refused_with_its_reason(run: Run, replaced: dict[str, Any], said: str) -> None:
    async def scenario() -> None:
        async with Scripted(**replaced) as server:
            error = await refusal(server, 0.5 if said == "not answered in time" else 10.0)
            assert said in error.detail

    run(scenario())


def test_a_modern_server_cannot_be_asked_for(run: Run) -> None:
    async def scenario() -> None:
        async with Scripted() as server:
            await refusal(server, era="modern")
            assert server.requests == []

    run(scenario())


def test_a_refused_handshake_is_refused(run: Run) -> None:
    async def scenario() -> None:
        async with Scripted() as server:

            async def take(message: Any) -> None:
                server.send(id=message["id"], error={"code": -32000, "message": "licence expired"})

            server.take = take  # type: ignore[method-assign]
            error = await refusal(server)
            assert "licence expired" in error.detail
            assert "licence" not in error.public

    run(scenario())


TARGET = HttpTarget("https://Example.com/base/sse?x=1", "https", "example.com", 443, "/base/sse?x=1")


@pytest.mark.parametrize(
    ("said", "path"),
    [
        pytest.param("/messages/?session_id=1", "/messages/?session_id=1", id="a path"),
        pytest.param("messages?s=1", "/base/messages?s=1", id="a relative path"),
        pytest.param("?s=1", "/base/sse?s=1", id="a query"),
        pytest.param("https://example.com/m#x", "/m", id="the whole URL; a fragment is not sent"),
        pytest.param("https://EXAMPLE.com:443/m", "/m", id="host in capitals, the port said"),
        pytest.param("https://example.com", "/", id="no path"),
        pytest.param("http://example.com/m", None, id="another scheme"),
        pytest.param("https://example.com:8443/m", None, id="another port"),
        pytest.param("https://example.com.evil.test/m", None, id="another host"),
        pytest.param("//evil.test/m", None, id="another host, scheme left out"),
        pytest.param("https://example.com@evil.test/m", None, id="the host as a user name"),
        pytest.param("https://user@example.com/m", None, id="a user name"),
        pytest.param("file:///etc/passwd", None, id="a file"),
        pytest.param("https://example.com:x/m", None, id="no port number"),
        pytest.param("https://[/m", None, id="no URL"),
        pytest.param("/m HTTP/1.1\r\nX: y", None, id="a header inside"),
        pytest.param("/caf\u00e9", None, id="not ASCII"),
        pytest.param("", None, id="empty"),
        pytest.param("/" + "x" * 5000, None, id="too long"),
    ],
)
def test_an_endpoint_stays_at_its_origin(said: str, path: str | None) -> None:
    if path is not None:
        assert endpoint_path(TARGET, said.encode()) == path
        return
    with pytest.raises(UpstreamUnavailable):
        endpoint_path(TARGET, said.encode())


def test_an_endpoint_of_an_ipv6_server() -> None:
    target = HttpTarget("http://[::1]:81/sse", "http", "::1", 81, "/sse")
    assert endpoint_path(target, b"/m") == "/m"
    assert endpoint_path(target, b"http://[::1]:81/m") == "/m"


# --- calls


def test_answers_find_their_callers_in_any_order(run: Run) -> None:
    async def scenario() -> None:
        calls: list[Any] = []

        async def call(message: Any) -> None:
            calls.append(message)
            if len(calls) == 3:
                server.send(method="notifications/progress", params={"progressToken": calls[1]["id"], "progress": 1})
                server.send(method="notifications/tools/list_changed")
                server.event("hello", "ping")
                server.event("not JSON")
                for one in sorted(calls, key=lambda one: -one["id"]):
                    server.send(id=one["id"], result=one["params"])

        async with Scripted(call=call) as server, Opened(server) as (channel, pushed):
            sinks = [ask(channel, n=n)[0] for n in range(3)]
            assert [(await sink.result())["n"] for sink in sinks] == [0, 1, 2]
            assert sorted(len(sink.messages) for sink in sinks) == [1, 1, 2]
            assert [message.method for message in pushed] == ["notifications/tools/list_changed"]
            assert channel.alive

    run(scenario())


def test_connections_are_used_again(run: Run) -> None:
    async def scenario() -> None:
        async with Scripted() as server, Opened(server) as (channel, _):
            for n in range(20):
                await ask(channel, n=n)[0].result()
                await until(lambda: not channel.posts)
            assert server.connections == 2

    run(scenario())


def test_what_a_server_asks_of_us_is_answered(run: Run) -> None:
    async def scenario() -> None:
        async with Scripted() as server, Opened(server) as (_, pushed):
            server.send(id="p", method="ping")
            await until(lambda: len(server.requests) == 4)
            assert server.requests[-1][2] == {"jsonrpc": "2.0", "id": "p", "result": {}}
            server.send(id=9, method="roots/list")
            await until(lambda: len(server.requests) == 5)
            assert server.requests[-1][2]["error"]["code"] == -32601
            assert pushed == []

    run(scenario())


def test_what_is_asked_on_one_clients_stream_reaches_its_only_call(run: Run) -> None:
    async def scenario() -> None:
        async def call(message: Any) -> None:
            server.send(id=7, method="sampling/createMessage", params={})

        behalf = Behalf({"sampling": {}}, one_session=True)
        async with Scripted(call=call) as server, Opened(server, behalf=behalf) as (channel, _):
            assert server.requests[1][2]["params"]["capabilities"] == {"sampling": {}}
            server.send(id=5, method="sampling/createMessage", params={})
            await until(lambda: server.requests[-1][2].get("id") == 5)
            assert "no call" in server.requests[-1][2]["error"]["message"]
            sink, _ = ask(channel)
            await until(lambda: bool(sink.messages))
            assert (sink.messages[0].method, sink.messages[0].id) == ("sampling/createMessage", 7)

    run(scenario())


def test_cancelling_tells_the_server_and_drops_its_answer(run: Run) -> None:
    async def scenario() -> None:
        calls: list[Any] = []

        async def call(message: Any) -> None:
            calls.append(message)

        async with Scripted(call=call) as server, Opened(server) as (channel, _):
            dropped, flight = ask(channel)
            await until(lambda: len(calls) == 1)
            flight.pause()
            flight.resume()
            flight.cancel("the client left")
            flight.cancel("twice")
            await until(lambda: server.requests[-1][2]["method"] == "notifications/cancelled")
            assert server.requests[-1][2]["params"] == {"requestId": calls[0]["id"], "reason": "the client left"}
            server.send(id=calls[0]["id"], result={})
            other, _ = ask(channel)
            await until(lambda: len(calls) == 2)
            server.send(id=calls[1]["id"], result={})
            await other.result()
            assert dropped.ends == dropped.messages == []

    run(scenario())


# --- misdeeds


def misbehaving(answer: bytes, *, close: bool = False) -> Callable[[Scripted], Callable[..., Awaitable[None]]]:
    """A POST of a call gets `answer` in place of an acknowledgement; the handshake goes as usual."""

    def bind(server: Scripted) -> Callable[..., Awaitable[None]]:
        async def post(writer: asyncio.StreamWriter, message: Any) -> None:
            if message.get("method") != "tools/call":
                await Scripted.post(server, writer, message)
                return
            writer.write(answer)
            if close:
                writer.close()

        return post

    return bind


@pytest.mark.parametrize(
    ("bind", "said", "kind", "alive"),
    [
        pytest.param(misbehaving(answering("500 Oops")), "500", UpstreamUnavailable, True, id="an error"),
        pytest.param(misbehaving(answering("404 Not Found")), "", SessionLost, False, id="the session is lost"),
        pytest.param(misbehaving(answering("307 There")), "307", UpstreamUnavailable, True, id="a redirect"),
        pytest.param(misbehaving(b"garbage\r\n\r\n"), "", UpstreamUnavailable, True, id="no HTTP"),
        pytest.param(misbehaving(b"", close=True), "closed", UpstreamUnavailable, True, id="no answer"),
    ],
)
def test_a_post_that_fails_costs_its_own_call(run: Run, bind: Any, said: str, kind: type, alive: bool) -> None:
    async def scenario() -> None:
        async with Scripted() as server, Opened(server) as (channel, _):
            server.post = bind(server)  # type: ignore[method-assign]
            error = await ask(channel)[0].error()
            assert isinstance(error, kind)
            assert said in error.detail
            if isinstance(error, UpstreamUnavailable):
                assert error.sent
            await asyncio.sleep(0)
            assert channel.alive is alive
            if alive:
                del server.post
                assert await ask(channel, n=2)[0].result() == {"got": {"n": 2}}

    run(scenario())


def test_what_may_be_sent_again_is_sent_again_once(run: Run) -> None:
    async def scenario() -> None:
        async with Scripted() as server, Opened(server) as (channel, _):
            failing = misbehaving(b"", close=True)(server)
            seen: list[Any] = []

            async def post(writer: asyncio.StreamWriter, message: Any) -> None:
                seen.append(message)
                await (Scripted.post(server, writer, message) if len(seen) == 2 else failing(writer, message))

            server.post = post  # type: ignore[method-assign]
            assert await ask(channel, resend=True, n=1)[0].result() == {"got": {"n": 1}}
            assert len(seen) == 2
            assert isinstance(await ask(channel, resend=True)[0].error(), UpstreamUnavailable)
            assert len(seen) == 4

    run(scenario())


def test_an_answer_counts_even_when_its_post_has_none(run: Run) -> None:
    async def scenario() -> None:
        async with Scripted() as server, Opened(server) as (channel, _):

            async def post(writer: asyncio.StreamWriter, message: Any) -> None:
                await server.take(message)

            server.post = post  # type: ignore[method-assign]
            assert await ask(channel, n=1)[0].result() == {"got": {"n": 1}}
            assert len(channel.posts) == 1, "it still waits for its acknowledgement, for a bounded time"

    run(scenario())


def test_an_endless_acknowledgement_is_not_read_on(run: Run) -> None:
    async def scenario() -> None:
        async with Scripted() as server, Opened(server) as (channel, _):
            head = b"HTTP/1.1 202 Accepted\r\nContent-Length: 999999999\r\n\r\n"
            server.post = misbehaving(head + b"x" * 100_000)(server)  # type: ignore[method-assign]
            sink, _ = ask(channel)
            await until(lambda: not channel.posts)
            assert not sink.ends, "it was acknowledged: its answer may come"
            server.send(id=2, result={"late": 1})
            assert await sink.result() == {"late": 1}

    run(scenario())


def cut(server: Scripted) -> None:
    server.streams[0].close()


def flood(server: Scripted) -> None:
    server.event("x" * 300_000)


def garbage(server: Scripted) -> None:
    for _ in range(1001):
        server.event("garbage")


@pytest.mark.parametrize("misdeed", [cut, flood, garbage])
def test_the_end_of_the_stream_fails_every_call(run: Run, misdeed: Callable[[Scripted], None]) -> None:
    async def scenario() -> None:
        calls: list[Any] = []

        async def call(message: Any) -> None:
            calls.append(message)
            if len(calls) == 2:
                misdeed(server)

        async with Scripted(call=call) as server, Opened(server, max_answer=262_144) as (channel, _):
            for sink in [ask(channel)[0] for _ in range(2)]:
                error = await sink.error()
                assert isinstance(error, UpstreamUnavailable)
                assert error.sent
            assert not channel.alive
            late = await ask(channel)[0].error()
            assert isinstance(late, UpstreamUnavailable)
            assert not late.sent

    run(scenario())


def test_closing_fails_what_is_open(run: Run) -> None:
    async def scenario() -> None:
        async with Scripted(call=lambda message: asyncio.sleep(0)) as server, Opened(server) as (channel, _):
            sink, flight = ask(channel)
            unsent, _ = ask(channel)
            await channel.close()
            error = await sink.error()
            assert isinstance(error, UpstreamUnavailable)
            assert isinstance(await unsent.error(), UpstreamUnavailable)
            flight.cancel("late")
            channel.notify(b"{}")
            assert not channel.posts

    run(scenario())


def test_a_cancelled_start_leaves_no_connection(run: Run) -> None:
    async def scenario() -> None:
        async with Scripted(endpoint="") as server:
            task = asyncio.ensure_future(Opened(server).__aenter__())
            await until(lambda: bool(server.streams))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: server.streams[0].is_closing())

    run(scenario())
