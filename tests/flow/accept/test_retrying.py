"""A retry of a call that is held, while an engine decides whether this caller may still make it."""

from __future__ import annotations

import json

import msgspec
import pytest

from narthex.types import Grant, HoldTerms, RegoSpec
from tests.flow.accept.asking import ANSWERS, META_ABLE, Asker, arguments_of, ask_modern, nothing_left, over, retry_of
from tests.flow.gateway import run, until
from tests.flow.policy.judge import HOLD, Judge, allow, sees_all

POLICY = RegoSpec("/policy", "narthex/decision")
EACH_WAY = pytest.mark.parametrize("slow", [False, True], ids=["from memory", "later"])


@EACH_WAY
@pytest.mark.parametrize(
    ("sees", "allows", "code"),
    [
        pytest.param(False, True, -32602, id="hidden by now"),
        pytest.param(True, False, -31001, id="denied by now"),
    ],
)
def test_it_goes_on_only_as_long_as_the_engine_lets_it(slow: bool, sees: bool, allows: bool, code: int) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            params = arguments_of(rounds=[["roots"]])
            client = await gateway.client()
            right = retry_of(params, await ask_modern(client, params))
            snapshot = msgspec.structs.replace(gateway.front.snapshot, policy=POLICY)
            engine = Judge(lambda asked: sees if asked["action"] == "list" else allows, slow=slow)
            gateway.front.apply(snapshot, engine=engine)
            assert (await ask_modern(client, right)).error["code"] == code
            gateway.front.apply(snapshot, engine=Judge(lambda asked: True, slow=slow))
            assert json.loads((await ask_modern(client, right)).text) == [[ANSWERS["roots"]]], "the call was not lost"
            await until(lambda: nothing_left(gateway))

    run(main)


@EACH_WAY
def test_a_result_that_is_on_its_way_cannot_be_redacted_any_more(slow: bool) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            params = arguments_of(rounds=[["roots"]])
            client = await gateway.client()
            right = retry_of(params, await ask_modern(client, params))
            snapshot = msgspec.structs.replace(gateway.front.snapshot, policy=POLICY)
            engine = Judge(sees_all(lambda asked: allow(("redact", ("/content",)))), slow=slow)
            gateway.front.apply(snapshot, engine=engine)
            assert (await ask_modern(client, right)).error["data"]["reason"] == "unknown_obligation"
            gateway.front.apply(snapshot, engine=Judge(lambda asked: True, slow=slow))
            assert json.loads((await ask_modern(client, right)).text) == [[ANSWERS["roots"]]], "the call was not lost"

    run(main)


@EACH_WAY
def test_what_needs_a_person_by_now_and_was_never_approved_does_not_go_on(slow: bool) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            params = arguments_of(rounds=[["roots"]])
            client = await gateway.client()
            right = retry_of(params, await ask_modern(client, params))
            before = gateway.front.snapshot
            if slow:
                engine = Judge(sees_all(lambda asked: HOLD), slow=True)
                gateway.front.apply(msgspec.structs.replace(before, policy=POLICY), engine=engine)
            else:
                held = Grant("held", "hold", tools=("*",), terms=HoldTerms("approver", 600, 300))
                gateway.front.apply(msgspec.structs.replace(before, grants=(held,)))
            assert (await ask_modern(client, right)).error["code"] == -31001
            gateway.front.apply(before)
            assert json.loads((await ask_modern(client, right)).text) == [[ANSWERS["roots"]]], "the call was not lost"
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("leaves", [True, False], ids=["the client leaves", "the call ends"])
def test_what_ends_while_it_is_decided_ends_well(leaves: bool) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            params = arguments_of(rounds=[["roots"]])
            client, other = await gateway.client(), await gateway.client()
            right = retry_of(params, await ask_modern(client, params))
            engine = Judge(sees_all(lambda asked: True), slow=True)
            engine.open.clear()
            gateway.front.apply(msgspec.structs.replace(gateway.front.snapshot, policy=POLICY), engine=engine)
            client.send("tools/call", right, modern=True, meta=META_ABLE)
            await until(lambda: engine.asked)
            if leaves:
                client.close()
                await until(lambda: len(gateway.shared.connections) == 1)
                engine.open.set()
                assert json.loads((await ask_modern(other, right)).text) == [[ANSWERS["roots"]]]
            else:
                for waiting in list(gateway.front.calls.active):
                    waiting.cancel("over")
                engine.open.set()
                assert (await client.read()).error["code"] == -32602
            await until(lambda: nothing_left(gateway))

    run(main)
