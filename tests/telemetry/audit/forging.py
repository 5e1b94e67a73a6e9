"""Every forgery of one kind that can be made of a journal by whoever has no key, and whether `verify` must see it.

Reading a whole journal for each of some hundred million forgeries takes months. But `verify` follows a chain line by
line, by one pure function, `chain.follow`: what comes before the first changed line leaves the state that it leaves
anyway, and the first line that does not follow is the fault. So a forgery is seen as soon as the line that it puts
behind a state is `Broken`; where that one line does not tell, the whole journal is read. That both say the same,
`test_forgeries.py` holds against the command for a sample.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from narthex.telemetry.audit.chain import START, Broken, follow, place
from narthex.telemetry.audit.headers import read_header
from tests.telemetry.audit.writing import journal, look

State = tuple[int, bytes]
"""Number and hash of the line before."""


class Segment(msgspec.Struct):
    """A file, its lines, and the state behind which each of them stands. `is_last`: of its chain."""

    path: Path
    lines: list[bytes]
    states: list[State]
    chain: str
    is_last: bool = False


class Tried(msgspec.Struct):
    """How many forgeries there were, for how many of them the whole journal was read, which were not seen."""

    forgeries: int = 0
    read_whole: int = 0
    unseen: list[str] = []

    def add(self, other: Tried) -> None:
        self.forgeries += other.forgeries
        self.read_whole += other.read_whole
        self.unseen += other.unseen


def segments_of(folder: Path) -> list[Segment]:
    found = []
    for path in journal(folder):
        lines = path.read_bytes().splitlines(keepends=True)
        header = read_header(lines[0])
        assert header is not None
        found.append(Segment(path, lines, [state_of_header(lines[0]), *map(place, lines[:-1])], header.chain))
    for one in {one.chain: one for one in found}.values():
        one.is_last = True
    return found


def state_of_header(line: bytes) -> State:
    header = read_header(line)
    if header is None or header.event == "open" or header.previous is None:
        return 0, START
    return header.previous.seq, bytes.fromhex(header.previous.hash)


def is_broken(line: bytes, state: State) -> bool:
    try:
        follow(line, *state)
    except Broken:
        return True
    return False


def is_seen(segment: Segment, number: int, line: bytes) -> bool:
    """Does it end the chain that this stands in the place of a line, whatever comes behind it?"""
    if number:
        return is_broken(line, segment.states[number])
    try:  # the first line of a file says itself what it goes on behind
        return read_header(line) is None or is_broken(line, state_of_header(line))
    except ValueError:
        return True  # behind no hash


# --- the kinds


def flipped(segment: Segment, number: int, bit: int) -> bytes | None:
    """The line that stands there once a bit of it is flipped; None: there is no line end any more."""
    at, flip = bit // 8, 1 << bit % 8
    line = bytearray(segment.lines[number])
    line[at] ^= flip
    if at == len(line) - 1:  # a line end: joined with the next
        if number + 1 == len(segment.lines):
            return None
        line += segment.lines[number + 1]
    del line[line.index(b"\n") + 1 :]  # one that is made divides a line
    return bytes(line)


def flips(folder: Path, which: int, begin: int, end: int) -> Tried:
    """Every bit of these lines."""
    segment, tried = segments_of(folder)[which], Tried()
    for number in range(begin, min(end, len(segment.lines))):
        for bit in range(len(segment.lines[number]) * 8):
            tried.forgeries += 1
            line = flipped(segment, number, bit)
            if line is not None and is_seen(segment, number, line):
                continue
            data = bytearray(b"".join(segment.lines))
            data[sum(map(len, segment.lines[:number])) + bit // 8] ^= 1 << bit % 8
            read_whole(tried, segment, bytes(data), f"bit {bit} of line {number + 1}")
    return tried


def misplaced(folder: Path, which: int, begin: int, end: int) -> Tried:
    """Any line of the journal in the place of one of these: whatever is left out, swapped, moved, put in twice or
    spliced, at the first place that it touches there stands another line than before."""
    segments, tried = segments_of(folder), Tried()
    segment = segments[which]
    lines = [line for one in segments for line in one.lines]
    for number in range(begin, min(end, len(segment.lines))):
        state, own = segment.states[number], segment.lines[number]
        for line in lines:
            try:
                follow(line, *state)
            except Broken:
                tried.forgeries += 1
            else:
                if line == own:
                    continue
                tried.forgeries += 1  # it opens another chain: nothing stands before it
                read_whole(tried, segment, b"".join([line, *segment.lines[1:]]), f"another line as number {number + 1}")
    return tried


def cuts(folder: Path, which: int, begin: int, end: int) -> Tried:
    """A file that ends at any byte of these lines."""
    segments, tried = segments_of(folder), Tried()
    segment = segments[which]
    for number in range(begin, min(end, len(segment.lines))):
        line, start = segment.lines[number], sum(map(len, segment.lines[:number]))
        for at in range(len(line)):
            tried.forgeries += 1
            if at and (segment.is_last or number == 0):
                continue  # as a crash leaves it: the same as the cut before the line, and a note
            if at and is_broken(line[:at], segment.states[number]):
                continue
            if not at and not segment.is_last and segment.states[number] != segments[which + 1].states[0]:
                continue  # the next file goes on behind another line
            read_whole(tried, segment, b"".join(segment.lines)[: start + at], f"cut at byte {start + at}")
    return tried


def read_whole(tried: Tried, segment: Segment, data: bytes, what: str) -> None:
    """Is it seen by a reader of everything?"""
    tried.read_whole += 1
    with forged(segment, data) as folder:
        if not look(folder).faults:
            tried.unseen.append(f"{segment.path.name}: {what}")


class forged:
    """A copy of the journal in which one file has other bytes."""

    def __init__(self, segment: Segment, data: bytes) -> None:
        self._segment, self._data = segment, data

    def __enter__(self) -> Path:
        self._place = TemporaryDirectory()
        folder = Path(self._place.name) / "copy"
        shutil.copytree(self._segment.path.parent, folder)
        (folder / self._segment.path.name).write_bytes(self._data)
        return folder

    def __exit__(self, *_: object) -> None:
        self._place.cleanup()


def shares(folder: Path, lines: int) -> Iterator[tuple[Path, int, int, int]]:
    """The whole journal, so many lines at a time."""
    for which, segment in enumerate(segments_of(folder)):
        for begin in range(0, len(segment.lines), lines):
            yield folder, which, begin, begin + lines
