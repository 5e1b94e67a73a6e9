"""Questions that nobody answers, clients that give up, servers that do not wait: nothing is left behind."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from narthex.flow.accept.inputs import HOLD_S, MAX_LATE
from tests.flow.accept.asking import (
    ANSWERS,
    MANUAL,
    META_ABLE,
    Asker,
    Live,
    answer,
    arguments_of,
    ask_modern,
    beside,
    event,
    exchange_of,
    held,
    legacy_client,
    nothing_left,
    over,
    pushed,
    retry_of,
)
from tests.flow.gateway import LEGACY, run, until

ERAS = ["legacy", "modern"]


# --- nobody answers ---------------------------------------------------------------------------------------------------


def test_a_modern_client_that_never_comes_back() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, got = await held(upstream, gateway)
            gateway.pass_time(HOLD_S - 1)
            assert gateway.front.calls.held and gateway.fleet.servers["one"].in_flight == 1
            gateway.pass_time(3)
            assert nothing_left(gateway)
            await until(lambda: upstream.cancelled == [live.id])
            late = await ask_modern(await gateway.client(), retry_of(MANUAL, got))
            assert late.error["code"] == -32602
            breaker = gateway.fleet.servers["one"].breaker
            assert breaker.quiet and gateway.fleet.servers["one"].last_error is None, "the server did its part"

    run(main)


@pytest.mark.parametrize("server", ERAS)
def test_a_legacy_client_that_never_answers(server: Any) -> None:
    async def main() -> None:
        async with Asker(eras=server) as upstream, over(upstream) as gateway:
            client = await legacy_client(gateway)
            client.send("tools/call", arguments_of(rounds=[["form", "roots"]]))
            await client.read_head()
            asked = [await event(client), await event(client)]
            gateway.pass_time(HOLD_S - 1)
            assert len(gateway.front.calls.pushes) == 2
            gateway.pass_time(3)
            assert nothing_left(gateway)
            told = [await event(client), await event(client)]
            while "params" not in told[-1] or "requestId" not in told[-1]["params"]:
                told.append(await event(client))
            assert {one["method"] for one in told} == {"notifications/cancelled"}
            assert [one["params"]["requestId"] for one in told] == [one["id"] for one in asked]
            assert (await event(client))["error"]["code"] == -31006
            other = await beside(gateway, client)
            assert (await answer(other, asked[0]["id"], result=ANSWERS["form"])).status == 202
            assert not any(itertools.chain(*(live.answers.values() for live in upstream.lives)))
            if server == "legacy":
                await until(lambda: upstream.cancelled == [upstream.lives[0].id])
            assert gateway.fleet.servers["one"].last_error is None, "the server did its part"

    run(main)


@pytest.mark.parametrize("client", ERAS)
def test_a_server_that_hangs_behind_the_answer_has_its_own_time(client: str) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream, call_timeout_s=60) as gateway:
            if client == "legacy":
                one, live, asked = await pushed(upstream, gateway)
                gateway.pass_time(HOLD_S - 1)
                await answer(await beside(gateway, one), asked["id"], result=ANSWERS["roots"])
            else:
                _, live, got = await held(upstream, gateway)
                gateway.pass_time(HOLD_S - 1)
                one = await gateway.client()
                one.send("tools/call", retry_of(MANUAL, got), modern=True, meta=META_ABLE)
            await until(lambda: all(live.answers.values()))
            gateway.pass_time(59)
            assert gateway.front.calls.active, "60 seconds, counted from the answer"
            gateway.pass_time(3)
            assert nothing_left(gateway)
            final = await event(one) if client == "legacy" else (await one.read()).messages[-1]
            assert final["error"]["code"] == -31006
            await until(lambda: upstream.cancelled == [live.id])
            assert gateway.fleet.servers["one"].last_error is not None, "this time it is to blame"

    run(main)


def test_an_answer_gives_a_modern_server_its_full_time_even_over_a_new_channel() -> None:
    async def main() -> None:
        async with Asker(eras="modern") as upstream, over(upstream, call_timeout_s=60) as gateway:
            client = await legacy_client(gateway)
            client.send("tools/call", arguments_of(rounds=[["roots"]]))
            await client.read_head()
            asked = await event(client)
            gateway.pass_time(100)
            for channel in gateway.fleet.servers["one"].channels.values():
                channel.alive = False
            upstream.held = asyncio.Event()
            await answer(await beside(gateway, client), asked["id"], result=ANSWERS["roots"])
            await until(lambda: len(upstream.requests("tools/call")) == 2)
            gateway.pass_time(50)
            assert gateway.front.calls.active, "60 seconds, counted from the answer"
            upstream.held.set()
            assert "result" in await event(client)
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("server", ERAS)
def test_a_legacy_client_that_disconnects_may_still_answer(server: Any) -> None:
    """Disconnection is no cancellation (2025-11-25, transports)."""

    async def main() -> None:
        async with Asker(eras=server) as upstream, over(upstream) as gateway:
            client = await legacy_client(gateway)
            client.send("tools/call", arguments_of(rounds=[["roots"], ["roots"]]))
            await client.read_head()
            asked = await event(client)
            other = await beside(gateway, client)
            client.close()
            await until(lambda: len(gateway.shared.connections) == 1)
            assert (await answer(other, asked["id"], result=ANSWERS["roots"])).status == 202
            await until(lambda: gateway.front.calls.pushes)  # the second round is kept for a client that resumes
            ((_, id_),) = gateway.front.calls.pushes
            assert id_ != asked["id"]
            assert (await answer(other, id_, result=ANSWERS["roots"])).status == 202
            await until(lambda: nothing_left(gateway))
            assert gateway.counted("tools/call", "ask") == {"ok": 1}

    run(main)


def test_a_legacy_client_that_resumes_its_stream_finds_the_question_there() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client = await legacy_client(gateway)
            client.send("tools/call", MANUAL)
            await client.read_head()
            place = (await client.read_chunk()).decode().partition("id: ")[2].partition("\n")[0]
            client.close()
            await until(lambda: not gateway.shared.connections)
            upstream.lives[0].push("roots")
            await until(lambda: gateway.front.calls.pushes)
            again = await beside(gateway, client)
            lines = {"Mcp-Session-Id": client.session, "Last-Event-ID": place, "Accept": "text/event-stream"}
            again.http("GET", "/mcp", {"MCP-Protocol-Version": LEGACY, **lines})
            await again.read_head()
            asked = await event(again)
            await answer(await beside(gateway, client), asked["id"], result=ANSWERS["roots"])
            await until(lambda: all(upstream.lives[0].answers.values()))
            upstream.lives[0].finish()
            assert (await event(again))["result"]["content"][0]["text"] == "done"
            await until(lambda: nothing_left(gateway))

    run(main)


def test_a_modern_client_that_goes_while_the_server_works_cancels() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, got = await held(upstream, gateway)
            client.send("tools/call", retry_of(MANUAL, got), modern=True, meta=META_ABLE)
            await until(lambda: all(live.answers.values()))
            client.close()
            await until(lambda: nothing_left(gateway))
            await until(lambda: upstream.cancelled == [live.id])

    run(main)


def test_a_modern_client_that_goes_once_it_was_asked_cancels_nothing() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, got = await held(upstream, gateway)
            client.close()
            await until(lambda: not gateway.shared.connections)
            again = await gateway.client()
            again.send("tools/call", retry_of(MANUAL, got), modern=True, meta=META_ABLE)
            await until(lambda: all(live.answers.values()))
            live.finish()
            assert (await again.read()).text == "done"
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("server", ERAS)
@pytest.mark.parametrize("how", ["cancelled", "DELETE"])
def test_a_legacy_client_that_gives_up_while_it_is_asked(server: Any, how: str) -> None:
    async def main() -> None:
        async with Asker(eras=server) as upstream, over(upstream) as gateway:
            client = await legacy_client(gateway)
            id_ = client.send("tools/call", arguments_of(rounds=[["form", "roots"]]))
            await client.read_head()
            asked = await event(client)
            other = await beside(gateway, client)
            if how == "DELETE":
                assert client.session is not None
                other.http("DELETE", "/mcp", {"Mcp-Session-Id": client.session})
                assert (await other.read()).status == 204
            else:
                await other.legacy("notifications/cancelled", {"requestId": id_}, id_=None)
            await until(lambda: nothing_left(gateway))
            if server == "legacy":
                await until(lambda: upstream.cancelled == [upstream.lives[0].id])
            late = await answer(other, asked["id"], result=ANSWERS["form"])
            assert late.status == (404 if how == "DELETE" else 202)
            assert not any(itertools.chain(*(live.answers.values() for live in upstream.lives)))

    run(main)


# --- the server does not wait -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ERAS)
def test_a_server_that_takes_its_question_back(client: str) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            if client == "legacy":
                one, live, asked = await pushed(upstream, gateway)
            else:
                one, live, got = await held(upstream, gateway)
            live.send({"method": "notifications/cancelled", "params": {"requestId": "q1", "reason": "never mind"}})
            await until(lambda: not exchange_of(gateway).inputs._open)
            assert not gateway.front.calls.pushes
            if client == "legacy":
                told = await event(one)
                assert (told["method"], told["params"]["requestId"]) == ("notifications/cancelled", asked["id"])
                await answer(await beside(gateway, one), asked["id"], result=ANSWERS["roots"])
            else:
                one.send("tools/call", retry_of(MANUAL, got), modern=True, meta=META_ABLE)
                await until(lambda: not gateway.front.calls.held)
            live.finish()
            final = await event(one) if client == "legacy" else (await one.read()).messages[-1]
            assert final["result"]["content"][0]["text"] == "done"
            assert not any(live.answers.values()), "what was taken back is not answered"
            await until(lambda: nothing_left(gateway))

    run(main)


def test_a_server_that_finishes_while_a_legacy_client_is_asked() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, asked = await pushed(upstream, gateway)
            live.finish()
            told = await event(client)
            assert (told["method"], told["params"]["requestId"]) == ("notifications/cancelled", asked["id"])
            assert (await event(client))["result"]["content"][0]["text"] == "done"
            await until(lambda: nothing_left(gateway))

    run(main)


Ending = Callable[[Live], Any]


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        pytest.param(lambda live: live.finish(), None, id="with its answer"),
        pytest.param(lambda live: live.die(), -31005, id="by dying"),
        pytest.param(
            lambda live: live.send({"id": live.id, "error": {"code": 7, "message": "m"}}), 7, id="in an error"
        ),
        pytest.param(lambda live: live.send({"id": "x", "result": {}}), -31005, id="with another call's answer"),
        pytest.param(
            lambda live: live.finish({"content": [], "x": "y" * (MAX_LATE + 1)}), -31007, id="with more than is kept"
        ),
    ],
)
@pytest.mark.parametrize("answered", [True, False])
def test_a_server_that_ends_while_a_modern_client_is_away(ends: Ending, code: int | None, answered: bool) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, got = await held(upstream, gateway)
            inputs = exchange_of(gateway).inputs
            ends(live)
            await until(lambda: inputs._response is not None or inputs._ended)
            final = await ask_modern(client, retry_of(MANUAL, got, None if answered else {}))
            if code is None:
                assert final.text == "done"
            else:
                assert final.error["code"] == code
            assert not any(live.answers.values()), "nobody waits for an answer any more"
            live.over.set()
            gateway.pass_time(5)  # a server may leave its stream open behind its answer, for so long
            await until(lambda: nothing_left(gateway))

    run(main)


def test_of_all_that_a_server_says_while_nobody_listens_one_answer_is_kept() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, got = await held(upstream, gateway)
            inputs = exchange_of(gateway).inputs
            for number in range(100):
                live.send({"id": live.id, "result": {"content": [{"type": "text", "text": str(number)}]}})
                live.send({"method": "notifications/message", "params": {"level": "info", "data": "x" * 1000}})
            live.over.set()
            await until(lambda: inputs._ended or inputs._response is not None)
            assert (await ask_modern(client, retry_of(MANUAL, got))).text == "0"
            gateway.pass_time(5)  # a server may leave its stream open behind its answer, for so long
            await until(lambda: nothing_left(gateway))

    run(main)
