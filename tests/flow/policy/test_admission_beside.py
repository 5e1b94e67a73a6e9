"""Grants beside calls and lists: greetings, streams that stay open while grants end, logs, completions, retries."""

from __future__ import annotations

import time
from typing import Any

import pytest

from narthex.testing import FakeServer
from narthex.types import LOCAL, EndpointSpec, Grant
from tests.flow.accept.test_greeting import greet, speaking
from tests.flow.gateway import Running, run, spec, until
from tests.flow.notify.hearing import WATCHED, Teller, listen
from tests.flow.notify.test_beside import heard, hearing, log
from tests.flow.upstream.test_fleet import tools

EACH_ERA = pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])


def over(server: Any, *grants: Grant, **settings: Any) -> Running:
    endpoint = EndpointSpec("default", ("one",), naming="none")
    one = {"one": spec("one", server.url)}
    return Running(one, {"default": endpoint}, {"grants": grants}, goes=True, **settings)


@EACH_ERA
def test_a_greeting_says_nothing_of_a_server_of_which_nothing_is_visible(modern: bool) -> None:
    async def main() -> None:
        a, b = speaking({"tools": {}}, "Ask first."), speaking({"logging": {}, "prompts": {}}, "The vault is here.")
        servers = lambda: {"a": spec("a", a.url), "b": spec("b", b.url)}  # noqa: E731
        async with a, b, Running(servers(), settings={"grants": (Grant("a", "allow", tools=("a__*",)),)}) as gateway:
            result = await greet(await gateway.client(), modern)
            assert result["instructions"] == "Ask first.", "as if it were alone"
            assert set(result["capabilities"]) == {"tools"}

    run(main)


@pytest.mark.parametrize("ends", [False, True], ids=["it counts", "it has ended"])
def test_a_subscription_tells_of_what_may_still_be_read(ends: bool) -> None:
    async def main() -> None:
        now = [time.time()]
        grants = (
            Grant("tools", "allow", tools=("one__*",)),
            Grant("for an hour", "allow", resources=("*",), expires_at=now[0] + 3600),
        )
        async with Teller() as server, over(server, *grants, wall=lambda: now[0]) as gateway:
            stream = await listen(await gateway.client(), toolsListChanged=True, resourceSubscriptions=[WATCHED])
            await stream.message()
            if ends:
                now[0] += 7200
            server.tell("notifications/resources/updated", uri=WATCHED)
            server.has("b")
            assert await stream.told() == (("tools/list_changed", None) if ends else ("resources/updated", WATCHED))

    run(main)


@pytest.mark.parametrize("uri", ["keys:b", "keyz:b"], ids=["hidden", "missing"])
def test_where_a_hidden_resource_is_takes_the_way_of_a_missing_one(uri: str) -> None:
    async def main() -> None:
        one = FakeServer(resources=[{"uri": "docs:a", "name": "a"}, {"uri": "keys:b", "name": "b"}])
        async with one, over(one, Grant("docs", "allow", resources=("one__docs:*",))) as gateway:
            await (await gateway.client()).modern("resources/list")
            gateway.pass_time(5)
            lists, front = len(one.asked), gateway.front
            viewer = gateway.fleet.viewer(front.snapshot.endpoints["default"], LOCAL, None)
            found = await front.hub.places(viewer, [uri, "docs:a"], front.admission(LOCAL, "default"))
            assert list(found) == ["docs:a"]
            assert [asked.method for asked in one.asked[lists:]].count("resources/list") == 1

    run(main)


def test_who_listens_is_told_when_a_grant_ends_by_itself() -> None:
    async def main() -> None:
        now = [time.time()]
        grants = (
            Grant("tools", "allow", tools=("*__a",), expires_at=now[0] + 3600),
            Grant("prompts", "allow", prompts=("*",)),
        )
        async with Teller() as server, over(server, *grants, wall=lambda: now[0]) as gateway:
            client, other = await gateway.client(), await gateway.client()
            stream = await listen(client, toolsListChanged=True)
            await stream.message()
            gateway.pass_time(1)
            assert [tool["name"] for tool in (await other.modern("tools/list")).result["tools"]] == ["a"]
            now[0] += 7200
            gateway.pass_time(1)
            assert await stream.told() == ("tools/list_changed", None)
            assert (await other.modern("tools/list")).result["tools"] == []

    run(main)


def test_logs_of_a_server_of_which_nothing_is_visible_are_not_heard() -> None:
    async def main() -> None:
        async with Teller() as hidden, Teller() as shown:
            servers = {"hidden": spec("hidden", hidden.url), "shown": spec("shown", shown.url)}
            only = Grant("one", "allow", tools=("shown__*",))
            async with Running(servers, settings={"grants": (only,)}) as gateway:
                _, stream = await hearing(gateway, "debug")
                await heard(hidden)
                await heard(shown)
                came, beside = [], gateway.front.hub.beside
                take = beside.log
                beside.log = lambda *said: came.append(said) or take(*said)  # type: ignore[method-assign, func-returns-value]
                log(hidden, "error", "the vault is open")
                await until(lambda: came)
                log(shown, "info", "hello")
                assert (await stream.message())["params"]["data"] == "hello"

    run(main)


@EACH_ERA
def test_a_condition_sees_the_arguments_of_a_completion_as_the_server_does(modern: bool) -> None:
    async def main() -> None:
        prompts = [{"name": "hello", "arguments": [{"name": "a"}, {"name": "of"}]}]
        public = Grant("public", "allow", prompts=("*",), when='args.of == "public"')
        completion = {"completion": {"values": []}}
        one = FakeServer(tools=tools("x"), prompts=prompts, answers={"completion/complete": completion})
        async with one, over(one, public) as gateway:
            client = await gateway.client(session=not modern)
            ask = client.modern if modern else client.legacy
            await ask("prompts/list")
            ref = {"type": "ref/prompt", "name": "hello"}
            argument = {"name": "of", "value": "public", "more": 1}
            params = {"ref": ref, "argument": argument, "context": {"arguments": {"of": "secret", "b": "c"}}}
            await ask("completion/complete", params)
            sent = next(asked.params for asked in one.asked if asked.method == "completion/complete")
            assert sent["argument"] == {"name": "of", "value": "public"}
            assert sent["context"] == {"arguments": {"b": "c"}}

    run(main)
