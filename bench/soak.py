"""A long run with clients that never say goodbye: does memory stay flat?

`python bench/soak.py [--calls 1000000] [--out FILE]`. Each client opens a connection, makes a session or is of the
modern era, calls some tools (JSON, one event, progress), and then vanishes: mid-answer every tenth time, never with
DELETE. RSS and open files are read fifty times on the way. Flat means: the highest of the last fifth is at most 5 % or
4 MB above the highest of the second fifth. Exit 1 where it grows. Writes `bench/results/soak.json` for a million calls.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from clients import call, connect, initialize, initialized, session_id, status
from report import RESULTS, facts_line, figures_table, write_results
from rig import OTHERS, BenchError, Rig, Started, facts, memory, two_cores
from subjects import gateway, http_servers, upstream

MB = 1e6
CLIENTS, PER_CLIENT = 32, 25
TOOLS = ("modern__echo", "legacy__echo", "modern__sse", "legacy__echo", "modern__echo", "legacy__progress")


@dataclass
class Soak:
    """What the clients have done so far and what was seen on the way."""

    port: int
    started: Started
    calls: int
    done: int = 0
    sessions: int = 0
    broken_off: int = 0
    wrong: int = 0
    first_wrong: bytes = b""
    marks: list[tuple[int, int, int]] = field(default_factory=list)

    def mark(self) -> None:
        self.started.check()
        pid = self.started.pid
        self.marks.append((self.done, memory(pid).rss, len(os.listdir(f"/proc/{pid}/fd"))))

    async def client(self, chance: random.Random) -> None:
        """One client from its first byte to its silent end."""
        client = await connect(self.port)
        session = None
        if chance.random() < 0.5:
            session = session_id(await client.ask(initialize(self.port)))
            await client.ask(initialized(self.port, session))
            self.sessions += 1
        for _ in range(PER_CLIENT):
            self.done += 1
            number = self.done
            answer = await client.ask(call(self.port, chance.choice(TOOLS), number, session))
            if status(answer) != 200 or b'"text":"call %d"' % number not in answer:
                self.wrong += 1
                self.first_wrong = self.first_wrong or answer[:400]
        if chance.random() < 0.1:
            client.transport.write(call(self.port, "modern__slow", self.done, session))
            await asyncio.sleep(0.01)
            self.broken_off += 1
        client.transport.abort()

    async def worker(self, chance: random.Random) -> None:
        while self.done < self.calls:
            try:
                await self.client(chance)
            except OSError as error:  # a refused or dropped connection is a wrong answer, not the end of the soak
                self.wrong += 1
                self.first_wrong = self.first_wrong or repr(error).encode()
                if self.wrong > 1000:
                    raise BenchError(f"too many faults; the first: {self.first_wrong!r}") from None

    async def run(self) -> None:
        workers = [asyncio.ensure_future(self.worker(random.Random(seed))) for seed in range(CLIENTS)]
        step = max(1, self.calls // 50)
        while not all(worker.done() for worker in workers):
            if self.done >= step * len(self.marks):
                self.mark()
            await asyncio.sleep(0.02)
        await asyncio.gather(*workers)
        await asyncio.sleep(2)
        self.mark()


def growth(marks: list[tuple[int, int, int]]) -> float:
    """Bytes by which the highest RSS of the last fifth is above the highest of the second fifth."""
    fifth = max(1, len(marks) // 5)
    return max(m[1] for m in marks[-fifth:]) - max(m[1] for m in marks[fifth : 2 * fifth])


def figures(soak: Soak, seconds: float) -> list[dict[str, Any]]:
    base = soak.marks[len(soak.marks) // 5][1]
    return [
        {"label": "calls", "value": soak.done, "unit": "", "digits": 0},
        {"label": "sessions opened, none ended", "value": soak.sessions, "unit": "", "digits": 0},
        {"label": "calls broken off", "value": soak.broken_off, "unit": "", "digits": 0},
        {"label": "wrong answers", "value": soak.wrong, "target": 0, "unit": "", "digits": 0},
        {"label": "RSS after the first fifth", "value": base / MB, "unit": "MB"},
        {
            "label": "growth from the second fifth to the last",
            "value": growth(soak.marks) / MB,
            "target": max(0.05 * base, 4 * MB) / MB,
            "unit": "MB",
        },
        {"label": "open files at the end", "value": soak.marks[-1][2], "unit": "", "digits": 0},
        {"label": "time", "value": seconds, "unit": "s", "digits": 0},
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    began = time.monotonic()
    try:
        two_cores()
        with Rig() as rig:
            os.sched_setaffinity(0, {OTHERS})
            port = upstream(rig)
            servers = http_servers(port, {"modern": "/modern/10/a", "legacy": "/legacy/10/a"})
            subject = gateway(rig, "gateway", servers, "modern__echo")
            assert subject.process is not None
            soak = Soak(subject.port, subject.process, given.calls)
            uvloop.run(soak.run())
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    lines = figures(soak, time.monotonic() - began)
    results = {"kind": "soak", "facts": facts(), "figures": lines, "marks": soak.marks}
    print(f"{facts_line(results)}\n\n{figures_table(results)}")
    if soak.first_wrong:
        print(f"first wrong answer: {soak.first_wrong!r}")
    if given.out or given.calls >= 1_000_000:
        write_results(results, given.out or RESULTS / "soak.json")
    return 1 if any("target" in line and line["value"] > line["target"] for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
