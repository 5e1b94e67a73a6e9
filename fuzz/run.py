"""Fuzz every parser of outside bytes, each in a process of its own, two at a time.

    python fuzz/run.py --seconds 20                # every target, 20 seconds each
    python fuzz/run.py --seconds 600 --target sse  # one
    python fuzz/run.py --list

Starts from `fuzz/corpus/<target>/`, which it never changes. Ends with 1 when an input broke a promise: that input is
kept in `fuzz/crashes/<target>/`, and `python -m fuzz.child <target> <file>` runs it again. Linux only (atheris).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PARALLEL = 2
LONGEST = {"sse": 300, "listener": 500, "upstream": 500}
"""Bytes of an input, where each is also fed byte by byte; else 2000."""
LIMITS = ("-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1")


def names() -> list[str]:
    """The targets: each has a folder of first inputs."""
    return sorted(folder.name for folder in (HERE / "corpus").iterdir() if folder.is_dir())


def fuzz(name: str, seconds: int, seed: int) -> bool:
    """Run one target; True when nothing broke. Says what happened, and where the input is that broke it."""
    crashes = HERE / "crashes" / name
    crashes.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as found:
        options = [
            *LIMITS,
            f"-max_len={LONGEST.get(name, 2000)}",
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-artifact_prefix={crashes}/",
        ]
        command = [sys.executable, "-m", "fuzz.child", name, found, str(HERE / "corpus" / name), *options]
        began = time.monotonic()
        env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, errors="replace", check=False)
    runs = next((line.split()[-1] for line in run.stderr.splitlines() if "number_of_executed_units" in line), "?")
    took = time.monotonic() - began
    if run.returncode == 0:
        if not any(crashes.iterdir()):
            crashes.rmdir()
        print(f"  {name:<14} ok      {runs:>9} inputs in {took:.0f} s", flush=True)
        return True
    kept = max(crashes.iterdir(), key=lambda path: path.stat().st_mtime, default=None)
    said = [line for line in (run.stdout + run.stderr).splitlines() if not line.startswith(("#", "INFO", "stat::"))]
    print(
        f"  {name:<14} BROKEN  after {took:.0f} s, seed {seed}; input: {kept}\n", *said[-40:], sep="\n    ", flush=True
    )
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the parsers of outside bytes.")
    parser.add_argument("--seconds", type=int, default=20, help="for each target (20)")
    parser.add_argument("--target", action="append", choices=names(), help="only this one; may be given again")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random changes; printed on a fault")
    parser.add_argument("--list", action="store_true", help="name the targets")
    options = parser.parse_args()
    if options.list:
        print(*names(), sep="\n")
        return 0
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed (it exists for Linux alone): nothing was fuzzed")
        return 0
    with ThreadPoolExecutor(PARALLEL) as pool:
        results = list(pool.map(lambda name: fuzz(name, options.seconds, options.seed), options.target or names()))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
