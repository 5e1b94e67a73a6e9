"""`narthex run show`: the calls of one multi-step run as a tree: each decision, each call, what it returned, its cost.

In: an id of a run, a trace, a session or of one of its calls; a configuration, or the folder of a journal. Out: a tree,
or JSON; exit 0, 1 where nothing is found. Cases: `tests/cli/test_run.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.amounts import counted
from narthex.cli.audit_search import FOLDER
from narthex.cli.client import as_it_was, one_line
from narthex.cli.finding import Record, finding, found_by
from narthex.cli.groups import Group
from narthex.cli.kept import config_option, find_file, flowed, json_option, say, terminal_width
from narthex.cli.records import WHAT_IDS
from narthex.cli.run_list import list_

if TYPE_CHECKING:
    from narthex.telemetry.audit.execution import Step, Sums
    from narthex.telemetry.payloads.reading import Payload

TASK = "task"


@click.group(cls=Group)
def run() -> None:
    """Walk through what an agent did in several steps."""


run.add_command(list_)


@run.command()
@click.argument("id_", metavar="ID")
@click.option("--dir", "folder", type=FOLDER, help="The folder of a journal, also a copied one.")
@click.option("--payloads", is_flag=True, help="Show what was kept of arguments and results, too.")
@config_option
@json_option
@click.pass_context
def show(ctx: click.Context, id_: str, folder: Path | None, payloads: bool, config: Path | None, as_json: bool) -> None:
    """Show the calls of one run as a tree, in their order.

    ID is what the agent called its run, the id of a trace or of a session, or the id or decisionId of any call of them,
    or the first 8 characters of such: then what that call was part of. A call stands below the one within which it was
    made, where the trace says so.

    Exits 0 where something is found, else 1.

    With --json: {"kind": "run" | "trace" | "session" | "call", "id", "sums": {"calls", "denied", "held", "failed",
    "seconds", "cost", "principals", "clients", "models", "prompts"}, "steps": [{"depth", "what", "decision", "rule",
    "approvals", "open", "record", "payloads"}]}.
    """
    import msgspec

    from narthex.telemetry.audit.execution import steps_of, sums_of

    file = find_file(ctx, config) if folder is None else config
    with finding(file, folder) as (find, place):
        kind, name, records = found_by(find, id_, place)
        steps = steps_of(records)
    if not steps:
        click.echo(f"nothing is recorded of {one_line(id_)}:\n{WHAT_IDS}", err=True)
        ctx.exit(1)
    reader = _reader(place, file) if payloads else lambda record: []
    kept = [reader(one.record) for one in steps]
    if as_json:
        rows = [
            {**msgspec.to_builtins(one),
             "payloads": [{"part": p.part, "state": p.state, "body": _body(p)} for p in said]}
            for one, said in zip(steps, kept, strict=True)
        ]  # fmt: skip
        say({"kind": kind, "id": name, "sums": msgspec.to_builtins(sums_of(steps)), "steps": rows})
        return
    click.echo("\n".join([*head_lines(kind, name, steps, sums_of(steps)), *task_lines(steps, kept), ""]))
    for one, said in zip(steps, kept, strict=True):
        kept_of = [payload for payload in said if payload.part != TASK]
        click.echo("\n".join(step_lines(one, kept_of, terminal_width())))


def _reader(folder: Path, config: Path | None) -> Callable[[Record], list[Payload]]:
    from narthex.cli.audit_kept import configured_seals
    from narthex.telemetry.payloads.reading import Reader

    return Reader(folder, configured_seals(config) if config is not None else None).of


def _body(payload: Payload) -> Any:
    import msgspec

    return msgspec.json.decode(payload.body) if payload.body else None


def head_lines(kind: str, name: str, steps: list[Step], sums: Sums) -> list[str]:
    """What it is, who did it, and what it adds up to."""
    who = ", ".join(map(one_line, sums.principals)) or "nobody"
    agents = f" with {', '.join(map(one_line, sums.clients))}" if sums.clients else ""
    cost = "".join(f", {amount} {one_line(currency)}" for currency, amount in sums.cost.items())
    held = f", {sums.held} held" if sums.held else ""
    first, last = (str(steps[at].record.get("time", "")) for at in (0, -1))
    return [
        click.style(f"{kind} {one_line(name)}", bold=True),
        f"{who}{agents}, {one_line(first)} to {one_line(last)}",
        f"{counted(sums.calls, 'call')}, {sums.denied} denied{held}, {sums.failed} failed, {sums.seconds:.3f} s{cost}",
        *(f"{what}: {', '.join(map(one_line, names))}"
          for what, names in (("model", sums.models), ("prompt", sums.prompts)) if names),
    ]  # fmt: skip


def task_lines(steps: Iterable[Step], kept: Iterable[Iterable[Payload]]) -> list[str]:
    """What the agent was asked to do, each text once; or that it was kept."""
    told = [payload for said in kept for payload in said if payload.part == TASK]
    texts = dict.fromkeys(payload.body.decode(errors="replace") or payload.state for payload in told)
    if told:
        return [f"task: {one_line(text, len(text))}" for text in texts]
    from narthex.telemetry.payloads.reading import notes_of

    is_kept = any(TASK in notes_of(step.record) for step in steps)
    return ["task: kept; --payloads shows it"] if is_kept else []


def step_lines(step: Step, kept: Iterable[Payload], width: int = 0) -> list[str]:
    """One call: when, what, what was decided and by which rule, how it ended, how long it took, what it cost; then what
    it said, as digests or as it was kept. What has no room in `width` goes below, an id always in one piece."""
    one, pad = step.record, "  " * step.depth
    below = f"{pad}              "

    def text(name: str) -> str:
        return one_line(str(one[name])) if one.get(name) else ""

    ended = "no end is recorded" if step.open else text("outcome")
    words = [step.decision + (f" by {step.rule!r}" if step.rule else ""), ended]
    words += [text("reason")] if text("reason") not in ("", ended) else []
    seconds = one.get("seconds")
    words += [f"{seconds * 1000:.1f} ms"] if isinstance(seconds, int | float) and not step.open else []
    words += [text("cost"), f"cache {text('cache')}" if one.get("cache") else ""]
    colour = {"deny": "red", "hold": "yellow"}.get(step.decision, "green" if ended == "ok" else "yellow")
    head = click.style(one_line(step.what), fg=colour)
    told = [f"{one_line(word)}," for word in words if word]
    lines = flowed([f"{pad}{text('time')[11:23]}  {head} ", *told[:-1], told[-1].rstrip(",")], below, width)
    lines += [f"{below}{one_line(said)}" for said in step.approvals]
    digests = [f"{what} {text(f'{what}_digest')[:19]}… " for what in ("arguments", "result") if text(f"{what}_digest")]
    lines += [below + line.strip() for line in flowed([*digests, f"record {text('id')}"], "", width - len(below))]
    for payload in kept:
        body = payload.body.decode(errors="replace")
        lines.append(f"{below}{payload.part}: {as_it_was(body) if body else payload.state}")
    return lines
