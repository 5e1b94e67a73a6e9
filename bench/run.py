"""`make bench`: what one call costs, beside nginx plainly proxying the same request and beside a peer.

`python bench/run.py [--quick] [--only WORD,…] [--without WORD,…] [--rounds N] [--seconds S] [--out FILE]`
WORD is a group (call, governed, sse, big, list, tools, servers, peers) or a subject (gateway, nginx, fastmcp, direct).
The measured process has a core for itself, wrk and the canned server share another. Variants take turns in many short
rounds; ratios are made within a round, then the median is taken: shared machines change their speed by the second. CPU
time comes from the kernel's clock of the measured process.
A whole run of ten rounds or more writes `bench/results/calls.json`; `bench/report.py` makes the tables of it that stand
in `docs/benchmarks.md`. What is governed is a table of its own: `--only governed --out bench/results/governed.json`.
There nginx is asked with the same token, which it reads and hands on, as it does with all of a request.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from load import Ask, Sample, ask_once, load, open_session
from report import RESULTS, calls_table, write_results
from rig import BenchError, Rig, facts, need, two_cores
from subjects import Subject, echo_names, makers, upstream

FEWEST = 10
"""Rounds below which a run is for the eye only, and no result of it is kept."""


@dataclass(frozen=True)
class Row:
    """One line of the table. `beside` is the row that ratios are made to; `cpu`, `p99` are the most they may be."""

    key: str
    group: str
    label: str
    subject: str
    ask: Ask
    beside: str | None = None
    cpu: float | None = None
    p99: float | None = None
    rounds: int = 1_000
    seconds: int = 0


def _mcp(name: str, **more: Any) -> Ask:
    return Ask("/mcp", names=(name,), **more)


def _nginx(path: str, **more: Any) -> Ask:
    return Ask(f"{path}/mcp", **more)


def _listing(tools: int) -> dict[str, Any]:
    page = min(tools, 1000)  # what the gateway hands out at once
    return {"method": "tools/list", "expect": f"list:{page * 150}", "connections": 64 if tools < 1000 else 8}


ROWS: tuple[Row, ...] = (
    Row("direct", "call", "canned server, nothing between", "direct", _nginx("/modern/10")),
    Row("nginx", "call", "nginx, plain proxying", "nginx", _nginx("/modern/10")),
    Row("modern", "call", "gateway, modern client → modern server", "gateway", _mcp("modern__echo"), "nginx", 1.6, 2.0),
    Row(
        "legacy",
        "call",
        "gateway, legacy client (session) → legacy server",
        "gateway",
        _mcp("legacy__echo", era="legacy"),
        "nginx",
        1.6,
        2.0,
    ),
    Row("bridge", "call", "gateway, modern client → legacy server", "gateway", _mcp("legacy__echo"), "nginx", 1.6, 2.0),
    Row(
        "bridge-up",
        "call",
        "gateway, legacy client (session) → modern server",
        "gateway",
        _mcp("modern__echo", era="legacy"),
        "nginx",
    ),
    Row("pipe", "call", "gateway, modern client → stdio server", "gateway", _mcp("pipe__echo"), "nginx"),
    Row(
        "pipe-bridge",
        "call",
        "gateway, modern client → legacy stdio server",
        "gateway",
        _mcp("oldpipe__echo"),
        "nginx",
    ),
    Row(
        "pipe-bridge-up",
        "call",
        "gateway, legacy client (session) → stdio server",
        "gateway",
        _mcp("pipe__echo", era="legacy"),
        "nginx",
    ),
    Row("nginx-token", "governed", "nginx, plain proxying of the same request", "nginx_token", _nginx("/modern/10")),
    Row(
        "granted",
        "governed",
        "gateway, a token (JWT), 50 grants, a condition on arguments",
        "gateway-granted",
        _mcp("modern__echo"),
        "nginx-token",
        2.0,
    ),
    Row("limited", "governed", "gateway, and three limits", "gateway-limited", _mcp("modern__echo"), "nginx-token"),
    Row("recorded", "governed", "gateway, and a journal", "gateway-recorded", _mcp("modern__echo"), "nginx-token", 2.0),
    Row("nginx-sse", "sse", "nginx, answer as one event", "nginx", _nginx("/stream/modern/10", names=("sse",))),
    Row("sse", "sse", "gateway, answer as one event", "gateway", _mcp("modern__sse"), "nginx-sse", 2.0),
    Row(
        "nginx-progress",
        "sse",
        "nginx, three progress events",
        "nginx",
        _nginx("/stream/modern/10", names=("progress",), expect="progress"),
    ),
    Row(
        "progress",
        "sse",
        "gateway, three progress events",
        "gateway",
        _mcp("modern__progress", expect="progress"),
        "nginx-progress",
    ),
    Row("nginx-big", "big", "nginx, result of 32 KiB", "nginx", _nginx("/modern/10", names=("big",), expect="big")),
    Row("big", "big", "gateway, result of 32 KiB", "gateway", _mcp("modern__big", expect="big"), "nginx-big", 2.2),
    *(
        row
        for n in (10, 1000, 10_000)
        for row in (
            Row(
                f"nginx-list-{n}", "list", f"nginx, tools/list of {n:,}", "nginx", _nginx(f"/modern/{n}", **_listing(n))
            ),
            Row(
                f"list-{n}",
                "list",
                f"gateway, tools/list of {n:,}",
                f"gateway-1x{n}",
                Ask("/mcp", **_listing(n)),
                f"nginx-list-{n}",
            ),
        )
    ),
    *(
        Row(
            f"tools-{n}",
            "tools",
            f"gateway, a call where {n:,} tools are",
            f"gateway-1x{n}",
            Ask("/mcp", names=echo_names(1, n)),
            b,
            c,
        )
        for n, b, c in ((10, None, None), (1000, "tools-10", 1.1), (10_000, "tools-10", 1.1))
    ),
    *(
        Row(
            f"servers-{n}",
            "servers",
            f"gateway, a call where {n} servers are",
            f"gateway-{n}x10",
            Ask("/mcp", names=echo_names(n, 10)),
            b,
            c,
        )
        for n, b, c in ((1, None, None), (10, "servers-1", 1.1), (200, "servers-1", 1.1))
    ),
    Row(
        "fastmcp",
        "peers",
        "FastMCP's proxy, 8 connections",
        "fastmcp",
        _mcp("echo", connections=8),
        "nginx",
        rounds=3,
        seconds=4,
    ),
)


def chosen(only: set[str], without: set[str]) -> list[Row]:
    """The rows that the words select, and the rows that those are compared to."""

    def named(row: Row, words: set[str]) -> bool:
        return bool(words & {row.key, row.group, row.subject, row.subject.partition("-")[0]})

    picked = {
        row.key for row in ROWS if (named(row, only) if only else row.group != "governed") and not named(row, without)
    }
    picked |= {row.beside for row in ROWS if row.key in picked and row.beside}
    return [row for row in ROWS if row.key in picked]


def measure(rig: Rig, rows: list[Row], rounds: int, seconds: float) -> dict[str, list[Sample]]:
    """All rows in turn, `rounds` times over, each second round backwards, so that a machine that drifts hits all alike.

    First comes warmth, and a first check, not measured: a list, as every client asks for one before it calls; then a
    stretch of each row.
    """
    start = makers(rig, upstream(rig))
    subjects: dict[str, Subject] = {}
    for name in dict.fromkeys(row.subject for row in rows):
        print(f"starting {name} …", file=sys.stderr, flush=True)
        subjects[name] = start[name]()
        if name.startswith("gateway"):
            ask_once(subjects[name].port, "/mcp", "tools/list", {}, token=subjects[name].token)
    sessions: dict[str, tuple[str, ...]] = {}
    for row in rows:
        if row.ask.era == "legacy":
            sessions[row.key] = tuple(
                open_session(subjects[row.subject].port, row.ask.path) for _ in range(row.ask.connections)
            )
        subject = subjects[row.subject]
        load(rig, subject.port, row.ask, 1, None, sessions.get(row.key, ()), subject.token)
    samples: dict[str, list[Sample]] = {row.key: [] for row in rows}
    for turn in range(rounds):
        for row in rows if turn % 2 == 0 else reversed(rows):
            if turn >= row.rounds:
                continue
            subject = subjects[row.subject]
            stretch, known = max(seconds, row.seconds), sessions.get(row.key, ())
            sample = load(rig, subject.port, row.ask, stretch, subject.process, known, subject.token)
            samples[row.key].append(sample)
            print(
                f"round {turn + 1}/{rounds}  {row.label:<52} {sample.cpu_us:9.1f} µs  p99 {sample.p99_us:8.0f} µs",
                file=sys.stderr,
                flush=True,
            )
            if sample.failures:
                print(f"  {sample.failures} of {sample.calls} answers wrong: {sample.why}", file=sys.stderr)
    return samples


def ratio(mine: list[Sample], theirs: list[Sample], what: str) -> float | None:
    """Median over the rounds of the ratio within each round."""
    pairs = [(getattr(a, what), getattr(b, what)) for a, b in zip(mine, theirs, strict=False)]
    return statistics.median(a / b for a, b in pairs) if pairs and all(b for _, b in pairs) else None


def summary(rows: list[Row], samples: dict[str, list[Sample]]) -> list[dict[str, Any]]:
    """A line per row: medians over the rounds, ratios, targets, and every sample as it was taken."""
    out = []
    for row in rows:
        mine = samples[row.key]
        line: dict[str, Any] = {
            "key": row.key,
            "group": row.group,
            "label": row.label,
            "connections": row.ask.connections,
        }
        for what in ("per_s", "cpu_us", "p50_us", "p99_us"):
            line[what] = statistics.median(getattr(sample, what) for sample in mine)
        line["calls"] = sum(sample.calls for sample in mine)
        line["failures"] = sum(sample.failures for sample in mine)
        if row.beside:
            line["beside"] = row.beside
            line["cpu_ratio"] = ratio(mine, samples[row.beside], "cpu_us")
            line["p99_ratio"] = ratio(mine, samples[row.beside], "p99_us")
        line |= {"cpu_target": row.cpu, "p99_target": row.p99, "samples": [asdict(sample) for sample in mine]}
        out.append(line)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds; nothing is written")
    parser.add_argument("--only", default="", help="groups or subjects, with commas between")
    parser.add_argument("--without", default="", help="groups or subjects to leave out")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--out", type=Path, help="where the JSON goes; a whole run writes bench/results/calls.json")
    given = parser.parse_args()
    rounds, seconds = given.rounds or (2 if given.quick else 15), given.seconds or 1
    rows = chosen(set(filter(None, given.only.split(","))), set(filter(None, given.without.split(","))))
    began = time.monotonic()
    try:
        two_cores()
        need("wrk", "nginx")
        with Rig() as rig:
            samples = measure(rig, rows, rounds, seconds)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    lines = summary(rows, samples)
    results = {"kind": "calls", "facts": facts(), "rounds": rounds, "seconds": seconds, "rows": lines}
    print(calls_table(results))
    print(f"\n{rounds} rounds of {seconds} s, {time.monotonic() - began:.0f} s in all.")
    whole = rounds >= FEWEST and not (given.only or given.without)
    if given.out or whole:
        write_results(results, given.out or RESULTS / "calls.json")
    return 1 if any(line["failures"] for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
