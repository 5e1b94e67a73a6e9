"""A held call, fed from a table: when it passes, what it is refused with, and what its user is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from narthex.errors import ApprovalRequired, Denied, GatewayError
from narthex.flow.codec.inputs import Ask
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.policy.approvals.holding import Hold, Standing, held, printable, question, said
from narthex.flow.policy.decision import Decision
from narthex.flow.route.target import Target
from tests.flow.policy.approvals.test_approval import DENIED, USED, WAITS

DECISION = Decision("hold", "approval_required", "large refunds", 7)
TARGET = Target("billing", "refund", b'"refund"')
PARAMS = {"name": Raw(b'"billing__refund"'), "arguments": Raw(b'{ "amount": 500 }'), "_meta": Raw(b"{}")}


def walk(*answers: Any) -> tuple[Any, list[Hold | Ask]]:
    """What becomes of the call, given these answers, and what was needed."""
    walk, needs = held("tools", TARGET, PARAMS, DECISION), []
    try:
        needs.append(next(walk))
        for answer in answers:
            needs.append(walk.send(answer))
    except StopIteration as ending:
        return ending.value, needs
    except GatewayError as error:
        return error, needs
    return None, needs


def test_what_passes_is_exactly_what_was_approved() -> None:
    params, needs = walk(Standing("passes", USED, 10.0))
    assert params == {**PARAMS, "arguments": Raw(b'{"amount":500}')}
    (hold,) = needs
    assert isinstance(hold, Hold) and "_meta" not in hold.params and hold.decision is DECISION


@pytest.mark.parametrize(
    ("standing", "kind", "reason", "data"),
    [
        pytest.param(
            Standing("asked", WAITS, 600.0), ApprovalRequired, "approval_required",
            {"approvalId": "a-1", "retryAfterSeconds": 10}, id="asked for",
        ),
        pytest.param(
            Standing("pending", WAITS, 4.4), ApprovalRequired, "approval_required",
            {"approvalId": "a-1", "retryAfterSeconds": 4}, id="its time is nearly over",
        ),
        pytest.param(Standing("denied", DENIED, 10.0), Denied, "approval_denied", None, id="denied"),
    ],
)  # fmt: skip
def test_what_does_not_pass(standing: Standing, kind: type[GatewayError], reason: str, data: Any) -> None:
    error, _ = walk(standing)
    assert type(error) is kind
    assert (error.reason, error.data) == (reason, data)
    assert "large refunds" not in error.public and "bob" not in error.public


def test_a_user_who_may_be_asked_is_asked_once() -> None:
    asks = Standing("asked", WAITS, 600.0, asks=True)
    answers = {"approval": Raw(b'{"action":"accept","content":{"approve":true}}')}
    params, needs = walk(asks, answers, Standing("passes", USED, 10.0))
    assert params["arguments"] == Raw(b'{"amount":500}')
    first, ask, second = needs
    assert isinstance(first, Hold) and first.word is None
    assert isinstance(ask, Ask) and ask.about is asks
    assert isinstance(second, Hold) and second.word == ("a-1", answers)
    error, _ = walk(asks, {}, Standing("pending", WAITS, 600.0))
    assert isinstance(error, ApprovalRequired), "who closes the question has not decided"


@pytest.mark.parametrize(
    ("answer", "meant"),
    [
        pytest.param('{"action":"accept","content":{"approve":true}}', True, id="yes"),
        pytest.param('{"action":"accept","content":{"approve":false}}', False, id="sent with no"),
        pytest.param('{"action":"decline"}', False, id="declined"),
        pytest.param('{"action":"cancel"}', None, id="closed"),
        pytest.param('{"action":"accept"}', None, id="accepted without an answer"),
        pytest.param('{"action":"accept","content":{"approve":"true"}}', None, id="a text is no yes"),
        pytest.param('{"action":"accept","content":{"approve":1}}', None, id="nor is a number"),
        pytest.param('{"action":"Accept","content":{"approve":true}}', None, id="another word"),
        pytest.param('{"action":"decline","content":{"approve":true}}', False, id="a no with a yes in it"),
        pytest.param('{"content":{"approve":true}}', None, id="no action"),
        pytest.param('{"action":"accept","content":[]}', None, id="another form"),
    ],
)
def test_what_a_user_said(answer: str, meant: bool | None) -> None:
    assert said({"approval": Raw(answer.encode())}) is meant
    assert said({"other": Raw(answer.encode())}) is None


def test_the_question_names_agent_tool_and_arguments() -> None:
    asked = question(WAITS, {"arguments": Raw(b'{"amount":500,"note":"\\u001b[2J\\u202e"}')})
    (one,) = asked.asked
    params = json.loads(bytes(one.params))
    assert one.method == "elicitation/create" and one.key == "approval"
    for word in ("bot", "billing__refund", '"amount":500'):
        assert word in params["message"]
    assert "\x1b" not in params["message"] and "\u202e" not in params["message"]
    assert params["requestedSchema"]["properties"]["approve"] == {
        "type": "boolean", "title": "I approve this call", "default": False,
    }  # fmt: skip
    assert "The agent wants" in json.loads(bytes(question(replace(WAITS, client=""), {}).asked[0].params))["message"]


def test_what_is_not_shown_is_said() -> None:
    assert printable("x" * 10, 4) == "xxxx … (6 characters more)"


@given(st.text())
def test_nothing_in_a_text_steers_a_screen(text: str) -> None:
    assert printable(text, 1000).isprintable()
    if text.isprintable():
        assert printable(text, len(text)) == text
