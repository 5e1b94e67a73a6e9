"""What importing a module adds to a bare interpreter, in CPU time and resident memory: `python bench/imports.py NAME…`.

The least of three fresh processes each. The figures of docs/decisions/store.md come from
`python bench/imports.py sqlite3 aiosqlite sqlalchemy.dialects.sqlite sqlalchemy.dialects.sqlite,alembic.command`
in an environment with those packages.
"""

from __future__ import annotations

import subprocess
import sys

MEASURED = """
import asyncio, importlib, json, os, ssl, sys, time
page = os.sysconf("SC_PAGE_SIZE")
rss = lambda: int(open("/proc/self/statm").read().split()[1]) * page
memory, began = rss(), time.process_time()
for name in sys.argv[1].split(","):
    importlib.import_module(name)
print(time.process_time() - began, rss() - memory)
"""


def measured(modules: str) -> tuple[float, float]:
    """Milliseconds and megabytes."""
    done = subprocess.run([sys.executable, "-c", MEASURED, modules], capture_output=True, text=True, check=True)
    seconds, size = map(float, done.stdout.split())
    return seconds * 1000, size / 1e6


def main(names: list[str]) -> int:
    if not names:
        print(__doc__)
        return 2
    for name in names:
        runs = [measured(name) for _ in range(3)]
        print(f"{name:<60} {min(run[0] for run in runs):6.0f} ms {min(run[1] for run in runs):6.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
