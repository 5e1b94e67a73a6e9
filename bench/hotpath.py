"""Where a call's time goes in a running gateway: samples of its Python lines, and of the machine code under them.

`python bench/hotpath.py [--tool modern__echo] [--era modern|legacy] [--seconds S] [--lines N]`. Drives the gateway of
the benchmark with wrk. Three tables: CPU by part (kernel, interpreter, parser …) by `perf`, where the machine has it;
the gateway's functions by their own time; its lines. Says where to look, not how fast it is: sampling slows it down.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from load import Ask, load, open_session, wait_for
from report import table
from rig import BENCH, MEASURED, ROOT, BenchError, Rig, Started, need, two_cores
from subjects import SOURCE, gateway_config, merged, upstream

Stack = list[tuple[str, int, str]]


def short(path: str) -> str:
    for start in (ROOT / "src" / "narthex", ROOT):
        if path.startswith(str(start)):
            return str(Path(path).relative_to(start))
    return "/".join(Path(path).parts[-2:])


def shares(counts: Counter[str], most: int, what: str) -> str:
    total = max(1, sum(counts.values()))
    return table((what, "share"), [[name, f"{count / total:.1%}"] for name, count in counts.most_common(most)])


def python_tables(samples: list[tuple[Stack, int]], lines: int) -> str:
    """Own time of functions and of lines, of all samples that lie in the gateway's event loop."""
    functions, places = Counter[str](), Counter[str]()
    for stack, count in samples:
        file, line, function = stack[-1]
        functions[f"{short(file)} {function}"] += count
        places[f"{short(file)}:{line} {function}"] += count
    return f"{shares(functions, lines, 'function, own time')}\n\n{shares(places, lines, 'line')}"


def perf_table(data: Path) -> str:
    """CPU by shared object, as perf saw it: the kernel, the interpreter, llhttp, msgspec, uvloop."""
    command = ["perf", "report", "-i", str(data), "--no-children", "-g", "none", "--sort", "dso", "--stdio", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [line.split(None, 1) for line in done.stdout.splitlines() if "%" in line]
    return table(("part of the process", "share"), [[row[1].strip(), row[0]] for row in rows if len(row) == 2][:12])


def profile(rig: Rig, ask: Ask, seconds: float) -> tuple[list[tuple[Stack, int]], Path | None]:
    """Run the load against a sampled gateway; the samples, and perf's file."""
    port_up = upstream(rig)
    config, port, _ = gateway_config(rig.folder / "gateway", merged(port_up))
    out, data = rig.folder / "samples.json", rig.folder / "perf.data"
    command = [sys.executable, str(BENCH / "sampled.py"), str(out), "serve", str(config)]
    started = rig.start("gateway", command, MEASURED, env=SOURCE, cwd=config.parent)
    wait_for(port, "/mcp", "modern__echo", started)
    sessions = tuple(open_session(port, ask.path) for _ in range(64)) if ask.era == "legacy" else ()
    load(rig, port, ask, 1, started, sessions)
    perf: Started | None = None
    if shutil.which("perf"):
        perf = rig.start("perf", ["perf", "record", "-F", "999", "-o", str(data), "-p", str(started.pid)], MEASURED)
        time.sleep(0.3)
    sample = load(rig, port, ask, seconds, started, sessions)
    print(f"{sample.calls} calls, {sample.cpu_us:.1f} µs each with the samplers in it, {sample.failures} failures\n")
    if perf is not None:
        perf.process.send_signal(2)
        perf.process.wait(10)
    rig.stop(started)
    if not out.exists():
        raise BenchError("the gateway left no samples; it did not end properly")
    return [([tuple(place) for place in stack], count) for stack, count in json.loads(out.read_text())], (
        data if perf is not None and data.exists() else None
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", default="modern__echo")
    parser.add_argument("--expect", default="echo", choices=("echo", "progress", "big"))
    parser.add_argument("--era", default="modern", choices=("modern", "legacy"))
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--lines", type=int, default=30)
    given = parser.parse_args()
    try:
        two_cores()
        need("wrk")
        with Rig() as rig:
            ask = Ask("/mcp", era=given.era, names=(given.tool,), expect=given.expect)
            samples, data = profile(rig, ask, given.seconds)
            if data is not None:
                print(perf_table(data) + "\n")
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(python_tables(samples, given.lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
