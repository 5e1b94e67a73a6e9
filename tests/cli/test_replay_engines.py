"""Decisions that an engine took are taken again through it: Rego here, an Open Policy Agent over the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli
from tests.cli.test_replay import ADA, Rig
from tests.counterparts.serving import served
from tests.engines.agent import Agent
from tests.flow.policy.evidence.test_replay import decided, line

HEAD = """version: 1
servers:
  billing: {url: "http://localhost:1/mcp"}
audit: {dir: audit, inputs: full}
"""
REGO = """package narthex

import rego.v1

default decision := false

decision if input.action == "list"

decision if input.mcp.arguments.amount <= 100
"""
CALLS = (({"amount": 7}, "allow", "allowed_by_policy"), ({"amount": 700}, "deny", "denied_by_policy"))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    rig.write("policy/policy.rego", REGO)
    rig.config.write_text(HEAD + "policy: {rego: {bundle: policy}}\n")
    rig.records.write_text("")
    record(rig, *CALLS)
    return rig


def record(rig: Rig, *calls: tuple[dict[str, Any], str, str], full: bool = True) -> None:
    with rig.records.open("a") as file:
        for arguments, effect, reason in calls:
            found = json.loads(line(*decided(None, ADA, "billing__refund", json.dumps(arguments).encode()), full=full))
            found["policy"] |= {"effect": effect, "reason": reason, "engine": "rego", "bundle": "b1"}
            file.write(json.dumps(found) + "\n")


def run(rig: Rig, *words: str) -> Result:
    return CliRunner().invoke(cli, [*words, "--config", str(rig.config)])


@pytest.mark.parametrize("engine", ["helper", "inline"])
def test_rego_agrees_with_itself_and_not_with_another_bundle(rig: Rig, engine: str) -> None:
    rig.config.write_text(HEAD + f"policy: {{rego: {{bundle: policy, engine: {engine}}}}}\n")
    found = run(rig, "replay")
    assert (found.exit_code, found.stdout) == (0, "2 decisions: all agree.\n")
    rig.write("policy/policy.rego", REGO.replace("<= 100", "<= 5"))
    found = run(rig, "replay")
    assert found.exit_code == 1 and "1 differs from what was recorded" in found.output


def test_what_an_engine_failed_at_is_no_decision_to_agree_with(rig: Rig) -> None:
    record(rig, ({"amount": 7}, "deny", "policy_timeout"), ({"amount": 7}, "allow", "allowed_without_policy"))
    found = run(rig, "replay")
    assert (found.exit_code, found.stdout) == (0, "2 decisions: all agree.\n")
    assert "the engine had not answered (policy_timeout)" in found.stderr


def test_a_policy_that_looks_at_arguments_cannot_be_asked_without(rig: Rig) -> None:
    record(rig, CALLS[0], full=False)
    assert "1 could not be decided: its arguments were not recorded" in run(rig, "replay").stderr


def test_a_bundle_that_cannot_be_used_ends_the_command(rig: Rig) -> None:
    rig.write("policy/policy.rego", "package narthex\n\ndecision := {")
    found = run(rig, "replay")
    assert found.exit_code == 1 and "policy" in found.output


def test_an_agent_is_asked_again(rig: Rig) -> None:
    def small(asked: dict[str, Any]) -> bool:
        return bool(asked["action"] == "list" or asked["mcp"]["arguments"]["amount"] <= 100)

    agent = Agent(small)
    with served(agent.app) as url:
        rig.config.write_text(HEAD + f"policy: {{opa: {{url: '{url}', path: narthex/decision}}}}\n")
        found = run(rig, "replay")
        assert (found.exit_code, found.stdout) == (0, "2 decisions: all agree.\n")
        agent.status = 500
        found = run(rig, "replay", "--json")
    document = json.loads(found.stdout)
    assert (found.exit_code, document["decided"]) == (1, 0), "an agent that is away agrees with nothing"
    assert sum(document["untold"].values()) == 2


def test_cases_and_explanations_ask_it_too(rig: Rig) -> None:
    cases = "cases:\n" + "".join(
        f"  - {{who: {{role: support}}, tool: billing__refund, arguments: {json.dumps(arguments)}, expect: {effect}}}\n"
        for arguments, effect, _ in CALLS
    )
    assert run(rig, "policy", "test", str(rig.write("cases.yaml", cases))).exit_code == 0
    second = f"{rig.records}:2"
    found = run(rig, "explain", second)
    assert found.exit_code == 0 and "Denied: denied_by_policy" in found.output, found.output
