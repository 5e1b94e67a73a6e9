"""`narthex cache`: what answers are kept, and their end. Asks the running gateway.

In: a configuration, perhaps a pattern. Out: a table, or JSON; exit 0, 1 where no gateway answers.
Cases: `tests/cli/test_cache.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from narthex.cli.amounts import counted, size, span
from narthex.cli.client import one_line
from narthex.cli.groups import Group
from narthex.cli.kept import admin_option, config_option, find_file, json_option, say, table_lines


@click.group(cls=Group)
def cache() -> None:
    """See what answers the running gateway keeps, and end them."""


@cache.command()
@admin_option
@config_option
@json_option
@click.pass_context
def show(ctx: click.Context, admin: str, config: Path | None, as_json: bool) -> None:
    """Show what is kept of which tool, prompt or resource: never what was asked or answered.

    With --json: {"cache": {"entries", "bytes", "most_entries", "most_bytes", "asked": {"hits", "stale", "joined",
    "misses", "kept"}, "rows": [{"tenant", "endpoint", "name", "kind", "rule", "entries", "bytes", "hits", "oldest"}]},
    "more"}; `cache` is null where nothing is kept by any rule.
    """
    found = _ask(ctx, config, admin, "GET")
    if as_json:
        say(found)
        return
    if found["cache"] is None:
        click.echo("Nothing is kept: the configuration has no cache.")
        return
    for line in _lines(found["cache"]):
        click.echo(line)
    if found["more"]:
        click.echo("There are more.", err=True)


@cache.command()
@click.argument("pattern", default="*")
@click.option("--tenant", default="", help="Only of this tenant.")
@admin_option
@config_option
@json_option
@click.pass_context
def clear(ctx: click.Context, pattern: str, tenant: str, admin: str, config: Path | None, as_json: bool) -> None:
    """End kept answers: of what PATTERN covers, a glob on canonical names such as `crm__*`; without it, all.

    With --json: {"cleared"}, how many there were.
    """
    found = _ask(ctx, config, admin, "DELETE", name=pattern, tenant=tenant)
    if as_json:
        say(found)
        return
    gone = found["cleared"]
    click.echo(f"{counted(gone, 'answer')} {'is' if gone == 1 else 'are'} gone.")


def _ask(ctx: click.Context, config: Path | None, admin: str, verb: str, **query: str) -> dict[str, Any]:
    from narthex.cli.admin import Unreachable, ask
    from narthex.config.compile import load_snapshot

    snapshot = load_snapshot(find_file(ctx, config), env=os.environ)
    try:
        return ask(snapshot, admin, "/api/v1/cache", verb=verb, **query)
    except Unreachable as error:
        click.echo(str(error), err=True)
        ctx.exit(1)


def _lines(cache: dict[str, Any]) -> list[str]:
    rows, tenants = cache["rows"], {one["tenant"] for one in cache["rows"]}
    found = []
    if rows:
        head = ("NAME", "ENDPOINT", "RULE", "ENTRIES", "SIZE", "HITS", "OLDEST")
        shown = [(_row(one) if len(tenants) == 1 else (one_line(one["tenant"]), *_row(one))) for one in rows]
        found += [*table_lines([head if len(tenants) == 1 else ("TENANT", *head), *shown]), ""]
    text = f"{counted(cache['entries'], 'answer')}, {size(cache['bytes'])} of {size(cache['most_bytes'])}."
    if asked := cache["asked"]:
        memory = asked["hits"] + asked["stale"]
        calls = memory + asked["joined"] + asked["misses"]
        text += (
            f" Of {counted(calls, 'call')} {memory} were answered from memory, {asked['stale']} of these stale,"
            f" {asked['joined']} waited for another's answer."
        )
    return [*found, text]


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        one_line(one["name"]), one_line(one["endpoint"]), one_line(one["rule"]), str(one["entries"]),
        size(one["bytes"]), str(one["hits"]), span(one["oldest"]),
    )  # fmt: skip
