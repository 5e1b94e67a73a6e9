"""`narthex replay --serve`: a recorded run answers an agent in the place of the servers, and tells what the agent did
otherwise.

In: the folder of a journal, also a copied one. Out: an MCP endpoint on the loopback address, until Ctrl-C or SIGTERM;
then a report: exit 0 where the agent did what is recorded, 1 where not, or where the record is not whole; 2 misused.
Cases: `tests/cli/test_replay_serve.py`, `tests/e2e/test_dry_replay.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from narthex.cli.amounts import counted
from narthex.cli.client import one_line
from narthex.cli.finding import MOST, finding, found_by
from narthex.cli.kept import find_file, say
from narthex.cli.records import WHAT_IDS

if TYPE_CHECKING:
    from narthex.playback.recorded import Recorded
    from narthex.playback.script import Report, Script
    from narthex.playback.staging import Naming
    from narthex.telemetry.payloads.lines import Seals
    from narthex.telemetry.record import Entry
    from narthex.types import Snapshot

LARGEST = 32 * 1024 * 1024
"""Bytes of a document of lists."""


class Wish(msgspec.Struct, frozen=True):
    """What is to be played, and how. `id_` None: of all that is recorded what `chosen` says, members of `Wanted`."""

    id_: str | None
    chosen: dict[str, str]
    folder: Path | None
    config: Path | None
    port: int
    lists: Path | None
    repeats: bool
    unproved: bool
    keys: bool
    as_json: bool


def serve_record(ctx: click.Context, wish: Wish) -> None:
    """Serve it until a signal ends it, and end with the report and its exit code."""
    from narthex.playback.catalogue import derived, merged, places
    from narthex.playback.script import Script
    from narthex.playback.staging import Naming

    file = _config(ctx, wish)
    snapshot = _snapshot(file)
    naming = Naming(snapshot.endpoints if snapshot is not None else {})
    seals = _seals(file)
    with finding(file, wish.folder) as (find, folder):
        if not wish.unproved:
            _prove(folder, seals)
        kind, name, records = (
            found_by(find, wish.id_, folder) if wish.id_ else ("all of", str(folder), _all(find, wish.chosen))
        )
    calls = _calls(records, folder, seals, naming)
    if not calls:
        ids = f":\n{WHAT_IDS}" if wish.id_ and not records else ""
        click.echo(f"no call of a tool, prompt or resource is recorded of {one_line(name)}{ids}", err=True)
        ctx.exit(1)
    items = derived(calls)
    if wish.lists is not None:
        endpoints = dict.fromkeys(one.endpoint for one in calls)
        place = places(calls, lambda server, own: [naming.shows(one, server, own) for one in endpoints])
        items = merged(items, _listed(wish.lists, place))
    script = Script(calls, _redact(snapshot), repeats=wish.repeats)
    _introduce(kind, name, calls, derived_only=wish.lists is None)
    with tempfile.TemporaryDirectory(prefix="narthex-replay-") as state:
        from narthex.playback.staging import staged

        _play(staged(Path(state), script, items, naming, port=wish.port, keys=wish.keys), script, keys=wish.keys)
    report = script.report()
    if wish.as_json:
        say({**msgspec.to_builtins(report), "is_same": report.is_same})
    else:
        click.echo("\n".join(report_lines(report)))
    ctx.exit(0 if report.is_same else 1)


# --- what is played


def _config(ctx: click.Context, wish: Wish) -> Path | None:
    """A copied folder needs none; where one is named, endpoints name things as it says, and it opens what is sealed."""
    return find_file(ctx, wish.config) if wish.folder is None else wish.config


def _snapshot(file: Path | None) -> Snapshot | None:
    from narthex.config.compile import load_snapshot

    return load_snapshot(file, env=os.environ) if file is not None else None


def _seals(file: Path | None) -> Seals | None:
    from narthex.cli.audit_kept import configured_seals

    return configured_seals(file) if file is not None else None


def _prove(folder: Path, seals: Seals | None) -> None:
    """Raises ClickException: what is recorded is not whole."""
    from narthex.telemetry.audit.checkpoints import read_keys
    from narthex.telemetry.audit.verify import verify

    try:
        report = verify(folder, read_keys(sorted(folder.glob("audit-*.pub"))), (), seals)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    if report.fault_count:
        first = report.faults[0]
        raise click.ClickException(
            f"the record is not whole: {one_line(first.file)}:{first.line}: {one_line(first.text)}\n"
            f"narthex audit verify {folder} tells all; --unproved plays it none the less"
        )


def _all(find: Callable[[Any], Any], chosen: dict[str, str]) -> list[dict[str, Any]]:
    from narthex.telemetry.audit.matching import Wanted

    records = []
    for record in find(msgspec.convert(chosen, Wanted)):
        records.append(record)
        if len(records) > MOST:
            raise click.ClickException(f"there are more than {MOST} records: name a run, or choose by --since")
    return records


def _calls(records: list[dict[str, Any]], folder: Path, seals: Seals | None, naming: Naming) -> list[Recorded]:
    from narthex.playback.recorded import recorded_in
    from narthex.playback.staging import sound
    from narthex.telemetry.payloads.reading import Reader

    try:
        return sound(recorded_in(records, Reader(folder, seals).of, naming.shows))
    except OSError as error:
        raise click.ClickException(f"what was kept cannot be read: {error}") from None


def _listed(path: Path, place: Callable[[Any, str], tuple[str, str] | None]) -> dict[str, Any]:
    from narthex.playback.catalogue import BadLists, listed

    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise BadLists(f"more than {LARGEST} bytes")
        return listed(data, place)
    except (BadLists, OSError) as error:
        raise click.ClickException(f"{path}: not what narthex list --json prints: {error}") from None


def _redact(snapshot: Snapshot | None) -> Callable[[bytes], bytes | None]:
    """As the configuration redacts; without one by all detectors."""
    from narthex.telemetry.payloads.redacting import Redactor, Unreadable

    spec = snapshot.audit_payloads if snapshot is not None else None
    redactor = Redactor(spec.pointers, spec.detectors) if spec is not None else Redactor()

    def redact(arguments: bytes) -> bytes | None:
        try:
            return redactor.applied(arguments or b"{}", "arguments")[0]
        except Unreadable:
            return None

    return redact


def _introduce(kind: str, name: str, calls: list[Recorded], *, derived_only: bool) -> None:
    click.echo(
        f"dry replay of {kind} {one_line(name)}: {counted(len(calls), 'call')},"
        f" {one_line(calls[0].at)} to {one_line(calls[-1].at)}; nothing is sent to any server",
        err=True,
    )
    if derived_only:
        click.echo("lists are not recorded: they have what was called (--lists FILE gives them as they were)", err=True)
    why: dict[str, int] = {}
    for one in calls:
        if one.why:
            why[one.why] = why.get(one.why, 0) + 1
    for text, count in why.items():
        click.echo(f"no answer to {counted(count, 'call')}: {text}", err=True)


# --- playing it


def _play(snapshot: Snapshot, script: Script, *, keys: bool) -> None:
    import uvloop

    from narthex.telemetry.log import set_up

    logs = set_up(snapshot.log_format)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(snapshot, script, keys=keys))
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error)
        raise click.ClickException(f"cannot listen on port {snapshot.listen[1]}: {said}; --port N") from None
    finally:
        logs.close()


async def _serve(snapshot: Snapshot, script: Script, *, keys: bool) -> None:
    from narthex.app import Gateway

    key = await _make_key(snapshot) if keys else ""
    gateway = Gateway(snapshot)
    await gateway.start()
    gateway.front.record, gateway.front.frames = _watch(script), None
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    shown = " ".join(f"mcp={url}" for url in gateway.endpoint_urls().values())
    click.echo(f"{shown}{f' key={key}' if key else ''} (Ctrl-C ends it with a report)", err=True)
    await stopping.wait()
    await gateway.stop()


def _watch(script: Script) -> Callable[[Entry], None]:
    """What is called and leads nowhere reaches no server, and is held against the record, too."""
    from narthex.playback.recorded import PLAYED

    def record(entry: Entry) -> None:
        if not entry.server and entry.method in PLAYED:
            script.refused(entry.method, entry.name)

    return record


async def _make_key(snapshot: Snapshot) -> str:
    """A key for this replay alone: its store goes with it."""
    from narthex.flow.identity.api_keys import make_key
    from narthex.store.opening import open_store
    from narthex.store.port import ApiKey

    os.makedirs(snapshot.state_dir, mode=0o700, exist_ok=True)
    new = make_key(os.urandom)
    store = await open_store(snapshot.store)
    try:
        await store.add_key(ApiKey(new.id, "agent", new.digest, int(time.time()), "default", (), (), None))
    finally:
        await store.close()
    return new.text


# --- what came of it


def report_lines(report: Report) -> list[str]:
    """For people."""
    lines = [f"{report.same} of {counted(report.recorded, 'recorded call')} made and answered"]
    for one in report.changed:
        which = f": {', '.join(map(one_line, one.members))}" if one.members else ""
        lines.append(
            click.style(f"other arguments  {one_line(one.what)}{which}  (record {one_line(one.record)})", "red")
        )
    for word, rows in (
        ("not recorded", report.new), ("not made", report.missing), ("made again", report.again),
        ("no answer", report.unanswered),
    ):  # fmt: skip
        for row in rows:
            why = f"  ({one_line(row.why)})" if row.why else ""
            lines.append(click.style(f"{word:<16} {one_line(row.what)}  {row.count}{why}", "red"))
    word, colour = ("the agent did what is recorded", "green") if report.is_same else ("not as recorded", "yellow")
    return [*lines, click.style(word, colour)]
