"""A second place for checkpoints: another disk, a mounted share. However slow it is, the journal does not wait for it.

In: checkpoints. Out: files of the same names in another folder. Each says how far the chain had come, so that where the
place is slow, only the latest that waits is written. Cases: `tests/telemetry/audit/test_elsewhere.py`.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

RETRY_S = 1.0
_log = logging.getLogger("narthex.journal")


class Elsewhere:
    """`problem` says why nothing can be written at present; empty while all is well."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problem = ""
        self._next: dict[str, bytes] = {}  # the latest of each file
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="narthex-checkpoints", daemon=True)
        self._thread.start()

    def put(self, name: str, line: bytes) -> None:
        """Take a checkpoint of the file `name`. Never waits, never raises."""
        with self._lock:
            self._next[name] = line
        self._wake.set()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, waiting at most this long for the place."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _write_all(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                batch, self._next = self._next, {}
            done = self._write(batch)
            if self._closing.is_set() and (not done or not self._next):
                return
            if not done:
                with self._lock:
                    self._next = {**batch, **self._next}
                self._wake.set()
                self._closing.wait(RETRY_S)

    def _write(self, batch: dict[str, bytes]) -> bool:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, line in batch.items():
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                file = os.open(self.folder / name, flags, 0o600)
                try:
                    size = os.fstat(file).st_size
                    cut = size and os.pread(file, 1, size - 1) != b"\n"  # what a full disk has left of another one
                    os.write(file, b"\n" + line if cut else line)
                    os.fsync(file)
                finally:
                    os.close(file)
        except OSError as error:
            problem = f"{self.folder}: {error.strerror or error}"
            if problem != self.problem:
                self.problem = problem
                _log.error("checkpoints cannot be written to their second place: %s", problem)
            return False
        if self.problem:
            self.problem = ""
            _log.warning("checkpoints are written to their second place again")
        return True
