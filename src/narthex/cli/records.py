"""Where recorded decisions are: a file of lines, a folder of the journal, standard input; or one record, by its id.

Cases: `tests/cli/test_replay.py`.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from narthex.cli.client import one_line

if TYPE_CHECKING:
    from narthex.flow.policy.evidence.recorded import Recorded
    from narthex.flow.policy.grants import Grants
    from narthex.flow.policy.runs.rules import RunRules
    from narthex.flow.policy.runs.runs import Runs
    from narthex.types import Principal, Snapshot


_HALF = re.compile(r"[0-9a-f][0-9a-f-]{7,34}")
_MOST_ALIKE = 5
"""Ids with the same beginning that are shown."""
WHAT_IDS = """an ID is what the agent called its run, a trace, a legacy session, the id of a
record, or the decisionId that a client was told; of the last two the first
8 characters are enough. `narthex run list` shows runs, `narthex audit search`
calls."""


def files_of(path: Path) -> list[Path]:
    """The journal's files in a folder, compressed or not, in their order; or the file itself."""
    if not path.is_dir():
        return [path]
    from narthex.telemetry.audit.verify import segments_in

    found = segments_in(path)
    if not found:
        raise click.ClickException(f"no records in {path}: calls-STAMP-SLOT.jsonl (or .gz) is what the journal writes")
    return found


def lines_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each line with its place. `-` is standard input. Raises ClickException: a file is damaged."""
    from narthex.telemetry.audit.verify import Report, lines_in

    for file in files_of(path):
        report = Report()
        lines = _from_stdin() if str(file) == "-" else lines_in(file, report)
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{file}:{number}", line
        for fault in report.faults:
            raise click.ClickException(f"{file}: {fault.text}")


def _from_stdin() -> Iterator[bytes]:
    from narthex.telemetry.audit.chain import LONGEST

    while line := sys.stdin.buffer.readline(LONGEST):
        yield line


def recorded_in(path: Path, silent: list[int]) -> Iterator[Recorded]:
    """Decisions with their input. `silent` counts lines that are none; what cannot be read is said, too."""
    return _decisions(lines_of(path), silent)


def decisions_among(records: Iterable[Mapping[str, object]], silent: list[int]) -> Iterator[Recorded]:
    """The same of records that were read already."""
    import msgspec

    named = ((f"record {one_line(str(record.get('id')))}", msgspec.json.encode(record)) for record in records)
    return _decisions(named, silent)


def _decisions(lines: Iterable[tuple[str, bytes]], silent: list[int]) -> Iterator[Recorded]:
    """Those of lines, each with how it is named where it cannot be read."""
    from narthex.flow.policy.evidence.recorded import BadRecord, Reader

    reader = Reader()
    for place, line in lines:
        try:
            found = reader.read(line)
        except BadRecord as error:
            click.echo(f"{place}: {error}", err=True)
            found = None
        if found is None:
            silent[0] += 1
        else:
            yield found


def folder_of(snapshot: Snapshot) -> Path:
    """Where this configuration records. Raises ClickException: nowhere."""
    if not snapshot.audit_dir:
        raise click.ClickException("this configuration records nothing: it has no `audit`; name a file")
    return Path(snapshot.audit_dir)


def whole_id(folder: Path, half: str, *members: str) -> str:
    """The id of a record, or of a decision, that begins so, or that in other members of records; what is no half of
    one, or none begins with, as it is.

    Every line is read: no index knows halves. Raises ClickException: more than one begins so.
    """
    if not _HALF.fullmatch(half):
        return half
    from narthex.telemetry.audit.verify import Report, lines_in

    begin, found = b'"' + half.encode(), set()
    for file in files_of(folder):
        for line in lines_in(file, Report()):
            if begin in line:
                values = [_member(line, name) for name in members or ("id", "decision_id")]
                found |= {value.decode(errors="replace").strip('"') for value in values if value.startswith(begin)}
                if len(found) > _MOST_ALIKE:
                    break
    if len(found) > 1 and half not in found:
        shown = sorted(found)[:_MOST_ALIKE]
        more = "\n  …" if len(found) > len(shown) else ""
        raise click.ClickException("\n  ".join([f"which one is meant? These begin with {half}:", *shown]) + more)
    return half if half in found else next(iter(found), half)


def find_record(folder: Path, id_: str) -> bytes:
    """The line of the record with this id, or of the decision that a client was told, or with the beginning of one; the
    latest of them. Of a call's beginning it is the line of its end, where there is one: that says what was decided."""
    id_ = whole_id(folder, id_)
    wanted, files = id_.encode(), files_of(folder)
    for at in reversed(range(len(files))):
        found = b""
        for _, line in lines_of(files[at]):
            if wanted in line and b'"' + wanted + b'"' in (_member(line, "id"), _member(line, "decision_id")):
                found = line
        if found:
            return _end_of(found, files[at:]) if _member(found, "event") == b'"begin"' else found
    raise click.ClickException(
        f"no record {id_} in {folder}: the id of a record or the decisionId that a client was told, or the first 8"
        " characters of one; narthex audit search lists them"
    )


def _end_of(begin: bytes, files: list[Path]) -> bytes:
    """The record of the same chain that names this one as its beginning; else this one. `files`: from its own on."""
    seq, chain = _member(begin, "seq"), _chain_of(files[0])
    for file in files:
        if _chain_of(file) == chain:
            for _, line in lines_of(file):
                if b'"begin":' + seq in line and _member(line, "begin") == seq:
                    return line
    return begin


def _chain_of(file: Path) -> str:
    """Which chain its first line says that it is of."""
    from narthex.telemetry.audit.headers import read_header

    header = next((read_header(line) for _, line in lines_of(file)), None)
    return header.chain if header is not None else ""


def _member(line: bytes, name: str) -> bytes:
    """A member of a line, as it stands there; empty where there is none, or the line is no record."""
    import msgspec

    try:
        return bytes(msgspec.json.decode(line, type=dict[str, msgspec.Raw]).get(name, b""))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return b""


def run_rules_of(snapshot: Snapshot, *, shadow: bool = False) -> RunRules | None:
    """Its rules over several calls. `shadow`: as if those in shadow mode counted."""
    from narthex.flow.policy.runs.rules import RunRules
    from narthex.flow.policy.site import Site

    site = Site(snapshot.environment, snapshot.data)
    return RunRules(snapshot.runs, site, all_count=shadow) if snapshot.runs is not None else None


def imagined(
    snapshot: Snapshot, principal: Principal, endpoint: str, labels: Iterable[str], calls: Mapping[str, int]
) -> Runs | None:
    """Runs of which that of this caller is labelled so, and has made these calls; None where nothing is watched."""
    from narthex.flow.policy.runs import explanation as run_explanation

    rules = run_rules_of(snapshot)
    if rules is None:
        return None
    return run_explanation.imagined(rules, time.monotonic, principal, endpoint, labels, calls)


def grants_of(snapshot: Snapshot, *, shadow: bool = False) -> Grants | None:
    """Its grants; None where whoever is let in may call everything. `shadow`: as if those in shadow mode counted."""
    from narthex.flow.policy.grants import Grants
    from narthex.flow.policy.site import Site

    grants = snapshot.trial if shadow and snapshot.trial else snapshot.grants
    return Grants(grants, Site(snapshot.environment, snapshot.data)) if grants else None
