"""An engine beside the grants: it is asked of each call, denies in its own words, and whatever goes wrong denies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narthex.errors import InsufficientScope
from narthex.flow.policy.admission import Admission
from narthex.flow.policy.check import Check
from narthex.flow.policy.deciding import Decide, both, decided
from narthex.flow.policy.decision import Decision
from narthex.flow.route.target import Target
from narthex.testing import FakeServer
from narthex.types import Call, EndpointSpec, Grant, Principal
from tests.flow.gateway import Answer, Client, Running, run, spec, until
from tests.flow.policy.judge import DENY, HOLD, Judge, Rule, allow, sees_all
from tests.flow.upstream.test_fleet import tools

EACH_ERA = pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
EACH_WAY = pytest.mark.parametrize("slow", [False, True], ids=["from memory", "later"])
SMALL = sees_all(lambda asked: asked["mcp"]["arguments"]["amount"] <= 100)


def server(**more: Any) -> FakeServer:
    return FakeServer(
        tools=tools("pay", "read"),
        prompts=[{"name": "hello", "arguments": [{"name": "a"}]}],
        resources=[{"uri": "docs:a", "name": "a"}],
        answers={
            "hello": {"messages": []},
            "docs:a": {"contents": [{"uri": "docs:a", "text": "a"}]},
            "completion/complete": {"completion": {"values": []}},
        },
        **more,
    )


def over(one: FakeServer, rule: Rule, *grants: Grant, slow: bool = False) -> Running:
    endpoints = {"default": EndpointSpec("default", ("one",), naming="none")}
    return Running({"one": spec("one", one.url)}, endpoints, {"grants": grants}, engine=Judge(rule, slow=slow))


async def ask(client: Client, modern: bool, method: str, params: Any = None) -> Answer:
    return await (client.modern if modern else client.legacy)(method, params)


async def pay(client: Client, modern: bool, **arguments: Any) -> Answer:
    return await ask(client, modern, "tools/call", {"name": "pay", "arguments": arguments})


def reason(answer: Answer) -> str:
    assert answer.error["code"] == -31001
    return str(answer.error["data"]["reason"])


@EACH_ERA
@EACH_WAY
def test_an_engine_alone_decides(modern: bool, slow: bool) -> None:
    async def main() -> None:
        async with server() as one, over(one, SMALL, slow=slow) as gateway:
            client = await gateway.client(session=not modern)
            assert json.loads((await pay(client, modern, amount=5)).text) == {"amount": 5}
            assert reason(await pay(client, modern, amount=500)) == "denied_by_policy"
            await until(gateway.settled)

    run(main)


@EACH_WAY
@pytest.mark.parametrize(
    ("method", "params"),
    [
        pytest.param("tools/call", {"name": "read", "arguments": {}}, id="tool"),
        pytest.param("tools/call", {"name": "read", "arguments": {}, "task": {}}, id="tool as a task"),
        pytest.param("prompts/get", {"name": "hello"}, id="prompt"),
        pytest.param("resources/read", {"uri": "docs:a"}, id="resource"),
        pytest.param(
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "hello"}, "argument": {"name": "a", "value": "x"}},
            id="completion",
        ),
    ],
)
def test_each_way_to_a_server_is_asked_about(method: str, params: Any, slow: bool) -> None:
    async def main() -> None:
        async with server() as one, over(one, sees_all(lambda asked: False), slow=slow) as gateway:
            client = await gateway.client(session=True)
            assert reason(await client.legacy(method, params)) == "denied_by_policy"
            assert not [asked for asked in one.asked if asked.method == method], "nothing was sent"
            engine = gateway.engine
            assert isinstance(engine, Judge)
            assert [asked["action"] for asked in engine.calls] == [method]

    run(main)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param(lambda asked: 1 / 0, "policy_failed", id="the engine raises"),
        pytest.param(lambda asked: None, "bad_policy_result", id="the engine says nothing"),
        pytest.param(lambda asked: "allow", "bad_policy_result", id="the engine says something else"),
        pytest.param(lambda asked: HOLD, "approval_required", id="nobody is there to approve"),
    ],
)
@EACH_ERA
def test_what_goes_wrong_denies(rule: Rule, expected: str, modern: bool) -> None:
    async def main() -> None:
        async with server() as one, over(one, sees_all(rule), slow=True) as gateway:
            client = await gateway.client(session=not modern)
            assert reason(await pay(client, modern)) == expected
            assert not [asked for asked in one.asked if asked.method == "tools/call"]

    run(main)


@EACH_WAY
def test_grants_and_engine_must_both_allow(slow: bool) -> None:
    async def main() -> None:
        pays = Grant("pays", "allow", tools=("*__pay",), when="args.amount < 10")
        async with server() as one, over(one, SMALL, pays, slow=slow) as gateway:
            client, engine = await gateway.client(), gateway.engine
            assert isinstance(engine, Judge)
            assert (await pay(client, True, amount=5)).status == 200
            assert reason(await pay(client, True, amount=50)) == "condition_not_met"
            assert len(engine.calls) == 1, "what the grants deny, no engine is asked about"
            shown = (await client.modern("tools/list")).result["tools"]
            assert [tool["name"] for tool in shown] == ["pay"]

    run(main)


@pytest.mark.parametrize(
    ("ours", "said", "effect", "why"),
    [
        (Decision("allow", "granted"), allow(), "allow", "allowed_by_policy"),
        (Decision("allow", "granted"), HOLD, "hold", "approval_required"),
        (Decision("allow", "granted"), DENY, "deny", "denied_by_policy"),
        (Decision("hold", "by_rule"), allow(), "hold", "by_rule"),
        (Decision("hold", "by_rule"), DENY, "deny", "denied_by_policy"),
    ],
)
def test_deny_wins_over_hold_over_allow(ours: Decision, said: Decision, effect: str, why: str) -> None:
    found = both(ours, said)
    assert (found.effect, found.reason, found.engine, found.bundle) == (effect, why, "judge", "b1")


def test_exactly_what_the_engine_saw_is_sent_on() -> None:
    async def main() -> None:
        async with server() as one, over(one, sees_all(lambda asked: True)) as gateway:
            client, engine = await gateway.client(), gateway.engine
            assert isinstance(engine, Judge)
            got = await client.modern("tools/call", {"name": "pay", "arguments": {"n": 12345678901234567890123}})
            assert json.loads(got.text) == engine.calls[0]["mcp"]["arguments"]

    run(main)


def test_a_client_that_leaves_while_the_engine_decides_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with server() as one, over(one, sees_all(lambda asked: True), slow=True) as gateway:
            client, engine = await gateway.client(), gateway.engine
            assert isinstance(engine, Judge)
            assert (await pay(client, True)).status == 200
            engine.open.clear()
            client.send("tools/call", {"name": "pay", "arguments": {}}, modern=True)
            await until(lambda: gateway.front.calls.active)
            client.close()
            await until(gateway.settled)
            assert len([asked for asked in one.asked if asked.method == "tools/call"]) == 1

    run(main)


@pytest.mark.parametrize(
    ("scopes", "wanted"),
    [
        pytest.param(frozenset({"pay"}), None, id="has it"),
        pytest.param(frozenset({"read"}), ("pay",), id="lacks it"),
    ],
)
def test_a_scope_that_the_policy_asks_for_is_asked_of_the_client(
    scopes: frozenset[str], wanted: tuple[str, ...] | None
) -> None:
    ann = Principal("default", "https://sso", "ann", scopes=scopes, method="jwt")
    engine = Judge(lambda asked: allow(("step_up_scope", ("pay",))))
    check = Check(Admission(ann, "default", None, None, engine))
    call = Call("tools/call", {}, {}, b"1", "modern", "2026-07-28", ann, "default", "pay")
    target = Target("one", "pay", b'"pay"')
    walk = decided(check, call, "tools", target, check.admit("tools", target, {}))
    question = next(walk)
    assert isinstance(question, Decide)
    try:
        walk.send(question.now())
    except InsufficientScope as error:
        assert error.scopes == wanted
        assert check.decision is not None
        said = (check.decision.effect, check.decision.reason, check.decision.detail)
        assert said == ("deny", "insufficient_scope", "step_up_scope: the caller lacks pay")
    except StopIteration as done:
        assert wanted is None and done.value == {}


def test_what_is_not_to_be_logged_is_not() -> None:
    ann = Principal("default", "https://sso", "ann", method="jwt")
    check = Check(Admission(ann, "default", None, None, Judge(lambda asked: allow(("log", "none")))))
    call = Call("tools/call", {}, {}, b"1", "modern", "2026-07-28", ann, "default", "pay")
    target = Target("one", "pay", b'"pay"')
    walk = decided(check, call, "tools", target, check.admit("tools", target, {}))
    question = next(walk)
    assert isinstance(question, Decide)
    with pytest.raises(StopIteration):
        walk.send(question.now())
    assert not check.logged


A, B = (f"00-{number:032x}-{number:016x}-01" for number in (1, 2))
S = "vendor=1"


@pytest.mark.parametrize(
    ("meta", "headers", "trace"),
    [
        pytest.param({}, {"traceparent": A, "tracestate": S}, (("traceparent", A), ("tracestate", S)), id="headers"),
        pytest.param({"traceparent": B}, {"traceparent": A, "tracestate": S}, (("traceparent", B),), id="_meta wins"),
        pytest.param({"traceparent": "x"}, {"traceparent": A}, (("traceparent", A),), id="nonsense in _meta"),
        pytest.param({}, {"traceparent": "x" * 55}, (), id="nonsense"),
        pytest.param({}, {"traceparent": A, "tracestate": "a" * 600}, (("traceparent", A),), id="a state that is none"),
        pytest.param({}, {"traceparent": f"{A}\r\ntraceparent: {B}"}, (), id="two"),
        pytest.param({}, {}, (), id="nothing"),
    ],
)  # fmt: skip
def test_the_trace_that_an_engine_is_told_of(
    meta: dict[str, str], headers: dict[str, str], trace: tuple[tuple[str, str], ...]
) -> None:
    traces: list[object] = []

    class Noting(Judge):
        def known(self, document: Any) -> Any:
            traces.append(document.trace)
            return super().known(document)

    async def main() -> None:
        engine = Noting(lambda asked: True)
        async with (
            FakeServer(tools=tools("x")) as one,
            Running({"one": spec("one", one.url)}, engine=engine) as gateway,
        ):
            client = await gateway.client()
            answer = await client.modern("tools/call", {"name": "one__x", "arguments": {}}, meta=meta, headers=headers)
            assert "result" in answer.messages[-1], answer.messages
            assert traces == [trace]

    run(main)
