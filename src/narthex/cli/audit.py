"""`narthex audit`: is the record of calls whole, and what is in it? Needs no running gateway; copied files are enough.

In: the folder of a journal. Out: what is wrong with it, or the records that are looked for; exit 0 nothing, or found;
1 a fault, or nothing; 2 misused. `search` and `export` are in `audit_search`, `report` in `audit_report`, payloads in
`audit_kept`. Cases: `tests/cli/test_audit.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from narthex.cli.audit_kept import configured_seals, erase, hold, payload, upkeep
from narthex.cli.audit_report import report
from narthex.cli.audit_search import FOLDER, configured, export, search
from narthex.cli.client import one_line
from narthex.cli.groups import Group
from narthex.cli.kept import config_option, find_file, json_option, say

if TYPE_CHECKING:
    from narthex.telemetry.audit.verify import Report

SHOWN = 20
"""Rows for people; `--json` gives more."""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=Group)
def audit() -> None:
    """Work on the record of calls: a folder of the journal, also a copied one."""


audit.add_command(search)
audit.add_command(export)
audit.add_command(report)
for one in (payload, erase, hold, upkeep):
    audit.add_command(one)


@audit.command()
@click.argument("folder", metavar="[DIR]", required=False, type=FOLDER)
@click.option("--key", "keys", multiple=True, type=_FILE, help="Public key that checkpoints must be signed with (PEM).")
@click.option("--checkpoints", "places", multiple=True, type=FOLDER, help="Another folder with checkpoints.")
@click.option("--heads", "heads", multiple=True, type=_FILE, help="The head that was kept beside the store (.heads).")
@config_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    folder: Path | None,
    keys: tuple[Path, ...],
    places: tuple[Path, ...],
    heads: tuple[Path, ...],
    config: Path | None,
    as_json: bool,
) -> None:
    """Prove that no record was changed, left out, put in or cut off.

    DIR is the folder of a journal; without it, where the configuration records. Without --key the public keys in DIR
    are taken: whoever could write there could have signed anew, so keep a copy of the key elsewhere. Without DIR the
    heads beside the store are taken, too: an end that was cut off is found back to the last answer of a call that
    waits for its record, and from DIR alone back to the last checkpoint.

    Exits 0 where the journal is whole, 1 where it is not. What a crash leaves is no fault: a last line that was cut
    off, calls that have begun and never ended; both are listed. Payloads are proved where there are any in DIR: each is
    as it was recorded, or was erased or removed by a record. Sealed ones are proved with the master key of the
    configuration: of a DIR, where --config is given.

    With --json: {"whole", "records", "own", "chains": [{"chain", "first", "last", "signed", "closed", "torn",
    "whole"}], "fault_count", "faults": [{"what", "file", "line", "text"}], "notes", "unfinished_count", "unfinished":
    [{"chain", "seq", "id", "time"}], "keys", "payloads": {"here", "erased", "removed", "sealed", "elsewhere", "lost",
    "unfinished"}, "keys_given", "heads_given"}.
    """
    from narthex.telemetry.audit.checkpoints import read_keys
    from narthex.telemetry.audit.heads import PAGE
    from narthex.telemetry.audit.verify import verify as run

    for path in heads:
        if path.stat().st_size != 2 * PAGE:
            raise click.ClickException(f"{path}: no head of a journal; that is a file audit-….heads beside the store")
    seals = None
    if folder is None:
        path = find_file(ctx, config)
        (folder, places, kept), seals = configured(path, places), configured_seals(path)
        heads = heads or kept
    elif config is not None:
        seals = configured_seals(find_file(ctx, config))
    try:
        known = read_keys(keys or sorted(folder.glob("audit-*.pub")))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    report = run(folder, known, places, seals, heads)
    if not report.chains and not report.faults:
        raise click.ClickException(f"no journal in {folder}")
    given = {"keys_given": bool(keys), "heads_given": bool(heads)}
    if as_json:
        import msgspec

        say({"whole": not report.fault_count, **msgspec.to_builtins(report), **given})
    else:
        _show(report, given=bool(keys), opened=seals is not None)
    ctx.exit(1 if report.fault_count else 0)


def _show(report: Report, *, given: bool, opened: bool) -> None:
    for note in report.notes[:SHOWN]:
        click.echo(f"note: {one_line(note)}")
    broken = {one.chain for one in report.chains if not one.whole}
    for one in report.unfinished[:SHOWN]:
        end = "no end of it was read before the fault" if one.chain in broken else "no end of it is recorded"
        click.echo(f"note: call {one_line(one.id)} of {one_line(one.time)} has begun and {end}")
    _more(report.unfinished_count)
    for fault in report.faults[:SHOWN]:
        place = f"{fault.file}:{fault.line}" if fault.line else fault.file
        click.secho(f"{one_line(place)}: {one_line(fault.text)}", fg="red")
    _more(report.fault_count)
    _show_payloads(report, opened=opened)
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
    told = report.records - report.own
    if told and not report.fault_count:  # what stands behind a fault was not read, and a search does find it
        own = f", {report.own} the journal's own (a file begins, a chain ends)" if report.own else ""
        click.echo(f"{told} of them say what happened, and are what a search finds{own}.")


def _show_payloads(report: Report, *, opened: bool) -> None:
    one = report.payloads
    how = "" if opened else ": --config names the configuration whose master key opens them"
    said = (
        (one.here, "as they were recorded"), (one.erased, "erased by a record"), (one.removed, "removed by their age"),
        (one.elsewhere, "not in this folder"), (one.lost, "lost by a crash before their records were signed"),
        (one.sealed, f"sealed, and not proved{how}"),
    )  # fmt: skip
    if parts := [f"{count} {text}" for count, text in said if count]:
        click.echo(f"payloads: {', '.join(parts)}")
    if one.unfinished:
        click.echo(f"note: payloads of {one.unfinished} records were to be erased and are there: erase them again")


def _more(count: int) -> None:
    if count > SHOWN:
        click.echo(f"… and {count - SHOWN} more (--json)")
