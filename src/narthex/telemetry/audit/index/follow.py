"""Follows the segments of a journal and notes in the index where each record stands.

In: the folder, which another process goes on writing to. Out: rows, and with them in one transaction how far each
segment was read: whoever is stopped at any moment goes on there, and two that follow at once note nothing twice. Lines
that a crash has taken back are taken out again; segments that are gone are forgotten. Nothing is proved: that is
`verify`'s part. Does I/O. Cases: `tests/telemetry/audit/index/test_follow.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from hashlib import blake2b
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.telemetry.audit.chain import LONGEST, Broken, place
from narthex.telemetry.audit.headers import Header, read_header
from narthex.telemetry.audit.index.file import COLUMNS, TIES, USUAL
from narthex.telemetry.audit.index.place import Where, place_of
from narthex.telemetry.audit.matching import OWN, facts_of, marks_of, what_of
from narthex.telemetry.audit.verify import UNREADABLE, opened, segments_in

BATCH = 4 * 1024 * 1024
"""Bytes of lines that one transaction notes: some tenths of a second, in which nobody else can."""
NEAR_MS = 1000
"""A record whose id says another time than the record itself by more than this is found by a mark, others by time."""
LATEST_S = (1 << 52) // 1_000_000 - 86_400
"""Seconds since 1970: until 2112 a time, moved left, has room in 63 bits."""
MOST_TEXTS = 200_000
"""Numbers of texts that are remembered: some tens of megabytes."""
_NAMES = ("at", "segment", "start", "size", *COLUMNS)
_ROW = f"INSERT INTO records ({', '.join(_NAMES)}) VALUES ({', '.join('?' * len(_NAMES))})"
_USUAL = {(kind, text): id_ for id_, kind, text in USUAL}
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Follower:
    """Brings the index of one journal up to date, whenever it is asked to. Raises StoreError."""

    def __init__(self, folder: Path, where: Where) -> None:
        self.folder, self._place = folder, place_of(where)
        self.connection = self._place.open(folder)
        self._texts = dict(_USUAL)
        self._pruned = ""
        self._seconds: tuple[str, int] = ("", 0)

    @property
    def usable(self) -> bool:
        """Does its connection still lead there? If not, another one is due."""
        return self._place.usable(self.connection)

    def close(self) -> None:
        self.connection.close()

    def catch_up(self) -> int:
        """Note all that is not noted yet. Returns how many records that were."""
        with self._place.explained():
            if not self.folder.is_dir():
                return 0
            paths = segments_in(self.folder)
            known = dict(self.connection.execute("SELECT name, stamp FROM segments"))
            count = sum(self._read(path) for path in paths if known.get(path.name) != _stamp(path))
            self._forget({path.name for path in paths})
            return count

    # --- one segment

    def _read(self, path: Path) -> int:
        """Note the records of a segment behind those that are noted."""
        count = 0
        try:
            stamp = _stamp(path)
            with opened(path) as file:
                header = read_header(file.readline(LONGEST))
                if header is None:
                    return 0  # a crash before its first line was written, or none of ours
                while (found := self._note(header, path, file, stamp)) is not None:
                    count += found
        except (*UNREADABLE, FileNotFoundError):
            pass  # it is damaged from there on, or was moved away meanwhile: what could be read is noted
        return count

    def _note(self, header: Header, path: Path, file: BufferedIOBase, stamp: str) -> int | None:
        """One transaction. None: there is no whole line that is not noted."""
        first = header.previous.seq + 1 if header.event == "segment" and header.previous is not None else 1
        try:
            return self._noted((header.chain, first), path, file, stamp)
        except BaseException:
            self._texts = dict(_USUAL)  # what was not committed has no number
            raise

    def _noted(self, key: tuple[str, int], path: Path, file: BufferedIOBase, stamp: str) -> int | None:
        connection = self.connection
        with self._place.transaction(connection):
            self._look_at_texts()
            connection.execute(
                "INSERT INTO segments (chain, first, name, stamp, size, seq) VALUES (?, ?, ?, '', 0, ?)"
                " ON CONFLICT DO NOTHING",
                (*key, path.name, key[1] - 1),
            )
            segment, size, seq, since, until = connection.execute(
                "SELECT id, size, seq, since, until FROM segments WHERE chain = ? AND first = ?", key
            ).fetchone()
            if path.suffix != ".gz" and os.fstat(file.fileno()).st_size < size:
                size, seq = self._take_back(segment, since, until, file), key[1] - 1
            file.seek(size)
            lines = file.read(BATCH)
            if lines and b"\n" not in lines:
                lines += file.readline(LONGEST)
            lines = lines[: lines.rfind(b"\n") + 1]
            if not lines:
                connection.execute(
                    "UPDATE segments SET name = ?, stamp = ?, size = ?, seq = ? WHERE id = ?",
                    (path.name, stamp, size, seq, segment),
                )
                return None
            rows, marks, seq = self._rows(lines, segment, size, seq)
            connection.executemany(_ROW, rows)
            connection.executemany("INSERT INTO marks VALUES (?, ?) ON CONFLICT DO NOTHING", marks)
            keys = [row[0] for row in rows] + [one for one in (since, until) if one is not None]
            connection.execute(
                "UPDATE segments SET name = ?, size = ?, seq = ?, since = ?, until = ? WHERE id = ?",
                (path.name, size + len(lines), seq, min(keys, default=None), max(keys, default=None), segment),
            )
            return len(rows)

    def _rows(
        self, lines: bytes, segment: int, start: int, seq: int
    ) -> tuple[list[tuple[Any, ...]], list[tuple[int, int]], int]:
        """Rows and marks of whole lines, and the number of the last."""
        (latest,) = self.connection.execute("SELECT coalesce(max(at), 0) FROM records").fetchone()
        taken: set[int] = set()
        rows: list[tuple[Any, ...]] = []
        marks: list[tuple[int, int]] = []
        key = latest
        for text in lines.split(b"\n")[:-1]:
            line, size, record = text + b"\n", len(text) + 1, None
            with suppress(*BAD_JSON):
                record = _decode(line)
            with suppress(Broken):
                seq, _ = place(line)
            if record is not None and str(record.get("event")) not in OWN:
                micros = self._micros(record.get("time"))
                key = self._free(micros << TIES if micros else key + 1, latest, taken)
                taken.add(key)
                facts = facts_of(record)
                facts["target"] = what_of(record)
                numbers = [self._number(name, facts[name]) for name in COLUMNS]
                rows.append((key, segment, start, size, *numbers))
                marks += [(mark_of(name, text), key) for name, text in _marked(record, micros)]
            start += size
        return rows, marks, seq

    def _free(self, key: int, latest: int, taken: set[int]) -> int:
        """The next key that no record has. Behind the latest that is certain, and costs nothing."""
        while key in taken or (
            key <= latest and self.connection.execute("SELECT 1 FROM records WHERE at = ?", (key,)).fetchone()
        ):
            key += 1
        return key

    def _number(self, kind: str, text: str) -> int | None:
        """The number of a text; a new one where there is none."""
        if not text:
            return None
        number = self._texts.get((kind, text))
        if number is None:
            text_ = text.encode(errors="replace").decode()  # half a surrogate pair, which JSON may have
            insert = "INSERT INTO texts (kind, text) VALUES (?, ?) ON CONFLICT DO NOTHING"
            self.connection.execute(insert, (kind, text_))
            row = self.connection.execute("SELECT id FROM texts WHERE kind = ? AND text = ?", (kind, text_)).fetchone()
            if len(self._texts) >= MOST_TEXTS:
                self._texts.clear()
            number = self._texts[kind, text] = int(row[0])
        return number

    def _look_at_texts(self) -> None:
        """Texts that somebody has taken out have the numbers no more that we remember."""
        (pruned,) = self.connection.execute("SELECT value FROM about WHERE name = 'pruned'").fetchone()
        if pruned != self._pruned:
            self._pruned, self._texts = pruned, dict(_USUAL)

    def _micros(self, time: object) -> int:
        """Microseconds since 1970; 0 where it is no time, or none of this century. Many records are of one second."""
        text = time if isinstance(time, str) else ""
        second, fraction = text[:19], text[20:26]
        if second != self._seconds[0]:
            self._seconds = (second, seconds_of(second))
        at = self._seconds[1] if self._seconds[1] < LATEST_S else 0
        return at * 1_000_000 + int(fraction) if at and fraction.isascii() and fraction.isdigit() else at * 1_000_000

    # --- what is gone

    def _take_back(self, segment: int, since: int | None, until: int | None, file: BufferedIOBase) -> int:
        """A crash has taken back the end of a segment: take out what stood there. Returns where the file ends."""
        size = os.fstat(file.fileno()).st_size
        self._delete(segment, since, until, size)
        return _last_line_end(file, size)

    def _delete(self, segment: int, since: int | None, until: int | None, start: int = 0) -> None:
        if since is None:
            return
        chosen = "FROM records WHERE at BETWEEN ? AND ? AND segment = ? AND start + size > ?"
        values = (since, until, segment, start)
        self.connection.execute(f"DELETE FROM marks WHERE at IN (SELECT at {chosen})", values)
        self.connection.execute(f"DELETE {chosen}", values)

    def _forget(self, names: set[str]) -> None:
        """Segments that are there no more: retention has removed them, or somebody has."""
        rows = self.connection.execute("SELECT id, name, since, until FROM segments").fetchall()
        gone = [row for row in rows if row[1] not in names]
        for id_, _, since, until in gone:
            with self._place.transaction(self.connection):
                self._delete(id_, since, until)
                self.connection.execute("DELETE FROM segments WHERE id = ?", (id_,))
        if gone:
            self._forget_texts()

    def _forget_texts(self) -> None:
        """Names of people and of things that no record has any more."""
        with self._place.transaction(self.connection):
            self.connection.execute("UPDATE about SET value = CAST(value AS INTEGER) + 1 WHERE name = 'pruned'")
            for kind in ("subject", "client", "target", "definition"):
                self.connection.execute(
                    f"DELETE FROM texts WHERE kind = ? AND NOT EXISTS (SELECT 1 FROM records WHERE {kind} = texts.id)",
                    (kind,),
                )


def mark_of(name: str, text: str) -> int:
    """63 bits of what a mark says. Two that have the same are told apart by the records themselves."""
    digest = blake2b(f"{name}\0{text}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def seconds_of(second: str) -> int:
    """Seconds since 1970 of `2026-11-27T09:38:36`, UTC; 0 where it is no such time."""
    try:
        return max(0, int(datetime.fromisoformat(second + "+00:00").timestamp()))
    except (ValueError, OverflowError):
        return 0


def ms_of_id(text: str) -> int | None:
    """Milliseconds since 1970 that a UUIDv7 has in it; None where it is none."""
    digits = text.replace("-", "")
    if len(digits) != 32 or digits[12] != "7":
        return None
    try:
        return int(digits[:12], 16)
    except ValueError:
        return None


def _marked(record: dict[str, Any], micros: int) -> Iterator[tuple[str, str]]:
    """The marks of a record; its id only where the time does not lead there."""
    for name, text in marks_of(record):
        if name == "id":
            at = ms_of_id(text)
            if at is not None and abs(at - micros // 1000) < NEAR_MS:
                continue
        yield name, text


def _stamp(path: Path) -> str:
    """Changes with each change of a file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ""
    return f"{found.st_ino}/{found.st_size}/{found.st_mtime_ns}"


def _last_line_end(file: BufferedIOBase, size: int) -> int:
    """Where the last whole line within `size` bytes ends."""
    start = max(0, size - LONGEST)
    file.seek(start)
    return start + file.read(size - start).rfind(b"\n") + 1
