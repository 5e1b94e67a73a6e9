"""A server that is killed, restarted, stopped, flushed, cut off and slow: no call hangs, nothing is granted twice."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.errors import LimitsUnavailable, RateLimited
from narthex.store.shared import counters
from narthex.types import LimitRule, SharedSpec
from tests.conftest import missing
from tests.counterparts import keeper
from tests.counterparts.keeper import Client, Keeper
from tests.store.shared.proxy import Proxy
from tests.store.shared.rig import ADA, PATIENCE_S, Gateway, until, uses_of

HOUR = 3_600_000_000
CALLS = LimitRule("calls", "calls", 10, window=HOUR)
SHORT = LimitRule("short", "calls", 100, window=60_000_000)
OPEN = LimitRule("open", "concurrent", 5, algorithm="concurrent")
QUICK: dict[str, Any] = {"timeout_s": 2.0}
"""Soon enough for a test, and more than a busy machine keeps anybody waiting."""


@pytest.mark.interpreted  # what is compiled has its constants in it
def test_a_slow_server_is_not_waited_for_and_what_it_grants_too_late_is_given_back(
    spec: SharedSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "GIVEN_UP_S", PATIENCE_S)  # it is late, and on a machine that is busy not dead yet

    async def main() -> None:
        async with Proxy(spec.port) as proxy:
            through = replace(spec, port=proxy.port, when_down="refuse", timeout_s=0.5)
            async with Gateway(through, (CALLS, OPEN)) as one, Gateway(spec, (CALLS, OPEN)) as other:
                await until(lambda: not one.counters.problem)
                proxy.flowing.clear()
                with pytest.raises(LimitsUnavailable):
                    await one.take()
                assert one.counters.problem
                with pytest.raises(LimitsUnavailable):  # the next does not even wait
                    binding = one.limiter.binding(ADA, "default", "tools", "git", "log")
                    one.counters.now(binding, binding.places, binding.ones)
                proxy.flowing.set()
                await until(lambda: not one.counters.problem)
                await one.used()
                assert await other.used() == {"calls": 0, "open": 0}

    asyncio.run(main())


def test_a_connection_that_breaks_is_made_again_and_what_has_ended_is_told_once(spec: SharedSpec) -> None:
    async def main() -> None:
        async with (
            Proxy(spec.port) as proxy,
            Gateway(spec, (CALLS, OPEN)) as other,
            Gateway(replace(spec, port=proxy.port), (CALLS, OPEN)) as one,
        ):
            for _ in range(5):
                held = [await one.take() for _ in range(4)]
                proxy.flowing.clear()  # what is told now is done, and nobody hears so
                told = one.counters.told
                for call in held[:3]:
                    one.counters.give_back(call)
                await until(lambda: not one.counters.owed)
                proxy.cut()
                proxy.flowing.set()
                await until(lambda told=told: not one.counters.problem and one.counters.told > told)  # type: ignore[misc]
                one.counters.give_back(held[3])
                await one.used()
                assert await other.used() == {"calls": 0, "open": 0}

    asyncio.run(main())


def test_what_is_held_is_held_under_the_new_name_too(spec: SharedSpec) -> None:
    async def main() -> None:
        async with (
            Proxy(spec.port) as proxy,
            Gateway(spec, (OPEN,)) as other,
            Gateway(replace(spec, port=proxy.port), (OPEN,)) as one,
        ):
            held = [await one.take() for _ in range(3)]
            before = one.counters.holder
            proxy.cut()
            await until(lambda: one.counters.holder not in (0, before))
            await one.used()
            assert await other.used() == {"open": 3}
            for call in held:
                one.counters.settle(call, {})
            await one.used()
            assert await other.used() == {"open": 0}

    asyncio.run(main())


def test_a_stopped_server_is_stood_in_for_and_told_afterwards(spec: SharedSpec, server: Keeper) -> None:
    async def main() -> None:
        local = replace(spec, processes=2, **QUICK)
        async with Gateway(local, (CALLS, SHORT)) as one:
            await until(lambda: not one.counters.problem)
            for _ in range(4):
                await one.take()
            server.signal(signal.SIGSTOP)
            try:
                granted = await one.granted(times=10)
            finally:
                server.signal(signal.SIGCONT)
            # Half of what was left, or one more where the first waited in vain and is counted there, too.
            assert granted in (2, 3)
            assert one.counters.stand_in.shared >= granted
            await until(lambda: not one.counters.problem)

    asyncio.run(main())


def test_what_a_share_has_granted_is_counted_once_the_server_is_back(spec: SharedSpec) -> None:
    async def main() -> None:
        async with (
            Proxy(spec.port) as proxy,
            Gateway(spec, (CALLS,)) as other,
            Gateway(replace(spec, port=proxy.port, processes=2, **QUICK), (CALLS,)) as one,
        ):
            await until(lambda: not one.counters.problem)
            proxy.flowing.clear()
            proxy.cut()
            held = []
            for _ in range(10):
                try:
                    held.append(await one.take())
                except RateLimited:
                    continue
            assert len(held) == 5
            for call in held:
                one.counters.settle(call, {})
            proxy.flowing.set()
            await one.used()
            assert await other.used() == {"calls": 5}

    asyncio.run(main())


@pytest.mark.parametrize("kind", keeper.KINDS)
def test_killed_and_restarted_without_its_data_it_is_told_what_lasts(kind: str, tmp_path: Path) -> None:
    if keeper.program(kind) is None:
        missing(kind, keeper.INSTALLED_BY[kind])

    async def main(server: Keeper) -> None:
        where = SharedSpec("127.0.0.1", server.port, processes=1, **QUICK)
        one = Gateway(where, (CALLS, SHORT, OPEN), ledger="A")
        async with one:
            await until(lambda: not one.counters.problem)
            held = [await one.take() for _ in range(3)]
            one.uses = uses_of(one, one.counters.time(), 3)  # as its ledger has them
            for call in held[:2]:
                one.counters.settle(call, {})
            await one.used()
            server.kill()
            await until(lambda: one.counters.problem)
            assert await one.granted() == 1  # by its share, and not ended yet
            server.start()
            await until(lambda: not one.counters.problem)
            assert one.restored == 2
            found = await one.used()
            assert (found["calls"], found["open"]) == (3, 2)
            one.counters.settle(held[2], {})
            assert (await one.used())["open"] == 1

    with keeper.serving(kind, tmp_path) as server:
        asyncio.run(main(server))


def test_flushed_under_load_it_never_goes_below_nothing(spec: SharedSpec) -> None:
    async def main() -> None:
        gateways = [Gateway(replace(spec, when_down="refuse"), (SHORT, OPEN)) for _ in range(2)]
        stop = False

        async def load(gateway: Gateway) -> int:
            count = 0
            while not stop:
                try:
                    held = await gateway.take()
                except (RateLimited, LimitsUnavailable):
                    await asyncio.sleep(0)
                    continue
                count += 1
                gateway.counters.give_back(held)
            return count

        async with gateways[0], gateways[1]:
            tasks = [asyncio.ensure_future(load(gateway)) for gateway in gateways for _ in range(8)]
            client = Client(spec.port)
            for _ in range(10):
                client("FLUSHALL")
                told = gateways[0].counters.told
                await until(lambda told=told: gateways[0].counters.told > told + 5)  # type: ignore[misc]
            client.close()
            stop = True
            assert sum(await asyncio.gather(*tasks))
            for gateway in gateways:
                await gateway.used()
            assert await gateways[0].used() == {"short": 0, "open": 0}

    asyncio.run(main())


def test_scripts_that_were_flushed_are_brought_again(spec: SharedSpec) -> None:
    async def main() -> None:
        async with Gateway(spec, (CALLS,)) as one:
            holder = one.counters.holder
            client = Client(spec.port)
            client("SCRIPT", "FLUSH")
            client.close()
            assert await one.granted(times=12) == 10
            assert one.counters.holder == holder

    asyncio.run(main())
