"""What each part that governs a call costs, in microseconds, with no kernel and no network in it.

`python bench/governing.py [--rounds N] [--turn N] [--out FILE]`. Whole calls on the objects of real gateways
(`rooms.py`), with as much of what governs as `governed.py` says; they take turns, and each figure is the least of many
rounds, less what the server in this process costs. Time is CPU time: of the event loop's thread, and of all threads
together, so that what the journal and the books do beside it shows. Unlike `steps.py` it runs what is compiled. Writes
`bench/results/governing.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import governed
import uvloop
from canned import answer
from report import RESULTS, facts_line, figures_table, write_results
from rig import MEASURED, BenchError, facts
from rooms import Rooms, quick_reply, rooms, zero_first

Pair = tuple[float, float]
"""Microseconds: on the event loop, and on all threads."""
CALLS = 100
"""A round's."""
TURN = 20
"""Of these, calls that end in one turn of a busy event loop, at the end of which their records are made."""
PAUSE_S = 0.002
"""Behind each round: the threads get what is theirs."""
PARTS = {
    "ungoverned": "a call, with nothing that governs",
    "shown": "a token (JWT)",
    "granted": "a token, 50 grants, a condition on arguments",
    "limited": "and three limits",
    "recorded": "and a journal",
}


async def governed_rooms(folder: Path, part: str) -> Rooms:
    if part == "ungoverned":
        return await rooms(folder, "modern", name="modern")
    token = governed.token(folder)
    more = governed.settings("granted" if part == "shown" else part)
    if part == "shown":
        del more["grants"]
    return await rooms(folder, "modern", name="modern", token=token, **more)


def made_ready(r: Rooms, part: str) -> bytes:
    """Have the server answer at once. Returns what it is sent."""
    sent = bytes(r.server.last)
    r.server.quick = zero_first(answer(sent.partition(b"\r\n\r\n")[2], "modern", 10).messages[0])
    r.client.last = b""
    r.connection.data_received(r.request)
    if b"call 7" not in r.client.last:
        raise BenchError(f"{part}: not an answer: {r.client.last!r}")
    return sent


async def measured(rounds: int, turn: int) -> dict[str, Pair]:
    """What a call of each part costs, where so many end in one turn."""
    with tempfile.TemporaryDirectory(prefix="narthex-governing-", ignore_cleanup_errors=True) as folder:
        made: dict[str, Rooms] = {}
        sent: dict[str, bytes] = {}
        for part in PARTS:
            made[part] = r = await governed_rooms(Path(folder) / part, part)
            sent[part] = made_ready(r, part)
            for one in made.values():  # or it would take the connection to its server for idle
                one.connection.data_received(one.request)
        first = next(iter(made.values()))
        harness = await least_of(lambda: quick_reply(first.server.quick, sent["ungoverned"]), bool, rounds, turn)
        best = dict.fromkeys(made, (float("inf"), float("inf")))
        for _ in range(rounds):
            for part, r in made.items():
                r.client.last = b""
                found = await one_round(
                    lambda r=r: r.connection.data_received(r.request), r.gateway.front.records.flush, turn
                )
                if b"call 7" in r.client.last:  # else its connection was idle for too long, and another is made
                    best[part] = lesser(best[part], found)
        for r in made.values():
            r.server.silent = True
            await r.gateway.stop()
    return {part: (own - harness[0], every - harness[1]) for part, (own, every) in best.items()}


def lesser(one: Pair, other: Pair) -> Pair:
    return min(one[0], other[0]), min(one[1], other[1])


async def least_of(run: Callable[[], Any], end: Callable[[], Any], rounds: int, turn: int) -> Pair:
    best = await one_round(run, end, turn)
    for _ in range(rounds):
        best = lesser(best, await one_round(run, end, turn))
    return best


async def one_round(run: Callable[[], Any], end: Callable[[], Any], turn: int) -> Pair:
    """`end`: what happens at the end of a turn."""
    own, every = time.thread_time_ns(), time.process_time_ns()
    for number in range(1, CALLS + 1):
        run()
        if number % turn == 0:
            end()
    own = time.thread_time_ns() - own
    await asyncio.sleep(PAUSE_S)
    return own / CALLS / 1000, (time.process_time_ns() - every) / CALLS / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS / "governing.json")
    parser.add_argument(
        "--turn", type=int, default=TURN, help="calls that end in one turn; 1: a loop with nothing to do"
    )
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {MEASURED})
    try:
        found = uvloop.run(measured(given.rounds, given.turn))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if float("inf") in {us for pair in found.values() for us in pair}:
        print("bench: no answer in any round", file=sys.stderr)
        return 1
    lines = [
        {"label": f"{PARTS[part]}{where}", "value": us, "unit": "µs"}
        for part, pair in found.items()
        for where, us in zip((", on the loop", ", all threads"), pair, strict=True)
    ]
    results = {"kind": "governing", "facts": facts(), "figures": lines}
    print(f"{facts_line(results)}\n\n{figures_table(results)}")
    write_results(results, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
