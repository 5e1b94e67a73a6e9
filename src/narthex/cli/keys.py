"""`narthex keys`: make, list, revoke and rotate the API keys of a gateway, with or without it running.

In: names, roles, a life. Out: a key, shown once; tables, or one JSON document; exit 0, 1 for a key that is not there or
a name that is taken, 2 misused. Cases: `tests/cli/test_keys.py`.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

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
    from narthex.store.port import ApiKey, Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")  # RFC 6749 §3.3


class Name(click.ParamType[str]):
    """A name that can stand in logs, rules and metrics."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if _NAME.fullmatch(value) is None:
            self.fail(f"{value!r} is not a name: 1 to 64 of A-Z, a-z, 0-9 and . _ @ -", param, ctx)
        return str(value)


class Scope(click.ParamType[str]):
    name = "scope"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if _SCOPE.fullmatch(value) is None:
            self.fail(f"{value!r} is not a scope: no blanks, quotes or backslashes", param, ctx)
        return str(value)


@click.group(cls=Group)
def keys() -> None:
    """Make, list, revoke and rotate API keys.

    They belong to a configuration and work with or without a running gateway, which sees a change within two seconds.
    A gateway asks for keys once its configuration says `identity: {api_keys: true}`.
    """


@keys.command()
@click.argument("name", type=Name())
@click.option("--role", "roles", multiple=True, type=Name(), help="What it may be taken for in rules; repeatable.")
@click.option("--scope", "scopes", multiple=True, type=Scope(), help="An OAuth scope that it has; repeatable.")
@click.option("--tenant", default="default", show_default=True, type=Name(), help="Whose it is.")
@click.option("--expires", type=Duration(), help="How long it lives, such as 90d; without end by default.")
@config_option
@json_option
@click.pass_context
def create(
    ctx: click.Context,
    name: str,
    roles: tuple[str, ...],
    scopes: tuple[str, ...],
    tenant: str,
    expires: float | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Make a key for NAME and show it, this once.

    NAME is the service that calls with it. With --json: {"id", "name", "key"}. A client sends the key as
    `Authorization: Bearer nx_…`.

    Exits 0 when it was made, 1 if NAME has a key already (rotate it).
    """
    now = int(time.time())
    new, row = _new_key(name, now, tenant, roles, scopes, None if expires is None else now + int(expires))

    async def work(store: Store) -> bool:
        if any(key.name == name and key.tenant == tenant and key.valid_at(now) for key in await store.keys()):
            return False
        await store.add_key(row)
        return True

    if not on_store(_places(ctx, config), work):
        click.echo(f"{name} has a key already; `narthex keys rotate {name}` replaces it", err=True)
        ctx.exit(1)
    _show_new({"id": row.id, "name": name, "key": new}, as_json, ends=row.expires_at)
    said = {"name": name, "tenant": tenant, "roles": list(row.roles), "scopes": list(row.scopes)}
    record_act(find_file(ctx, config), "keys.create", ids=[row.id], **said)


@keys.command("list")
@click.option("--all", "everything", is_flag=True, help="Those too that are revoked or have expired.")
@config_option
@json_option
@click.pass_context
def list_(ctx: click.Context, everything: bool, config: Path | None, as_json: bool) -> None:
    """Show the keys: ids, names, roles, and when each was last used (written about once a minute). Never a key itself.

    With --json: {"keys": [{"id", "name", "tenant", "roles", "scopes", "state", "created", "expires", "revoked",
    "used"}]}.
    """
    now = time.time()

    async def work(store: Store) -> list[ApiKey]:
        return await store.keys()

    found = [key for key in on_store(_places(ctx, config), work) if everything or key.valid_at(now)]
    if as_json:
        say({"keys": [_document(key, now) for key in found]})
    elif not found:
        click.echo("no keys; `narthex keys create NAME` makes one")
    else:
        rows: list[tuple[str, ...]] = [
            ("ID", "NAME", "TENANT", "ROLES", "SCOPES", "STATE", "CREATED", "EXPIRES", "LAST USED")
        ]
        for key in found:
            lists = (", ".join(key.roles) or "-", " ".join(key.scopes) or "-")
            times = (when(key.created_at), when(key.expires_at), when(key.used_at))
            rows.append((key.id, key.name, key.tenant, *lists, _state(key, now), *times))
        table(rows)


@keys.command()
@click.argument("which", metavar="ID|NAME")
@click.option("--tenant", default="default", show_default=True, type=Name(), help="Whose, where a name is given.")
@config_option
@json_option
@click.pass_context
def revoke(ctx: click.Context, which: str, tenant: str, config: Path | None, as_json: bool) -> None:
    """End a key at once; by NAME all keys of that name.

    With --json: {"revoked": [id, …]}. Exits 0 when it was revoked, 1 if there is no such key, or not any more.
    """
    now = int(time.time())

    async def work(store: Store) -> list[str]:
        ids = [key.id for key in _meant(await store.keys(), which, tenant, now)]
        await store.revoke_keys(ids, at=now)
        return ids

    ids = on_store(_places(ctx, config), work)
    if not ids:
        _unknown(ctx, which)
    if as_json:
        say({"revoked": ids})
    else:
        click.echo(f"revoked: {', '.join(ids)}; a running gateway refuses it within two seconds")
    record_act(find_file(ctx, config), "keys.revoke", ids=ids)


@keys.command()
@click.argument("which", metavar="ID|NAME")
@click.option("--grace", type=Duration(), default="1h", show_default=True, help="How long the old key still works.")
@click.option("--expires", type=Duration(), help="Life of the new key; as long as the old one's was by default.")
@click.option("--tenant", default="default", show_default=True, type=Name(), help="Whose, where a name is given.")
@config_option
@json_option
@click.pass_context
def rotate(
    ctx: click.Context, which: str, grace: float, expires: float | None, tenant: str, config: Path | None, as_json: bool
) -> None:
    """Make a new key in the place of an old one and show it, this once; the old one works for the time of grace.

    The new key has the old one's name, tenant, roles and scopes. With --json: {"id", "name", "key", "replaces":
    [id, …]}.

    Exits 0 when it was made, 1 if there is no such key, or not any more.
    """
    now = int(time.time())

    async def work(store: Store) -> tuple[str, ApiKey, list[str]] | None:
        old = _meant(await store.keys(), which, tenant, now)
        if not old:
            return None
        last = old[-1]
        life = int(expires) if expires is not None else last.expires_at and last.expires_at - last.created_at
        new, row = _new_key(last.name, now, last.tenant, last.roles, last.scopes, now + life if life else None)
        await store.add_key(row, ends={key.id: now + int(grace) for key in old})
        return new, row, [key.id for key in old]

    done = on_store(_places(ctx, config), work)
    if done is None:
        _unknown(ctx, which)
    new, row, replaced = done
    document = {"id": row.id, "name": row.name, "key": new, "replaces": replaced}
    _show_new(document, as_json, ends=row.expires_at)
    if not as_json:
        click.echo(f"the old one ({', '.join(replaced)}) works until {when(now + int(grace))} UTC", err=True)
    record_act(find_file(ctx, config), "keys.rotate", ids=[row.id], replaces=replaced, name=row.name, tenant=row.tenant)


def _new_key(
    name: str, now: int, tenant: str, roles: tuple[str, ...], scopes: tuple[str, ...], expires_at: int | None
) -> tuple[str, ApiKey]:
    import os

    from narthex.flow.identity.api_keys import make_key
    from narthex.store.port import ApiKey

    new = make_key(os.urandom)
    row = ApiKey(new.id, name, new.digest, now, tenant, tuple(dict.fromkeys(roles)), tuple(dict.fromkeys(scopes)),
                 expires_at)  # fmt: skip
    return new.text, row


def _meant(found: list[ApiKey], which: str, tenant: str, now: float) -> list[ApiKey]:
    """The valid keys that an id or a name means, the oldest first. An id is nobody's name: it is asked first."""
    valid = [key for key in found if key.valid_at(now)]
    return [key for key in valid if key.id == which] or [
        key for key in valid if key.name == which and key.tenant == tenant
    ]


def _unknown(ctx: click.Context, which: str) -> NoReturn:
    shown = which if not which.startswith("nx_") else "a key itself: give its id, the part between the underscores"
    click.echo(f"no valid key {shown}; `narthex keys list` shows them", err=True)
    ctx.exit(1)


def _show_new(document: dict[str, Any], as_json: bool, *, ends: int | None) -> None:
    if as_json:
        say(document)
        return
    click.echo(document["key"])
    until = f", works until {when(ends)} UTC" if ends is not None else ""
    click.echo(f"id {document['id']}, name {document['name']}{until}; the key is shown only now", err=True)


def _state(key: ApiKey, now: float) -> str:
    return "valid" if key.valid_at(now) else "revoked" if key.revoked_at is not None else "expired"


def _document(key: ApiKey, now: float) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "roles": list(key.roles),
        "scopes": list(key.scopes),
        "state": _state(key, now),
        "created": stamp(key.created_at),
        "expires": stamp(key.expires_at),
        "revoked": stamp(key.revoked_at),
        "used": stamp(key.used_at),
    }


def _places(ctx: click.Context, config: Path | None) -> Any:
    from narthex.config.places import find_places

    return find_places(find_file(ctx, config))
