"""Streams on which clients are told of changes: how they begin, what they carry, and every way in which they end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from narthex.flow.codec.offers import SERVER_INFO
from narthex.flow.notify import streams
from narthex.types import Limits
from tests.flow.gateway import Client, Running, run, until
from tests.flow.notify.hearing import STAMP, WATCHED, Hearing, Teller, get, listen, nobody_listens, resources, waiting

UPSTREAM = pytest.mark.parametrize("era", ["legacy", "modern"])
CALL = {"name": "a", "arguments": {}}
DONE = {"content": [{"type": "text", "text": "done"}]}


async def heard(gateway: Running) -> None:
    """Until the server is heard, and enough time has passed for it to be believed once more."""
    server = gateway.fleet.servers["one"]
    await until(lambda: server.listenings and all(one.agreed.kinds for one in server.listenings.values()))
    gateway.pass_time(2)


# --- modern


@UPSTREAM
def test_a_modern_client_hears_what_it_asked_for(era: str) -> None:
    async def main() -> None:
        async with Teller(era) as server, server.over() as gateway:
            hearing = await listen(
                await gateway.client(), toolsListChanged=True, resourceSubscriptions=[WATCHED, "test://none"]
            )
            assert (hearing.status, hearing.headers["content-type"]) == (200, "text/event-stream")
            first = await hearing.message()
            assert first["method"] == "notifications/subscriptions/acknowledged"
            assert first["params"]["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": [WATCHED]}
            await heard(gateway)
            server.tell("notifications/prompts/list_changed")
            server.tell("notifications/resources/updated", uri=WATCHED)
            told = await hearing.message()
            assert told["method"] == "notifications/resources/updated"
            assert told["params"] == {"_meta": {STAMP: 1}, "uri": WATCHED}
            server.has("a", "b")
            told = await hearing.message()
            assert told == {
                "jsonrpc": "2.0",
                "method": "notifications/tools/list_changed",
                "params": {"_meta": {STAMP: 1}},
            }
            assert not [event for event in hearing.events if "id" in event], "there is no resuming in this era"
            hearing.client.close()
            await until(lambda: nobody_listens(gateway))

    run(main)


@UPSTREAM
def test_a_list_that_is_as_before_is_no_news(era: str) -> None:
    async def main() -> None:
        async with Teller(era) as server, server.over() as gateway:
            hearing = await listen(await gateway.client(), toolsListChanged=True, resourceSubscriptions=[WATCHED])
            await hearing.message()
            await heard(gateway)
            server.tell("notifications/tools/list_changed")
            asked = server.count("tools/list")
            await until(lambda: server.count("tools/list") > asked)
            await until(lambda: not gateway.front.hub._hashing)
            server.tell("notifications/resources/updated", uri=WATCHED)
            assert await hearing.told() == ("resources/updated", WATCHED)

    run(main)


def test_templates_belong_to_the_resources() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            hearing = await listen(await gateway.client(), resourcesListChanged=True)
            await hearing.message()
            await heard(gateway)
            server.answers["resources/templates/list"] = {
                "resourceTemplates": [{"uriTemplate": "x://{y}", "name": "y"}]
            }
            server.tell("notifications/resources/list_changed")
            assert await hearing.told() == ("resources/list_changed", None)

    run(main)


def test_what_no_server_has_is_not_agreed_to() -> None:
    async def main() -> None:
        server = Teller()
        server.capabilities = {"tools": {}}
        async with server, server.over() as gateway:
            hearing = await listen(await gateway.client(), toolsListChanged=True, promptsListChanged=True)
            first = await hearing.message()
            assert first["params"]["notifications"] == {"toolsListChanged": True}

    run(main)


@pytest.mark.parametrize(
    ("params", "headers", "status"),
    [
        pytest.param({}, {}, 400, id="no filter"),
        pytest.param({"notifications": []}, {}, 400, id="a filter of another form"),
        pytest.param({"notifications": {"taskIds": ["x"]}}, {}, 400, id="tasks without the extension"),
        pytest.param({"notifications": {}}, {"Accept": "application/json"}, 406, id="no event stream taken"),
    ],
)
def test_a_listen_that_is_refused(params: Any, headers: dict[str, str], status: int) -> None:
    async def main() -> None:
        async with Teller("modern") as server, server.over() as gateway:
            answer = await (await gateway.client()).modern("subscriptions/listen", params, headers=headers)
            assert answer.status == status
            assert nobody_listens(gateway)

    run(main)


def test_who_goes_before_it_listens_leaves_nothing() -> None:
    async def main() -> None:
        server = Teller(get=lambda *_: asyncio.Event().wait())
        async with server, server.over() as gateway:
            client = await gateway.client()
            client.send("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, modern=True)
            await until(lambda: server.count("GET"))
            await until(lambda: len(gateway.front.hub.interests))
            client.close()
            await until(lambda: not (len(gateway.front.hub.interests) or gateway.front.hub._listeners))
            assert not gateway.front.hub.streams

    run(main)


# --- legacy


def test_a_legacy_session_hears_of_everything_on_its_get() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            hearing = await get(gateway, client.session)
            assert (hearing.status, hearing.headers["content-type"]) == (200, "text/event-stream")
            primed = await hearing.event()
            assert primed is not None and primed["data"] == "" and primed["id"] and primed["retry"] == "1000"
            await heard(gateway)
            server.has("a", "b")
            assert await hearing.message() == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
            assert hearing.last_id != primed["id"]

    run(main)


def test_an_older_client_gets_no_empty_event() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client()
            answer = await client.legacy("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}})
            hearing = await get(gateway, answer.headers["mcp-session-id"], MCP_Protocol_Version="2025-06-18")
            await heard(gateway)
            server.has("b")
            event = await hearing.event()
            assert event is not None and event["data"] and event["id"]

    run(main)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Mcp_Session_Id": None}, 405, id="no session"),
        pytest.param({"Mcp_Session_Id": "forged"}, 404, id="a session that never was"),
        pytest.param({"MCP_Protocol_Version": "2026-07-28"}, 405, id="a modern client has no GET"),
        pytest.param({"MCP_Protocol_Version": "1999-01-01"}, 400, id="an unknown revision"),
        pytest.param({"Accept": "application/json"}, 406, id="no event stream taken"),
        pytest.param({"Last_Event_ID": "0123-1-1"}, 400, id="an event that never was"),
        pytest.param({"Last_Event_ID": "\x7f"}, 400, id="no id at all"),
        pytest.param({"Origin": "https://evil.example"}, 403, id="a foreign origin"),
    ],
)
def test_a_get_that_is_refused(headers: dict[str, str | None], status: int) -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            hearing = await get(gateway, client.session, **headers)
            assert hearing.status == status
            assert nobody_listens(gateway)

    run(main)


def test_a_second_get_takes_over() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            first = await get(gateway, client.session)
            await first.event()
            second = await get(gateway, client.session)
            while await first.event() is not None:
                pass
            await second.event()
            await heard(gateway)
            server.has("b")
            assert await second.told() == ("tools/list_changed", None)
            assert len(gateway.front.hub.streams) == len(gateway.front.hub.interests) == 1

    run(main)


def test_news_wait_for_a_get_each_once() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            assert (await client.legacy("resources/subscribe", {"uri": WATCHED})).result == {}
            await heard(gateway)
            for _ in range(5):
                server.tell("notifications/resources/updated", uri=WATCHED)
            server.has("b")
            await until(lambda: waiting(gateway) == 2)
            hearing = await get(gateway, client.session)
            told = {await hearing.told() for _ in range(2)}
            assert told == {("resources/updated", WATCHED), ("tools/list_changed", None)}
            server.tell("notifications/resources/updated", uri=WATCHED)
            assert await hearing.told() == ("resources/updated", WATCHED)

    run(main)


def test_a_session_that_is_deleted_hears_nothing_more() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            hearing = await get(gateway, client.session)
            await hearing.event()
            await heard(gateway)
            client.http("DELETE", "/mcp", {"Mcp-Session-Id": client.session})
            assert (await client.read_head())[0] == 204
            assert await hearing.message() is None
            await until(lambda: nobody_listens(gateway))
            assert not len(gateway.front.hub.live) and not len(gateway.front.hub.logs)
            assert (await get(gateway, client.session)).status == 404

    run(main)


def test_a_stream_ends_with_its_session() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            hearing = await get(gateway, client.session)
            await hearing.event()
            gateway.sessions._now = lambda: 1e12
            gateway.pass_time(16)
            assert await hearing.message() is None
            await until(lambda: nobody_listens(gateway))

    run(main)


# --- coming back


def test_a_stream_goes_on_where_it_broke_off() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            first = await get(gateway, client.session)
            await first.event()
            primed = first.last_id
            await heard(gateway)
            server.has("b")
            await first.message()
            first.client.close()
            await until(lambda: not gateway.front.hub.streams)
            again = await get(gateway, client.session, Last_Event_ID=primed)
            assert await again.told() == ("tools/list_changed", None)
            assert again.last_id == first.last_id
            last = await get(gateway, client.session, Last_Event_ID=again.last_id)
            gateway.pass_time(2)
            server.has("c")
            assert await last.told() == ("tools/list_changed", None)
            assert last.last_id != again.last_id

    run(main)


def test_another_sessions_event_resumes_nothing() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            one, other = await gateway.client(session=True), await gateway.client(session=True)
            hearing = await get(gateway, one.session)
            await hearing.event()
            assert (await get(gateway, other.session, Last_Event_ID=hearing.last_id)).status == 400
            assert (await get(gateway, one.session, Last_Event_ID=hearing.last_id)).status == 200

    run(main)


async def begun(client: Client, server: Teller) -> Hearing:
    """A call whose answer has begun as a stream: it was primed."""
    client.send("tools/call", CALL, meta={"progressToken": 1}, id_="call")
    hearing = Hearing(client, *(await client.read_head()))
    await hearing.event()
    return hearing


def progress(server: Teller, step: int) -> None:
    message, stream = server.calls[-1]
    token = message["params"]["_meta"]["progressToken"]
    stream.send({"method": "notifications/progress", "params": {"progressToken": token, "progress": step}})


def answer(server: Teller) -> None:
    message, stream = server.calls[-1]
    stream.send({"id": message["id"], "result": DONE})
    stream.close()


def test_a_call_goes_on_without_its_client_and_is_read_later() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            hearing = await begun(client, server)
            progress(server, 1)
            assert (await hearing.message())["params"] == {"progressToken": 1, "progress": 1}
            client.close()
            await until(lambda: all(one.response.connection is None for one in gateway.front.calls.active))
            progress(server, 2)
            answer(server)
            await until(gateway.settled)
            rest = await get(gateway, client.session, Last_Event_ID=hearing.last_id)
            assert (await rest.message())["params"]["progress"] == 2
            assert (await rest.message()) == {"jsonrpc": "2.0", "id": "call", "result": DONE}
            assert await rest.message() is None, "it was the last"
            assert not gateway.front.hub.resumable
            gateway.pass_time(61)
            late = await get(gateway, client.session, Last_Event_ID=hearing.last_id)
            assert late.status == 400

    run(main)


def test_a_client_that_comes_back_in_the_middle_gets_the_rest_as_it_comes() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            hearing = await begun(client, server)
            progress(server, 1)
            await hearing.message()
            rest = await get(gateway, client.session, Last_Event_ID=hearing.last_id)
            assert await hearing.message() is None, "a message goes one way only"
            progress(server, 2)
            assert (await rest.message())["params"]["progress"] == 2
            answer(server)
            assert (await rest.message())["result"] == DONE
            assert await rest.message() is None
            await until(gateway.settled)
            assert (await client.legacy("ping")).result == {}, "its first connection goes on"

    run(main)


def test_what_was_answered_ends_although_its_server_lingers() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            hearing = await begun(client, server)
            message, stream = server.calls[-1]
            stream.send({"id": message["id"], "result": DONE})
            assert (await hearing.message())["result"] == DONE
            rest = await get(gateway, client.session, Last_Event_ID=hearing.events[0]["id"])
            assert gateway.front.calls.active, "it has not closed its stream"
            assert (await rest.message())["result"] == DONE
            assert await rest.message() is None
            stream.close()
            await until(gateway.settled)

    run(main)


def test_a_call_that_fails_without_its_client_tells_it_later() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            hearing = await begun(client, server)
            client.close()
            await until(lambda: all(one.response.connection is None for one in gateway.front.calls.active))
            server.calls[-1][1].close()
            await until(gateway.settled)
            rest = await get(gateway, client.session, Last_Event_ID=hearing.last_id)
            assert (await rest.message())["error"]["code"] == -31005
            assert await rest.message() is None

    run(main)


def test_older_clients_calls_have_no_ids() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client()
            said = await client.legacy("initialize", {"protocolVersion": "2025-03-26", "capabilities": {}})
            client.session = said.headers["mcp-session-id"]
            client.send("tools/call", CALL, meta={"progressToken": 1}, headers={"MCP-Protocol-Version": "2025-03-26"})
            hearing = Hearing(client, *(await client.read_head()))
            progress(server, 1)
            event = await hearing.event()
            assert event is not None and "id" not in event
            answer(server)

    run(main)


# --- who does not read, and the end of it all


def test_who_reads_nothing_is_dropped() -> None:
    async def main() -> None:
        uris = [f"test://{number}/{'x' * 2000}" for number in range(200)]
        async with Teller(answers={"resources/list": resources(*uris)}) as server, server.over() as gateway:
            client = await gateway.client()
            hearing = await listen(client, resourceSubscriptions=uris)
            await hearing.message()
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            stream = next(iter(gateway.front.hub.streams))
            rounds = 0
            while stream._paused_at is None:
                for uri in uris:
                    server.tell("notifications/resources/updated", uri=uri)
                await asyncio.sleep(0.03)
                rounds += 1
                assert rounds < 200, "a socket holds so much?"
            for _ in range(3):
                for uri in uris:
                    server.tell("notifications/resources/updated", uri=uri)
            await until(lambda: waiting(gateway) == len(uris))
            gateway.pass_time(streams.STALLED_S + 1)
            await until(lambda: nobody_listens(gateway))

    run(main)


def test_silent_streams_are_kept_alive() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            hearing = await listen(await gateway.client(), toolsListChanged=True)
            await hearing.message()
            gateway.pass_time(Limits().sse_comment_s)
            assert await hearing.client.read_chunk() == b":\n\n"

    run(main)


def test_a_gateway_that_stops_says_so_in_each_era() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            modern = await listen(await gateway.client(), toolsListChanged=True)
            await modern.message()
            client = await gateway.client(session=True)
            legacy = await get(gateway, client.session)
            await legacy.event()
            await gateway.front.hub.drain()
            last = await modern.message()
            assert last["id"] == last["result"]["_meta"][STAMP] == 1
            assert last["result"]["resultType"] == "complete"
            assert SERVER_INFO in last["result"]["_meta"].values()
            assert await modern.message() is None
            assert await legacy.event() == {"retry": "1000"}
            assert await legacy.event() is None
            assert not gateway.front.hub.streams

    run(main)


@UPSTREAM
def test_a_server_that_comes_back_is_heard_again(era: str) -> None:
    async def main() -> None:
        async with Teller(era) as server, server.over() as gateway:
            hearing = await listen(await gateway.client(), toolsListChanged=True, resourceSubscriptions=[WATCHED])
            await hearing.message()
            await heard(gateway)
            server.sessions.clear()
            server.answers["tools/list"] = {**server.answers["tools/list"], "tools": []}
            server.cut()
            told = {await hearing.told() for _ in range(2)}
            assert told == {("tools/list_changed", None), ("resources/updated", WATCHED)}, "both may have been missed"

    run(main)


def test_a_session_with_an_open_stream_is_not_idle() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            client = await gateway.client(session=True)
            hearing = await get(gateway, client.session)
            await hearing.event()
            for _ in range(40):
                gateway.pass_time(100)
                await asyncio.sleep(0)
            await heard(gateway)
            server.has("b")
            assert await hearing.told() == ("tools/list_changed", None)

    run(main)
