"""What limits cost that are counted in a Redis or Valkey on this machine: CPU of the gateway, and how long calls wait.

`python bench/shared.py [--rate N] [--seconds S] [--rounds N]` prints a table and writes `bench/results/shared.json`.
Calls come at an even rate, five limits on each, and are settled when they were granted. CPU is that of this process
(kernel and all) less that of the same load with limits in memory; of several rounds the least of each figure. A call
waits from asking to the answer. The CPU of the server is what it took for a call.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop
from limits import RULES
from msgspec.structs import replace
from report import RESULTS, facts_line, figures_table, write_results
from rig import facts

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from narthex.flow.limit.limiter import Limiter, Reservation
from narthex.store.shared.counters import Counters
from narthex.types import Principal, SharedSpec
from tests.counterparts import keeper
from tests.counterparts.keeper import Keeper

TICK_S = 0.001
CALLERS = [Principal("default", "https://sso.example.com/realms/corp", f"user-{at}", "bot") for at in range(500)]
LIMITS = tuple(replace(rule, most=10**12) for rule in RULES)
"""Five of different kinds, none of which is reached."""


def micros() -> int:
    return time.time_ns() // 1000


async def paced(one: Callable[[], None], rate: int, seconds: float) -> int:
    """Calls at an even rate, by the millisecond. Returns how many there were."""
    began, made = time.perf_counter(), 0
    while (now := time.perf_counter() - began) < seconds:
        for _ in range(int(now * rate) - made):
            made += 1
            one()
        await asyncio.sleep(TICK_S)
    return made


async def in_memory(rate: int, seconds: float) -> float:
    """Microseconds of CPU a call, the load's own included."""
    limiter, callers = Limiter(LIMITS, micros), itertools.cycle(CALLERS)

    def one() -> None:
        limiter.settle(limiter.reserve(limiter.binding(next(callers), "default", "tools", "one", "echo")))

    began = time.process_time()
    made = await paced(one, rate, seconds)
    return (time.process_time() - began) / made * 1e6


async def over_there(server: Keeper, rate: int, seconds: float) -> dict[str, float]:
    limiter, callers = Limiter(LIMITS, micros), itertools.cycle(CALLERS)
    limiter.count_elsewhere()

    async def nothing(since: int) -> list[Any]:
        return []

    counters = Counters(
        SharedSpec("127.0.0.1", server.port, timeout_s=5.0), limiter, password=str, ledger=str, restore=nothing,
        tell=print, clock=time.monotonic, now=time.time, holder=lambda: random.randrange(1, 2**52),
        chance=random.random,
    )  # fmt: skip
    running = asyncio.ensure_future(counters.link.run())
    await counters.link.tried.wait()
    waits: list[float] = []

    def one() -> None:
        binding, asked = limiter.binding(next(callers), "default", "tools", "one", "echo"), time.perf_counter()

        def took(held: Reservation) -> dict[str, Any]:
            waits.append(time.perf_counter() - asked)
            counters.settle(held, {})
            return {}

        counters.later(binding, binding.places, binding.ones, took).add_done_callback(answered)

    def answered(future: asyncio.Future[Any]) -> None:
        future.result()

    theirs, began = cpu_of(server), time.process_time()
    made = await paced(one, rate, seconds)
    spent = (time.process_time() - began) / made * 1e6
    while len(waits) < made:
        await asyncio.sleep(TICK_S)
    took_there = (cpu_of(server) - theirs) / made * 1e6
    requests = counters.told
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    waits.sort()
    return {
        "cpu": spent, "server": took_there, "calls a request": made / requests,
        "median": waits[made // 2] * 1e3, "p99": waits[made * 99 // 100] * 1e3,
    }  # fmt: skip


def cpu_of(server: Keeper) -> float:
    """Seconds of CPU that it has used."""
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "shared.json")
    given = parser.parse_args()
    gc.freeze()
    lines: list[dict[str, Any]] = [{"label": "calls a second", "value": given.rate, "unit": "", "digits": 0}]
    plain = min(uvloop.run(in_memory(given.rate, given.seconds)) for _ in range(given.rounds))
    for kind in keeper.KINDS:
        if keeper.program(kind) is None:
            print(f"{kind} is not installed here: {keeper.INSTALLED_BY[kind]}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder, keeper.serving(kind, Path(folder)) as server:
            rounds = [uvloop.run(over_there(server, given.rate, given.seconds)) for _ in range(given.rounds)]
        least = {name: min(one[name] for one in rounds) for name in rounds[0]}
        lines += [
            {
                "label": f"{kind}: CPU of the gateway a call",
                "value": least["cpu"] - plain,
                "unit": "µs",
                "target": 20.0,
            },
            {"label": f"{kind}: CPU of the server a call", "value": least["server"], "unit": "µs"},
            {"label": f"{kind}: a call waits, median", "value": least["median"], "unit": "ms", "digits": 2},
            {"label": f"{kind}: the same, p99", "value": least["p99"], "unit": "ms", "digits": 2, "target": 1.0},
            {"label": f"{kind}: calls a request", "value": least["calls a request"], "unit": ""},
        ]
    results = {"kind": "shared", "facts": facts(), "figures": lines}
    print(f"{facts_line(results)}\n\n{figures_table(results)}")
    write_results(results, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
