"""What agents do is told apart as they would say it: success, runs, retries, repeats, loops; and it stays bounded."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.codec.jsonrpc import Raw
from narthex.telemetry.accounts import OUTCOME
from narthex.telemetry.behaviour import IDLE_S, Behaviour
from narthex.types import LOCAL, Call

ONE = msgspec.structs.replace(LOCAL, client="helpdesk-bot")


def call(arguments: object = None, client: str = "helpdesk-bot") -> Call:
    params = {} if arguments is None else {"arguments": Raw(json.dumps(arguments).encode())}
    who = msgspec.structs.replace(ONE, client=client)
    return Call("tools/call", params, {}, b"1", "modern", "2026-07-28", who, "default", "t")


def note(
    behaviour: Behaviour, arguments: object = None, outcome: str = "ok", *, name: str = "t", now: float = 1.0,
    trace: str = "", client: str = "helpdesk-bot",
) -> None:  # fmt: skip
    behaviour.note(call(arguments, client), "s", name, OUTCOME[outcome], 0.5, now, trace, (10, "USD"))


def sums(behaviour: Behaviour) -> tuple[int, int, int, int]:
    rows = behaviour.rows.values()
    return tuple(sum(getattr(row, name) for row in rows) for name in ("runs", "retries", "repeats", "loops"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("calls", "counted"),
    [
        pytest.param([(1, "ok"), (2, "ok"), (1, "ok")], (1, 0, 0, 0), id="other arguments in between"),
        pytest.param([(1, "ok"), (1, "ok")], (1, 0, 1, 0), id="again: a repeat"),
        pytest.param([(1, "upstream_timeout"), (1, "ok")], (1, 1, 0, 0), id="again after a failure: a retry"),
        pytest.param([(1, "approval_required"), (1, "ok")], (1, 0, 0, 0), id="again after a hold: neither"),
        pytest.param([(1, "denied"), (1, "denied"), (1, "denied")], (1, 2, 0, 1), id="the third time: a loop"),
        pytest.param([(1, "ok")] * 5, (1, 0, 4, 3), id="and every time after it"),
        pytest.param([(1, "ok"), (None, "ok"), ({}, "ok")], (1, 0, 0, 0), id="no arguments are not empty ones"),
    ],
)
def test_the_same_again(calls: list[tuple[object, str]], counted: tuple[int, int, int, int]) -> None:
    behaviour = Behaviour()
    for arguments, outcome in calls:
        note(behaviour, arguments, outcome)
    assert sums(behaviour) == counted


def test_the_end_of_long_arguments_is_not_looked_at_but_their_length_is() -> None:
    behaviour = Behaviour()
    note(behaviour, "x" * 10_000)
    note(behaviour, "x" * 10_001)
    assert sums(behaviour) == (1, 0, 0, 0)


def test_runs_are_told_apart_by_trace_and_pause_and_agent() -> None:
    behaviour = Behaviour()
    note(behaviour, now=1.0)
    note(behaviour, now=1.0 + IDLE_S)
    note(behaviour, now=2.0 + 2 * IDLE_S)
    note(behaviour, now=2.0 + 2 * IDLE_S, trace="a")
    note(behaviour, now=2.0 + 2 * IDLE_S, trace="b")
    note(behaviour, now=2.0 + 2 * IDLE_S, client="other-bot")
    assert sums(behaviour)[0] == 5


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [("ok", (1, 0, 0, 0)), ("tool_error", (0, 1, 0, 0)), ("rpc_error", (0, 1, 0, 0)), ("cancelled", (0, 1, 0, 0)),
     ("approval_required", (0, 0, 1, 0)), ("denied", (0, 0, 0, 1)), ("upstream_timeout", (0, 0, 0, 1))],
)  # fmt: skip
def test_success(outcome: str, counts: tuple[int, int, int, int]) -> None:
    behaviour = Behaviour()
    note(behaviour, outcome=outcome)
    (row,) = behaviour.rows.values()
    assert (row.ok, row.failed, row.held, row.refused) == counts
    assert (row.calls, row.seconds, row.cost) == (1, 0.5, {"USD": 10})


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=60))
def test_rows_and_runs_are_bounded_and_no_call_is_lost(calls: list[tuple[str, str]]) -> None:
    behaviour = Behaviour(most_rows=4, most_runs=3)
    for name, client in calls:
        note(behaviour, name=name, client=client)
    assert sum(row.calls for row in behaviour.rows.values()) == len(calls)
    assert len(behaviour.rows) <= 5
    assert len(behaviour._runs) <= 3
