"""`narthex check`: can this configuration be used? Reads files only: starts nothing, connects to nothing.

In: a configuration file. Out: problems, or what it sets up; exit 0 (fine or warnings), 1 (faults; warnings with
`--strict`), 2 (misused). Cases: `tests/cli/test_check.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from narthex.config.compile import Examined
    from narthex.config.document import Problem
    from narthex.types import ServerSpec, Snapshot

START_WITH = """No configuration here: neither narthex.yaml nor .mcp.json. Start with one of
  narthex check FILE                       a narthex.yaml, or a client's own mcp.json
  narthex schema                           every key that a narthex.yaml can have
  narthex serve --help                     how the gateway is run"""


@click.command()
@click.argument("config", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--strict", is_flag=True, help="Exit 1 on warnings too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def check(ctx: click.Context, config: Path | None, strict: bool, as_json: bool) -> None:
    """Say whether CONFIG can be used, and what it sets up.

    Reads files only: no server is started, nothing is connected to. CONFIG is a narthex.yaml or a client's mcp.json;
    without it ./narthex.yaml, then ./.mcp.json is taken.

    Exits 0 if it can be used, 1 if not (with --strict also on warnings), 2 if there is nothing to check.
    """
    from narthex.config.compile import examine
    from narthex.config.load import find_config

    found = config or find_config(Path())
    if found is None:
        click.echo(START_WITH, err=True)
        ctx.exit(2)
    examined = examine(found)
    if as_json:
        click.echo(_document(found, examined))
    else:
        _show(found, examined)
    ctx.exit(1 if examined.problems or (strict and examined.warnings) else 0)


def _show(path: Path, examined: Examined) -> None:
    snapshot = examined.snapshot
    if snapshot is None:
        for problem in examined.problems:
            _line(problem, "red")
        for warning in examined.warnings:
            _line(warning, "yellow", "warning: ")
        count = len(examined.problems)
        click.secho(f"{path} cannot be used: {count} problem{'s' if count != 1 else ''}", fg="red", bold=True)
        return
    click.echo(
        click.style(f"{path} is fine", fg="green", bold=True)
        + click.style(f"   revision {snapshot.revision[:12]}", dim=True)
    )
    _table("Servers", [(name, *_server_words(server)) for name, server in snapshot.servers.items()])
    _table("Endpoints", [(name, _url(snapshot, name), _endpoint_words(snapshot, name)) for name in snapshot.endpoints])
    for title, lines, colour in (("Warnings", examined.warnings, "yellow"), ("Notices", examined.notices, "")):
        if lines:
            click.secho(f"\n{title}", bold=True)
        for line in lines:
            click.echo("  ", nl=False)
            _line(line, colour)


def _line(problem: Problem, colour: str, prefix: str = "") -> None:
    """`file:line:column` first and uncoloured, so that editors and terminals can follow it."""
    place = str(problem)[: len(str(problem)) - len(problem.text)]
    click.echo(place + prefix + (click.style(problem.text, fg=colour) if colour else problem.text))


def _table(title: str, rows: list[tuple[str, ...]]) -> None:
    if not rows:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    click.secho(f"\n{title}", bold=True)
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  " + "   ".join([click.style(cells[0], fg="cyan"), *cells[1:], row[-1]]).rstrip())


def _server_words(server: ServerSpec) -> tuple[str, str]:
    """How it is reached. Arguments and queries are left out: they may hold a token."""
    from narthex.types import HttpTarget

    if isinstance(server.target, HttpTarget):
        return {"auto": "http", "http": "http", "sse": "sse"}.get(server.transport, "http"), server.target.url.split(
            "?"
        )[0]
    words = {"first_use": "started on first use", "at_start": "started at once"}[server.target.start]
    return "stdio", f"{server.target.command}   ({words})"


def _url(snapshot: Snapshot, endpoint: str) -> str:
    from narthex.config.compile import endpoint_url

    url = endpoint_url(snapshot, endpoint)
    return url.replace(":0/", ":<port>/", 1) if snapshot.listen[1] == 0 and not snapshot.public_url else url


def _endpoint_words(snapshot: Snapshot, name: str) -> str:
    endpoint = snapshot.endpoints[name]
    words = [", ".join(endpoint.servers) or "no servers"]
    if endpoint.naming == "none":
        words.append("plain names")
    if any((endpoint.tools.include, endpoint.tools.exclude)):
        words.append("some tools")
    return "   ".join(words)


def _document(path: Path, examined: Examined) -> str:
    """The same as one JSON document; without secrets, arguments, queries and timings."""
    import json

    snapshot = examined.snapshot
    document: dict[str, Any] = {
        "ok": snapshot is not None,
        "file": str(path),
        "revision": snapshot.revision if snapshot else None,
    }
    for title in ("problems", "warnings", "notices"):
        document[title] = [_plain(problem) for problem in getattr(examined, title)]
    document["servers"], document["endpoints"] = [], []
    if snapshot is not None:
        document["listen"] = _address(snapshot.listen)
        document["admin_listen"] = _address(snapshot.admin_listen)
        document["servers"] = [_plain_server(server) for server in snapshot.servers.values()]
        document["endpoints"] = [
            {"name": name, "url": _url(snapshot, name), "servers": list(endpoint.servers), "naming": endpoint.naming}
            for name, endpoint in snapshot.endpoints.items()
        ]
    return json.dumps(document, indent=2, ensure_ascii=False)


def _plain(problem: Problem) -> dict[str, Any]:
    mark = problem.mark
    return {
        "file": problem.file,
        "line": mark.line if mark else None,
        "column": mark.column if mark else None,
        "text": problem.text,
    }


def _plain_server(server: ServerSpec) -> dict[str, Any]:
    from narthex.types import HttpTarget

    target = server.target
    where = {"url": target.url.split("?")[0]} if isinstance(target, HttpTarget) else {"command": target.command}
    return {"name": server.name, "transport": server.transport, "sharing": server.sharing, **where}


def _address(address: tuple[str, int]) -> str:
    from narthex.config.values import show_address

    return show_address(address)
