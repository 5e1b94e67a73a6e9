"""Answers from memory at a call, between real clients and a real server: who gets them, what they look like, what ends
them, and what equal calls at one time do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from narthex.authority.identify import Identity
from narthex.testing import FakeServer, JsonRpcError
from narthex.types import (
    CacheRule,
    CacheSpec,
    ClearRule,
    Grant,
    HeaderCredential,
    IdentitySpec,
    LimitRule,
    PriceRule,
    Principal,
    SecretText,
    Snapshot,
    Use,
    WhenSpent,
    Who,
)
from tests.authority.issuing import fetcher
from tests.flow.accept.test_exchange import ERAS
from tests.flow.gateway import Answer, Client, Running, run, spec, until
from tests.flow.policy.judge import Judge, allow, sees_all

MINUTE = 60_000_000
TOOLS: list[dict[str, Any]] = [{"name": name, "inputSchema": {"type": "object"}} for name in ("get", "put", "other")]
READ = CacheRule("read", 60.0, tools=("one__get",))
GET = {"name": "one__get", "arguments": {"id": 1}}
PUT = {"name": "one__put", "arguments": {"id": 1}}


class Counting(FakeServer):
    """Answers each call with how many there were."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"tools": TOOLS, **settings})
        self.calls = 0
        for name in ("get", "put", "other"):
            self.answers.setdefault(name, self.answer)

    def answer(self, params: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        return {"content": [{"type": "text", "text": str(self.calls)}]}


def caching(server: FakeServer, *rules: CacheRule, clears: tuple[ClearRule, ...] = (), **more: Any) -> Running:
    settings = {"cache": CacheSpec(rules or (READ,), clears), **more.pop("settings", {})}
    return Running({"one": spec("one", server.url, **more.pop("of_server", {}))}, settings=settings, **more)


def asker(client: Client, modern: bool) -> Any:
    return client.modern if modern else client.legacy


def words(gateway: Running) -> list[str]:
    """What the cache did for each call, as recorded."""
    return [entry.cache for entry in gateway.entries]


class Recorded:
    """A gateway whose records are kept in `entries`."""

    def __init__(self, gateway: Running) -> None:
        self._gateway = gateway

    async def __aenter__(self) -> Any:
        gateway: Any = await self._gateway.__aenter__()
        gateway.entries = []
        gateway.front.record = gateway.entries.append
        return gateway

    async def __aexit__(self, *args: Any) -> None:
        await self._gateway.__aexit__(*args)


# --- what is given


@pytest.mark.parametrize("eras", ["legacy", "modern"])
@ERAS
def test_an_equal_call_is_answered_from_memory_in_the_askers_era(eras: Any, modern: bool) -> None:
    async def main() -> None:
        async with Counting(eras=eras) as server, Recorded(caching(server)) as gateway:
            first, second = await gateway.client(session=not modern), await gateway.client()
            one = await asker(first, modern)("tools/call", GET, id_="a")
            gateway.pass_time(2)
            two = await second.modern("tools/call", GET, id_=77)
            assert (one.text, two.text, server.calls) == ("1", "1", 1)
            assert two.messages[0]["id"] == 77 and two.result["resultType"] == "complete"
            three = await asker(first, modern)("tools/call", GET, id_="b")
            assert three.body.replace(b'"b"', b'"a"') == one.body, "byte for byte what the server's answer would be"
            assert words(gateway) == ["miss", "hit", "hit"]
            assert gateway.entries[1].age == pytest.approx(2, abs=0.5)
            assert gateway.entries[1].server == "one" and gateway.entries[1].name == "get"
            assert gateway.settled()

    run(main)


@ERAS
def test_who_takes_events_gets_json_from_memory(modern: bool) -> None:
    async def main() -> None:
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 3, "progress": 1}}
        async with Counting(stream=True, events=[note]) as server, caching(server) as gateway:
            client = await gateway.client(session=not modern)
            ask = asker(client, modern)
            one = await ask("tools/call", GET, meta={"progressToken": "p"})
            assert one.headers["content-type"] == "text/event-stream" and len(one.messages) == 2
            two = await ask("tools/call", GET, meta={"progressToken": "q"})
            assert two.headers["content-type"] == "application/json" and two.text == one.text == "1"

    run(main)


def test_resources_and_prompts_are_kept_too() -> None:
    async def main() -> None:
        uri, template = "file:///a", {"uriTemplate": "file:///{name}", "name": "t"}
        said = {"contents": [{"uri": uri, "text": "x"}]}
        rule = CacheRule("r", 60.0, resources=("one__file:///*",), prompts=("one__hi",))
        settings: Any = {
            "resources": [{"uri": uri, "name": "a"}], "templates": [template], "prompts": [{"name": "hi"}],
            "answers": {uri: said, "file:///b": said, "hi": {"messages": []}}, "eras": "legacy",
        }  # fmt: skip
        async with Counting(**settings) as server, caching(server, rule) as gateway:
            client = await gateway.client()
            for params in ({"uri": uri}, {"uri": "file:///b"}):
                for _ in range(3):
                    got = await client.modern("resources/read", params)
                    assert got.result["contents"] and got.result["ttlMs"] == 0, (
                        "a legacy server lets nobody else keep it"
                    )
            for _ in range(3):
                assert (await client.modern("prompts/get", {"name": "one__hi"})).result["messages"] == []
            assert len(server.requests("resources/read")) == 2 and len(server.requests("prompts/get")) == 1

    run(main)


def test_a_modern_servers_word_on_a_resource_is_kept() -> None:
    async def main() -> None:
        async with Counting(resources=[{"uri": "a:b", "name": "a"}]) as server:
            server.answers["a:b"] = {"contents": []}  # the server adds `ttlMs: 0`
            async with caching(server, CacheRule("r", 60.0, resources=("*",))) as gateway:
                client = await gateway.client()
                for _ in range(2):
                    await client.modern("resources/read", {"uri": "a:b"})
                assert len(server.requests("resources/read")) == 2

    run(main)


# --- what is never kept


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"isError": True, "content": []}, id="an error of the tool"),
        pytest.param(JsonRpcError(-32603, "no"), id="a JSON-RPC error"),
        pytest.param({"content": [], "ttlMs": 0}, id="what the server lets nobody keep"),
    ],
)
@ERAS
def test_what_is_not_kept(answer: Any, modern: bool) -> None:
    async def main() -> None:
        def said(params: dict[str, Any]) -> dict[str, Any]:
            if isinstance(answer, Exception):
                raise answer
            return dict(answer)

        async with Counting(answers={"get": said}) as server, caching(server) as gateway:
            ask = asker(await gateway.client(session=not modern), modern)
            for _ in range(2):
                await ask("tools/call", GET)
            assert len(server.requests("tools/call")) == 2 and len(gateway.front.cache.shelves) == 0
            assert len(gateway.front.cache.flights) == len(gateway.front.cache.lots) == 0

    run(main)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param({"meta": {"vendor/x": 1}}, id="a member of _meta that nobody knows"),
        pytest.param({"headers": {"Mcp-Param-Region": "eu"}}, id="a header that goes to the server"),
    ],
)
def test_what_asks_for_more_goes_to_the_server(sent: dict[str, Any]) -> None:
    async def main() -> None:
        async with Counting(eras="modern") as server, caching(server) as gateway:
            client = await gateway.client()
            await client.modern("tools/call", GET)
            assert (await client.modern("tools/call", GET, **sent)).text == "2"
            assert (await client.modern("tools/call", GET)).text == "1", "and what it was told is nobody else's"

    run(main)


@pytest.mark.parametrize("method", ["notifications/message", "notifications/vendor"])
def test_what_was_told_on_the_way_is_not_left_out_for_the_next(method: str) -> None:
    async def main() -> None:
        note = {"jsonrpc": "2.0", "method": method, "params": {"level": "info", "data": "x"}}
        async with Counting(stream=True, events=[note]) as server, caching(server) as gateway:
            client = await gateway.client()
            for number in ("1", "2"):
                assert (await client.modern("tools/call", GET)).text == number

    run(main)


def test_a_tool_that_is_not_cached_has_no_plan_and_a_gateway_without_cache_none_at_all() -> None:
    async def main() -> None:
        async with Counting() as server, Recorded(caching(server)) as gateway:
            client = await gateway.client()
            for _ in range(2):
                await client.modern("tools/call", {"name": "one__other", "arguments": {}})
            assert server.calls == 2 and words(gateway) == ["", ""]
        async with Counting() as server, Running({"one": spec("one", server.url)}) as plain:
            client = await plain.client()
            await client.modern("tools/call", GET)
            assert plain.front.cache is None

    run(main)


# --- time


def test_after_its_time_it_is_asked_anew() -> None:
    async def main() -> None:
        async with Counting() as server, caching(server) as gateway:
            client = await gateway.client()
            for late, number in ((0, "1"), (59, "1"), (2, "2")):
                gateway.pass_time(late)
                assert (await client.modern("tools/call", GET)).text == number

    run(main)


def test_what_is_stale_is_given_while_one_call_renews_it() -> None:
    async def main() -> None:
        rule = CacheRule("read", 10.0, tools=("one__get",), stale_s=100.0)
        async with Counting() as server, Recorded(caching(server, rule)) as gateway:
            client = await gateway.client()
            await client.modern("tools/call", GET)
            gateway.pass_time(11)
            server.held = asyncio.Event()
            for _ in range(3):
                assert (await client.modern("tools/call", GET)).text == "1", "nobody waits for the new one"
            await until(lambda: len(server.requests("tools/call")) == 2)
            server.held.set()
            server.held = None
            await until(gateway.settled)
            assert (await client.modern("tools/call", GET)).text == "2"
            assert len(server.requests("tools/call")) == 2
            assert sorted(words(gateway)) == ["hit", "miss", "renewal", "stale", "stale", "stale"]
            assert gateway.counted("tools/call", "get") == {"ok": 6}

    run(main)


def test_a_server_that_is_gone_leaves_what_is_stale_until_its_end() -> None:
    async def main() -> None:
        rule = CacheRule("read", 10.0, tools=("one__get",), stale_s=100.0)
        async with Counting() as server, caching(server, rule) as gateway:
            client = await gateway.client()
            await client.modern("tools/call", GET)
            gateway.pass_time(11)
            server.answers["get"] = lambda params: (_ for _ in ()).throw(JsonRpcError(-32603, "down"))
            for _ in range(3):
                assert (await client.modern("tools/call", GET)).text == "1"
                await until(gateway.settled)
            gateway.pass_time(100)
            client = await gateway.client()  # the first was silent for too long
            assert (await client.modern("tools/call", GET)).error["code"] == -32603

    run(main)


def test_an_open_breaker_stops_no_answer_from_memory() -> None:
    async def main() -> None:
        async with Counting() as server, caching(server) as gateway:
            client = await gateway.client()
            await client.modern("tools/call", GET)
            breaker = gateway.fleet.servers["one"].breaker
            for _ in range(100):
                breaker.failure(gateway.clock())
            assert breaker.state != "closed"
            assert (await client.modern("tools/call", GET)).text == "1"
            assert "error" in (await client.modern("tools/call", {**GET, "arguments": {"id": 2}})).messages[0]

    run(main)


# --- many equal calls at one time


@ERAS
def test_a_crowd_of_equal_calls_makes_one(modern: bool) -> None:
    async def main() -> None:
        async with Counting() as server, Recorded(caching(server)) as gateway:
            server.held = asyncio.Event()
            clients = [await gateway.client() for _ in range(50)]
            if not modern:
                await clients[0].initialize()
                for client in clients:
                    client.session = clients[0].session
            tasks = [
                asyncio.ensure_future(asker(one, modern)("tools/call", GET, id_=i)) for i, one in enumerate(clients)
            ]
            await until(lambda: len(gateway.front.calls.active) == 50)
            server.held.set()
            answers: list[Answer] = await asyncio.gather(*tasks)
            assert [(one.messages[0]["id"], one.text) for one in answers] == [(i, "1") for i in range(50)]
            assert len(server.requests("tools/call")) == 1
            assert sorted(set(words(gateway))) == ["joined", "miss"] and words(gateway).count("miss") == 1
            await until(gateway.settled)

    run(main)


async def crowd(gateway: Any, server: FakeServer, count: int = 3) -> tuple[list[Client], list[Any]]:
    """Clients with equal calls under way: the first has gone to the server, the others wait for it."""
    server.held = asyncio.Event()
    clients = [await gateway.client() for _ in range(count)]
    tasks = []
    for number, client in enumerate(clients):
        tasks.append(asyncio.ensure_future(client.modern("tools/call", GET)))
        await until(lambda number=number: len(gateway.front.calls.active) == number + 1)
        await until(lambda: server.requests("tools/call"))
    return clients, tasks


def test_when_the_one_that_went_is_given_up_another_goes() -> None:
    async def main() -> None:
        async with Counting() as server, Recorded(caching(server)) as gateway:
            clients, tasks = await crowd(gateway, server)
            tasks[0].cancel()
            clients[0].close()
            await until(lambda: len(server.requests("tools/call")) == 2)
            server.held.set()
            answers = await asyncio.gather(*tasks[1:])
            assert {one.text for one in answers} == {"1"} or {one.text for one in answers} == {"2"}
            assert len(server.requests("tools/call")) == 2
            assert sorted(words(gateway)) == ["joined", "miss", "miss"]

    run(main)


def test_who_waits_can_go_without_the_others_noticing() -> None:
    async def main() -> None:
        async with Counting() as server, caching(server) as gateway:
            clients, tasks = await crowd(gateway, server)
            tasks[1].cancel()
            clients[1].close()
            await until(lambda: len(gateway.front.calls.active) == 2)
            server.held.set()
            assert [(await tasks[at]).text for at in (0, 2)] == ["1", "1"]
            await until(gateway.settled)

    run(main)


def test_a_failure_is_nobody_elses() -> None:
    async def main() -> None:
        async with Counting() as server, Recorded(caching(server)) as gateway:
            outcomes = iter([JsonRpcError(-32603, "bad luck"), None, None, None])

            def said(params: dict[str, Any]) -> dict[str, Any]:
                if (error := next(outcomes)) is not None:
                    raise error
                return server.answer(params)

            server.answers["get"] = said
            _, tasks = await crowd(gateway, server)
            server.held.set()
            answers = await asyncio.gather(*tasks)
            assert answers[0].error["message"] == "bad luck"
            assert {one.text for one in answers[1:]} == {"1", "2"}, "each has gone itself"

    run(main)


def test_who_waits_has_a_deadline_of_its_own() -> None:
    async def main() -> None:
        async with Counting() as server, Recorded(caching(server, of_server={"call_timeout_s": 30.0})) as gateway:
            clients, tasks = await crowd(gateway, server, 1)
            gateway.pass_time(20)
            late = await gateway.client()
            task = asyncio.ensure_future(late.modern("tools/call", GET))
            await until(lambda: len(gateway.front.calls.active) == 2)
            gateway.pass_time(11)  # the first is out of time; the other goes itself
            assert (await tasks[0]).error["code"] == -31006
            await until(lambda: len(server.requests("tools/call")) == 2)
            server.held.set()
            assert (await task).text in ("1", "2")

    run(main)


def test_a_client_that_does_not_read_holds_up_nobody_else() -> None:
    async def main() -> None:
        async with Counting() as server, caching(server) as gateway:
            _, tasks = await crowd(gateway, server, 2)
            leader = next(one for one in gateway.front.calls.active if one.caching.leads)
            leader.pause()  # as its connection does when its client reads too slowly
            server.held.set()
            assert {(await task).text for task in tasks} == {"1"}

    run(main)


# --- what ends it


def test_a_write_ends_what_was_read_of_the_same() -> None:
    async def main() -> None:
        clear = ClearRule(("one__put",), tools=("one__get",), same=(("/id", "/id"),))
        async with Counting() as server, caching(server, clears=(clear,)) as gateway:
            client = await gateway.client()
            other = {**GET, "arguments": {"id": 2}}
            assert [(await client.modern("tools/call", one)).text for one in (GET, other, PUT)] == ["1", "2", "3"]
            assert (await client.modern("tools/call", other)).text == "2", "another one's answer stays"
            assert (await client.modern("tools/call", GET)).text == "4"

    run(main)


@ERAS
def test_a_write_that_fails_ends_it_too(modern: bool) -> None:
    async def main() -> None:
        def fails(params: dict[str, Any]) -> dict[str, Any]:
            raise JsonRpcError(-32603, "half of it was done")

        clear = ClearRule(("one__put",), tools=("one__get",))
        async with Counting(answers={"put": fails}) as server, caching(server, clears=(clear,)) as gateway:
            ask = asker(await gateway.client(session=not modern), modern)
            assert (await ask("tools/call", GET)).text == "1"
            assert "error" in (await ask("tools/call", PUT)).messages[0]
            assert (await ask("tools/call", GET)).text == "2"

    run(main)


def test_a_large_answer_to_a_write_ends_it_before_its_reader_has_it() -> None:
    async def main() -> None:
        large = {"content": [{"type": "text", "text": "x" * 300_000}]}
        clear = ClearRule(("one__put",), tools=("one__get",))
        async with Counting(answers={"put": large}) as server, caching(server, clears=(clear,)) as gateway:
            client = await gateway.client()
            await client.modern("tools/call", GET)
            assert len((await client.modern("tools/call", PUT)).text) == 300_000
            assert (await client.modern("tools/call", GET)).text == "2"

    run(main)


def test_a_read_under_way_during_a_write_is_not_kept_nor_joined_after_it() -> None:
    async def main() -> None:
        clear = ClearRule(("one__put",), tools=("one__get",))
        async with Counting() as server, caching(server, clears=(clear,)) as gateway:
            clients, tasks = await crowd(gateway, server, 2)
            server.held, held = None, server.held
            writer = await gateway.client()
            assert (await writer.modern("tools/call", PUT)).text == "1"
            assert (await writer.modern("tools/call", GET)).text == "2", "it reads what it has written"
            held.set()
            await asyncio.gather(*tasks)
            assert (await writer.modern("tools/call", GET)).text == "2"

    run(main)


def test_a_write_that_is_refused_ends_nothing() -> None:
    async def main() -> None:
        grants = (Grant("reads", "allow", tools=("*",)), Grant("no", "deny", tools=("one__put",), when="args.id == 1"))
        clear = ClearRule(("one__put",), tools=("one__get",))
        async with (
            Counting() as server,
            caching(server, clears=(clear,), settings={"grants": grants}) as gateway,
        ):
            client = await gateway.client()
            await client.modern("tools/call", GET)
            assert (await client.modern("tools/call", PUT)).error["code"] == -31001
            assert (await client.modern("tools/call", GET)).text == "1"

    run(main)


def test_a_changed_list_ends_what_its_tools_said() -> None:
    async def main() -> None:
        async with Counting() as server, caching(server) as gateway:
            client = await gateway.client()
            await client.modern("tools/call", GET)
            upstream = gateway.fleet.servers["one"]
            upstream.list_changed("prompts")
            assert (await client.modern("tools/call", GET)).text == "1"
            for number in ("2", "3"):  # also the second, of which clients are told later
                upstream.list_changed("tools")
                assert (await client.modern("tools/call", GET)).text == number

    run(main)


def test_a_tool_that_is_listed_otherwise_is_asked_anew() -> None:
    async def main() -> None:
        async with Counting() as server, caching(server, of_server={"list_ttl_s": 0.0}) as gateway:
            client = await gateway.client()
            await client.modern("tools/list")
            await client.modern("tools/call", GET)
            server.tools = [{**TOOLS[0], "description": "does something else now"}, *TOOLS[1:]]
            gateway.pass_time(5)
            await client.modern("tools/list")
            assert (await client.modern("tools/call", GET)).text == "2"

    run(main)


def test_a_reload_keeps_what_is_the_same_and_nothing_else() -> None:
    async def main() -> None:
        async with Counting() as server, caching(server) as gateway:
            client = await gateway.client()
            await client.modern("tools/call", GET)

            def reload(**changes: Any) -> None:
                now = msgspec.structs.replace(gateway.front.snapshot, **changes)
                gateway.fleet.apply(now)
                gateway.front.apply(now)

            reload(revision="r2", log_calls=True)
            assert (await client.modern("tools/call", GET)).text == "1"
            reload(servers={"one": spec("one", server.url, call_timeout_s=7.0)})
            assert (await client.modern("tools/call", GET)).text == "2"
            reload(cache=CacheSpec((READ,), most_entries=7))
            assert (await client.modern("tools/call", GET)).text == "3"
            reload(cache=None)
            assert (await client.modern("tools/call", GET)).text == "4"

    run(main)


# --- rules come first


def test_an_answer_is_given_to_nobody_who_may_not_call() -> None:
    async def main() -> None:
        rule = CacheRule("shared", 60.0, tools=("*",), shared=True)
        async with Counting() as server, caching(server, rule) as gateway:
            client = await gateway.client()
            await client.modern("tools/call", GET)
            for grants, code in (
                ((Grant("other", "allow", tools=("one__other",)),), -32602),
                ((Grant("not this", "allow", tools=("*",), when="args.id != 1"),), -31001),
            ):
                now = msgspec.structs.replace(gateway.front.snapshot, grants=grants)
                gateway.front.apply(now)
                assert (await client.modern("tools/call", GET)).error["code"] == code
            assert server.calls == 1

    run(main)


@pytest.mark.parametrize(
    ("demand", "calls"),
    [
        pytest.param(("redact", ("/content",)), 3, id="a redacted answer is nobody else's"),
        pytest.param(("max_results", 1), 3, id="a shortened one neither"),
        pytest.param(("rewrite", {"id": 9}), 3, id="nor one to arguments that were changed"),
        pytest.param(("cache_ttl_s", 0), 3, id="a policy that lets nothing be kept"),
        pytest.param(("cache_ttl_s", 5), 2, id="one that lets it be kept for a while"),
        pytest.param(("log", "meta"), 1, id="what says nothing of the answer"),
    ],
)
def test_what_a_policy_demands(demand: tuple[str, Any], calls: int) -> None:
    async def main() -> None:
        engine = Judge(sees_all(lambda asked: allow(demand)))
        async with Counting() as server, caching(server, engine=engine) as gateway:
            client = await gateway.client()
            for late in (0, 6, 1):
                gateway.pass_time(late)
                await client.modern("tools/call", GET)
            assert server.calls == calls

    run(main)


def test_what_a_policy_changes_is_not_given_from_what_was_kept_before() -> None:
    async def main() -> None:
        demands: list[Any] = [allow(), allow(("redact", ("/content",))), allow(("cache_ttl_s", 1)), allow()]
        engine = Judge(sees_all(lambda asked: demands.pop(0)))
        async with Counting() as server, caching(server, engine=engine) as gateway:
            client = await gateway.client()
            assert (await client.modern("tools/call", GET)).text == "1"
            assert (await client.modern("tools/call", GET)).result["content"] == "[redacted]"
            gateway.pass_time(2)
            assert (await client.modern("tools/call", GET)).text == "3", "older than this policy lets it be"
            assert (await client.modern("tools/call", GET)).text == "3"

    run(main)


def test_an_answer_from_memory_counts_and_costs_what_the_rule_says() -> None:
    async def main() -> None:
        for hit, counts, calls, cost in ((0, True, 3, 0), (100, True, 3, 100), (25, True, 3, 25), (0, False, 1, None)):
            rule = CacheRule("read", 60.0, tools=("one__get",), hit=hit, counts=counts)
            settings = {
                "quotas": (LimitRule("calls", "calls", 9, window=MINUTE),),
                "prices": (PriceRule("USD", per_call=100, tools=("one__get",)),),
            }
            async with Counting() as server, Recorded(caching(server, rule, settings=settings)) as gateway:
                client = await gateway.client()
                for _ in range(3):
                    await client.modern("tools/call", GET)
                used = {one.limit: one.used for one in gateway.front.metering.limiter.states()}
                assert used == {"calls": calls}
                expected = None if cost is None else (cost, "USD")
                assert [entry.cost for entry in gateway.entries] == [(100, "USD"), expected, expected]

    run(main)


def test_a_free_answer_is_given_with_an_empty_purse() -> None:
    async def main() -> None:
        settings = {
            "quotas": (LimitRule("purse", "money", 100, window=MINUTE, currency="USD"),),
            "prices": (PriceRule("USD", per_call=100),),
        }
        async with Counting() as server, caching(server, settings=settings) as gateway:
            client = await gateway.client()
            assert (await client.modern("tools/call", GET)).text == "1"
            assert (await client.modern("tools/call", GET)).text == "1"
            assert (await client.modern("tools/call", PUT)).error["code"] == -31003

    run(main)


def test_who_makes_the_gateway_ask_anew_pays_for_it_and_who_waited_does_not() -> None:
    async def main() -> None:
        rule = CacheRule("read", 10.0, tools=("one__get",), stale_s=100.0)
        settings = {"prices": (PriceRule("USD", per_call=100),)}
        async with Counting() as server, Recorded(caching(server, rule, settings=settings)) as gateway:
            _, tasks = await crowd(gateway, server)
            server.held.set()
            await asyncio.gather(*tasks)
            assert sorted((entry.cache, entry.cost) for entry in gateway.entries) == [
                ("joined", (0, "USD")), ("joined", (0, "USD")), ("miss", (100, "USD")),
            ]  # fmt: skip
            gateway.pass_time(11)
            client = await gateway.client()
            await client.modern("tools/call", GET)
            assert (gateway.entries[3].cache, gateway.entries[3].cost) == ("stale", (100, "USD"))
            await until(gateway.settled)

    run(main)


def test_what_another_tool_answers_is_kept_for_nobody_and_ends_what_it_changes() -> None:
    async def main() -> None:
        spent = LimitRule("dear", "calls", 1, window=MINUTE, tools=("one__get",), when_spent=WhenSpent(use="one__put"))
        rule = CacheRule("read", 60.0, tools=("one__get", "one__other"))
        clear = ClearRule(("one__put",), tools=("one__other",))
        async with (
            Counting() as server,
            Recorded(caching(server, rule, clears=(clear,), settings={"quotas": (spent,)})) as gateway,
        ):
            client, other = await gateway.client(), {"name": "one__other", "arguments": {}}
            assert (await client.modern("tools/call", GET)).text == "1"
            assert (await client.modern("tools/call", other)).text == "2"
            for number in ("3", "4"):
                got = await client.modern("tools/call", {**GET, "arguments": {"id": 2}})
                assert got.text == number and "io.narthex/instead" in got.result["_meta"]
            assert (await client.modern("tools/call", other)).text == "5", "the one that answered was a write"
            assert words(gateway) == ["miss", "miss", "", "", "miss"]
            assert len(gateway.front.cache.flights) == 0

    run(main)


# --- attacks


@pytest.mark.parametrize("shared", [False, True])
def test_what_a_server_says_makes_nothing_last_longer_or_reach_further(shared: bool) -> None:
    async def main() -> None:
        rule = CacheRule("read", 10.0, tools=("one__get",), shared=shared)
        async with Counting() as server, caching(server, rule) as gateway:
            greedy = {"ttlMs": 10**15, "cacheScope": "public"}
            server.answers["get"] = lambda params: {**server.answer(params), **greedy}
            client = await gateway.client()
            for late, number in ((0, "1"), (9, "1"), (2, "2")):
                gateway.pass_time(late)
                assert (await client.modern("tools/call", GET)).text == number
            _, who, *_ = next(iter(gateway.front.cache.shelves)).key
            assert (who == ("default", "")) is shared, "`public` makes nothing shared"

    run(main)


def test_what_a_server_calls_private_is_not_shared() -> None:
    async def main() -> None:
        rule = CacheRule("read", 60.0, tools=("one__get",), shared=True)
        async with Counting() as server, caching(server, rule) as gateway:
            server.answers["get"] = lambda params: {**server.answer(params), "cacheScope": "private"}
            _, tasks = await crowd(gateway, server)
            server.held.set()
            assert {(await task).text for task in tasks} == {"1", "2", "3"}, "nor given to who waits for it"
            assert len(gateway.front.cache.shelves) == 0

    run(main)


def test_annotations_count_where_the_operator_trusts_them() -> None:
    async def main() -> None:
        rule = CacheRule("harmless", 60.0, tools=("*",), annotated=True)
        harmless = {"readOnlyHint": True, "idempotentHint": True}
        listed = [{**TOOLS[0], "annotations": harmless}, *TOOLS[1:]]
        for trusted, number in ((False, "2"), (True, "1")):
            server = Counting(tools=listed)
            async with server, caching(server, rule, of_server={"trusts_annotations": trusted}) as gateway:
                client = await gateway.client()
                await client.modern("tools/call", GET)
                assert (await client.modern("tools/call", GET)).text == number
                await client.modern("tools/call", PUT)
                await client.modern("tools/call", PUT)
                assert server.calls == int(number) + 2

    run(main)


def test_a_name_that_stands_twice_poisons_nothing() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, caching(server) as gateway:
            client = await gateway.client()
            twice = b'{"name":"one__get","arguments":{"id":"secret","id":"public"},"_meta":%b}'
            meta = json.dumps({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
                               "io.modelcontextprotocol/clientCapabilities": {}}).encode()  # fmt: skip
            body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}' % (twice % meta)
            lines = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "one__get"}
            client.http("POST", "/mcp", lines, body)
            await client.read()
            assert server.requests("tools/call")[0].body.count(b'"id":"') == 1, "the server saw one of them"
            got = await client.modern("tools/call", {"name": "one__get", "arguments": {"id": "public"}})
            assert json.loads(got.text) == {"id": "public"}
            assert len(server.requests("tools/call")) == 1

    run(main)


def test_a_retry_with_an_answer_to_a_question_is_never_kept() -> None:
    async def main() -> None:
        asks = {"resultType": "input_required", "requestState": "s"}

        def said(params: dict[str, Any]) -> dict[str, Any]:
            return server.answer(params) if "requestState" in params else asks

        async with Counting(eras="modern", answers={"get": said}) as server, caching(server) as gateway:
            client = await gateway.client()
            for number in ("1", "2"):
                asked = (await client.modern("tools/call", GET)).result
                assert asked["resultType"] == "input_required"
                got = await client.modern("tools/call", {**GET, "requestState": asked["requestState"]})
                assert got.text == number
            assert len(gateway.front.cache.shelves) == len(gateway.front.cache.lots) == 0

    run(main)


def test_made_up_arguments_take_up_no_more_than_there_is() -> None:
    async def main() -> None:
        async with Counting() as server:
            settings = {"cache": CacheSpec((READ,), most_entries=5)}
            async with Running({"one": spec("one", server.url)}, settings=settings) as gateway:
                client = await gateway.client()
                for _ in range(2):
                    await client.modern("tools/call", GET)
                for number in range(30):
                    await client.modern("tools/call", {"name": "one__get", "arguments": {"made up": number}})
                assert len(gateway.front.cache.shelves) == 5
                assert (await client.modern("tools/call", GET)).text == "1", "what is in use stays"

    run(main)


# --- whose answer it is

KEYS = {
    b"nx_ada_1": Principal("default", "keys", "ada", "agent", method="api_key", scopes=frozenset({"read"})),
    b"nx_ada_2": Principal("default", "keys", "ada", "agent", method="api_key"),
    b"nx_bob_1": Principal("default", "keys", "bob", "agent", method="api_key"),
    b"nx_eve_1": Principal("elsewhere", "keys", "eve", "agent", method="api_key"),
}


class Keys:
    def find(self, presented: bytes) -> Principal | None:
        return KEYS.get(presented)


def identified(server: FakeServer, rule: CacheRule, **of_server: Any) -> Running:
    def identify(snapshot: Snapshot) -> Identity:
        assert snapshot.identity is not None
        return Identity(
            snapshot.identity, snapshot.endpoints, keys=Keys(), fetch=fetcher().fetch, secrets=None,
            now=lambda: 0.0, clock=lambda: 0.0, chance=lambda: 0.5,
        )  # fmt: skip

    settings = {"cache": CacheSpec((rule,)), "identity": IdentitySpec(api_keys=True)}
    return Running({"one": spec("one", server.url, **of_server)}, settings=settings, identify=identify)


async def told(client: Client, key: str) -> str:
    return (await client.modern("tools/call", GET, headers={"Authorization": f"Bearer nx_{key}"})).text


@pytest.mark.parametrize("sharing", ["tenant", "principal", "session"])
def test_nobody_gets_anothers_answer(sharing: Any) -> None:
    async def main() -> None:
        async with Counting() as server, identified(server, READ, sharing=sharing) as gateway:
            client = await gateway.client()
            numbers = [await told(client, key) for key in ("ada_1", "bob_1", "eve_1", "ada_2")]
            assert numbers == ["1", "2", "3", "4"], "nor the same person's with other rights"
            assert [await told(client, key) for key in ("ada_1", "bob_1", "eve_1", "ada_2")] == numbers

    run(main)


def test_nobody_waits_for_anothers_answer() -> None:
    async def main() -> None:
        async with Counting() as server, identified(server, READ) as gateway:
            server.held = asyncio.Event()
            tasks = [asyncio.ensure_future(told(await gateway.client(), key)) for key in ("ada_1", "bob_1")]
            await until(lambda: len(server.requests("tools/call")) == 2)
            server.held.set()
            assert sorted(await asyncio.gather(*tasks)) == ["1", "2"]

    run(main)


@pytest.mark.parametrize("sharing", ["tenant", "principal", "session"])
def test_what_is_shared_is_for_one_tenant(sharing: Any) -> None:
    async def main() -> None:
        rule = CacheRule("read", 60.0, tools=("one__get",), shared=True)
        async with Counting() as server, identified(server, rule, sharing=sharing) as gateway:
            client = await gateway.client()
            assert [await told(client, key) for key in ("ada_1", "bob_1", "ada_2", "eve_1")] == ["1", "1", "1", "2"]

    run(main)


def test_what_is_shared_is_for_one_account_with_the_server() -> None:
    async def main() -> None:
        rule = CacheRule("read", 60.0, tools=("one__get",), shared=True)
        first, second = (HeaderCredential(name, "X-Key", SecretText((name,))) for name in ("first", "second"))
        accounts = (Use(Who(subject=("ada",)), first), Use(Who(), second))
        async with Counting() as server, identified(server, rule, accounts=accounts) as gateway:
            client = await gateway.client()
            assert [await told(client, key) for key in ("ada_1", "bob_1", "ada_2", "bob_1")] == ["1", "2", "1", "2"]

    run(main)
