"""Is a journal whole? Every record of every chain, held against the one before it and against the signed checkpoints.

In: a folder with copied files, public keys. Out: a `Report`: the first fault of each chain, what is missing, how far
signatures reach, calls that have begun and never ended. Files may come from anywhere: they are read line by line, and
trusted in nothing. Cases: `tests/telemetry/audit/test_verify.py`; fuzz target `journal`.
Reference: `docs/guides/audit.md`, what a chain proves and what not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.telemetry.audit.chain import LONGEST, START, Broken, follow
from narthex.telemetry.audit.checkpoints import BadCheckpoint, Head, read_checkpoint
from narthex.telemetry.audit.headers import Header, read_header
from narthex.telemetry.audit.heads import PAGE, read_places
from narthex.telemetry.audit.opening import UNREADABLE as UNREADABLE
from narthex.telemetry.audit.opening import files_of
from narthex.telemetry.audit.opening import opened as opened
from narthex.telemetry.audit.removals import RETENTION, Removals
from narthex.telemetry.audit.segments import CHECKPOINTS, SEGMENT, SIGN_RECORDS
from narthex.telemetry.payloads.lines import Seals
from narthex.telemetry.payloads.proving import ERASE, NOTES, PayloadProof, Proved

MOST_UNSIGNED_S = 10.0
"""Seconds that the records behind the last checkpoint may span: ten times what is usual, for a disk that is slow."""
MOST_LISTED = 1_000
"""Faults, and calls without an end, that a report lists; all are counted."""
What = Literal["changed", "missing", "cut", "unsigned", "foreign", "payload"]
"""`changed`: a line is not the next of its chain. `missing`: a segment, or a whole chain. `cut`: the end of a chain.
`unsigned`: more than a crash could have left without a checkpoint. `foreign`: no file, or line, of a journal.
`payload`: what a record names is another, or gone, and no record says why."""


class Fault(msgspec.Struct, frozen=True):
    what: What
    file: str
    line: int
    text: str


class Unfinished(msgspec.Struct, frozen=True):
    """A call that has begun, and whose end is not there: it was cut off, or is still under way."""

    chain: str
    seq: int
    id: str
    time: str


class Chained(msgspec.Struct):
    """One chain as it was found: records `first` to `last`, of which checkpoints cover those up to `signed`."""

    chain: str
    first: int = 0
    last: int = 0
    signed: int = 0
    closed: bool = False
    torn: int = 0
    whole: bool = True


class Report(msgspec.Struct):
    """`faults` empty: the journal is whole. `own`: of the records those that are the journal's own, `matching.OWN`: a
    chain or a file begins, a chain ends. A search finds all others."""

    records: int = 0
    own: int = 0
    chains: list[Chained] = []
    fault_count: int = 0
    faults: list[Fault] = []
    notes: list[str] = []
    unfinished_count: int = 0
    unfinished: list[Unfinished] = []
    keys: list[str] = []
    payloads: Proved = msgspec.field(default_factory=Proved)

    def fault(self, what: What, file: str, line: int, text: str) -> None:
        """Count one, and list it while there is room."""
        self.fault_count += 1
        if len(self.faults) < MOST_LISTED:
            self.faults.append(Fault(what, file, line, text))


class _Moment(msgspec.Struct):
    time: str = ""
    event: str = ""
    id: str = ""
    begin: int = 0


class _Segment(msgspec.Struct):
    path: Path
    header: Header

    @property
    def behind(self) -> Head | None:
        """The head of the same chain that it goes on behind; None where it opens the chain."""
        return self.header.previous if self.header.event == "segment" else None

    @property
    def start(self) -> int:
        return self.behind.seq if self.behind is not None else 0


class _Point(msgspec.Struct, frozen=True):
    hash: str
    signed: bool
    source: str
    time: str = "~"
    """When it was signed; one that is not is later than all."""


_Points = Mapping[str, Mapping[int, list[_Point]]]
_moment = msgspec.json.Decoder(_Moment).decode
_HASH = re.compile("[0-9a-f]{64}")


def verify(
    folder: Path,
    keys: dict[str, Ed25519PublicKey],
    places: Iterable[Path] = (),
    seals: Seals | None = None,
    heads: Iterable[Path] = (),
) -> Report:
    """Read a whole journal.

    Args:
        keys: By which checkpoints must be signed. places: more folders with checkpoints.
        seals: Opens payloads that are sealed; None: they stay unproved, and are counted.
        heads: Files with the heads that were kept beside the store.
    Raises:
        OSError: A file cannot be read.
    """
    report = Report(keys=sorted(keys))
    points = _points((folder, *places), keys, report)  # first: what is written meanwhile may be more, and is not less
    _heads(heads, keys, points, report)
    chains = _segments(folder, report)
    for segments in chains.values():
        for one in segments:
            previous, held = one.header.previous, one.header.held
            for before in held if previous is None else (previous, *held):
                points[before.chain][before.seq].append(_Point(before.hash, False, one.path.name))
    removals, proof = Removals(), PayloadProof(folder, seals)
    for name, segments in chains.items():
        _Walk(report, Chained(name), points.get(name, {}), removals, proof).run(segments)
    for name in sorted(points.keys() - chains.keys()):
        last = max(points[name])
        source, time = points[name][last][0].source, max(one.time for some in points[name].values() for one in some)
        text = f"the whole chain {name} is missing: it had {last} records at least"
        removals.missing(name, last, time, Fault("missing", source, 0, text))
    for fault in removals.unexplained(report.notes):
        report.fault(fault.what, fault.file, fault.line, fault.text)
    for file, number, text in proof.faults():
        report.fault("payload", file, number, text)
    if proof.beyond:
        report.notes.append(f"{proof.beyond} more payloads are gone: whether by right was not looked at")
    report.payloads = proof.proved
    return report


# --- what there is


def _segments(folder: Path, report: Report) -> dict[str, list[_Segment]]:
    """The segments of each chain, in its order."""
    found: defaultdict[str, list[_Segment]] = defaultdict(list)
    for path in segments_in(folder):
        with opened(path) as file:
            try:
                line = file.readline(LONGEST)
            except UNREADABLE as error:
                report.fault("changed", path.name, 1, f"it cannot be read: {error}")
                continue
        header = read_header(line) if line.endswith(b"\n") else None
        if header is not None:
            found[header.chain].append(_Segment(path, header))
        elif line and not line.endswith(b"\n") and len(line) < 4096:
            report.notes.append(f"{path.name}: a crash has cut off its first line; nothing else was in it")
        elif line:
            report.fault("foreign", path.name, 1, "its first line is not that of a segment")
    for segments in found.values():
        segments.sort(key=lambda one: one.start)
    return found


def _points(
    folders: Iterable[Path], keys: dict[str, Ed25519PublicKey], report: Report
) -> defaultdict[str, defaultdict[int, list[_Point]]]:
    """What signed checkpoints say of each chain, by number."""
    found: defaultdict[str, defaultdict[int, list[_Point]]] = defaultdict(lambda: defaultdict(list))
    known: set[bytes] = set()
    for folder in folders:
        for path in files_of(folder, CHECKPOINTS):
            for number, line in enumerate(lines_in(path, report), 1):
                if line in known:  # of the other place
                    continue
                if not line.endswith(b"\n"):
                    report.notes.append(f"{path.name}: a crash has cut off its last line")
                    continue
                try:
                    heads = read_checkpoint(line, keys)
                except BadCheckpoint as error:
                    report.fault("changed", path.name, number, f"checkpoint: {error}")
                    continue
                known.add(line)
                for one in heads:
                    found[one.chain][one.seq].append(_Point(one.hash, True, path.name, _moment(line).time))
    return found


def _heads(
    files: Iterable[Path],
    keys: dict[str, Ed25519PublicKey],
    points: defaultdict[str, defaultdict[int, list[_Point]]],
    report: Report,
) -> None:
    """What was kept beside the store. Of two places one may be half written: the machine, or we, came in between."""
    for path in files:
        with path.open("rb") as file:
            places = list(read_places(file.read(2 * PAGE)))
        bad = []
        for number, line in places:
            try:
                for one in read_checkpoint(line, keys):
                    points[one.chain][one.seq].append(_Point(one.hash, True, path.name, _moment(line).time))
            except BadCheckpoint as error:
                bad.append(f"{path.name}: head {number}: {error}")
        for text in bad if len(bad) == 2 or len(places) == 1 else ():
            report.fault("changed", path.name, 0, text)


def segments_in(folder: Path) -> list[Path]:
    """The segments in a folder, compressed or not, in the order in which they were begun."""
    return files_of(folder, SEGMENT)


def lines_in(path: Path, report: Report) -> Iterator[bytes]:
    """Each line; the last may have no line end. A file that cannot be unpacked is a fault."""
    with opened(path) as file:
        while True:
            try:
                line = file.readline(LONGEST)
            except UNREADABLE as error:
                report.fault("changed", path.name, 0, f"it cannot be read further: {error}")
                return
            if not line:
                return
            yield line


# --- one chain


class _Walk:
    """Follows one chain from its first segment to its last."""

    def __init__(
        self,
        report: Report,
        found: Chained,
        points: Mapping[int, list[_Point]],
        removals: Removals,
        proof: PayloadProof,
    ) -> None:
        self._report, self._found, self._points = report, found, points
        self._removals, self._proof = removals, proof
        self._seq, self._head = 0, START
        self._begun: dict[int, bytes] = {}
        self._after = b""  # the first line behind the last checkpoint
        self._last = b""
        self._said: list[bytes] = []  # lines on erasing and removing that no checkpoint covers yet

    def run(self, segments: list[_Segment]) -> None:
        report, found = self._report, self._found
        report.chains.append(found)
        for number, one in enumerate(segments):
            if not self._enter(one) or not self._follow(one, is_last=number == len(segments) - 1):
                found.whole = False
                break
        found.last = self._seq
        if found.whole:
            self._look_at_end(segments[-1].path.name)
        self._proof.ends()
        if self._said:
            report.notes.append(
                f"{found.chain}: what it says of erasing and removing is not signed, and counts for nothing"
            )
        self._say_unfinished()

    def _enter(self, one: _Segment) -> bool:
        """Does a segment go on where the one before it has ended?"""
        header, name = one.header, one.path.name
        before = one.behind
        if before is None:
            if self._seq == 0:
                return True
            self._report.fault("changed", name, 1, f"the chain {header.chain} opens a second time")
            return False
        if before.chain != header.chain or before.seq < 1 or not _HASH.fullmatch(before.hash):
            self._report.fault("changed", name, 1, "what it says it goes on behind is no record of its chain")
            return False
        if self._seq == 0:
            text = f"records 1 to {before.seq} of the chain {header.chain} are missing"
            self._removals.missing_before(before, Fault("missing", name, 1, text))
            self._seq, self._head = before.seq, bytes.fromhex(before.hash)
            return True
        if before == Head(header.chain, self._seq, self._head.hex()):
            return True
        if before.seq > self._seq:
            text = f"records {self._seq + 1} to {before.seq} of the chain {header.chain} are missing before it"
            self._report.fault("missing", name, 1, text)
        else:
            self._report.fault("changed", name, 1, f"it does not go on where the chain ends, at record {self._seq}")
        return False

    def _follow(self, one: _Segment, *, is_last: bool) -> bool:
        report, found, points = self._report, self._found, self._points
        seq, head, name, line = self._seq, self._head, one.path.name, b""
        for number, line in enumerate(lines_in(one.path, report), 1):
            if not line.endswith(b"\n") and is_last and len(line) < LONGEST:
                found.torn = len(line)
                report.notes.append(
                    f"{name}: a crash has cut off its last line ({len(line)} bytes), behind record {seq}"
                )
                break
            try:
                head = follow(line, seq, head)
            except Broken as error:
                report.fault("changed", name, number, f"record {seq + 1}: {error}")
                self._seq, self._head = seq, head
                return False
            seq += 1
            report.records += 1
            report.own += number == 1
            if not found.first:
                found.first = seq
            if found.closed:
                report.fault("changed", name, number, f"record {seq}: the chain was closed before it")
                return False
            if b'"event":"begin"' in line or b'"begin":' in line or b'"event":"close"' in line:
                self._notice(seq, line)
            if NOTES in line and (wrong := self._proof.take(line, name, number)):
                report.fault("payload", name, number, f"record {seq}: {wrong}")
            if RETENTION in line or ERASE in line:
                self._said.append(line)
            if not self._after:
                self._after = line
            self._last = line
            if seq in points and not self._agree(points[seq], seq, head, name, number):
                self._seq, self._head = seq - 1, head
                return False
        self._seq, self._head = seq, head
        return True

    def _agree(self, points: list[_Point], seq: int, head: bytes, name: str, number: int) -> bool:
        for point in points:
            if point.hash != head.hex():
                self._report.fault("changed", name, number, f"record {seq} is not the one that {point.source} names")
                return False
            if point.signed:
                self._found.signed, self._after = seq, b""
                self._believe()
        return True

    def _believe(self) -> None:
        """What was erased or removed counts only once it is signed: anybody can write a chain of their own."""
        for line in self._said:
            self._removals.notice(line)
            self._proof.notice(line)
        self._said.clear()
        self._proof.signed()

    def _notice(self, seq: int, line: bytes) -> None:
        try:
            moment = _moment(line)
        except BAD_JSON:
            return
        if moment.event == "begin":
            self._begun[seq] = line
        elif moment.event == "close":
            self._found.closed = True
            self._report.own += 1
        elif moment.begin:
            self._begun.pop(moment.begin, None)

    def _look_at_end(self, name: str) -> None:
        """Was the end cut off, or written anew?"""
        report, found = self._report, self._found
        last = max(self._points, default=0)
        if last > found.last:
            source = self._points[last][0].source
            count, which = last - found.last, f"{found.last + 1} to {last}"
            what = f"the last {count} records, {which}, are" if count > 1 else f"the last record, number {last}, is"
            report.fault("cut", name, 0, f"{what} cut off: {source} names it")
            found.whole = False
        unsigned = found.last - found.signed
        span = _seconds(self._after, self._last) if unsigned else 0.0
        if unsigned > 2 * SIGN_RECORDS or span > MOST_UNSIGNED_S or (found.closed and unsigned > 1):
            what = f"{unsigned} records of {span:.0f} s" if span else f"{unsigned} records"
            report.fault(
                "unsigned", name, 0, f"no checkpoint covers the last {what}: more than a crash leaves unsigned"
            )
            found.whole = False

    def _say_unfinished(self) -> None:
        report = self._report
        report.unfinished_count += len(self._begun)
        for seq, line in self._begun.items():
            if len(report.unfinished) >= MOST_LISTED:
                return
            moment = _moment(line)
            report.unfinished.append(Unfinished(self._found.chain, seq, moment.id, moment.time))


def _seconds(first: bytes, last: bytes) -> float:
    """Between two records; 0 where that cannot be told."""
    try:
        return (
            datetime.fromisoformat(_moment(last).time) - datetime.fromisoformat(_moment(first).time)
        ).total_seconds()
    except (*BAD_JSON, ValueError, TypeError):
        return 0.0
