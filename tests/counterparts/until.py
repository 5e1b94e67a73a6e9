"""Run a program until another process is gone: `python until.py PID COMMAND…`.

A program that serves a whole test run must end with it, even where the run is killed. So this waits for whichever ends
first, the program or process PID, and then ends the program with everything that it started. On SIGTERM too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time


def main() -> int:
    owner, command = int(sys.argv[1]), sys.argv[2:]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while process.poll() is None and lives(owner):
            time.sleep(0.2)
        return process.poll() or 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def lives(pid: int) -> bool:
    """Is there such a process?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
