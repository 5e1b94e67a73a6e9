"""What a server asks while it works on a call: both eras of clients and of servers, over real sockets.

Asked, answered, refused, given up, attacked; and whatever happens, nothing of it is left behind.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from narthex.flow.accept.inputs import HOLD_S, LONGEST_S, MAX_LATE, MOST_OPEN, MOST_PUSHED
from narthex.types import EndpointSpec, ServerSpec, StdioTarget
from tests.flow.accept.asking import (
    ANSWERS,
    CAPABILITIES,
    META_ABLE,
    QUESTIONS,
    Asker,
    Live,
    answer,
    arguments_of,
    ask_modern,
    beside,
    event,
    kind_of,
    legacy_client,
    nothing_left,
    over,
    retry_of,
)
from tests.flow.gateway import LEGACY, MODERN, Client, Running, run, spec, until
from tests.flow.upstream.test_stdio import PRELUDE

ERAS = ["legacy", "modern"]
MANUAL = arguments_of(manual=True)
each_pair = pytest.mark.parametrize(
    ("client", "server"),
    [pytest.param(client, server, id=f"{client} client, {server} server") for client in ERAS for server in ERAS],
)
ROUNDS = [
    *([[kind]] for kind in QUESTIONS),
    [["form", "url", "sampling", "roots"]],
    [["form"], ["form"]],
    [["roots", "sampling"], ["url"], ["form", "roots"]],
]


async def call_legacy(gateway: Running, client: Client, params: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """Call, and answer all that is asked. Returns every message of the stream."""
    other = await beside(gateway, client)
    client.send("tools/call", params, **options)
    status, headers = await client.read_head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    messages: list[dict[str, Any]] = []
    while not messages or "method" in messages[-1]:
        messages.append(await event(client))
        if "id" in messages[-1] and "method" in messages[-1]:
            asked = messages[-1]
            kind = kind_of(asked["method"], asked["params"])
            assert (await answer(other, asked["id"], result=ANSWERS[kind])).status == 202
    assert await client.read_chunk() == b""
    return messages


# --- asked and answered -------------------------------------------------------------------------------------------


@each_pair
@pytest.mark.parametrize("rounds", ROUNDS, ids=json.dumps)
def test_every_question_is_asked_and_answered(client: str, server: Any, rounds: list[list[str]]) -> None:
    async def main() -> None:
        async with Asker(eras=server) as upstream, over(upstream) as gateway:
            params = arguments_of(rounds=rounds)
            expected = [[ANSWERS[kind] for kind in kinds] for kinds in rounds]
            if client == "legacy":
                messages = await call_legacy(gateway, await legacy_client(gateway), params)
                asked = [kind_of(one["method"], one["params"]) for one in messages[:-1]]
                assert asked == list(itertools.chain(*rounds))
                urls = [one["params"] for one in messages[:-1] if "url" in one["params"]]
                assert all(("elicitationId" in one) is (server == "modern") for one in urls)
                result = messages[-1]["result"]
            else:
                one = await gateway.client()
                got, told = await ask_modern(one, params), 0
                while got.result["resultType"] == "input_required":
                    told += len(got.result["inputRequests"])
                    got = await ask_modern(one, retry_of(params, got))
                assert told <= len(list(itertools.chain(*rounds)))
                result = got.result
            assert json.loads(result["content"][0]["text"]) == expected
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("method", ["prompts/get", "resources/read"])
@pytest.mark.parametrize("client", ERAS)
def test_prompts_and_resources_may_ask_too(client: str, method: str) -> None:
    async def main() -> None:
        prompts, resources = [{"name": "ask"}], [{"uri": "x:ask", "name": "ask"}]
        upstream = Asker(eras="legacy", prompts=prompts, resources=resources)
        async with upstream, over(upstream) as gateway:
            params = {"name": "one__ask"} if method == "prompts/get" else {"uri": "x:ask"}
            one = await legacy_client(gateway) if client == "legacy" else await gateway.client()
            one.send(method, params, modern=client == "modern", meta=META_ABLE if client == "modern" else None)
            await until(lambda: upstream.lives)
            id_ = upstream.lives[0].push("roots")
            if client == "legacy":
                await one.read_head()
                await answer(await beside(gateway, one), (await event(one))["id"], result=ANSWERS["roots"])
            else:
                got = await one.read()
                one.send(method, retry_of(params, got), modern=True, meta=META_ABLE)
            await until(lambda: upstream.lives[0].answers[id_])
            upstream.lives[0].finish({"messages": [], "contents": []})
            final = await event(one) if client == "legacy" else (await one.read()).messages[-1]
            assert final["result"]["messages"] == []
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize(("version", "has_id"), [("2025-11-25", True), ("2025-06-18", False)])
def test_an_elicitation_by_url_has_an_id_where_the_session_knows_one(version: str, has_id: bool) -> None:
    async def main() -> None:
        async with Asker(eras="modern") as upstream, over(upstream) as gateway:
            client = await legacy_client(gateway, version=version)
            lines = {"MCP-Protocol-Version": version}
            messages = await call_legacy(gateway, client, arguments_of(rounds=[["url"]]), headers=lines)
            assert ("elicitationId" in messages[0]["params"]) is has_id

    run(main)


def test_progress_goes_on_around_the_questions_with_the_token_of_each_request() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client = await gateway.client()
            client.send("tools/call", MANUAL, modern=True, meta={**META_ABLE, "progressToken": "first"})
            await until(lambda: upstream.lives)
            live = upstream.lives[0]
            progress = {"method": "notifications/progress", "params": {"progressToken": live.id, "progress": 1}}
            live.send(progress)
            live.push("roots")
            got = await client.read()
            assert [one["params"]["progressToken"] for one in got.messages[:-1]] == ["first"]
            live.send(progress)  # nobody is there to hear it
            meta = {**META_ABLE, "progressToken": "second"}
            client.send("tools/call", retry_of(MANUAL, got), modern=True, meta=meta)
            await until(lambda: all(live.answers.values()))
            live.send(progress)
            live.finish()
            got = await client.read()
            assert [one["params"]["progressToken"] for one in got.messages[:-1]] == ["second"]
            await until(lambda: nothing_left(gateway))

    run(main)


def test_questions_asked_while_a_modern_client_is_away_are_told_when_it_is_back() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, got = await held(upstream, gateway)
            live.push("form")
            live.push("sampling")
            await until(lambda: len(exchange_of(gateway)._inputs._open) == 3)
            got = await ask_modern(client, retry_of(MANUAL, got))
            asked = [kind_of(**one) for one in got.result["inputRequests"].values()]
            assert asked == ["form", "sampling"]
            client.send("tools/call", retry_of(MANUAL, got), modern=True, meta=META_ABLE)
            await until(lambda: all(live.answers.values()))
            live.finish()
            assert (await client.read()).text == "done"
            assert all(len(one) == 1 for one in live.answers.values())
            await until(lambda: nothing_left(gateway))

    run(main)


def test_what_a_retry_leaves_out_is_asked_again() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, got = await held(upstream, gateway)
            again = await ask_modern(client, retry_of(MANUAL, got, {"unknown": {}}))
            assert again.result["inputRequests"] == got.result["inputRequests"]
            assert not any(live.answers.values())
            client.send("tools/call", retry_of(MANUAL, again), modern=True, meta=META_ABLE)
            await until(lambda: all(live.answers.values()))
            live.finish()
            assert (await client.read()).text == "done"
            await until(lambda: nothing_left(gateway))

    run(main)


def test_a_state_alone_is_a_pause_for_a_legacy_client_and_a_retry_for_a_modern_one() -> None:
    async def main() -> None:
        def work(params: dict[str, Any]) -> dict[str, Any]:
            if params.get("requestState") == "2":
                return {"content": [{"type": "text", "text": json.dumps(params.get("inputResponses"))}]}
            return {"resultType": "input_required", "requestState": "2" if "requestState" in params else "1"}

        async with Asker(eras="modern", answers={"other": work}) as upstream, over(upstream) as gateway:
            params = {"name": "one__other"}
            client = await legacy_client(gateway)
            assert (await client.legacy("tools/call", params)).text == "null"
            one = await gateway.client()
            first = await ask_modern(one, params)
            second = await ask_modern(one, retry_of(params, first))
            assert (await ask_modern(one, retry_of(params, second))).text == "{}"
            await until(lambda: nothing_left(gateway))

    run(main)


def test_a_legacy_servers_url_required_asks_a_modern_client_and_is_called_again() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            url = {**QUESTIONS["url"][1], "elicitationId": "e"}
            error = {"code": -32042, "message": "m", "data": {"elicitations": [url]}}
            client = await gateway.client()
            client.send("tools/call", MANUAL, modern=True, meta=META_ABLE)
            await until(lambda: upstream.lives)
            upstream.lives[0].send({"id": upstream.lives[0].id, "error": error})
            upstream.lives[0].over.set()
            got = await client.read()
            assert [kind_of(**one) for one in got.result["inputRequests"].values()] == ["url"]
            assert "requestState" not in got.result
            client.send("tools/call", retry_of(MANUAL, got), modern=True, meta=META_ABLE)
            await until(lambda: len(upstream.lives) == 2)
            sent = upstream.requests("tools/call")[-1].params
            assert "inputResponses" not in sent, "a legacy server knows no rounds"
            upstream.lives[1].finish()
            assert (await client.read()).text == "done"
            unable = await gateway.client()
            unable.send("tools/call", MANUAL, modern=True)
            await until(lambda: len(upstream.lives) == 3)
            upstream.lives[2].send({"id": upstream.lives[2].id, "error": error})
            upstream.lives[2].over.set()
            refused = (await unable.read()).error
            assert (refused["code"], refused["data"]["requiredCapabilities"]) == (-32021, {"elicitation": {"url": {}}})

    run(main)


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "lacking"),
    [
        ("form", {"elicitation": {"form": {}}}),
        ("url", {"elicitation": {"url": {}}}),
        ("sampling", {"sampling": {}}),
        ("roots", {"roots": {}}),
    ],
)
@pytest.mark.parametrize("client", ERAS)
def test_a_modern_server_may_not_ask_what_was_not_declared(client: str, kind: str, lacking: dict[str, Any]) -> None:
    async def main() -> None:
        async with Asker(eras="modern") as upstream, over(upstream) as gateway:
            params = arguments_of(rounds=[[kind]])
            if client == "legacy":
                got = await (await legacy_client(gateway, {})).legacy("tools/call", params)
            else:
                got = await (await gateway.client()).modern("tools/call", params)
                assert (got.status, got.error["code"]) == (400, -32021)
            assert got.error["data"]["requiredCapabilities"] == lacking
            assert gateway.fleet.servers["one"].last_error is None, "it is not to blame"
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("kind", QUESTIONS)
@pytest.mark.parametrize("client", ERAS)
def test_a_legacy_server_that_asks_what_was_not_declared_is_refused_and_goes_on(client: str, kind: str) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            one = await legacy_client(gateway, {}) if client == "legacy" else await gateway.client()
            one.send("tools/call", arguments_of(rounds=[[kind]]), modern=client == "modern")
            refused = json.loads((await one.read()).text)[0][0]
            assert refused["code"] in (-32600, -32601)
            assert upstream.requests("initialize")[0].params["capabilities"] == {}
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("sharing", ["tenant", "principal"])
@pytest.mark.parametrize("client", ERAS)
def test_a_server_that_clients_share_is_told_nothing_of_them_and_may_ask_nothing(client: str, sharing: str) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream, sharing=sharing) as gateway:
            one = await legacy_client(gateway) if client == "legacy" else await gateway.client()
            meta = META_ABLE if client == "modern" else None
            one.send("tools/call", arguments_of(rounds=[["form", "roots"]]), modern=client == "modern", meta=meta)
            refused = json.loads((await one.read()).text)[0]
            assert [answer["code"] for answer in refused] == [-32601, -32601]
            assert upstream.requests("initialize")[0].params["capabilities"] == {}
            await until(lambda: nothing_left(gateway))

    run(main)


def test_a_session_is_declared_what_its_client_can_be_asked() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            capabilities = {"roots": {"listChanged": True}, "sampling": {}, "tasks": {}, "experimental": {"x": {}}}
            await call_legacy(gateway, await legacy_client(gateway, capabilities), arguments_of(rounds=[["roots"]]))
            await ask_modern(await gateway.client(), arguments_of(rounds=[["roots"]]))
            await (await gateway.client()).modern("tools/call", arguments_of(rounds=[]))
            declared = [one.params["capabilities"] for one in upstream.requests("initialize")]
            assert declared[0] == {"roots": {"listChanged": True}, "sampling": {}}
            assert declared[1:] == [CAPABILITIES, {}], "one upstream session for each set of capabilities"

    run(main)


def test_a_client_without_a_session_or_a_stream_cannot_be_asked() -> None:
    async def main() -> None:
        async with Asker(eras="modern") as upstream, over(upstream) as gateway:
            sessionless = await gateway.client()
            got = await sessionless.legacy("tools/call", arguments_of(rounds=[["roots"]]))
            assert got.error["data"]["requiredCapabilities"] == {"roots": {}}
            client = await legacy_client(gateway)
            params = arguments_of(rounds=[["roots"]])
            got = await client.legacy("tools/call", params, headers={"Accept": "application/json"})
            assert got.error["data"]["reason"] == "missing_capability"
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("server", ERAS)
@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_legacy_client_that_refuses(server: Any, kind: str) -> None:
    """A legacy server is told so. A modern one knows no such answer, but for elicitation."""

    async def main() -> None:
        async with Asker(eras=server) as upstream, over(upstream) as gateway:
            client = await legacy_client(gateway)
            client.send("tools/call", arguments_of(rounds=[[kind]]))
            await client.read_head()
            refused = {"code": -1, "message": "the user does not want it"}
            await answer(await beside(gateway, client), (await event(client))["id"], error=refused)
            final = await event(client)
            if server == "legacy":
                assert json.loads(final["result"]["content"][0]["text"]) == [[refused]]
            elif kind in ("form", "url"):
                assert json.loads(final["result"]["content"][0]["text"]) == [[{"action": "cancel"}]]
            else:
                assert final["error"]["code"] == -31005
                breaker = gateway.fleet.servers["one"].breaker
                assert breaker.quiet and gateway.fleet.servers["one"].last_error is None, "it is not to blame"
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize(
    "member",
    [{"result": [1]}, {"result": None}, {"result": "x"}, {"error": {}}, {"error": 5}, {"error": {"code": "x"}}],
)
def test_an_answer_that_is_none_reaches_no_server_as_it_is(member: dict[str, Any]) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client = await legacy_client(gateway)
            client.send("tools/call", arguments_of(rounds=[["roots"]]))
            await client.read_head()
            other = await beside(gateway, client)
            await answer(other, (await event(client))["id"], **member)
            said = json.loads((await event(client))["result"]["content"][0]["text"])
            assert said[0][0]["code"] == -32603
            await until(lambda: nothing_left(gateway))

    run(main)


# --- nobody answers -----------------------------------------------------------------------------------------------


async def held(
    upstream: Asker, gateway: Running, kind: str = "roots", params: dict[str, Any] = MANUAL, **options: Any
) -> tuple[Client, Live, Any]:
    """A modern client that was asked, and the call that is held for it."""
    client = await gateway.client()
    before = len(upstream.lives)
    client.send("tools/call", params, modern=True, meta=META_ABLE, **options)
    await until(lambda: len(upstream.lives) > before)
    live = upstream.lives[before]
    live.push(kind)
    got = await client.read()
    assert got.result["resultType"] == "input_required"
    return client, live, got


async def pushed(
    upstream: Asker, gateway: Running, kind: str = "roots", params: dict[str, Any] = MANUAL
) -> tuple[Client, Live, dict[str, Any]]:
    """A legacy client that was asked, and what it was asked."""
    client = await legacy_client(gateway)
    before = len(upstream.lives)
    client.send("tools/call", params)
    await until(lambda: len(upstream.lives) > before)
    live = upstream.lives[before]
    live.push(kind)
    await client.read_head()
    return client, live, await event(client)


def exchange_of(gateway: Running) -> Any:
    (one,) = gateway.front.active
    return one


def test_a_modern_client_that_never_comes_back() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, got = await held(upstream, gateway)
            gateway.pass_time(HOLD_S - 1)
            assert gateway.front.held and gateway.fleet.servers["one"].in_flight == 1
            gateway.pass_time(3)
            assert nothing_left(gateway)
            await until(lambda: upstream.cancelled == [live.id])
            late = await ask_modern(client, retry_of(MANUAL, got))
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
            assert len(gateway.front.pushes) == 2
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
                one, live, got = await held(upstream, gateway)
                gateway.pass_time(HOLD_S - 1)
                one.send("tools/call", retry_of(MANUAL, got), modern=True, meta=META_ABLE)
            await until(lambda: all(live.answers.values()))
            gateway.pass_time(59)
            assert gateway.front.active, "60 seconds, counted from the answer"
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
            assert gateway.front.active, "60 seconds, counted from the answer"
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
            await until(lambda: nothing_left(gateway))  # the second round asks nobody, and ends it
            if server == "legacy":
                assert upstream.lives[0].answers["q1"][0]["result"] == ANSWERS["roots"]
                assert upstream.lives[0].answers["q2"][0]["error"]["code"] == -32600

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


# --- the server does not wait -------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ERAS)
def test_a_server_that_takes_its_question_back(client: str) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            if client == "legacy":
                one, live, asked = await pushed(upstream, gateway)
            else:
                one, live, got = await held(upstream, gateway)
            live.send({"method": "notifications/cancelled", "params": {"requestId": "q1", "reason": "never mind"}})
            await until(lambda: not exchange_of(gateway)._inputs._open)
            assert not gateway.front.pushes
            if client == "legacy":
                told = await event(one)
                assert (told["method"], told["params"]["requestId"]) == ("notifications/cancelled", asked["id"])
                await answer(await beside(gateway, one), asked["id"], result=ANSWERS["roots"])
            else:
                one.send("tools/call", retry_of(MANUAL, got), modern=True, meta=META_ABLE)
                await until(lambda: not gateway.front.held)
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
            inputs = exchange_of(gateway)._inputs
            ends(live)
            await until(lambda: inputs._response is not None or inputs._ended)
            final = await ask_modern(client, retry_of(MANUAL, got, None if answered else {}))
            if code is None:
                assert final.text == "done"
            else:
                assert final.error["code"] == code
            assert not any(live.answers.values()), "nobody waits for an answer any more"
            live.over.set()
            await until(lambda: nothing_left(gateway) or gateway.pass_time(5))

    run(main)


def test_of_all_that_a_server_says_while_nobody_listens_one_answer_is_kept() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, got = await held(upstream, gateway)
            inputs = exchange_of(gateway)._inputs
            for number in range(100):
                live.send({"id": live.id, "result": {"content": [{"type": "text", "text": str(number)}]}})
                live.send({"method": "notifications/message", "params": {"level": "info", "data": "x" * 1000}})
            live.over.set()
            await until(lambda: inputs._ended or inputs._response is not None)
            assert (await ask_modern(client, retry_of(MANUAL, got))).text == "0"
            await until(lambda: nothing_left(gateway) or gateway.pass_time(5))

    run(main)


# --- retries ------------------------------------------------------------------------------------------------------


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
                assert not second.front.active
            assert first.front.held, "and costs the first nothing"
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


# --- attacks ------------------------------------------------------------------------------------------------------


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
            assert len(gateway.front.pushes) == MOST_OPEN
            assert len(exchange_of(gateway)._inputs._open) == MOST_OPEN
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
            assert sum(len(one.params) for one in exchange_of(gateway)._inputs._open.values()) < 1_100_000
            client.close()

    run(main)


def test_a_call_whose_server_asks_again_and_again_has_an_end() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, asked = await pushed(upstream, gateway)
            other = await beside(gateway, client)
            passed = 0.0
            while passed < LONGEST_S - HOLD_S:
                await answer(other, asked["id"], result=ANSWERS["roots"])
                gateway.pass_time(HOLD_S - 2)
                passed += HOLD_S - 2
                live.push("roots")
                asked = await event(client)
            gateway.pass_time(LONGEST_S - passed + 2)
            await until(lambda: nothing_left(gateway))

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
            more = {f"k{n}": {} for n in range(1000)}
            client.send("tools/call", retry_of(MANUAL, got, {**more, key: roots}), modern=True, meta=META_ABLE)
            await until(lambda: all(live.answers.values()))
            live.finish()
            assert (await client.read()).text == "done"
            assert live.answers["q1"][0]["result"] == roots
            await until(lambda: nothing_left(gateway))

    run(main)


# --- stdio: one pipe, and a session of the server's for each client -----------------------------------------------

STDIO = """
legacy()
calls, waiting = {}, {}
while True:
    message = read()
    method = message.get("method")
    if method == "tools/list":
        send(id=message["id"], result={"tools": [{"name": "ask", "inputSchema": {"type": "object"}}]})
    elif method == "tools/call":
        calls[message["id"]] = message["params"]["arguments"]["kinds"]
        for number, method in enumerate(calls[message["id"]]):
            id = f"{message['id']}-{number}"
            waiting[id] = message["id"]
            send(id=id, method=method, params={})
    elif method is None and message["id"] in waiting:
        call = waiting.pop(message["id"])
        said = json.dumps(message.get("result") or message["error"]["code"])
        if call not in waiting.values():
            send(id=call, result={"content": [{"type": "text", "text": said}]})
    elif method == "notifications/cancelled":
        sys.stderr.write("cancelled\\n")
    elif "id" in message and method is not None:
        fail(message)
"""


def over_stdio(sharing: Any) -> Running:
    target = StdioTarget(sys.executable, ("-S", "-c", PRELUDE + STDIO))
    return Running({"one": ServerSpec("one", target, "stdio", era="legacy", sharing=sharing)})


@pytest.mark.parametrize("client", ERAS)
def test_a_server_on_a_pipe_of_its_clients_own_may_ask(client: str) -> None:
    async def main() -> None:
        async with over_stdio("session") as gateway:
            params = arguments_of(kinds=["roots/list"])
            if client == "legacy":
                messages = await call_legacy(gateway, await legacy_client(gateway), params)
                result = messages[-1]["result"]
            else:
                one = await gateway.client()
                got = await ask_modern(one, params)
                result = (await ask_modern(one, retry_of(params, got))).result
            assert json.loads(result["content"][0]["text"]) == ANSWERS["roots"]
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("sharing", ["tenant", "principal"])
def test_a_server_on_a_shared_pipe_may_ask_nobody(sharing: str) -> None:
    async def main() -> None:
        async with over_stdio(sharing) as gateway:
            got = await (await legacy_client(gateway)).legacy("tools/call", arguments_of(kinds=["roots/list"]))
            assert got.text == "-32601"
            await until(lambda: nothing_left(gateway))

    run(main)


def test_two_clients_on_pipes_of_their_own_answer_for_themselves() -> None:
    async def main() -> None:
        async with over_stdio("session") as gateway:
            clients = [await legacy_client(gateway) for _ in range(2)]
            for client in clients:
                client.send("tools/call", arguments_of(kinds=["roots/list"]))
            asked = []
            for client in clients:
                await client.read_head()
                asked.append(await event(client))
            for number, client in reversed(list(enumerate(clients))):
                other = await beside(gateway, client)
                wrong, right = asked[1 - number]["id"], asked[number]["id"]
                await answer(other, wrong, result={"roots": [{"uri": "file:///evil"}]})
                await answer(other, right, result={"roots": [{"uri": f"file:///{number}"}]})
            for number, client in enumerate(clients):
                said = (await event(client))["result"]["content"][0]["text"]
                assert json.loads(said) == {"roots": [{"uri": f"file:///{number}"}]}
            await until(lambda: nothing_left(gateway))

    run(main)


Waiting = Callable[[], Awaitable[None]]
