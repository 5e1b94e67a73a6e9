"""What a record costs a call, and how many a second wait for the disk and get their answer.

`python bench/durable.py [--rounds N] [--seconds S] [--disk DIR] [--out FILE]`. One gateway without a record, one whose
records are written a moment later, one whose calls wait for the disk twice; the same call by 64 connections, in turns.
The journals lie on the disk of DIR (the system's folder for temporary files). Needs wrk. CPU is of the gateway's
process, its journal's thread included. Writes `bench/results/durable.json`.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from journal import ENTRY
from load import Ask, Sample, load
from report import RESULTS, facts_line, figures_table, write_results
from rig import Rig, facts, need, two_cores
from subjects import Subject, gateway, http_servers, upstream

from narthex.telemetry.audit.checkpoints import load_signer, read_keys
from narthex.telemetry.audit.heads import Heads
from narthex.telemetry.audit.segments import Segments
from narthex.telemetry.audit.verify import verify
from narthex.telemetry.record import line_of

KINDS = ("none", "batched", "durable")


def settings(kind: str, disk: Path) -> dict[str, Any]:
    """What stands in the configuration beside the servers."""
    if kind == "none":
        return {}
    durable = {"durable": "none", "on_failure": "degrade"} if kind == "batched" else {"durable": "writes"}
    return {"audit": {"dir": str(disk / kind), **durable}}


def check(disk: Path, kind: str) -> int:
    """How many records a journal has. Raises SystemExit: it is not whole."""
    folder = disk / kind
    report = verify(folder, read_keys(folder.glob("audit-*.pub")))
    if report.faults:
        raise SystemExit(f"the journal of the {kind} gateway is not whole: {report.faults[:3]}")
    return report.records


def commits(disk: Path, count: int = 400) -> tuple[float, float]:
    """Microseconds of a group commit of 16 records, and of one that keeps the chain's head beside the store, too: in
    turns, the tenth part that went fastest, since whoever else uses the disk makes it slow and never fast."""
    taken: tuple[list[float], list[float]] = ([], [])
    ends = []
    for with_head in (False, True):
        folder = disk / f"commits-{with_head}" / "audit"
        folder.mkdir(parents=True)
        heads = Heads(folder.parent, folder) if with_head else None
        signer, ids = load_signer(folder.parent), itertools.count()
        ends.append(Segments(folder, signer, "b", new_id=lambda at, ids=ids: str(next(ids)), heads=heads))
        ends[-1].open(time.time())
    line = line_of(ENTRY, "01234567-0123-7000-8000-0123456789ab")
    for _ in range(count):
        for one, times in zip(ends, taken, strict=True):
            for _ in range(16):
                one.add(line)
            began = time.perf_counter()
            one.commit(time.time(), answers=True)
            times.append(time.perf_counter() - began)
    for one in ends:
        one.close(time.time())
    without, with_it = (statistics.mean(sorted(times)[: count // 10]) * 1e6 for times in taken)
    return without, with_it


def median(samples: list[Sample], what: str) -> float:
    return float(statistics.median(getattr(one, what) for one in samples))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, default=RESULTS / "durable.json")
    options = parser.parse_args()
    need("wrk")
    two_cores()
    samples: dict[str, list[Sample]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory(prefix="narthex-durable-", dir=options.disk) as name, Rig() as rig:
        disk = Path(name)
        servers = http_servers(upstream(rig), {"modern": "/modern/10/a"})
        ask = Ask("/mcp", names=("modern__echo",))
        subjects: dict[str, Subject] = {
            kind: gateway(rig, f"gateway-{kind}", servers, "modern__echo", **settings(kind, disk)) for kind in KINDS
        }
        for _ in range(options.rounds):
            for kind, one in subjects.items():
                samples[kind].append(load(rig, one.port, ask, options.seconds, one.process))
        for one in subjects.values():
            if one.process is not None:
                rig.stop(one.process)
        records = {kind: check(disk, kind) for kind in KINDS[1:]}
        without, with_it = commits(disk)
    batched = [
        with_it.cpu_us - without.cpu_us for with_it, without in zip(samples["batched"], samples["none"], strict=True)
    ]
    durable = samples["durable"]
    lines = [
        {"label": "a call without a record, of CPU", "value": median(samples["none"], "cpu_us"), "unit": "µs"},
        {"label": "a record written a moment later costs more", "value": statistics.median(batched), "unit": "µs"},
        {"label": "calls that wait for the disk twice", "value": median(durable, "per_s"), "unit": "a second",
         "digits": 0},
        {"label": "such a call, of CPU", "value": median(durable, "cpu_us"), "unit": "µs"},
        {"label": "half of them have their answer after", "value": median(durable, "p50_us") / 1000, "unit": "ms"},
        {"label": "all but one of a hundred after", "value": median(durable, "p99_us") / 1000, "unit": "ms"},
        {"label": "a group commit, where the disk is free", "value": without, "unit": "µs", "digits": 0},
        {"label": "one with its head beside the store", "value": with_it, "unit": "µs", "digits": 0},
        {"label": "calls that failed", "value": sum(one.failures for all_ in samples.values() for one in all_),
         "unit": "", "digits": 0},
        {"label": "records, all proved", "value": sum(records.values()), "unit": "", "digits": 0},
    ]  # fmt: skip
    results = {"kind": "durable", "facts": facts(), "figures": lines}
    print(f"{facts_line(results)}\n\n{figures_table(results)}")
    write_results(results, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
