"""How commands find the records of a run, a trace, a session or one call: by the index, or in a folder.

In: a configuration, or the folder of a journal; an id. Out: records. Cases: `tests/cli/test_run.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.audit_search import finder_of, recorded, snapshot_of
from narthex.cli.client import one_line
from narthex.cli.records import files_of, whole_id
from narthex.telemetry.audit.execution import KINDS

if TYPE_CHECKING:
    from narthex.telemetry.audit.matching import Wanted

MOST = 10_000
"""Records of one run: more are no tree that anybody reads."""
Record = dict[str, Any]
Find = Callable[["Wanted"], Iterable[Record]]


@contextmanager
def finding(config: Path | None, folder: Path | None) -> Iterator[tuple[Find, Path]]:
    """How records are found, the newest or the oldest first; and the folder that they are in."""
    from narthex.telemetry.audit.reading import Search

    if folder is not None:
        files_of(folder)  # a folder without a journal is said to be one
        place = folder
        yield (lambda wanted: Search(place, wanted)), place
        return
    assert config is not None
    snapshot = snapshot_of(config)
    with finder_of(snapshot) as finder:
        yield finder.each, recorded(snapshot)


def found_by(find: Find, id_: str, folder: Path) -> tuple[str, str, list[Record]]:
    """What the id is of, its name, and the records that belong to it; of a call half of its id is enough."""
    from msgspec.structs import replace

    from narthex.telemetry.audit.matching import Wanted

    def of(kind: str, name: str) -> list[Record]:
        records = []
        for record in find(replace(Wanted(), **{kind: name})):
            records.append(record)
            if len(records) > MOST:
                raise click.ClickException(
                    f"{kind} {one_line(name)} has more than {MOST} records: narthex audit search"
                )
        held = {
            id_ for one in records if one.get("event") != "approval" for id_ in str(one.get("approval", "")).split()
        }
        for approval in sorted(held):
            records += [one for one in find(Wanted(approval=approval)) if one.get("event") == "approval"]
        return records

    for kind in KINDS:
        if records := of(kind, id_):
            return kind, id_, records
    id_ = whole_id(folder, id_)
    single = list(find(Wanted(id=id_)))
    for one in single:
        for kind in KINDS:
            if name := one.get(kind):
                return kind, str(name), of(kind, str(name))
    return "call", id_, single
