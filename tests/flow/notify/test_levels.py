"""The log level that clients ask for, in both eras, at servers of both eras; and what each of them hears then."""

from __future__ import annotations

from typing import Any

import pytest

from tests.flow.gateway import Answer, Client, Running, run, until
from tests.flow.notify.hearing import Hearing, Teller

LOG_LEVEL = "io.modelcontextprotocol/logLevel"
CALL = {"name": "a", "arguments": {}}
DONE = {"resultType": "complete", "content": []}


async def set_level(client: Client, level: Any) -> Answer:
    return await client.legacy("logging/setLevel", {"level": level})


async def call(client: Client, server: Teller, level: str = "", *, modern: bool = False) -> list[str]:
    """Call the tool; it logs once at each of three levels. Returns the levels that came."""
    calls = len(server.calls)
    meta = {LOG_LEVEL: level} if level else None
    client.send("tools/call", CALL, meta=meta, modern=modern)
    await until(lambda: len(server.calls) > calls)
    message, stream = server.calls[-1]
    for said in ("debug", "warning", "error"):
        stream.send({"method": "notifications/message", "params": {"level": said, "data": "x"}})
    stream.send({"id": message["id"], "result": DONE})
    stream.close()
    hearing = Hearing(client, *(await client.read_head()))
    heard = []
    while (one := await hearing.message()) is not None:
        if "method" in one:
            heard.append(one["params"]["level"])
    return heard


def asked(server: Teller) -> list[str]:
    return [params["level"] for params in server.params("logging/setLevel")]


@pytest.mark.parametrize("sharing", ["tenant", "principal", "session"])
def test_a_legacy_clients_level_is_set_before_its_call(sharing: Any) -> None:
    async def main() -> None:
        async with Teller() as server, server.over(sharing=sharing) as gateway:
            client = await gateway.client(session=True)
            assert (await set_level(client, "warning")).result == {}
            assert await call(client, server) == ["warning", "error"]
            assert await call(client, server) == ["warning", "error"]
            assert asked(server) == ["warning"], "once"
            methods = [method for method, _ in server.asked]
            assert "logging/setLevel" in methods

    run(main)


def test_a_client_that_said_nothing_hears_all_that_a_legacy_server_says() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            assert await call(await gateway.client(session=True), server) == ["debug", "warning", "error"]
            assert asked(server) == []

    run(main)


def test_a_shared_server_logs_for_the_most_curious_and_each_hears_its_own() -> None:
    async def main() -> None:
        async with Teller() as server, server.over(sharing="principal") as gateway:
            one, two = await gateway.client(session=True), await gateway.client(session=True)
            await set_level(one, "error")
            await set_level(two, "debug")
            assert await call(one, server) == ["error"]
            assert await call(two, server) == ["debug", "warning", "error"]
            assert await call(one, server) == ["error"]
            assert asked(server)[-1] == "debug"
            await set_level(two, "alert")
            assert await call(two, server) == []
            assert asked(server)[-1] == "debug", "it stays so verbose for the others"

    run(main)


def test_a_session_of_its_own_gets_what_its_client_says_now() -> None:
    async def main() -> None:
        async with Teller() as server, server.over(sharing="session") as gateway:
            client = await gateway.client(session=True)
            await set_level(client, "debug")
            await call(client, server)
            await set_level(client, "error")
            assert await call(client, server) == ["error"]
            assert asked(server) == ["debug", "error"]

    run(main)


def test_a_modern_clients_level_is_set_at_a_legacy_server() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client()
            assert await call(client, server, "warning", modern=True) == ["warning", "error"]
            assert asked(server) == ["warning"]
            assert await call(client, server, modern=True) == [], "no level, no messages"

    run(main)


def test_a_modern_server_is_told_with_each_request() -> None:
    async def main() -> None:
        async with Teller("modern") as server, server.over() as gateway:
            client = await gateway.client(session=True)
            await set_level(client, "warning")
            assert await call(client, server) == ["warning", "error"]
            assert server.calls[-1][0]["params"]["_meta"][LOG_LEVEL] == "warning"
            other = await gateway.client(session=True)
            await call(other, server)
            assert LOG_LEVEL not in server.calls[-1][0]["params"]["_meta"]
            modern = await gateway.client()
            await call(modern, server, "error", modern=True)
            assert server.calls[-1][0]["params"]["_meta"][LOG_LEVEL] == "error"
            assert asked(server) == []

    run(main)


def test_a_server_that_refuses_the_level_is_called_all_the_same() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            server.answers["logging/setLevel"] = None
            server.refuses = {None}  # type: ignore[arg-type]
            client = await gateway.client(session=True)
            await set_level(client, "error")
            server.refuses = set()
            assert await call(client, server) == ["error"]

    run(main)


@pytest.mark.parametrize("level", ["loud", "", None, 3])
def test_no_level(level: Any) -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            assert (await set_level(client, level)).error["code"] == -32602
            assert not len(gateway.front.hub.live)

    run(main)


def test_a_client_without_a_session_cannot_set_one() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            assert (await set_level(await gateway.client(), "info")).error["code"] == -32601
            assert not len(gateway.front.hub.live)

    run(main)


def test_a_level_is_forgotten_with_its_session() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            await levels_of_many(gateway, 50)
            assert len(gateway.front.hub.live) == 50
            gateway.pass_time(3600)
            assert not len(gateway.front.hub.live)

    run(main)


async def levels_of_many(gateway: Running, count: int) -> None:
    client = await gateway.client()
    for _ in range(count):
        await client.initialize()
        await set_level(client, "info")
        client.session = None


@pytest.mark.parametrize("modern", [False, True], ids=["legacy client", "modern client"])
def test_what_a_legacy_server_logs_on_its_own_stream_reaches_the_call_under_way(modern: bool) -> None:
    """As the TypeScript SDK does; the client has no stream but that of its call, and can be asked nothing."""

    async def main() -> None:
        async with Teller() as server, server.over(sharing="session") as gateway:
            client = await gateway.client(session=not modern)
            if not modern:
                await set_level(client, "warning")
            client.send("tools/call", CALL, meta={LOG_LEVEL: "warning"} if modern else None, modern=modern)
            await until(lambda: server.calls)
            message, stream = server.calls[0]
            (own,) = server.streams
            for said in ("debug", "warning"):
                own.send({"method": "notifications/message", "params": {"level": said, "data": "x"}})
            hearing = Hearing(client, *(await client.read_head()))
            told = await hearing.message()
            assert (told["method"], told["params"]["level"]) == ("notifications/message", "warning")
            stream.send({"id": message["id"], "result": DONE})
            stream.close()
            assert (await hearing.message())["result"]["content"] == []

    run(main)
