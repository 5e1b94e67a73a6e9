"""Rules on runs in a gateway of its own, by its file: calls in both eras, a reload, an approval, records and replay."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import Client, Era, Gateway, get, json_lines, wait_for
from tests.e2e.test_approvals import command

pytestmark = pytest.mark.e2e
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("fetch", "find", "send", "post")]
RUNS: dict[str, Any] = {
    "labels": [
        {"adds": "untrusted", "tools": ["one__fetch"]},
        {"adds": "private", "tools": ["*"], "classification": {"at_least": "confidential"}},
    ],
    "rules": [
        {"name": "trifecta", "deny": ["one__send"], "labels": ["untrusted", "private"]},
        {"name": "ask", "hold": ["one__post"], "labels": ["untrusted"]},
    ],
}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(tools=TOOLS) as started:
        yield started


def config(server: FakeServer, **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "servers": {"one": {"url": server.url, "classification": "internal"}},
        "data": [{"tools": ["one__find"], "classification": "confidential"}],
        "audit": {"dir": "audit", "inputs": "full"},
        "runs": {**RUNS, **more},
    }


def reason(client: Client, tool: str) -> str:
    answer = client.ask("tools/call", {"name": f"one__{tool}", "arguments": {}})
    return str(answer["error"]["data"]["reason"]) if "error" in answer else "ok"


def gauge(gateway: Gateway) -> float:
    lines = get(f"{gateway.admin}/metrics").body.decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("narthex_open_runs ")))


def refusals(gateway: Gateway) -> list[Any]:
    """What was recorded of calls that were denied; nothing before there are two."""
    records = json_lines(*(gateway.folder / "audit").glob("calls-*.jsonl"))
    denied = [one for one in records if one.get("policy", {}).get("effect") == "deny"]
    return denied if len(denied) == 2 else []


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_what_calls_add_up_to(start_gateway: StartGateway, server: FakeServer, era: Era) -> None:
    gateway = start_gateway(config(server))
    client = gateway.client(era=era)
    assert gauge(gateway) == 0
    assert [reason(client, tool) for tool in ("send", "fetch", "send", "find", "send")] == [
        *("ok", "ok", "ok", "ok", "run_labels")
    ]
    assert gauge(gateway) == 1
    assert client.tools() == [f"one__{tool['name']}" for tool in TOOLS]
    without = {"endpoints": {"default": {"servers": ["one"], "tools": {"exclude": ["one__post"]}}}}
    gateway.write({**config(server, window="2h"), **without})
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: "one__post" not in client.tools(), "the reload")
    assert reason(gateway.client(era=era), "send") == "run_labels", "a reload and another connection keep the labels"

    denied = wait_for(lambda: refusals(gateway), "the records")
    assert {(one["policy"]["rule"], one["reason"]) for one in denied} == {("trifecta", "run_labels")}
    assert denied[0]["input"]["run"]["labels"] == ["private", "untrusted"]
    assert "all agree" in command(gateway, "replay")


def test_a_rule_may_hold_until_a_person_says_yes(start_gateway: StartGateway, server: FakeServer) -> None:
    gateway = start_gateway(config(server))
    client = gateway.client()
    assert reason(client, "post") == "ok"
    assert reason(client, "fetch") == "ok"
    answer = client.ask("tools/call", {"name": "one__post", "arguments": {}})
    assert answer["error"]["code"] == -31004
    id_ = answer["error"]["data"]["approvalId"]
    command(gateway, "approvals", "approve", id_)
    wait_for(lambda: reason(client, "post") == "ok", "the approval")
    assert reason(client, "post") == "approval_required", "once"
