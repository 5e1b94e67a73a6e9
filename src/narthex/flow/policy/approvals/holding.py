"""The way of a call that is held, until it passes or is refused: what is asked of whom, as a plain generator.

In: a call that a rule or an engine holds. Out: the parameters that go on, exactly those that were approved; or the
refusal, with the approval's id. It yields a `Hold`, which the driver answers from what is kept, and where the caller's
own user may be asked, an `Ask`. Cases: `tests/flow/policy/approvals/test_holding.py`.
Source: design §5 (-31004); MCP 2026-07-28, basic/patterns/mrtr; MCP 2025-11-25, elicitation.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import msgspec

from narthex.errors import ApprovalRequired, Denied
from narthex.flow.codec.inputs import Ask, Asked, InputRequired
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap, encode
from narthex.flow.policy.approvals.approval import DENIED_BY_PERSON, Approval, HeldBy, Outcome, exactly
from narthex.flow.policy.decision import Decision
from narthex.flow.route.target import Target
from narthex.types import Kind

RETRY_S = 10.0
"""When a client that cannot be asked should come again."""
KEY = "approval"
MOST_SHOWN = 2000
"""Characters of the arguments in a question."""


class Hold:
    """Needs to know what becomes of a held call; it is asked for where nothing stands. Answer: `Standing`.

    `word` is what the caller's own user has just said: the id of the approval, and their answer to `question`.
    """

    __slots__ = ("decision", "held_by", "kind", "params", "target", "word")

    def __init__(
        self,
        kind: Kind,
        target: Target,
        params: RawMap,
        decision: Decision,
        word: tuple[str, RawMap] | None = None,
        held_by: HeldBy = "rule",
    ) -> None:
        self.kind: Final = kind
        self.target: Final = target
        self.params: Final = params
        self.decision: Final = decision
        self.word: Final = word
        self.held_by: Final = held_by


class Standing(msgspec.Struct, frozen=True):
    """What becomes of a held call now. `left_s`: as long as that stands. `asks`: may its own user be asked, who can?
    `slot`: as `ToApprove` has it."""

    outcome: Outcome
    approval: Approval
    left_s: float
    asks: bool = False
    slot: str = ""

    @property
    def refusal(self) -> ApprovalRequired:
        """What a client hears that has to come again."""
        return ApprovalRequired(self.approval.id, retry_after_s=min(RETRY_S, self.left_s))


def held(
    kind: Kind, target: Target, params: RawMap, decision: Decision, held_by: HeldBy = "rule"
) -> Generator[Hold | Ask, Any, RawMap]:
    """Have a held call approved.

    Args:
        held_by: `engine` where no rule of the decision has a name; `limit` where it is one that is spent.
    Returns:
        The parameters that go on: exactly what was approved.
    Raises:
        ApprovalRequired: Not yet. Denied: Somebody has said no, or nobody could read it all.
        InvalidParams: The parameters cannot be read.
    """
    exact, word = exactly(params), None
    while True:
        standing: Standing = yield Hold(kind, target, exact, decision, word, held_by)
        if standing.outcome == "passes":
            return {**params, **exact}
        if standing.outcome == "denied":
            raise Denied(DENIED_BY_PERSON, detail=f"approval {standing.approval.id}: by {standing.approval.denied_by}")
        if not standing.asks:
            raise standing.refusal
        answers: RawMap = yield Ask(question(standing.approval, exact), standing)
        word = (standing.approval.id, answers)


def question(approval: Approval, params: RawMap) -> InputRequired:
    """What the caller's own user is asked. All of it may be the agent's text, so none of it can steer a screen."""
    arguments = printable(bytes(params.get("arguments", b"{}")).decode(), MOST_SHOWN)
    agent, tool = printable(approval.client, 128) or "The agent", printable(approval.name, 256)
    message = (
        f"{agent} wants to call {approval.server}__{tool} with these arguments:\n{arguments}\n"
        "Do you approve this call? It may be made once."
    )
    schema = {
        "type": "object",
        "properties": {"approve": {"type": "boolean", "title": "I approve this call", "default": False}},
        "required": ["approve"],
    }
    asked = Asked(KEY, "elicitation/create", Raw(encode({"message": message, "requestedSchema": schema})))
    return InputRequired((asked,), None)


class _Said(msgspec.Struct):
    action: str
    content: dict[str, Any] | None = None


_decode_said = msgspec.json.Decoder(_Said).decode


def said(answers: RawMap) -> bool | None:
    """Yes, no, or nothing: who closes the question has not decided it."""
    try:
        answer = _decode_said(answers[KEY])
    except (*BAD_JSON, KeyError):
        return None
    if answer.action == "decline":
        return False
    approves = (answer.content or {}).get("approve") if answer.action == "accept" else None
    return approves if isinstance(approves, bool) else None


def printable(text: str, most: int) -> str:
    """Text of others for a person: what does not print, or turns the direction of writing, stands as `\\uXXXX`."""
    cut = "" if len(text) <= most else f" … ({len(text) - most} characters more)"
    text = text[:most]
    if text.isprintable():
        return text + cut
    return "".join(c if c.isprintable() else _escaped(c) for c in text) + cut


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
