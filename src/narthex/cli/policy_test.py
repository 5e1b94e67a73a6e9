"""`narthex policy test`: do the rules decide these cases as they have to?

In: files of cases, a configuration. Out: each case that is decided otherwise, with its line; exit 0 none, 1 some, or a
fault in a file. Cases: `tests/cli/test_policy.py`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from narthex.cli.callers import principal_of
from narthex.cli.judging import judging
from narthex.cli.kept import config_option, find_file, json_option, say
from narthex.cli.records import grants_of, imagined

if TYPE_CHECKING:
    from narthex.config.cases import Case
    from narthex.flow.policy.decision import Decision
    from narthex.flow.policy.evidence.again import Asked
    from narthex.types import Snapshot


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE..."
)
@config_option
@json_option
@click.pass_context
def test(ctx: click.Context, files: tuple[Path, ...], config: Path | None, as_json: bool) -> None:
    """Decide the cases in FILE and say which are not decided as they have to be.

    A file has `cases`: a list of who, tool (or prompt, resource), arguments, and `expect`: allow, deny, hold or hidden;
    `rule` names the rule that has to say so. `config` names the configuration, else --config.

    Exits 0 where all are, 1 where one is not.

    With --json: {"cases", "failed", "results": [{"file", "line", "name", "expect", "expect_rule", "decision",
    "reason", "rule", "ok", "wrong": "effect", "rule" or null}]}.
    """
    from narthex.config.cases import read_cases
    from narthex.errors import ConfigError

    results: list[dict[str, Any]] = []
    for file in files:
        found = read_cases(file)
        if found.problems:
            raise ConfigError([str(one) for one in found.problems])
        snapshot = _snapshot(ctx, config, found.config)
        results += [{"file": str(file), **one} for one in asyncio.run(_decided(found.cases, snapshot))]
    failed = [one for one in results if not one["ok"]]
    if as_json:
        say({"cases": len(results), "failed": len(failed), "results": results})
    else:
        _show(results, failed)
    ctx.exit(1 if failed else 0)


def _snapshot(ctx: click.Context, config: Path | None, named: str) -> Snapshot:
    from narthex.config.compile import load_snapshot

    return load_snapshot(config or (Path(named) if named else find_file(ctx, None)), env=os.environ)


async def _decided(cases: tuple[Case, ...], snapshot: Snapshot) -> list[dict[str, Any]]:
    from narthex.flow.policy.evidence.again import Untold

    found = []
    async with judging(snapshot) as again:
        for case in cases:
            asked = _asked(case, snapshot)
            try:
                decision = _named(await again.decide(asked), asked, snapshot)
            except Untold as error:
                raise _no_case(case, f"it cannot be decided: {error}") from None
            found.append(
                {
                    "line": case.line,
                    "name": case.name,
                    "expect": case.expect,
                    "expect_rule": case.rule or None,
                    "decision": decision.effect,
                    "reason": decision.reason,
                    "rule": decision.rule or None,
                    "ok": not (wrong := _wrong(case, decision)),
                    "wrong": wrong,
                }
            )
    return found


def _asked(case: Case, snapshot: Snapshot) -> Asked:
    from narthex.config.document import suggest
    from narthex.flow.codec.jsonrpc import Raw, encode
    from narthex.flow.policy.evidence.again import Asked
    from narthex.flow.route.target import Target
    from narthex.types import Call

    if case.server not in snapshot.servers:
        raise _no_case(case, f"no server '{case.server}'{suggest(case.server, snapshot.servers)}")
    method = {"tools": "tools/call", "prompts": "prompts/get"}.get(case.kind, "resources/read")
    who = principal_of(case.who, identified=snapshot.identity is not None)
    params = {"arguments": Raw(case.arguments)} if case.arguments is not None else {}
    call = Call(method, params, {}, b"1", "modern", "2026-07-28", who, case.endpoint, case.own)
    target = Target(case.server, case.own, encode(case.own))
    past = imagined(snapshot, who, case.endpoint, case.run_labels, Counter(case.run_calls))
    if past is None and (case.run_labels or case.run_calls):
        raise _no_case(case, "this configuration has no `runs`")
    return Asked(call, case.kind, target, case.address, case.at or time.time(), past=past)


def _no_case(case: Case, why: str) -> click.ClickException:
    """It cannot be decided at all."""
    return click.ClickException(f"case '{case.name}', line {case.line}: {why}")


def _named(decision: Decision, asked: Asked, snapshot: Snapshot) -> Decision:
    """What is hidden by a denial names it: callers are not told, its author is."""
    from msgspec.structs import replace

    from narthex.flow.policy.decision import NOT_GRANTED
    from narthex.flow.policy.explanation import explain

    if decision.reason != NOT_GRANTED:
        return decision
    call, target = asked.call, (asked.target.server, asked.target.name)
    found = explain(
        grants_of(snapshot), call.principal, call.endpoint, asked.kind, target, call.params,
        {"address": asked.address}, asked.at, asked.past,
    )  # fmt: skip
    return decision if found.visible else replace(decision, rule=found.decision.rule, line=found.decision.line)


def _wrong(case: Case, decision: Decision) -> Literal["effect", "rule"] | None:
    """What of it is not as it has to be."""
    from narthex.flow.policy.evidence.replay import effect_of

    if case.expect != (decision.effect if case.expect == "deny" else effect_of(decision)):
        return "effect"
    return "rule" if case.rule and case.rule != decision.rule else None


def _show(results: list[dict[str, Any]], failed: list[dict[str, Any]]) -> None:
    for one in failed:
        by = f" by '{one['rule']}'" if one["rule"] else ""
        said = f"{one['name']}: not {one['expect']}, but {one['decision']}"
        why = f" ({one['reason']}{by})"
        if one["wrong"] == "rule":  # only another rule says so
            said = f"{one['name']}: {one['expect']}, but{by or ' by no rule'}, not '{one['expect_rule']}'"
            why = f" ({one['reason']})"
        click.echo(f"{one['file']}:{one['line']}: " + click.style(said, fg="red") + why)
    if failed:
        click.secho(f"{len(failed)} of {len(results)} cases are decided otherwise.", fg="red")
    else:
        click.secho(f"{len(results)} cases: all as they have to be.", fg="green")
