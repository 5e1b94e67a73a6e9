"""The files of the journal: segments that only grow, each the continuation of a chain, and beside each its checkpoints.

In: records as JSON, from one thread. Out: `calls-STAMP-SLOT.jsonl` and `checkpoints-STAMP-SLOT.jsonl` (0600), STAMP the
moment (UTC) at which a segment was begun. A chain opens with the head of the one before it. What a failing disk has not
taken is written again, to the same place. Cases: `tests/telemetry/audit/test_segments.py`.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from narthex import __version__
from narthex.telemetry.audit.chain import LONGEST, Broken, Chain, place
from narthex.telemetry.audit.checkpoints import Head, Signer
from narthex.telemetry.audit.headers import Header, read_header
from narthex.telemetry.audit.opening import UNREADABLE, files_of, opened
from narthex.telemetry.record import FORM
from narthex.telemetry.stamps import stamp

if TYPE_CHECKING:
    from narthex.telemetry.audit.heads import Heads

SEGMENT = "calls-"
CHECKPOINTS = "checkpoints-"
SUFFIX = ".jsonl"
BY_HAND = "cli"
"""The slot of what is done at the terminal."""
MOST_BYTES = 256 * 1024 * 1024
"""Of a segment; the next record begins another."""
SIGN_RECORDS = 1_000
SIGN_S = 1.0
"""The most that is written, and whose signature is not on the disk yet."""
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("narthex.journal")

sync_file: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class Segments:
    """The writing end of one chain.

    Args:
        folder: It exists.
        signer: Signs checkpoints; `instance` is its id.
        boot: What this run of the process is called: in order of time.
        new_id: An id for a record, from seconds since 1970.
        sync: Brings a file's bytes to the disk.
        elsewhere: Takes each checkpoint, too; never waits, never raises.
        heads: Keeps the head of what somebody waits for; None: there is a checkpoint of it.
    """

    def __init__(
        self,
        folder: Path,
        signer: Signer,
        boot: str,
        *,
        new_id: Callable[[float], str],
        slot: int | str = 0,
        sync: Callable[[int], None] = sync_file,
        elsewhere: Callable[[str, bytes], None] | None = None,
        heads: Heads | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.folder, self._signer, self._slot = folder, signer, slot
        self._new_id, self._sync, self._elsewhere, self._most = new_id, sync, elsewhere, most_bytes
        self._heads = heads
        self._headless = False  # the last head did not get to its place
        self.chain = Chain(f"{signer.id}/{slot}/{boot}")
        self.size = 0
        """Bytes of this segment that the file has."""
        self.synced = 0
        """Bytes of it that are on the disk."""
        self._sealed: list[bytes] = []
        self._left = b""  # sealed before, and not in the file yet
        self._unsynced: list[bytes] = []  # in the file, and perhaps not on the disk
        self._file = self._points = -1
        self._path = Path()
        self._day = ""
        self._signed = 0  # number of the last record that a checkpoint names
        self._sure, self._sure_at = 0, 0.0  # the same of checkpoints that are on the disk, and since when
        self._points_size = self._points_sure = 0
        self._points_cut = False  # is there something behind that which was not to be?

    # --- what the journal does

    def open(self, now: float) -> None:
        """Begin the chain. What was found beside the store and not in the folder is named by it. Raises OSError."""
        publish(self.folder / f"audit-{self._signer.id}.pub", self._signer.pem())
        before, torn = predecessor(self.folder, self._slot, self._sync)
        held = [one for one in self._heads.found if not _covers(before, one)] if self._heads is not None else []
        for one in held:
            self._say_missing(one, before)
        self._begin(now, self._header(now, "open", before, torn or None, tuple(held)))
        self._sure_at = now
        self.flush()

    def turn(self, now: float) -> None:
        """Go on in another segment where it is time: another day, this one is full, or somebody has moved it away."""
        if self.pending:
            return  # its beginning is in the file that is open
        if self._day == day_of(now) and self.size < self._most and self._is_there():
            return
        self.commit(now, last=True)
        before = Head(self.chain.name, self.chain.seq, self.chain.head.hex())
        self._begin(now, self._header(now, "segment", before))

    def add(self, record: bytes) -> int:
        """Seal a record. It reaches the file with `flush`. Returns its number."""
        self._sealed.append(self.chain.seal(record))
        return self.chain.seq

    @property
    def lines(self) -> list[bytes]:
        """What the chain has sealed and the file does not have; whoever seals lines itself puts them here."""
        return self._sealed

    @property
    def pending(self) -> bool:
        """Is there something that was sealed and is not in the file?"""
        return bool(self._sealed or self._left)

    @property
    def unsigned(self) -> int:
        """Records that no checkpoint covers which is on the disk."""
        return self.chain.seq - self._sure

    def flush(self) -> None:
        """Write what was sealed. Raises OSError: the rest is kept, and goes on with the next."""
        self._left += b"".join(self._sealed)
        self._sealed.clear()
        while self._left:
            count = os.pwrite(self._file, self._left, self.size)
            self._unsynced.append(self._left[:count])  # mostly all of it, and then nothing is copied
            self.size += count
            self._left = self._left[count:]

    def is_due(self, now: float) -> bool:
        """Is it time for a checkpoint?"""
        return (
            self._headless
            or self.unsigned >= SIGN_RECORDS
            or (self.unsigned > 0 and not 0 <= now - self._sure_at < SIGN_S)
        )

    def commit(self, now: float, *, answers: bool = False, last: bool = False) -> None:
        """Bring what was written to the disk, and sign that it is there; the signature, too, where that is due. Raises
        OSError.

        Args:
            answers: Somebody waits for it who has an answer then: the head is on the disk, too.
            last: Nothing more comes into this segment: its signature is due.
        """
        self.flush()
        if self._unsynced:
            try:
                self._sync(self._file)
            except OSError:  # whether its pages are still to be written nobody knows: they are written again
                unsynced = b"".join(self._unsynced)
                self._left = unsynced + self._left
                self.size -= len(unsynced)
                self._unsynced.clear()
                raise
            self.synced = self.size
            self._unsynced.clear()
        due, heads = self.unsigned > 0 and (last or self.is_due(now)), self._heads
        point = self._signed < self.chain.seq and (due or heads is None)
        if point or (heads is not None and (answers or self._headless)):
            line = self._signer.line(self.chain, stamp(now))
            if heads is not None:
                self._headless = True
                heads.put(line, through=answers)
                self._headless = False
                heads.forget()
            if point:
                self._append(line)
                self._signed = self.chain.seq
                if self._elsewhere is not None:
                    self._elsewhere(self._name(CHECKPOINTS), line)
        if due:
            try:
                self._sync(self._points)
            except OSError:
                self._signed, self._points_size, self._points_cut = self._sure, self._points_sure, True
                raise
            self._sure, self._sure_at, self._points_sure = self._signed, now, self._points_size

    def _append(self, line: bytes) -> None:
        """A checkpoint, whole or not at all: half of one would be a line that nobody has signed."""
        if self._points_cut:
            os.ftruncate(self._points, self._points_size)
        self._points_cut = True
        if os.pwrite(self._points, line, self._points_size) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._points_cut = False
        self._points_size += len(line)

    def close(self, now: float) -> None:
        """End the chain. Raises OSError."""
        if self._file < 0:
            return
        try:
            self.commit(now, last=True)  # so that the end alone may be without a signature, where this is broken off
            self.add(_encode(Event(FORM, self._new_id(now), stamp(now), "close")))
            self.commit(now, answers=self._heads is not None, last=True)
        finally:
            self._let_go()
            if self._heads is not None:
                self._heads.close()

    # --- files

    def _header(
        self,
        now: float,
        event: Literal["open", "segment"],
        before: Head | None,
        torn: int | None = None,
        held: tuple[Head, ...] = (),
    ) -> Header:
        name, key = self.chain.name, self._signer.id
        return Header(FORM, self._new_id(now), stamp(now), event, name, key, __version__, before, torn, held)

    def _say_missing(self, head: Head, before: Head | None) -> None:
        """Does the folder end before a head that was kept?"""
        if before is not None and before.chain == head.chain:
            what = f"records {before.seq + 1} to {head.seq} of the chain {head.chain} are"
        elif any(one.chain == head.chain for one in _headers(self.folder)):
            return  # a gateway beside the one before us
        else:
            what = f"the chain {head.chain}, of {head.seq} records, is"
        _log.error("the journal in %s was cut: %s missing", self.folder, what)

    def _let_go(self) -> None:
        for file in (self._file, self._points):
            if file >= 0:
                os.close(file)
        self._file = self._points = -1

    def _begin(self, now: float, header: Header) -> None:
        file, points, path = self._make(now)
        self._let_go()
        self._file, self._points, self._path, self._day = file, points, path, day_of(now)
        self.size = self.synced = 0
        self._points_size = self._points_sure = os.fstat(points).st_size
        self.add(_encode(header))

    def _make(self, now: float) -> tuple[int, int, Path]:
        """A new segment, and the file of its checkpoints."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        at_ms = int(now * 1000)
        while True:
            path = self.folder / f"{SEGMENT}{time_stamp(at_ms)}-{self._slot}{SUFFIX}"
            try:
                file = os.open(path, flags | os.O_EXCL, 0o600)
                break
            except FileExistsError:
                at_ms += 1
        points = -1
        try:
            points = os.open(path.with_name(CHECKPOINTS + path.name.removeprefix(SEGMENT)), flags, 0o600)
            sync_folder(self.folder)
        except OSError:
            for one in (file, points):
                if one >= 0:
                    os.close(one)
            path.unlink(missing_ok=True)
            raise
        return file, points, path

    def _is_there(self) -> bool:
        try:
            found, ours = os.stat(self._path), os.fstat(self._file)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def _name(self, start: str) -> str:
        return start + self._path.name.removeprefix(SEGMENT)


class Event(msgspec.Struct, omit_defaults=True):
    """A record of the journal's own."""

    v: int
    id: str
    time: str
    event: str


def _covers(before: Head | None, head: Head) -> bool:
    """Does the one say that the other was there?"""
    return before is not None and before.chain == head.chain and before.seq >= head.seq


def _headers(folder: Path) -> Iterator[Header]:
    for path in files_of(folder, SEGMENT):
        with suppress(*UNREADABLE), opened(path) as file:
            if (header := read_header(file.readline(LONGEST))) is not None:
                yield header


def predecessor(folder: Path, slot: int | str, sync: Callable[[int], None] = sync_file) -> tuple[Head | None, int]:
    """The last whole line of the newest segment of a slot, and how many bytes of another one a crash has left there.

    They are brought to the disk: a process that was killed may have left what the machine could still lose, and what
    is named here must not go missing.
    """
    for path in sorted(folder.glob(f"{SEGMENT}*-{slot}{SUFFIX}"), reverse=True):
        with path.open("rb") as file:
            header = read_header(file.readline(LONGEST))
            if header is None:
                continue  # a crash before its first line was written, or none of ours: `verify` says which
            sync(file.fileno())
            file.seek(max(0, path.stat().st_size - LONGEST))
            whole, _, torn = file.read().rpartition(b"\n")
        try:
            seq, head = place(whole[whole.rfind(b"\n") + 1 :] + b"\n")
        except Broken:
            continue
        return Head(header.chain, seq, head.hex()), len(torn)
    return None, 0


def publish(path: Path, data: bytes) -> None:
    """A small file that everybody may read: this, or what was there before. Raises OSError."""
    with suppress(FileNotFoundError):
        if path.read_bytes() == data:
            return
    ours = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with ours.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        ours.replace(path)
    except BaseException:
        ours.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """The name of a new file is on the disk only when its folder is."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def day_of(now: float) -> str:
    return time.strftime("%Y%m%d", time.gmtime(now))


def time_stamp(at_ms: int) -> str:
    """A moment as names of files have it: UTC, milliseconds."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(at_ms // 1000)) + f"{at_ms % 1000:03d}"
