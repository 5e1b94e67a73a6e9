"""A decision of an engine as Open Policy Agent logs it, without what must not leave the gateway.

In: a document, the decision on it, when that was. Out: an event, as JSON encodes it. What a mask leads to is taken out
and named in `erased`, as OPA does. Cases: `tests/flow/policy/engines/test_decision_events.py`.
Source: Open Policy Agent, Decision Logs, "Decision Log Service API" and "Masking Sensitive Data".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from narthex.flow.policy.decision import UNANSWERED, Decision
from narthex.flow.policy.document import Document

BUNDLE = "narthex"
Steps = tuple[str, ...]
"""A JSON pointer taken apart; `*` is every member, or every element."""


ARGUMENTS: Steps = ("input", "mcp", "arguments")
"""What is left out unless the operator says otherwise: it is payload."""


def show_steps(steps: Steps) -> str:
    """The pointer again."""
    return "".join(f"/{step.replace('~', '~0').replace('/', '~1')}" for step in steps)


def steps_of(pointer: str) -> Steps:
    """`/input/a~1b` as its steps. Raises ValueError: it is none, or leads to what an event cannot do without."""
    steps = tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])
    if not pointer.startswith("/") or len(steps) < 2 or steps[0] not in ("input", "result"):
        raise ValueError("wants a JSON pointer below /input or /result, such as /input/mcp/arguments")
    return steps


def event_of(
    document: Document, decision: Decision, *, at: float, id_: str, labels: Mapping[str, str], path: str
) -> dict[str, Any]:
    """The event of a decision.

    Args:
        at: Unix seconds. id_: used where the engine has not named the decision. path: of the rule that was asked.
    """
    event: dict[str, Any] = {
        "labels": dict(labels),
        "decision_id": decision.decision_id or id_,
        "bundles": {BUNDLE: {"revision": decision.bundle}} if decision.bundle else {},
        "path": path,
        "input": document.input(),
        "requested_by": document.address,
        "timestamp": datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }
    if document.trace:
        _, event["trace_id"], event["span_id"], _ = document.trace[0][1].split("-")
    if decision.reason in UNANSWERED:
        event["error"] = {"code": decision.reason, "message": decision.detail}
    else:
        event["result"] = _result(decision)
    return event


def _result(decision: Decision) -> dict[str, Any]:
    """What was made of the policy's answer: that is what counted."""
    return {
        "allow": decision.effect == "allow",
        "effect": decision.effect,
        "reason": decision.reason,
        "reasons": [decision.detail] if decision.detail else [],
        "obligations": {one.kind: one.value for one in decision.obligations},
    }


def erased(event: dict[str, Any], masks: Iterable[Steps]) -> dict[str, Any]:
    """The event without what the masks lead to, which it names. What it shares with a call stays as it is there."""
    names: list[str] = []
    for steps in masks:
        event = _without(event, steps, "", names)
    return {**event, "erased": names} if names else event


def _without(value: Any, steps: Steps, at: str, names: list[str]) -> Any:
    step, rest = steps[0], steps[1:]
    if isinstance(value, dict):
        return dict(_kept(((key, key, one) for key, one in value.items()), step, rest, at, names))
    if isinstance(value, list):
        return [one for _, one in _kept(((str(n), n, one) for n, one in enumerate(value)), step, rest, at, names)]
    return value


def _kept(
    members: Iterable[tuple[str, Any, Any]], step: str, rest: Steps, at: str, names: list[str]
) -> Iterator[tuple[Any, Any]]:
    """The members of a map or a list that stay, each as it stays."""
    for name, key, value in members:
        if step not in ("*", name):
            yield key, value
            continue
        here = f"{at}/{name.replace('~', '~0').replace('/', '~1')}"
        if rest:
            yield key, _without(value, rest, here, names)
        else:
            names.append(here)
