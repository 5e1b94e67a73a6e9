"""Run tests while every thread, timer and process stalls: `python tests/slow/run.py SEED JOBS FILES-AND-FOLDERS…`.

In processes of this environment's Python `stalls.py` does that from within, by a `.pth` file that is there as long as
this runs. All others, and those as well, are stopped and go on at random moments. Each test file is a run of its own,
`JOBS` of them at a time, so that one which fails does not end the rest. Exit 1 where a test failed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from tests.e2e.harness import descendants, processes  # noqa: E402

STOP_S, APART_S = (0.05, 0.5), (0.5, 2.0)
HOOK = (
    'import os, sys; "NARTHEX_TEST_SLOW" in os.environ and "slow" not in sys.modules and '
    f'(sys.modules.update(slow=sys), __import__("runpy").run_path({str(HERE / "stalls.py")!r}))\n'
)
"""A line of a `.pth` file, which Python may read twice."""


@contextlib.contextmanager
def hooked() -> Iterator[None]:
    """Every Python of this environment begins with `stalls.py`, where the variable is set."""
    file = Path(sysconfig.get_paths()["purelib"]) / f"narthex-slow-{os.getpid()}.pth"
    file.write_text(HOOK)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def stop_some(tests: subprocess.Popen[str], chance: random.Random) -> None:
    """Stop a random process below the tests for a moment, again and again until they end."""
    while tests.poll() is None:
        time.sleep(chance.uniform(*APART_S))
        states = processes()
        below = sorted(pid for pid, _ in descendants(tests.pid) if pid in states and states[pid][1] != "T")
        with contextlib.suppress(ProcessLookupError, IndexError):
            one = chance.choice(below)
            os.kill(one, signal.SIGSTOP)
            time.sleep(chance.uniform(*STOP_S))
            os.kill(one, signal.SIGCONT)


def passes(seed: str, file: Path) -> bool:
    """Run one file; its output comes in one piece."""
    env = {**os.environ, "NARTHEX_TEST_SLOW": seed, "NARTHEX_COMPILE": "0"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    began = time.monotonic()
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=ROOT, env=env, text=True, **pipes) as tests, ThreadPoolExecutor(1) as beside:
        beside.submit(stop_some, tests, random.Random(f"{seed} {file}"))
        said, _ = tests.communicate()
    print(f"--- {file}: exit {tests.returncode} after {time.monotonic() - began:.0f} s\n{said}", flush=True)
    return tests.returncode in (0, 5)  # 5: nothing in it runs here


def main(seed: str, jobs: str, *named: str) -> int:
    paths = map(Path, named)
    files = [file for one in paths for file in ([one] if one.is_file() else sorted(one.rglob("test_*.py")))]
    with hooked(), ThreadPoolExecutor(int(jobs)) as pool:
        found = dict(zip(files, pool.map(lambda file: passes(seed, file), files), strict=True))
    print("failed:", *[file for file, well in found.items() if not well])
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
