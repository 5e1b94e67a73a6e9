"""`narthex audit search` and `export`: what is in the record of calls, by who, what and when.

In: a folder of a journal, read line by line; or a configuration, whose journal has an index. Out: records; exit 0 where
something was found, else 1; 2 misused. Cases: `tests/cli/test_audit.py`, `tests/cli/test_audit_search.py`.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import structs

from narthex.cli.amounts import counted
from narthex.cli.client import one_line
from narthex.cli.kept import (
    GAP,
    config_option,
    find_file,
    flowed,
    json_option,
    say,
    table_lines,
    table_width,
    terminal_width,
)  # fmt: skip
from narthex.cli.records import files_of, whole_id
from narthex.telemetry.accounts import OUTCOMES

if TYPE_CHECKING:
    from narthex.telemetry.audit.index.find import Finder
    from narthex.telemetry.audit.index.place import Where
    from narthex.telemetry.audit.matching import Record, Wanted
    from narthex.types import Snapshot

HEADING = ("time", "event", "who", "what", "decision", "outcome", "id")
SEARCHED = 100
"""Records that a search shows, unless told otherwise."""
EVENTS = (
    "call", "begin", "refused", "admin", "approval", "alert", "lost", "config", "signin", "command", "erase", "hold",
    "retention", "recount",
)  # fmt: skip
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class Moment(click.ParamType[str]):
    """A time, as records have it."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from narthex.telemetry.audit.reading import moment

        try:
            return moment(str(value))
        except ValueError:
            self.fail(f"'{value}' is no time such as 2026-11-27 or 2026-11-27T09:30:00+01:00", param, ctx)


F = TypeVar("F", bound=Callable[..., Any])
_SELECTION = (
    click.option(
        "--since",
        type=Moment(),
        metavar="TIME",
        help="From this time on: RFC 3339 or its beginning (2026-11-27T09), in UTC where no offset stands behind it.",
    ),
    click.option("--until", type=Moment(), metavar="TIME", help="Before this time."),
    click.option("--principal", default="", metavar="SUBJECT", help="Of this human or service."),
    click.option("--client", default="", help="By this agent."),
    click.option("--tenant", default="", help="Of this tenant."),
    click.option("--endpoint", default="", help="At this endpoint."),
    click.option("--server", default="", help="On this server."),
    click.option("--tool", "tools", multiple=True, metavar="PATTERN", help="Of these tools: <server>__<name>, with *."),
    click.option("--text", default="", help="With this in the name or address of what was called, in any case."),
    click.option("--method", default="", help="With this method, tools/call say, or this action of an admin."),
    click.option("--decision", type=click.Choice(("allow", "deny", "hold")), help="Decided so."),
    click.option(
        "--outcome", type=click.Choice(OUTCOMES), metavar="OUTCOME", help="Ended so: ok, tool_error, denied …"
    ),
    click.option("--event", type=click.Choice(EVENTS), help="Of this kind."),
    click.option("--rule", default="", help="Decided by this rule."),
    click.option("--run", default="", metavar="ID", help="Of this run."),
    click.option("--trace", default="", metavar="ID", help="Of this trace."),
    click.option("--session", default="", metavar="ID", help="Of this legacy session."),
    click.option("--approval", default="", metavar="ID", help="Of this held call; the first 8 characters will do."),
    click.option("--call", default="", metavar="ID", help="What was counted anew of the call with this id."),
    click.option(
        "--upstream-status", default="", metavar="STATUS", help="Its server answered with this HTTP status, if no 200."
    ),
    click.option(
        "--definition", default="", metavar="DIGEST", help="Of what its server had listed with this definition_digest."
    ),
    click.option("--id", default="", help="With this id, or this decisionId, or the first 8 characters of one."),
)


def _selection(command: F) -> F:
    for option in reversed(_SELECTION):
        command = option(command)
    return command


@click.command()
@click.argument("folder", metavar="[DIR]", required=False, type=FOLDER)
@_selection
@click.option("--limit", type=click.IntRange(1), default=SEARCHED, show_default=True, help="The latest so many.")
@click.option("--cursor", default="", help="Older ones: what the page before has said.")
@config_option
@json_option
@click.pass_context
def search(
    ctx: click.Context,
    /,
    folder: Path | None,
    config: Path | None,
    limit: int,
    cursor: str,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Find records by who, what and when.

    DIR is the folder of a journal, which is read line by line; without it, they are looked up in the index of the one
    that the configuration names, which is brought up to date before. Exits 0 where something was found, else 1. That
    the records are whole is what `narthex audit verify` says; its count has the journal's own lines, too, with which
    files begin and chains end.

    With --json: {"records": [as they stand in the journal, oldest first], "found", "unread", "next"}. `next` is the
    cursor of older ones; not there where there are none, or DIR was given.
    """
    if folder is not None:
        looking_for = _wanted(wanted, folder)
        if cursor:
            ctx.fail("--cursor goes on in the index: it needs no DIR")
        found = _by_reading(folder, looking_for, limit)
    else:
        snapshot = snapshot_of(find_file(ctx, config))
        looking_for = _wanted(wanted, recorded(snapshot))
        found = _by_index(ctx, snapshot, looking_for, limit, cursor)
    if as_json:
        say({name: value for name, value in found.items() if name != "next" or value})
    else:
        records, count = found["records"], found["found"]
        if records:
            click.echo("\n".join(_lines([HEADING, *map(_row, records)], terminal_width())))
        latest = f", the latest {len(records)} are shown" if count > len(records) and not cursor else ""
        click.echo(f"{count} found{latest}", err=True)
        if found["next"]:
            click.echo(f"older ones: --cursor {found['next']}", err=True)
        _say_unread(found["unread"])
    ctx.exit(0 if found["found"] else 1)


def _by_reading(folder: Path, wanted: Wanted, limit: int) -> dict[str, Any]:
    from narthex.telemetry.audit.reading import Search

    looking = Search(folder, wanted)
    kept: deque[dict[str, Any]] = deque(maxlen=limit)
    count = 0
    for record in looking:
        count += 1
        kept.append(record)
    return {"records": list(kept), "found": count, "unread": looking.unread, "next": ""}


def _by_index(ctx: click.Context, snapshot: Snapshot, wanted: Wanted, limit: int, cursor: str) -> dict[str, Any]:
    from narthex.telemetry.audit.index.cursors import read_cursor, show_cursor

    try:
        before = read_cursor(wanted, cursor) if cursor else 0
    except ValueError as error:
        ctx.fail(f"--cursor: {error}")
    with finder_of(snapshot) as finder:
        page = finder.page(wanted, before=before, limit=limit)
        records, unread = page.records, page.unread
        while page.next and len(records) < limit:  # a page looks at so many places, and no further
            page = finder.page(wanted, before=page.next, limit=limit - len(records))
            records, unread = records + page.records, unread + page.unread
        count = finder.count(wanted)
    return {"records": records[::-1], "found": count, "unread": unread, "next": show_cursor(wanted, page.next)}


@contextmanager
def finder_of(snapshot: Snapshot) -> Iterator[Finder]:
    """The index of the journal that a configuration names, up to date. Raises StoreError."""
    from narthex.errors import StoreError
    from narthex.telemetry.audit.frames import index_of

    folder = recorded(snapshot)
    try:
        with _indexed(folder, index_of(snapshot.store, snapshot.state_dir)) as finder:
            yield finder
    except StoreError as error:
        raise StoreError(f"{error.problem}\nthe journal needs no index where its folder is named: {folder}") from None


@contextmanager
def finder_in(folder: Path) -> Iterator[Finder]:
    """The same of a folder alone: an index is made of it, and goes with the command."""
    with TemporaryDirectory(prefix="narthex-index-") as place, _indexed(folder, Path(place) / "index.db") as finder:
        yield finder


@contextmanager
def _indexed(folder: Path, where: Where) -> Iterator[Finder]:
    from narthex.telemetry.audit.index.find import Finder
    from narthex.telemetry.audit.index.follow import Follower

    follower = Follower(folder, where)
    try:
        follower.catch_up()
        yield Finder(folder, where, follower.connection)
    finally:
        follower.close()


@click.command()
@click.argument("folder", metavar="[DIR]", required=False, type=FOLDER)
@click.option(
    "--format", "form", type=click.Choice(("jsonl", "csv", "ocsf", "cef")), default="jsonl", show_default=True
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file, for this user alone where it is new; standard output without it.",
)
@_selection
@config_option
@click.pass_context
def export(
    ctx: click.Context, /, folder: Path | None, form: str, out: Path | None, config: Path | None, **wanted: Any
) -> None:
    """Write records out, one a line, as others read them.

    DIR is the folder of a journal; without it, where the configuration records. `jsonl` are the records as they stand,
    `csv` a table with a heading, `cef` ArcSight's Common Event Format, `ocsf` events of OCSF 1.9, class API Activity.
    How many there are is said on stderr. Exits 0 also where that is none, 1 where there is no journal.
    """
    from narthex.telemetry.audit.formats import COLUMNS, FORMATS
    from narthex.telemetry.audit.reading import Search

    folder = folder or recorded(snapshot_of(find_file(ctx, config)))
    looking, write, count = Search(folder, _wanted(wanted, folder)), FORMATS[form], 0
    with (
        open(out, "w", encoding="utf-8", newline="", opener=private) if out is not None else nullcontext(sys.stdout)
    ) as stream:
        if form == "csv":
            stream.write(",".join(COLUMNS) + "\n")
        for record in looking:
            stream.write(write(record) + "\n")
            count += 1
    click.echo(f"{counted(count, 'record')}{f' in {out}' if out is not None else ''}", err=True)
    _say_unread(looking.unread)


def _wanted(given: dict[str, Any], folder: Path) -> Wanted:
    """Raises ClickException: the folder has no journal in it, or an id is half of several."""
    from narthex.telemetry.audit.matching import Wanted

    files_of(folder)
    found = Wanted(**{name: value for name, value in given.items() if value})
    whole = whole_id(folder, found.id), whole_id(folder, found.approval, "approval")
    return structs.replace(found, id=whole[0], approval=whole[1])


def private(path: str, flags: int) -> int:
    """Open a file that is for this user alone where it is a new one: records say who did what."""
    return os.open(path, flags, 0o600)


def _event(record: Record) -> str:
    """What kind of record it is; which step, or which command; how many were lost."""
    text = str(record.get("event") or "")
    more = record.get("step") or record.get("count") or (record.get("action") if text == "command" else "")
    return f"{text}: {more}" if more else text


def _row(record: Record) -> tuple[str, ...]:
    ends = (record.get(name) for name in ("decision", "outcome", "id"))
    cells = (record.get("time"), _event(record), _who(record), _what(record), *ends)
    return tuple(one_line(str(cell)) if cell else "-" for cell in cells)


def _who(record: Record) -> str:
    """Who called, by which agent; of a step of a held call who took it, and whose call it is; else who did it."""
    from narthex.telemetry.audit.matching import doer_of

    who = record.get("principal")
    who = who if isinstance(who, dict) else {}
    caller = " by ".join(str(who[name]) for name in ("subject", "client") if who.get(name))
    doer = doer_of(record)
    return f"{doer}, for {caller}" if doer and caller else doer or caller


def _what(record: Record) -> object:
    """What was called, or what it concerned: the limit of an alert, what a reload has changed, why payloads were erased
    or held back."""
    from narthex.telemetry.audit.matching import what_of

    changes, revision = record.get("changes"), str(record.get("revision") or "")
    if isinstance(changes, list) and changes:
        return ", ".join(map(str, changes))
    if record.get("event") in ("erase", "hold"):
        hold = record.get("hold")
        return record.get("reason") or (hold.get("reason") if isinstance(hold, dict) else "")
    return what_of(record) or record.get("method") or record.get("limit") or (revision and f"revision {revision[:12]}")


def _lines(rows: list[tuple[str, ...]], width: int) -> list[str]:
    """A table; where it has no room in the terminal, time and id of each record in one line, the rest below."""
    if not width or table_width(rows) <= width:
        return table_lines(rows)
    found = []
    for number, (time, *rest, id_) in enumerate(rows):
        said = [cell for cell in rest if cell != "-"]
        lines = [time + " " * GAP + id_, *flowed([f"    {said[0]}", *said[1:]], "    ", width, gap=GAP)]
        found += [click.style(line, bold=True) for line in lines] if number == 0 else lines
    return found


def _say_unread(count: int) -> None:
    if count:
        click.echo(f"{count} lines could not be read: narthex audit verify says which", err=True)


def configured(config: Path, places: tuple[Path, ...] = ()) -> tuple[Path, tuple[Path, ...], tuple[Path, ...]]:
    """Where a configuration records, where it puts checkpoints, and where heads. Raises ClickException: nowhere."""
    return proofs_of(snapshot_of(config), places)


def proofs_of(snapshot: Snapshot, places: tuple[Path, ...] = ()) -> tuple[Path, tuple[Path, ...], tuple[Path, ...]]:
    """The same of one that was read."""
    from narthex.telemetry.audit.heads import heads_in

    folder, second = recorded(snapshot), Path(snapshot.audit_checkpoints)
    places = (*places, second) if snapshot.audit_checkpoints and second.is_dir() else places
    return folder, places, tuple(heads_in(Path(snapshot.state_dir), folder))


def snapshot_of(config: Path) -> Snapshot:
    from narthex.config.compile import load_snapshot

    return load_snapshot(config, env=os.environ)


def recorded(snapshot: Snapshot) -> Path:
    """The folder of its journal. Raises ClickException: there is none yet."""
    from narthex.cli.records import folder_of

    folder = folder_of(snapshot)
    if not folder.is_dir():
        raise click.ClickException(f"nothing is recorded yet in {folder}")
    return folder
