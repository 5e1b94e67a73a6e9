"""`narthex top`: what is going on: who calls what, how it ends, how long it takes, what it costs.

In: a configuration, the admin API of its gateway. Out: a view that renews itself on a terminal; one table elsewhere, or
with `--once`; exit 0, 1 where no gateway answers. Plain ANSI, so that it works over anything that shows text.
What is shown is `top_frame.py`. Cases: `tests/cli/test_top.py`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from narthex.cli.kept import admin_option, config_option, find_file, json_option, say
from narthex.cli.top_frame import Document, frame, unused_lines

ORDERS = ("calls", "failed", "latency", "cost", "loops")
PATH = "/api/v1/activity"
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"


@click.command()
@click.option("--once", is_flag=True, help="Print one table and end; so it is where stdout is no terminal.")
@click.option("--every", type=click.FloatRange(0.2, 3600), default=2.0, metavar="SECONDS", help="How often to look; 2.")
@click.option("--by", "order", type=click.Choice(ORDERS), default="calls", help="What stands first.")
@click.option("--unused", is_flag=True, help="Show the tools that nobody has called since the gateway started.")
@admin_option
@config_option
@json_option
@click.pass_context
def top(
    ctx: click.Context, once: bool, every: float, order: str, unused: bool, admin: str, config: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Show who calls what, how it ends, how long it takes, what it costs. Ends with q or Ctrl-C.

    A second look shows calls a second, the first one sums since the gateway started.

    With --json: {"at", "started_at", "open_calls", "latency", "totals", "rows": [{"tenant", "subject", "client",
    "server", "name", "ok", "failed", "held", "refused", "seconds", "runs", "retries", "repeats", "loops", "cost"}],
    "more", "servers"}; with --unused {"since", "servers": [{"server", "listed", "tools"}]}.
    """
    from narthex.cli.admin import Unreachable, ask
    from narthex.config.compile import load_snapshot

    snapshot = load_snapshot(find_file(ctx, config), env=os.environ)

    def look(path: str = PATH) -> Document:
        return ask(snapshot, admin, path)

    try:
        if unused:
            found = look(f"{PATH}/unused")
            say(found) if as_json else click.echo("\n".join(unused_lines(found)))
        elif as_json:
            say(look())
        elif once or not sys.stdout.isatty():
            size = shutil.get_terminal_size() if sys.stdout.isatty() else (1000, 1000)  # COLUMNS is of no pipe
            click.echo("\n".join(frame(None, look(), order, *size)))
        else:
            _live(look, every, order)
    except Unreachable as error:  # said only here: the terminal is as it was, and keeps it
        click.echo(str(error), err=True)
        ctx.exit(1)


def _live(look: Callable[[], Document], every: float, order: str) -> None:
    """Look again and again. Whatever ends it, the terminal is as it was."""
    before, now = None, look()
    sys.stdout.write(_ENTER)
    try:
        with _keys() as pressed:
            while True:
                lines = frame(before, now, order, *shutil.get_terminal_size())
                sys.stdout.write(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines[:-1]) + lines[-1])
                sys.stdout.write(_CLEAR_LINE + _CLEAR_REST)
                sys.stdout.flush()
                if pressed(every) == "q":
                    break
                before, now = now, look()
    except KeyboardInterrupt:
        pass
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _wait(seconds: float) -> str:
    time.sleep(seconds)
    return ""


class _keys:
    """Keys that are pressed, one at a time and without a line end; where stdin is no terminal, none is."""

    def __enter__(self) -> Callable[[float], str]:
        self._before: list[Any] | None = None
        if not sys.stdin.isatty():
            return _wait
        import select
        import termios
        import tty

        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)

        def pressed(seconds: float) -> str:
            ready, _, _ = select.select([sys.stdin], [], [], seconds)
            return sys.stdin.read(1) if ready else ""

        return pressed

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
