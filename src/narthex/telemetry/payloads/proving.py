"""Are the payloads that records name there, as they were, or gone by right? A part of `narthex audit verify`.

In: lines of a journal that is proved, the files of payloads. Out: counts, and the faults: what was changed, what is
missing and neither erased nor removed by a record. A folder without any payloads proves nothing of them, and says so.
Cases: `tests/cli/test_audit_kept.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.telemetry.audit.opening import UNREADABLE, opened
from narthex.telemetry.payloads.lines import PAYLOADS, Note, Seals
from narthex.telemetry.payloads.reading import LONGEST, Reader, files_in

NOTES = b'"payload":{'
ERASE = b'"event":"erase"'
"""With `RETENTION`, what stands in lines that say why a payload is gone."""
MOST_PENDING = 1_000_000


class Proved(msgspec.Struct):
    """How many payloads were found as the chain has them; are erased; were removed by their age; do not open with the
    keys that are here; are not in the folder, where it has none at all; were lost by a crash, with or without their
    records, before anybody had signed these."""

    here: int = 0
    erased: int = 0
    removed: int = 0
    sealed: int = 0
    elsewhere: int = 0
    lost: int = 0
    unfinished: int = 0
    """Were to be erased, as a record says, and are still there: `narthex audit erase` was broken off."""


class _Gone(msgspec.Struct):
    """One that is not there. `counts`: the record is the one that it was kept with; that of a call's end names those
    of its beginning once more."""

    record: str
    part: str
    group: str
    time: str
    file: str
    line: int
    is_erased: bool
    counts: bool


class _Said(msgspec.Struct):
    event: str = ""
    records: tuple[str, ...] = ()
    payloads_until: dict[str, str] = {}


_said = msgspec.json.Decoder(_Said).decode


class PayloadProof:
    """Takes the lines of a journal in their order."""

    def __init__(self, folder: Path, seals: Seals | None) -> None:
        self.proved = Proved()
        self.beyond = 0
        """How many more are gone than can be held against records of that."""
        self._has_any = bool(files_in(folder))
        self._reader = _Handles(folder, seals)
        self._gone: list[_Gone] = []
        self._behind: list[_Gone] = []  # the same of records that no checkpoint covers yet
        self._here: set[str] = set()
        self._erased: set[str] = set()
        self._until: dict[str, str] = {}

    def take(self, data: bytes, file: str, number: int) -> str:
        """Look at a line that has the mark `NOTES`. Returns what is wrong with its payloads; empty: nothing."""
        try:
            record: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        except BAD_JSON:
            return ""
        changed = " and ".join(self._states(record, file, number))
        return f"its {changed} in the files of payloads are not what it was recorded with" if changed else ""

    def notice(self, data: bytes) -> None:
        """A proved and signed record says that something was erased, or removed."""
        try:
            said = _said(data)
        except BAD_JSON:
            return
        if said.event == "erase":
            self._erased.update(said.records)
        elif said.event == "retention":
            for group, until in said.payloads_until.items():
                self._until[group] = max(until, self._until.get(group, ""))

    def signed(self) -> None:
        """A checkpoint covers all lines so far: it was made when their payloads were on the disk."""
        self._gone += self._behind
        self._behind.clear()

    def ends(self) -> None:
        """A chain has ended. What came behind its last checkpoint may have reached the disk without its payloads."""
        self._gone += [one for one in self._behind if one.is_erased]
        self.proved.lost += sum(one.counts and not one.is_erased for one in self._behind)
        self._behind.clear()

    def _states(self, record: dict[str, Any], file: str, number: int) -> Iterator[str]:
        id_, time, proved = str(record.get("id")), str(record.get("time")), self.proved
        for one in self._reader.of(record):
            note = one.note
            if one.state == "changed":
                yield one.part
            elif one.state == "here":
                proved.here += not note.record
                self._here.add(note.record or id_)
            elif one.state == "sealed":
                proved.sealed += not note.record
            elif one.state in ("erased", "missing") and len(self._gone) + len(self._behind) >= MOST_PENDING:
                self.beyond += 1
            elif one.state in ("erased", "missing"):
                is_erased = one.state == "erased"
                group = _group(note)
                self._behind.append(
                    _Gone(note.record or id_, one.part, group, time, file, number, is_erased, not note.record)
                )

    def faults(self) -> Iterator[tuple[str, int, str]]:
        """File, line and text of each that is gone and should not be. Asked once, at the end."""
        proved = self.proved
        proved.unfinished = len(self._here & self._erased)
        for one in self._gone:
            if one.record in self._erased:
                proved.erased += one.counts
            elif not one.is_erased and one.time < self._until.get(one.group, ""):
                proved.removed += one.counts
            elif not self._has_any:
                proved.elsewhere += one.counts
            elif one.is_erased:
                yield one.file, one.line, f"erased, and no record says by whom: {one.part} of record {one.record}"
            else:
                yield one.file, one.line, f"missing in the files of payloads: {one.part} of record {one.record}"
        self._reader.close()


def _group(note: Note) -> str:
    return note.file.removeprefix(PAYLOADS).partition("-")[0]


class _Handles(Reader):
    """A reader that keeps the file open that it has read last: notes name places in their order."""

    def __init__(self, folder: Path, seals: Seals | None) -> None:
        super().__init__(folder, seals)
        self._open: dict[Path, BufferedIOBase] = {}

    def _data(self, path: Path, at: int) -> bytes:
        file = self._open.get(path)
        if file is None:
            if len(self._open) >= 16:
                self.close()
            file = self._open[path] = opened(path)
        try:
            file.seek(at)
            return file.readline(LONGEST)
        except UNREADABLE:
            return b""

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
