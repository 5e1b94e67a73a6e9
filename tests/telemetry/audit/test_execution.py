"""Calls of one run stand in their order and within each other, whoever wrote the records."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.telemetry.audit.execution import DEEPEST, runs_among, steps_of, sums_of


def call(number: int, parent: str = "", span: str = "", **more: Any) -> dict[str, Any]:
    return {
        "id": f"{number:04d}", "time": f"2026-11-27T09:00:{number % 60:02d}.000000Z", "event": "call", "server": "git",
        "name": f"t{number}", "decision": "allow", "outcome": "ok", "seconds": 0.5, "request": str(number),
        "parent": parent, "span": span, "principal": {"subject": "ada", "client": "bot"},
    } | more  # fmt: skip


JUNK = st.sampled_from(["call", "begin", "a", "", None, 7, ["x"], {"y": 1}])


def shape(*records: dict[str, Any]) -> list[tuple[int, str]]:
    return [(one.depth, one.record["id"][-1]) for one in steps_of(records)]


@pytest.mark.parametrize(
    ("records", "found"),
    [
        pytest.param([call(2), call(1)], [(0, "1"), (0, "2")], id="in their order"),
        pytest.param([call(1, span="a"), call(2, "a"), call(3)], [(0, "1"), (1, "2"), (0, "3")], id="within"),
        pytest.param(
            [call(1, span="a"), call(2, "a", "b"), call(3, "x"), call(4, "b"), call(5, "a")],
            [(0, "1"), (1, "2"), (2, "4"), (1, "5"), (0, "3")], id="a tree, and a parent that is not here",
        ),
        pytest.param([call(1, "b", "a"), call(2, "a", "b")], [(0, "1"), (1, "2")], id="a circle is none"),
        pytest.param([call(1, "a", "a")], [(0, "1")], id="nobody is within themselves"),
        pytest.param([call(1, span="a"), call(2, span="a"), call(3, "a")], [(0, "1"), (1, "3"), (0, "2")], id="twice"),
        pytest.param(
            [call(1, event="begin", seq=7, request="1"), call(2, begin=7, request="1")], [(0, "2")], id="ended",
        ),
        pytest.param([call(1, event="begin", seq=7)], [(0, "1")], id="begun and not ended"),
        pytest.param([call(1, event="alert"), call(2, event="lost")], [], id="what is no call"),
    ],
)  # fmt: skip
def test_trees(records: list[dict[str, Any]], found: list[tuple[int, str]]) -> None:
    assert shape(*records) == found


def test_what_people_said_of_a_held_call() -> None:
    common = {"time": "2026-11-27T08:00:00Z", "event": "approval", "approval": "h1"}
    steps = [common | {"id": "a1", "step": "asked"}, common | {"id": "a2", "step": "approved", "by": "boss"}]
    (one,) = steps_of([call(1, approval="h1"), *steps])
    assert one.approvals == ("asked", "approved by boss")


def test_sums() -> None:
    steps = steps_of([
        call(1, cost="0.01 USD"), call(2, cost="0.20 USD"), call(3, cost="1 EUR", outcome="tool_error"),
        call(4, decision="deny", outcome="denied"), call(5, cost="NaN USD", seconds=float("inf")),
    ])  # fmt: skip
    sums = sums_of(steps)
    assert (sums.calls, sums.denied, sums.failed, sums.seconds) == (5, 1, 1, 2.0)
    assert (sums.cost, sums.principals, sums.clients) == ({"USD": "0.21", "EUR": "1"}, ("ada",), ("bot",))


def test_what_was_counted_later_counts() -> None:
    later = {"event": "recount", "id": "0009", "call": "0001", "cost": "0.5 USD", "tokens": {"in": 1, "out": 2}}
    calls = [call(1, cost="0.1 USD"), call(2, cost="0.25 USD"), later]
    steps = steps_of(calls)
    assert [one.record["cost"] for one in steps] == ["0.5 USD", "0.25 USD"] and sums_of(steps).cost == {"USD": "0.75"}
    assert steps[0].record["tokens"] == {"in": 1, "out": 2} and calls[0]["cost"] == "0.1 USD"


def test_depth_is_bounded() -> None:
    chain = [call(number, str(number - 1), str(number)) for number in range(DEEPEST + 20)]
    assert max(one.depth for one in steps_of(chain)) == DEEPEST
    assert len(steps_of(chain)) == len(chain)


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.lists(st.text(max_size=2), max_size=2)
)
NAMES = st.sampled_from(("a", "b", ""))


@given(st.lists(st.dictionaries(
    st.sampled_from([*call(1), "cost", "approval", "step", "by", "begin", "seq", "policy", "rule"]), VALUES | NAMES,
), max_size=8))  # fmt: skip
def test_any_records_become_steps(records: list[dict[str, Any]]) -> None:
    calls = [one for one in records if one.get("event") in ("call", "refused")]
    steps = steps_of(records)
    assert len([one for one in steps if not one.open]) == len(calls)
    assert sums_of(steps).calls == len(steps)


def test_runs_are_told_apart_and_the_latest_is_the_last() -> None:
    recount = {"event": "recount", "time": "2026-11-27T10:00:00Z", "call": "0002", "cost": "0.04 USD", "trace": "ab"}
    found = runs_among([
        call(5, run="trip-7", trace="ab", decision="deny", outcome="denied"), call(1, run="trip-7", session="s"),
        call(2, trace="ab", cost="0.01 USD"), call(3, session="s"), call(4), recount,
        {"event": "recount", "time": "t", "run": "elsewhere"}, {"event": "admin", "run": "no-call"},
    ])  # fmt: skip
    assert [(one.kind, one.id, one.sums.calls) for one in found] == [
        ("session", "s", 1), ("run", "trip-7", 2), ("trace", "ab", 1),
    ]  # fmt: skip
    assert found[1].first < found[1].last and found[1].sums.denied == 1
    assert found[2].sums.cost == {"USD": "0.04"}, "what was counted anew later"


@given(st.lists(st.dictionaries(st.sampled_from(["run", "trace", "session", "event", "time", "id"]), JUNK)))
def test_whatever_stands_in_records_there_are_runs_of_calls_alone(records: list[dict[str, Any]]) -> None:
    assert all(one.sums.calls and one.id for one in runs_among(records))
