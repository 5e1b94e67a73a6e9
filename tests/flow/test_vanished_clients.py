"""Ten thousand legacy sessions whose clients vanish leave nothing behind after their idle time.

In: clients that go in every way there is, each at another moment of its session, without a word. Out: every
container and every object of the gateway, counted before and after (`leftovers.py`). The clock is handed in.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from narthex.types import EndpointSpec
from tests.flow.accept.asking import CAPABILITIES, Asker, Live, legacy_client
from tests.flow.gateway import Client, Running, spec, until
from tests.flow.leftovers import alive, kept, more
from tests.flow.notify.hearing import WATCHED, Teller, get

SESSIONS = 10_000
BUSY = 2_100
"""So many of them do something with their session; the others only open it."""
WAVE = 50
"""Sessions at one time. After each wave the servers end what they were about; after the last they do not."""
PATIENCE_S = 300.0
"""For a machine that does much else; a quiet one takes a tenth of it."""
WAIT_S = 20.0
IDLE_S = 4000.0
"""More than anything waits for anybody: live state half an hour, what is seen an hour."""
Way = Callable[[Running, Asker, Client], Awaitable[None]]


async def with_its_handle(gateway: Running, asks: Asker, client: Client) -> None:
    """It has initialized, and that was all."""


async def after_a_list(gateway: Running, asks: Asker, client: Client) -> None:
    await client.legacy("tools/list", path="/mcp/asks")


async def after_a_call(gateway: Running, asks: Asker, client: Client) -> None:
    await client.legacy("tools/call", {"name": "ask", "arguments": {"rounds": []}}, path="/mcp/asks")


async def in_the_middle_of_a_call(gateway: Running, asks: Asker, client: Client) -> None:
    await working(asks, client)


async def asked_and_silent(gateway: Running, asks: Asker, client: Client) -> None:
    live = await working(asks, client)
    live.push("form")
    await client.read_head()
    await client.read_chunk()


async def working(asks: Asker, client: Client) -> Live:
    """The call of this client that its server is about."""
    arguments = {"manual": True, "who": client.session}
    client.send("tools/call", {"name": "ask", "arguments": arguments}, path="/mcp/asks", meta={"progressToken": 1})
    await until(lambda: any(one.arguments == arguments for one in asks.lives))
    return next(one for one in asks.lives if one.arguments == arguments)


async def with_a_level_and_a_subscription(gateway: Running, asks: Asker, client: Client) -> None:
    assert not (await client.legacy("logging/setLevel", {"level": "debug"}, path="/mcp/tells")).result
    assert not (await client.legacy("resources/subscribe", {"uri": WATCHED}, path="/mcp/tells")).result


async def with_its_stream_open(gateway: Running, asks: Asker, client: Client) -> None:
    hearing = await get(gateway, client.session, "/mcp/tells")
    assert hearing.status == 200
    hearing.client.writer.transport.abort()


WAYS: tuple[tuple[str, Way], ...] = (
    ("/mcp/asks", with_its_handle),
    ("/mcp/asks", after_a_list),
    ("/mcp/asks", after_a_call),
    ("/mcp/asks", in_the_middle_of_a_call),
    ("/mcp/asks", asked_and_silent),
    ("/mcp/tells", with_a_level_and_a_subscription),
    ("/mcp/tells", with_its_stream_open),
)


def test_ten_thousand_sessions_whose_clients_vanish_leave_nothing_behind() -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S), Asker(eras="legacy", aside=True) as asks, Teller() as tells:
            servers = {
                "asks": spec("asks", asks.url, sharing="session"),
                "tells": spec("tells", tells.url, sharing="session"),
            }
            endpoints = {name: EndpointSpec(name, (name,), naming="none") for name in servers}
            async with Running(servers, endpoints) as gateway:
                await vanish(gateway, asks, 2 * len(WAYS), WAYS)
                await forgotten(gateway)
                before = left(gateway), lives()
                await vanish(gateway, asks, SESSIONS - BUSY, WAYS[:1])
                await vanish(gateway, asks, BUSY, WAYS)
                assert gateway.sessions.opened >= SESSIONS
                assert more(left(gateway), before[0]), "nothing was there to be forgotten"
                await forgotten(gateway)
                assert not more(left(gateway), before[0])
                with suppress(TimeoutError):  # a connection that was closed goes with the loop's next turns
                    async with asyncio.timeout(WAIT_S):
                        await until(lambda: not more(lives(), before[1]))
                assert not more(lives(), before[1])

    asyncio.run(main())


def left(gateway: Running) -> Counter[str]:
    """What is kept, but for what agents have done lately: of no session, and evicted by number (`MOST_RUNS`)."""
    found = kept(*parts(gateway))
    del found["Behaviour.runs"]
    return found


def lives() -> Counter[str]:
    """What is alive, without the same."""
    found = alive()
    del found["_Run"]
    return found


def parts(gateway: Running) -> tuple[object, ...]:
    return gateway.front, gateway.fleet, gateway.sessions, gateway.shared, gateway.accounts, gateway.held


async def vanish(gateway: Running, asks: Asker, sessions: int, turns: tuple[tuple[str, Way], ...]) -> None:
    """Clients come, each of the next way, and go. The calls of the last ones are never answered."""
    ways = itertools.islice(itertools.cycle(turns), sessions)
    for number in itertools.count():
        wave = list(itertools.islice(ways, WAVE))
        if not wave:
            return
        for one in asks.lives:
            one.finish()
        asks.lives.clear()
        asks.asked_by.clear()
        if (
            number % 20 == 19 and len(turns) > 1
        ):  # while some come, others have been idle: a server takes a thousand sessions of ours
            await until(lambda: not gateway.fleet.servers["asks"].in_flight)
            gateway.pass_time(700.0)
        await asyncio.gather(*(one_client(gateway, asks, path, way) for path, way in wave))


async def one_client(gateway: Running, asks: Asker, path: str, way: Way) -> None:
    client = await legacy_client(gateway, CAPABILITIES, path=path)
    async with asyncio.timeout(WAIT_S):
        await way(gateway, asks, client)
    client.writer.transport.abort()
    gateway.leave(client)


async def forgotten(gateway: Running) -> None:
    """All idle times pass, one after the other; what they end is given the time to end."""
    hub, fleet = gateway.front.hub, gateway.fleet
    for _ in range(12):  # what was done while one passed is to be forgotten, too
        gateway.pass_time(IDLE_S)
        await until(lambda: not (hub._background or fleet._background))
    await until(lambda: gateway.settled() and not gateway.shared.connections)
