"""Held calls over real sockets: a client that can be asked, of either era, one that cannot, and the server behind.

What is approved passes once; whatever is asked meanwhile, by us or by the server, nothing goes out unapproved.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

from narthex.authority.approvals import Approvals
from narthex.flow.codec.seal import MasterKey
from narthex.flow.policy.approvals.approval import Step
from narthex.store.sqlite import SqliteStore
from narthex.testing import FakeServer
from narthex.testing.clock import FakeClock
from narthex.types import ApprovalSpec, EndpointSpec, Grant, HoldTerms, Patterns, RunRule, RunSpec
from tests.flow.accept.asking import (
    CAPABILITIES,
    META_ABLE,
    Asker,
    answer,
    beside,
    event,
    legacy_client,
    nothing_left,
    retry_of,
    text,
)
from tests.flow.accept.test_recording import recorded
from tests.flow.gateway import Answer, Client, Running, run, spec, until
from tests.flow.policy.judge import HOLD, Judge, sees_all

EACH_ERA = pytest.mark.parametrize("era", ["legacy", "modern"])
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("refund", "ask", "read")]
YES = {"action": "accept", "content": {"approve": True}}
CALL = {"name": "one__refund", "arguments": {"amount": 500, "to": "ann"}}


def holds(by: Any, **more: Any) -> Grant:
    return Grant("held", "hold", tools=("one__refund", "one__ask"), terms=HoldTerms(by, 600, 300), **more)


READS = Grant("reads", "allow", tools=("*",))


class Gateway(Running):
    """With a keeper of approvals over a store of its own."""

    keeper: Approvals
    steps: list[str]
    walls: FakeClock


@asynccontextmanager
async def gateway(
    server: FakeServer, *grants: Grant, engine: Judge | None = None, **settings: Any
) -> AsyncIterator[Gateway]:
    with TemporaryDirectory() as folder:
        walls, steps = FakeClock(1_000_000.0), []

        def say(approval: Any, step: Step) -> None:
            steps.append(step[0])

        ids = itertools.count(1)
        keeper = Approvals(
            master_keys=lambda: [MasterKey(b"k" * 32)], now=walls, random=lambda size: b"r" * size,
            new_id=lambda: f"a{next(ids)}", say=say,
        )  # fmt: skip
        store = await SqliteStore.open(Path(folder) / "narthex.db")
        await keeper.take(store, ApprovalSpec())
        endpoints = {name: EndpointSpec(name, ("one",)) for name in ("default", "other")}
        running = Gateway(
            {"one": spec("one", server.url, sharing="session")}, endpoints, settings={"grants": grants, **settings},
            engine=engine,
        )  # fmt: skip
        async with running:
            running.front.approvals = running.keeper = keeper
            running.steps, running.walls = steps, walls
            yield running
        await store.close()


async def client(gateway: Gateway, era: str, capabilities: Mapping[str, Any] | None = None) -> Client:
    if era == "legacy":
        return await legacy_client(gateway, capabilities or {})
    return await gateway.client()


async def call(one: Client, era: str, params: Mapping[str, Any] = CALL, **options: Any) -> Answer:
    if era == "legacy":
        return await one.legacy("tools/call", params, **options)
    return await one.modern("tools/call", params, **options)


def sent(server: FakeServer, name: str = "refund") -> list[Any]:
    return [
        one["arguments"] for one in (asked.params for asked in server.requests("tools/call")) if one["name"] == name
    ]


def waits(got: Answer) -> str:
    error = got.error
    assert (error["code"], error["data"]["reason"], got.status) == (-31004, "approval_required", 200)
    assert error["data"]["retryAfterSeconds"] == 10
    return str(error["data"]["approvalId"])


# --- a client that cannot be asked


@EACH_ERA
@pytest.mark.parametrize("by", ["approver", "user"])
def test_who_cannot_be_asked_comes_again_and_passes_once(era: str, by: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds(by), READS) as running:
            one = await client(running, era)
            id_ = waits(await call(one, era))
            assert waits(await call(one, era)) == id_, "the same call waits for the same approval"
            spaced = {"name": "one__refund", "arguments": {"to": "ann", "amount": 500}}
            assert waits(await call(one, era, spaced)) == id_
            assert sent(server) == []
            await running.keeper.decide(id_, "bob", yes=True)
            assert waits(await call(one, era, {**CALL, "arguments": {"amount": 501, "to": "ann"}})) != id_
            assert waits(await call(one, era, path="/mcp/other") if era == "modern" else await call(one, era, {
                **CALL, "arguments": {"amount": 500, "to": "ann", "x": None}})) != id_  # fmt: skip
            assert json.loads((await call(one, era)).text) == CALL["arguments"]
            assert sent(server) == [CALL["arguments"]]
            assert waits(await call(one, era)) != id_, "and then needs a new one"
            assert (await call(one, era, {"name": "one__read", "arguments": {}})).result, "what is not held goes on"
            await running.keeper.look()
            assert running.steps.count("used") == 1
            await until(lambda: nothing_left(running))

    run(main)


@EACH_ERA
def test_a_denial_and_a_lost_chance(era: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds("approver")) as running:
            one = await client(running, era)
            id_ = waits(await call(one, era))
            await running.keeper.decide(id_, "bob", yes=False)
            refused = (await call(one, era)).error
            assert (refused["code"], refused["data"]["reason"]) == (-31001, "approval_denied")
            assert "bob" not in json.dumps(refused)
            running.walls.advance(601)
            second = waits(await call(one, era))
            assert second != id_, "when its time is over it may be asked for again"
            await running.keeper.decide(second, "bob", yes=True)
            running.walls.advance(301)
            assert waits(await call(one, era)) not in (id_, second), "approved, and not used in time"
            assert sent(server) == []

    run(main)


def test_calls_at_once_pass_once() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds("approver")) as running:
            clients = [await running.client() for _ in range(8)]
            ids = {waits(got) for got in await asyncio.gather(*(call(one, "modern") for one in clients))}
            assert len(ids) == 1, "one is asked for, however many make the call"
            await running.keeper.decide(ids.pop(), "bob", yes=True)
            got = await asyncio.gather(*(call(one, "modern") for one in clients))
            assert sum("result" in one.messages[-1] for one in got) == 1
            assert len(sent(server)) == 1

    run(main)


def test_what_was_approved_and_not_sent_may_be_made_again() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds("approver")) as running:
            one = await running.client()
            id_ = waits(await call(one, "modern"))
            await running.keeper.decide(id_, "bob", yes=True)
            running.fleet.servers["one"].spec = msgspec.structs.replace(
                running.fleet.servers["one"].spec, max_in_flight=0
            )
            refused = (await call(one, "modern")).error
            assert (refused["code"], sent(server)) == (-31009, [])
            running.fleet.servers["one"].spec = msgspec.structs.replace(
                running.fleet.servers["one"].spec, max_in_flight=9
            )
            await until(lambda: running.keeper.known(id_).used_at is None)
            assert (await call(one, "modern")).result
            assert len(sent(server)) == 1
            assert waits(await call(one, "modern")) != id_

    run(main)


def test_a_client_that_goes_while_it_is_found_out_uses_nothing() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds("approver")) as running:
            one = await running.client()
            id_ = waits(await call(one, "modern"))
            await running.keeper.decide(id_, "bob", yes=True)
            keeper, asked, go = running.keeper, asyncio.Event(), asyncio.Event()

            async def ask(held: Any) -> Any:
                found = await Approvals.ask(keeper, held)
                asked.set()
                await go.wait()
                return found

            keeper.ask = ask  # type: ignore[method-assign]
            one.send("tools/call", CALL, modern=True)
            await asked.wait()
            one.close()
            running.leave(one)
            await until(lambda: nothing_left(running))
            go.set()
            await until(lambda: keeper.known(id_).used_at is None)
            del keeper.ask  # type: ignore[method-assign]
            assert (await call(await running.client(), "modern")).result
            assert len(sent(server)) == 1

    run(main)


def test_what_is_refused_for_other_reasons_is_not_held() -> None:
    async def main() -> None:
        denied = Grant("never", "deny", tools=("*",), when="args.amount > 1000")
        small = Grant("small", "allow", tools=("*",), when="args.amount < 10")
        large = holds("approver", when="args.amount >= 10")
        async with FakeServer(tools=TOOLS) as server, gateway(server, large, denied, small) as running:
            one = await running.client()
            too_much = (await call(one, "modern", {**CALL, "arguments": {"amount": 2000}})).error
            assert too_much["data"]["reason"] == "denied_by_rule"
            assert (await call(one, "modern", {**CALL, "arguments": {"amount": 5}})).result
            waits(await call(one, "modern", {**CALL, "arguments": {"amount": 50}}))
            huge = (await call(one, "modern", {**CALL, "arguments": {"amount": 50, "x": "y" * 70_000}})).error
            assert (huge["code"], huge["data"]["reason"]) == (-31001, "too_large_to_approve")
            hidden = (await call(one, "modern", {"name": "one__nothing", "arguments": {}})).error
            assert hidden["code"] == -32602

    run(main)


@EACH_ERA
def test_prompts_and_resources_are_held_too(era: str) -> None:
    async def main() -> None:
        server = FakeServer(
            prompts=[{"name": "p"}], resources=[{"uri": "x:r", "name": "r"}],
            answers={"p": {"messages": []}, "x:r": {"contents": [{"uri": "x:r", "text": "r"}]}},
        )  # fmt: skip
        grant = Grant("held", "hold", prompts=("*",), resources=("*",))
        async with server, gateway(server, grant) as running:
            one = await client(running, era)
            for method, params in (("prompts/get", {"name": "one__p"}), ("resources/read", {"uri": "x:r"})):
                ask = one.legacy if era == "legacy" else one.modern
                id_ = waits(await ask(method, params))
                await running.keeper.decide(id_, "bob", yes=True)
                assert (await ask(method, params)).result

    run(main)


def test_without_anybody_who_keeps_approvals_nothing_passes() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds("approver")) as running:
            running.front.approvals = None
            refused = (await call(await running.client(), "modern")).error
            assert (refused["code"], refused["data"]["reason"]) == (-31001, "approval_required")
            await running.keeper.take(None, ApprovalSpec())
            running.front.approvals = running.keeper
            refused = (await call(await running.client(), "modern")).error
            assert (refused["code"], refused["data"]["reason"]) == (-32603, "store_unavailable")
            assert sent(server) == []

    run(main)


@EACH_ERA
def test_a_call_that_is_to_run_as_a_task_is_held_like_any_other(era: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds("approver")) as running:
            one, params = await client(running, era), {**CALL, "task": {"ttl": 1000}}
            id_ = waits(await call(one, era, params))
            await running.keeper.decide(id_, "bob", yes=True)
            assert waits(await call(one, era)) != id_, "as no task it is another call"
            assert json.loads((await call(one, era, params)).text) == CALL["arguments"]
            assert len(sent(server)) == 1
            await until(lambda: nothing_left(running))

    run(main)


def test_a_rule_on_runs_holds_by_the_same_way() -> None:
    async def main() -> None:
        out = RunRule("no way out", "hold", Patterns(tools=("one__refund",)), after=Patterns(tools=("one__read",)))
        async with FakeServer(tools=TOOLS) as server, gateway(server, READS, runs=RunSpec(rules=(out,))) as running:
            one = await running.client()
            assert (await call(one, "modern")).result, "nothing has been read yet"
            assert (await call(one, "modern", {"name": "one__read", "arguments": {}})).result
            id_ = waits(await call(one, "modern"))
            found = await running.keeper.one(id_)
            assert found is not None and (found.rule, found.by) == ("no way out", "approver")
            await running.keeper.decide(id_, "bob", yes=True)
            assert (await call(one, "modern")).result
            assert waits(await call(one, "modern")) != id_

    run(main)


def test_a_policy_that_asks_for_approval_holds_by_the_same_way() -> None:
    async def main() -> None:
        judge = Judge(sees_all(lambda asked: HOLD if asked["resource"]["upstream_name"] == "refund" else True))
        async with FakeServer(tools=TOOLS) as server, gateway(server, READS, engine=judge) as running:
            one = await running.client()
            assert (await call(one, "modern", {"name": "one__read", "arguments": {}})).result
            id_ = waits(await call(one, "modern"))
            found = await running.keeper.one(id_)
            assert found is not None and found.by == "approver"
            await running.keeper.decide(id_, "bob", yes=True)
            assert (await call(one, "modern")).result
            assert waits(await call(one, "modern")) != id_
            assert len(sent(server)) == 1

    run(main)


# --- a client that can be asked


async def asked_modern(one: Client, params: Mapping[str, Any] = CALL) -> Answer:
    got = await call(one, "modern", params, meta=META_ABLE)
    assert got.result["resultType"] == "input_required"
    assert list(got.result["inputRequests"]) == ["approval"]
    return got


async def said_modern(one: Client, got: Answer, said: Any, params: Mapping[str, Any] = CALL) -> Answer:
    return await call(one, "modern", retry_of(params, got, {"approval": said}), meta=META_ABLE)


def test_a_modern_user_is_asked_and_the_retry_passes() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds("user")) as running:
            one = await running.client()
            found = recorded(running)
            got = await asked_modern(one)
            asked = got.result["inputRequests"]["approval"]
            assert asked["method"] == "elicitation/create"
            assert '"amount":500' in asked["params"]["message"]
            assert sent(server) == []
            assert json.loads((await said_modern(one, got, YES)).text) == CALL["arguments"]
            (arguments,) = sent(server)
            assert arguments == CALL["arguments"]
            (only,) = server.requests("tools/call")
            assert "requestState" not in only.params and "inputResponses" not in only.params
            again = await said_modern(one, got, YES)
            assert waits(again), "the same state and the same yes pass nothing twice"
            assert len(sent(server)) == 1
            await running.keeper.look()
            assert running.steps == ["asked", "approved", "used", "asked"]
            assert running.counted("tools/call", "refund") == {"ok": 1, "approval_required": 2}
            first, second = (row.id for row in await running.keeper.all())
            assert [(record["decision"], record["approval"]) for record in found] == [
                ("hold", first), ("allow", first), ("hold", second),
            ]  # fmt: skip
            await until(lambda: nothing_left(running))

    run(main)


def test_a_legacy_user_is_asked_on_the_stream_of_the_call() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds("user")) as running:
            one = await legacy_client(running, CAPABILITIES)
            one.send("tools/call", CALL)
            status, headers = await one.read_head()
            assert (status, headers["content-type"]) == (200, "text/event-stream")
            asked = await event(one)
            assert asked["method"] == "elicitation/create" and '"amount":500' in asked["params"]["message"]
            assert sent(server) == []
            await answer(await beside(running, one), asked["id"], result=YES)
            assert json.loads((await event(one))["result"]["content"][0]["text"]) == CALL["arguments"]
            assert await one.read_chunk() == b""
            await running.keeper.look()
            assert running.steps == ["asked", "approved", "used"]
            await until(lambda: nothing_left(running))

    run(main)


async def said(running: Gateway, era: str, word: dict[str, Any]) -> tuple[Client, dict[str, Any]]:
    """Call, answer what is asked with `word` (`result=` or `error=`), and what the call's response is."""
    if era == "modern":
        one = await running.client()
        got = await asked_modern(one)
        return one, (await said_modern(one, got, word["result"])).messages[-1]
    one = await legacy_client(running, CAPABILITIES)
    one.send("tools/call", CALL)
    await one.read_head()
    await answer(await beside(running, one), (await event(one))["id"], **word)
    response = await event(one)
    assert await one.read_chunk() == b""
    return one, response


@EACH_ERA
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        pytest.param({"result": {"action": "decline"}}, "approval_denied", id="declined"),
        pytest.param({"result": {"action": "accept", "content": {"approve": False}}}, "approval_denied", id="no"),
        pytest.param({"result": {"action": "cancel"}}, "approval_required", id="closed: it waits for others"),
        pytest.param({"result": {"action": "accept"}}, "approval_required", id="accepted without an answer"),
    ],
)
def test_who_does_not_say_yes(era: str, word: dict[str, Any], reason: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds("user")) as running:
            _, response = await said(running, era, word)
            assert response["error"]["data"]["reason"] == reason
            assert sent(server) == []
            await until(lambda: nothing_left(running))

    run(main)


def test_a_legacy_client_that_answers_with_an_error_has_not_decided() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds("user")) as running:
            _, response = await said(running, "legacy", {"error": {"code": -1, "message": "no"}})
            assert response["error"]["data"]["reason"] == "approval_required"
            assert sent(server) == []

    run(main)


def test_a_legacy_user_who_says_nothing_leaves_it_to_others() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds("user")) as running:
            one = await legacy_client(running, CAPABILITIES)
            one.send("tools/call", CALL)
            await one.read_head()
            await event(one)
            running.pass_time(130)
            withdrawn = await event(one)
            assert withdrawn["method"] == "notifications/cancelled"
            response = await event(one)
            assert response["error"]["code"] == -31004
            await running.keeper.decide(response["error"]["data"]["approvalId"], "bob", yes=True)
            assert await one.read_chunk() == b""
            assert (await call(one, "legacy")).messages[-1]["result"]
            await until(lambda: nothing_left(running))

    run(main)


@EACH_ERA
def test_where_others_must_approve_the_user_is_not_asked(era: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds("approver")) as running:
            one = await client(running, era, CAPABILITIES)
            id_ = waits(await call(one, era, meta=META_ABLE if era == "modern" else None))
            got = await call(one, era, {**CALL, "inputResponses": {"approval": YES}}) if era == "modern" else None
            assert got is None or waits(got) == id_, "and words without a question count nothing"
            assert sent(server) == []

    run(main)


def test_a_state_is_for_the_call_and_the_caller_that_was_asked_about() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, gateway(server, holds("user")) as running:
            one = await running.client()
            got = await asked_modern(one)
            larger = {**CALL, "arguments": {"amount": 501, "to": "ann"}}
            refused = await said_modern(one, got, YES, larger)
            assert refused.error["code"] == -32602
            elsewhere = retry_of(CALL, got, {"approval": YES})
            assert (await one.modern("tools/call", elsewhere, path="/mcp/other", meta=META_ABLE)).error[
                "code"
            ] == -32602
            with_more = retry_of({**CALL, "task": {"ttl": 1}}, got, {"approval": YES})
            assert "error" in (await one.modern("tools/call", with_more, meta=META_ABLE)).messages[-1]
            assert sent(server) == []
            assert (await said_modern(one, got, YES)).result

    run(main)


# --- a server that asks, too


@EACH_ERA
@pytest.mark.parametrize("server_era", ["legacy", "modern"])
@pytest.mark.parametrize("by", ["approver", "user"])
def test_what_the_server_asks_of_an_approved_call_needs_no_further_yes(era: str, server_era: Any, by: str) -> None:
    params = {"name": "one__ask", "arguments": {"rounds": [["form"], ["form"]]}}

    async def main() -> None:
        async with Asker(tools=TOOLS, eras=server_era) as server, gateway(server, holds(by)) as running:
            if era == "modern":
                one = await running.client()
                got = await call(one, era, params, meta=META_ABLE)
                if by == "approver":
                    await running.keeper.decide(waits(got), "bob", yes=True)
                    got = await call(one, era, params, meta=META_ABLE)
                rounds = [got]
                while got.messages[-1].get("result", {}).get("resultType") == "input_required":
                    asked = got.result["inputRequests"]
                    said = {key: YES if key == "approval" else {"action": "accept", "content": {"name": "ä"}}
                            for key in asked}  # fmt: skip
                    got = await call(one, era, retry_of(params, got, said), meta=META_ABLE)
                    rounds.append(got)
                assert "result" in got.messages[-1], got.messages
                replayed = retry_of(params, rounds[-2], dict.fromkeys(rounds[-2].result["inputRequests"], YES))
                again = await call(one, era, replayed, meta=META_ABLE)
                assert "error" in again.messages[-1], "a round is answered once"
            else:
                one = await legacy_client(running, CAPABILITIES)
                if by == "approver":
                    await running.keeper.decide(waits(await call(one, era, params)), "bob", yes=True)
                one.send("tools/call", params)
                await one.read_head()
                other = await beside(running, one)
                while "method" in (message := await event(one)):
                    mine = "approve" in json.dumps(message["params"])
                    said = YES if mine else {"action": "accept", "content": {"name": "ä"}}
                    await answer(other, message["id"], result=said)
                assert "result" in message, message
            await running.keeper.look()
            assert [running.steps.count(step) for step in ("asked", "approved", "used")] == [1, 1, 1]

    run(main)


def test_a_server_without_a_state_of_its_own_gets_none() -> None:
    """The state that carries the approval is ours, and stays with us."""

    async def main() -> None:
        server = FakeServer(tools=TOOLS, eras="modern")

        def refund(params: dict[str, Any]) -> dict[str, Any]:
            assert "requestState" not in params
            if "inputResponses" in params:
                return text(params["inputResponses"])
            form = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
            return {"resultType": "input_required",
                    "inputRequests": {"k": {"method": "elicitation/create", "params": form}}}  # fmt: skip

        server.answers["refund"] = refund
        async with server, gateway(server, holds("approver")) as running:
            one = await running.client()
            id_ = waits(await call(one, "modern", meta=META_ABLE))
            await running.keeper.decide(id_, "bob", yes=True)
            got = await call(one, "modern", meta=META_ABLE)
            assert list(got.result["inputRequests"]) == ["k"]
            retry = retry_of(CALL, got, {"k": {"action": "decline"}})
            assert json.loads((await call(one, "modern", retry, meta=META_ABLE)).text) == {"k": {"action": "decline"}}
            replayed = await call(one, "modern", retry, meta=META_ABLE)
            assert replayed.error["data"]["reason"] == "approval_used"

    run(main)
