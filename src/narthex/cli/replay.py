"""`narthex replay`: recorded decisions, decided again. Needs no running gateway and starts no server.

In: records, and the configuration that they must agree with, or another one that they are held against. Out: what
differs; exit 0 nothing, 1 something, or nothing that could be compared. Cases: `tests/cli/test_replay.py`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.amounts import counted
from narthex.cli.audit_search import Moment
from narthex.cli.client import one_line
from narthex.cli.judging import judging
from narthex.cli.kept import config_option, find_file, json_option, say, table
from narthex.cli.records import WHAT_IDS, decisions_among, folder_of, recorded_in, whole_id

if TYPE_CHECKING:
    from narthex.flow.policy.decision import Decision
    from narthex.flow.policy.evidence.recorded import Recorded
    from narthex.flow.policy.evidence.replay import Difference, Replayed, Seen
    from narthex.types import Snapshot

SHOWN = 200
"""Rows for people; `--json` gives all."""
BY_WHICH_RULES = """By which rules? Records say what was decided and on what; the rules are in a configuration. Name it:
  narthex replay {records} --config FILE     the one that decided them: must it agree?
  narthex replay {records} --against FILE    another one: what would it change?"""

COMMANDLINE = click.core.ParameterSource.COMMANDLINE
_SERVING = (
    click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one."),
    click.option(
        "--dir", type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="The folder of a journal, also a copied one.",
    ),
    click.option(
        "--lists", type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="What `narthex list --json` has printed: lists are not recorded.",
    ),
    click.option(
        "--spent", type=click.Choice(("repeat", "error")), default="repeat", show_default=True,
        help="What a call gets that is made more often than it is recorded: the last answer, or an error.",
    ),
    click.option("--principal", default="", metavar="SUBJECT", help="Of all that is recorded, calls of this one."),
    click.option("--client", default="", help="Of all that is recorded, calls by this agent."),
    click.option("--since", type=Moment(), metavar="TIME", help="Of all that is recorded, from then on."),
    click.option("--until", type=Moment(), metavar="TIME", help="Of all that is recorded, before that."),
    click.option("--unproved", is_flag=True, help="Also a record that is not whole."),
    click.option("--keys", is_flag=True, help="Only for who shows the API key that is made for it."),
)  # fmt: skip


def _serving_options(command: Any) -> Any:
    for option in reversed(_SERVING):
        command = option(command)
    return command


@click.command()
@click.argument("records", metavar="[ID|FILE|DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Another configuration: list what it would change.",
)
@click.option("--shadow", is_flag=True, help="As if the rules in shadow mode counted: list what they would change.")
@click.option("--serve", is_flag=True, help="Dry replay: answer an agent from the record, in the place of the servers.")
@_serving_options
@config_option
@json_option
@click.pass_context
def replay(
    ctx: click.Context,
    /,
    records: Path | None,
    against: Path | None,
    shadow: bool,
    serve: bool,
    config: Path | None,
    as_json: bool,
    **serving: Any,
) -> None:
    """Decide recorded calls again: by the same configuration, which must agree, or against another one. Or, with
    --serve, let a recorded run answer an agent.

    FILE is one of the journal, or `-`, and DIR its folder; without them, where the configuration records. ID is that of
    a run, of a trace or session, or of one call: then those alone, of --dir or where the configuration records.
    Each record brings its own time, caller and arguments (`audit: {inputs: full}`), so the answer does not depend on
    today. The rules it does not bring: they are those of --config, ./narthex.yaml by default, or of --against.

    With --serve it is an ID, or the DIR of a journal. Until Ctrl-C, endpoints as the recorded ones answer on this
    machine: to each call what was answered then, the result that was kept, or the refusal. Nothing is sent to any
    server. A call that is not recorded gets the error `not_recorded`. At the end stands what the agent did otherwise.

    Exits 0 where nothing differs, 1 where something does or nothing could be compared.

    With --json: {"decided", "agrees", "differences": [{"principal", "kind", "resource", "before", "after", "count",
    "first", "last", "id"}], "more", "untold", "silent", "revision", "other_revision"}. With --serve: {"recorded",
    "same", "changed": [{"what", "record", "members"}], "new": [{"what", "count", "why"}], "missing", "again",
    "unanswered", "is_same"}, the last three lists as `new`.
    """
    if serve:
        if against is not None or shadow:
            raise click.UsageError("--serve decides nothing: it goes with neither --against nor --shadow")
        _serve(ctx, records, config, as_json, **serving)
    elif named := [name for name in serving if name != "dir" and ctx.get_parameter_source(name) is COMMANDLINE]:
        raise click.UsageError(f"--{named[0]} belongs to --serve")
    from narthex.config.compile import load_snapshot

    silent, others = [0], [0]
    snapshot = load_snapshot(against or _ruling(ctx, records or serving["dir"], config), env=os.environ)
    recorded = _recorded(ctx, records, serving["dir"], config, silent)
    by_effect = against is not None or shadow
    found = asyncio.run(_replay(recorded, snapshot, others, shadow=shadow, by_effect=by_effect))
    if as_json:
        say(_document(found, silent[0], snapshot.revision) | {"other_revision": others[0]})
    else:
        if others[0] and not by_effect:
            click.echo(f"{others[0]} were decided by another revision of the configuration.", err=True)
        _show(found, silent[0], against or (Path(snapshot.source) if shadow else None))
    ctx.exit(0 if found.agrees and found.decided else 1)


def _ruling(ctx: click.Context, records: Path | None, config: Path | None) -> Path:
    """The configuration by whose rules is decided. Ends with exit code 2 where there is none."""
    from narthex.config.load import find_config

    if config is None and records is not None and find_config(Path()) is None:
        click.echo(BY_WHICH_RULES.format(records=records), err=True)
        ctx.exit(2)
    return find_file(ctx, config)


def _recorded(
    ctx: click.Context, records: Path | None, folder: Path | None, config: Path | None, silent: list[int]
) -> Iterable[Recorded]:
    """What is to be decided again. Raises ClickException: nothing is recorded of this id."""
    from narthex.cli.finding import finding, found_by
    from narthex.config.compile import load_snapshot

    if records is not None and (str(records) == "-" or records.exists()):
        if folder is not None:
            raise click.UsageError(f"which is meant, {records} or --dir {folder}?")
        return recorded_in(records, silent)
    if records is None:
        return recorded_in(folder or folder_of(load_snapshot(find_file(ctx, config), env=os.environ)), silent)
    with finding(find_file(ctx, config) if folder is None else None, folder) as (find, place):
        id_ = whole_id(place, str(records))
        _, _, found = found_by(find, id_, place)
    found = [one for one in found if id_ in (one.get("id"), one.get("decision_id"))] or found
    if not found:
        raise click.ClickException(
            f"no file or folder {one_line(str(records))}, and nothing is recorded in {place} of such an ID:\n{WHAT_IDS}"
        )
    return decisions_among(sorted(found, key=lambda one: str(one.get("time", ""))), silent)


def _serve(
    ctx: click.Context, records: Path | None, config: Path | None, as_json: bool, *, dir: Path | None, spent: str,
    **more: Any,
) -> None:  # fmt: skip
    from narthex.cli.replay_serve import Wish, serve_record

    id_ = str(records) if records is not None else None
    if records is not None and records.is_dir():
        if dir is not None:
            raise click.UsageError(f"which folder is meant, {records} or {dir}?")
        id_, dir = None, records
    chosen = {name: value for name in ("principal", "client", "since", "until") if (value := more.pop(name))}
    if id_ and chosen:
        raise click.UsageError(f"--{next(iter(chosen))} chooses among all that is recorded: it goes with no ID")
    serve_record(ctx, Wish(id_, chosen, dir, config, repeats=spent == "repeat", as_json=as_json, **more))


async def _replay(
    recorded: Iterable[Recorded], snapshot: Snapshot, others: list[int], *, shadow: bool, by_effect: bool
) -> Replayed:
    """`others` counts decisions of another revision of the configuration."""
    from narthex.flow.policy.evidence.replay import Replayed
    from narthex.flow.policy.evidence.replay import replay as decide

    found = Replayed()
    async with judging(snapshot, shadow=shadow) as again:
        for one in recorded:
            others[0] += one.config not in ("", snapshot.revision)
            await decide(one, again, found, by_effect=by_effect)
    return found


def _show(found: Replayed, silent: int, against: Path | None) -> None:
    from narthex.flow.policy.evidence.replay import name_of

    if found.differences:
        rows: list[tuple[str, ...]] = [
            ("calls", "who", "what", "recorded", "now" if against is None else "then", "last")
        ]
        ordered = sorted(found.differences.items(), key=lambda one: -one[1].count)
        for key, seen in ordered[:SHOWN]:
            who, what = one_line(name_of(key.principal)), one_line(key.resource)
            rows.append((str(seen.count), who, what, _words(key.before), _words(key.after), seen.last))
        table(rows)
        if (more := len(ordered) - SHOWN) > 0:
            click.echo(f"… and {more} more; --json gives all")
        click.echo()
    for why, count in found.untold.items():
        click.echo(f"{count} could not be decided: {why}", err=True)
    if not found.decided:
        why = f"Nothing to compare: none of {silent} lines is a decision with its input (audit: {{inputs: full}})."
        click.secho("Nothing could be compared." if found.untold else why, fg="red")
        return
    total = sum(seen.count for seen in found.differences.values()) + found.more
    decisions = counted(found.decided, "decision")
    if not total:
        word = "all agree" if against is None else f"nothing changes under {against}"
        click.secho(f"{decisions}: {word}.", fg="green")
    elif against is None:
        click.secho(f"{decisions}: {total} differ{'s' if total == 1 else ''} from what was recorded.", fg="red")
    else:
        click.secho(f"{decisions}: {total} would change under {against}.", fg="yellow")


def _words(decision: Decision) -> str:
    from narthex.flow.policy.evidence.replay import effect_of

    by = f" by '{decision.rule}'" if decision.rule else f" ({decision.reason})" if decision.reason else ""
    return one_line(f"{effect_of(decision)}{by}")


def _document(found: Replayed, silent: int, revision: str) -> dict[str, Any]:
    return {
        "decided": found.decided,
        "agrees": found.agrees,
        "differences": [_difference(*one) for one in found.differences.items()],
        "more": found.more,
        "untold": dict(found.untold),
        "silent": silent,
        "revision": revision,
    }


def _difference(one: Difference, seen: Seen) -> dict[str, Any]:
    tenant, issuer, subject, client = one.principal
    return {
        "principal": {"tenant": tenant, "issuer": issuer, "subject": subject, "client": client},
        "kind": one.kind,
        "resource": one.resource,
        "before": _plain(one.before),
        "after": _plain(one.after),
        "count": seen.count,
        "first": seen.first,
        "last": seen.last,
        "id": seen.id,
    }


def _plain(decision: Decision) -> dict[str, Any]:
    return {
        "effect": decision.effect,
        "reason": decision.reason,
        "rule": decision.rule or None,
        "line": decision.line or None,
    }
