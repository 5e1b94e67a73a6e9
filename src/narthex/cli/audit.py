"""`narthex audit`: is the record of calls whole, and what is in it? Needs no running gateway; copied files are enough.

In: the folder of a journal. Out: what is wrong with it, or the records that are looked for; exit 0 nothing, or found;
1 a fault, or nothing; 2 misused.
Cases: `tests/cli/test_audit.py`.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from narthex.cli.client import one_line
from narthex.cli.kept import config_option, find_file, json_option, say, table
from narthex.telemetry.accounts import OUTCOMES

if TYPE_CHECKING:
    from narthex.telemetry.audit.reading import Search
    from narthex.telemetry.audit.verify import Report

SEARCHED = 100
"""Records that a search shows, unless told otherwise."""
SHOWN = 20
"""Rows for people; `--json` gives more."""
EVENTS = ("call", "begin", "refused", "admin", "approval", "lost")
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def audit() -> None:
    """Work on the record of calls: a folder of the journal, also a copied one."""


@audit.command()
@click.argument("folder", metavar="[DIR]", required=False, type=_FOLDER)
@click.option("--key", "keys", multiple=True, type=_FILE, help="Public key that checkpoints must be signed with (PEM).")
@click.option("--checkpoints", "places", multiple=True, type=_FOLDER, help="Another folder with checkpoints.")
@config_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    folder: Path | None,
    keys: tuple[Path, ...],
    places: tuple[Path, ...],
    config: Path | None,
    as_json: bool,
) -> None:
    """Prove that no record was changed, left out, put in or cut off.

    DIR is the folder of a journal; without it, where the configuration records. Without --key the public keys in DIR
    are taken: whoever could write there could have signed anew, so keep a copy of the key elsewhere.

    Exits 0 where the journal is whole, 1 where it is not. What a crash leaves is no fault: a last line that was cut
    off, calls that have begun and never ended; both are listed.

    With --json: {"whole", "records", "chains": [{"chain", "first", "last", "signed", "closed", "torn", "whole"}],
    "fault_count", "faults": [{"what", "file", "line", "text"}], "notes", "unfinished_count", "unfinished": [{"chain",
    "seq", "id", "time"}], "keys", "keys_given"}.
    """
    from narthex.telemetry.audit.checkpoints import read_keys
    from narthex.telemetry.audit.verify import verify as run

    if folder is None:
        folder, places = _configured(find_file(ctx, config), places)
    try:
        known = read_keys(keys or sorted(folder.glob("audit-*.pub")))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    report = run(folder, known, places)
    if not report.chains and not report.faults:
        raise click.ClickException(f"no journal in {folder}")
    if as_json:
        import msgspec

        say({"whole": not report.fault_count, **msgspec.to_builtins(report), "keys_given": bool(keys)})
    else:
        _show(report, given=bool(keys))
    ctx.exit(1 if report.fault_count else 0)


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
    click.option("--tool", "tools", multiple=True, metavar="PATTERN", help="Of these tools: <server>__<name>, with *."),
    click.option("--decision", type=click.Choice(("allow", "deny", "hold")), help="Decided so."),
    click.option(
        "--outcome", type=click.Choice(OUTCOMES), metavar="OUTCOME", help="Ended so: ok, tool_error, denied …"
    ),
    click.option("--event", type=click.Choice(EVENTS), help="Of this kind."),
    click.option("--id", default="", help="With this id, or this decisionId."),
)


def _selection(command: F) -> F:
    for option in reversed(_SELECTION):
        command = option(command)
    return command


@audit.command()
@click.argument("folder", metavar="[DIR]", required=False, type=_FOLDER)
@_selection
@click.option("--limit", type=click.IntRange(1), default=SEARCHED, show_default=True, help="The latest so many.")
@config_option
@json_option
@click.pass_context
def search(
    ctx: click.Context, /, folder: Path | None, config: Path | None, limit: int, as_json: bool, **wanted: Any
) -> None:
    """Find records by who, what and when.

    DIR is the folder of a journal; without it, where the configuration records. Exits 0 where something was found, else
    1. That the records are whole is what `narthex audit verify` says.

    With --json: {"records": [as they stand in the journal, oldest first], "found", "unread"}.
    """
    looking = _looking(ctx, folder, config, wanted)
    kept: deque[dict[str, Any]] = deque(maxlen=limit)
    count = 0
    for record in looking:
        count += 1
        kept.append(record)
    if as_json:
        say({"records": list(kept), "found": count, "unread": looking.unread})
    else:
        rows = [("time", "event", "who", "what", "decision", "outcome", "id"), *map(_row, kept)]
        table(rows if kept else rows[:1])
        click.echo(f"{count} found{f', the latest {len(kept)} are shown' if count > len(kept) else ''}", err=True)
        _say_unread(looking.unread)
    ctx.exit(0 if count else 1)


@audit.command()
@click.argument("folder", metavar="[DIR]", required=False, type=_FOLDER)
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
    """
    from narthex.telemetry.audit.formats import COLUMNS, FORMATS

    looking, write = _looking(ctx, folder, config, wanted), FORMATS[form]
    with (
        open(out, "w", encoding="utf-8", newline="", opener=_private) if out is not None else nullcontext(sys.stdout)
    ) as stream:
        if form == "csv":
            stream.write(",".join(COLUMNS) + "\n")
        for record in looking:
            stream.write(write(record) + "\n")
    _say_unread(looking.unread)


def _looking(ctx: click.Context, folder: Path | None, config: Path | None, wanted: dict[str, Any]) -> Search:
    from narthex.telemetry.audit.reading import Search, Wanted

    if folder is None:
        folder, _ = _configured(find_file(ctx, config), ())
    return Search(folder, Wanted(**{name: value for name, value in wanted.items() if value}))


def _private(path: str, flags: int) -> int:
    """Open a file that is for this user alone where it is a new one: records say who did what."""
    return os.open(path, flags, 0o600)


def _event(record: dict[str, Any]) -> str:
    """What kind of record it is; of an approval which step, and whose; how many were lost."""
    text = str(record.get("event") or "")
    more = record.get("step") or record.get("count")
    by = f" by {record['by']}" if record.get("by") else ""
    return f"{text}: {more}{by}" if more else text


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    from narthex.telemetry.audit.reading import what_of

    who = record.get("principal")
    who = who if isinstance(who, dict) else {}
    caller = " by ".join(str(who[name]) for name in ("subject", "client") if who.get(name))
    what = what_of(record) or record.get("method")
    ends = (record.get(name) for name in ("decision", "outcome", "id"))
    cells = (record.get("time"), _event(record), caller, what, *ends)
    return tuple(one_line(str(cell)) if cell else "-" for cell in cells)


def _say_unread(count: int) -> None:
    if count:
        click.echo(f"{count} lines could not be read: narthex audit verify says which", err=True)


def _configured(config: Path, places: tuple[Path, ...]) -> tuple[Path, tuple[Path, ...]]:
    """Where a configuration records, and where it puts checkpoints. Raises ClickException: nowhere."""
    from narthex.cli.records import folder_of
    from narthex.config.compile import load_snapshot

    snapshot = load_snapshot(config, env=os.environ)
    folder = folder_of(snapshot)
    if not folder.is_dir():
        raise click.ClickException(f"nothing is recorded yet in {folder}")
    second = Path(snapshot.audit_checkpoints)
    return folder, (*places, second) if snapshot.audit_checkpoints and second.is_dir() else places


def _show(report: Report, *, given: bool) -> None:
    for note in report.notes[:SHOWN]:
        click.echo(f"note: {one_line(note)}")
    for one in report.unfinished[:SHOWN]:
        click.echo(f"note: call {one_line(one.id)} of {one_line(one.time)} has begun and no end of it is recorded")
    _more(report.unfinished_count)
    for fault in report.faults[:SHOWN]:
        place = f"{fault.file}:{fault.line}" if fault.line else fault.file
        click.secho(f"{one_line(place)}: {one_line(fault.text)}", fg="red")
    _more(report.fault_count)
    chains, unsigned = len(report.chains), sum(one.last - one.signed for one in report.chains)
    what = f"{report.records} records in {chains} chain{'' if chains == 1 else 's'}"
    tail = f"; the last {unsigned} are not signed yet" if unsigned and not report.fault_count else ""
    keys = f"signed with {', '.join(report.keys)}" if report.keys else "no public key is here"
    whose = (
        "" if given or not report.keys else " (found in the folder itself: give --key to trust no one who writes there)"
    )
    if report.fault_count:
        click.secho(f"NOT WHOLE: {what} were read; {keys}{whose}.", fg="red")
    else:
        click.secho(f"Whole: {what}, {keys}{whose}{tail}.", fg="green")


def _more(count: int) -> None:
    if count > SHOWN:
        click.echo(f"… and {count - SHOWN} more (--json)")
