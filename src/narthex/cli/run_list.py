"""`narthex run list`: which runs there are, so that one can be shown, replayed or played to an agent.

In: a configuration, or the folder of a journal. Out: the latest runs, or JSON; exit 0, 1 where there is none.
Cases: `tests/cli/test_run_list.py`.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.amounts import counted
from narthex.cli.audit_search import FOLDER, Moment
from narthex.cli.client import one_line
from narthex.cli.finding import finding
from narthex.cli.kept import config_option, find_file, json_option, say, table

if TYPE_CHECKING:
    from narthex.telemetry.audit.execution import Run

LOOKED_AT = 10_000
"""Records: the latest ones. Which run one belongs to is in the record alone, and no index has it by name."""


@click.command("list")
@click.option("--dir", "folder", type=FOLDER, help="The folder of a journal, also a copied one.")
@click.option("--principal", default="", metavar="SUBJECT", help="Of this human or service.")
@click.option("--client", default="", help="By this agent.")
@click.option("--since", type=Moment(), metavar="TIME", help="From this time on.")
@click.option("--until", type=Moment(), metavar="TIME", help="Before this time.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The latest so many.")
@config_option
@json_option
@click.pass_context
def list_(
    ctx: click.Context, /, folder: Path | None, limit: int, config: Path | None, as_json: bool, **chosen: Any
) -> None:
    """Show the latest runs, by the ids with which `narthex run show` and `narthex replay` take them.

    A run is what the agent calls one, else a trace, else a legacy session; a call that is of none of these is of no
    run, and is shown by its own id. The latest 10,000 records are looked at.

    Exits 0 where there is a run, else 1.

    With --json: {"runs": [{"kind": "run" | "trace" | "session", "id", "first", "last", "sums": as in `run show`}],
    "looked_at"}, the latest last.
    """
    import msgspec

    from narthex.telemetry.audit.execution import runs_among
    from narthex.telemetry.audit.matching import Wanted

    file = find_file(ctx, config) if folder is None else None
    wanted = Wanted(**{name: value for name, value in chosen.items() if value})
    with finding(file, folder) as (find, _):  # a folder is read from its beginning, an index from its end
        found = find(wanted)
        records = list(deque(found, LOOKED_AT) if folder is not None else islice(found, LOOKED_AT))
    runs = runs_among(records)[-limit:]
    if as_json:
        say({"runs": msgspec.to_builtins(runs), "looked_at": len(records)})
    else:
        if runs:
            table([("last", "id", "kind", "who", "calls", "denied", "held", "failed", "cost"), *map(_row, runs)])
        click.echo(counted(len(runs), "run"), err=True)
        if len(records) == LOOKED_AT:
            click.echo(f"among the latest {LOOKED_AT} records: --until TIME goes back further", err=True)
    ctx.exit(0 if runs else 1)


def _row(one: Run) -> tuple[str, ...]:
    sums = one.sums
    who = ", ".join(sums.principals) + (f" with {', '.join(sums.clients)}" if sums.clients else "")
    cost = ", ".join(f"{amount} {currency}" for currency, amount in sums.cost.items())
    counts = (str(number or "-") for number in (sums.calls, sums.denied, sums.held, sums.failed))
    return (one.last[:19], one_line(one.id), one.kind, one_line(who) or "-", *counts, one_line(cost) or "-")
