"""`narthex run show` finds a run by whatever it is known by, and shows it as it was recorded; nothing of others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click import unstyle
from click.testing import CliRunner, Result

from narthex.cli.main import cli
from narthex.cli.run import head_lines, step_lines
from narthex.telemetry.audit.execution import steps_of, sums_of
from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import Gateway, Wire, message, routing_headers, wait_for

pytestmark = pytest.mark.e2e
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("find", "send", "other")]
STATED = {
    "io.narthex/task": "Book a trip for ada@example.com\n\x1b[31mto Rome",
    "gen_ai.request.model": "model-9", "gen_ai.prompt.name": "travel",
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "version": 1,
    "audit": {
        "dir": "audit",
        "payloads": [{"parts": ["task"], "keep": "redacted"}, {"tools": ["one__find"], "keep": "full"}],
    },
    "grants": [
        {"name": "most", "allow": ["one__*"]},
        {"name": "no sending", "deny": ["one__send"], "when": "args.number == 2"},
    ],
    "prices": [{"tools": ["one__find"], "per_call": "0.02 USD"}],
    "telemetry": {"otlp": {"url": "http://127.0.0.1:9", "metrics": False}},
}


@pytest.fixture(scope="module")
def gateway(module_gateway: StartGateway) -> Iterator[Gateway]:
    """One whose agent has made three calls of one run and trace, one within another, and one of none."""
    with FakeServer(tools=TOOLS) as server:
        started = module_gateway({**CONFIG, "servers": {"one": {"url": server.url}}})

        def call(tool: str, number: int, parent: str = "") -> None:
            body = message("tools/call", {"name": f"one__{tool}", "arguments": {"number": number}})
            if parent:
                body["params"]["_meta"] |= {"io.narthex/run": "trip-7", "traceparent": f"00-{TRACE}-{parent}-01"}
            if number == 1:
                body["params"]["_meta"] |= STATED
            with Wire(started.mcp) as wire:
                wire.request("POST", "/mcp", routing_headers(body), json.dumps(body).encode())

        call("find", 1, SPAN)
        told = [one for one in server.asked if one.method == "tools/call"][-1].headers["traceparent"].split("-")[2]
        call("send", 2, told)
        call("find", 3, SPAN)
        call("other", 4)
        wait_for(lambda: len(steps(started, "trip-7")) == 3, "the records")
        yield started


def show(gateway: Gateway, id_: str, *options: str) -> Result:
    return CliRunner().invoke(cli, ["run", "show", id_, "--config", str(gateway.folder / "narthex.yaml"), *options])


def steps(gateway: Gateway, id_: str, *options: str) -> list[dict[str, Any]]:
    done = show(gateway, id_, "--json", *options)
    found: list[dict[str, Any]] = json.loads(done.stdout)["steps"] if done.exit_code == 0 else []
    return found


def test_a_run_is_a_tree_with_decisions_and_cost(gateway: Gateway) -> None:
    document = json.loads(show(gateway, "trip-7", "--json").stdout)
    assert (document["kind"], document["id"]) == ("run", "trip-7")
    assert [(one["depth"], one["what"], one["decision"], one["rule"]) for one in document["steps"]] == [
        (0, "one__find", "allow", "most"), (1, "one__send", "deny", "no sending"), (0, "one__find", "allow", "most"),
    ]  # fmt: skip
    sums = document["sums"]
    assert (sums["calls"], sums["denied"], sums["cost"]) == (3, 1, {"USD": "0.04"})
    shown = show(gateway, "trip-7").stdout
    assert shown.splitlines()[0] == "run trip-7"
    assert "3 calls, 1 denied, 0 failed" in shown
    assert "deny by 'no sending', denied" in shown
    assert "result sha256:" in shown
    assert "one__other" not in shown


def test_what_waits_for_a_person_is_counted_apart() -> None:
    waiting = {"event": "refused", "decision": "hold", "outcome": "approval_required", "time": "2026-01-01T00:00:00Z"}
    passed = {"event": "call", "decision": "hold", "outcome": "ok", "approval": "a1", "time": "2026-01-01T00:00:01Z"}
    limited = passed | {"outcome": "rate_limited", "approval": "", "time": "2026-01-01T00:00:02Z"}
    steps = steps_of([waiting, passed, limited])
    sums = sums_of(steps)
    assert (sums.calls, sums.denied, sums.held, sums.failed) == (3, 0, 1, 1)
    assert "3 calls, 0 denied, 1 held, 1 failed" in "\n".join(head_lines("run", "r", steps, sums))


def test_in_a_narrow_terminal_an_id_is_in_one_piece() -> None:
    id_ = "01a21f50-ab7f-7000-97b2-31a7e2a1a9c3"
    record = {
        "event": "call", "id": id_, "time": "2026-11-27T23:21:50.207753Z", "server": "time", "decision": "allow",
        "name": "get_current_time_of_a_place", "outcome": "upstream_unavailable", "seconds": 0.0423, "cost": "0.01 USD",
        "arguments_digest": f"sha256:{'d0' * 32}", "result_digest": f"sha256:{'c0' * 32}",
        "policy": {"rule": "what everybody reads"},
    }  # fmt: skip
    (step,) = steps_of([record])
    wide, narrow = step_lines(step, []), [unstyle(line) for line in step_lines(step, [], 80)]
    assert len(wide) == 2 and wide[1].endswith(f"  record {id_}")
    assert all(len(line) <= 80 for line in narrow) and f"              record {id_}" in narrow
    assert " ".join(" ".join(narrow).split()) == " ".join(unstyle(" ".join(wide)).split()), "nothing is lost"


def test_whatever_it_is_known_by(gateway: Gateway) -> None:
    by_run = steps(gateway, "trip-7")
    assert steps(gateway, TRACE) == by_run
    record = by_run[0]["record"]
    assert (record["trace"], record["parent"], record["run"]) == (TRACE, SPAN, "trip-7")
    assert steps(gateway, record["id"]) == by_run, "of one of its calls"
    assert steps(gateway, by_run[1]["record"]["decision_id"]) == by_run
    assert steps(gateway, "trip-7", "--dir", str(gateway.folder / "audit")) == by_run, "in a folder that has no index"


def test_what_was_kept_is_shown_where_that_is_asked(gateway: Gateway) -> None:
    kept = steps(gateway, "trip-7", "--payloads")
    assert [one["payloads"] for one in steps(gateway, "trip-7")] == [[], [], []]
    parts = {part["part"]: part["body"] for part in kept[0]["payloads"]}
    assert parts["arguments"] == {"number": 1}
    assert json.loads(parts["result"]["content"][0]["text"]) == {"number": 1}, "what it returned"
    assert kept[1]["payloads"] == []
    assert '{"number":1}' in show(gateway, "trip-7", "--payloads").stdout.replace(" ", "")


def test_what_the_agent_says_that_it_is_for_stands_at_the_head(gateway: Gateway) -> None:
    sums = json.loads(show(gateway, "trip-7", "--json").stdout)["sums"]
    assert (sums["models"], sums["prompts"]) == (["model-9"], ["travel"])
    silent = show(gateway, "trip-7").stdout
    assert "model: model-9\nprompt: travel\ntask: kept; --payloads shows it\n" in silent and "Rome" not in silent
    told = show(gateway, "trip-7", "--payloads").stdout
    assert told.count("Book a trip for [redacted: emails]") == 1 and "to Rome" in told and "\x1b" not in told
    assert "ada@example.com" not in told
    first = steps(gateway, "trip-7", "--payloads")[0]["payloads"]
    assert [one["part"] for one in first] == ["task", "arguments", "result"]


def test_a_copied_folder_needs_no_configuration(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["run", "show", "trip-7", "--dir", str(gateway.folder / "audit"), "--payloads"])
    assert done.exit_code == 0 and "task: " in done.stdout, done.output


def test_what_is_not_recorded(gateway: Gateway) -> None:
    done = show(gateway, "trip-8")
    assert done.exit_code == 1
    assert "nothing is recorded of trip-8:\nan ID is what the agent called its run" in done.stderr
    empty = CliRunner().invoke(cli, ["run", "show", "trip-7", "--dir", str(gateway.folder)])
    assert empty.exit_code == 1 and "no records in" in empty.stderr
