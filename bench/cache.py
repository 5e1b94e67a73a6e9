"""What an answer from memory costs beside a call that goes to its server.

`python bench/cache.py [--rounds N] [--seconds S] [--out FILE]`. Three gateways: one without a cache, one whose cache
keeps what is called, one whose cache keeps something else; the same call by 64 connections, in turns. CPU is of the
gateway's process; the ratio is of each round's pair, the median of them. Needs wrk. Writes `bench/results/cache.json`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from load import Ask, Sample, load
from report import RESULTS, facts_line, figures_table, write_results
from rig import Rig, facts, need, two_cores
from subjects import gateway, http_servers, upstream

TARGET = 1 / 1.5
"""Of the CPU of a forwarded call: then a hit answers 1.5 times as many calls a CPU second (issue 7)."""
DISTINCT = 1000
"""Calls that differ, each with 400 bytes of arguments."""
RULES: dict[str, dict[str, Any]] = {
    "forwarded": {},
    "kept": {"cache": {"rules": [{"name": "echo", "tools": ["modern__echo"], "ttl": "1h"}]}},
    "beside": {"cache": {"rules": [{"name": "other", "tools": ["modern__other"], "ttl": "1h"}]}},
}


def median(samples: list[Sample], what: str) -> float:
    return float(statistics.median(getattr(one, what) for one in samples))


def ratio(samples: list[Sample], beside: list[Sample]) -> float:
    return statistics.median(one.cpu_us / other.cpu_us for one, other in zip(samples, beside, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "cache.json")
    options = parser.parse_args()
    need("wrk")
    two_cores()
    samples: dict[str, list[Sample]] = {kind: [] for kind in RULES}
    with Rig() as rig:
        servers = http_servers(upstream(rig), {"modern": "/modern/10/a"})
        ask = Ask("/mcp", names=("modern__echo",), distinct=DISTINCT)
        subjects = {kind: gateway(rig, kind, servers, "modern__echo", **more) for kind, more in RULES.items()}
        for _ in range(options.rounds):
            for kind, one in subjects.items():
                samples[kind].append(load(rig, one.port, ask, options.seconds, one.process))
        for one in subjects.values():
            if one.process is not None:
                rig.stop(one.process)
    hit = ratio(samples["kept"], samples["forwarded"])
    lines = [
        {"label": "a forwarded call, of CPU", "value": median(samples["forwarded"], "cpu_us"), "unit": "µs"},
        {"label": "an answer from memory, of CPU", "value": median(samples["kept"], "cpu_us"), "unit": "µs"},
        {"label": "of the CPU of a forwarded call that is", "value": hit, "unit": "×", "digits": 2, "target": TARGET},
        {"label": "so many times as many calls a CPU second", "value": 1 / hit, "unit": "×", "digits": 2},
        {"label": "answers from memory", "value": median(samples["kept"], "per_s"), "unit": "a second", "digits": 0},
        {"label": "half of them after", "value": median(samples["kept"], "p50_us") / 1000, "unit": "ms"},
        {"label": "a call that no rule of a cache is for, beside one without a cache",
         "value": ratio(samples["beside"], samples["forwarded"]), "unit": "×", "digits": 2},
        {"label": "calls that failed", "value": sum(one.failures for all_ in samples.values() for one in all_),
         "unit": "", "digits": 0},
    ]  # fmt: skip
    results = {"kind": "cache", "facts": facts(), "figures": lines}
    print(f"{facts_line(results)}\n\n{figures_table(results)}")
    write_results(results, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
