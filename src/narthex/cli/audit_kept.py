"""`narthex audit payload`, `erase`, `hold`, `upkeep`: what calls said is read, erased, held back, and grows old.

In: a configuration, whose journal it is; with or without a running gateway. Out: payloads; or what was done, which is a
record of the journal before it is done. Exit 0 done, 1 nothing found or held back, 2 misused.
Cases: `tests/cli/test_audit_kept.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.audit_search import FOLDER, Moment
from narthex.cli.client import as_it_was, one_line
from narthex.cli.groups import Group
from narthex.cli.kept import config_option, find_file, json_option, say, table, who_sits

if TYPE_CHECKING:
    from narthex.telemetry.audit.signed import Keys
    from narthex.telemetry.payloads.erasing import Concerned, Found
    from narthex.telemetry.payloads.lines import Seals
    from narthex.types import Snapshot

BATCH = 1_000
"""Payloads that one record names as erased."""
_CONCERNED = (
    click.option("--id", "ids", multiple=True, help="Of the call with this id, or this decisionId."),
    click.option("--principal", default="", metavar="SUBJECT", help="Of this human or service."),
    click.option("--issuer", default="", help="As this issuer calls them."),
    click.option("--client", default="", help="By this agent."),
    click.option("--tenant", default="", help="Of this tenant."),
    click.option("--since", type=Moment(), default=None, metavar="TIME", help="From this time on."),
    click.option("--until", type=Moment(), default=None, metavar="TIME", help="Before this time."),
)
reason_option = click.option("--reason", required=True, help="Why, for the record.")


def _concerned_options(command: Any) -> Any:
    for option in reversed(_CONCERNED):
        command = option(command)
    return command


def configured_seals(config: Path) -> Seals | None:
    """What opens payloads that are sealed; None where this configuration has no master key yet."""
    from narthex.authority.envelope import Envelopes
    from narthex.config.places import find_places
    from narthex.errors import ConfigError
    from narthex.keys import FILE_NAME, VARIABLE, load_keys

    state = find_places(config).state_dir
    if VARIABLE not in os.environ and not (state / FILE_NAME).exists():
        return None
    try:
        return Envelopes(load_keys(state, os.environ), os.urandom)
    except ConfigError:
        return None


def _snapshot(ctx: click.Context, config: Path | None) -> tuple[Path, Snapshot, Path]:
    """The configuration, and the folder of its journal."""
    from narthex.cli.records import folder_of
    from narthex.config.compile import load_snapshot

    path = find_file(ctx, config)
    snapshot = load_snapshot(path, env=os.environ)
    folder = folder_of(snapshot)
    if not folder.is_dir():
        raise click.ClickException(f"nothing is recorded yet in {folder}")
    return path, snapshot, folder


def _record(snapshot: Snapshot, folder: Path, *acts: tuple[Any, dict[str, Any]]) -> None:
    from narthex.telemetry.audit.by_hand import record_by_hand

    record_by_hand(folder, Path(snapshot.state_dir), acts, second=snapshot.audit_checkpoints)


@contextmanager
def _told() -> Iterator[None]:
    """What stands in the way is said in a line."""
    from narthex.telemetry.audit.holds import BadHolds

    try:
        yield
    except (BadHolds, OSError) as error:
        raise click.ClickException(str(error)) from None


def _records_of(folder: Path, ids: Sequence[str]) -> frozenset[str]:
    """The records under which the payloads of these calls are kept: their own, and those of their beginnings."""
    import msgspec

    from narthex.cli.records import find_record
    from narthex.telemetry.payloads.reading import notes_of

    found = set()
    for id_ in ids:
        record = msgspec.json.decode(find_record(folder, id_), type=dict[str, Any])
        for one in (str(record.get("id")), *(note.record for note in notes_of(record).values())):
            if one:
                found.add(one)
    return frozenset(found)


def _concerned(folder: Path, said: dict[str, Any]) -> Concerned:
    from narthex.telemetry.payloads.erasing import Concerned

    found = Concerned(
        _records_of(folder, said["ids"]), said["principal"], said["issuer"], said["client"], said["tenant"],
        said["since"] or "", said["until"] or "",
    )  # fmt: skip
    if found == Concerned():
        raise click.UsageError("whom or what does it concern? --id, --principal, --client, --tenant, --since, --until")
    return found


# --- reading


@click.command()
@click.argument("id_", metavar="ID")
@click.option("--dir", "folder", type=FOLDER, help="The folder of a journal, also a copied one.")
@config_option
@json_option
@click.pass_context
def payload(ctx: click.Context, id_: str, folder: Path | None, config: Path | None, as_json: bool) -> None:
    """Show what was kept of a call: its arguments and its result, as they were recorded.

    ID is that of a record, or the decisionId that a client was told, or the first 8 characters of one. A folder given
    by --dir needs no configuration; with --config, what is sealed in it is opened with the master key of that one.
    Exits 0 where something of it is here, else 1.

    With --json: {"record", "payloads": [{"part", "state", "kept", "redacted", "size", "body"}]}; `state` is here,
    erased, missing, changed, sealed, or none where it was not kept.
    """
    import msgspec

    from narthex.cli.records import find_record
    from narthex.telemetry.payloads.reading import Reader

    if folder is None:
        config, _, folder = _snapshot(ctx, config)
    record = msgspec.json.decode(find_record(folder, id_), type=dict[str, Any])
    found = Reader(folder, configured_seals(config) if config is not None else None).of(record)
    if as_json:
        rows = [
            {"part": one.part, "state": one.state, "kept": one.note.kept, "redacted": list(one.note.redacted),
             "size": one.note.size, "body": msgspec.json.decode(one.body) if one.body else None}
            for one in found
        ]  # fmt: skip
        say({"record": record.get("id"), "payloads": rows})
    else:
        for one in found:
            why = f": {one.note.reason}" if one.note.reason else ""
            click.secho(f"{one.part} ({one.note.kept}, {one.state}{why})", bold=True)
            if text := one.body.decode(errors="replace"):
                click.echo(as_it_was(text))
        if any(one.state == "sealed" for one in found):
            click.echo("sealed: --config names the configuration whose master key opens it", err=True)
        if not found:
            id_ = one_line(str(record.get("id")))
            click.echo(f"nothing of it was kept: `audit.payloads` says what is (record {id_})", err=True)
    ctx.exit(0 if any(one.state == "here" for one in found) else 1)


# --- erasing


@click.command()
@_concerned_options
@reason_option
@config_option
@json_option
@click.pass_context
def erase(ctx: click.Context, /, reason: str, config: Path | None, as_json: bool, **said: Any) -> None:
    """Erase what calls said. The records stay, and the journal stays whole.

    What is erased, by whom and why is a record before it is done, so `narthex audit verify` misses nothing. A running
    gateway may go on. What a legal hold covers stays: then nothing at all is erased, and the exit code is 1. Copies of
    the files elsewhere are not reached. What was broken off, the next `erase` ends.

    With --json: {"erased", "held"}: how many payloads, and the ids of the holds that stand against it.
    """
    from narthex.telemetry.audit.folder_lock import alone
    from narthex.telemetry.audit.holds import holds_in
    from narthex.telemetry.payloads.erasing import begins, find
    from narthex.telemetry.payloads.erasing import erase as run

    _, snapshot, folder = _snapshot(ctx, config)
    concerned = _concerned(folder, said)
    with _told(), alone(folder):
        found = list(find(folder, concerned))
        if held := _held(found, holds_in(folder)):
            if as_json:
                say({"erased": 0, "held": held})
            raise click.ClickException(f"nothing was erased: legal holds stand against it: {', '.join(held)}")
        if found:
            begins(folder)
            _record(snapshot, folder, *_acts(found, concerned, reason))
            run(found)
        _end_erasing(folder, _keys(snapshot))
    if as_json:
        say({"erased": len(found), "held": []})
    else:
        click.echo(f"{len(found)} payload{'' if len(found) == 1 else 's'} erased")
    ctx.exit(0 if found else 1)


def _keys(snapshot: Snapshot) -> Keys:
    """What records must be signed with before anything is done because they say so."""
    from narthex.telemetry.audit.checkpoints import load_signer

    signer = load_signer(Path(snapshot.state_dir))
    return {signer.id: signer.public}


def _end_erasing(folder: Path, keys: Keys) -> None:
    """Erase what records say is erased, and is there: somebody was interrupted. What a hold covers since then stays."""
    from narthex.telemetry.audit.holds import holds_in, not_held
    from narthex.telemetry.payloads.erasing import ends, erase, left_over

    left = left_over(folder, keys)
    free = not_held(left, holds_in(folder))
    erase(free)
    if len(free) == len(left):
        ends(folder)


def _held(found: Sequence[Found], holds: Sequence[Any]) -> list[str]:
    from narthex.telemetry.audit.holds import held_by

    hit = {one.id for each in found if each.line is not None and (one := held_by(holds, each.line)) is not None}
    return sorted(hit)


def _acts(found: Sequence[Found], concerned: Concerned, reason: str) -> list[tuple[Any, dict[str, Any]]]:
    """The records of it: which payloads, so many in each."""
    import msgspec

    records = list(dict.fromkeys(one.record for one in found))
    asked = msgspec.to_builtins(concerned)
    asked.pop("records", None)  # they are listed
    return [
        ("erase", {"by": who_sits(), "reason": reason, "concerned": asked, "records": records[at : at + BATCH]})
        for at in range(0, len(records), BATCH)
    ]


# --- legal holds


@click.group(cls=Group)
def hold() -> None:
    """Legal holds: what one covers is neither erased nor removed by its age."""


@hold.command()
@_concerned_options
@reason_option
@config_option
@json_option
@click.pass_context
def place(ctx: click.Context, /, reason: str, config: Path | None, as_json: bool, **said: Any) -> None:
    """Hold back payloads, and the segments with the records of them.

    With --json: {"id"}.
    """
    import time
    import uuid

    import msgspec

    from narthex.telemetry.audit.folder_lock import alone
    from narthex.telemetry.audit.holds import Hold, holds_in, keep_holds
    from narthex.telemetry.stamps import stamp

    _, snapshot, folder = _snapshot(ctx, config)
    one = Hold(uuid.uuid4().hex[:12], stamp(time.time()), who_sits(), reason, _concerned(folder, said))
    with _told(), alone(folder):
        # In force before it is recorded, and released after: whoever is interrupted between them holds too much.
        keep_holds(folder, [*holds_in(folder), one])
        act = {"step": "placed", "hold": msgspec.to_builtins(one)}
        _record(snapshot, folder, ("hold", act))
    if as_json:
        say({"id": one.id})
    else:
        click.echo(f"hold {one.id} is in force")


@hold.command()
@click.argument("id_", metavar="ID")
@reason_option
@config_option
@click.pass_context
def release(ctx: click.Context, id_: str, reason: str, config: Path | None) -> None:
    """Let a hold end. What it covered is erased or removed as all else is from now on.

    ID may be as much of an id as says which one is meant.
    """
    from narthex.telemetry.audit.folder_lock import alone
    from narthex.telemetry.audit.holds import holds_in, keep_holds

    _, snapshot, folder = _snapshot(ctx, config)
    with _told(), alone(folder):
        holds = holds_in(folder)
        meant = [one.id for one in holds if id_ and one.id.startswith(id_)]
        if len(meant) != 1:
            which = f"{len(meant)} holds begin with {id_}" if meant else f"no hold {id_} is in force"
            raise click.ClickException(f"{which}: narthex audit hold list")
        id_, left = meant[0], [one for one in holds if one.id != meant[0]]
        act = {"step": "released", "hold": {"id": id_}, "by": who_sits(), "reason": reason}
        _record(snapshot, folder, ("hold", act))
        keep_holds(folder, left)
    click.echo(f"hold {id_} is released")


@hold.command("list")
@config_option
@json_option
@click.pass_context
def list_(ctx: click.Context, config: Path | None, as_json: bool) -> None:
    """Holds that are in force.

    With --json: {"holds": [{"id", "time", "by", "reason", "concerned"}]}.
    """
    import msgspec

    from narthex.telemetry.audit.holds import holds_in

    _, _, folder = _snapshot(ctx, config)
    with _told():
        holds = holds_in(folder)
    if as_json:
        say({"holds": msgspec.to_builtins(holds)})
        return
    if not holds:
        click.echo("No legal holds are in force.")
        return
    rows: list[tuple[str, ...]] = [("id", "since", "by", "concerned", "reason")]
    for one in holds:
        whom = ", ".join(f"{key}={value}" for key, value in msgspec.to_builtins(one.concerned).items() if value)
        rows.append((one.id, one.time, one_line(one.by), one_line(whom), one_line(one.reason)))
    table(rows)


# --- growing old


@click.command()
@config_option
@json_option
@click.pass_context
def upkeep(ctx: click.Context, config: Path | None, as_json: bool) -> None:
    """Compress closed files, and remove what has stayed as long as `audit.retention` says. What an `erase` that was
    broken off has left is erased.

    A running gateway does it by itself, once an hour. What is removed is a record before it is done.

    With --json: {"compressed", "removed": {"files", "payloads"}}.
    """
    import time

    import msgspec

    from narthex.telemetry.audit.folder_lock import alone
    from narthex.telemetry.audit.upkeep import Removal, clear, compress
    from narthex.telemetry.payloads.erasing import is_under_way

    _, snapshot, folder = _snapshot(ctx, config)
    keeping, now, keys = snapshot.retention, time.time(), _keys(snapshot)
    with _told(), alone(folder):
        if is_under_way(folder):
            _end_erasing(folder, keys)
        clear(folder, keys)
        removal = Removal(folder, keeping, now, keys)
        if removal.removed:
            _record(snapshot, folder, ("retention", msgspec.to_builtins(removal.removed)))
            removal.carry_out()
        after_s = keeping.compress_after_s
        compressed = compress(folder, after_s, now) if after_s is not None else 0
    files, payloads = len(removal.removed.files), sum(removal.removed.payloads.values())
    if as_json:
        say({"compressed": compressed, "removed": {"files": files, "payloads": payloads}})
    else:
        click.echo(f"{compressed} files compressed; {files} segments and {payloads} payloads removed")
