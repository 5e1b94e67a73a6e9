"""Counters that gateways share, on a real server: all or none, settled, given back, held, told, over all gateways."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.errors import BudgetExhausted, LimitsUnavailable, RateLimited
from narthex.types import LimitRule, Principal, SharedSpec
from tests.counterparts.keeper import Keeper
from tests.store.shared.rig import ADA, Gateway, until, uses_of

SECOND = 1_000_000
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
BOB = Principal("acme", "https://idp", "bob", "bot")
CALLS = LimitRule("calls", "calls", 3, ("principal",), window=HOUR)
TOGETHER = LimitRule("together", "calls", 4, window=HOUR)
OPEN = LimitRule("open", "concurrent", 2, ("principal",), algorithm="concurrent")
MONEY = LimitRule("spend", "money", 100, window=0, period="month", algorithm="calendar", currency="USD")
BYTES = LimitRule("bytes", "bytes", 1000, window=HOUR, alerts=(50, 100), soft=True)


def test_what_one_gateway_has_taken_is_gone_for_the_other(spec: SharedSpec) -> None:
    async def main() -> None:
        async with Gateway(spec, (CALLS,)) as one, Gateway(spec, (CALLS,)) as two:
            assert [await gateway.granted() for gateway in (one, two, one, two, one)] == [1, 1, 1, 0, 0]
            with pytest.raises(RateLimited) as refused:
                await two.take()
            data = refused.value.data or {}
            assert data["limit"] == "calls" and 3500 < data["retryAfterSeconds"] <= 3600
            assert await two.granted(BOB) == 1
            await until(lambda: one.counters.living == 2 or asyncio.ensure_future(one.granted(BOB)))

    asyncio.run(main())


def test_all_are_taken_or_none(spec: SharedSpec) -> None:
    async def main() -> None:
        async with Gateway(spec, (OPEN, CALLS, TOGETHER)) as one, Gateway(spec, (OPEN, CALLS, TOGETHER)) as two:
            for gateway, who in ((one, ADA), (two, ADA), (one, BOB), (two, BOB)):
                gateway.counters.settle(await gateway.take(who), {})
            with pytest.raises(RateLimited) as refused:
                await two.take()
            assert refused.value.limit == "together"
            await one.used()
            assert await two.used() == {"open": 0, "calls": 2, "together": 4}

    asyncio.run(main())


def test_what_never_went_out_is_given_back_and_what_was_used_is_settled(spec: SharedSpec) -> None:
    async def main() -> None:
        async with Gateway(spec, (CALLS, MONEY, OPEN)) as one:
            held = await one.take(demand={"calls": 1, "USD": 60})
            with pytest.raises(BudgetExhausted):
                await one.take(demand={"calls": 1, "USD": 60})
            one.counters.give_back(held)
            one.counters.give_back(held)
            assert await one.used() == {"calls": 0, "spend": 0, "open": 0}
            held = await one.take(demand={"calls": 1, "USD": 60})
            one.counters.settle(held, {"USD": 7})
            assert await one.used() == {"calls": 1, "spend": 7, "open": 0}

    asyncio.run(main())


def test_a_call_that_is_given_up_while_it_waits_takes_nothing(spec: SharedSpec) -> None:
    async def main() -> None:
        async with Gateway(spec, (CALLS, OPEN)) as one:
            told, task = one.counters.told, asyncio.ensure_future(one.take())
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # it is on its way
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await until(lambda: one.counters.told > told)
            assert await one.used() == {"calls": 0, "open": 0}

    asyncio.run(main())


def test_what_a_gateway_held_is_free_once_it_is_gone(spec: SharedSpec, server: Keeper) -> None:
    async def main() -> None:
        async with Gateway(spec, (OPEN,)) as one:
            async with Gateway(spec, (OPEN,)) as two:
                for gateway in (one, two):
                    await gateway.take()
                assert await one.granted() == 0
            client = server.client()  # its lease runs out at once, in place of ten seconds
            names = client("HKEYS", "narthex:gateways")
            ours = b"%d" % one.counters.holder
            for name in names:
                if name != ours:
                    client("HSET", "narthex:gateways", name, "1 1")
            client.close()
            assert await one.granted() == 1

    asyncio.run(main())


def test_each_share_is_told_once_over_all_gateways(spec: SharedSpec) -> None:
    async def main() -> None:
        async with Gateway(spec, (BYTES,)) as one, Gateway(spec, (BYTES,)) as two:
            for gateway in (one, two, one, two, two, one):
                gateway.counters.settle(await gateway.take(demand={"bytes": 1}), {"bytes": 300})
                await gateway.used()
            told = [(alert.share, alert.used) for alert in (*one.alerts, *two.alerts)]
            assert sorted(told) == [(50, 600), (100, 1200)]

    asyncio.run(main())


def test_arguments_have_buckets_of_their_own(spec: SharedSpec) -> None:
    rule = LimitRule("account", "calls", 1, ("arg:/account",), window=HOUR)

    async def main() -> None:
        async with Gateway(spec, (rule,)) as one, Gateway(spec, (rule,)) as two:
            await one.take(demand={"calls": 1}, arguments={"account": 1})
            await two.take(demand={"calls": 1}, arguments={"account": 2})
            with pytest.raises(RateLimited):
                await two.take(demand={"calls": 1}, arguments={"account": 1})

    asyncio.run(main())


def test_an_empty_server_is_told_what_lasts_once_for_each_ledger(spec: SharedSpec) -> None:
    rules = (CALLS, MONEY, replace(CALLS, name="short", window=MINUTE))

    async def main() -> None:
        first = Gateway(spec, rules, ledger="A")
        async with first:
            pass
        now = first.counters.time()
        client = server_client(spec)
        client("FLUSHALL")
        client.close()
        first.uses = uses_of(first, now - SECOND, 2)
        second = Gateway(spec, rules, ledger="A", uses=first.uses)
        other = Gateway(spec, rules, ledger="B", uses=[replace(use, amount=1) for use in first.uses])
        async with first, second, other:
            assert await second.used() == {"calls": 3, "spend": 3, "short": 0}
            assert (first.restored - 1) + second.restored == 1 and other.restored == 1
            assert await first.granted() == 0

    asyncio.run(main())


def server_client(spec: SharedSpec) -> Any:
    from tests.counterparts.keeper import Client

    return Client(spec.port)


@pytest.mark.parametrize("policy", ["local_share", "refuse", "allow"])
def test_while_nobody_was_ever_there_no_share_is_known(policy: Any) -> None:
    async def main() -> None:
        nobody = SharedSpec("127.0.0.1", 1, when_down=policy)
        async with Gateway(nobody, (CALLS,)) as one:
            if policy == "allow":
                assert await one.granted(times=5) == 5
            else:
                with pytest.raises(LimitsUnavailable):
                    await one.take()
        async with Gateway(replace(nobody, processes=2), (CALLS,)) as one:
            assert await one.granted(times=5) == {"local_share": 1, "refuse": 0, "allow": 5}[policy]

    asyncio.run(main())
