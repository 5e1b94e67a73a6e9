"""What real servers tell unasked: `server-everything` over its three transports, SDK servers, dual-era ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from narthex.flow.codec.handshake import request_body
from narthex.flow.codec.jsonrpc import Incoming, encode_result
from narthex.flow.codec.subscriptions import Wanted
from narthex.flow.upstream import listening
from narthex.flow.upstream.links import NOTHING
from narthex.flow.upstream.port import Channel, Outgoing
from narthex.flow.upstream.server import Server
from narthex.types import HttpTarget, ServerSpec, StdioTarget
from tests.counterparts.ports import Port
from tests.e2e.harness import listening_ports, wait_for
from tests.e2e.servers import everything_over_http, npm_server
from tests.flow.gateway import until
from tests.flow.upstream.test_http import Heard
from tests.flow.upstream.test_listening import Ears, ears, uris
from tests.flow.upstream.test_opening import SCOPE, SESSION

pytestmark = pytest.mark.e2e
TEXT = "demo://resource/dynamic/text/1"
SDK = str(Path(__file__).with_name("sdk_server.py"))
LISTS = Wanted(kinds=frozenset({"tools", "prompts", "resources"}))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "FIRST_S", 0.05)


def run(main: Callable[[], Any]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(300):
            await main()

    asyncio.run(bounded())


def over_http(url: str, **settings: Any) -> ServerSpec:
    port, _, path = url.removeprefix("http://127.0.0.1:").partition("/")
    target = HttpTarget(url, "http", "127.0.0.1", int(port), f"/{path}")
    return ServerSpec("one", target, "auto", **{"list_timeout_s": 30.0, "connect_timeout_s": 30.0, **settings})


def over_stdio(command: str, *args: str, **settings: Any) -> ServerSpec:
    return ServerSpec("one", StdioTarget(command, args), "stdio", sharing=settings.pop("sharing", "tenant"), **settings)


@contextlib.contextmanager
def everything(kind: str, node: str, node_modules: Path, **settings: Any) -> Iterator[ServerSpec]:
    if kind == "stdio":
        entry = npm_server(node, node_modules, "server-everything", "stdio")
        yield over_stdio(entry["command"], *entry["args"], **settings)
    else:
        with everything_over_http(node, node_modules, kind) as url:
            yield over_http(url, **settings)


@contextlib.contextmanager
def sdk_over_http(port: int = 0) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, SDK, str(port)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        found = wait_for(lambda: listening_ports(process.pid), "the SDK server").pop()
        yield f"http://127.0.0.1:{found}/mcp"
    finally:
        process.kill()
        process.wait()


async def call(server: Server, name: str, scope: Any = SCOPE, **arguments: Any) -> Any:
    channel = server.ready(scope)
    assert channel is not None
    heard, id_ = Heard(), channel.next_id()
    body = request_body(id_, "tools/call", {"name": name, "arguments": arguments}, channel.dialect)
    channel.request(Outgoing(id_, "tools/call", body, name), heard)
    await heard.over.wait()
    assert heard.error is None
    return json.loads(bytes(heard.messages[-1].result))


async def heard_again(one: Ears, uri: str) -> None:
    """The breaker may be open, so time is passed on; but each time the server has longer to answer in."""
    pause_s = 0.05
    while uri not in one.hearer.uris:
        one.clock.advance(40)
        await one.sweep()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s := 2 * pause_s):
                await until(lambda: uri in one.hearer.uris)


async def pass_seconds(one: Ears) -> None:
    one.clock.advance(1.5)
    await one.sweep()


# --- legacy


@pytest.mark.parametrize("kind", ["stdio", "sse", "streamableHttp"])
def test_everything_tells_of_resources(kind: str, node: str, node_modules: Path) -> None:
    async def main() -> None:
        with everything(kind, node, node_modules) as spec:
            async with ears(spec) as one:
                wanted = Wanted(LISTS.kinds, frozenset({TEXT}))
                assert await one.listen(wanted) == wanted
                assert one.spoken == ("sse" if kind == "sse" else "legacy")
                await call(one.server, "toggle-subscriber-updates")
                await until(lambda: TEXT in one.hearer.uris)
                await one.listen(LISTS)
                one.hearer.clear()
                await call(one.server, "toggle-subscriber-updates")
                await call(one.server, "toggle-subscriber-updates")
                await call(one.server, "echo", message="x")
                assert one.hearer.uris == []

    run(main)


def test_everything_that_starts_anew_is_subscribed_anew(node: str, node_modules: Path) -> None:
    """It answers 400, not 404, to a session that it does not know."""
    entry = npm_server(node, node_modules, "server-everything", "streamableHttp")

    port = Port()

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [entry["command"], *entry["args"]], env={**os.environ, "PORT": str(port.number)},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(lambda: listening_ports(process.pid), "server-everything")
        return process

    async def main() -> None:
        process = start()
        try:
            async with ears(over_http(f"http://127.0.0.1:{port.number}/mcp")) as one:
                assert await one.listen(uris(TEXT)) == uris(TEXT)
                before = one.server.ready(SCOPE)
                process.kill()
                process.wait()
                process = await asyncio.to_thread(start)
                await heard_again(one, TEXT)
                assert one.server.ready(SCOPE) is not before
                known = len(one.hearer.uris)
                await call(one.server, "toggle-subscriber-updates")
                await until(lambda: len(one.hearer.uris) > known)
        finally:
            process.kill()
            process.wait()

    run(main)


@pytest.mark.parametrize("kind", ["stdio", "sse", "streamableHttp"])
def test_everything_asks_for_roots_and_the_only_call_answers(kind: str, node: str, node_modules: Path) -> None:
    class Rooted(Heard):
        def __init__(self, channel: Channel) -> None:
            super().__init__()
            self.channel = channel

        def message(self, message: Incoming) -> None:
            super().message(message)
            if message.method == "roots/list":
                assert isinstance(message.id, (int, str))
                root = {"uri": "file:///project", "name": "project"}
                self.channel.notify(encode_result(message.id, {"roots": [root]}))

    async def main() -> None:
        with everything(kind, node, node_modules, sharing="session") as spec:
            async with ears(spec, declares=lambda scope: {"roots": {"listChanged": True}}) as one:
                one.scope = SESSION
                channel = await one.server.open(SESSION)
                heard, id_ = Rooted(channel), channel.next_id()
                body = request_body(id_, "tools/call", {"name": "get-roots-list", "arguments": {}}, channel.dialect)
                channel.request(Outgoing(id_, "tools/call", body), heard)
                await heard.over.wait()
                assert heard.error is None
                said = json.loads(bytes(heard.messages[-1].result))["content"][0]["text"]
                assert "file:///project" in said

    run(main)


# --- modern


@pytest.mark.parametrize("kind", ["stdio", "http"])
def test_a_server_of_the_sdk_tells(kind: str) -> None:
    async def main(spec: ServerSpec) -> None:
        async with ears(spec) as one:
            wanted = Wanted(LISTS.kinds, frozenset({"demo:1"}))
            assert await one.listen(wanted) == wanted
            assert one.spoken == "modern"
            await call(one.server, "touch", uri="demo:2")
            await call(one.server, "touch", uri="demo:1")
            await until(lambda: one.hearer.uris == ["demo:1"])
            assert await one.names() == ["touch", "grow"]
            one.clock.advance(1.5)
            one.hearer.clear()
            await call(one.server, "grow")
            await until(lambda: one.hearer.lists == ["tools"])
            assert await one.names() == ["touch", "grow", "grown"]
            assert await one.listen(uris("demo:2")) == uris("demo:2")
            await call(one.server, "touch", uri="demo:1")
            await call(one.server, "touch", uri="demo:2")
            await until(lambda: "demo:2" in one.hearer.uris)
            assert one.hearer.uris == ["demo:2"]

    if kind == "stdio":
        run(lambda: main(over_stdio(sys.executable, SDK, "stdio")))
    else:
        with sdk_over_http() as url:
            run(lambda: main(over_http(url)))


@pytest.mark.parametrize("kind", ["stdio", "http"])
def test_a_server_of_the_sdk_that_dies_is_listened_to_again(kind: str) -> None:
    async def again(one: Ears) -> None:
        await heard_again(one, "demo:1")
        known = len(one.hearer.uris)
        await call(one.server, "touch", uri="demo:1")
        await until(lambda: len(one.hearer.uris) > known)
        assert set(one.hearer.uris) == {"demo:1"}

    async def over_a_pipe() -> None:
        async with ears(over_stdio(sys.executable, SDK, "stdio")) as one:
            await one.listen(uris("demo:1"))
            channel: Any = one.server.ready(SCOPE)
            os.kill(channel.pid, 9)
            await until(lambda: not channel.alive)
            await again(one)

    async def over_a_network() -> None:
        port = Port()
        with sdk_over_http(port.number) as url:
            one = Ears(over_http(url))
            await one.listen(uris("demo:1"))
        with sdk_over_http(port.number):
            try:
                await again(one)
            finally:
                await one.server.close()

    run(over_a_pipe if kind == "stdio" else over_a_network)


def test_a_dual_server_without_subscriptions_says_so(python_servers: Callable[[str], str]) -> None:
    async def main() -> None:
        spec = over_stdio(python_servers("mcp-server-time"), "--local-timezone", "UTC")
        async with ears(spec) as one:
            assert await one.listen(Wanted(LISTS.kinds, frozenset({"demo:1"}))) == NOTHING
            assert one.spoken == "modern"
            verdict = one.server.verdict
            assert verdict is not None
            assert verdict.how == "server/discover"

    run(main)
