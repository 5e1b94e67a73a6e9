"""`narthex migrate`: brings the store to the form that this version knows. A file of SQLite is brought there at each
start anyway; a database of PostgreSQL only by this, because several gateways share it.

In: a configuration. Out: what was done. Cases: `tests/cli/test_migrate.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from narthex.cli.kept import config_option, find_file, json_option, say


@click.command()
@config_option
@json_option
@click.pass_context
def migrate(ctx: click.Context, config: Path | None, as_json: bool) -> None:
    """Bring the tables of the store to this version's form.

    Needed once for a new database of PostgreSQL, and after an upgrade that says so. All of it happens or nothing; of
    two that run at once, one waits. With --json: {"store", "before", "now"}, numbers of forms.
    """
    from narthex.config.places import find_places
    from narthex.store.opening import migrate_store

    name, before, now = migrate_store(find_places(find_file(ctx, config), env=os.environ).store)
    if as_json:
        say({"store": name, "before": before, "now": now})
    elif before == now:
        click.echo(f"{name} is of this version's form ({now}) already.")
    else:
        was = f"was of form {before}" if before else "had no tables of Narthex yet"
        click.echo(f"{name} {was}, and is of form {now} now.")
