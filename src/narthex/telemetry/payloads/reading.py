"""Payloads read back: of a record, as far as they are still there, and held against the digests that the chain has.

In: a record as it stands in the journal, the folder of the journal. Out: what was said. Who may read it is decided by
whoever asks. Cases: `tests/telemetry/payloads/test_writing.py`; fuzz target `payload`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from narthex.telemetry.audit.opening import UNREADABLE, files_of, opened
from narthex.telemetry.payloads.lines import PAYLOADS, BadLine, Line, Note, Seals, body_of, digest_of, read, whose

LONGEST = 16 * 1024 * 1024
"""Bytes of a line; a longer one is none."""
State = Literal["here", "erased", "missing", "changed", "sealed", "none"]
"""`sealed`: it does not open with the keys that are here. `none`: it was not kept, by the note's `reason`."""


class Payload(msgspec.Struct, frozen=True):
    """One payload of a record. `body` is JSON where `state` is `here`, else empty."""

    part: str
    state: State
    note: Note
    body: bytes = b""


def notes_of(record: dict[str, Any]) -> dict[str, Note]:
    """What a record says of its payloads, by part; what is no note is left out."""
    found: dict[str, Note] = {}
    said = record.get("payload")
    for part, note in said.items() if isinstance(said, dict) else ():
        try:
            found[str(part)] = msgspec.convert(note, Note)
        except msgspec.ValidationError:
            continue
    return found


class Reader:
    """Looks payloads up by their records.

    Args:
        seals: Opens what is sealed; None: it stays so.
    """

    def __init__(self, folder: Path, seals: Seals | None = None) -> None:
        self._folder, self._seals = folder, seals

    def of(self, record: dict[str, Any]) -> list[Payload]:
        """All payloads of a record. Raises OSError: a file cannot be read."""
        return [self._one(note.record or str(record.get("id")), part, note) for part, note in notes_of(record).items()]

    def _one(self, id_: str, part: str, note: Note) -> Payload:
        if note.kept == "none":
            return Payload(part, "none", note)
        line = self._line(id_, part, note)
        if line is None:
            return Payload(part, "missing", note)
        state, body = self.state_of(line, note)
        return Payload(part, state, note, body)

    def state_of(self, line: Line, note: Note) -> tuple[State, bytes]:
        """Is it what the chain says, and what does it say?"""
        if line.erased:
            return "erased", b""
        try:
            body = body_of(line, self._seals)
            salt = bytes.fromhex(line.salt)
        except ValueError:
            return "changed", b""
        except Exception:  # a key that is not here, or bytes that were changed: the seal tells
            return "sealed", b""
        if body is None:
            return "sealed", b""
        return ("here", body) if digest_of(salt, body) == note.digest else ("changed", b"")

    def _line(self, id_: str, part: str, note: Note) -> Line | None:
        """By the place that the record names; by its id, where the file was written anew since."""
        if not note.file.startswith(PAYLOADS) or "/" in note.file or note.at < 0:
            return None
        path = next((one for one in _forms(self._folder / note.file) if one.exists()), None)
        if path is None:
            return None
        data = self._data(path, note.at)
        if whose(data) != (id_, part):
            data = next((line for _, line in lines_in(path) if whose(line) == (id_, part)), b"")
        try:
            return read(data)
        except BadLine:
            return None

    def _data(self, path: Path, at: int) -> bytes:
        with opened(path) as file:
            try:
                file.seek(at)
                return file.readline(LONGEST)
            except UNREADABLE:
                return b""


def _forms(path: Path) -> tuple[Path, Path]:
    """A file, and the same compressed."""
    return path, path.with_name(path.name + ".gz")


def files_in(folder: Path) -> list[Path]:
    """The files of payloads in a folder, compressed or not, in order of their groups and times."""
    return files_of(folder, PAYLOADS)


def lines_in(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each line of a file with its place. What cannot be unpacked ends it."""
    at = 0
    with opened(path) as file:
        while True:
            try:
                line = file.readline(LONGEST)
            except UNREADABLE:
                return
            if not line:
                return
            yield at, line
            at += len(line)
