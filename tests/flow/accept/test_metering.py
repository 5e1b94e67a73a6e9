"""Limits at a call, between a real client and a real server: what counts, what is given back, what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from narthex.flow.accept.metering import MOST_NAMES, Metered, Metering, Usual
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.limit.keys import Subject
from narthex.flow.limit.spending import Spent
from narthex.flow.route.target import Target
from narthex.testing import FakeServer, JsonRpcError
from narthex.types import LOCAL, Call, Grant, LimitRule, Limits, PriceRule
from tests.flow.accept.asking import Asker, arguments_of, ask_modern
from tests.flow.accept.test_exchange import CALL, DONE, ERAS, TOOLS, Mcp
from tests.flow.gateway import Client, Running, run, spec, until
from tests.flow.upstream.test_http import CLOSE, HOLD, STREAM, Scripted, Step, answer, rpc

MINUTE = 60_000_000
CALLS = LimitRule("calls", "calls", 2, ("principal",), window=MINUTE)
OPEN = LimitRule("open", "concurrent", 1, algorithm="concurrent")
BYTES = LimitRule("bytes", "bytes_out", 1 << 30, window=MINUTE)


def limited(server: FakeServer, *rules: LimitRule, grants: tuple[Grant, ...] = (), **settings: Any) -> Running:
    return Running({"one": spec("one", server.url, **settings)}, settings={"quotas": rules, "grants": grants})


def used(gateway: Running) -> dict[str, int]:
    return {one.limit: one.used for one in gateway.front.metering.limiter.states()}


@ERAS
def test_beyond_the_limit_a_call_is_refused_and_never_sent(modern: bool) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, limited(server, CALLS) as gateway:
            client = await gateway.client(session=not modern)
            ask = client.modern if modern else client.legacy
            for left in (1, 0):
                got = await ask("tools/call", CALL)
                assert got.headers["ratelimit-policy"] == '"calls";q=2;w=60'
                assert got.headers["ratelimit"].startswith(f'"calls";r={left};t=')
            got = await ask("tools/call", CALL)
            assert (got.status, got.error["code"], got.error["message"]) == (
                200,
                -31002,
                "the limit 'calls' is reached",
            )
            data = got.error["data"]
            assert (data["reason"], data["limit"]) == ("rate_limited", "calls")
            assert 1 <= data["retryAfterSeconds"] <= 60
            assert got.headers["retry-after"] == str(data["retryAfterSeconds"])
            assert got.headers["ratelimit"].startswith('"calls";r=0;t=')
            assert len(server.requests("tools/call")) == 2
            assert gateway.counted("tools/call", "") | gateway.counted("tools/call", "echo")
            gateway.pass_time(60)
            assert (await ask("tools/call", CALL)).result

    run(main)


@ERAS
def test_the_head_of_an_event_stream_tells_what_is_left(modern: bool) -> None:
    async def main() -> None:
        says = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
        async with FakeServer(tools=TOOLS, stream=True, events=[says]) as server, limited(server, CALLS) as gateway:
            client = await gateway.client(session=not modern)
            ask = client.modern if modern else client.legacy
            got = await ask("tools/call", CALL, meta={"progressToken": 1})
            assert got.headers["content-type"] == "text/event-stream"
            assert got.headers["ratelimit"].startswith('"calls";r=1;t=')
            assert got.headers["ratelimit-policy"] == '"calls";q=2;w=60'

    run(main)


def test_lists_greetings_and_what_is_answered_here_never_count() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, limited(server, CALLS) as gateway:
            client = await gateway.client(session=True)
            for method in ("tools/list", "ping", "resources/list", "tools/list"):
                got = await client.legacy(method)
                assert "ratelimit" not in got.headers
            assert used(gateway) == {}

    run(main)


def test_what_is_refused_before_counts_nowhere() -> None:
    async def main() -> None:
        deny = (Grant("all", "allow", tools=("*",)), Grant("no", "deny", tools=("*",), when="args.a == 2"))
        async with FakeServer(tools=TOOLS) as server, limited(server, CALLS, grants=deny) as gateway:
            client = await gateway.client()
            for name in ("one__echo", "one__nothing"):
                got = await client.modern("tools/call", {"name": name, "arguments": {"a": 2}})
                assert got.error["data"]["reason"] in ("denied_by_rule", "not_found")
            assert used(gateway) == {}

    run(main)


def broken(*script: Step) -> Callable[[], Any]:
    return lambda: Mcp(*script)


@pytest.mark.parametrize(
    ("server", "counts"),
    [
        pytest.param(broken(answer(rpc(3, result=DONE))), 1, id="an answer"),
        pytest.param(broken(answer(rpc(3, error={"code": -1, "message": "no"}))), 1, id="the server's error"),
        pytest.param(broken(answer(b"nonsense")), 1, id="garbage"),
        pytest.param(broken(CLOSE), 1, id="it was sent and broke off"),
        pytest.param(broken(answer(b"", "500 Oops")), 1, id="the server failed"),
        pytest.param(lambda: Scripted((CLOSE,)), 0, id="nothing was sent"),
    ],
)
def test_what_was_sent_is_used_and_nothing_is_held(server: Callable[[], Any], counts: int) -> None:
    async def main() -> None:
        async with (
            server() as one,
            Running(
                {"one": spec("one", f"http://127.0.0.1:{one.port}/mcp")}, settings={"quotas": (CALLS, OPEN)}
            ) as gateway,
        ):
            client = await gateway.client()
            await client.modern("tools/call", CALL)
            await until(gateway.settled)
            found = used(gateway)
            assert found.get("calls", 0) == counts
            assert found.get("open", 0) == 0

    run(main)


# --- concurrent calls: every way to end lets go


async def answered(gateway: Running, client: Client, server: FakeServer) -> None:
    assert server.held is not None
    server.held.set()
    await client.read()


async def closed(gateway: Running, client: Client, server: FakeServer) -> None:
    client.close()


async def timed_out(gateway: Running, client: Client, server: FakeServer) -> None:
    gateway.pass_time(10)
    assert (await client.read()).error["code"] == -31006


async def cancelled(gateway: Running, client: Client, server: FakeServer) -> None:
    other = await gateway.client()
    other.session = client.session
    await other.legacy("notifications/cancelled", {"requestId": 2}, id_=None)


async def ended_session(gateway: Running, client: Client, server: FakeServer) -> None:
    other = await gateway.client()
    other.http("DELETE", "/mcp", {"Mcp-Session-Id": client.session, "MCP-Protocol-Version": "2025-11-25"})
    await other.read()


async def stopped(gateway: Running, client: Client, server: FakeServer) -> None:
    for one in list(gateway.front.calls.active):
        one.end_stream()


async def reset(gateway: Running, client: Client, server: FakeServer) -> None:
    client.writer.transport.abort()


End = Callable[[Running, Client, FakeServer], Awaitable[None]]


@pytest.mark.parametrize(
    ("modern", "end"),
    [
        *((modern, end) for modern in (True, False) for end in (answered, timed_out, stopped)),
        *((True, end) for end in (closed, reset)),
        *((False, end) for end in (cancelled, ended_session)),
    ],
)
def test_a_call_that_ends_lets_go_of_its_place(modern: bool, end: End) -> None:
    async def main() -> None:
        async with (
            FakeServer(tools=TOOLS, held=asyncio.Event()) as server,
            limited(server, OPEN, call_timeout_s=5) as gateway,
        ):
            client = await gateway.client(session=not modern)
            id_ = client.send("tools/call", CALL, modern=modern)
            assert modern or id_ == 2
            await until(lambda: server.requests("tools/call"))
            assert used(gateway) == {"open": 1}
            other = await gateway.client()
            refused = await other.modern("tools/call", CALL)
            assert (refused.error["code"], refused.error["data"]["retryAfterSeconds"]) == (-31002, 1)
            await end(gateway, client, server)
            await until(gateway.settled)
            assert used(gateway) == {"open": 0}
            assert server.held is not None
            server.held.set()
            assert (await other.modern("tools/call", CALL)).result

    run(main)


def test_a_client_that_closes_before_anything_is_sent_is_given_back_what_it_took() -> None:
    async def main() -> None:
        async with (
            Scripted((HOLD,)) as server,
            Running(
                {"one": spec("one", f"http://127.0.0.1:{server.port}/")}, settings={"quotas": (CALLS, OPEN)}
            ) as gateway,
        ):
            client = await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await until(lambda: gateway.front.calls.active)
            client.close()
            await until(gateway.settled)
            assert set(used(gateway).values()) <= {0}

    run(main)


def test_a_cancelled_call_that_was_sent_is_used() -> None:
    async def main() -> None:
        async with Mcp(STREAM, HOLD) as server, server.gateway() as gateway:
            gateway.front.apply(msgspec.structs.replace(gateway.front.snapshot, quotas=(CALLS,)))
            client = await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await client.read_head()
            client.close()
            await until(gateway.settled)
            assert used(gateway) == {"calls": 1}

    run(main)


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_answers_count_with_the_bytes_that_they_had(size: int) -> None:
    async def main() -> None:
        result = {"content": [{"type": "text", "text": "y" * size}]}
        async with FakeServer(tools=TOOLS, answers={"echo": result}) as server, limited(server, BYTES) as gateway:
            client = await gateway.client()
            got = await client.modern("tools/call", CALL)
            await until(gateway.settled)
            assert used(gateway) == {"bytes": len(got.body)}
            assert got.headers["ratelimit-policy"] == f'"bytes";q={1 << 30};qu="bytes_out";w=60'

    run(main)


@pytest.mark.parametrize("size", [100, 5_000_000])
def test_tokens_are_estimated_and_a_budget_of_them_is_one(size: int) -> None:
    async def main() -> None:
        result = {"content": [{"type": "text", "text": "word " * (size // 5)}]}
        rules = [LimitRule(unit, unit, 1 << 30, window=MINUTE) for unit in ("tokens_in", "tokens_out", "tokens")]
        few = LimitRule("few", "tokens", size // 5, window=MINUTE)
        async with (
            FakeServer(tools=TOOLS, answers={"echo": result}) as server,
            limited(server, *rules, few) as gateway,
        ):
            client = await gateway.client()
            got = await client.modern("tools/call", CALL)
            await until(gateway.settled)
            counted = used(gateway)
            assert counted["tokens"] == counted["tokens_in"] + counted["tokens_out"]
            assert 0 < counted["tokens_in"] < 10
            assert len(got.body) // 10 < counted["tokens_out"] < len(got.body)
            for _ in range(9):
                got = await client.modern("tools/call", CALL)
            assert got.error["data"]["reason"] == "budget_exhausted"

    run(main)


DAY = LimitRule("spend", "money", 100, algorithm="calendar", period="day", currency="USD")


def priced(server: FakeServer, price: PriceRule, *rules: LimitRule, book: list[Spent]) -> Running:
    class Booked(Running):
        async def __aenter__(self) -> Running:
            await super().__aenter__()
            self.front.metering.book = book.append
            return self

    return Booked({"one": spec("one", server.url)}, settings={"quotas": rules, "prices": (price,)})


def test_a_budget_is_spent_by_what_calls_cost_and_then_refuses() -> None:
    async def main() -> None:
        book: list[Spent] = []
        price = PriceRule("USD", per_call=40)
        async with FakeServer(tools=TOOLS) as server, priced(server, price, DAY, book=book) as gateway:
            client = await gateway.client()
            for _ in range(2):
                got = await client.modern("tools/call", CALL)
                assert got.result
                assert "ratelimit" not in got.headers, "what money is left is the operator's business"
            error = (await client.modern("tools/call", CALL)).error
            assert (error["code"], error["data"]["reason"]) == (-31003, "budget_exhausted")
            assert error["message"] == "the budget 'spend' is reached"
            assert used(gateway) == {"spend": 80}
            taken_down = [(one.amount, one.currency, [use.amount for use in one.uses]) for one in book]
            assert taken_down == [(40, "USD", [40])] * 2

    run(main)


@pytest.mark.parametrize("size", [10, 300_000])
def test_what_the_answer_says_it_cost_is_what_it_cost(size: int) -> None:
    async def main() -> None:
        book: list[Spent] = []
        result = {"content": [{"type": "text", "text": "y" * size}], "structuredContent": {"pages": 3}}
        price = PriceRule("USD", per_call=1, per_unit=10, units="/structuredContent/pages", expected=50)
        async with (
            FakeServer(tools=TOOLS, answers={"echo": result}) as server,
            priced(server, price, DAY, book=book) as gateway,
        ):
            client = await gateway.client()
            await client.modern("tools/call", CALL)
            assert used(gateway) == {"spend": 31}
            assert [one.amount for one in book] == [31]

    run(main)


def test_who_has_spent_it_all_makes_no_call_that_may_cost_something() -> None:
    async def main() -> None:
        result = {"content": [], "structuredContent": {"cost": 5000}}
        price = PriceRule("USD", amount="/structuredContent/cost")
        async with (
            FakeServer(tools=TOOLS, answers={"echo": result}) as server,
            priced(server, price, DAY, book=[]) as gateway,
        ):
            client = await gateway.client()
            assert (await client.modern("tools/call", CALL)).result
            gateway.front.metering.costs = Usual()  # as after others' calls that cost nothing, or a restart
            assert (await client.modern("tools/call", CALL)).error["data"]["reason"] == "budget_exhausted"
            assert len(server.requests("tools/call")) == 1

    run(main)


def test_tokens_that_the_server_reports_count_and_cost_by_the_model_that_the_call_names() -> None:
    async def main() -> None:
        book: list[Spent] = []
        price = PriceRule(
            "USD", model="arg:/model", tokens_in="/structuredContent/in", tokens_out="/structuredContent/out",
            per_million_tokens_in=1,
        )  # fmt: skip
        tokens = LimitRule("tokens", "tokens", 10**9, window=MINUTE)
        done = {"content": [], "structuredContent": {"in": 3000, "out": 400}}
        async with (
            FakeServer(tools=TOOLS, answers={"echo": done}) as server,
            priced(server, price, tokens, book=book) as gateway,
        ):
            gateway.front.metering.limiter.models = {"small": (1_000_000, 10_000_000)}
            gateway.front.metering.limiter.apply((tokens,), (price,))
            client = await gateway.client()
            asked = {**CALL, "arguments": {"model": "Small"}}
            assert (await client.modern("tools/call", asked, meta={"io.narthex/run": "night-7"})).result
            assert used(gateway)["tokens"] == 3400
            (spent,) = book
            assert (spent.amount, spent.model, spent.run) == (7000, "small", "night-7")

    run(main)


@pytest.mark.parametrize(("cancelled", "cost"), [("full", 40), ("nothing", 0)])
def test_a_call_that_is_cancelled_costs_what_its_price_says(cancelled: Any, cost: int) -> None:
    async def main() -> None:
        book: list[Spent] = []
        price = PriceRule("USD", per_call=40, cancelled=cancelled)
        async with (
            FakeServer(tools=TOOLS, held=asyncio.Event()) as server,
            priced(server, price, DAY, book=book) as gateway,
        ):
            client = await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await until(lambda: server.requests("tools/call"))
            assert used(gateway) == {"spend": 40}
            client.close()
            await until(gateway.settled)
            assert used(gateway) == {"spend": cost}
            assert [one.amount for one in book] == [cost]

    run(main)


def test_a_price_without_a_limit_is_taken_down_all_the_same() -> None:
    async def main() -> None:
        book: list[Spent] = []
        price = PriceRule("USD", per_call=40)
        async with FakeServer(tools=TOOLS) as server, priced(server, price, book=book) as gateway:
            assert (await (await gateway.client()).modern("tools/call", CALL)).result
            assert [(one.amount, one.subject.name) for one in book] == [(40, "echo")]

    run(main)


def test_a_reload_keeps_what_was_counted() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, limited(server, CALLS) as gateway:
            client, front = await gateway.client(), gateway.front
            for _ in range(2):
                await client.modern("tools/call", CALL)
            more = LimitRule("calls", "calls", 3, ("principal",), window=MINUTE)
            front.apply(msgspec.structs.replace(front.snapshot, quotas=(more,)))
            assert (await client.modern("tools/call", CALL)).result
            assert (await client.modern("tools/call", CALL)).error["code"] == -31002
            front.apply(msgspec.structs.replace(front.snapshot, quotas=()))
            got = await client.modern("tools/call", CALL)
            assert got.result
            assert "ratelimit" not in got.headers

    run(main)


def test_an_argument_of_a_call_has_a_bucket_of_its_own() -> None:
    async def main() -> None:
        rule = LimitRule("account", "calls", 1, ("arg:/a",), window=MINUTE)
        async with FakeServer(tools=TOOLS) as server, limited(server, rule) as gateway:
            client = await gateway.client()
            codes = []
            for value in (1, 2, 1.0, "2"):
                got = await client.modern("tools/call", {"name": "one__echo", "arguments": {"a": value}})
                codes.append(got.messages[-1].get("error", {}).get("code"))
            assert codes == [None, None, -31002, -31002]

    run(main)


@pytest.mark.parametrize("reads", [True, False], ids=["a limit reads them", "none does"])
def test_arguments_go_on_as_they_were_counted(reads: bool) -> None:
    rule = LimitRule("account", "calls", 9, ("arg:/a",) if reads else (), window=MINUTE)
    metering = Metering(lambda: 0.0, lambda: 0.0)
    metering.limiter.apply((rule,))
    said = Raw(b'{"a": 1, "a": 2}')
    call = Call("tools/call", {}, {}, b"1", "modern", "2026-07-28", LOCAL, "default", "one__echo")
    went = Metered(metering, 10).reserve(call, Target("one", "echo", b'"echo"'), {"arguments": said})
    assert bytes(went["arguments"]) == (b'{"a":2}' if reads else bytes(said))


def test_of_made_up_names_nothing_is_remembered() -> None:
    usual, long = Usual(), Subject(LOCAL, "default", "one", "f:" + "x" * 300)
    usual.was(long, 7)
    assert usual.of(long) is None


def test_a_server_that_refuses_with_an_error_of_its_own_still_tells_what_is_left() -> None:
    def refuse(params: dict[str, Any]) -> dict[str, Any]:
        raise JsonRpcError(-32050, "mine")

    async def main() -> None:
        async with FakeServer(tools=TOOLS, answers={"echo": refuse}) as server, limited(server, CALLS) as gateway:
            got = await (await gateway.client()).modern("tools/call", CALL)
            assert got.headers["ratelimit"].startswith('"calls";r=1;')

    run(main)


def test_an_answer_is_not_lost_over_what_goes_wrong_in_counting() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, limited(server, CALLS) as gateway:
            moments = iter((1_800_000_000_000_000,))

            def clock() -> int:
                for moment in moments:
                    return moment
                raise ZeroDivisionError  # to reserve it knew the time, to settle it does not

            gateway.front.metering.limiter.clock = clock
            assert (await (await gateway.client()).modern("tools/call", CALL)).result
            await until(gateway.settled)

    run(main)


def test_a_share_that_is_reached_is_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        rule = LimitRule("calls", "calls", 4, ("principal",), window=MINUTE, alerts=(50, 100))
        async with FakeServer(tools=TOOLS) as server, limited(server, rule) as gateway:
            client = await gateway.client()
            for _ in range(5):
                await client.modern("tools/call", CALL)

    with caplog.at_level("WARNING", "narthex.limits"):
        run(main)
    assert [one.getMessage() for one in caplog.records] == [
        "limit 'calls': 50% used (2 of 4 calls) by tenant default, principal narthex local",
        "limit 'calls': 100% used (4 of 4 calls) by tenant default, principal narthex local",
    ]


def test_what_is_usual_follows_what_was() -> None:
    usual = Usual()

    def of(name: str) -> Subject:
        return Subject(LOCAL, "default", "one", name)

    assert usual.of(of("echo")) is None
    usual.was(of("echo"), 8000)
    usual.was(of("echo"), 16000)
    assert usual.of(of("echo")) == 9000
    for number in range(MOST_NAMES + 5):
        usual.was(of(str(number)), 1)
    assert usual.of(of(str(MOST_NAMES + 4))) is None, "names are bounded"


def test_the_clock_goes_on_evenly_and_the_wall_clock_counts_where_it_was_set() -> None:
    moment, wall = 5.0, 1_000_000_000.0
    metering = Metering(lambda: moment, lambda: wall)
    assert metering.time() == 1_000_000_000_000_000
    wall += 3600
    moment += 1
    assert metering.time() == 1_000_000_001_000_000
    metering.sweep()
    assert metering.ahead == 3_599_000_000


def test_a_call_that_was_sent_counts_also_where_too_many_wait_for_their_client() -> None:
    """Else who leaves as many calls waiting as may wait calls the server as often as they like."""

    async def main() -> None:
        rule = LimitRule("few", "calls", 3, ("principal",), window=MINUTE)
        async with (
            Asker(eras="legacy") as server,
            Running(
                {"one": spec("one", server.url, sharing="session")},
                settings={"quotas": (rule,), "limits": Limits(max_waiting=1)},
            ) as gateway,
        ):
            client = await gateway.client()
            reasons = []
            for _ in range(5):
                got = await ask_modern(client, arguments_of(rounds=[["roots"]]))
                reasons.append(got.messages[-1].get("error", {}).get("data", {}).get("reason"))
            assert reasons == [None, "overloaded", "overloaded", "rate_limited", "rate_limited"]

    run(main)
