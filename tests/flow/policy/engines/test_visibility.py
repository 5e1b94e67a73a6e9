"""What an engine lets somebody see: lists and calls agree, it is asked once, and never at the cost of the others."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from narthex.testing import FakeServer
from narthex.types import EndpointSpec, Grant
from tests.flow.gateway import Client, Running, run, spec
from tests.flow.policy.judge import Judge, Rule
from tests.flow.upstream.test_fleet import tools

EACH_ERA = pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
NAMES = tuple(f"tool{number}" for number in range(250))


def even(asked: dict[str, Any]) -> bool:
    name = asked["resource"]["upstream_name"]
    return not name[-1].isdigit() or int(name[-1]) % 2 == 0


def over(one: FakeServer, rule: Rule, *grants: Grant, slow: bool = False, **settings: Any) -> Running:
    endpoints = {"default": EndpointSpec("default", ("one",), naming="none")}
    engine = Judge(rule, slow=slow, seen_s=settings.pop("seen_s", float("inf")))
    return Running({"one": spec("one", one.url)}, endpoints, {"grants": grants}, engine=engine, **settings)


async def listed(client: Client, modern: bool) -> list[str]:
    found: list[str] = []
    params: dict[str, Any] = {}
    while True:
        result = (await (client.modern if modern else client.legacy)("tools/list", params)).result
        found += [tool["name"] for tool in result["tools"]]
        if "nextCursor" not in result:
            return found
        params = {"cursor": result["nextCursor"]}


@EACH_ERA
def test_a_list_shows_what_the_engine_lets_see(modern: bool) -> None:
    async def main() -> None:
        async with FakeServer(tools=tools(*NAMES)) as one, over(one, even) as gateway:
            client, engine = await gateway.client(session=not modern), gateway.engine
            assert isinstance(engine, Judge)
            assert await listed(client, modern) == [name for name in NAMES if int(name[-1]) % 2 == 0]
            asked = len(engine.asked)
            assert await listed(client, modern) == [name for name in NAMES if int(name[-1]) % 2 == 0]
            assert len(engine.asked) == asked == len(NAMES), "once for each"

    run(main)


@EACH_ERA
@pytest.mark.parametrize("lists", [True, False], ids=["listed before", "never listed"])
def test_what_is_not_listed_answers_as_what_is_missing(modern: bool, lists: bool) -> None:
    async def main() -> None:
        async with FakeServer(tools=tools("tool0", "tool1")) as one, over(one, even, slow=True) as gateway:
            client = await gateway.client(session=not modern)
            call = client.modern if modern else client.legacy
            if lists:
                await listed(client, modern)
            assert "error" not in (await call("tools/call", {"name": "tool0", "arguments": {}})).messages[-1]
            hidden = (await call("tools/call", {"name": "tool1", "arguments": {}})).error
            missing = (await call("tools/call", {"name": "toolX", "arguments": {}})).error
            assert hidden["message"].replace("tool1", "toolX") == missing["message"]
            assert (hidden["code"], set(hidden["data"])) == (missing["code"], set(missing["data"]))
            assert [asked.params["name"] for asked in one.asked if asked.method == "tools/call"] == ["tool0"]

    run(main)


def test_grants_and_engine_must_both_show_it() -> None:
    async def main() -> None:
        some = Grant("some", "allow", tools=("*__tool0", "*__tool1"))
        async with FakeServer(tools=tools(*NAMES[:6])) as one, over(one, even, some) as gateway:
            assert await listed(await gateway.client(), True) == ["tool0"]

    run(main)


def test_what_the_engine_fails_at_is_hidden_and_asked_again() -> None:
    async def main() -> None:
        fails = [True]

        def rule(asked: dict[str, Any]) -> bool:
            if fails and asked["action"] == "list":
                raise OSError("gone")
            return True

        async with FakeServer(tools=tools("a", "b")) as one, over(one, rule) as gateway:
            client = await gateway.client()
            assert await listed(client, True) == []
            assert (await client.modern("tools/call", {"name": "a", "arguments": {}})).error["code"] == -32602
            fails.clear()
            assert await listed(client, True) == ["a", "b"]

    run(main)


def test_what_depends_on_the_time_is_asked_again_in_time() -> None:
    async def main() -> None:
        now = [time.time() // 60 * 60]
        seen = ["2"]

        def rule(asked: dict[str, Any]) -> bool:
            return bool(asked["resource"]["upstream_name"] in seen)

        async with (
            FakeServer(tools=tools("1", "2")) as one,
            over(one, rule, seen_s=60.0, wall=lambda: now[0]) as gateway,
        ):
            client = await gateway.client()
            assert await listed(client, True) == ["2"]
            seen[:] = ["1"]
            now[0] += 59
            assert await listed(client, True) == ["2"]
            now[0] += 1
            assert await listed(client, True) == ["1"]

    run(main)


SOME = ("a", "b", "c", "d")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seen=st.sets(st.sampled_from(SOME)),
    granted=st.none() | st.sets(st.sampled_from(SOME), min_size=1),
    callable_=st.sets(st.sampled_from(SOME)),
    slow=st.booleans(),
    listed_first=st.booleans(),
    modern=st.booleans(),
)
def test_what_is_listed_is_exactly_what_is_not_hidden(
    seen: set[str], granted: set[str] | None, callable_: set[str], slow: bool, listed_first: bool, modern: bool
) -> None:
    def rule(asked: dict[str, Any]) -> bool:
        return asked["resource"]["upstream_name"] in (seen if asked["action"] == "list" else callable_)

    grants = () if granted is None else (Grant("some", "allow", tools=tuple(f"one__{name}" for name in granted)),)

    async def main() -> None:
        async with FakeServer(tools=tools(*SOME)) as one, over(one, rule, *grants, slow=slow) as gateway:
            client = await gateway.client(session=not modern)
            call = client.modern if modern else client.legacy
            shown = await listed(client, modern) if listed_first else None
            codes = {}
            for name in SOME:
                answer = (await call("tools/call", {"name": name, "arguments": {}})).messages[-1]
                codes[name] = answer["error"]["code"] if "error" in answer else 0
            visible = [name for name in SOME if codes[name] != -32602]
            assert visible == (shown if shown is not None else await listed(client, modern))
            assert set(visible) == seen & (set(SOME) if granted is None else granted)
            assert {name for name in visible if codes[name] == 0} == set(visible) & callable_

    run(main)
