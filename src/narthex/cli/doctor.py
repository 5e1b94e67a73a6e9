"""`narthex doctor`: is everything there that the gateway needs, and if not, what to do? Changes nothing.

In: a configuration. Out: findings by area; exit 0 where nothing is wrong, 1 on a fault (`--strict`: also on a warning),
2 misused. Works with and without a running gateway. Cases: `tests/cli/test_doctor.py`, `tests/doctor/`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.amounts import counted
from narthex.cli.client import one_line
from narthex.cli.kept import admin_option, config_option, find_file, json_option, say

if TYPE_CHECKING:
    from narthex.doctor.finding import Finding
    from narthex.types import Snapshot

Document = dict[str, Any]
SIGNS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@click.command()
@click.option("--offline", is_flag=True, help="Ask nobody: no servers, no issuers.")
@click.option("--quick", is_flag=True, help="Do not read the whole journal.")
@click.option("--strict", is_flag=True, help="Exit 1 on warnings too.")
@admin_option
@config_option
@json_option
@click.pass_context
def doctor(
    ctx: click.Context, offline: bool, quick: bool, strict: bool, admin: str, config: Path | None, as_json: bool
) -> None:
    """Look at everything that the gateway needs, and say what to do where something is wrong.

    The configuration; who may read its files; room on the disk, the store, the journal; whether servers, issuers and
    collectors answer, their certificates, and whether the clock agrees with theirs; programs, open files, addresses;
    and the gateway that runs, if one does. Changes nothing, starts no server.

    Exits 0 where nothing is wrong, 1 on a fault (with --strict also on a warning).

    With --json: {"ok", "findings": [{"area", "name", "verdict": "ok" | "warn" | "fail", "said", "do"}]}.
    """
    import msgspec

    found = list(_look(find_file(ctx, config), admin, offline=offline, quick=quick))
    wrong = any(one.verdict == "fail" or (strict and one.verdict == "warn") for one in found)
    if as_json:
        say({"ok": not wrong, "findings": msgspec.to_builtins(found)})
    else:
        _show(found)
    ctx.exit(1 if wrong else 0)


def _look(file: Path, admin: str, *, offline: bool, quick: bool) -> Iterator[Finding]:
    from narthex.config.compile import examine
    from narthex.doctor.files import look_at_files
    from narthex.doctor.finding import fail, ok, warn
    from narthex.doctor.system import (
        look_at_addresses,
        look_at_gateway,
        look_at_limits,
        look_at_programs,
        look_at_versions,
    )

    yield from look_at_versions()
    examined = examine(file, env=os.environ)
    for problem in examined.problems:
        yield fail("configuration", "fault", str(problem), "mend it there; `narthex check` says whether it is enough")
    for warning in examined.warnings:
        yield warn("configuration", "warning", str(warning), "mend it there, or leave it knowingly")
    snapshot = examined.snapshot
    if snapshot is None:
        return
    yield ok("configuration", str(file), f"can be used, revision {snapshot.revision[:12]}")
    yield from look_at_files(snapshot, chain=not quick)
    yield from look_at_programs(snapshot)
    running = _running(snapshot, admin)
    if running is None:
        yield ok("gateway", "admin side", "no gateway runs by this configuration")
        yield from look_at_limits(snapshot)
        yield from look_at_addresses(snapshot)
    else:
        ready, settings, servers = running
        most = settings.get("open_files")
        yield from look_at_gateway(snapshot, ready, settings, servers)
        yield from look_at_limits(snapshot, most if isinstance(most, int) else None)
    if not offline:
        import asyncio

        from narthex.doctor.network import look_at_network

        yield from asyncio.run(look_at_network(snapshot))


def _running(snapshot: Snapshot, admin: str) -> tuple[Document, Document, Document] | None:
    """What the gateway says that runs by this configuration: `/readyz`, its settings, its servers. None: none does."""
    from narthex.cli.admin import Unreachable, ask

    try:
        ready, settings = ask(snapshot, admin, "/readyz"), ask(snapshot, admin, "/api/v1/config")
        return ready, settings, ask(snapshot, admin, "/api/v1/servers")
    except (Unreachable, ValueError):
        return None


def _show(found: list[Finding]) -> None:
    area = ""
    for one in found:
        if one.area != area:
            area = one.area
            click.secho(area, bold=True)
        sign, colour = SIGNS[one.verdict]
        click.echo(f"  {click.style(sign, fg=colour)} {one_line(one.name)}: {one_line(one.said)}")
        if one.do:
            click.echo(f"      {one_line(one.do)}")
    faults, warnings = (sum(one.verdict == verdict for one in found) for verdict in ("fail", "warn"))
    words = f"{counted(faults, 'fault')}, {counted(warnings, 'warning')}" if faults or warnings else "Nothing is wrong."
    click.secho(words, fg="red" if faults else "yellow" if warnings else "green", bold=True)
