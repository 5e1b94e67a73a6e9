"""What is not MCP is answered whole and within bounds; no app can disturb the connection. Real sockets and listener."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from narthex.errors import HttpRefusal
from narthex.flow.accept.asgi import App, AsgiBridge, Message, Receive, Scope, Send
from narthex.flow.accept.listener import Connection, Shared
from narthex.flow.accept.public import Document, public_app
from narthex.flow.held import Held
from narthex.flow.whole import HttpRequest
from narthex.types import EndpointSpec, Limits
from tests.admin.gateway import snapshot_with

JSON = (b"content-type", b"application/json")
Headers = list[tuple[bytes, bytes]]


def answering(*messages: Message) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def start(status: Any = 200, headers: Headers | None = None) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers or []}


def body(data: bytes = b"", more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


@asynccontextmanager
async def serving(bridge: AsgiBridge) -> AsyncIterator[int]:
    def handle(connection: Connection, request: HttpRequest) -> None:
        try:
            bridge.handle(connection, request, request.path)
        except HttpRefusal as refusal:
            connection.respond(refusal.status, b"text/plain", (refusal.reason.encode(),), len(refusal.reason))

    shared = Shared(Limits(), Held(1 << 20), handle, clock=time.monotonic, now=time.time, new_id=str)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(shared), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(shared.connections):
            connection.abort()
        await bridge.close()


async def ask(
    port: int, method: str = "GET", target: str = "/", content: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one request, the connection being closed after it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + content)
    raw = await reader.read()
    writer.close()
    top, _, rest = raw.partition(b"\r\n\r\n")
    status, *lines = top.decode("latin-1").split("\r\n")
    return int(status.split()[1]), {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}, rest


def run(bridge: AsgiBridge, scenario: Callable[[int], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(60):
            async with serving(bridge) as port:
                return await scenario(port)

    return asyncio.run(main())


def test_an_answer_in_pieces_arrives_whole_with_its_length() -> None:
    app = answering(start(201, [JSON, (b"x-own", b"1")]), body(b"ab", True), body(b"cd"))
    status, headers, content = run(AsgiBridge(app), ask)
    assert (status, content, headers["content-length"], headers["x-own"]) == (201, b"abcd", "4", "1")
    assert headers["content-type"] == "application/json"


def test_the_app_sees_the_request() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([scope, await receive()])
        await answering(start(), body())(scope, receive, send)

    run(AsgiBridge(app), lambda port: ask(port, "POST", "/a%20b?q=1", b"content"))
    scope, message = seen
    assert (scope["type"], scope["method"], scope["path"], scope["raw_path"]) == ("http", "POST", "/a b", b"/a%20b")
    assert (scope["query_string"], scope["client"][0]) == (b"q=1", "127.0.0.1")
    assert (b"host", b"x") in scope["headers"]
    assert message == {"type": "http.request", "body": b"content", "more_body": False}


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    raise ValueError("secret detail")


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(failing, id="an exception after the start"),
        pytest.param(answering(), id="nothing sent"),
        pytest.param(answering(start()), id="no body sent"),
        pytest.param(answering(start(), body(b"x", True)), id="half a body"),
        pytest.param(answering(body(b"x")), id="body before start"),
        pytest.param(answering(start(), start(), body()), id="two starts"),
        pytest.param(answering(start(), body(), body()), id="body after the end"),
        pytest.param(answering({"type": "websocket.accept"}), id="websocket"),
        pytest.param(answering(start(100), body()), id="informational status"),
        pytest.param(answering(start("200"), body()), id="status is no number"),
        pytest.param(answering(start(200, [(b"x", b"a\r\nset-cookie: b")]), body()), id="line break in a value"),
        pytest.param(answering(start(200, [(b"x", b"a\nb")]), body()), id="bare line feed in a value"),
        pytest.param(answering(start(200, [(b"x\r\ny", b"a")]), body()), id="line break in a name"),
        pytest.param(answering(start(200, [(b"x y", b"a")]), body()), id="blank in a name"),
        pytest.param(
            answering(start(200, [(b"content-type", b"a\r\n\r\n<script>")]), body()), id="content-type splits"
        ),
        pytest.param(answering(start(200, [(b"Transfer-Encoding", b"chunked")]), body()), id="hop-by-hop header"),
        pytest.param(answering(start(200, [(b"connection", b"x")]), body()), id="connection header"),
        pytest.param(answering(start(200, [(b"content-length", b"5")]), body(b"abc")), id="wrong content-length"),
        pytest.param(answering(start(200, [(b"content-length", b"+3")]), body(b"abc")), id="malformed content-length"),
        pytest.param(answering(start(200, [JSON, JSON]), body()), id="content-type twice"),
        pytest.param(answering(start(204), body(b"x")), id="body with 204"),
        pytest.param(answering(start(), *[body(b"x" * 512, True)] * 3, body()), id="larger than allowed"),
    ],
)
def test_a_bad_answer_is_a_plain_500(app: App) -> None:
    status, headers, content = run(AsgiBridge(app, max_answer=1024), ask)
    assert (status, json.loads(content)) == (500, {"error": "internal", "message": "internal error"})
    assert "set-cookie" not in headers


def test_head_has_the_length_and_no_body() -> None:
    status, headers, content = run(AsgiBridge(answering(start(), body(b"abc"))), lambda port: ask(port, "HEAD"))
    assert (status, headers["content-length"], content) == (200, "3", b"")


def test_204_has_neither() -> None:
    status, headers, content = run(AsgiBridge(answering(start(204), body())), ask)
    assert (status, content) == (204, b"")
    assert "content-length" not in headers


@pytest.mark.parametrize("target", ["/%ff", "/\u00e9"], ids=["not UTF-8", "not ASCII"])
def test_a_path_that_can_be_read_two_ways_is_refused(target: str) -> None:
    status, _, _ = run(AsgiBridge(answering(start(), body())), lambda port: ask(port, "GET", target))
    assert status == 400


def test_too_slow_an_app_is_a_503() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    status, _, content = run(AsgiBridge(app, timeout_s=0.05), ask)
    assert (status, json.loads(content)["error"]) == (503, "timeout")


def test_more_than_max_calls_at_a_time_are_refused() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await answering(start(), body())(scope, receive, send)

    release = asyncio.Event()
    bridge = AsgiBridge(app, max_calls=1)

    async def scenario(port: int) -> list[int]:
        first = asyncio.ensure_future(ask(port))
        while not bridge.calls:
            await asyncio.sleep(0)
        second = await ask(port)
        release.set()
        return [(await first)[0], second[0], (await ask(port))[0]]

    assert run(bridge, scenario) == [200, 503, 200]


@pytest.mark.parametrize("started", [False, True], ids=["before the app ran", "while the app waits"])
def test_a_client_that_goes_cancels_the_app(started: bool) -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append("started")
        try:
            await receive()
            await receive()
        finally:
            events.append("ended")

    bridge = AsgiBridge(app)

    async def scenario(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while not bridge.calls or (started and not events):
            await asyncio.sleep(0)
        if started:
            writer.transport.abort()
        else:
            next(iter(bridge.calls)).client_gone()
        while bridge.calls:
            await asyncio.sleep(0)

    run(bridge, scenario)
    assert events in ([], ["started", "ended"])
    assert not started or events


def test_two_requests_share_a_connection() -> None:
    async def scenario(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return await reader.read()

    assert run(AsgiBridge(answering(start(), body(b"hello"))), scenario).count(b"hello") == 2


PUBLIC = public_app(
    lambda: snapshot_with(endpoints={"default": EndpointSpec("default", ("secret-server",))}),
    lambda: {"default": "http://127.0.0.1:8080/mcp"},
    {"/.well-known/thing": lambda: Document(b"{}", b"application/json")},
)


@pytest.mark.parametrize(
    ("method", "target", "status", "within"),
    [
        pytest.param("GET", "/", 200, b"http://127.0.0.1:8080/mcp", id="the front page names the URLs"),
        pytest.param("GET", "/.well-known/thing", 200, b"{}", id="a document"),
        pytest.param("GET", "/.well-known/other", 404, b"not_found", id="an unknown path"),
        pytest.param("GET", "/mcp/absent", 404, b"not_found", id="an unknown endpoint"),
        pytest.param("POST", "/", 405, b"method_not_allowed", id="documents are read only"),
        pytest.param("GET", "//", 404, b"not_found", id="paths are exact"),
    ],
)
def test_the_public_app(method: str, target: str, status: int, within: bytes) -> None:
    got, headers, content = run(AsgiBridge(PUBLIC), lambda port: ask(port, method, target))
    assert got == status
    assert within in content
    assert b"secret-server" not in content
    assert headers["x-content-type-options"] == "nosniff"
    assert status != 405 or headers["allow"] == "GET, HEAD"
