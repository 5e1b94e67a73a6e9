"""`narthex secrets`: keep the secrets that servers want from us, sealed, with or without a running gateway.

In: names; values from stdin, never from the command line, where others of the machine could read them. Out: names,
dates, states, never a value; exit 0, 1 for what cannot be opened or is not there, 2 misused.
Cases: `tests/cli/test_secrets.py`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.groups import Group
from narthex.cli.kept import (
    Duration,
    config_option,
    find_file,
    json_option,
    on_store,
    record_act,
    say,
    stamp,
    table,
    when,
)

if TYPE_CHECKING:
    from narthex.authority.envelope import Envelopes
    from narthex.authority.sealed import Opened
    from narthex.config.places import Places
    from narthex.flow.codec.seal import MasterKey
    from narthex.store.port import Store

TENANT = "default"
MOST = 64 * 1024
"""Characters of a value."""
STEP_S = 3600.0
"""How long an old master key is there at least while secrets are brought under a new one."""


class SecretName(click.ParamType[str]):
    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from narthex.config.values import parse_secret_name

        try:
            return parse_secret_name(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group(cls=Group)
def secrets() -> None:
    """Keep secrets that servers want, sealed in the store.

    A credential of the configuration refers to one as `${secret:NAME}`. They belong to a configuration and work with or
    without a running gateway, which sees a change within two seconds. They are sealed with the master key of
    `.narthex/narthex.key` or NARTHEX_KEY: keep a copy of it apart from the copies of the store.
    """


@secrets.command("set")
@click.argument("name", type=SecretName())
@config_option
@json_option
@click.pass_context
def set_(ctx: click.Context, name: str, config: Path | None, as_json: bool) -> None:
    """Keep the value that is read from stdin as NAME, in the place of what it was.

    On a terminal it asks for the value without showing it. One line end at the end is not part of the value:

      printf %s "$TOKEN" | narthex secrets set github-pat

    With --json: {"name", "changed"}. Exits 0 when it is kept, 2 if there is no value.
    """
    import os

    from narthex.config.places import find_places
    from narthex.store.port import SealedSecret

    places = find_places(find_file(ctx, config))
    value = _read_value(ctx, name)
    envelopes = _envelopes(places)
    now = int(time.time())
    row = SealedSecret(name, envelopes.seal(value, TENANT, name), now, TENANT)

    async def work(store: Store) -> None:
        await store.put_secret(row)

    on_store(places, work)
    if as_json:
        say({"name": name, "changed": stamp(now)})
    else:
        click.echo(f"{name} is kept; a credential refers to it as ${{secret:{name}}}", err=True)
    if os.environ.get("NARTHEX_KEY") is None and not as_json:
        click.echo(f"sealed with {places.state_dir / 'narthex.key'}: keep a copy of that file elsewhere", err=True)
    record_act(find_file(ctx, config), "secrets.set", name=name)


@secrets.command("list")
@config_option
@json_option
@click.pass_context
def list_(ctx: click.Context, config: Path | None, as_json: bool) -> None:
    """Show names, dates, and whether each opens. Never a value.

    With --json: {"secrets": [{"name", "tenant", "state", "changed"}]}; a state is `ok`, `key_missing` or `damaged`.

    Exits 0 if all of them open, 1 if one does not.
    """
    from narthex.authority.sealed import open_row
    from narthex.config.places import find_places

    places = find_places(find_file(ctx, config))

    async def work(store: Store) -> list[Any]:
        return await store.secrets()

    rows = on_store(places, work)
    envelopes = _envelopes(places) if rows else None
    found = [open_row(row, envelopes) for row in rows] if envelopes is not None else []
    if as_json:
        say({"secrets": [
            {"name": one.row.name, "tenant": one.row.tenant, "state": _state(one), "changed": stamp(one.row.changed_at)}
            for one in found
        ]})  # fmt: skip
    elif not found:
        click.echo("no secrets in the store; `narthex secrets set NAME` keeps one")
    else:
        lines: list[tuple[str, ...]] = [("NAME", "TENANT", "STATE", "CHANGED")]
        table(lines + [(one.row.name, one.row.tenant, _state(one), when(one.row.changed_at)) for one in found])
    _tell(ctx, [one for one in found if one.value is None])


@secrets.command()
@click.argument("name", type=SecretName())
@config_option
@json_option
@click.pass_context
def remove(ctx: click.Context, name: str, config: Path | None, as_json: bool) -> None:
    """Keep NAME no more. With --json: {"removed": NAME}. Exits 0 when it was there, 1 if not."""
    from narthex.config.places import find_places

    async def work(store: Store) -> bool:
        return await store.delete_secret(TENANT, name)

    if not on_store(find_places(find_file(ctx, config)), work):
        click.echo(f"no secret '{name}' in the store", err=True)
        ctx.exit(1)
    if as_json:
        say({"removed": name})
    else:
        click.echo(f"{name} is removed; a running gateway forgets it within two seconds", err=True)
    record_act(find_file(ctx, config), "secrets.remove", name=name)


@secrets.command("rotate-key")
@click.option(
    "--keep", type=Duration(), default="2d", show_default=True,
    help="How long the old master key still opens what clients hold (sessions, cursors): longer than"
    " bounds.session_ttl; 0s where it has leaked.",
)  # fmt: skip
@config_option
@json_option
@click.pass_context
def rotate_key(ctx: click.Context, keep: float, config: Path | None, as_json: bool) -> None:
    """Make a new master key and bring all that is sealed under it, without stopping a gateway.

    A running gateway takes the new key up by itself. Where the key comes from NARTHEX_KEY, put a new one before the old
    one there first; this then brings the secrets under it. Run it again where it was interrupted: nothing is lost.

    With --json: {"key", "secrets", "payloads"}: the id of the new key, and how many secrets, and sealed payloads of the
    record of calls, were brought under it.

    Exits 0 when all secrets are under the new key, 1 if one does not open: it stays as it is and is named.
    """
    import os

    from narthex.authority.envelope import Envelopes
    from narthex.authority.sealed import reseal_all
    from narthex.config.places import find_places
    from narthex.keys import VARIABLE, end_old_keys
    from narthex.keys import rotate_key as rotate

    places = find_places(find_file(ctx, config))

    def reseal(keys: list[MasterKey]) -> tuple[int, list[Opened]]:
        async def work(store: Store) -> tuple[int, list[Opened]]:
            return await reseal_all(store, Envelopes(keys, os.urandom))

        return on_store(places, work)

    def reseal_payloads(keys: list[MasterKey]) -> int:
        from narthex.telemetry.audit.folder_lock import alone
        from narthex.telemetry.payloads.resealing import reseal

        folder = _journal(find_file(ctx, config))
        if folder is None:
            return 0
        with alone(folder):
            count, failed = reseal(folder, Envelopes(keys, os.urandom))
        if failed:
            click.echo(f"{len(failed)} payloads do not open with these keys: they stay as they are", err=True)
        return count

    # First under the key that is current now: rotating drops keys whose end has come, and none may take a secret along.
    count, failed = reseal(_keys(places))
    payloads = reseal_payloads(_keys(places))
    if os.environ.get(VARIABLE) is None or not count:
        now = time.time()
        keys = rotate(places.state_dir, os.environ, now=now, keep_s=max(keep, STEP_S))  # by a variable: says what to do
        count, failed = reseal(keys)
        payloads = reseal_payloads(keys)
        if keep < STEP_S:  # only now: had this ended half-way, the old key would still be there to go on with
            end_old_keys(places.state_dir, now=now, keep_s=keep)
    current = Envelopes(_keys(places), os.urandom).current
    record_act(find_file(ctx, config), "secrets.rotate-key", key=current, secrets=count, payloads=payloads)
    if as_json:
        say({"key": current, "secrets": count, "payloads": payloads})
    else:
        moved = "1 secret was" if count == 1 else f"{count} secrets were"
        click.echo(f"the master key is {current} now; {moved} brought under it", err=True)
    _tell(ctx, failed)


def _read_value(ctx: click.Context, name: str) -> str:
    """The value from stdin. What is wrong with one is said without repeating it."""
    if sys.stdin.isatty():
        value = str(click.prompt(f"Value of {name}", hide_input=True, err=True))
    else:
        data = sys.stdin.buffer.read(4 * MOST + 2)
        try:
            value = data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            click.echo("the value is not UTF-8; a secret is a text (encode binary ones in base64)", err=True)
            ctx.exit(2)
    if not value or len(value) > MOST or "\0" in value:
        wrong = "there is no value on stdin" if not value else f"a value has 1 to {MOST} characters and no NUL"
        click.echo(f'{wrong}; for instance: printf %s "$TOKEN" | narthex secrets set {name}', err=True)
        ctx.exit(2)
    return value


def _keys(places: Places) -> list[MasterKey]:
    import os

    from narthex.keys import load_keys

    return load_keys(places.state_dir, os.environ)


def _journal(config: Path) -> Path | None:
    """The folder of the journal, where there is one."""
    import os

    from narthex.config.compile import load_snapshot
    from narthex.errors import ConfigError

    try:
        folder = Path(load_snapshot(config, env=os.environ).audit_dir)
    except ConfigError:  # keys are rotated in any case; a payload opens for as long as its key is in the file
        return None
    return folder if folder.name and folder.is_dir() else None


def _envelopes(places: Places) -> Envelopes:
    import os

    from narthex.authority.envelope import Envelopes

    return Envelopes(_keys(places), os.urandom)


def _state(one: Opened) -> str:
    return "ok" if one.value is not None else "key_missing" if one.unknown_key else "damaged"


def _tell(ctx: click.Context, failed: list[Opened]) -> None:
    """Which secrets do not open, and the way out of each; exit code 1 where there is one."""
    for one in failed:
        click.secho(f"{one.row.name}: {one.problem}", err=True, fg="red")
    if failed:
        ctx.exit(1)
