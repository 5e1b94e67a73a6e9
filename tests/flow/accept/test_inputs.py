"""What a server asks while it works on a call: both eras of clients and of servers, over real sockets.

Asked, answered, refused, given up, attacked; and whatever happens, nothing of it is left behind.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from typing import Any

import pytest

from narthex.types import Limits, ServerSpec, StdioTarget
from tests.flow.accept.asking import (
    ANSWERS,
    CAPABILITIES,
    MANUAL,
    META_ABLE,
    QUESTIONS,
    Asker,
    answer,
    arguments_of,
    ask_modern,
    beside,
    call_legacy,
    event,
    exchange_of,
    held,
    kind_of,
    legacy_client,
    nothing_left,
    over,
    retry_of,
)
from tests.flow.gateway import Running, run, until
from tests.flow.upstream.test_stdio import PRELUDE

ERAS = ["legacy", "modern"]
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


# --- asked and answered -----------------------------------------------------------------------------------------------


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
            await until(lambda: len(exchange_of(gateway).inputs._open) == 3)
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


def test_what_a_legacy_server_asks_at_once_a_modern_client_is_told_at_once() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, kinds = await gateway.client(), ["form", "sampling", "roots"]
            client.send("tools/call", MANUAL, modern=True, meta=META_ABLE)
            await until(lambda: upstream.lives)
            ids = [upstream.lives[0].push(kind) for kind in kinds]  # in one write
            got = await client.read()
            assert [kind_of(**one) for one in got.result["inputRequests"].values()] == kinds
            client.send("tools/call", retry_of(MANUAL, got), modern=True, meta=META_ABLE)
            await until(lambda: all(upstream.lives[0].answers[id_] for id_ in ids))
            upstream.lives[0].finish()
            assert (await client.read()).text == "done"
            await until(lambda: nothing_left(gateway))

    run(main)


def test_a_question_that_is_taken_back_at_once_is_never_told() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client = await gateway.client()
            client.send("tools/call", MANUAL, modern=True, meta=META_ABLE)
            await until(lambda: upstream.lives)
            live = upstream.lives[0]
            live.push("roots")
            live.send({"method": "notifications/cancelled", "params": {"requestId": "q1"}})
            live.push("form")
            live.finish()
            assert (await client.read()).text == "done"
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


def test_the_end_of_a_round_is_not_the_end_of_the_next_one() -> None:
    """A modern server may leave the stream of a round open behind its result."""

    async def main() -> None:
        async with Asker(eras="modern") as upstream, over(upstream) as gateway:
            client = await legacy_client(gateway)
            client.send("tools/call", arguments_of(rounds=[["roots"]], lingers=True))
            await client.read_head()
            asked = await event(client)
            upstream.held = asyncio.Event()
            await answer(await beside(gateway, client), asked["id"], result=ANSWERS["roots"])
            await until(lambda: len(upstream.requests("tools/call")) == 2)
            upstream.lives[0].over.set()
            await (await gateway.client()).modern("server/discover")  # so that the end has been read
            assert gateway.front.calls.active
            upstream.held.set()
            assert "result" in await event(client)
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


# --- refused ----------------------------------------------------------------------------------------------------------


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


UNDECLARED = {"form": -32602, "url": -32602, "sampling": -32601, "roots": -32601}
"""What a server is told (2025-11-25, elicitation and roots, "Error Handling")."""


@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_legacy_server_that_asks_what_was_not_declared_is_refused_and_goes_on_for_its_like(kind: str) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            one = await legacy_client(gateway, {})
            refused = json.loads((await one.legacy("tools/call", arguments_of(rounds=[[kind]]))).text)[0][0]
            assert refused["code"] == UNDECLARED[kind]
            assert upstream.requests("initialize")[0].params["capabilities"] == {}
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize(
    ("kind", "lacking"),
    [
        ("form", {"elicitation": {"form": {}}}),
        ("url", {"elicitation": {"url": {}}}),
        ("sampling", {"sampling": {}}),
        ("roots", {"roots": {}}),
    ],
)
def test_a_modern_client_learns_what_it_lacks_for_a_legacy_server_that_asks(kind: str, lacking: dict[str, Any]) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client = await gateway.client()
            client.send("tools/call", MANUAL, modern=True)
            await until(lambda: upstream.lives)
            (live,) = upstream.lives
            question = live.push(kind)
            got = await client.read()
            assert (got.status, got.error["code"]) == (400, -32021)
            assert got.error["data"]["requiredCapabilities"] == lacking
            await until(lambda: live.answers[question] and upstream.cancelled == [live.id])
            assert live.answers[question][0]["error"]["code"] == UNDECLARED[kind]
            await until(lambda: nothing_left(gateway))
            server = gateway.fleet.servers["one"]
            assert server.last_error is None and server.breaker.quiet, "it is not to blame"
            again = await client.modern("tools/call", arguments_of(rounds=[]))
            assert again.result["resultType"] == "complete"

    run(main)


def test_a_silent_stream_of_a_legacy_server_is_kept_alive_before_it_says_anything() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client = await gateway.client()
            client.send("tools/call", MANUAL, modern=True)
            await until(lambda: gateway.front.calls.streams)
            gateway.pass_time(Limits().sse_comment_s + 1)
            status, headers = await client.read_head()
            assert (status, headers["content-type"]) == (200, "text/event-stream")
            gateway.pass_time(Limits().sse_comment_s + 1)
            assert await client.read_chunk() == b":\n\n"
            upstream.lives[0].push("form")
            assert (await event(client))["error"]["code"] == -32021, "too late for a status"
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize(
    ("asked", "declared", "lacking", "code"),
    [
        pytest.param("url", {"elicitation": {"form": {}}}, {"elicitation": {"url": {}}}, -32602, id="a mode"),
        pytest.param("sampling", {"sampling": {}}, {"sampling": {"tools": {}}}, -32602, id="sampling with tools"),
    ],
)
def test_of_a_capability_that_was_declared_a_part_may_lack(asked: str, declared: Any, lacking: Any, code: int) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client = await gateway.client()
            meta = {"io.modelcontextprotocol/clientCapabilities": declared}
            client.send("tools/call", MANUAL, modern=True, meta=meta)
            await until(lambda: upstream.lives)
            question = upstream.lives[0].push(asked, **({"tools": []} if asked == "sampling" else {}))
            assert (await client.read()).error["data"]["requiredCapabilities"] == lacking
            await until(lambda: upstream.lives[0].answers[question])
            assert upstream.lives[0].answers[question][0]["error"]["code"] == code
            await until(lambda: nothing_left(gateway))

    run(main)


def test_what_a_client_lacks_for_a_question_asked_while_it_was_away_it_learns_when_it_is_back() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client = await gateway.client()
            meta = {"io.modelcontextprotocol/clientCapabilities": {"roots": {}}}
            client.send("tools/call", MANUAL, modern=True, meta=meta)
            await until(lambda: upstream.lives)
            (live,) = upstream.lives
            live.push("roots")
            asked = await client.read()
            live.push("form")
            await until(lambda: upstream.cancelled == [live.id])
            live.finish()  # it has not heard yet: nobody waits for its answer
            got = await client.modern("tools/call", retry_of(MANUAL, asked), meta=meta)
            assert (got.status, got.error["code"]) == (400, -32021)
            assert got.error["data"]["requiredCapabilities"] == {"elicitation": {"form": {}}}
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("client", ERAS)
def test_what_completes_an_argument_asks_nobody_of_the_modern_era(client: str) -> None:
    """2026-07-28, mrtr: only results of tools/call, prompts/get and resources/read may ask. A legacy client can be."""

    async def main() -> None:
        prompts = [{"name": "p"}]
        async with Asker(eras="legacy", prompts=prompts) as upstream, over(upstream) as gateway:
            params = {"ref": {"type": "ref/prompt", "name": "one__p"}, "argument": {"name": "a", "value": "v"}}
            one = await legacy_client(gateway) if client == "legacy" else await gateway.client()
            meta = META_ABLE if client == "modern" else None
            one.send("completion/complete", params, modern=client == "modern", meta=meta)
            await until(lambda: upstream.lives)
            (live,) = upstream.lives
            question = live.push("roots")
            if client == "legacy":
                await one.read_head()
                asked = await event(one)
                await answer(await beside(gateway, one), asked["id"], result=ANSWERS["roots"])
            await until(lambda: live.answers[question])
            said = live.answers[question][0]
            assert said.get("result") == (ANSWERS["roots"] if client == "legacy" else None)
            live.finish({"completion": {"values": ["x"]}})
            message = await event(one) if client == "legacy" else (await one.read()).messages[-1]
            assert message["result"]["completion"] == {"values": ["x"]}
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
            assert [answer["code"] for answer in refused] == [-32602, -32601]
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
            able = {"roots": {"listChanged": True}, "sampling": {}}
            assert len(declared) == 3 and all(one in declared for one in ({}, able, CAPABILITIES)), "one for each set"

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


# --- stdio: one pipe, and a session of the server for each client -----------------------------------------------------

STDIO = """
calls, waiting = {}, {}
while True:
    message = read()
    method = message.get("method")
    if method == "initialize":
        info = {"name": "scripted", "version": "1"}
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
        send(id=message["id"], result=result)
    elif method == "tools/list":
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


def test_a_server_on_a_pipe_asks_what_its_client_did_not_declare() -> None:
    async def main() -> None:
        async with over_stdio("session") as gateway:
            params = arguments_of(kinds=["roots/list"])
            got = await (await gateway.client()).modern("tools/call", params)
            assert (got.status, got.error["code"]) == (400, -32021)
            assert got.error["data"]["requiredCapabilities"] == {"roots": {}}
            got = await (await legacy_client(gateway, {})).legacy("tools/call", params)
            assert got.text == "-32601", "its like is refused, and goes on"
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
