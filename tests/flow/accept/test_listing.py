"""Lists as clients get them: whole or page by page, for how long, for whom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narthex.flow.accept.listing import TTL_MS
from narthex.flow.codec.offers import SERVER_INFO
from narthex.flow.codec.revisions import META_SERVER
from narthex.flow.route.fragments import PAGE
from narthex.flow.upstream.fleet import Fleet
from narthex.testing import FakeServer
from narthex.types import EndpointSpec
from tests.flow.gateway import Answer, Client, Running, run, spec
from tests.flow.upstream.test_fleet import tools
from tests.flow.upstream.test_lists import PUBLIC, hinting

MANY = [f"t{number:04}" for number in range(2 * PAGE.items + 10)]
EACH_ERA = pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])


def one(server: FakeServer, **settings: Any) -> Running:
    return Running({"one": spec("one", server.url)}, settings=settings)


async def ask(client: Client, modern: bool, params: Any = None, **options: Any) -> Answer:
    return await (client.modern if modern else client.legacy)("tools/list", params, **options)


async def pages(client: Client, modern: bool) -> list[Any]:
    found: list[Any] = [(await ask(client, modern)).result]
    while "nextCursor" in found[-1]:
        found.append((await ask(client, modern, {"cursor": found[-1]["nextCursor"]})).result)
    return found


def names(result: Any) -> list[str]:
    return [tool["name"] for tool in result["tools"]]


@EACH_ERA
def test_a_long_list_comes_in_pages(modern: bool) -> None:
    async def main() -> None:
        async with FakeServer(tools=tools(*MANY)) as server, one(server) as gateway:
            found = await pages(await gateway.client(session=not modern), modern)
            assert [len(one["tools"]) for one in found] == [PAGE.items, PAGE.items, 10]
            assert sum(map(names, found), []) == [f"one__{name}" for name in MANY]
            assert len(found[0]["nextCursor"]) <= 512

    run(main)


def test_what_comes_or_goes_between_two_pages_moves_nothing_else() -> None:
    async def main() -> None:
        async with FakeServer(tools=tools(*MANY), eras="legacy") as server, one(server) as gateway:
            client = await gateway.client()
            first = (await ask(client, True)).result
            server.tools = tools(*MANY[5:], "a-new-one")
            gateway.pass_time(61)
            second = (await ask(client, True, {"cursor": first["nextCursor"]})).result
            assert names(second) == [f"one__{name}" for name in MANY[PAGE.items : 2 * PAGE.items]]

    run(main)


@EACH_ERA
def test_a_second_gateway_with_the_same_keys_goes_on_with_a_list(modern: bool) -> None:
    async def main() -> None:
        async with FakeServer(tools=tools(*MANY)) as server, one(server) as first:
            cursor = (await ask(await first.client(session=not modern), modern)).result["nextCursor"]
            async with Running(first.servers, key=first.key) as second:
                page = (await ask(await second.client(session=not modern), modern, {"cursor": cursor})).result
            assert names(page) == [f"one__{name}" for name in MANY[PAGE.items : 2 * PAGE.items]]

    run(main)


@EACH_ERA
def test_a_cursor_that_is_none_of_ours_is_refused(modern: bool) -> None:
    async def main() -> None:
        endpoints = {name: EndpointSpec(name, ("one",)) for name in ("default", "other")}
        async with (
            FakeServer(tools=tools(*MANY), prompts=[{"name": "p"}]) as server,
            Running({"one": spec("one", server.url)}, endpoints) as gateway,
        ):
            client = await gateway.client()
            good = (await ask(client, modern)).result["nextCursor"]
            flipped = good[:-9] + ("A" if good[-9] != "A" else "B") + good[-8:]
            bad: list[Any] = ["forged", flipped, good + "A", "", 7, {}, "é" * 600]
            for cursor in bad:
                error = (await ask(client, modern, {"cursor": cursor})).error
                assert error["code"] == -32602, cursor
            assert (await ask(client, modern, {"cursor": good}, path="/mcp/other")).error["code"] == -32602
            method = client.modern if modern else client.legacy
            assert (await method("prompts/list", {"cursor": good})).error["code"] == -32602
            assert (await ask(client, modern, {"cursor": good})).status == 200
            assert names((await ask(client, modern, {"cursor": None})).result)[0] == "one__t0000"

    run(main)


def test_legacy_results_say_nothing_of_keeping() -> None:
    async def main() -> None:
        async with FakeServer(tools=tools("x")) as server, one(server) as gateway:
            assert (await ask(await gateway.client(), False)).result.keys() == {"tools"}

    run(main)


@pytest.mark.parametrize(
    ("hints", "ttl_ms", "scope"),
    [
        pytest.param({}, TTL_MS, "private", id="nothing said: ours, for the caller alone"),
        pytest.param({"cacheScope": "public"}, TTL_MS, "public", id="the same for everybody"),
        pytest.param({"ttlMs": 10**9, "cacheScope": "public"}, TTL_MS, "public", id="never longer than ours"),
        pytest.param({"ttlMs": 0}, 0, "private", id="not to be kept"),
        pytest.param({"ttlMs": None}, 0, "private", id="nonsense"),
    ],
)
def test_what_a_modern_client_may_keep(hints: Any, ttl_ms: int, scope: str) -> None:
    async def main() -> None:
        async with hinting(hints, hints) as server, one(server) as gateway:
            result = (await ask(await gateway.client(), True)).result
            assert (result["ttlMs"], result["cacheScope"]) == (ttl_ms, scope)
            assert result["_meta"] == {META_SERVER: SERVER_INFO}

    run(main)


def test_the_time_that_is_left_is_said() -> None:
    async def main() -> None:
        async with hinting(PUBLIC, PUBLIC) as server, one(server) as gateway:
            client = await gateway.client()
            first = (await ask(client, True)).result["ttlMs"]
            gateway.pass_time(3)
            assert 0 < (await ask(client, True)).result["ttlMs"] <= first - 3000

    run(main)


@pytest.mark.parametrize(
    ("endpoint", "count"),
    [
        pytest.param(EndpointSpec("default", ("one", "two")), 2, id="another server's is private"),
        pytest.param(EndpointSpec("default", ("one", "dead")), 2, id="a server is missing"),
    ],
)
def test_a_list_is_public_only_as_a_whole(endpoint: EndpointSpec, count: int) -> None:
    async def main() -> None:
        async with FakeServer() as gone:
            dead = spec("dead", gone.url)
        async with hinting(PUBLIC, PUBLIC) as public, FakeServer(tools=[]) as private:
            servers = {"one": spec("one", public.url), "two": spec("two", private.url), "dead": dead}
            async with Running(servers, {"default": endpoint}) as gateway:
                result = (await ask(await gateway.client(), True)).result
                assert (len(result["tools"]), result["cacheScope"]) == (count, "private")

    run(main)


def test_the_pages_of_a_list_are_private_for_they_hold_a_cursor() -> None:
    async def main() -> None:
        server = hinting(PUBLIC, PUBLIC)
        server.tools, server.page = tools(*MANY), 0
        async with server, one(server) as gateway:
            found = await pages(await gateway.client(), True)
            assert [one["cacheScope"] for one in found] == ["private"] * 3

    run(main)


def test_lists_are_counted_with_their_bytes() -> None:
    async def main() -> None:
        async with FakeServer(tools=tools("x")) as server, one(server) as gateway:
            answer = await ask(await gateway.client(), True)
            counter = gateway.accounts.counter("default", "", "tools/list", "", "modern")
            assert gateway.counted("tools/list", server="") == {"ok": 1}
            assert counter.bytes_out == len(answer.body)
            assert json.loads(answer.body)["id"] == 1

    run(main)


def test_a_failure_of_ours_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    async def main() -> None:
        async with FakeServer(tools=tools("x")) as server, one(server) as gateway:
            monkeypatch.setattr(Fleet, "listing", broken)
            answer = await ask(await gateway.client(), True)
            assert (answer.status, answer.error["code"]) == (500, -32603)

    run(main)
