"""What the commands on keys and secrets share: which configuration is meant, its store opened, words for the rest.

Cases: `tests/cli/test_keys.py`, `tests/cli/test_secrets.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from narthex.config.places import Places
    from narthex.store.port import Store

T = TypeVar("T")

NO_CONFIG = """No configuration here: neither narthex.yaml nor .mcp.json. What is kept belongs to one; name it:
  narthex {command} --config PATH/TO/narthex.yaml"""

config_option = click.option(
    "--config",
    "config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The configuration that is meant; ./narthex.yaml, else ./.mcp.json by default.",
)
admin_option = click.option(
    "--admin", default="", metavar="URL", help="Where the gateway's admin side is; as configured by default."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


class Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from narthex.config.values import parse_duration

        if isinstance(value, float):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def find_file(ctx: click.Context, config: Path | None) -> Path:
    """The configuration that is meant. Ends with exit code 2 where there is none."""
    from narthex.config.load import find_config

    found = config or find_config(Path())
    if found is None:
        command = ctx.command_path.partition(" ")[2]
        click.echo(NO_CONFIG.format(command=command) + _or_folder(ctx, command), err=True)
        ctx.exit(2)
    return found


def _or_folder(ctx: click.Context, command: str) -> str:
    """The other way to say which journal is meant, where a command has one."""
    for one in ctx.command.params:
        if one.name in ("folder", "dir"):
            rest = "DIR" if isinstance(one, click.Argument) else f"{one.opts[0]} DIR"
            return f"\nor the folder of a journal:\n  narthex {command} … {rest}"
    return ""


def on_store(places: Places, work: Callable[[Store], Awaitable[T]]) -> T:
    """Do something with the store; a running gateway sees it within two seconds. Raises StoreError."""
    import asyncio

    from narthex.store.opening import open_store

    async def main() -> T:
        store = await open_store(places.store)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


def say(document: dict[str, Any]) -> None:
    """One JSON document on stdout."""
    import json

    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def when(at: int | None) -> str:
    """A time for people, in UTC."""
    import time

    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))


def stamp(at: int | None) -> str | None:
    """A time for programs (RFC 3339)."""
    import time

    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


GAP = 3
"""Blanks between two columns."""
_INDENT = 4


def terminal_width() -> int:
    """Of the terminal that stdout is; 0 where it is none: what others read is not folded."""
    import shutil
    import sys

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be; the first row is the heading. What a terminal has no room for goes below."""
    for line in table_lines(rows, terminal_width()):
        click.echo(line)


def table_width(rows: list[tuple[str, ...]]) -> int:
    """How wide a table is whose rows stand in one line each."""
    return sum(max(len(row[column]) for row in rows) + GAP for column in range(len(rows[0]))) - GAP


def table_lines(rows: list[tuple[str, ...]], width: int = 0) -> list[str]:
    """The same as lines. Where a row has no room in `width`, columns in which nothing stands are left out, and the last
    ones go into lines of their own below it, indented: no cell is cut or broken, for ids are copied from here. 0: there
    is room for everything."""
    if width and table_width(rows) > width:
        kept = [at for at in range(len(rows[0])) if at == 0 or any(row[at] != "-" for row in rows[1:])]
        rows = [tuple(row[at] for at in kept) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    found = []
    for number, row in enumerate(rows):
        for line in _folded([cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)], width):
            found.append(click.style(line, bold=True) if number == 0 else line)
    return found


def flowed(words: list[str], indent: str, width: int, *, gap: int = 1) -> list[str]:
    """Words in lines of at most `width`, all but the first indented, `gap` blanks apart; a word that is longer stands
    alone. Colours take no room. A width of 0 or less: one line."""
    lines = words[:1]
    for word in words[1:]:
        longer = lines[-1] + " " * gap + word
        if width <= 0 or len(click.unstyle(longer)) <= width:
            lines[-1] = longer
        else:
            lines.append(indent + word)
    return [line.rstrip() for line in lines]


def _folded(cells: list[str], width: int) -> list[str]:
    lines = [cells[0]]
    for cell in cells[1:]:
        longer = lines[-1] + " " * GAP + cell
        if not width or len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(" " * _INDENT + cell)
    return [line.rstrip() for line in lines]


def who_sits() -> str:
    """Who sits at the terminal, by the name that the system has for them; no variable can say another one."""
    import os
    import pwd

    try:
        return f"{pwd.getpwuid(os.geteuid()).pw_name} at the terminal"
    except KeyError:
        return f"user {os.geteuid()} at the terminal"


def record_act(config: Path, action: str, **particulars: Any) -> None:
    """Record what was done at the terminal, where this configuration records. Raises ClickException: it cannot."""
    import os

    from narthex.config.compile import load_snapshot
    from narthex.errors import ConfigError
    from narthex.telemetry.audit.by_hand import record_by_hand

    try:
        snapshot = load_snapshot(config, env=os.environ)
    except ConfigError:  # keys and secrets are mended before the rest is
        return
    if not snapshot.audit_dir:
        return
    try:
        act = {"action": action, "by": who_sits(), **particulars}
        state, second = Path(snapshot.state_dir), snapshot.audit_checkpoints
        record_by_hand(Path(snapshot.audit_dir), state, [("command", act)], second=second)
    except OSError as error:
        raise click.ClickException(f"it was done, and cannot be recorded: {error}") from None
