"""Records to files: appended in batches by a thread of its own, a file a day, so that no disk holds up a call.

In: entries, from the event loop. Out: lines in `DIR/calls-YYYYMMDD.jsonl` (0600, the day in UTC). A disk that is full
or gone is said at once and again when it is back; what does not fit into the queue meanwhile is counted, and the count
takes the place of the records in the file. A line that a crash cut off is closed, never continued.
Cases: `tests/telemetry/test_journal.py`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from narthex.errors import ConfigError
from narthex.telemetry.record import Entry, id_of, line_of, line_of_lost

CAPACITY = 32_768
"""Entries that may wait for the disk: some megabytes."""
MOST_KEPT = 64 * 1024 * 1024
"""Bytes of requests that may wait for the disk with their records; beyond, records are without their input."""
FLUSH_S = 0.02
RETRY_S = 1.0
_BATCH = 1024
_log = logging.getLogger("narthex.journal")


class Journal:
    """The way out for all records of a process. `close` writes what is left.

    Args:
        folder: Made (0700) where it is missing.
        now: Seconds since 1970. random: so many bytes of chance.
    Raises:
        ConfigError: The folder or today's file cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        now: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
        capacity: int = CAPACITY,
    ) -> None:
        self.folder = folder
        self.written = 0
        self.lost = 0
        self.without_input = 0
        self.problem = ""
        """Why nothing can be written at present; empty while all is well."""
        self._now, self._random, self._capacity = now, random, capacity
        self._entries: deque[Entry] = deque()
        self._at_ms = self._number = 0
        self._told = 0
        self._kept = self._let_go = 0  # bytes; the one is the loop's, the other the thread's
        self._left = b""  # of a batch whose beginning is in the file
        self._file = -1
        self._day = ""
        self._wake = threading.Event()
        self._closing = threading.Event()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open(now())
        except OSError as error:
            problem = f"audit.dir: {folder}: {error.strerror or error}"
            raise ConfigError([f"{problem}; make it writable for this user, or name another folder"]) from None
        self._thread = threading.Thread(target=self._write_all, name="narthex-journal", daemon=True)
        self._thread.start()

    def add(self, entry: Entry) -> None:
        """Queue one record. Never waits, never raises."""
        if len(self._entries) >= self._capacity:
            self.lost += 1
            return
        entry.at = self._now()
        if entry.call is not None:
            if self._kept - self._let_go > MOST_KEPT:
                entry.call = None
                self.without_input += 1
            else:
                self._kept += entry.bytes_in
        if entry.call is None and entry.check is not None:
            entry.check.params = {}  # or they would wait for the disk
        self._entries.append(entry)
        if not self._wake.is_set():
            self._wake.set()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued, waiting at most this long for a disk. Idempotent."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        if not self._thread.is_alive() and self._file >= 0:
            os.close(self._file)
            self._file = -1

    # --- on the thread

    def _write_all(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            done = self._write_queued()
            if self._closing.is_set() and (not done or not (self._entries or self._left)):
                return
            if self._entries or self._left or self.lost != self._told:
                self._wake.set()
            self._closing.wait(FLUSH_S if done else RETRY_S)  # many records share one wake-up of this thread

    def _write_queued(self) -> bool:
        """Append what is there. False where the disk did not take all of it: the rest is kept, and tried again."""
        try:
            self._turn(self._now())
            while self._left or self._entries or self.lost != self._told:
                if not self._left:
                    self._left = self._batch()
                while self._left:
                    self._left = self._left[os.write(self._file, self._left) :]
        except OSError as error:
            problem = f"{self.folder}: {error.strerror or error}"
            if problem != self.problem:
                self.problem = problem
                _log.error("records of calls cannot be written and will be lost when the queue is full: %s", problem)
            return False
        if self.problem:
            _log.warning("records of calls are written again; %d were lost in all", self.lost)
            self.problem = ""
        return True

    def _batch(self) -> bytes:
        lines = []
        if self.lost != self._told:
            count, self._told = self.lost - self._told, self.lost
            lines.append(line_of_lost(count, self._now(), self._id(self._now())))
        for _ in range(min(len(self._entries), _BATCH)):
            entry = self._entries.popleft()
            if entry.call is not None:
                self._let_go += entry.bytes_in
            try:
                lines.append(line_of(entry, self._id(entry.at)))
                self.written += 1
            except Exception:  # text that is no Unicode, say: one record must not cost all that follow
                _log.exception("a record of a call cannot be written down")
                self.lost += 1
        return b"".join(lines)

    def _id(self, at: float) -> str:
        """In the order of the lines, also where the clock goes back."""
        at_ms = int(at * 1000)
        if at_ms > self._at_ms:
            self._at_ms, self._number = at_ms, 0
        else:
            self._number += 1
            if self._number > 0xFFF:
                self._at_ms, self._number = self._at_ms + 1, 0
        return id_of(self._at_ms, self._number, self._random(8))

    def _turn(self, now: float) -> None:
        """Go on in today's file, also where somebody has moved it away."""
        if self._left:
            return  # its beginning is in the file that is open
        if self._day == _day(now):
            try:
                found, ours = os.stat(self._path(now)), os.fstat(self._file)
                if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino):
                    return
            except FileNotFoundError:
                pass
        self._open(now)

    def _open(self, now: float) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(self._path(now), flags, 0o600)
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            self._left = b"\n"  # a crash has cut its last line off
        if self._file >= 0:
            os.close(self._file)
        self._file, self._day = file, _day(now)

    def _path(self, now: float) -> Path:
        return self.folder / f"calls-{_day(now)}.jsonl"


def _day(now: float) -> str:
    return time.strftime("%Y%m%d", time.gmtime(now))
