"""Finds records by the index, newest first, a page at a time; and counts them.

In: a `Wanted`, where the page before ended. Out: records, read from their segments, each held against what was asked:
the index says where to look, the record says what it is. A page looks at a bounded number of places, and says where to
go on. Does I/O. Cases: `tests/telemetry/audit/index/test_find.py`; a property holds it against reading every line.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.flow.route.patterns import compile_globs
from narthex.store.database import Connection
from narthex.telemetry.audit.index.file import INDEXED, PARTIAL, TIES, USUAL
from narthex.telemetry.audit.index.follow import mark_of, ms_of_id, seconds_of
from narthex.telemetry.audit.index.place import Where, place_of
from narthex.telemetry.audit.matching import COLUMNS, MARKS, Matcher, Record, Wanted
from narthex.telemetry.audit.segments import SEGMENT
from narthex.telemetry.audit.verify import UNREADABLE, opened
from narthex.telemetry.stamps import stamp

MOST_LOOKED_AT: Final = 20_000
"""Places that one page looks at; where it is not full by then, the next one goes on."""
PROBE: Final = 2_000
"""So far is counted to see which index leads to the fewest places."""
FIRST_ASKED, MOST_ASKED = 250, 5_000
"""Places that are asked for at once."""
NEAR_MS: Final = 2_000
LAST: Final = (1 << 63) - 1
_IDS = ("id", "decision_id")
_PLACE, _NEWEST = "{at}, segment, start, size", "ORDER BY {at} DESC"
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Page(msgspec.Struct):
    """`records`, the newest first. `next`: where to go on for older ones; 0 where there are none. `unread`: places at
    which no such record stands any more: the segment was moved away or changed, and `verify` says how."""

    records: list[Record]
    next: int = 0
    unread: int = 0
    looked_at: int = 0


class Grouped(msgspec.Struct, frozen=True):
    """So many records with these texts, from a time to a time."""

    texts: tuple[str, ...]
    count: int
    first: str
    last: str


class Finder:
    """Asks the index of one journal. `connection`: one that was opened there."""

    def __init__(self, folder: Path, where: Where, connection: Connection) -> None:
        self.folder, self._place, self._connection = folder, place_of(where), connection

    def page(self, wanted: Wanted, *, before: int = 0, limit: int = 100) -> Page:
        """The newest records that are wanted and stand before a place. Raises StoreError."""
        fits, page = Matcher(wanted), Page([])
        with self._place.explained(), ExitStack() as stack:
            reader = _Reader(self.folder, self._names(), stack)
            where = self._where(wanted, before)
            if where is None:
                return page
            for at, *place in self._places(where):
                page.looked_at += 1
                record = reader.read(*place)
                if record is None:
                    page.unread += 1
                elif fits(record):
                    page.records.append(record)
                if len(page.records) >= limit or page.looked_at >= MOST_LOOKED_AT:
                    page.next = at
                    break
        return page

    def each(self, wanted: Wanted) -> Iterator[Record]:
        """All of them, the newest first."""
        before = 0
        while True:
            page = self.page(wanted, before=before, limit=1_000)
            yield from page.records
            if not page.next:
                return
            before = page.next

    def count(self, wanted: Wanted) -> int:
        """How many there are, by the index alone. Raises StoreError."""
        with self._place.explained():
            where = self._where(wanted, 0)
            if where is None:
                return 0
            if wanted.id:
                return sum(1 for _ in self.each(wanted))
            (count,) = self._connection.execute(*where.select("count(*)")).fetchone()
            return int(count)

    def grouped(self, wanted: Wanted, *columns: str) -> list[Grouped]:
        """How many of them have which texts in some columns, the most frequent first. Raises StoreError."""
        with self._place.explained():
            where = self._where(wanted, 0)
            if where is None:
                return []
            names = ", ".join(columns)
            grouped = where.select(f"count(*), min({{at}}), max({{at}}), {names}", f"GROUP BY {names}")
            rows = self._connection.execute(*grouped).fetchall()
            texts = self._texts({number for row in rows for number in row[3:] if number is not None})
            found = [
                Grouped(tuple(texts.get(number, "") for number in numbers), count, _time(first), _time(last))
                for count, first, last, *numbers in rows
            ]
            return sorted(found, key=lambda one: (-one.count, one.texts))

    def explain(self, wanted: Wanted) -> list[str]:
        """How the database would look for them: for tests, and whoever wonders."""
        where = self._where(wanted, 0)
        if where is None:
            return []
        statement, values = where.select(_PLACE, _NEWEST)
        return self._place.plan(self._connection, statement, values)

    # --- which places

    def _places(self, where: _Where) -> Iterator[Any]:
        """Places, the newest first, asked for in growing groups: a page may be full after a few."""
        count = FIRST_ASKED
        while True:
            statement, values = where.select(_PLACE, f"{_NEWEST} LIMIT ?")
            rows = self._connection.execute(statement, [*values, count]).fetchall()
            yield from rows
            if len(rows) < count:
                return
            where.until, count = rows[-1][0], min(count * 4, MOST_ASKED)

    def _where(self, wanted: Wanted, before: int) -> _Where | None:
        """The condition; None where no record can be that."""
        since, until = _key(wanted.since, 0), _key(wanted.until, LAST)
        marks = [mark_of(name, text) for name in MARKS if name not in _IDS and (text := getattr(wanted, name))]
        if wanted.id:
            at = ms_of_id(wanted.id)
            if found := [mark for name in _IDS if self._is_there(mark := mark_of(name, wanted.id))]:
                marks.insert(0, found[0])
            elif at is None:
                return None
            else:  # its time leads there
                since = max(since, (at - NEAR_MS) * 1000 << TIES)
                until = min(until, (at + NEAR_MS) * 1000 << TIES)
        where = _Where(since, min(until, before) if before else until)
        where.marks = marks
        for key, kind in COLUMNS:
            if text := getattr(wanted, key):
                number = self._number(kind, text)
                if number is None:
                    return None
                where.columns[kind] = [number]
        if wanted.tools or wanted.text:
            where.columns["target"] = self._targets(wanted.tools, wanted.text)
            if not where.columns["target"]:
                return None
        self._choose(where)
        return where

    def _choose(self, where: _Where) -> None:
        """By which index: the one that leads to the fewest places, counted up to `PROBE`. Where all lead to more, the
        order of time is the best way, unless one column with one text has it too."""
        if where.marks:
            return
        fewest = PROBE + 1
        for kind, numbers in where.columns.items():
            if not where.has_index(kind):
                continue
            (count,) = self._connection.execute(*where.probe(kind)).fetchone()
            count = PROBE + 1 if count >= PROBE and len(numbers) > 1 else count
            if count < fewest:
                fewest, where.by = count, kind

    def _number(self, kind: str, text: str) -> int | None:
        row = self._connection.execute("SELECT id FROM texts WHERE kind = ? AND text = ?", (kind, text)).fetchone()
        return int(row[0]) if row is not None else None

    def _targets(self, tools: tuple[str, ...], text: str) -> list[int]:
        """Numbers of the names that fit."""
        fits, text = compile_globs(tools) if tools else None, text.casefold()
        start = _literal(tools[0]) if len(tools) == 1 else ""
        rows = self._connection.execute(
            "SELECT id, text FROM texts WHERE kind = 'target' AND text >= ? AND text < ?", (start, start + "\U0010ffff")
        )
        return [id_ for id_, name in rows if (fits is None or fits(name)) and text in name.casefold()]

    def _is_there(self, mark: int) -> bool:
        return self._connection.execute("SELECT 1 FROM marks WHERE mark = ? LIMIT 1", (mark,)).fetchone() is not None

    def _names(self) -> dict[int, str]:
        """Of segments. A database may be written by others, too, and whatever file of this machine they name there is
        none for us to read."""
        names = dict(self._connection.execute("SELECT id, name FROM segments"))
        return {id_: name for id_, name in names.items() if name.startswith(SEGMENT) and "/" not in name}

    def _texts(self, numbers: Iterable[int]) -> dict[int, str]:
        select = "SELECT id, text FROM texts WHERE id IN (SELECT value FROM json_each(?))"
        return dict(self._connection.execute(select, (json.dumps(sorted(numbers)),)))


class _Where:
    """A condition on `records`: between two keys, by numbers of texts, by marks; and by which index it is looked up."""

    def __init__(self, since: int, until: int) -> None:
        self.since, self.until = min(since, LAST), min(until, LAST)
        self.columns: dict[str, list[int]] = {}
        self.marks: list[int] = []
        self.by = ""

    def has_index(self, kind: str) -> bool:
        """An index on a column that does not leave these texts out."""
        return kind in INDEXED and not any(column == kind and id_ in self.columns[kind] for id_, column, _ in USUAL)

    def probe(self, kind: str) -> tuple[str, list[Any]]:
        """Counts what one column leads to, up to `PROBE`."""
        said, values = self._column(kind, indexed=True)
        some = f"SELECT 1 FROM records WHERE {said} AND at >= ? AND at < ? LIMIT {PROBE}"
        return f"SELECT count(*) FROM ({some}) AS found", [*values, self.since, self.until]

    def select(self, what: str, tail: str = "") -> tuple[str, list[Any]]:
        """A statement with its values. `at` is the key in it."""
        said, values, source, at = [], [], "records", "records.at"
        if self.marks:  # in the order of the first mark's places
            source, at = "marks CROSS JOIN records", "marks.at"  # by which SQLite joins in this order
            said.append("records.at = marks.at AND marks.mark = ?")
            values.append(self.marks[0])
        for kind in self.columns:
            text, numbers = self._column(kind, indexed=kind == self.by)
            said.append(text)
            values += numbers
        for mark in self.marks[1:]:
            said.append("EXISTS (SELECT 1 FROM marks AS more WHERE more.mark = ? AND more.at = records.at)")
            values.append(mark)
        where = " AND ".join([*said, f"{at} >= ?", f"{at} < ?"])
        statement = f"SELECT {what} FROM {source} WHERE {where} {tail}".replace("{at}", at)
        return statement, [*values, self.since, self.until]

    def _column(self, kind: str, *, indexed: bool) -> tuple[str, list[Any]]:
        """One column. Not `indexed`: with a plus sign, by which no index is used on it."""
        numbers, name = self.columns[kind], kind if indexed else f"+{kind}"
        partial = f" AND {PARTIAL[kind]}" if indexed and kind in PARTIAL else ""
        if len(numbers) == 1:
            return f"{name} = ?{partial}", list(numbers)
        return f"{name} IN (SELECT value FROM json_each(?)){partial}", [json.dumps(numbers)]


class _Reader:
    """Records from where they stand. Each segment is opened once a page."""

    def __init__(self, folder: Path, names: dict[int, str], stack: ExitStack) -> None:
        self._folder, self._names, self._stack = folder, names, stack
        self._files: dict[int, BufferedIOBase | None] = {}

    def read(self, segment: int, start: int, size: int) -> Record | None:
        """None where no record stands there any more."""
        file = self._opened(segment)
        if file is None:
            return None
        try:
            file.seek(start)
            return _decode(file.read(size))
        except (*UNREADABLE, *BAD_JSON):
            return None

    def _opened(self, segment: int) -> BufferedIOBase | None:
        if segment not in self._files:
            name = self._names.get(segment)
            try:
                self._files[segment] = self._stack.enter_context(opened(self._folder / name)) if name else None
            except (OSError, gzip.BadGzipFile):
                self._files[segment] = None
        return self._files[segment]


def _key(time: str, otherwise: int) -> int:
    """The first key of a time, or of the beginning of one."""
    if not time:
        return otherwise
    whole = time[:19] + "0000-01-01T00:00:00"[len(time[:19]) :]
    fraction = f"{time[20:26].rstrip('Z'):0<6}"
    micros = seconds_of(whole) * 1_000_000 + (int(fraction) if fraction.isdigit() else 0)
    return min(micros << TIES, LAST)


def _time(key: int) -> str:
    return stamp((key >> TIES) / 1_000_000)


def _literal(glob: str) -> str:
    """The characters of a pattern before the first that has a meaning."""
    return re.split(r"[*?]", glob, maxsplit=1)[0]
