"""Rules on runs at the gateway, in both eras: what taints, what is denied, what is given back, what stays visible."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from narthex.testing import FakeServer
from narthex.types import DataSpec, EndpointSpec, Grant, LabelRow, Patterns, RunRule, RunSpec, Snapshot, Who
from tests.flow.gateway import Answer, Client, Running, run, snapshot, spec, until
from tests.flow.upstream.test_fleet import tools

EACH_ERA = pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
WEB = LabelRow(("untrusted",), Patterns(("*__fetch",), ("*__advice",), ("*__page:*",)))
PRIVATE = LabelRow(("private",), Patterns(("*__find",)))
TRIFECTA = RunRule("trifecta", "deny", Patterns(("*__send",)), labels=("untrusted", "private"), line=3)
NO_MAIL = RunRule("no mail", "deny", Patterns(("*__send",)), labels=("untrusted",))
LOOK_FIRST = RunRule("look first", "deny", Patterns(("*__refund",)), unless_after=Patterns(("*__find",)))
FEW = RunRule("few", "deny", Patterns(("*__refund",)), at_most=2)
FAILS = {"content": [{"type": "text", "text": "no"}], "isError": True}
BIG = {"content": [{"type": "text", "text": "x" * 300_000}]}


def server(**more: Any) -> FakeServer:
    answers = {
        "advice": {"messages": []},
        "page:a": {"contents": [{"uri": "page:a", "text": "a"}]},
        **more.pop("answers", {}),
    }
    return FakeServer(
        tools=tools("fetch", "find", "send", "refund"),
        prompts=[{"name": "advice"}],
        resources=[{"uri": "page:a", "name": "a"}],
        answers=answers,
        **more,
    )


def gateway(one: FakeServer, *rules: RunRule, grants: tuple[Grant, ...] = (), **given: Any) -> Running:
    runs = RunSpec(labels=(WEB, PRIVATE), rules=rules, **given)
    endpoints = {"default": EndpointSpec("default", ("one",)), "other": EndpointSpec("other", ("one",))}
    return Running({"one": spec("one", one.url)}, endpoints, settings={"runs": runs, "grants": grants})


async def ask(client: Client, modern: bool, method: str, params: Any = None, **more: Any) -> Answer:
    return await (client.modern if modern else client.legacy)(method, params, **more)


async def call(client: Client, modern: bool, tool: str, **more: Any) -> str:
    """The reason of its refusal, `error` for a tool's own error, else `ok`."""
    answer = await ask(client, modern, "tools/call", {"name": f"one__{tool}", "arguments": {}}, **more)
    message = answer.messages[-1]
    if "error" in message:
        assert (answer.status, message["error"]["code"]) in ((200, -31001), (200, -31009), (200, -31005))
        return str(message["error"]["data"]["reason"])
    return "error" if message["result"].get("isError") else "ok"


@EACH_ERA
def test_untrusted_input_private_data_and_a_way_out_do_not_meet(modern: bool) -> None:
    async def main() -> None:
        async with server() as one, gateway(one, TRIFECTA) as running:
            client = await running.client(session=not modern)
            assert await call(client, modern, "send") == "ok"
            assert await call(client, modern, "fetch") == "ok"
            assert await call(client, modern, "send") == "ok"
            assert await call(client, modern, "find") == "ok"
            sent = len(one.asked)
            assert await call(client, modern, "send") == "run_labels"
            assert len(one.asked) == sent
            listed = (await ask(client, modern, "tools/list")).result["tools"]
            assert [tool["name"] for tool in listed] == ["one__fetch", "one__find", "one__send", "one__refund"]
            another = await running.client(session=not modern)
            assert await call(another, modern, "send") == "run_labels"  # another session is the same run
            running.pass_time(3601)
            later = await running.client(session=not modern)  # what is idle was closed
            assert await call(later, modern, "send") == "ok"
            assert running.settled()

    run(main)


@EACH_ERA
@pytest.mark.parametrize(
    ("method", "params"),
    [
        pytest.param("resources/read", {"uri": "page:a"}, id="resource"),
        pytest.param("prompts/get", {"name": "one__advice"}, id="prompt"),
        pytest.param(
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "one__advice"}, "argument": {"name": "a", "value": ""}},
            id="completion",
        ),
    ],
)
def test_whatever_is_read_taints(modern: bool, method: str, params: dict[str, Any]) -> None:
    async def main() -> None:
        async with server() as one, gateway(one, NO_MAIL) as running:
            client = await running.client(session=not modern)
            assert await call(client, modern, "send") == "ok"
            await ask(client, modern, method, params)
            assert await call(client, modern, "send") == "run_labels"

    run(main)


@EACH_ERA
@pytest.mark.parametrize(
    ("answer", "then"),
    [
        pytest.param({"content": []}, "ok", id="answered"),
        pytest.param(BIG, "ok", id="answered at length"),
        pytest.param(FAILS, "run_order", id="an error of the tool"),
        pytest.param({**BIG, "isError": True}, "run_order", id="an error of the tool at length"),
    ],
)
def test_something_has_to_come_first(modern: bool, answer: Any, then: str) -> None:
    async def main() -> None:
        async with server(answers={"find": answer}) as one, gateway(one, LOOK_FIRST) as running:
            client = await running.client(session=not modern)
            assert await call(client, modern, "refund") == "run_order"
            await call(client, modern, "find")
            assert await call(client, modern, "refund") == then

    run(main)


@EACH_ERA
def test_calls_at_once_do_not_pass_the_bound(modern: bool) -> None:
    async def main() -> None:
        async with server() as one, gateway(one, FEW) as running:
            first = await running.client(session=not modern)
            await ask(first, modern, "tools/list")
            one.held = asyncio.Event()
            clients = [await running.client(session=not modern) for _ in range(6)]
            calls = [asyncio.ensure_future(call(client, modern, "refund")) for client in clients]
            await until(lambda: sum(task.done() for task in calls) == 4)
            one.held.set()
            assert sorted(await asyncio.gather(*calls)) == ["ok", "ok", *["run_count"] * 4]
            assert sum(asked.method == "tools/call" for asked in one.asked) == 2

    run(main)


@EACH_ERA
def test_a_call_under_way_taints(modern: bool) -> None:
    async def main() -> None:
        async with server() as one, gateway(one, NO_MAIL) as running:
            client, other = await running.client(session=not modern), await running.client(session=not modern)
            await ask(client, modern, "tools/list")
            one.held = asyncio.Event()
            task = asyncio.ensure_future(call(client, modern, "fetch"))
            await until(lambda: any(asked.method == "tools/call" for asked in one.asked))
            assert await call(other, modern, "send") == "run_labels"
            one.held.set()
            assert await task == "ok"

    run(main)


@EACH_ERA
def test_a_call_that_nobody_could_send_is_given_back(modern: bool) -> None:
    async def main() -> None:
        once = RunRule("once", "deny", Patterns(("*__refund",)), at_most=1)
        async with server() as one, gateway(one, once) as running:
            client = await running.client(session=not modern)
            await ask(client, modern, "tools/list")
            running.fleet.servers["one"].in_flight += 256
            assert await call(client, modern, "refund") == "overloaded"
            running.fleet.servers["one"].in_flight -= 256
            assert await call(client, modern, "refund") == "ok"
            answer = await ask(client, modern, "tools/call", {"name": "one__refund", "arguments": {}})
            assert answer.error["data"]["reason"] == "run_count"
            assert 3590 < answer.error["data"]["retryAfterSeconds"] <= 3600

    run(main)


def test_only_a_trusted_agent_says_which_run_a_call_is_part_of() -> None:
    async def main() -> None:
        def meta(id_: str) -> dict[str, Any]:
            return {"meta": {"io.narthex/run": id_}}

        async with server() as one, gateway(one, NO_MAIL) as running:
            client = await running.client()
            await call(client, True, "fetch", **meta("a"))
            assert await call(client, True, "send", **meta("b")) == "run_labels"
        async with server() as one, gateway(one, NO_MAIL, trusted=(Who(subject=("local",)),)) as running:
            client = await running.client()
            await call(client, True, "fetch", **meta("a"))
            assert await call(client, True, "send", **meta("a")) == "run_labels"
            assert await call(client, True, "send", **meta("b")) == "ok"
            assert await call(client, True, "send") == "ok"

    run(main)


@EACH_ERA
@pytest.mark.parametrize(("endpoints", "said"), [("apart", "ok"), ("together", "run_labels")])
def test_endpoints_are_apart_or_together(modern: bool, endpoints: str, said: str) -> None:
    async def main() -> None:
        async with server() as one, gateway(one, NO_MAIL, endpoints=endpoints) as running:
            client = await running.client(session=not modern)
            await call(client, modern, "fetch")
            other = await running.client()
            if not modern:
                await other.initialize("/mcp/other")
            assert await call(other, modern, "send", path="/mcp/other") == said

    run(main)


@EACH_ERA
def test_conditions_of_grants_read_the_run(modern: bool) -> None:
    async def main() -> None:
        grants = (
            Grant("all", "allow", tools=("*",)),
            Grant("private once", "deny", tools=("*__find",), when="'one__find' in run.calls"),
            Grant("clean", "deny", tools=("*__send",), when="'untrusted' in run.labels"),
        )
        async with server() as one, gateway(one, grants=grants) as running:
            client = await running.client(session=not modern)
            assert await call(client, modern, "find") == "ok"
            assert await call(client, modern, "find") == "denied_by_rule"
            assert await call(client, modern, "send") == "ok"
            assert await call(client, modern, "fetch") == "ok"
            assert await call(client, modern, "send") == "denied_by_rule"

    run(main)


def test_who_calls_many_things_hides_no_call_among_them() -> None:
    async def main() -> None:
        grants = (
            Grant("all", "allow", tools=("*",)),
            Grant("once", "deny", tools=("*__pay",), when="'one__pay' in run.calls && run.calls['one__pay'] >= 1"),
        )
        names = [*(f"t{number}" for number in range(64)), "pay"]
        async with FakeServer(tools=tools(*names)) as one, gateway(one, grants=grants) as running:
            client = await running.client()
            for name in names[:-1]:
                assert await call(client, True, name) == "ok"
            assert await call(client, True, "pay") == "ok"
            assert await call(client, True, "pay") == "denied_by_rule"

    run(main)


@EACH_ERA
def test_a_reload_takes_no_label_off(modern: bool) -> None:
    async def main() -> None:
        async with server() as one, gateway(one, NO_MAIL) as running:
            client = await running.client(session=not modern)
            await call(client, modern, "fetch")
            settings = {**running.settings, "grants": (Grant("all", "allow", tools=("*",)),)}
            again: Snapshot = snapshot(running.servers, running.endpoints, **settings)
            running.fleet.apply(again)
            running.front.apply(again)
            assert await call(client, modern, "send") == "run_labels"

    run(main)


def test_what_is_classed_taints() -> None:
    async def main() -> None:
        row = LabelRow(("private",), None, frozenset({"confidential", "restricted"}))
        rule = RunRule("no mail", "deny", Patterns(("*__send",)), labels=("private",))
        for classification, said in (("internal", "ok"), ("confidential", "run_labels"), ("", "run_labels")):
            settings = {
                "runs": RunSpec(labels=(row,), rules=(rule,)),
                "data": DataSpec({"one": (classification, "none")}),
            }
            async with server() as one, Running({"one": spec("one", one.url)}, settings=settings) as running:
                client = await running.client()
                await call(client, True, "refund")
                assert await call(client, True, "send") == said

    run(main)
