"""`narthex explain RECORD`: a recorded decision explained with what was recorded of it, and whether it is the same now.

In: the id of a record, a decision id, or a file with one. Out: each rule with what it says, and what was recorded; exit
0 where both are the same. Cases: `tests/cli/test_explain_record.py`.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.client import one_line
from narthex.cli.explain_shown import document_of, document_of_trace, judged, show, show_trace
from narthex.cli.judging import decided_again
from narthex.cli.kept import say
from narthex.cli.records import find_record, folder_of, grants_of, imagined, lines_of

if TYPE_CHECKING:
    from narthex.flow.policy.decision import Decision
    from narthex.flow.policy.evidence.recorded import Recorded
    from narthex.types import Snapshot


def explain_record(ctx: click.Context, record: str, config: Path, folder: Path | None, *, as_json: bool) -> None:
    """Explain one recorded decision by this configuration, and end with its exit code. `folder`: where an id is looked
    for; None: where the configuration records."""
    from narthex.config.compile import load_snapshot
    from narthex.flow.policy.evidence.again import Untold
    from narthex.flow.policy.evidence.replay import agree
    from narthex.flow.policy.explanation import explain

    snapshot = load_snapshot(config, env=os.environ)
    one = _read(record, snapshot, folder)
    asked, call, run = one.asked, one.asked.call, one.asked.run or {}
    try:
        decision, trace = asyncio.run(decided_again(snapshot, asked))
    except Untold as error:
        _show_untold(one, str(error), as_json=as_json)
        ctx.exit(1)
    found = explain(
        grants_of(snapshot),
        call.principal,
        call.endpoint,
        asked.kind,
        (asked.target.server, asked.target.name),
        call.params,
        {"address": asked.address},
        asked.at,
        imagined(snapshot, call.principal, call.endpoint, run.get("labels", ()), run.get("calls", {})),
    )
    found = judged(found, decision)
    agrees = one.said is not None and agree(one.said, decision)
    if as_json:
        document = document_of(found, snapshot.revision)
        say(
            {
                **document,
                "trace": document_of_trace(trace),
                "agrees": agrees,
                "record": {"id": one.id, "time": one.time, **_said(one.said)},
            }
        )
    else:
        _show_asked(one)
        show_trace(trace)
        show(found, Path(snapshot.source).name)
        _show_recorded(one.said, agrees=agrees)
    ctx.exit(0 if agrees else 1)


def _read(record: str, snapshot: Snapshot, folder: Path | None) -> Recorded:
    """Raises ClickException: there is no such record, or it lacks its input."""
    from narthex.flow.policy.evidence.recorded import BadRecord, Reader

    reader = Reader()
    if record != "-" and not (path := _path(record)).exists():
        lines = [find_record(folder or folder_of(snapshot), record)]
    else:
        path = Path("-") if record == "-" else _path(record)
        lines = [line for place, line in lines_of(path) if path == Path(record) or place == record]
    try:
        found = [one for one in map(reader.read, lines[:2]) if one is not None]
    except BadRecord as error:
        raise click.ClickException(str(error)) from None
    if not lines:
        raise click.ClickException(f"no record in {record}")
    if len(lines) > 1:
        raise click.ClickException(f"several records in {record}: name one, as {record}:LINE or by its id")
    if not found and b'"event":"begin"' in lines[0]:
        raise click.ClickException("that record says that a call begins; the one of its end, if any, what was decided")
    if not found:
        raise click.ClickException(_why_untaken(lines[0]))
    return found[0]


def _why_untaken(line: bytes) -> str:
    """Of a record without an input: why there is none."""
    import msgspec

    record = msgspec.json.decode(line, type=dict[str, Any])
    event, outcome = (
        one_line(str(record.get("event", ""))),
        one_line(str(record.get("reason") or record.get("outcome"))),
    )
    if event not in ("call", "refused", ""):
        return (
            f"that record is of no call: {event}; narthex audit search --id {one_line(str(record.get('id')))} shows it"
        )
    if "policy" in record or not event:
        return "what that decision was taken on was not recorded (audit: {inputs: full})"
    if outcome == "not_found":
        return "no rule has decided that call: its name led to nothing that the caller sees (not_found)"
    if record.get("decision") == "deny":
        return f"no rule has decided that call: it was refused before ({outcome})"
    return "no rule has decided that call: there was none"


def _path(record: str) -> Path:
    """The file of `FILE` or `FILE:LINE`."""
    file, _, line = record.rpartition(":")
    return Path(file if file and line.isdecimal() and not Path(record).exists() else record)


def _show_asked(one: Recorded) -> None:
    from narthex.flow.policy.evidence.replay import name_of

    call = one.asked.call
    where = f" from {one.asked.address}" if one.asked.address else ""
    who = one_line(name_of(call.principal))
    click.echo(f"{one.time}  {who}{where}  {call.method} {one_line(one.asked.resource)} at {call.endpoint}\n")


def _show_untold(one: Recorded, why: str, *, as_json: bool) -> None:
    """What was recorded, where it cannot be held against anything."""
    why = f"it cannot be decided again: {why}"
    if as_json:
        say({"agrees": False, "untold": why, "record": {"id": one.id, "time": one.time, **_said(one.said)}})
        return
    _show_asked(one)
    if one.said is not None:
        click.echo(f"{_recorded(one.said)}.")
    click.secho(f"Error: {one_line(why)}", fg="red", err=True)


def _show_recorded(said: Decision | None, *, agrees: bool) -> None:
    if said is None:
        click.secho("What was decided then is not in the record.", fg="red")
        return
    words = _recorded(said)
    click.secho(f"{words}: the same." if agrees else f"{words}: not the same.", fg="green" if agrees else "red")


def _recorded(said: Decision) -> str:
    from narthex.flow.policy.decision import NOT_GRANTED

    by = f" by '{said.rule}' (line {said.line})" if said.rule else ""
    hidden = " (so is all that the caller does not see)" if said.reason == NOT_GRANTED else ""
    return f"Recorded: {said.effect}, {said.reason or 'no reason given'}{by}{hidden}"


def _said(said: Decision | None) -> dict[str, str | int | None]:
    if said is None:
        return dict.fromkeys(("decision", "reason", "rule", "line"))
    return {"decision": said.effect, "reason": said.reason, "rule": said.rule or None, "line": said.line or None}
