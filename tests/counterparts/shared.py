"""Programs that one test run starts once and all its workers share.

The first worker that wants a program starts it, under a file lock, and writes down its process; the others find it
there. It ends with the run (`until.py`), so nobody has to be the last. Starting does not wait: what takes long to come
up (Keycloak: half a minute) does so while other tests run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Shared:
    """One program of the run in `folder`.

    Args:
        folder: Common to all workers of the run; its log lies there.
        name: What its files there are called.
        ready: Found in its output once it serves; group 1 is the URL that it serves at.
        patience_s: How long it may take to say so. Generous: only a failure waits that long.
    """

    folder: Path
    name: str
    ready: re.Pattern[str]
    patience_s: float

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start it unless another worker has; do not wait until it serves."""
        pid_file = self.folder / f"{self.name}.pid"
        with locked(self.folder / f"{self.name}.lock"):
            if pid_file.exists():
                return
            with self.log.open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, str(HERE / "until.py"), str(owner()), *command],
                    env={**os.environ, **(env or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            pid_file.write_text(str(process.pid))

    def url(self) -> str:
        """Where it serves, once it does. AssertionError with the end of its log when it does not come up."""
        end = time.monotonic() + self.patience_s
        while not (found := self.ready.search(self.log.read_text(errors="replace"))):
            said = "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
            assert self._runs(), f"{self.name} ended:\n{said}"
            assert time.monotonic() < end, f"{self.name} is not up after {self.patience_s:g} s:\n{said}"
            time.sleep(0.1)
        return found[1]

    def stop(self) -> None:
        """End it before the run does."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.folder / f"{self.name}.pid").read_text()), signal.SIGTERM)

    def _runs(self) -> bool:
        pid = (self.folder / f"{self.name}.pid").read_text()
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False


def owner() -> int:
    """The process that the run ends with: pytest itself, for a worker its controller."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among all processes that name this file. The system takes the lock back from one that dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
