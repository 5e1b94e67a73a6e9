"""Rules on runs where a call takes more than one request: questions in between, and tasks; both eras on both sides."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from narthex.flow.codec.handles import Task, owner_of
from narthex.types import LOCAL, LabelRow, Patterns, RunRule, RunSpec, Who
from tests.flow.accept.asking import (
    ANSWERS,
    Asker,
    answer,
    arguments_of,
    ask_modern,
    beside,
    call_legacy,
    event,
    legacy_client,
    nothing_left,
    retry_of,
)
from tests.flow.accept.test_inputs import each_pair
from tests.flow.accept.test_tasking import LONG, META, TASK, Tasker, ask
from tests.flow.gateway import Answer, Running, run, spec, until
from tests.flow.notify.hearing import Hearing, Teller

ONCE = RunRule("once", "deny", Patterns(("*__ask",)), at_most=1)
CLEAN = RunRule("clean", "deny", Patterns(("*__ask",)), labels=("untrusted",))
NO_TASKS = RunRule("no tasks", "deny", Patterns(("*__long",)), labels=("untrusted",))
NEXT = RunRule("next", "deny", Patterns(("*__plain",)), unless_after=Patterns(("*__long",)))
FEW = RunRule("few", "deny", Patterns(("*__long",)), at_most=1)
READS = LabelRow(
    ("untrusted",),
    Patterns(
        ("*__other", "*__plain"),
    ),
)
LONGS = LabelRow(("private",), Patterns(("*__long",)))


def over(server: Any, *rules: RunRule) -> Running:
    runs = RunSpec(labels=(READS, LONGS), rules=rules)
    return Running({"one": spec("one", server.url, sharing="session")}, settings={"runs": runs})


def reason(got: Answer) -> str:
    return str(got.error["data"]["reason"]) if "error" in got.messages[-1] else "ok"


@each_pair
def test_a_call_that_asks_in_between_is_one_call(client: str, server: Any) -> None:
    async def main() -> None:
        params = arguments_of(rounds=[["form"], ["form"]])
        async with Asker(eras=server) as upstream, over(upstream, ONCE) as gateway:
            if client == "legacy":
                one = await legacy_client(gateway)
                assert "result" in (await call_legacy(gateway, one, params))[-1]
                again = await one.legacy("tools/call", params)
            else:
                one = await gateway.client()
                got = await ask_modern(one, params)
                while got.result["resultType"] == "input_required":
                    got = await ask_modern(one, retry_of(params, got))
                again = await ask_modern(one, params)
            assert reason(again) == "run_count"
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("server", ["legacy", "modern"])
def test_answers_do_not_go_on_once_the_run_is_tainted(server: Any) -> None:
    async def main() -> None:
        params = arguments_of(rounds=[["form"]])
        async with Asker(eras=server) as upstream, over(upstream, CLEAN) as gateway:
            client = await gateway.client()
            first = await ask_modern(client, params)
            retry = retry_of(params, first)
            assert reason(await ask_modern(client, {"name": "one__other", "arguments": {"rounds": []}})) == "ok"
            assert reason(await ask_modern(client, retry)) == "run_labels"
            gateway.pass_time(130)  # nobody comes back: it is given up
            await until(lambda: nothing_left(gateway))
            gateway.pass_time(3601)
            gateway.pass_time(3601)
            assert gateway.front.runs is not None and not len(gateway.front.runs)

    run(main)


@pytest.mark.parametrize("server", ["legacy", "modern"])
def test_what_a_legacy_client_answers_does_not_go_on_either(server: Any) -> None:
    async def main() -> None:
        async with Asker(eras=server) as upstream, over(upstream, CLEAN) as gateway:
            client = await legacy_client(gateway)
            client.send("tools/call", arguments_of(rounds=[["form"]]))
            await client.read_head()
            asked = await event(client)
            while "id" not in asked:
                asked = await event(client)
            other = await beside(gateway, client)
            taints = {"name": "one__other", "arguments": {"rounds": []}}
            assert (await other.legacy("tools/call", taints)).status == 200
            assert (await answer(other, asked["id"], result=ANSWERS["form"])).status == 202
            assert (await event(client))["error"]["data"]["reason"] == "run_labels"
            assert [one for live in upstream.lives for one in live.answers.values() if one] == []
            await until(lambda: nothing_left(gateway))

    run(main)


@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
def test_a_task_answers_when_its_result_is_told(modern: bool) -> None:
    async def main() -> None:
        async with Tasker(eras="modern" if modern else "legacy") as server, over(server, NEXT, FEW) as gateway:
            client = await gateway.client()
            plain = {"name": "one__plain", "arguments": {}}
            if modern:
                id_ = (await client.modern("tools/call", LONG, meta=META)).result["taskId"]
                assert reason(await client.modern("tools/call", LONG, meta=META)) == "run_count"
                assert reason(await ask(client, "tasks/get", id_)) == "ok"
                assert reason(await client.modern("tools/call", plain)) == "run_order"
                server.tasks["task-0"] = "completed"
                assert reason(await ask(client, "tasks/get", id_)) == "ok"
                assert reason(await client.modern("tools/call", plain)) == "ok"
                return
            await client.initialize()
            id_ = (await client.legacy("tools/call", {**LONG, "task": TASK})).result["task"]["taskId"]
            assert reason(await client.legacy("tasks/get", {"taskId": id_})) == "ok"
            assert reason(await client.legacy("tools/call", plain)) == "run_order"
            assert reason(await client.legacy("tasks/result", {"taskId": id_})) == "ok"
            assert reason(await client.legacy("tools/call", plain)) == "ok"

    run(main)


def test_what_a_task_is_told_is_looked_at_as_its_call() -> None:
    async def main() -> None:
        async with Tasker(eras="modern") as server, over(server, NO_TASKS) as gateway:
            client = await gateway.client()
            id_ = (await client.modern("tools/call", LONG, meta=META)).result["taskId"]
            assert reason(await ask(client, "tasks/update", id_, inputResponses={"a": {}})) == "ok"
            assert reason(await client.modern("tools/call", {"name": "one__plain", "arguments": {}})) == "ok"
            assert reason(await ask(client, "tasks/update", id_, inputResponses={"a": {}})) == "run_labels"
            assert reason(await ask(client, "tasks/get", id_)) == "ok"

    run(main)


def test_the_result_of_a_task_taints_again() -> None:
    async def main() -> None:
        rule = RunRule("private", "deny", Patterns(("*__plain",)), labels=("private",))
        async with Tasker(eras="modern") as server, over(server, rule) as gateway:
            client = await gateway.client()
            id_ = (await client.modern("tools/call", LONG, meta=META)).result["taskId"]
            gateway.pass_time(3601)
            client = await gateway.client()
            plain = {"name": "one__plain", "arguments": {}}
            assert reason(await client.modern("tools/call", plain)) == "ok"
            await ask(client, "tasks/get", id_)
            assert reason(await client.modern("tools/call", plain)) == "run_labels"

    run(main)


@pytest.mark.parametrize("agent", ["", "r2"], ids=["of all", "of its own"])
def test_the_result_of_a_task_that_is_listened_for_taints_again(agent: str) -> None:
    """News of a modern task hold its result: who listens needs to ask for none."""

    async def main() -> None:
        rule = RunRule("private", "deny", Patterns(("*__a",)), labels=("private",))
        runs = RunSpec(
            trusted=(Who(),),
            labels=(LabelRow(("private",), Patterns(("*__long",))),),
            rules=(rule, RunRule("busy", "deny", Patterns(("*__busy",)), at_most=1)),
        )
        meta = {**META, "io.narthex/run": agent} if agent else META
        async with Teller("modern") as server, server.over() as gateway:
            front = gateway.front
            front.apply(msgspec.structs.replace(front.snapshot, runs=runs))
            id_ = front.handles.task(owner_of(LOCAL, "default"), Task("one", "t1", "modern", "long"), ttl_s=60)
            client = await gateway.client()
            wanted = {"notifications": {"taskIds": [id_]}}
            client.send("subscriptions/listen", wanted, modern=True, meta=meta)
            hearing = Hearing(client, *(await client.read_head()))
            await hearing.message()
            result = {"content": [{"type": "text", "text": "secret"}]}
            server.tell("notifications/tasks", taskId="t1", status="completed", result=result)
            assert (await hearing.message())["params"]["result"] == result
            assert front.runs is not None
            key = ((LOCAL.key), "default", agent)
            assert front.runs.facts(key)["labels"] == ["private"]

    run(main)
