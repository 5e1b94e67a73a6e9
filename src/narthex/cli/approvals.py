"""`narthex approvals`: calls that wait for a person; say yes or no, with or without a running gateway.

In: ids, or the beginning of one. Out: who wants to call what with which arguments, and until when that can be decided,
with nothing in it that could steer a terminal; or one JSON document. Exit 0, 1 for a call that is not there or can be
decided no more, 2 misused. Cases: `tests/cli/test_approvals.py`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.groups import Group
from narthex.cli.kept import config_option, find_file, json_option, on_store, say, stamp, when, who_sits

if TYPE_CHECKING:
    from narthex.authority.envelope import Envelopes
    from narthex.config.places import Places
    from narthex.flow.policy.approvals.approval import Approval
    from narthex.store.port import Store

SHORT = 8
"""Characters of an id that a list shows; as many as tell it apart will do for a command."""
MOST_SHOWN = 1000
"""Characters of the arguments that a list shows."""
_COLOURS = {"pending": "yellow", "approved": "green", "denied": "red", "used": None, "expired": None}


@click.group(cls=Group)
def approvals() -> None:
    """Approve or deny calls that wait for a person.

    A grant holds them (`hold`), or a policy. They belong to a configuration and work with or without a running gateway;
    each side sees what the other does within two seconds.
    """


@approvals.command("list")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Those too that were denied, used, or have expired.")
@config_option
@json_option
@click.pass_context
def list_(ctx: click.Context, ids: tuple[str, ...], everything: bool, config: Path | None, as_json: bool) -> None:
    """Show the calls that wait: who, what, with which arguments, until when. With an ID that one, with all of its
    arguments.

    With --json: {"approvals": [{"id", "state", "principal", "endpoint", "kind", "name", "rule", "by", "asked", "ends",
    "approved", "approved_by", "denied", "denied_by", "used", "params"}]}; `params` is null where they are gone.

    Exits 0; 1 if there is no such ID.
    """
    places = _places(ctx, config)
    now = time.time()

    async def work(store: Store) -> list[Approval]:
        return await store.approvals()

    rows = on_store(places, work)
    if ids:
        found = [_meant(ctx, rows, id_) for id_ in ids]
    else:
        found = [one for one in rows if everything or one.is_open(now)]
    envelopes = _envelopes(places) if any(one.params for one in found) else None
    if as_json:
        say({"approvals": [_document(one, envelopes, now) for one in found]})
    elif not found:
        click.echo("no calls wait for approval")
    for one in found if not as_json else ():
        _show(one, envelopes, now, whole=bool(ids))


@approvals.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@config_option
@json_option
@click.pass_context
def approve(ctx: click.Context, ids: tuple[str, ...], config: Path | None, as_json: bool) -> None:
    """Let a call pass, once, if it is made again in time. The beginning of an ID will do.

    With --json: {"approved": [ID, …]}. Exits 0 when all are approved, 1 if one is not there or can be decided no more;
    then none is.
    """
    _decide(ctx, ids, config, as_json, yes=True)


@approvals.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@config_option
@json_option
@click.pass_context
def deny(ctx: click.Context, ids: tuple[str, ...], config: Path | None, as_json: bool) -> None:
    """Refuse a call; also one that was approved, as long as it has not passed. The beginning of an ID will do.

    With --json: {"denied": [ID, …]}. Exits 0 when all are denied, 1 if one is not there or can be decided no more; then
    none is.
    """
    _decide(ctx, ids, config, as_json, yes=False)


def _decide(ctx: click.Context, ids: tuple[str, ...], config: Path | None, as_json: bool, *, yes: bool) -> None:
    from narthex.flow.policy.approvals.approval import NotOpen, approve, deny

    change, word, by, now = (approve if yes else deny), "approved" if yes else "denied", who_sits(), int(time.time())

    async def work(store: Store) -> list[Approval]:
        rows = await store.approvals()
        meant = [_meant(ctx, rows, id_) for id_ in ids]
        for one in meant:
            change(one, by, now)  # all or none
        return [then for one in meant if (then := await store.change_approval(one.id, lambda it: change(it, by, now)))]

    try:
        done = on_store(_places(ctx, config), work)
    except NotOpen as over:
        click.echo(f"it can be decided no more: it is {over}", err=True)
        ctx.exit(1)
    if as_json:
        say({word: [one.id for one in done]})
        return
    for one in done:
        until = f"; the same call passes once until {when(one.ends_at)} UTC" if yes else ""
        click.echo(f"{word}: {one.id[:SHORT]} {_name(one)}{until}")


def _meant(ctx: click.Context, rows: Sequence[Approval], given: str) -> Approval:
    """The call that an id, or its beginning, means. Ends with exit code 1 where it means none, or several."""
    found = [one for one in rows if one.id == given] or [one for one in rows if given and one.id.startswith(given)]
    if len(found) == 1:
        return found[0]
    what = "is the beginning of several; write more of it" if found else "is no call that was held"
    click.echo(f"{_safe(given, 64)} {what}; `narthex approvals list --all` shows them", err=True)
    ctx.exit(1)


def _show(one: Approval, envelopes: Envelopes | None, now: float, *, whole: bool) -> None:
    state = one.state(now)
    heads = {"pending": f"until {when(one.ends_at)} UTC", "approved": f"by {_safe(one.approved_by)}, may be used until"
             f" {when(one.ends_at)} UTC", "denied": f"by {_safe(one.denied_by)}", "used": f"at {when(one.used_at)} UTC",
             "expired": f"at {when(one.ends_at)} UTC"}  # fmt: skip
    click.echo(
        click.style(one.id if whole else one.id[:SHORT], bold=True)
        + "  " + click.style(state, fg=_COLOURS[state]) + f" {heads[state]}  " + click.style(_name(one), fg="cyan")
    )  # fmt: skip
    agent = f" by {_safe(one.client)}" if one.client and one.client != one.subject else ""
    acting = f", acting: {', '.join(map(_safe, one.actors))}" if one.actors else ""
    click.echo(f"  who        {_safe(one.subject)} of {_safe(one.issuer)}{agent}{acting}, tenant {_safe(one.tenant)}")
    user = "; the caller's user may approve it too" if one.by == "user" else ""
    click.echo(f"  held by    '{_safe(one.rule)}' at endpoint {one.endpoint}, {when(one.asked_at)} UTC{user}")
    for key, value in _shown(one, envelopes).items():
        click.echo(f"  {key:<10} {_safe(value, len(value) if whole else MOST_SHOWN)}")


def _shown(one: Approval, envelopes: Envelopes | None) -> dict[str, str]:
    """The parameters as text; what names the thing itself stands in the heading."""
    import json

    params = _params(one, envelopes)
    if params is None:
        return {
            "arguments": f"({one.size} bytes; gone, for it has ended)"
            if not one.params
            else "(do not open: another key)"
        }
    named = {"tools": "name", "prompts": "name", "resources": "uri"}.get(one.kind, "")
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in params.items() if key != named}
    return texts or {"arguments": "none"}


def _params(one: Approval, envelopes: Envelopes | None) -> Any:
    from narthex.authority.approvals import read_params

    return read_params(one, envelopes) if envelopes is not None else None


def _document(one: Approval, envelopes: Envelopes | None, now: float) -> dict[str, Any]:
    """As the admin API has it, with times for programs."""
    from narthex.authority.approvals import document

    found = document(one, now)
    times = {key.removesuffix("_at"): stamp(found.pop(key)) for key in [key for key in found if key.endswith("_at")]}
    return {**found, **times, "params": _params(one, envelopes)}


def _name(one: Approval) -> str:
    return _safe(f"{one.server}__{one.name}", 256)


def _safe(text: str, most: int = 128) -> str:
    from narthex.flow.policy.approvals.holding import printable

    return printable(text, most)


def _envelopes(places: Places) -> Envelopes:
    import os

    from narthex.authority.envelope import Envelopes
    from narthex.keys import load_keys

    return Envelopes(load_keys(places.state_dir, os.environ), os.urandom)


def _places(ctx: click.Context, config: Path | None) -> Places:
    from narthex.config.places import find_places

    return find_places(find_file(ctx, config))
