"""A command with commands of its own, whose overview has the whole first sentence of each, however narrow the terminal.

Cases: `tests/cli/test_main.py`.
"""

from __future__ import annotations

import click

_WHOLE = 1 << 16


class Group(click.Group):
    """click cuts these sentences to one line; they are wrapped here."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(_WHOLE)) for name, one in rows if not one.hidden])
