"""Tokens counted exactly behind the path of a call: what changes then, and what does not hold it up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from narthex.flow.accept import recounting
from narthex.flow.accept.recounting import Recount, Recounter
from narthex.flow.limit.spending import Spent
from narthex.flow.limit.tokenizers import tokenizer
from narthex.telemetry.record import Entry
from narthex.telemetry.recounted import Recounted
from narthex.testing import FakeServer
from narthex.types import LimitRule, PriceRule, TokenSpec
from tests.flow.gateway import Running, run, spec, until

MINUTE = 60_000_000
TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]
CALL = {"name": "one__echo", "arguments": {"q": "x" * 100}}
RULES = (
    LimitRule("tokens", "tokens", 10**9, algorithm="calendar", period="day"),
    LimitRule("money", "money", 10**9, algorithm="calendar", period="day", currency="USD"),
)


def used(gateway: Running) -> dict[str, int]:
    return {one.limit: one.used for one in gateway.front.metering.limiter.states()}


def gateway(server: FakeServer, price: PriceRule, tokens: TokenSpec) -> Running:
    return Running({"one": spec("one", server.url)}, settings={"quotas": RULES, "prices": (price,), "tokens": tokens})


def test_the_difference_is_settled_and_booked_once_it_is_known() -> None:
    async def main() -> None:
        price = PriceRule("USD", per_million_tokens_out=1_000_000)
        text = "aaaaaaaaaaaaaaaa " * 500  # an estimate by bytes is far off here
        answers = {"echo": {"content": [{"type": "text", "text": text}]}}
        async with (
            FakeServer(tools=TOOLS, answers=answers) as server,
            gateway(server, price, TokenSpec("o200k")) as running,
        ):
            book: list[Spent] = []
            running.front.metering.book = book.append
            client = await running.client()
            got = await client.modern("tools/call", CALL)
            await until(lambda: len(book) == 2)
            count = tokenizer("o200k")
            exact = count(got.body), count(b'{"q": "' + b"x" * 100 + b'"}')
            assert used(running) == {"tokens": sum(exact), "money": exact[0]}
            assert book[0].amount != exact[0]  # the estimate
            assert [one.calls for one in book] == [1, 0]
            assert sum(one.amount for one in book) == exact[0]
            assert sum(use.amount for one in book for use in one.uses) == sum(exact) + exact[0]

    run(main)


def test_what_was_recorded_is_said_anew_where_it_was_not_so() -> None:
    async def main() -> None:
        answers = {"echo": {"content": [{"type": "text", "text": "aaaaaaaaaaaaaaaa " * 500}]}}
        price = PriceRule("USD", per_million_tokens_out=1_000_000)
        async with (
            FakeServer(tools=TOOLS, answers=answers) as server,
            gateway(server, price, TokenSpec("o200k")) as running,
        ):
            records: list[Entry] = []
            anew: list[Recounted] = []
            running.front.record, running.front.metering.recounted = records.append, anew.append
            client = await running.client()
            await client.modern("tools/call", CALL)
            await until(lambda: anew)
            (one,), (then,) = records, anew
            assert then.of is one and one.tokens is not None and one.tokens[2] == "estimate"
            assert then.tokens[2] == "o200k" and then.tokens[:2] != one.tokens[:2]
            assert then.cost == (then.tokens[1], "USD") != one.cost == (one.tokens[1], "USD")
            assert one.taken is not None and one.taken.amounts == (sum(one.tokens[:2]), one.tokens[1])
            assert then.taken.amounts == (sum(then.tokens[:2]), then.tokens[1])

    run(main)


@pytest.mark.parametrize(
    "tokens", [TokenSpec(), TokenSpec("estimate", (("gpt*", "o200k"),))], ids=["the estimate stands", "for this model"]
)
def test_what_nobody_counts_stays(tokens: TokenSpec) -> None:
    async def main() -> None:
        async with (
            FakeServer(tools=TOOLS) as server,
            gateway(server, PriceRule("USD", per_million_tokens_out=1_000_000), tokens) as running,
        ):
            client = await running.client()
            await client.modern("tools/call", CALL)
            assert running.front.metering.recounter._thread is None

    run(main)


def test_what_waits_has_a_bound_and_what_fails_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(recounting, "MOST_BYTES", 10)
        done: list[Any] = []
        one = Recounter()
        one.add(Recount("o200k", b"", b"x" * 11, lambda *counts: done.append(counts)))
        assert one.missed == 1
        one.add(Recount("nobody's", b"a", b"b", lambda *counts: done.append(counts)))
        one.add(Recount("o200k", b"a", b"b c", lambda *counts: done.append(counts)))
        await until(lambda: done)
        assert done == [(1, 2)] and one.missed == 2
        one.close()
        await asyncio.sleep(0)

    run(main)
