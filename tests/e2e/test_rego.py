"""A running gateway that decides by a folder of Rego: calls, a policy that changes, a bad one, and no leftovers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import Gateway, wait_for
from tests.e2e.test_kept import TOOLS, call

pytestmark = pytest.mark.e2e
HEAD = "package narthex\n\nimport rego.v1\n\n"
ALL = HEAD + "decision := true\n"
NONE = HEAD + 'default decision := false\ndecision if input.action == "list"\n'
LOOPS = (
    HEAD
    + """decision if input.action == "list"
decision if {
	input.action != "list"
	every x in numbers.range(1, 100000) { every y in numbers.range(1, 100000) { x + y > 0 } }
}
"""
)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(tools=TOOLS) as started:
        yield started


def reason(running: Gateway) -> str:
    answer: dict[str, Any] = call(running).answer
    return str(answer["error"]["data"]["reason"]) if "error" in answer else "allowed"


def children(pid: int) -> list[str]:
    found = subprocess.run(["ps", "-o", "args=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [line for line in found.stdout.splitlines() if "narthex.engines.child" in line]


@pytest.mark.parametrize("engine", ["helper", "inline"])
def test_a_policy_rules_and_is_replaced_while_the_gateway_runs(
    start_gateway: StartGateway, server: FakeServer, tmp_path: Path, engine: str
) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "policy.rego").write_text(ALL)
    text = f"version: 1\nservers: {{one: {{url: '{server.url}'}}}}\n"
    running = start_gateway(text + f"policy: {{rego: {{bundle: '{policy}', engine: {engine}}}}}\n")
    assert reason(running) == "allowed"
    (policy / "policy.rego").write_text(NONE)
    wait_for(lambda: reason(running) == "denied_by_policy", "the other policy")
    (policy / "policy.rego").write_text(HEAD + "decision := {")
    (policy / "more.rego").write_text("package more\n")
    assert reason(running) == "denied_by_policy"
    if engine == "helper":
        (policy / "policy.rego").write_text(LOOPS)
        wait_for(lambda: reason(running) == "policy_timeout", "a policy that takes too long")
        wait_for(lambda: len(children(running.process.pid)) >= 2, "helpers")
    (policy / "policy.rego").write_text(ALL)
    wait_for(lambda: reason(running) == "allowed", "the first policy again")
    (running.folder / running.file).write_text(text)
    wait_for(lambda: not children(running.process.pid), "no helpers without a policy")
