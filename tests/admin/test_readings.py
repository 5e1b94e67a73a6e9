"""What agents do, as `/metrics` has it: each by what it is made of, and bounded however many agents come."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec

from narthex.admin.readings import MOST_AGENTS, _of_agents
from narthex.flow.codec.jsonrpc import Raw
from narthex.telemetry.accounts import OTHER, OUTCOME
from narthex.telemetry.behaviour import Behaviour
from narthex.types import LOCAL, Call

MANY = 10_000


def note(behaviour: Behaviour, name: str, outcome: str, *, agent: str = "bot", now: float = 1.0, x: int = 0) -> None:
    who = msgspec.structs.replace(LOCAL, client=agent, subject=agent)
    params = {"arguments": Raw(json.dumps({"x": x}).encode())}
    call = Call("tools/call", params, {}, b"1", "modern", "2026-07-28", who, "default", name)
    behaviour.note(call, "git", name, OUTCOME[outcome], 0.5, now, "", None)


def shown(behaviour: Behaviour) -> dict[str, dict[tuple[str, ...], float]]:
    """Each metric's series, by the values of its labels."""
    gateway: Any = SimpleNamespace(front=SimpleNamespace(behaviour=behaviour))
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for name, _, read, _ in _of_agents(gateway):
        reading: Any = read()
        found[name] = {tuple(value for _, value in labels): amount for labels, amount in reading}
    return found


def test_success_runs_retries_repeats_and_loops_of_an_agent() -> None:
    behaviour = Behaviour()
    note(behaviour, "log", "ok")
    note(behaviour, "push", "upstream_timeout")
    note(behaviour, "push", "ok")  # a retry
    for _ in range(3):
        note(behaviour, "log", "ok", x=2)  # two repeats, the second of them in a loop
    note(behaviour, "drop", "denied", now=10_000.0)  # another run
    note(behaviour, "log", "tool_error", agent="other", now=1.0)
    note(behaviour, "drop", "approval_required", agent="other", now=1.0)
    found = shown(behaviour)
    assert found["narthex_agent_tool_calls_total"] == {
        ("bot", "git", "log", "ok"): 4, ("bot", "git", "push", "ok"): 1, ("bot", "git", "push", "refused"): 1,
        ("bot", "git", "drop", "refused"): 1, ("other", "git", "log", "failed"): 1,
        ("other", "git", "drop", "held"): 1,
    }  # fmt: skip
    assert found["narthex_agent_runs_total"] == {("bot",): 2, ("other",): 1}
    assert found["narthex_agent_retries_total"] == {("bot",): 1, ("other",): 0}
    assert found["narthex_agent_repeats_total"] == {("bot",): 2, ("other",): 0}
    assert found["narthex_agent_loops_total"] == {("bot",): 1, ("other",): 0}
    calls = sum(found["narthex_agent_tool_calls_total"].values())
    assert calls / sum(found["narthex_agent_runs_total"].values()) == 9 / 3, "calls per run"


def test_ten_thousand_agents_and_names_are_no_more_series_and_no_call_is_lost() -> None:
    behaviour = Behaviour()
    for number in range(MANY):
        note(behaviour, f"tool-{number}", "ok", agent=f"agent-{number}")
    found = shown(behaviour)
    calls = found["narthex_agent_tool_calls_total"]
    assert len(calls) <= 4 * MOST_AGENTS + 1
    assert sum(calls.values()) == MANY
    for name in ("runs", "retries", "repeats", "loops"):
        assert len(found[f"narthex_agent_{name}_total"]) <= MOST_AGENTS + 1
    assert found["narthex_agent_runs_total"][OTHER,] == MANY - MOST_AGENTS
