"""Which lines were looked at, read from a coverage report and from an agent's trace: whatever they say, bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.policy.engines.trace import (
    MOST_LINES,
    MOST_TEXT,
    Line,
    Trace,
    Unreadable,
    read_coverage,
    read_trace,
)

QUERY = [
    "query:1     Enter data.a.b = _",
    "query:1     | Eval data.a.b = _",
    "query:1     | Index data.a.b (matched 1 rule)",
]


def answer(*events: Any) -> bytes:
    return json.dumps({"result": True, "explanation": [*QUERY, *events]}).encode()


@pytest.mark.parametrize(
    ("events", "lines"),
    [
        pytest.param(["a.rego:5  | Enter data.a.b", "a.rego:5  | | Eval true", "a.rego:5  | | Exit data.a.b early"],
                     [(5, "held", "data.a.b")], id="a rule that holds"),
        pytest.param(["a.rego:5  | Enter data.a.b", "a.rego:6  | | Eval lte(x, 1)", "a.rego:6  | | Fail lte(x, 1)",
                      "a.rego:5  | Redo data.a.b"],
                     [(5, "evaluated", "data.a.b"), (6, "failed", "lte(x, 1)")], id="one that does not"),
        pytest.param(["a.rego:6  | | Eval x = y", "a.rego:6  | | Fail x = y", "a.rego:6  | | Eval x = y"],
                     [(6, "evaluated", "x = y")], id="what holds at the second value"),
        pytest.param(["a.rego:6  | | Eval not f(x)", "a.rego:6  | | | Eval f(x)", "a.rego:6  | | | Fail f(x)"],
                     [(6, "evaluated", "not f(x)")], id="what must fail below not"),
        pytest.param(["a.rego:6  | | Eval not f(x)", "a.rego:6  | | | Eval f(x)", "a.rego:6  | | Fail not f(x)"],
                     [(6, "failed", "not f(x)")], id="not, that fails"),
        pytest.param(["/a b/c:1:d.rego:6  | | Eval x"], [(6, "evaluated", "x")], id="a colon in the name of a file"),
        pytest.param(["a.rego:2  | Eval x", "garbage", "", "a.rego:x | Eval x", "a.rego:1 Eval y", ":::"],
                     [(1, "evaluated", "y"), (2, "evaluated", "x")], id="what is no event is passed over"),
    ],
)  # fmt: skip
def test_the_events_of_an_agent(events: list[str], lines: list[tuple[int, str, str]]) -> None:
    assert [(one.line, one.verdict, one.text) for one in read_trace(answer(*events)).lines] == lines


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(b"<html>", "cannot be read", id="a page"),
        pytest.param(b'{"explanation": [{"op": "enter"}]}', "cannot be read", id="another form"),
        pytest.param(b"[" * 100_000, "cannot be read", id="nested"),
        pytest.param(b'{"result": true}', "has no trace", id="none"),
        pytest.param(answer(), "has no trace", id="of the question alone"),
    ],
)
def test_no_trace(body: bytes, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        read_trace(body)


def report(*files: tuple[str, str, list[int], list[int]]) -> bytes:
    names = ("path", "code", "covered", "not_covered")
    return json.dumps({"files": [dict(zip(names, one, strict=True)) for one in files]}).encode()


def test_files_of_which_nothing_was_reached_come_last() -> None:
    found = read_coverage(report(("a", "p\n\tq", [], [2]), ("b", "r", [1], []), ("c", "s\nt", [2], [1, 9])), "why")
    assert found == Trace(
        (
            Line("b", 1, "evaluated", "r"),
            Line("c", 1, "not reached", "s"),
            Line("c", 2, "evaluated", "t"),
            Line("c", 9, "not reached", ""),
            Line("a", 2, "not reached", "q"),
        ),
        problem="why",
    )


def test_both_are_bounded() -> None:
    events = [f"a.rego:{at}  Eval {'x' * 9000}" for at in range(1, MOST_LINES + 8)]
    numbers = list(range(1, MOST_LINES + 8))
    for found in (read_trace(answer(*events)), read_coverage(report(("a", "x" * 9000, numbers, [])))):
        assert (len(found.lines), found.more) == (MOST_LINES, 7)
        assert max(len(one.text) for one in found.lines) == MOST_TEXT


@given(
    st.lists(
        st.text(max_size=40) | st.from_regex(r"[a: ]{1,9}:[0-9]{1,8} +(\| )*(Eval|Fail|Exit) [a-z|: ]*"), max_size=9
    )
)
def test_whatever_an_agent_says(events: list[str]) -> None:
    try:
        found = read_trace(answer(*events))
    except Unreadable:
        return
    assert 0 < len(found.lines) <= len(events)
