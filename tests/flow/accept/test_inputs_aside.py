"""What a legacy server asks on a stream of its own, while a client's call is under way that never opened one (GET).

A modern client cannot open one, and few legacy clients do. Real sockets; both eras of clients.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.flow.accept.asking import (
    ANSWERS,
    META_ABLE,
    Asker,
    arguments_of,
    ask_modern,
    call_legacy,
    event,
    legacy_client,
    nothing_left,
    over,
    retry_of,
)
from tests.flow.gateway import run, until
from tests.flow.notify.hearing import get

ROUNDS = [[["form"]], [["roots", "sampling"], ["url"]]]
BOTH = pytest.mark.parametrize("client", ["legacy", "modern"])


def aside() -> Asker:
    return Asker(eras="legacy", aside=True)


async def answered(gateway: Any, client: str, rounds: list[list[str]]) -> Any:
    """The result of a call whose client answers whatever it is asked."""
    params = arguments_of(rounds=rounds)
    if client == "legacy":
        return (await call_legacy(gateway, await legacy_client(gateway), params))[-1]["result"]
    one = await gateway.client()
    got = await ask_modern(one, params)
    while got.result["resultType"] == "input_required":
        got = await ask_modern(one, retry_of(params, got))
    return got.result


@BOTH
@pytest.mark.parametrize("rounds", ROUNDS, ids=json.dumps)
def test_the_first_call_of_a_client_hears_it(client: str, rounds: list[list[str]]) -> None:
    async def main() -> None:
        async with aside() as upstream, over(upstream) as gateway:
            result = await answered(gateway, client, rounds)
            assert json.loads(result["content"][0]["text"]) == [[ANSWERS[kind] for kind in kinds] for kinds in rounds]
            assert upstream.gets == 1
            await until(lambda: nothing_left(gateway))

    run(main)


def test_every_session_has_a_stream_of_its_own_and_no_client_hears_another() -> None:
    async def main() -> None:
        async with aside() as upstream, over(upstream) as gateway:
            calls = []
            for number in range(3):
                client = await legacy_client(gateway)
                client.send("tools/call", arguments_of(manual=True, who=number))
                calls.append(client)
            await until(lambda: len(upstream.lives) == 3)
            assert upstream.gets == 3
            for live in upstream.lives:
                live.push("form", message=str(live.arguments["who"]))
            for number, client in enumerate(calls):
                await client.read_head()
                assert (await event(client))["params"]["message"] == str(number)

    run(main)


@BOTH
def test_what_belongs_to_no_call_is_refused_and_asks_nobody(client: str) -> None:
    async def main() -> None:
        async with aside() as upstream, over(upstream) as gateway:
            await answered(gateway, client, [["form"]])
            late = upstream.lives[0]
            id_ = late.push("form")
            await until(lambda: late.answers[id_])
            assert "no call" in late.answers[id_][0]["error"]["message"]
            assert nothing_left(gateway)

    run(main)


def test_with_two_calls_under_way_nobody_can_say_whose_it_is() -> None:
    async def main() -> None:
        async with aside() as upstream, over(upstream) as gateway:
            one, other = await gateway.client(), await gateway.client()
            for client in (one, other):
                client.send("tools/call", arguments_of(manual=True), modern=True, meta=META_ABLE)
            await until(lambda: len(upstream.lives) == 2)
            live = upstream.lives[0]
            id_ = live.push("form")
            await until(lambda: live.answers[id_])
            assert "several calls" in live.answers[id_][0]["error"]["message"]
            for live in upstream.lives:
                live.finish()
            for client in (one, other):
                assert (await client.read()).text == "done"

    run(main)


def test_a_legacy_client_with_a_stream_of_its_own_makes_no_second_one() -> None:
    async def main() -> None:
        async with aside() as upstream, over(upstream) as gateway:
            client = await legacy_client(gateway)
            assert (await get(gateway, client.session)).status == 200
            await call_legacy(gateway, client, arguments_of(rounds=[["form"]]))
            assert upstream.gets == 1

    run(main)


def test_the_stream_ends_with_the_session() -> None:
    async def main() -> None:
        async with aside() as upstream, over(upstream) as gateway:
            await answered(gateway, "modern", [["form"]])
            gateway.pass_time(700.0)
            await until(lambda: not upstream.sessions and not gateway.fleet.servers["one"].listenings)

    run(main)


def test_no_stream_is_opened_for_a_client_that_can_be_asked_nothing() -> None:
    async def main() -> None:
        async with aside() as upstream, over(upstream) as gateway:
            client = await gateway.client()
            client.send("tools/call", arguments_of(manual=True), modern=True)
            await until(lambda: upstream.lives)
            assert upstream.gets == 0

    run(main)
