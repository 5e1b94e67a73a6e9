"""Who spends the CPU of a governed call: each thread of the gateway, and the process beside its journal.

`python bench/threads.py [--rounds N] [--seconds S] [--out FILE]`: nginx and the gateways of `governed.py` in turns, as
in `run.py`; for each thread the CPU time of a call, and what share of nginx's that is in the same round. The median of
the rounds is shown; the kernel counts threads by the hundredth of a second. The process beside the gateway, which keeps
the index of records, is no part of what `run.py` shows: no call waits for it, and it has the lowest priority, so here
it gets what the core has left, and does the rest afterwards. Writes `bench/results/threads.json`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from governed import PARTS, settings, token
from load import Ask, load, wait_for
from report import RESULTS, threads_table, write_results
from rig import BENCH, MEASURED, BenchError, Rig, Started, facts, need, two_cores
from subjects import SOURCE, Subject, gateway_config, http_servers, nginx, upstream

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
NGINX = "nginx"
LABELS = {
    "loop": "the event loop: every call's way",
    "narthex-journal": "the journal's thread: records made, sealed, written",
    "narthex-ledger": "the ledger's thread: what lasting limits have counted",
    "beside": "the process beside it: the index of records",
}


def processes(pid: int) -> list[int]:
    """A process, and all that any thread of it has started, at whatever distance."""
    found = [pid]
    for one in found:
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, path.read_text().split())
    return found


def ticks(process: Started) -> Counter[str]:
    """CPU of each thread of a process, by its name; of the processes that it has started, in one."""
    found = Counter[str]()
    for pid in processes(process.pid):
        for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            user, system = rest.split()[11:13]
            found[name if pid == process.pid else "beside"] += int(user) + int(system)
    return found


def start(rig: Rig, upstream_port: int, part: str) -> Subject:
    """The gateway of `subjects.governed`, its threads named."""
    folder = rig.folder / f"gateway-{part}"
    shown = token(folder)
    servers = http_servers(upstream_port, {"modern": "/modern/10/a"})
    config, port, _ = gateway_config(folder, servers, **settings(part))
    command = [sys.executable, str(BENCH / "named.py"), "serve", str(config)]
    started = rig.start(part, command, MEASURED, env=SOURCE, cwd=folder)
    wait_for(port, "/mcp", "modern__echo", started, token=shown)
    return Subject(port, started, shown)


def measure(rig: Rig, parts: tuple[str, ...], rounds: int, seconds: float) -> dict[str, list[Counter[str]]]:
    """Microseconds of a call by thread, for nginx and each part, a row a round."""
    port = upstream(rig)
    subjects = {NGINX: nginx(rig, port, token(rig.folder / "token"))} | {part: start(rig, port, part) for part in parts}
    asks = {name: Ask("/mcp", names=("modern__echo",)) for name in parts} | {NGINX: Ask("/modern/10/mcp")}
    found: dict[str, list[Counter[str]]] = {name: [] for name in subjects}
    for turn in range(rounds + 1):  # the first is for warmth
        for name, one in subjects.items():
            assert one.process is not None
            before = ticks(one.process)
            sample = load(rig, one.port, asks[name], seconds, one.process, token=one.token)
            if sample.failures:
                raise BenchError(f"{name}: {sample.failures} of {sample.calls} answers wrong: {sample.why}")
            spent = ticks(one.process) - before
            if name == NGINX:
                spent = Counter({NGINX: spent.total()})
            if turn:
                found[name].append(Counter({key: count * TICK_US / sample.calls for key, count in spent.items()}))
    return found


def summary(found: dict[str, list[Counter[str]]]) -> list[dict[str, Any]]:
    """A line for each thread of each part: µs a call and its share of nginx's, medians; none where that is nothing."""
    beside = [row.total() for row in found[NGINX]]
    lines = [{"part": NGINX, "thread": "", "us": statistics.median(beside), "ratio": 1.0}]
    for part, rows in found.items():
        if part == NGINX:
            continue
        for name in sorted({name for row in rows for name in row}):
            us = statistics.median(row[name] for row in rows)
            ratio = statistics.median(row[name] / other for row, other in zip(rows, beside, strict=True))
            if ratio >= 0.005:
                lines.append({"part": part, "thread": LABELS.get(name, name), "us": us, "ratio": ratio})
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="of governed.PARTS, with commas between")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "threads.json")
    given = parser.parse_args()
    try:
        two_cores()
        need("wrk", "nginx")
        with Rig() as rig:
            found = measure(rig, tuple(given.parts.split(",")), given.rounds, given.seconds)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    results = {"kind": "threads", "facts": facts(), "rows": summary(found)}
    print(threads_table(results))
    write_results(results, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
