"""Payloads are erased in their place: the line that is written over one is as long, and says only whose it was.

In: whom or what it concerns. Out: which payloads are there, then lines that say nothing. Every step may be broken off
at any moment: that something is to be erased is in the journal before anything is (`narthex audit erase`), and a line
that is half written over is known by its first bytes, and finished the next time. A gateway may go on writing to the
same files: it only adds to their ends. Cases: `tests/cli/test_audit_kept.py`.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.telemetry.audit.opening import files_of, opened
from narthex.telemetry.audit.segments import BY_HAND, SEGMENT, sync_file, sync_folder
from narthex.telemetry.audit.signed import Keys, signed_lines
from narthex.telemetry.payloads.lines import BadLine, Line, erased, read, whose
from narthex.telemetry.payloads.reading import LONGEST, files_in, lines_in

LEVEL = 6
"""Of compression."""
UNDER_WAY = ".erasing"
"""Is there while payloads are to be erased, and perhaps are not yet."""


class Concerned(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose payloads; an empty member asks nothing. `records` are ids; times are as records have them."""

    records: frozenset[str] = frozenset()
    subject: str = ""
    issuer: str = ""
    client: str = ""
    tenant: str = ""
    since: str = ""
    until: str = ""

    def covers(self, line: Line) -> bool:
        """Is it one of theirs?"""
        asked = (
            (self.subject, line.subject), (self.issuer, line.issuer), (self.client, line.client),
            (self.tenant, line.tenant),
        )  # fmt: skip
        if any(want and want != got for want, got in asked):
            return False
        if (self.since and line.time < self.since) or (self.until and line.time >= self.until):
            return False
        return not self.records or line.record in self.records


class _Erasure(msgspec.Struct):
    event: str = ""
    records: tuple[str, ...] = ()


_erasure = msgspec.json.Decoder(_Erasure).decode
ERASE = b'"event":"erase"'
"""In the record of it."""


class Found(msgspec.Struct, frozen=True):
    """A line that is there. `line` None: a crash has left it half erased."""

    path: Path
    at: int
    size: int
    record: str
    line: Line | None


def find(folder: Path, concerned: Concerned) -> Iterator[Found]:
    """Payloads that are there, in the order of their files. What was half erased is its record's, and no one else's."""
    for path in files_in(folder):
        for at, data in lines_in(path):
            said = whose(data)
            if said is None or not data.endswith(b"\n"):
                continue
            try:
                line = read(data)
            except BadLine:
                if said[0] in concerned.records:
                    yield Found(path, at, len(data), said[0], None)
                continue
            if not line.erased and concerned.covers(line):
                yield Found(path, at, len(data), line.record, line)


def begins(folder: Path) -> None:
    """Payloads are about to be erased: whoever comes later sees that there may be something left. Raises OSError."""
    (folder / UNDER_WAY).touch(0o600)
    sync_folder(folder)


def is_under_way(folder: Path) -> bool:
    return (folder / UNDER_WAY).exists()


def ends(folder: Path) -> None:
    """Nothing is left. Raises OSError."""
    (folder / UNDER_WAY).unlink(missing_ok=True)


def left_over(folder: Path, keys: Keys) -> list[Found]:
    """What is there of payloads that signed records say are erased: somebody was interrupted. A record that was not
    signed yet came before anything was erased, or is nobody's."""
    records: set[str] = set()
    for path in files_of(folder, SEGMENT, BY_HAND):
        for line in signed_lines(path, ERASE, keys):
            with suppress(*BAD_JSON):
                said = _erasure(line)
                records.update(said.records if said.event == "erase" else ())
    return list(find(folder, Concerned(frozenset(records)))) if records else []


def erase(found: Iterable[Found], sync: Callable[[int], None] = sync_file) -> int:
    """Write over them, and bring that to the disk. Returns how many.

    Raises:
        OSError: A file cannot be written; it may be done again.
    """
    places: dict[Path, list[int]] = {}
    for one in found:
        places.setdefault(one.path, []).append(one.at)
    for path, at in places.items():
        change_lines(path, set(at), lambda line, _: (0, erased(line)), sync)
    return sum(map(len, places.values()))


def change_lines(
    path: Path,
    at: Collection[int],
    change: Callable[[bytes, int], tuple[int, bytes]],
    sync: Callable[[int], None] = sync_file,
) -> None:
    """Write over a part of the lines that begin there: `change` says, for a line and its place, from where on what."""
    if path.suffix == ".gz":
        rewrite(
            path, (_over(line, *change(line, place)) if place in at else line for place, line in lines_in(path)), sync
        )
        return
    with path.open("rb+", buffering=0) as file:
        for place in sorted(at):
            begin, part = change(_line_at(path, place), place)
            write_at(file.fileno(), part, place + begin)
        sync(file.fileno())


def _over(line: bytes, begin: int, part: bytes) -> bytes:
    return line[:begin] + part + line[begin + len(part) :]


def write_at(file: int, data: bytes, place: int) -> None:
    """All of it. Raises OSError."""
    while data:
        count = os.pwrite(file, data, place)
        data, place = data[count:], place + count


def _line_at(path: Path, place: int) -> bytes:
    with opened(path) as file:
        file.seek(place)
        return file.readline(LONGEST)


def rewrite(path: Path, lines: Iterable[bytes], sync: Callable[[int], None] = sync_file) -> None:
    """Put other lines in the place of a file that nobody writes to any more, compressed where its name says so: whole,
    or not at all."""
    ours = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(ours, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            if path.suffix == ".gz":
                with gzip.GzipFile("", "wb", LEVEL, file, 0) as packed:
                    packed.writelines(lines)
            else:
                file.writelines(lines)
            file.flush()
            sync(file.fileno())
        ours.replace(path)
    except BaseException:
        ours.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
