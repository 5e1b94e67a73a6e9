"""What `narthex explain` shows of a decision, for people and for programs; of a policy in Rego, each line looked at.

In: an `Explanation`, a `Trace`. Out: lines on stdout, or a document. All that a policy or its agent says is cleaned.
Cases: `tests/cli/test_explain.py`, `tests/cli/test_explain_policy.py`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.client import one_line

if TYPE_CHECKING:
    from narthex.flow.policy.decision import Decision
    from narthex.flow.policy.engines.trace import Trace
    from narthex.flow.policy.explanation import Explanation

    Asked = tuple[str, Trace]
    """The `input.action` that an engine was asked about, and what it looked at."""

_COLOURS = {"applies": "green", "skipped": None, "not met": "yellow", "failed": "red"}
_COLOURS |= {"held": "green", "evaluated": None, "not reached": "yellow"}


def brief(decision: Decision) -> dict[str, Any]:
    return {
        "decision": decision.effect,
        "reason": decision.reason,
        "rule": decision.rule or None,
        "line": decision.line or None,
    }


def brief_words(decision: Decision, file: str) -> str:
    by = f" by '{decision.rule}' ({file}:{decision.line})" if decision.rule else ""
    return f"{decision.effect}, {decision.reason}{by}"


def judged(found: Explanation, decision: Decision) -> Explanation:
    """What the grants and the rules on runs say, with what was decided in the end: scopes, the endpoint or an engine
    may have had the last word. What the grants hide stays with the denial that hides it, for its author."""
    from msgspec.structs import replace

    from narthex.flow.policy.decision import NOT_GRANTED
    from narthex.flow.policy.evidence.replay import effect_of

    if decision.reason == NOT_GRANTED and not found.visible:
        return found
    return replace(found, decision=decision, visible=effect_of(decision) != "hidden")


def show(found: Explanation, file: str) -> None:
    """For people."""
    from narthex.flow.policy.decision import NO_RULES

    decision = found.decision
    if decision.reason == NO_RULES and not found.steps:
        click.echo("No grants are configured: whoever is let in may call everything.\n")
    width = max((len(step.rule) for step in found.steps), default=0)
    for step in found.steps:
        click.echo(
            f"  {file}:{step.line:<4} {step.effect:<5}  {step.rule.ljust(width)}  "
            + click.style(step.verdict.ljust(8), fg=_COLOURS[step.verdict])
            + f" {one_line(step.text)}"
        )
    if found.steps:
        click.echo()
    words = {"allow": ("Allowed", "green"), "deny": ("Denied", "red"), "hold": ("Held", "yellow")}
    word, colour = words[decision.effect]
    by = ""
    if decision.rule:
        by = f" by '{decision.rule}' ({file}:{decision.line})"
    elif decision.engine:
        by = f" by the policy ({decision.engine}, revision {one_line(decision.bundle or '?')})"
        by += f": {one_line(decision.detail)}" if decision.detail else ""
    seen = "" if found.visible else "; the caller does not see it: it answers as what is missing"
    click.secho(f"{word}: {decision.reason}{by}{seen}", fg=colour)
    for one in decision.obligations:
        click.echo(f"The policy demands {one.kind}: {one_line(json.dumps(one.value, ensure_ascii=False))}")


def document_of(found: Explanation, revision: str) -> dict[str, Any]:
    """For programs."""
    decision = found.decision
    return {
        "decision": decision.effect,
        "reason": decision.reason,
        "rule": decision.rule or None,
        "line": decision.line or None,
        "visible": found.visible,
        "revision": revision,
        "policy": {
            "engine": decision.engine,
            "bundle": decision.bundle,
            "detail": decision.detail,
            "obligations": {one.kind: one.value for one in decision.obligations},
        }
        if decision.engine
        else None,
        "rules": [{key: getattr(step, key) for key in step.__struct_fields__} for step in found.steps],
    }


def show_trace(asked: Asked | None) -> None:
    """For people. Nothing where no engine was asked."""
    if asked is None:
        return
    action, trace = asked
    places = [f"{one_line(line.file)}:{line.line}" for line in trace.lines]
    width = max(map(len, places), default=0)
    click.echo(f"What the policy looked at, asked about {one_line(action)}:")
    for place, line in zip(places, trace.lines, strict=True):
        verdict = click.style(line.verdict.ljust(11), fg=_COLOURS[line.verdict])
        click.echo(f"  {place.ljust(width)}  {verdict}  {one_line(line.text)}")
    if trace.more:
        click.echo(f"  and {trace.more} more lines")
    if trace.problem:
        click.secho(f"  {'It ends there' if places else 'That is not known'}: {one_line(trace.problem)}", fg="yellow")
    click.echo()


def document_of_trace(asked: Asked | None) -> dict[str, Any] | None:
    """For programs."""
    if asked is None:
        return None
    action, trace = asked
    lines = [
        {"file": one_line(one.file), "line": one.line, "verdict": one.verdict, "text": one_line(one.text)}
        for one in trace.lines
    ]
    return {"action": action, "lines": lines, "more": trace.more, "problem": one_line(trace.problem) or None}
