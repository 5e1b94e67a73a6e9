"""A loop that is held up shows it."""

from __future__ import annotations

import asyncio
import time

from narthex.telemetry.lag import Lag


def test_a_loop_that_is_held_up_is_late() -> None:
    async def hold_up() -> Lag:
        lag = Lag(asyncio.get_running_loop(), every_s=0.001)
        lag.start()
        while not sum(lag.times.buckets):
            time.sleep(0.05)
            await asyncio.sleep(0)
        lag.stop()
        return lag

    lag = asyncio.run(hold_up())
    assert lag.times.seconds >= 0.04
    assert sum(lag.times.counts()) == sum(lag.times.buckets)


def test_it_stops() -> None:
    async def stopped() -> int:
        lag = Lag(asyncio.get_running_loop(), every_s=0.0)
        lag.stop()
        lag.start()
        lag.stop()
        for _ in range(5):
            await asyncio.sleep(0)
        return sum(lag.times.buckets)

    assert asyncio.run(stopped()) == 0
