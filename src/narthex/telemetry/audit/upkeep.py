"""Files of a journal grow old: closed ones are compressed, and what has stayed as long as it is to stay is removed.

In: the folder, how long what stays, the time. Out: changed files, and what is to be recorded of it. Every step may be
broken off at any moment: a compressed file stands in the place of its original only when it is whole, both together
are read as one, and what was not removed is removed the next time. What a legal hold covers stays.
Cases: `tests/cli/test_audit_kept.py`.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.kept import Retention
from narthex.telemetry.audit.chain import LONGEST, Broken, place
from narthex.telemetry.audit.checkpoints import Head
from narthex.telemetry.audit.headers import Header, read_header
from narthex.telemetry.audit.holds import Hold, held_by, holds_in
from narthex.telemetry.audit.opening import files_of, opened
from narthex.telemetry.audit.removals import RETENTION, Removed, removed_in
from narthex.telemetry.audit.segments import BY_HAND, CHECKPOINTS, SEGMENT, SUFFIX, day_of, sync_folder
from narthex.telemetry.audit.signed import Keys, signed_lines
from narthex.telemetry.audit.verify import Report, lines_in, segments_in
from narthex.telemetry.payloads import reading
from narthex.telemetry.payloads.erasing import LEVEL, rewrite
from narthex.telemetry.payloads.lines import PAYLOADS, BadLine, Line, read
from narthex.telemetry.stamps import stamp


class _Who(msgspec.Struct, frozen=True):
    subject: str = ""
    issuer: str = ""
    client: str = ""


class _Record(msgspec.Struct):
    id: str = ""
    time: str = ""
    tenant: str = ""
    principal: _Who | None = None


_record = msgspec.json.Decoder(_Record).decode


# --- compression


def compress(folder: Path, after_s: float, now: float) -> int:
    """Compress files that nobody writes to any more, once they have lain so long. Returns how many. Raises OSError."""
    count = 0
    for path in _closed(folder, now):
        if path.suffix != ".gz" and now - path.stat().st_mtime >= after_s and not _is_sealed(path):
            points = path.with_name(CHECKPOINTS + path.name.removeprefix(SEGMENT))
            if path.name.startswith(SEGMENT) and points.exists():
                _pack(points)  # first: who is interrupted finds the segment, and sees that there is more to do
            count += _pack(path)
    return count


def _pack(path: Path) -> bool:
    """False where somebody has written to it meanwhile: two gateways overlap."""
    packed, ours = path.with_name(path.name + ".gz"), path.with_name(f".{path.name}.{os.getpid()}.gz")
    try:
        with path.open("rb") as file, open(ours, "wb", opener=_private) as out:
            with gzip.GzipFile("", "wb", LEVEL, out, 0) as stream:
                shutil.copyfileobj(file, stream, 1024 * 1024)
            out.flush()
            os.fsync(out.fileno())
            size = file.tell()
        status = path.stat()
        if status.st_size != size:
            ours.unlink()
            return False
        os.utime(ours, ns=(status.st_atime_ns, status.st_mtime_ns))
        ours.replace(packed)
    except BaseException:
        ours.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    path.unlink()
    sync_folder(path.parent)
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_sealed(path: Path) -> bool:
    """What is sealed does not become smaller, and is sealed anew in its place."""
    if not path.name.startswith(PAYLOADS):
        return False
    with path.open("rb") as file:
        return b'"sealed":"' in file.readline(LONGEST)


# --- what nobody writes to


def _closed(folder: Path, now: float) -> Iterator[Path]:
    """Segments but for the newest of each slot, which is written to or will be named by the next; payloads of days that
    are over."""
    newest = {_slot(path): path for path in segments_in(folder) if _has_begun(path)}
    yield from (path for path in segments_in(folder) if newest.get(_slot(path), path) > path)
    yield from (path for path in reading.files_in(folder) if _day(path) < day_of(now))


def _has_begun(path: Path) -> bool:
    """Is there a first line? Else a crash has left it, and the one before it is named by the next."""
    with opened(path) as file:
        return read_header(file.readline(LONGEST)) is not None


def _bare(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(SUFFIX)


def _slot(path: Path) -> str:
    return _bare(path).rpartition("-")[2]


def _day(path: Path) -> str:
    return _bare(path).split("-")[-2][:8]


# --- retention


class Removal:
    """What has stayed long enough: found first, so that it can be recorded before it is done.

    Raises:
        OSError, BadHolds: The folder cannot be read.
    """

    def __init__(self, folder: Path, retention: Retention, now: float, keys: Keys) -> None:
        self.removed = Removed()
        self._folder, self._keys, self._holds = folder, keys, holds_in(folder)
        self._segments: list[Path] = []
        self._payloads: list[tuple[Path, list[bytes]]] = []
        if retention.records_s is not None:
            self._find_segments(stamp(now - retention.records_s))
        for path in _closed(folder, now):
            if path.name.startswith(PAYLOADS):
                group = path.name.removeprefix(PAYLOADS).partition("-")[0]
                stays_s = retention.of(group)
                if stays_s is not None:
                    self._find_payloads(path, group, stamp(now - stays_s))

    def carry_out(self) -> None:
        """Remove it. Raises OSError: the rest is removed the next time."""
        for path, kept in self._payloads:
            if kept:
                rewrite(path, kept)
            else:
                path.unlink(missing_ok=True)
        for path in self._segments:
            path.unlink(missing_ok=True)
            for form in _checkpoints_of(path):
                form.unlink(missing_ok=True)
        sync_folder(self._folder)

    def _find_payloads(self, path: Path, group: str, until: str) -> None:
        """Those of a file whose youngest is older, but for what is held."""
        kept: list[bytes] = []
        gone = 0
        for _, data in reading.lines_in(path):
            try:
                line = read(data)
            except BadLine:
                gone += 1
                continue
            if line.time >= until:
                return
            if not line.erased and held_by(self._holds, line) is not None:
                kept.append(data)
            else:
                gone += 1
        if gone or not kept:
            self._payloads.append((path, kept))
            self.removed.payloads[group] = self.removed.payloads.get(group, 0) + gone
            self.removed.payloads_until[group] = until

    def _find_segments(self, until: str) -> None:
        """Whole segments, each chain from its beginning on: what is left goes on behind what is named."""
        closed = {path for path in _closed(self._folder, 0.0) if path.name.startswith(SEGMENT)}
        stays: set[str] = set()
        left: list[Header] = []
        old: set[str] = set()
        gone: list[Head] = []
        for path in segments_in(self._folder):
            header, head, youngest = _ends(path)
            if header is None or head is None:
                continue
            may_go = path in closed and header.chain not in stays and youngest < until
            if may_go and not _is_held(path, self._holds):
                self._segments.append(path)
                gone.append(head)
            else:
                stays.add(header.chain)
                left.append(header)
                if youngest < until:
                    old.add(header.chain)
        if gone:
            named = {head for one in left for head in (one.previous, *one.held)}
            before = [one for said in _removed_before(self._folder, self._keys) for one in said.heads if one in named]
            self.removed.records_until, self.removed.heads = until, (*before, *gone)
            self.removed.files = tuple(path.name for path in self._segments)
            self.removed.stay = tuple(sorted(old))


def clear(folder: Path, keys: Keys) -> None:
    """Remove the signatures of segments that were removed, as a record says: somebody was interrupted between them.
    Raises OSError."""
    for removed in _removed_before(folder, keys):
        for name in removed.files:
            path = folder / name.removesuffix(".gz")
            if path.parent == folder and not any(form.exists() for form in _forms(path)):
                for form in _checkpoints_of(path):
                    form.unlink(missing_ok=True)


def _forms(path: Path) -> tuple[Path, Path]:
    bare = path.with_name(path.name.removesuffix(".gz"))
    return bare, bare.with_name(bare.name + ".gz")


def _checkpoints_of(path: Path) -> tuple[Path, Path]:
    return _forms(path.with_name(CHECKPOINTS + path.name.removeprefix(SEGMENT)))


def _removed_before(folder: Path, keys: Keys) -> Iterator[Removed]:
    """What earlier records of removals say, as far as we have signed them."""
    for path in files_of(folder, SEGMENT, BY_HAND):
        yield from map(removed_in, signed_lines(path, RETENTION, keys))


def _ends(path: Path) -> tuple[Header | None, Head | None, str]:
    """First line, last line, and the time of that."""
    with opened(path) as file:
        header = read_header(file.readline(LONGEST))
        if path.suffix == ".gz":  # there is no other way to its end
            last = b""
            for line in file:
                last = line
        else:
            file.seek(max(0, path.stat().st_size - LONGEST))
            whole = file.read().rpartition(b"\n")[0]
            last = whole[whole.rfind(b"\n") + 1 :] + b"\n"
    try:
        seq, head = place(last)
        youngest = _record(last).time
    except (Broken, *BAD_JSON):
        return header, None, ""
    return header, Head(header.chain, seq, head.hex()) if header is not None else None, youngest


def _is_held(path: Path, holds: Sequence[Hold]) -> bool:
    if not holds:
        return False
    for data in lines_in(path, Report()):
        try:
            one = _record(data)
        except BAD_JSON:
            continue
        who = one.principal
        if who is None:
            continue  # of nobody's call
        line = Line(1, one.id, "arguments", one.time, one.tenant, who.issuer, who.subject, who.client)
        if held_by(holds, line) is not None:
            return True
    return False
