"""`narthex limits`: what is used of each limit, and when there is more. Asks the running gateway.

In: a configuration, perhaps a principal. Out: a table, or JSON; exit 0, 1 where no gateway answers.
Cases: `tests/cli/test_limits.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from narthex.cli.amounts import counted, size, span
from narthex.cli.client import one_line
from narthex.cli.kept import admin_option, config_option, find_file, json_option, say, table


@click.command()
@click.option("--principal", default="", metavar="SUBJECT", help="Only the buckets that this human or service has.")
@admin_option
@config_option
@json_option
@click.pass_context
def limits(ctx: click.Context, principal: str, admin: str, config: Path | None, as_json: bool) -> None:
    """Show what is used of each limit, by callers that were here lately, and when there is more.

    With --json: {"limits": [{"limit", "unit", "per", "used", "most", "resets_in", "currency"}], "more"}.
    """
    from narthex.cli.admin import Unreachable, ask
    from narthex.config.compile import load_snapshot

    snapshot = load_snapshot(find_file(ctx, config), env=os.environ)
    try:
        found = ask(snapshot, admin, "/api/v1/limits", principal=principal)
    except Unreachable as error:
        click.echo(str(error), err=True)
        ctx.exit(1)
    if as_json:
        say(found)
        return
    if not found["limits"]:
        click.echo("Nothing has been counted lately." if snapshot.quotas else "No limits are configured.")
        return
    table([("LIMIT", "PER", "USED", "OF", "MORE IN"), *map(_row, found["limits"])])
    if found["more"]:
        click.echo("There are more; name a --principal.", err=True)


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    per = ", ".join(f"{word} {one_line(value).strip() or '-'}" for word, value in one["per"].items())
    used, most = _amounts(one)
    return one_line(one["limit"]), per or "everybody", used, most, span(one["resets_in"]) if one["resets_in"] else "-"


def _amounts(one: dict[str, Any]) -> tuple[str, str]:
    """What is used, and of what: money is counted in millionths, all else as its unit says."""
    from narthex.flow.limit.money import show_amount, show_money

    used, most = one["used"], one["most"]
    unit, _, way = one["unit"].partition("_")
    if unit == "money":
        return show_amount(used), show_money(most, one["currency"])
    if unit == "bytes":
        return size(used), f"{size(most)} {way}".rstrip()
    if unit == "concurrent":
        return str(used), f"{most} at a time"
    return str(used), f"{counted(most, unit.removesuffix('s'))} {way}".rstrip()
