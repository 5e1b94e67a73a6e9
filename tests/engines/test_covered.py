"""What a process of its own says of the lines that a policy looks at; and that it ends, whatever the policy does."""

from __future__ import annotations

import pytest

from narthex.engines.covered import covered
from tests.engines.policies import HEAD, LOOPS, asks, source

BOTH = (
    HEAD
    + """default decision := {"allow": false}

decision := {"allow": true} if {
	input.a == 1
	input.b == 2
}
"""
)


@pytest.mark.parametrize(
    ("asked", "missed"),
    [
        pytest.param(b'{"a": 1, "b": 2}', [], id="the rule holds"),
        pytest.param(b'{"a": 1, "b": 3}', [7], id="the last condition does not"),
        pytest.param(b'{"a": 2, "b": 2}', [7, 9], id="nor the first"),
    ],
)
def test_the_head_is_reached_where_the_body_holds(asked: bytes, missed: list[int]) -> None:
    found = covered(source(BOTH), asked, str)
    assert [one.line for one in found.lines] == [5, 7, 8, 9] and not found.problem
    assert [one.line for one in found.lines if one.verdict == "not reached"] == missed


def test_one_that_does_not_end_is_ended() -> None:
    found = covered(source(LOOPS), asks(loop=True), str, deadline_s=1.0)
    assert (found.lines, found.problem) == ((), "the policy is not done within 1 s")


def test_one_that_wants_all_memory_is_ended() -> None:
    found = covered(source(LOOPS), asks(eat=True), str, deadline_s=60.0)
    assert found.problem


def test_a_policy_that_cannot_be_used() -> None:
    found = covered(source("package narthex\nx := {"), b"{}", str)
    assert found.lines == () and "policy.rego:2:" in found.problem
