"""What limits cost: five of them on one call, and a million buckets in memory until they have run out.

`python bench/limits.py [--buckets N] [--repeats N]` prints one JSON document and writes `bench/results/limits.json`.
Time is CPU time of this thread, the least of many repeats; memory is what the process has grown by (RSS), in a process
of its own. `lines` is the header lines on top, which only answers of limited calls have.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from narthex.flow.accept.metering import Metered, Metering
from narthex.flow.limit.limiter import Limiter
from narthex.flow.route.index import Target
from narthex.types import Call, LimitRule, Principal

MINUTE = 60_000_000
MANY = 10**12
RULES = (
    LimitRule("calls", "calls", 100, ("principal",), window=MINUTE),
    LimitRule("tool", "calls", 100, ("principal", "tool"), window=MINUTE),
    LimitRule("open", "concurrent", 100, ("server",), algorithm="concurrent"),
    LimitRule("burst", "calls", MANY, ("agent",), algorithm="bucket", window=MINUTE),
    LimitRule("month", "calls", MANY, (), algorithm="calendar", period="month"),
)
SOMEBODY = Principal("default", "https://sso.example.com/realms/corp", "ada", "helpdesk-bot")


class Clock:
    """Seconds; moved by hand."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def least_us(run: Callable[[], None], repeats: int, number: int = 200) -> float:
    """Microseconds of one run: the least of `repeats` times `number` runs."""
    best = float("inf")
    for _ in range(repeats):
        began = time.thread_time_ns()
        for _ in range(number):
            run()
        best = min(best, time.thread_time_ns() - began)
    return best / number / 1000


def of_a_call(repeats: int) -> dict[str, float]:
    """Reserve and settle, by the number of limits; then the header lines. The clock goes on by 2 s a call."""
    found: dict[str, float] = {}
    call = Call("tools/call", {}, {}, b"1", "modern", "2026-07-28", SOMEBODY, "default", "one__echo")
    target = Target("one", "echo", b'"echo"')
    for rules in (RULES[:1], RULES):
        clock = Clock()
        metering = Metering(clock, lambda: 1.8e9)
        metering.limiter.apply(rules)
        limiter = metering.limiter

        def core(clock: Clock = clock, limiter: Limiter = limiter) -> None:
            clock.now += 2.0
            limiter.settle(limiter.reserve(limiter.binding(SOMEBODY, "default", "tools", "one", "echo")))

        def whole(clock: Clock = clock, metering: Metering = metering) -> None:
            clock.now += 2.0
            one = Metered(metering, 100)
            one.reserve(call, target, {})
            one.answered(100)

        found[f"{len(rules)} limits, us"] = round(least_us(core, repeats), 2)
        found[f"{len(rules)} limits with header lines, us"] = round(least_us(whole, repeats), 2)
    return found


def rss() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def of_many(buckets: int, calls: int) -> dict[str, Any]:
    """Memory of so many sliding windows with so many calls in each, the longest step of upkeep, and what is left."""
    clock = Clock()
    limiter = Limiter(RULES[:1], lambda: int(clock.now * 1_000_000))
    gc.collect()
    before = rss()
    for number in range(buckets):
        who = Principal("default", "https://sso.example.com/realms/corp", f"user-{number}", "helpdesk-bot")
        for _ in range(calls):
            clock.now += 1e-6
            limiter.reserve(limiter.binding(who, "default", "tools", "one", "echo"))
    limiter.apply(RULES[:1])  # forgets the bindings of callers, which are bounded; the buckets stay
    gc.collect()
    grown, live = rss() - before, len(limiter.limits[0].buckets)
    began = time.thread_time_ns()
    gc.collect()
    collected = (time.thread_time_ns() - began) / 1e6
    clock.now += 61.0
    steps: list[float] = []
    while len(limiter.limits[0].buckets):
        began = time.thread_time_ns()
        limiter.sweep()
        steps.append((time.thread_time_ns() - began) / 1e6)
    steps.sort()
    return {
        "buckets": live,
        "calls in each": calls,
        "memory, MB": round(grown / 1e6, 1),
        "bytes a bucket": round(grown / live),
        "a full collection, ms": round(collected, 1),
        "sweeps until none is left": len(steps),
        "a sweep, median, ms": round(steps[len(steps) // 2], 2),
        "a sweep, of a hundred the longest, ms": round(steps[len(steps) * 99 // 100], 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--buckets", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--calls", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "limits.json")
    given = parser.parse_args()
    if given.calls is not None:
        print(json.dumps(of_many(given.buckets, given.calls)))
        return 0
    alone = [sys.executable, __file__, "--buckets", str(given.buckets), "--calls"]
    memory = [
        json.loads(subprocess.run([*alone, str(calls)], check=True, capture_output=True).stdout) for calls in (1, 3)
    ]
    found = {"python": sys.version.split()[0], "a call": of_a_call(given.repeats), "memory": memory}
    text = json.dumps(found, indent=1)
    given.out.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
