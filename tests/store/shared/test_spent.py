"""Whole gateways that count together on a real server: what becomes of a call whose limit is spent, and exact tokens.

What a limit says of such calls (`when_spent`) holds whichever gateway had used it up; in memory the same is tried in
`tests/flow/accept/test_otherwise.py` and `test_recounting.py` there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from narthex.flow.limit.spending import Spent
from narthex.flow.limit.tokenizers import tokenizer
from narthex.store.books import Books
from narthex.store.shared.counters import Counters, share
from narthex.testing import FakeServer
from narthex.types import LimitRule, PriceRule, SharedSpec, TokenSpec, WhenSpent
from tests.counterparts.keeper import Client as Direct
from tests.flow.accept.test_holding import gateway as keeping
from tests.flow.accept.test_holding import waits
from tests.flow.gateway import Running
from tests.flow.gateway import spec as server_spec
from tests.store.shared.rig import Gateway, until

HOUR = 3_600_000_000
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("dear", "cheap")]
ANSWERS = {name: {"content": [{"type": "text", "text": name}]} for name in ("dear", "cheap")}
CALL = {"name": "one__dear", "arguments": {"q": "x"}}


@asynccontextmanager
async def sharing(running: Running, spec: SharedSpec) -> AsyncIterator[Counters]:
    """It counts there from now on."""
    counters = share(spec, running.front.metering, Books(), lambda _: "")
    task = asyncio.ensure_future(counters.link.run())
    await counters.link.tried.wait()
    assert not counters.problem
    yield counters
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def used(counters: Counters) -> dict[str, int]:
    """What the server says, once it has been told of all that has ended here."""
    await until(lambda: not counters.owed)
    return {state.limit: state.used for state in await counters.states("")}


def running(server: FakeServer, *rules: LimitRule, **settings: Any) -> Running:
    return Running({"one": server_spec("one", server.url)}, settings={"quotas": rules, **settings})


def limit(**then: Any) -> LimitRule:
    return LimitRule("spend", "calls", 1, window=HOUR, tools=("one__dear",), when_spent=WhenSpent(**then))


def test_another_tool_answers_for_what_another_gateway_has_spent(spec: SharedSpec) -> None:
    async def main() -> None:
        rule = limit(use="one__cheap")
        async with (
            FakeServer(tools=TOOLS, answers=ANSWERS) as server,
            running(server, rule) as one,
            running(server, rule) as two,
            sharing(one, spec) as counters,
            sharing(two, spec),
        ):
            assert (await (await one.client()).modern("tools/call", CALL)).text == "dear"
            got = await (await two.client()).modern("tools/call", CALL)
            assert got.text == "cheap"
            assert got.result["_meta"]["io.narthex/instead"]["limit"] == "spend"
            assert await used(counters) == {"spend": 1}

    asyncio.run(main())


def test_a_person_lets_a_call_through_and_all_count_it(spec: SharedSpec) -> None:
    async def main() -> None:
        rule = limit(hold=True)
        async with (
            FakeServer(tools=TOOLS, answers=ANSWERS) as server,
            running(server, rule) as one,
            keeping(server, quotas=(rule,)) as two,
            sharing(one, spec) as counters,
            sharing(two, spec) as others,
        ):
            assert (await (await one.client()).modern("tools/call", CALL)).text == "dear"
            client = await two.client()
            id_ = waits(await client.modern("tools/call", CALL))
            await two.keeper.decide(id_, "bob", yes=True)
            assert (await client.modern("tools/call", CALL)).text == "dear"
            await until(two.settled)
            assert await used(others) == await used(counters) == {"spend": 2}
            assert waits(await client.modern("tools/call", CALL)) != id_, "the next one waits again"

    asyncio.run(main())


def test_what_all_have_spent_lowers_another_limit_for_each(spec: SharedSpec) -> None:
    async def main() -> None:
        rules = (
            LimitRule("budget", "calls", 3, window=HOUR, when_spent=WhenSpent(lower=(("rate", 50),))),
            LimitRule("rate", "calls", 10, window=HOUR),
        )
        async with Gateway(spec, rules) as one, Gateway(spec, rules) as two:
            gateways = (one, two, one, two, one, two, one)
            assert [await gateway.granted() for gateway in gateways] == [1, 1, 1, 1, 1, 0, 0]
            for gateway in (one, two):
                await gateway.used()
            assert await one.used() == {"budget": 5, "rate": 5}, "a refused call leaves no trace"

    asyncio.run(main())


def test_exact_tokens_are_told_to_all_once_they_are_known(spec: SharedSpec) -> None:
    async def main() -> None:
        text = "aaaaaaaaaaaaaaaa " * 500  # an estimate by bytes is far off here
        rules = (
            LimitRule("tokens", "tokens", 10**9, algorithm="calendar", period="day"),
            LimitRule("short", "tokens_out", 10**9, window=HOUR // 60),
            LimitRule("money", "money", 10**9, algorithm="calendar", period="day", currency="USD"),
        )
        settings = {"prices": (PriceRule("USD", per_million_tokens_out=1_000_000),), "tokens": TokenSpec("o200k")}
        answers = {"dear": {"content": [{"type": "text", "text": text}]}}
        async with (
            FakeServer(tools=TOOLS, answers=answers) as server,
            running(server, *rules, **settings) as one,
            sharing(one, spec) as counters,
        ):
            book: list[Spent] = []
            one.front.metering.book = book.append
            got = await (await one.client()).modern("tools/call", CALL)
            await until(lambda: len(book) == 2)
            count = tokenizer("o200k")
            tokens_in, tokens_out = count(b'{"q": "x"}'), count(got.body)
            assert await used(counters) == {"tokens": tokens_in + tokens_out, "short": tokens_out, "money": tokens_out}
            assert [one.calls for one in book] == [1, 0] and book[1].amount
            assert sum(use.amount for one in book for use in one.uses) == tokens_in + 2 * tokens_out

    asyncio.run(main())


def test_a_recount_gives_nothing_back_of_what_the_server_has_forgotten(spec: SharedSpec) -> None:
    rule = LimitRule("short", "tokens", 1000, window=HOUR // 60)

    async def main() -> None:
        async with Gateway(spec, (rule,)) as one:
            first = await one.take(demand={"tokens": 100})
            one.counters.settle(first, {"tokens": 60})
            one.counters.recount(first, {"tokens": -20})
            assert await one.used() == {"short": 40}
            one.counters.recount(first, {"tokens": 5})
            assert await one.used() == {"short": 45}
            holder, client = one.counters.holder, Direct(spec.port)
            client("FLUSHALL")
            client.close()
            second = await one.take(demand={"tokens": 30})
            await until(lambda: one.counters.holder not in (0, holder))
            one.counters.settle(second, {"tokens": 30})
            one.counters.recount(first, {"tokens": -20})
            assert await one.used() == {"short": 30}
            one.counters.recount(first, {"tokens": 4})
            assert await one.used() == {"short": 34}

    asyncio.run(main())
