"""Reads a journal on from where one has come to, for who sends records elsewhere: the journal itself is the spool.

In: the folder, how far each chain was sent. Out: records in the order of the segments, and how far that is. A crash may
take back lines that were sent; what retention has removed before it was sent is missed. Does I/O.
Cases: `tests/telemetry/audit/exports/test_tail.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.telemetry.audit.chain import LONGEST
from narthex.telemetry.audit.headers import Header, read_header
from narthex.telemetry.audit.matching import OWN, Record
from narthex.telemetry.audit.verify import UNREADABLE, opened, segments_in

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Place(msgspec.Struct, frozen=True):
    """How far a chain was read: of the segment that begins with its record `first`, `size` bytes of lines."""

    first: int
    size: int


Places = dict[str, Place]
"""By chain."""


class Tail:
    """One reader. `places` says how far it is; setting it anew goes back, or on."""

    def __init__(self, folder: Path, places: Mapping[str, Place]) -> None:
        self.folder = folder
        self.places: Places = dict(places)
        self.unread = 0
        """Lines that are no records: `narthex audit verify` says which."""
        self._done: dict[str, tuple[int, int]] = {}
        self._size = 0

    def go_back(self, places: Mapping[str, Place]) -> None:
        """Read again from there."""
        self.places = dict(places)
        self._done.clear()

    def read(self, most: int, most_bytes: int) -> list[Record]:
        """The next records, at most so many, and not many more bytes. Empty: there are none yet."""
        found: list[Record] = []
        self._size = 0
        if not self.folder.is_dir():
            return found
        for path in segments_in(self.folder):
            stamp = _stamp(path)
            if self._done.get(path.name) == stamp:
                continue
            try:
                with opened(path) as file:
                    whole = self._read(file, found, most, most_bytes)
            except (*UNREADABLE, FileNotFoundError):
                whole = True  # damaged from there on, or moved away meanwhile
            if not whole:
                break
            self._done[path.name] = stamp
        return found

    def _read(self, file: BufferedIOBase, found: list[Record], most: int, most_bytes: int) -> bool:
        """Read on in one segment. Was it read to its end?"""
        header = read_header(file.readline(LONGEST))
        if header is None:
            return True
        first = _first(header)
        place = self.places.get(header.chain)
        if place is not None and place.first > first:
            return True
        at = place.size if place is not None and place.first == first else 0
        file.seek(at)
        for line in _lines(file):
            at += len(line)
            self.places[header.chain] = Place(first, at)
            record = self._record(line)
            if record is not None:
                found.append(record)
                self._size += len(line)
                if len(found) >= most or self._size >= most_bytes:
                    return False
        return True

    def _record(self, line: bytes) -> Record | None:
        try:
            record = _decode(line)
        except BAD_JSON:
            self.unread += 1
            return None
        return record if str(record.get("event")) not in OWN else None


def _first(header: Header) -> int:
    """The number of the first record of a segment."""
    return header.previous.seq + 1 if header.event == "segment" and header.previous is not None else 1


def _lines(file: BufferedIOBase) -> Iterator[bytes]:
    """Whole lines; one that is half written waits."""
    while (line := file.readline(LONGEST)).endswith(b"\n"):
        yield line


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
