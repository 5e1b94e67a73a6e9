"""`narthex cost`: who spent what on what, by day. Reads the store; needs no running gateway.

In: a configuration, a span of days, what to add up by. Out: a table, or JSON. Cases: `tests/cli/test_cost.py`.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from narthex.cli.client import one_line
from narthex.cli.kept import config_option, find_file, json_option, say, table
from narthex.store.costs import COLUMNS


class Day(click.ParamType[datetime]):
    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            self.fail(f"'{value}' is no day such as 2026-12-31", param, ctx)


@click.command()
@click.option("--since", type=Day(), metavar="DAY", help="First day (UTC); 30 days ago by default.")
@click.option("--until", type=Day(), metavar="DAY", help="Last day (UTC); today by default.")
@click.option(
    "--by", "columns", type=click.Choice(COLUMNS), multiple=True, help="Add up by these; day, subject, server and name."
)
@config_option
@json_option
@click.pass_context
def cost(
    ctx: click.Context,
    since: datetime | None,
    until: datetime | None,
    columns: tuple[str, ...],
    config: Path | None,
    as_json: bool,
) -> None:
    """Show who spent what on what, by day.

    With --json: {"total": [{"amount", "currency"}], "rows": [{… what was added up by, "calls", "amount", "currency"}]}.
    """
    from narthex.config.places import find_places
    from narthex.store.costs import added_up
    from narthex.store.ledger import read_costs

    store = find_places(find_file(ctx, config), env=os.environ).store
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first, last = since or today - timedelta(days=30), until or today
    hours = (int(first.timestamp()) // 3600, int(last.timestamp()) // 3600 + 24)
    document = added_up(read_costs(store, *hours), columns or ("day", "subject", "server", "name"))
    if as_json:
        say(document)
        return
    if not document["rows"]:
        click.echo("Nothing was spent in these days.")
        return
    names = [name for name in COLUMNS if name in document["rows"][0]]
    head = (*(name.upper() for name in names), "CALLS", "AMOUNT")
    table([head, *(_row(one, names) for one in document["rows"])])
    click.echo("\nTotal: " + ", ".join(f"{one['amount']} {one['currency']}" for one in document["total"]))


def _row(one: dict[str, Any], names: list[str]) -> tuple[str, ...]:
    return (*(one_line(one[name]) or "-" for name in names), str(one["calls"]), f"{one['amount']} {one['currency']}")
