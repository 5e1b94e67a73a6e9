"""From what a server says to who is told: one subscription upstream for many, reloads, dead servers, bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from narthex.flow.codec.subscriptions import Wanted
from narthex.flow.notify import hub as module
from narthex.flow.notify.interests import Interests
from narthex.flow.notify.live import IDLE_S, MOST
from narthex.types import LOCAL, EndpointSpec, Selection
from tests.flow.gateway import Client, Running, run, snapshot, spec, until
from tests.flow.notify.hearing import WATCHED, Hearing, Teller, get, listen, nobody_listens, resources, waiting

UPSTREAM = pytest.mark.parametrize("era", ["legacy", "modern"])


async def settled(gateway: Running) -> None:
    """Every server is heard, and the time is over in which it is not believed again."""
    listenings = [one for server in gateway.fleet.servers.values() for one in server.listenings.values()]
    await until(lambda: listenings and all(one.agreed != Wanted() for one in listenings))
    gateway.pass_time(2)


async def reload(gateway: Running, servers: Any, endpoints: Any) -> None:
    taken = snapshot(servers, endpoints)
    gateway.fleet.apply(taken)
    gateway.front.apply(taken)


# --- one for many


@UPSTREAM
def test_one_subscription_upstream_serves_everybody(era: str) -> None:
    async def main() -> None:
        async with Teller(era) as server, server.over() as gateway:
            hearings = [
                await listen(await gateway.client(), toolsListChanged=True, resourceSubscriptions=[WATCHED])
                for _ in range(5)
            ]
            for hearing in hearings:
                await hearing.message()
            await settled(gateway)
            assert len(server.streams) == 1
            assert server.count("resources/subscribe") == (1 if era == "legacy" else 0)
            lists = server.count("tools/list")
            server.has("b")
            for hearing in hearings:
                assert await hearing.told() == ("tools/list_changed", None)
            assert server.count("tools/list") == lists + 1, "one look for all of them"
            for hearing in hearings[1:]:
                hearing.client.close()
            await until(lambda: len(gateway.front.hub.interests) == 1)
            server.tell("notifications/resources/updated", uri=WATCHED)
            assert await hearings[0].told() == ("resources/updated", WATCHED)
            hearings[0].client.close()
            await until(lambda: nobody_listens(gateway) and not server.streams and not server.subscribed)

    run(main)


@UPSTREAM
def test_each_change_is_told_without_waiting_for_the_next_second(era: str) -> None:
    """The gateway of this test has no sweep, so nothing that waits for one would ever come."""

    async def main() -> None:
        async with Teller(era) as server, server.over() as gateway:
            client = await gateway.client()
            hearing = await listen(await gateway.client(), toolsListChanged=True)
            await hearing.message()
            for name in ("b", "c", "d"):
                server.has(name)
                assert await hearing.told() == ("tools/list_changed", None)
                assert [tool["name"] for tool in (await client.modern("tools/list")).result["tools"]] == [name]

    run(main)


def test_who_cannot_see_the_change_is_not_told() -> None:
    async def main() -> None:
        endpoints = {
            "default": EndpointSpec("default", ("one",)),
            "narrow": EndpointSpec("narrow", ("one",), tools=Selection(include=("one__a",))),
        }
        async with Teller() as server, Running({"one": spec("one", server.url)}, endpoints, goes=True) as gateway:
            wide = await listen(await gateway.client(), toolsListChanged=True)
            client = await gateway.client()
            wanted = {"notifications": {"toolsListChanged": True, "resourceSubscriptions": [WATCHED]}}
            client.send("subscriptions/listen", wanted, modern=True, path="/mcp/narrow")
            narrow = Hearing(client, *(await client.read_head()))
            await wide.message()
            await narrow.message()
            await settled(gateway)
            server.has("a", "b")
            assert await wide.told() == ("tools/list_changed", None)
            await until(lambda: not gateway.front.hub._hashing and gateway.front.hub.interests.next_due() is None)
            server.tell("notifications/resources/updated", uri=WATCHED)
            assert await narrow.told() == ("resources/updated", WATCHED)

    run(main)


def test_a_list_that_somebody_else_found_changed_is_told_too() -> None:
    async def main() -> None:
        server = Teller()
        server.capabilities = {"tools": {}}  # it tells nothing by itself
        async with server, server.over(list_ttl_s=5.0) as gateway:
            hearing = await listen(await gateway.client(), toolsListChanged=True)
            await hearing.message()
            server.has("b")
            gateway.pass_time(6)
            client = await gateway.client()
            assert [tool["name"] for tool in (await client.modern("tools/list")).result["tools"]] == ["b"]
            gateway.pass_time(module.RECHECK_S)
            assert await hearing.told() == ("tools/list_changed", None)

    run(main)


# --- single resources of legacy sessions


async def subscribe(client: Client, uri: str = WATCHED, verb: str = "subscribe") -> Any:
    return await client.legacy(f"resources/{verb}", {"uri": uri})


@UPSTREAM
def test_a_resource_is_heard_of_until_it_is_unsubscribed(era: str) -> None:
    async def main() -> None:
        other = "test://other"
        answers = {"resources/list": resources(WATCHED, other)}
        async with Teller(era, answers=answers) as server, server.over() as gateway:
            client = await gateway.client(session=True)
            hearing = await get(gateway, client.session)
            for uri in (WATCHED, other):
                assert (await subscribe(client, uri)).result == {}
            server.tell("notifications/resources/updated", uri=WATCHED)
            assert await hearing.told() == ("resources/updated", WATCHED)
            assert (await subscribe(client, verb="unsubscribe")).result == {}
            assert (await subscribe(client, verb="unsubscribe")).result == {}, "once more is no more"
            server.tell("notifications/resources/updated", uri=WATCHED)
            server.tell("notifications/resources/updated", uri=other)
            assert await hearing.told() == ("resources/updated", other)

    run(main)


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        pytest.param("test://none", -32002, id="no such resource"),
        pytest.param("", -32602, id="empty"),
        pytest.param("x" * 5000, -32602, id="too long"),
        pytest.param(7, -32602, id="no string"),
    ],
)
def test_a_resource_that_is_none(uri: Any, code: int) -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            assert (await subscribe(client, uri)).error["code"] == code
            assert server.count("resources/subscribe") == 0

    run(main)


@pytest.mark.parametrize(
    "fault", ["it offers no subscriptions", "it refuses this one", "it has no stream", "it is gone"]
)
def test_a_server_that_would_not_tell_is_no_silence(fault: str) -> None:
    async def main() -> None:
        server = Teller()
        if fault == "it offers no subscriptions":
            server.capabilities = {"tools": {}, "resources": {}}
        elif fault == "it has no stream":
            server.get = lambda reader, writer, headers: no_stream(server, writer)  # type: ignore[method-assign]
        async with server, server.over() as gateway:
            client = await gateway.client(session=True)
            await client.legacy("resources/list")
            if fault == "it refuses this one":
                server.refuses = {WATCHED}
            elif fault == "it is gone":
                await server.__aexit__()
                for channel in gateway.fleet.servers["one"].channels.values():
                    channel.alive = False
            error = (await subscribe(client)).error
            assert error["code"] == (-31005 if fault == "it is gone" else -32601)
            assert WATCHED not in next(iter(gateway.front.hub._listeners.values())).wanted.uris

    run(main)


async def no_stream(server: Teller, writer: asyncio.StreamWriter) -> None:
    server.reply(writer, 405)


def test_without_a_session_nothing_is_kept() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client()
            for verb in ("subscribe", "unsubscribe"):
                assert (await subscribe(client, verb=verb)).error["code"] == -32601
            assert not len(gateway.front.hub.live)

    run(main)


# --- reloads


@UPSTREAM
def test_listeners_go_on_over_a_reload(era: str) -> None:
    async def main() -> None:
        second = "test://second"
        async with Teller(era) as one, Teller(era, answers={"resources/list": resources(second)}) as two:
            servers = {"one": spec("one", one.url), "two": spec("two", two.url)}
            before = {"default": EndpointSpec("default", ("one",))}
            async with Running(servers, before, goes=True) as gateway:
                hearing = await listen(await gateway.client(), toolsListChanged=True, resourceSubscriptions=[second])
                await hearing.message()
                await settled(gateway)
                await reload(gateway, servers, {"default": EndpointSpec("default", ("one", "two"))})
                assert await hearing.told() == ("tools/list_changed", None)
                await until(lambda: two.streams)
                await settled(gateway)
                two.tell("notifications/resources/updated", uri=second)
                assert await hearing.told() == ("resources/updated", second)

    run(main)


def test_a_server_of_the_same_name_is_asked_anew() -> None:
    async def main() -> None:
        async with Teller() as one, Teller() as two, one.over() as gateway:
            hearing = await listen(await gateway.client(), toolsListChanged=True, resourceSubscriptions=[WATCHED])
            await hearing.message()
            await reload(gateway, {"one": spec("one", two.url)}, gateway.front.snapshot.endpoints)
            await until(lambda: two.streams and WATCHED in two.subscribed)
            await settled(gateway)
            two.tell("notifications/resources/updated", uri=WATCHED)
            assert await hearing.told() == ("resources/updated", WATCHED)

    run(main)


def test_an_endpoint_that_goes_ends_its_streams() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            hearing = await listen(await gateway.client(), toolsListChanged=True)
            await hearing.message()
            client = await gateway.client(session=True)
            legacy = await get(gateway, client.session)
            await legacy.event()
            await until(lambda: len(gateway.front.hub.interests) == 2)
            servers = {"one": spec("one", server.url)}
            await reload(gateway, servers, {"other": EndpointSpec("other", ("one",))})
            assert (await hearing.message())["result"]["resultType"] == "complete"
            assert await hearing.message() is None
            assert await legacy.message() is None
            await until(lambda: nobody_listens(gateway))

    run(main)


# --- dead and slow servers


def test_a_dead_server_keeps_nobody_from_the_others() -> None:
    async def main() -> None:
        async with Teller() as gone:
            dead = spec("dead", gone.url)
        async with Teller() as server:
            endpoints = {"default": EndpointSpec("default", ("dead", "one"), naming="none")}
            async with Running({"dead": dead, "one": spec("one", server.url)}, endpoints, goes=True) as gateway:
                hearing = await listen(await gateway.client(), toolsListChanged=True)
                await hearing.message()
                await until(lambda: server.streams)
                gateway.pass_time(2)
                server.has("b")
                assert await hearing.told() == ("tools/list_changed", None)

    run(main)


def test_a_slow_server_is_waited_for_no_longer_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(module, "READY_S", 0.1)
        server = Teller("modern")
        acknowledge = server.acknowledge
        server.acknowledge = lambda stream: None  # type: ignore[method-assign]
        async with server, server.over() as gateway:
            hearing = await listen(await gateway.client(), toolsListChanged=True, resourceSubscriptions=[WATCHED])
            first = await hearing.message()
            assert first["params"]["notifications"] == {"toolsListChanged": True}, "no promise for another"
            acknowledge(server.streams[0])
            await settled(gateway)
            server.tell("notifications/resources/updated", uri=WATCHED)
            assert await hearing.told() == ("resources/updated", WATCHED)

    run(main)


# --- bounds


def test_a_flood_is_told_as_fast_as_it_is_read_and_no_faster() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            hearing = await listen(await gateway.client(), resourceSubscriptions=[WATCHED])
            await hearing.message()
            for _ in range(2000):
                server.tell("notifications/resources/updated", uri=WATCHED)
            await hearing.told()
            subscriptions = gateway.fleet.servers["one"].listenings
            assert waiting(gateway) <= 1 and subscriptions

    run(main)


def test_more_than_there_may_be_is_refused() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            hub = gateway.front.hub
            hub.interests = Interests(msgspec.structs.replace(module.BOUNDS, subscribers=1))
            hearing = await listen(await gateway.client(), toolsListChanged=True)
            await hearing.message()
            refused = await (await gateway.client()).modern("subscriptions/listen", {"notifications": {}})
            assert refused.error["code"] == -31009
            client = await gateway.client(session=True)
            assert (await subscribe(client)).error["code"] == -31009
            legacy = await get(gateway, client.session)
            while (event := await legacy.event()) is not None:
                last = event
            assert last["retry"]

    run(main)


class Quiet:
    """Stands for ten thousand clients: sessions with a level and a subscription, and an answer not yet read."""

    def __init__(self, gateway: Running) -> None:
        self.gateway = gateway

    async def vanish(self, count: int) -> None:
        hub, sessions = self.gateway.front.hub, self.gateway.sessions
        for _ in range(count):
            handle = sessions.create(LOCAL, "default", "2025-11-25")
            live = hub.session(sessions.find(handle.encode(), LOCAL, "default"))
            live.level = "info"
            await hub.enlist(live, hub.listener(live, LOCAL, "default"))
            log = hub.logs.open(live.session.id, None)
            log.append(b"{}", self.gateway.clock())
            log.finish(self.gateway.clock())


@pytest.mark.slow
def test_ten_thousand_sessions_whose_clients_vanish_leave_nothing_behind() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            hub = gateway.front.hub
            await Quiet(gateway).vanish(MOST)
            assert len(hub.live) == len(hub.interests) == len(hub.logs) == MOST
            assert len(server.streams) == 1
            for _ in range(12):
                gateway.pass_time(IDLE_S + 1)
            assert not (len(hub.live) or len(hub.interests) or len(hub.logs) or hub.logs.size or hub._listeners)
            assert not (hub._sources or hub._woken or hub._hashing or hub.resumable)
            await until(lambda: nobody_listens(gateway) and not server.streams)

    run(main, 600.0)  # a machine that does much else takes its time over so many


@pytest.mark.slow
def test_one_more_session_than_there_may_be_drives_out_the_oldest() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            hub = gateway.front.hub
            hub.live._most = 20
            await Quiet(gateway).vanish(50)
            assert len(hub.live) == len(hub.interests) == len(hub.logs) == 20

    run(main)


def test_the_map_of_levels_holds_no_channel() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            await client.legacy("tools/list")
            await client.legacy("logging/setLevel", {"level": "info"})
            known = gateway.front.levels._asked
            await until(lambda: [task for _, task in known.values() if task.done()])
            gateway.pass_time(3600)
            await until(lambda: not gateway.fleet.servers["one"].channels)

            def swept() -> bool:
                gateway.front.sweep()
                return not known

            await until(swept)

    run(main)
