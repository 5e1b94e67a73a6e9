"""`narthex serve`: run the gateway until a signal ends it.

In: a configuration file, addresses. Out: exit 0 after a drain, 1 for a file or address that cannot be used, 2 misused.
Cases: `tests/cli/test_serve.py`, `tests/e2e/test_lifecycle.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from narthex.config.compile import Overrides
    from narthex.types import Snapshot

START_WITH = """No configuration here: neither narthex.yaml nor .mcp.json. Start with these three:
  printf 'version: 1\\nservers:\\n  time: {command: uvx, args: [mcp-server-time]}\\n' > narthex.yaml
  narthex check narthex.yaml
  narthex serve
or give a client's own file: narthex serve PATH/TO/mcp.json"""


@click.command()
@click.argument("config", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--listen", metavar="HOST:PORT", help="Where agents connect, instead of what CONFIG says.")
@click.option("--admin-listen", metavar="HOST:PORT", help="Where the admin side listens, instead of what CONFIG says.")
@click.pass_context
def serve(ctx: click.Context, config: Path | None, listen: str | None, admin_listen: str | None) -> None:
    """Run the gateway.

    CONFIG is a narthex.yaml or a client's mcp.json; without it ./narthex.yaml, then ./.mcp.json is taken. A changed
    file is taken up while it runs, SIGHUP does the same. SIGTERM and Ctrl-C let running calls end, a second one does
    not.

    Exits 0 when it was told to stop, 1 if the configuration or an address cannot be used, 2 if there is nothing to run.
    """
    from narthex.config.compile import Overrides, load_snapshot
    from narthex.config.load import find_config

    _check_address("--listen", listen)
    _check_address("--admin-listen", admin_listen)
    found = config or find_config(Path())
    if found is None:
        click.echo(START_WITH, err=True)
        ctx.exit(2)
    snapshot = load_snapshot(found, listen=listen, admin_listen=admin_listen)
    ctx.exit(_run(snapshot, Overrides(listen, admin_listen), found))


def _check_address(option: str, text: str | None) -> None:
    from narthex.config.values import parse_address

    try:
        if text is not None:
            parse_address(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _run(snapshot: Snapshot, overrides: Overrides, path: Path) -> int:
    import asyncio

    import uvloop

    from narthex import serve as process
    from narthex.flow.upstream.secrets import HANDED_OUT
    from narthex.telemetry.log import set_up

    _leave_no_core()
    logs = set_up(snapshot.log_format, hide=HANDED_OUT.hide)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(process.serve(snapshot, overrides, logs, path))
    except OSError as error:
        click.echo(f"narthex: {_explain(error, snapshot)}", err=True)
        return 1
    finally:
        logs.close()


def _leave_no_core() -> None:
    """A core file would hold every secret; neither we nor what we start leave one."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _explain(error: OSError, snapshot: Snapshot) -> str:
    """One line that says what to change."""
    import errno
    import os

    from narthex.config.values import show_address

    said = error.strerror or str(error)
    if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES) and error.filename is None:
        if not said.startswith("cannot listen"):
            said = f"cannot listen on {show_address(snapshot.listen)}: {os.strerror(error.errno)}"
        return f"{said}; --listen and --admin-listen choose others"
    return f"{error.filename}: {said}" if error.filename else said
