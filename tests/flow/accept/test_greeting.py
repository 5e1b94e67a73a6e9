"""What a client's first request is answered with, whatever state the servers are in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from narthex.flow.accept import greeting
from narthex.flow.accept.listing import TTL_MS
from narthex.flow.codec.offers import SERVER_INFO
from narthex.flow.codec.revisions import META_SERVER
from narthex.testing import Asked, FakeServer
from narthex.types import EndpointSpec
from tests.flow.gateway import LEGACY, MODERN, Client, Running, run, spec, until
from tests.flow.upstream.test_fleet import tools

TOLD = {"listChanged": True}
UNKNOWN: dict[str, Any] = {"tools": TOLD, "prompts": TOLD, "resources": TOLD, "completions": {}}
EACH_ERA = pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])


class Speaking(FakeServer):
    """A server with capabilities and instructions as said. `gate` holds its answer to whoever comes first."""

    said: Any = {}
    gate: asyncio.Event | None = None

    async def _answer(self, asked: Asked, extra: dict[str, str]) -> dict[str, Any]:
        if self.gate is not None and asked.method in ("initialize", "server/discover"):
            await self.gate.wait()
        result = await super()._answer(asked, extra)
        return {**result, **self.said} if "capabilities" in result else result


def speaking(capabilities: Any, text: str | None = None, eras: Any = "dual") -> Speaking:
    server = Speaking(tools=tools("x"), eras=eras)
    server.said = {"capabilities": capabilities} | ({} if text is None else {"instructions": text})
    return server


async def greet(client: Client, modern: bool) -> Any:
    if modern:
        return (await client.modern("server/discover")).result
    return (await client.initialize()).result


@EACH_ERA
def test_all_that_the_servers_offer(modern: bool) -> None:
    async def main() -> None:
        a = speaking({"tools": {}, "completions": {}}, "Ask first.", "modern")
        b = speaking({"resources": {"subscribe": True}, "logging": {}}, eras="legacy")
        async with a, b, Running({"a": spec("a", a.url), "b": spec("b", b.url)}) as gateway:
            result = await greet(await gateway.client(), modern)
            resources = {**TOLD, "subscribe": True}
            assert result["capabilities"] == {"tools": TOLD, "resources": resources, "completions": {}, "logging": {}}
            assert result["instructions"] == "# a\n\nAsk first."
            if modern:
                assert (result["ttlMs"], result["cacheScope"]) == (TTL_MS, "private")
                assert result["_meta"] == {META_SERVER: SERVER_INFO}
                assert result["supportedVersions"] == [MODERN]
            else:
                assert result["serverInfo"] == SERVER_INFO
            assert len(a.asked) <= 2, "nothing but what opens it"

    run(main)


@EACH_ERA
def test_each_endpoint_offers_what_its_servers_do(modern: bool) -> None:
    async def main() -> None:
        endpoints = {"default": EndpointSpec("default", ("a",)), "b": EndpointSpec("b", ("b",))}
        a, b = speaking({"tools": {}}), speaking({"prompts": {}})
        async with a, b, Running({"a": spec("a", a.url), "b": spec("b", b.url)}, endpoints) as gateway:
            client = await gateway.client()
            assert (await greet(client, modern))["capabilities"] == {"tools": TOLD}
            assert "instructions" not in await greet(client, modern)
            assert not b.asked

    run(main)


@EACH_ERA
def test_a_dead_server_keeps_nobody_waiting_and_loses_nobody_its_lists(modern: bool) -> None:
    async def main() -> None:
        async with FakeServer() as gone:
            dead = spec("dead", gone.url)
        server = speaking({"tools": {}, "extensions": {"io.modelcontextprotocol/ui": {}}})
        async with server, Running({"one": spec("one", server.url), "dead": dead}) as gateway:
            result = await greet(await gateway.client(), modern)
            assert result["capabilities"] == {**UNKNOWN, "extensions": {"io.modelcontextprotocol/ui": {}}}
            assert result.get("ttlMs", 0) == 0, "it may be back soon"

    run(main)


@EACH_ERA
def test_a_slow_server_is_waited_for_no_longer_than_said(monkeypatch: pytest.MonkeyPatch, modern: bool) -> None:
    async def main() -> None:
        slow, quick = speaking({"prompts": {}}, eras="legacy"), speaking({"tools": {}})
        slow.gate = asyncio.Event()
        async with slow, quick, Running({"a": spec("a", slow.url), "b": spec("b", quick.url)}) as gateway:
            clients = [await gateway.client() for _ in range(3)]
            monkeypatch.setattr(greeting, "WAIT_S", 0.3)
            for result in await asyncio.gather(*(greet(client, modern) for client in clients)):
                assert result["capabilities"] == UNKNOWN
            assert len(slow.asked) <= 1, "it is opened once, whoever waits"
            slow.gate.set()
            monkeypatch.setattr(greeting, "WAIT_S", 10.0)
            assert (await greet(clients[0], modern))["capabilities"] == {"prompts": TOLD, "tools": TOLD}

    run(main)


@EACH_ERA
def test_who_goes_while_servers_are_opened_harms_nobody(modern: bool) -> None:
    async def main() -> None:
        server = speaking({"tools": {}})
        server.gate = asyncio.Event()
        async with server, Running({"one": spec("one", server.url)}) as gateway:
            first, second = await gateway.client(), await gateway.client()
            first.send("server/discover" if modern else "initialize", {"protocolVersion": LEGACY}, modern=modern)
            await until(lambda: server.asked)
            first.close()
            await until(lambda: len(gateway.shared.connections) < 2)
            server.gate.set()
            assert (await greet(second, modern))["capabilities"] == {"tools": TOLD}
            assert gateway.sessions.opened == (0 if modern else 1), "no session for who is gone"

    run(main)


def test_what_a_server_offered_is_known_when_it_is_idle_or_away() -> None:
    async def main() -> None:
        async with (
            speaking({"tools": {}}, "Ask first.") as server,
            Running({"one": spec("one", server.url)}) as gateway,
        ):
            before = await greet(await gateway.client(), True)
            gateway.pass_time(3600)
            await until(lambda: not gateway.fleet.servers["one"].channels)
            asked = len(server.asked)
            assert await greet(await gateway.client(), True) == before
            assert len(server.asked) == asked

    run(main)


def test_servers_are_opened_for_the_principal_who_asks() -> None:
    async def main() -> None:
        async with speaking({"tools": {}}) as server, Running({"one": spec("one", server.url)}) as gateway:
            await greet(await gateway.client(), True)
            assert set(gateway.fleet.servers["one"].channels) == {("default", "", "narthex", "local", "")}

    run(main)


def test_a_session_of_its_own_is_not_opened_upstream_before_it_is_used() -> None:
    async def main() -> None:
        server = speaking({"tools": {}}, eras="legacy")
        async with server, Running({"one": spec("one", server.url, sharing="session")}) as gateway:
            for _ in range(5):
                await (await gateway.client()).initialize()
            assert len(server.requests("initialize")) == 1

    run(main)


@pytest.mark.parametrize("params", [{}, {"protocolVersion": 7}, {"protocolVersion": LEGACY, "capabilities": []}])
def test_a_malformed_initialize_opens_nothing(params: Any) -> None:
    async def main() -> None:
        async with speaking({"tools": {}}) as server, Running({"one": spec("one", server.url)}) as gateway:
            answer = await (await gateway.client()).legacy("initialize", params)
            assert answer.error["code"] == -32602
            assert not server.asked
            assert not gateway.sessions.opened

    run(main)
