"""A decision is logged in OPA's form, and what is masked is not in it."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.policy.decision import Decision
from narthex.flow.policy.engines.decision_events import erased, event_of, steps_of
from narthex.flow.policy.engines.obligations import Obligation
from tests.engines.test_opa import TRACE, document

ALLOWED = Decision(
    "allow",
    "allowed_by_policy",
    detail="small",
    obligations=(Obligation("max_results", 5),),
    engine="rego",
    bundle="r1",
)


def made(decision: Decision = ALLOWED, **asked: Any) -> dict[str, Any]:
    return event_of(
        document(**asked), decision, at=1_750_000_000.25, id_="own", labels={"env": "prod"}, path="narthex/decision"
    )


def test_an_event() -> None:
    event = made(meta={"traceparent": TRACE}, amount=5)
    assert event.pop("input") == document(amount=5).input()
    assert event == {
        "labels": {"env": "prod"},
        "decision_id": "own",
        "trace_id": TRACE.split("-")[1],
        "span_id": TRACE.split("-")[2],
        "bundles": {"narthex": {"revision": "r1"}},
        "path": "narthex/decision",
        "requested_by": "10.0.0.1",
        "timestamp": "2025-06-15T15:06:40.250000Z",
        "result": {
            "allow": True,
            "effect": "allow",
            "reason": "allowed_by_policy",
            "reasons": ["small"],
            "obligations": {"max_results": 5},
        },
    }


def test_the_agents_own_id_stays() -> None:
    assert made(Decision("deny", "denied_by_policy", decision_id="theirs"))["decision_id"] == "theirs"


def test_what_was_not_decided_is_an_error() -> None:
    event = made(Decision("deny", "policy_timeout", detail="too late"))
    assert event["error"] == {"code": "policy_timeout", "message": "too late"} and "result" not in event
    opened = made(Decision("allow", "allowed_without_policy"))
    assert opened["result"]["reason"] == "allowed_without_policy"


@pytest.mark.parametrize(
    ("pointers", "arguments", "names"),
    [
        pytest.param(["/input/mcp/arguments"], None, ["/input/mcp/arguments"], id="all arguments"),
        pytest.param(["/input/mcp/arguments/password"], {"to": [{"iban": 1}, {"iban": 2}], "a/b": 1},
                     ["/input/mcp/arguments/password"], id="one"),
        pytest.param(["/input/mcp/arguments/a~1b"], {"to": [{"iban": 1}, {"iban": 2}], "password": "x"},
                     ["/input/mcp/arguments/a~1b"], id="a name with a slash"),
        pytest.param(["/input/mcp/arguments/to/*/iban"], {"to": [{}, {}], "a/b": 1, "password": "x"},
                     ["/input/mcp/arguments/to/0/iban", "/input/mcp/arguments/to/1/iban"], id="in each of a list"),
        pytest.param(["/input/mcp/arguments/to/1"], {"to": [{"iban": 1}], "a/b": 1, "password": "x"},
                     ["/input/mcp/arguments/to/1"], id="one of a list"),
        pytest.param(["/input/nothing/there", "/input/v/x"], {"to": [{"iban": 1}, {"iban": 2}], "a/b": 1,
                                                              "password": "x"}, [], id="nothing"),
    ],
)  # fmt: skip
def test_what_is_masked(pointers: list[str], arguments: Any, names: list[str]) -> None:
    event = made(**{"to": [{"iban": 1}, {"iban": 2}], "password": "x", "a/b": 1})
    before = deepcopy(event)
    found = erased(event, map(steps_of, pointers))
    assert event == before, "the call still has what it has"
    assert found["input"]["mcp"].get("arguments") == arguments and found.get("erased", []) == names


@pytest.mark.parametrize("text", ["", "input", "/input", "/decision_id", "/labels/env", "input/mcp"])
def test_a_mask_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="JSON pointer"):
        steps_of(text)


@given(st.lists(st.sampled_from(["a", "b", "*", "0", "1"]), min_size=1, max_size=4), st.data())
def test_no_masked_value_is_left(steps: list[str], data: st.DataObject) -> None:
    inner = st.recursive(
        st.integers(),
        lambda one: st.lists(one, max_size=2) | st.dictionaries(st.sampled_from("ab"), one, max_size=2),
        max_leaves=8,
    )
    value = data.draw(inner)
    found = erased({"input": value}, [("input", *steps)])
    again = erased(msgspec.json.decode(json.dumps({"input": found["input"]})), [("input", *steps)])
    numbered = any(step.isdigit() for step in steps)  # an element that goes moves the next one to its place
    assert numbered or "erased" not in again
