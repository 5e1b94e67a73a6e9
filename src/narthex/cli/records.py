"""Where recorded decisions are: a file of lines, a folder of the journal, standard input; or one record, by its id.

Cases: `tests/cli/test_replay.py`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from narthex.flow.policy.evidence.recorded import Recorded
    from narthex.flow.policy.grants import Grants
    from narthex.flow.policy.runs.rules import RunRules
    from narthex.flow.policy.runs.runs import Runs
    from narthex.types import Principal, Snapshot

LONGEST = 16 * 1024 * 1024
"""Bytes of a line; a longer one is no record."""


def files_of(path: Path) -> list[Path]:
    """The journal's files in a folder, in their order; or the file itself."""
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("calls-*.jsonl"))
    if not found:
        raise click.ClickException(f"no records in {path}: calls-YYYYMMDD.jsonl is what the journal writes")
    return found


def lines_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each line with its place. `-` is standard input."""
    for file in files_of(path):
        stream = sys.stdin.buffer if str(file) == "-" else file.open("rb")
        with stream:
            number = 0
            while line := stream.readline(LONGEST):
                number += 1
                if line.strip():
                    yield f"{file}:{number}", line


def recorded_in(path: Path, silent: list[int]) -> Iterator[Recorded]:
    """Decisions with their input. `silent` counts lines that are none; what cannot be read is said, too."""
    from narthex.flow.policy.evidence.recorded import BadRecord, Reader

    reader = Reader()
    for place, line in lines_of(path):
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


def find_record(folder: Path, id_: str) -> bytes:
    """The line of the record with this id, or of the decision that a client was told; the latest of them."""
    import msgspec

    wanted = id_.encode()
    for file in reversed(files_of(folder)):
        found = b""
        for _, line in lines_of(file):
            if wanted in line:
                try:
                    names = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
                    if b'"' + wanted + b'"' in (bytes(names.get("id", b"")), bytes(names.get("decision_id", b""))):
                        found = line
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue
        if found:
            return found
    raise click.ClickException(f"no record {id_} in {folder}")


def run_rules_of(snapshot: Snapshot) -> RunRules | None:
    """Its rules over several calls."""
    from narthex.flow.policy.runs.rules import RunRules
    from narthex.flow.policy.site import Site

    site = Site(snapshot.environment, snapshot.data)
    return RunRules(snapshot.runs, site) if snapshot.runs is not None else None


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
