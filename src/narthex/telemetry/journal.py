"""Records to files: sealed and appended in batches by a thread of its own, so that no disk holds up a call.

In: entries, from the event loop. Out: lines of a chain in the segments of `DIR` (`audit/segments.py`), signed every
second. Who needs a record on the disk gives a callback with it: those that come while the disk is busy share the next
write (group commit). A disk that is full or gone is said at once and again when it is back; what does not fit into the
queue meanwhile is counted, and the count takes the place of the records in the chain.
Cases: `tests/telemetry/test_journal.py`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from narthex.errors import ConfigError
from narthex.telemetry.acts import ActEntry
from narthex.telemetry.alerts import AlertEntry
from narthex.telemetry.approvals import ApprovalEntry
from narthex.telemetry.audit.checkpoints import Signer
from narthex.telemetry.audit.elsewhere import Elsewhere
from narthex.telemetry.audit.heads import Heads
from narthex.telemetry.audit.segments import MOST_BYTES, SIGN_RECORDS, SIGN_S, Segments, sync_file
from narthex.telemetry.frames import Frames, Short, seal_all
from narthex.telemetry.payloads.entries import keep_payloads, no_room, notes_of_begin
from narthex.telemetry.record import Entry, line_of, line_of_lost
from narthex.telemetry.recounted import Recounted
from narthex.telemetry.stamps import Ids

if TYPE_CHECKING:
    from narthex.telemetry.payloads.writing import Payloads

CAPACITY = 32_768
"""Entries that may wait for the disk: some megabytes."""
MOST_KEPT = 64 * 1024 * 1024
"""Bytes of requests that may wait for the disk with their records; beyond, records are without their input."""
SLICE = 64
"""Records that are sealed without a look at whether the event loop waits: a third of a millisecond."""
FLUSH_S = 0.02
RETRY_S = 1.0
FULL = "the queue of records is full"
UNWRITABLE = "the record cannot be written down"
REFUSED = "calls%s that wait for the disk are refused, all others once {} records wait"
LOST = "calls%s go on, and records are lost once {} wait"
"""What becomes of calls while the disk takes no records; {}: so many find room."""
Step = ApprovalEntry | AlertEntry | ActEntry | Recounted
"""What is recorded beside calls."""
Done = Callable[[str], None]
"""Told that a record is on the disk, by an empty text, or why it is not."""
_log = logging.getLogger("narthex.journal")


class Journal:
    """The way out for all records of a process. `close` writes what is left.

    Args:
        folder: Made (0700) where it is missing.
        signer: Signs how far the chain has come.
        second: Another folder, for checkpoints; None: no other.
        heads: Keeps the chain's head beside the store; None: nobody does. It is closed with the journal.
        meanwhile: What becomes of calls that cannot be recorded, for the log.
        on_loop: Runs something on the event loop soon, from any thread.
        at_end: Runs something once, at the end of the event loop's turn; for a test also at once.
        now: Seconds since 1970. clock: seconds that never go back. random: so many bytes of chance.
        sync: brings a file to the disk.
    Raises:
        ConfigError: The folder, or the first file in it, cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        signer: Signer,
        *,
        second: Path | None = None,
        heads: Heads | None = None,
        meanwhile: str = "",
        on_loop: Callable[..., Any] | None = None,
        at_end: Callable[[Callable[[], None]], object] = lambda run: run(),
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
        sync: Callable[[int], None] = sync_file,
        capacity: int = CAPACITY,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.folder, self.second, self.meanwhile = folder, second, meanwhile
        self.written = 0
        self.lost = 0
        self.without_input = 0
        self.problem = ""
        """Why nothing can be written at present; empty while all is well."""
        self.silence = ""
        """The same of a disk that does not even say that it fails, as of the last `look`."""
        self._clock, self._busy_since = clock, 0.0
        self._now, self._capacity, self._on_loop, self._at_end = now, capacity, on_loop, at_end
        self._entries: deque[Short | Entry | Step] = deque()
        self.frames = Frames(random, self.add_short)
        """Where calls whose records are like others' find what these have in common."""
        self._ids = Ids(random)
        self._told = 0
        self._kept = self._let_go = 0  # bytes; the one is the loop's, the other the thread's
        self._waiting: list[Done] = []  # for what is written to be on the disk
        self._answers = False  # an answer is among what they wait for
        self._wake = threading.Event()
        self._woken = False  # cheaper to ask than the event
        self._rings = False  # at the end of this turn
        self._hurry = threading.Event()
        self._closing = threading.Event()
        self._elsewhere = Elsewhere(second) if second is not None else None
        self.payloads: Payloads | None = None
        """Where what calls say is kept; None: nowhere."""
        self._sync = sync
        self._segments = Segments(
            folder, signer, self._ids.next(now()), new_id=self._ids.next, sync=self._sync_both, most_bytes=most_bytes,
            elsewhere=self._elsewhere.put if self._elsewhere is not None else None, heads=heads,
        )  # fmt: skip
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._segments.open(now())
        except OSError as error:
            self._end_elsewhere(0.0)
            if heads is not None:
                heads.close()
            problem = f"audit.dir: {folder}: {error.strerror or error}"
            raise ConfigError([f"{problem}; make it writable for this user, or name another folder"]) from None
        self._thread = threading.Thread(target=self._write_all, name="narthex-journal", daemon=True)
        self._thread.start()

    @property
    def second_problem(self) -> str:
        """Why checkpoints do not reach their second place; empty while they do."""
        return self._elsewhere.problem if self._elsewhere is not None else ""

    @property
    def is_full(self) -> bool:
        """Is there no room for another record?"""
        return len(self._entries) >= self._capacity

    @property
    def waiting(self) -> int:
        """Records that wait for the disk."""
        return len(self._entries)

    def add_step(self, step: Step) -> None:
        """Queue the record of a step of a held call, or of a share of a limit. Never waits, never raises."""
        if self.is_full:
            self.lost += 1
            return
        step.at = self._now()
        self._put(step)

    def add(self, entry: Entry) -> None:
        """Queue one record. Never waits, never raises."""
        if len(self._entries) >= self._capacity:
            self.lost += 1
            if entry.done is not None:
                self._deliver([entry.done], FULL)
            return
        entry.at = self._now()
        if entry.call is not None or entry.keep is not None:
            if self._kept - self._let_go > MOST_KEPT:
                self.without_input += 1
                if entry.keep is not None:
                    entry.notes = no_room(entry.keep)
                entry.call = entry.keep = entry.arguments = entry.task = None
                entry.answer = ()
            else:
                entry.held = entry.bytes_in + (entry.bytes_out if entry.keep is not None else 0)
                self._kept += entry.held
        if entry.call is None and entry.check is not None and entry.event != "begin":
            entry.check.params = {}  # or they would wait for the disk
        self._put(entry)

    def add_short(self, short: Short) -> None:
        """Queue a record that has a frame. Never waits, never raises."""
        if len(self._entries) >= self._capacity:
            self.lost += 1
            if short.done is not None:
                self._deliver([short.done], FULL)
            return
        short.at = self._now()
        self._put(short)

    def _put(self, entry: Short | Entry | Step) -> None:
        is_waited_for = entry.done is not None  # as soon as it is queued it is the thread's
        self._entries.append(entry)
        if is_waited_for:
            if not self._rings:  # not now: the thread would want the interpreter from the calls that come with this one
                self._rings = True
                self._at_end(self._ring)
        elif not self._woken:
            self._woken = True
            self._wake.set()

    def _ring(self) -> None:
        """Somebody waits for what is queued."""
        self._rings = False
        self._hurry.set()
        self._wake.set()

    def look(self, patience_s: float) -> None:
        """Has the disk kept the thread for longer than that? Asked again and again on the event loop: nobody else would
        say it of a disk that hangs."""
        since = self._busy_since
        is_late = bool(since) and self._clock() - since > patience_s
        if is_late and not self.silence:
            self.silence = f"{self.folder}: the disk takes too long"
            self._say(self.silence)
        elif self.silence and not is_late:
            self.silence = ""
            _log.warning("the disk takes records of calls again")

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued and end the chain, waiting at most this long for a disk. Idempotent."""
        self._closing.set()
        self._hurry.set()
        self._wake.set()
        self._thread.join(timeout_s)
        self._end_elsewhere(timeout_s)

    def _end_elsewhere(self, timeout_s: float) -> None:
        if self._elsewhere is not None:
            self._elsewhere.close(timeout_s)

    # --- on the thread

    def _write_all(self) -> None:
        while True:
            self._wake.wait(SIGN_S if self._segments.unsigned else None)
            self._wake.clear()
            self._woken = False  # before it is looked what is there: what comes then wakes anew
            self._hurry.clear()
            done = self._write_queued()
            if self._closing.is_set() and (not done or not self._more):
                with suppress(OSError):
                    self._segments.close(self._now())
                if self.payloads is not None:
                    self.payloads.close()
                return
            if self._more:
                self._wake.set()
            self._hurry.wait(FLUSH_S if done else RETRY_S)  # many records share one wake-up of this thread

    def _sync_both(self, file: int) -> None:
        """No record is on the disk before the payloads that it names."""
        if self.payloads is not None:
            self.payloads.commit()
        self._sync(file)

    @property
    def _more(self) -> bool:
        return bool(self._entries) or self._segments.pending or self.lost != self._told

    def _write_queued(self) -> bool:
        """Append what is there. False where the disk did not take all of it: the rest is kept, and tried again."""
        segments = self._segments
        try:
            while True:
                self._busy_since = self._clock()
                if not segments.pending:
                    segments.turn(self._now())
                    self._seal()
                if self.payloads is not None:
                    self.payloads.flush()
                segments.flush()
                if self._waiting or segments.is_due(self._now()):
                    segments.commit(self._now(), answers=self._answers)
                    self._deliver(self._waiting, "")
                    self._waiting, self._answers = [], False
                if not self._more:
                    break
        except OSError as error:
            self._failed(f"{self.folder}: {error.strerror or error}")
            return False
        finally:
            self._busy_since = 0.0
        if self.problem:
            _log.warning("records of calls are written again; %d were lost in all", self.lost)
            self.problem = ""
        return True

    def _failed(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self._say(problem)
        queued = list(self._entries)
        waiting = self._waiting + [entry.done for entry in queued if entry.done is not None]
        for entry in queued:
            entry.done = None  # they are still written, once that is possible
        self._deliver(waiting, problem)
        self._waiting, self._answers = [], False

    def _say(self, problem: str) -> None:
        meanwhile = self.meanwhile.replace("{}", str(self._capacity))
        _log.error("records of calls cannot be written; %s: %s", meanwhile, problem)

    def _deliver(self, waiting: list[Done], problem: str) -> None:
        if waiting and self._on_loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._on_loop(_tell, waiting, problem)

    def _seal(self) -> None:
        """Take as many entries as one checkpoint may cover."""
        segments = self._segments
        if self.lost != self._told:
            count, self._told = self.lost - self._told, self.lost
            segments.add(line_of_lost(count, self._now(), self._ids.next(self._now())))
        left = min(len(self._entries), max(1, SIGN_RECORDS - segments.unsigned))
        while left > 0:
            entry = self._entries[0]
            if isinstance(entry, Short):
                left -= self._seal_shorts(min(left, SLICE))
                continue
            left -= 1
            id_ = self._ids.next(entry.at)
            if isinstance(entry, Entry):
                if entry.keep is not None and self.payloads is not None:
                    id_ = entry.id = entry.id or id_
                    keep_payloads(entry, entry.keep, self.payloads, self._now())  # of no disk: it is tried again
                entry.id = id_
                if isinstance(entry.begun, Entry) and entry.begun.notes is not None:
                    entry.notes = {**notes_of_begin(entry.begun), **(entry.notes or {})}
                self._let_go += entry.held
            self._entries.popleft()
            try:
                record = line_of(entry, id_) if isinstance(entry, Entry) else entry.line(id_)
            except Exception:  # text that is no Unicode, say: one record must not cost all that follow
                _log.exception("a record of a call cannot be written down")
                self.lost += 1
                if entry.done is not None:
                    self._deliver([entry.done], UNWRITABLE)
                continue
            self.written += 1
            entry.seq = segments.add(record)
            if entry.done is not None:
                self._waiting.append(entry.done)
                entry.done = None
                if not (isinstance(entry, Entry) and entry.event == "begin"):
                    self._answers = True

    def _seal_shorts(self, most: int) -> int:
        """Those at the front of the queue. Returns how many were taken out of it."""
        chain, lost = self._segments.chain, 0
        before = chain.seq
        waiting: list[Short] = []
        try:
            seal_all(self._entries, most, self._ids, chain, self._segments.lines, waiting)
        except Exception:  # nothing in them can be wrong; but this thread must not end, nor anybody wait for ever
            _log.exception("a record of a call cannot be written down")
            lost, one = 1, self._entries.popleft()
            if one.done is not None:
                self._deliver([one.done], UNWRITABLE)
        for one in waiting:
            if one.done is not None:
                self._waiting.append(one.done)
                one.done = None  # who has it holds this record: what is over is to go at once
            self._answers = self._answers or not one.begins
        self.written += chain.seq - before
        self.lost += lost
        return chain.seq - before + lost


def _tell(waiting: list[Done], problem: str) -> None:
    for done in waiting:
        done(problem)
