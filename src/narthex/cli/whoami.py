"""`narthex whoami`: how a token or key is read, and why; with or without a running gateway.

In: a credential and a configuration. Out: each check with its result, and the principal; exit 0 where it would be let
in, 1 where not, 2 misused. Asks nobody but the issuer. Cases: `tests/cli/test_whoami.py`.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.client import Credential, credential_options, one_line
from narthex.cli.kept import config_option, find_file, json_option, say, stamp

if TYPE_CHECKING:
    from narthex.authority.explain import Reading, Step
    from narthex.types import Principal, ServerSpec, Snapshot

_SIGNS = {True: ("ok", "green"), False: ("NO", "red"), None: ("", "")}


@click.command()
@credential_options
@click.option("--endpoint", default="default", show_default=True, help="The endpoint that it is to be used at.")
@click.option("--server", metavar="NAME", help="Show too which account this caller has with a server.")
@config_option
@json_option
@click.pass_context
def whoami(
    ctx: click.Context, credential: Credential, endpoint: str, server: str | None, config: Path | None, as_json: bool
) -> None:
    """Show how a token or key is read, and why.

    Each check by its name; then what the claims make of its bearer: subject, tenant, roles, scopes. `-` reads the
    credential from stdin, so that it stays out of the list of processes.

    Exits 0 where a call with it would be let in, 1 where not; with --server also 1 where the server is not for it.
    """
    if not credential and server is None:
        raise click.UsageError("--token or --key says whose reading is wanted; - reads it from stdin")
    from narthex.config.compile import load_snapshot

    snapshot = load_snapshot(find_file(ctx, config), env=os.environ)
    if server is not None and server not in snapshot.servers:
        from narthex.config.document import suggest

        raise click.BadParameter(f"no server '{server}'{suggest(server, snapshot.servers)}")
    if snapshot.identity is None and server is not None:
        ctx.exit(_of_local(snapshot.servers[server], as_json=as_json))
    if snapshot.identity is None:
        click.echo("no identity is configured: every call comes from the principal 'local'", err=True)
        ctx.exit(1)
    if not credential:
        raise click.UsageError("--token or --key says whose account is wanted; - reads it from stdin")
    if endpoint not in snapshot.endpoints:
        from narthex.config.document import suggest

        raise click.BadParameter(f"no endpoint '{endpoint}'{suggest(endpoint, snapshot.endpoints)}")
    reading = asyncio.run(_read(snapshot, credential, endpoint))
    account: dict[str, Any] | None = None
    if server is not None and reading.principal is not None:
        account = _account(snapshot.servers[server], reading.principal)
    if as_json:
        say(_document(reading) | ({"server": account} if account is not None else {}))
    else:
        _show(reading)
        if account is not None:
            _show_account(account)
    ctx.exit(0 if reading.accepted and (account is None or account["for_it"]) else 1)


async def _read(snapshot: Snapshot, credential: str, endpoint: str) -> Reading:
    from narthex.authority.explain import explain
    from narthex.authority.fetch import Fetcher
    from narthex.authority.identify import Identity
    from narthex.authority.upkeep import Upkeep
    from narthex.config.compile import endpoint_url
    from narthex.keys import load_keys

    assert snapshot.identity is not None
    fetcher = Fetcher(snapshot.egress)
    upkeep = Upkeep(
        env=os.environ, master_keys=lambda: load_keys(Path(snapshot.state_dir), os.environ), fetch=fetcher.fetch,
        now=time.time, random=os.urandom,
    )  # fmt: skip
    try:
        await upkeep.apply(snapshot, api_keys=snapshot.identity.api_keys)
        identity = Identity(
            snapshot.identity, snapshot.endpoints, keys=upkeep.keys, fetch=fetcher.fetch, secrets=upkeep.secrets,
            now=time.time, clock=time.monotonic, chance=random.random,
        )  # fmt: skip
        own = frozenset({endpoint_url(snapshot, endpoint)})
        return await explain(identity, credential.encode(), snapshot.endpoints[endpoint], own)
    finally:
        await upkeep.close()
        fetcher.close()


def _of_local(server: ServerSpec, *, as_json: bool) -> int:
    """The account of everybody, while no identity is configured. Returns the exit code."""
    from narthex.types import LOCAL

    account = _account(server, LOCAL)
    if as_json:
        say({"accepted": True, "principal": _principal(LOCAL), "server": account})
    else:
        click.echo("no identity is configured: every call comes from the principal 'local'")
        _show_account(account)
    return 0 if account["for_it"] else 1


def _account(server: ServerSpec, principal: Principal) -> dict[str, Any]:
    """The caller's account with a server, and the row of its table that says so. No secret is looked up."""
    from narthex.authority.mapping import row_for

    row = row_for(server.accounts, principal)
    credential = row.credential if row is not None else None
    number = server.accounts.index(row) + 1 if row is not None else None
    return {
        "name": server.name,
        "credential": credential.name if credential is not None else None,
        "row": number,
        "of_callers_token": bool(getattr(credential, "of_caller", False)),
        "for_it": row is not None or not server.accounts,
    }


def _show_account(account: dict[str, Any]) -> None:
    click.echo(f"\nServer {account['name']}")
    if not account["for_it"]:
        click.secho("  no row of its table fits: the server is not for this caller", fg="red")
        return
    shown = account["credential"] or "nothing"
    more = ", made of the caller's own token" if account["of_callers_token"] else ""
    click.echo(f"  it is shown       {shown}{more}")
    if account["row"] is not None:
        click.echo(f"  by row            {account['row']}")


def _show(reading: Reading) -> None:
    said = f"issuer '{reading.issuer}'" if reading.issuer else "no issuer"
    click.echo(f"{reading.kind}, {said}\n")
    width = max((len(step.check) for step in reading.steps), default=0)
    for step in reading.steps:
        sign, colour = _SIGNS[step.ok]
        click.echo(
            f"  {click.style(sign.ljust(2), fg=colour or None)}  {step.check.ljust(width)}  {one_line(step.text)}"
        )
    if reading.principal is not None:
        click.echo("\nPrincipal")
        for name, value in _principal(reading.principal).items():
            shown = ", ".join(value) if isinstance(value, list) else value
            click.echo(f"  {name.ljust(16)}  {one_line(str(shown if shown not in (None, '') else '-'))}")
    colour, word = ("green", "let in") if reading.accepted else ("red", "turned away")
    click.secho(f"\nA call with it is {word}.", fg=colour)


def _document(reading: Reading) -> dict[str, Any]:
    return {
        "accepted": reading.accepted,
        "kind": reading.kind,
        "issuer": reading.issuer or None,
        "checks": [_step(step) for step in reading.steps if step.ok is not None],
        "read": [{"what": step.check, "text": step.text} for step in reading.steps if step.ok is None],
        "principal": _principal(reading.principal) if reading.principal is not None else None,
    }


def _step(step: Step) -> dict[str, Any]:
    return {"check": step.check, "ok": step.ok, "text": step.text}


def _principal(one: Principal) -> dict[str, Any]:
    return {
        "tenant": one.tenant,
        "issuer": one.issuer,
        "subject": one.subject,
        "client": one.client,
        "kind": one.kind,
        "roles": list(one.roles),
        "groups": list(one.groups),
        "scopes": sorted(one.scopes),
        "actors": list(one.actors),
        "method": one.method,
        "authenticated_at": stamp(int(one.authenticated_at)) if one.authenticated_at else None,
        "expires_at": stamp(int(one.expires_at)) if one.expires_at else None,
    }
