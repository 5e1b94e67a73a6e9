"""Run pytest; on CI what failed is run once more, by itself: `python tests/run.py PYTEST-ARGUMENTS…`.

A few of many thousand tests that failed beside all the others and pass alone are races: each is named, with what it
said, and the run passes. One that fails twice, more than `MOST` and anything but failing tests fail the run. Without
`CI=true` nothing is run again. See docs/decisions/run-once-more.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

MOST = 3
FAILED = 1
"""What pytest exits with where tests ran and some of them failed; all else is no test's fault."""
CACHE = Path(".cache/pytest")


def pytest(*arguments: str) -> int:
    return subprocess.call([sys.executable, "-m", "pytest", "-o", f"cache_dir={CACHE}", *arguments])


def failed() -> list[str]:
    """Which tests the last run names as failed; a file that could not be read as tests is named as the file."""
    try:
        return sorted(json.loads((CACHE / "v/cache/lastfailed").read_bytes()))
    except FileNotFoundError:
        return []


def main(*arguments: str) -> int:
    shutil.rmtree(CACHE, ignore_errors=True)
    code = pytest(*arguments)
    first = failed()
    if code != FAILED or os.environ.get("CI") != "true" or not 0 < len(first) <= MOST:
        return code
    print(f"==> failed: {len(first)}; run once more, alone", flush=True)
    code = pytest("-q", "-n", "0", "--last-failed", "--last-failed-no-failures", "none", *first)
    if code == 0:
        print("==> RACES, to be mended: failed beside the others and passed alone:", *first, sep="\n    ", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
