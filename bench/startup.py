"""How long from `narthex serve` to the first answered call, and what `import narthex` costs.

`python bench/startup.py [--repeats N] [--out FILE]`. The server behind is over HTTP and already up. The state folder is
new each time, as on a first start. Exit 1 where a target is missed; then the slowest imports are listed. Writes
`bench/results/startup.json`. Time on the wall, median of the repeats: a busy machine shows here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from load import wait_for
from report import RESULTS, facts_line, figures_table, write_results
from rig import MEASURED, BenchError, Rig, facts, two_cores
from subjects import SOURCE, gateway_command, gateway_config, many, upstream

MODULES = (("narthex", 150.0), ("narthex.cli.main", None), ("narthex.app", None))
TIMED = "import time; t = time.perf_counter(); import {0}; print(time.perf_counter() - t)"


def first_call_s(rig: Rig, upstream_port: int, turn: int) -> float:
    """Seconds from starting the process to its first answered `tools/call`."""
    config, port, _ = gateway_config(rig.folder / f"start-{turn}", many(upstream_port, 1, 10))
    began = time.perf_counter()
    started = rig.start(f"gateway-{turn}", gateway_command(config), MEASURED, env=SOURCE, cwd=config.parent)
    wait_for(port, "/mcp", "s0__echo", started)
    took = time.perf_counter() - began
    rig.stop(started)
    return took


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **SOURCE}, check=False
    )


def import_ms(module: str) -> float:
    done = python("-c", TIMED.format(module))
    if done.returncode:
        raise BenchError(f"import {module} failed:\n{done.stderr[-1500:]}")
    return float(done.stdout) * 1000


def slowest_imports(module: str, count: int = 15) -> str:
    """The costliest imports, own time first: lines of `-X importtime`."""
    lines = [line for line in python("-X", "importtime", "-c", f"import {module}").stderr.splitlines() if "|" in line][
        1:
    ]
    lines.sort(key=lambda line: -int(line.split(":")[1].split("|")[0]))
    return "\n".join(lines[:count])


def measure(rig: Rig, repeats: int) -> list[dict[str, Any]]:
    port = upstream(rig)
    starts = [first_call_s(rig, port, turn) for turn in range(repeats)]
    lines: list[dict[str, Any]] = [
        {
            "label": "start to first answered call",
            "value": statistics.median(starts),
            "target": 1.0,
            "unit": "s",
            "digits": 2,
        }
    ]
    for module, target in MODULES:
        line = {
            "label": f"`import {module}`",
            "value": statistics.median(import_ms(module) for _ in range(repeats)),
            "unit": "ms",
        }
        lines.append(line if target is None else line | {"target": target})
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json")
    given = parser.parse_args()
    try:
        two_cores()
        with Rig() as rig:
            lines = measure(rig, given.repeats)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    results = {"kind": "startup", "facts": facts(), "figures": lines}
    print(f"{facts_line(results)}\n\n{figures_table(results)}")
    write_results(results, given.out)
    short = any("target" in line and line["value"] > line["target"] for line in lines)
    if short:
        print(f"\nwhere the time goes (self | cumulative, µs):\n{slowest_imports('narthex.app')}")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
