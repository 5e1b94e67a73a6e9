"""`narthex policy suggest` and `review`: what the rules allow, beside what was used.

In: recorded decisions, the configuration. Out: grants nobody used and a narrower set in YAML; or who used what by which
grant, and what else they are granted, as CSV or lines of JSON. Cases: `tests/cli/test_policy.py`.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.amounts import counted
from narthex.cli.client import one_line
from narthex.cli.judging import judging
from narthex.cli.kept import config_option, find_file, json_option, say
from narthex.cli.records import folder_of, recorded_in

if TYPE_CHECKING:
    from narthex.flow.policy.evidence.usage import Excess, Row, Usage, Used
    from narthex.types import Snapshot

COLUMNS = (
    "tenant", "issuer", "subject", "client", "roles", "kind", "resource", "rule", "line", "uses", "first_use",
    "last_use",
)  # fmt: skip
records_argument = click.argument("records", required=False, type=click.Path(path_type=Path))


@click.command()
@records_argument
@config_option
@json_option
@click.pass_context
def suggest(ctx: click.Context, records: Path | None, config: Path | None, as_json: bool) -> None:
    """Propose grants that suffice for what was used: without those that nobody used, with narrower patterns.

    RECORDS is a file of the journal with its inputs (`audit: {inputs: full}`), its folder, or `-`; without it, where
    the configuration records. On stdout stands a `grants:` section that can replace the present one; what denies or
    holds stays as it is. What was allowed is still allowed by it, and nothing that was not: try it with `narthex
    replay --against`.

    Exits 0 where nothing is in excess, 1 where something is.

    With --json: {"allowed", "since", "until", "grants": [{"name", "line", "uses", "last_use", "unused", "narrower"}],
    "proposal"}.
    """
    path = find_file(ctx, config)
    snapshot = _load(path)
    usage = _usage(snapshot, records)
    from narthex.config.proposal import propose
    from narthex.flow.policy.evidence.usage import excess

    found = list(excess(usage))
    why = f"nobody used it from {usage.since or '?'} to {usage.until or '?'}"
    unused = {one.grant.name: why for one in found if one.is_unused}
    narrower = {one.grant.name: one.narrower for one in found if one.narrower is not None}
    proposal = propose(path, unused, narrower)
    if as_json:
        say(
            {
                "allowed": usage.allowed,
                "since": usage.since or None,
                "until": usage.until or None,
                "grants": [_plain(one) for one in found],
                "proposal": proposal,
            }
        )
    else:
        for one in found:
            _say(one, path.name)
        click.echo(
            f"From {counted(usage.allowed, 'allowed call')}, {usage.since or '?'} to {usage.until or '?'}.", err=True
        )
        click.echo(proposal, nl=False)
    ctx.exit(1 if unused or narrower else 0)


@click.command()
@records_argument
@config_option
@json_option
@click.pass_context
def review(ctx: click.Context, records: Path | None, config: Path | None, as_json: bool) -> None:
    """List who used what by which grant and when last, and what else they are granted: for an access review.

    RECORDS as for `suggest`. CSV with a heading; a row without uses is a pattern that is granted and was not used by
    this caller. Callers are those that the records know.

    With --json: one JSON object a line, with the columns as its keys.
    """
    import csv
    import json
    import sys

    snapshot = _load(find_file(ctx, config))
    usage = _usage(snapshot, records)
    from narthex.flow.policy.evidence.usage import review as rows

    lines = {one.name: one.line for one in snapshot.grants}
    table = (_row(row, used, lines) for row, used in rows(usage, time.time()))
    if as_json:
        for one in table:
            click.echo(json.dumps(one, ensure_ascii=False))
        return
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for one in table:
        writer.writerow({key: _cell(value) for key, value in one.items()})


def _load(path: Path) -> Snapshot:
    from narthex.config.compile import load_snapshot

    return load_snapshot(path, env=os.environ)


def _usage(snapshot: Snapshot, records: Path | None) -> Usage:
    from narthex.flow.policy.evidence.usage import Usage

    if records is None:
        records = folder_of(snapshot)
    elif str(records) != "-" and not records.exists():
        raise click.BadParameter(f"no file or folder '{records}'")
    place, silent = records, [0]

    async def main() -> Usage:
        usage = Usage(snapshot.grants)
        async with judging(snapshot) as again:
            for one in recorded_in(place, silent):
                await usage.take(one, again)
        return usage

    usage = asyncio.run(main())
    if not usage.people:
        text = f"none of {silent[0]} lines is a decision with its input (audit: {{inputs: full}})"
        raise click.ClickException(f"nothing to learn from: {text}")
    if usage.untold:
        click.echo(
            f"{counted(usage.untold, 'call')} without arguments: counted for every grant that may have allowed it",
            err=True,
        )
    return usage


def _say(one: Excess, file: str) -> None:
    place = f"{file}:{one.grant.line}: "
    if one.is_unused:
        click.secho(f"{place}'{one.grant.name}': nobody used it", fg="yellow", err=True)
    elif one.narrower is not None:
        names = one_line(", ".join(name for globs in one.narrower.values() for name in globs))
        click.secho(f"{place}'{one.grant.name}': {counted(one.used, 'call')}, all of {names}", fg="yellow", err=True)


def _plain(one: Excess) -> dict[str, Any]:
    narrower = one.narrower
    return {
        "name": one.grant.name,
        "line": one.grant.line,
        "uses": one.used,
        "last_use": one.last or None,
        "unused": one.is_unused,
        "narrower": {key: list(globs) for key, globs in narrower.items() if globs} if narrower is not None else None,
    }


def _row(row: Row, used: Used | None, lines: dict[str, int]) -> dict[str, Any]:
    tenant, issuer, subject, client = row.principal.key
    return {
        "tenant": tenant,
        "issuer": issuer,
        "subject": subject,
        "client": client,
        "roles": " ".join(row.principal.roles),
        "kind": row.kind,
        "resource": row.resource,
        "rule": row.rule or None,
        "line": lines.get(row.rule),
        "uses": used.count if used is not None else 0,
        "first_use": used.first if used is not None else None,
        "last_use": used.last if used is not None else None,
    }


def _cell(value: Any) -> Any:
    """A spreadsheet takes a text that begins so for a formula: names come from servers and clients."""
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
