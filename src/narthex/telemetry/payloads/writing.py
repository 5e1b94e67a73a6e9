"""Payloads to their files: redacted, salted, perhaps sealed, on the thread of the journal, before the records of them.

In: what was relayed, and what is to be kept of it. Out: lines in `payloads-GROUP-STAMP-SLOT.jsonl` (0600), one file for
each group, which is how long its payloads stay; a `Note` for the record. What a failing disk has not taken is written
again, to the same place. A record reaches the disk only behind the payloads that it names.
Cases: `tests/telemetry/payloads/test_writing.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.telemetry.audit.segments import SUFFIX, day_of, sync_file, sync_folder, time_stamp
from narthex.telemetry.inputs import as_one_line
from narthex.telemetry.payloads.lines import FORM, PAYLOADS, SALT, Kept, Line, Note, Part, Seals, digest_of, written
from narthex.telemetry.payloads.redacting import Redactor, Unreadable

MOST = 256 * 1024
"""Bytes of a payload that is kept."""
MOST_BYTES = 256 * 1024 * 1024
"""Of a file; the next payload begins another."""
TOO_LARGE: Final = Note("none", reason="too_large")
UNREADABLE: Final = Note("none", reason="unreadable")
NO_ROOM: Final = Note("none", reason="no_room")
"""So many bytes wait for the disk that this one could not."""


_checked = msgspec.json.Decoder(msgspec.Raw).decode


class Owner(msgspec.Struct, frozen=True):
    """Whose call it was, and of which record."""

    record: str
    time: str
    tenant: str
    issuer: str
    subject: str
    client: str


class Payloads:
    """The writing end of one process.

    Args:
        folder: It exists.
        seals: Seals bodies; None: they are written as they are.
        random: So many bytes of chance. sync: brings a file to the disk.
    """

    def __init__(
        self,
        folder: Path,
        *,
        slot: int = 0,
        seals: Seals | None = None,
        redactor: Redactor | None = None,
        random: Callable[[int], bytes] = os.urandom,
        sync: Callable[[int], None] = sync_file,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.folder, self.seals, self.redactor = folder, seals, redactor or Redactor()
        self._slot, self._random, self._sync, self._most = slot, random, sync, most_bytes
        self._files: dict[str, _File] = {}

    def put(self, owner: Owner, part: Part, raw: bytes, kept: Kept, group: str, now: float) -> Note:
        """Keep one payload; it reaches the file with `flush`.

        Raises:
            OSError: There is no file to keep it in. Nothing was kept, and it may be given again.
        """
        if len(raw) > MOST:
            return TOO_LARGE
        marks: tuple[str, ...] = ()
        body = as_one_line(raw.strip(b" \t\r\n"))
        try:
            if body is None:
                return UNREADABLE
            if kept == "redacted":
                body, marks = self.redactor.applied(body, part)
            else:
                _checked(body)  # it becomes part of a line, and must not go on beyond its place
        except (Unreadable, *BAD_JSON):
            return UNREADABLE
        salt, file = self._random(SALT), self._file(group, now)
        line = Line(
            FORM, owner.record, part, owner.time, owner.tenant, owner.issuer, owner.subject, owner.client, group,
            salt.hex(), kept, marks,
        )  # fmt: skip
        at = file.add(written(line, body, self.seals))
        return Note(kept, digest_of(salt, body), len(body), marks, file.path.name, at)

    def flush(self) -> None:
        """Write what was put. Raises OSError: the rest is kept, and goes on with the next."""
        for file in self._files.values():
            file.flush()

    def commit(self) -> None:
        """Bring it to the disk. Raises OSError."""
        for file in self._files.values():
            file.commit(self._sync)

    def close(self) -> None:
        """Let go of the files; what could not be written is lost."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, group: str, now: float) -> _File:
        """The file of a group: a new one with each day, when one is full, or when somebody has moved it away."""
        file = self._files.get(group)
        if file is not None:
            if file.day == day_of(now) and file.end < self._most and file.is_there():
                return file
            file.commit(self._sync)
            file.close()
        file = self._files[group] = _File(self.folder, group, self._slot, now)
        return file


class _File:
    """One file that only grows."""

    def __init__(self, folder: Path, group: str, slot: int, now: float) -> None:
        at_ms = int(now * 1000)
        while True:
            self.path = folder / f"{PAYLOADS}{group}-{time_stamp(at_ms)}-{slot}{SUFFIX}"
            try:
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                break
            except FileExistsError:
                at_ms += 1
        sync_folder(folder)
        self.day = day_of(now)
        self._size = 0  # bytes that the file has
        self._left = bytearray()  # behind them, not in the file yet
        self._unsynced = bytearray()  # in the file, and perhaps not on the disk

    @property
    def end(self) -> int:
        """Where the next line will begin."""
        return self._size + len(self._left)

    def add(self, line: bytes) -> int:
        at = self.end
        self._left += line
        return at

    def flush(self) -> None:
        while self._left:
            count = os.pwrite(self._file, self._left, self._size)
            self._unsynced += self._left[:count]
            self._size += count
            del self._left[:count]

    def commit(self, sync: Callable[[int], None]) -> None:
        self.flush()
        if not self._unsynced:
            return
        try:
            sync(self._file)
        except OSError:  # whether its pages are still to be written nobody knows: they are written again
            self._left[:0] = self._unsynced
            self._size -= len(self._unsynced)
            self._unsynced.clear()
            raise
        self._unsynced.clear()

    def is_there(self) -> bool:
        try:
            found, ours = os.stat(self.path), os.fstat(self._file)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
