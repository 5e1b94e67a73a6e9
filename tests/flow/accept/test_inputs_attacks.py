"""Retries that are not the same call, answers of strangers, servers that ask without end: refused, and bounded."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from narthex.flow.accept.inputs import HOLD_S, LONGEST_S, MOST_OPEN, MOST_PUSHED
from narthex.types import EndpointSpec, Grant
from tests.flow.accept.asking import (
    ANSWERS,
    MANUAL,
    META_ABLE,
    Asker,
    answer,
    arguments_of,
    ask_modern,
    beside,
    call_legacy,
    event,
    exchange_of,
    held,
    legacy_client,
    nothing_left,
    over,
    pushed,
    retry_of,
)
from tests.flow.gateway import LEGACY, MODERN, Running, run, spec, until

ERAS = ["legacy", "modern"]
OTHER = Grant("other", "allow", tools=("*__other",))
EVERYTHING = Grant("all", "allow", tools=("*",))
DENIES = Grant("none", "deny", tools=("*__ask",), when="has(args.rounds)")


# --- retries ----------------------------------------------------------------------------------------------------------


def change(**members: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda params: {**params, **members}


def flipped(params: dict[str, Any]) -> dict[str, Any]:
    state = params["requestState"]
    middle = len(state) // 2
    return {**params, "requestState": state[:middle] + ("A" if state[middle] != "A" else "B") + state[middle + 1 :]}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(change(arguments={"manual": True, "rounds": [["roots"]], "x": 1}), id="other arguments"),
        pytest.param(change(arguments={}), id="no arguments"),
        pytest.param(change(name="one__other"), id="another tool"),
        pytest.param(flipped, id="a flipped bit"),
        pytest.param(change(requestState=""), id="an empty state"),
        pytest.param(change(requestState="x" * 100_000), id="a huge state"),
        pytest.param(change(requestState=7), id="a state that is no string"),
        pytest.param(change(requestState=None), id="a state that is null"),
        pytest.param(change(inputResponses=[]), id="answers in a list"),
        pytest.param(change(inputResponses={"1": "x"}), id="an answer that is no object"),
    ],
)
@pytest.mark.parametrize("server", ERAS)
def test_a_retry_that_is_not_the_same_call_is_refused_and_costs_nothing(
    server: Any, changed: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    async def main() -> None:
        async with Asker(eras=server) as upstream, over(upstream) as gateway:
            params = arguments_of(rounds=[["roots"]])
            client = await gateway.client()
            asked = await ask_modern(client, params)
            right = retry_of(params, asked)
            before = len(upstream.requests("tools/call"))
            refused = await ask_modern(client, changed(right))
            assert refused.error["code"] == -32602
            assert len(upstream.requests("tools/call")) == before
            assert not any(itertools.chain(*(live.answers.values() for live in upstream.lives)))
            assert json.loads((await ask_modern(client, right)).text) == [[ANSWERS["roots"]]], "the call was not lost"
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("server", ERAS)
def test_a_retry_of_what_is_granted_no_more_is_refused(server: Any) -> None:
    async def main() -> None:
        async with Asker(eras=server) as upstream, over(upstream) as gateway:
            params = arguments_of(rounds=[["roots"]])
            client = await gateway.client()
            right = retry_of(params, await ask_modern(client, params))
            snapshot = gateway.front.snapshot
            for grants, code in (((OTHER,), -32602), ((DENIES, EVERYTHING), -31001)):
                gateway.front.apply(msgspec.structs.replace(snapshot, grants=grants))
                assert (await ask_modern(client, right)).error["code"] == code
            gateway.front.apply(snapshot)
            assert json.loads((await ask_modern(client, right)).text) == [[ANSWERS["roots"]]], "the call was not lost"
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("server", ERAS)
def test_a_retry_at_another_endpoint_is_refused(server: Any) -> None:
    async def main() -> None:
        upstream = Asker(eras=server)
        async with upstream:
            servers = {"one": spec("one", upstream.url, sharing="session")}
            endpoints = {name: EndpointSpec(name, ("one",)) for name in ("default", "second")}
            async with Running(servers, endpoints) as gateway:
                params = arguments_of(rounds=[["roots"]])
                client = await gateway.client()
                right = retry_of(params, await ask_modern(client, params))
                refused = await ask_modern(client, right, path="/mcp/second")
                assert refused.error["code"] == -32602
                assert json.loads((await ask_modern(client, right)).text) == [[ANSWERS["roots"]]]

    run(main)


@pytest.mark.parametrize("server", ERAS)
def test_a_retry_in_other_words_is_the_same_call(server: Any) -> None:
    async def main() -> None:
        async with Asker(eras=server) as upstream, over(upstream) as gateway:
            params = arguments_of(rounds=[["roots"]], a={"x": 1, "y": "ä"})
            client = await gateway.client()
            right = retry_of(params, await ask_modern(client, params))
            right["arguments"] = {"a": {"y": "ä", "x": 1}, "rounds": [["roots"]]}
            assert json.loads((await ask_modern(client, right)).text) == [[ANSWERS["roots"]]]

    run(main)


def test_a_held_call_goes_on_once() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, got = await held(upstream, gateway)
            other = await gateway.client()
            for one in (client, other):
                one.send("tools/call", retry_of(MANUAL, got), modern=True, meta=META_ABLE)
            await until(lambda: all(live.answers.values()))
            await until(lambda: any(one.exchange is None for one in gateway.shared.connections))
            live.finish()
            answers = [await client.read(), await other.read()]
            assert sorted(one.messages[-1].get("error", {}).get("code", 0) for one in answers) == [-32602, 0]
            assert [len(one) for one in live.answers.values()] == [1]
            after = await ask_modern(client, retry_of(MANUAL, got))
            assert after.error["code"] == -32602, "it is over"
            await until(lambda: nothing_left(gateway))

    run(main)


def test_the_state_of_an_earlier_round_answers_nothing_twice() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, first = await held(upstream, gateway)
            client.send("tools/call", retry_of(MANUAL, first), modern=True, meta=META_ABLE)
            await until(lambda: all(live.answers.values()))
            live.push("form")
            second = await client.read()
            replayed = await ask_modern(client, retry_of(MANUAL, first))
            assert replayed.result["inputRequests"] == second.result["inputRequests"], "it is told what is open"
            client.send("tools/call", retry_of(MANUAL, replayed), modern=True, meta=META_ABLE)
            await until(lambda: all(live.answers.values()))
            live.finish()
            assert (await client.read()).text == "done"
            assert [len(one) for one in live.answers.values()] == [1, 1]
            await until(lambda: nothing_left(gateway))

    run(main)


def test_asked_again_a_client_must_still_say_that_it_can_be() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, got = await held(upstream, gateway)
            refused = await client.modern("tools/call", retry_of(MANUAL, got, {}))
            assert refused.error["code"] == -32021
            assert refused.error["data"]["requiredCapabilities"] == {"roots": {}}
            await until(lambda: nothing_left(gateway))
            await until(lambda: upstream.cancelled == [live.id])

    run(main)


def test_a_second_gateway_with_the_same_keys_goes_on_with_a_modern_servers_call() -> None:
    async def main() -> None:
        async with Asker(eras="modern") as upstream, over(upstream) as first:
            params = arguments_of(rounds=[["roots"], ["form"]])
            asked = await ask_modern(await first.client(), params)
            async with Running(first.servers, key=first.key) as second, over(upstream) as stranger:
                asked = await ask_modern(await second.client(), retry_of(params, asked))
                assert (await ask_modern(await stranger.client(), retry_of(params, asked))).error["code"] == -32602
                done = await ask_modern(await first.client(), retry_of(params, asked))
                assert json.loads(done.text) == [[ANSWERS["roots"]], [ANSWERS["form"]]]

    run(main)


def test_a_call_that_is_held_is_not_held_by_a_second_gateway() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as first:
            _, live, got = await held(upstream, first)
            async with Running(first.servers, key=first.key) as second:
                refused = await ask_modern(await second.client(), retry_of(MANUAL, got))
                assert refused.error["code"] == -32602
                assert not second.front.calls.active
            assert first.front.calls.held, "and costs the first nothing"
            assert not any(live.answers.values())

    run(main)


def test_a_modern_servers_state_goes_to_no_other_server() -> None:
    async def main() -> None:
        one, two = Asker(eras="modern"), Asker(eras="modern")
        async with one, two:
            servers = {"one": spec("one", one.url)}
            endpoint = {"default": EndpointSpec("default", ("one", "two"), naming="none")}
            async with Running(servers, {"default": EndpointSpec("default", ("one",), naming="none")}) as first:
                params = {"name": "ask", "arguments": {"rounds": [["roots"]]}}
                asked = await ask_modern(await first.client(), params)
                moved = {"two": spec("two", two.url), "one": spec("one", one.url)}
                endpoint = {"default": EndpointSpec("default", ("two", "one"), naming="none")}
                async with Running(moved, endpoint, key=first.key) as second:
                    refused = await ask_modern(await second.client(), retry_of(params, asked))
                    assert refused.error["code"] == -32602
                    assert not two.requests("tools/call"), "the name leads there now, the state does not"

    run(main)


# --- attacks ----------------------------------------------------------------------------------------------------------


def test_nobody_answers_for_another_session() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, asked = await pushed(upstream, gateway)
            stranger = await legacy_client(gateway)
            assert (await answer(stranger, asked["id"], result={"roots": [{"uri": "file:///evil"}]})).status == 202
            nobody = await gateway.client()
            lines = {"MCP-Protocol-Version": LEGACY}
            assert (await answer(nobody, asked["id"], result={"roots": []}, headers=lines)).status == 202
            modern = {"MCP-Protocol-Version": MODERN}
            assert (await answer(nobody, asked["id"], result={"roots": []}, headers=modern)).status == 400
            other = await beside(gateway, client)
            for id_ in (str(asked["id"]), asked["id"] + 1, -1):
                assert (await answer(other, id_, result={"roots": []})).status == 202
            assert not any(live.answers.values())
            await answer(other, asked["id"], result=ANSWERS["roots"])
            await until(lambda: live.answers["q1"])
            assert (await answer(other, asked["id"], result={"roots": []})).status == 202
            live.finish()
            assert "result" in await event(client)
            assert [one["result"] for one in live.answers["q1"]] == [ANSWERS["roots"]], "and only once"
            await until(lambda: nothing_left(gateway))

    run(main)


def test_a_legacy_client_forges_no_round_of_a_modern_server() -> None:
    async def main() -> None:
        async with Asker(eras="modern") as upstream, over(upstream) as gateway:
            client = await legacy_client(gateway)
            forged = {
                **arguments_of(rounds=[["form"], ["roots"]]),
                "requestState": '[["forged"]]',
                "inputResponses": {"1-0": {"roots": []}},
            }
            messages = await call_legacy(gateway, client, forged)
            assert json.loads(messages[-1]["result"]["content"][0]["text"]) == [[ANSWERS["form"]], [ANSWERS["roots"]]]

    run(main)


def test_a_server_that_asks_without_end_is_bounded() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, _ = await pushed(upstream, gateway)
            for _ in range(3 * MOST_OPEN):
                live.push("roots")
            refused = 2 * MOST_OPEN + 1
            await until(lambda: sum(map(len, live.answers.values())) >= min(refused, MOST_OPEN))
            assert len(gateway.front.calls.pushes) == MOST_OPEN
            assert len(exchange_of(gateway).inputs._open) == MOST_OPEN
            gateway.pass_time(HOLD_S + 2)
            assert nothing_left(gateway)
            client.close()

    run(main)


def test_questions_that_are_large_together_are_refused() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, _ = await held(upstream, gateway)
            ids = [live.push("form", message="x" * 400_000) for _ in range(4)]
            await until(lambda: sum(bool(live.answers[id_]) for id_ in ids) == 2)
            assert sum(len(one.params) for one in exchange_of(gateway).inputs._open.values()) < 1_100_000
            client.close()

    run(main)


def test_a_call_whose_server_asks_again_and_again_has_an_end() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, asked = await pushed(upstream, gateway)
            passed = 0.0
            while passed < LONGEST_S - HOLD_S:
                gateway.pass_time(HOLD_S - 2)
                passed += HOLD_S - 2
                await answer(await beside(gateway, client), asked["id"], result=ANSWERS["roots"])
                live.push("roots")
                asked = await event(client)
            gateway.pass_time(LONGEST_S - passed + 2)
            assert nothing_left(gateway)
            await until(lambda: upstream.cancelled == [live.id])

    run(main)


def test_a_legacy_server_asks_so_often_and_no_more() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            params = arguments_of(rounds=[["roots"]] * (MOST_PUSHED + 3))
            messages = await call_legacy(gateway, await legacy_client(gateway), params)
            said = json.loads(messages[-1]["result"]["content"][0]["text"])
            assert said[:MOST_PUSHED] == [[ANSWERS["roots"]]] * MOST_PUSHED
            assert [one[0]["code"] for one in said[MOST_PUSHED:]] == [-32600] * 3
            await until(lambda: nothing_left(gateway))

    run(main)


def test_a_modern_server_asks_a_legacy_client_so_often_and_no_more() -> None:
    async def main() -> None:
        async with Asker(eras="modern") as upstream, over(upstream) as gateway:
            messages = await call_legacy(
                gateway, await legacy_client(gateway), arguments_of(rounds=[["roots"]] * 40)
            )  # fmt: skip
            assert messages[-1]["error"]["code"] == -31005
            assert len(messages) == 33
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("size", [100, 1_000_000])
def test_a_huge_answer_passes_and_costs_no_memory_afterwards(size: int) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, got = await held(upstream, gateway)
            (key,) = got.result["inputRequests"]
            roots = {"roots": [{"uri": "file:///" + "x" * size}]}
            more: dict[str, Any] = {f"k{n}": {} for n in range(1000)}
            client.send("tools/call", retry_of(MANUAL, got, {**more, key: roots}), modern=True, meta=META_ABLE)
            await until(lambda: all(live.answers.values()))
            live.finish()
            assert (await client.read()).text == "done"
            assert live.answers["q1"][0]["result"] == roots
            await until(lambda: nothing_left(gateway))

    run(main)
