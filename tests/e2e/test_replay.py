"""What a running gateway decided is decided again from its records, by the commands beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import ROOT, Client, Gateway, Response, Wire, json_lines, wait_for

pytestmark = pytest.mark.e2e
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("refund", "delete_all")]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(tools=TOOLS) as started:
        yield started


def command(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from narthex.cli.main import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *words, "--config", str(gateway.folder / gateway.file)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "HOME": str(gateway.folder)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def call(client: Client, tool: str, **arguments: Any) -> Response:
    return client.post("tools/call", {"name": f"one__{tool}", "arguments": arguments})


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_records_are_replayed_explained_and_held_against_other_rules(
    start_gateway: StartGateway, server: FakeServer, era: Any
) -> None:
    grants = [
        {"name": "small", "allow": ["one__refund"], "when": "args.amount <= 100"},
        {"name": "trial", "deny": ["one__refund"], "when": "args.amount > 50", "mode": "shadow"},
    ]
    config: dict[str, Any] = {
        "version": 1,
        "servers": {"one": {"url": server.url}},
        "grants": grants,
        "audit": {"dir": "audit", "inputs": "full"},
    }
    gateway = start_gateway(config)
    client = Client(gateway.mcp, era)
    if era == "legacy":
        client.open()
    assert "result" in call(client, "refund", amount=70).answer
    denied = call(client, "refund", amount=700).answer["error"]
    hidden = call(client, "delete_all").answer["error"]
    assert (denied["code"], hidden["code"]) == (-31001, -32602)

    def records() -> list[dict[str, Any]]:
        return [one for one in json_lines(*(gateway.folder / "audit").glob("calls-*.jsonl")) if one["event"] == "call"]

    wait_for(lambda: len(records()) == 3, "the records")
    assert [one["policy"]["effect"] for one in records()] == ["allow", "deny", "deny"]
    assert [one["shadow"]["effect"] for one in records()] == ["deny", "deny", "deny"]
    again = command(gateway, "replay")
    assert (again.returncode, again.stdout) == (0, "3 decisions: all agree.\n"), again.stderr
    why = command(gateway, "explain", denied["data"]["decisionId"])
    assert why.returncode == 0 and "Denied: condition_not_met by 'small'" in why.stdout, why.stderr
    config["grants"] = [{"name": "all", "allow": ["*"]}]
    (gateway.folder / "next.json").write_text(json.dumps(config))
    other = command(gateway, "replay", "--against", str(gateway.folder / "next.json"), "--json")
    found = json.loads(other.stdout)
    changes = {(one["resource"], one["before"]["reason"], one["after"]["effect"]) for one in found["differences"]}
    assert changes == {("one__refund", "condition_not_met", "allow"), ("one__delete_all", "not_granted", "allow")}
    suggested = command(gateway, "policy", "suggest")
    assert suggested.returncode == 0 and "allow: [one__refund]" in suggested.stdout, suggested.stderr


def test_the_admin_side_is_recorded_beside_the_calls(start_gateway: StartGateway, server: FakeServer) -> None:
    gateway = start_gateway({"version": 1, "servers": {"one": {"url": server.url}}, "audit": {"dir": "audit"}})
    token = (gateway.folder / ".narthex" / "admin.token").read_text().strip()
    with Wire(gateway.admin + "/api/v1/reload") as wire:
        assert wire.request("POST", headers=[("authorization", f"Bearer {token}")]).status == 200

    def acts() -> list[dict[str, Any]]:
        return [one for one in json_lines(*(gateway.folder / "audit").glob("calls-*.jsonl")) if one["event"] == "admin"]

    wait_for(lambda: acts(), "the record")
    (act,) = acts()
    assert (act["method"], act["outcome"], act["principal"]["proof"]) == ("reload", "ok", "admin_token")
