"""`narthex explain` shows which lines a real Open Policy Agent looked at; and goes on where it does not say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli
from tests.counterparts.opa_server import OpaServer, served

POLICY = """package narthex

import rego.v1

default decision := {"allow": false, "reasons": ["no rule allows it"]}

decision := {"allow": true} if input.action == "list"

decision := {"allow": true, "reasons": ["small"]} if {
	not startswith(input.resource.upstream_name, "secret")
	some limit in [10, 100]
	input.mcp.arguments.amount == limit
}
"""
NO_TRACES = """package system.authz

import rego.v1

default allow := true

allow := false if input.params.explain
"""
MANY = POLICY.replace("[10, 100]", "numbers.range(1000, 9000)")


@pytest.fixture(scope="module")
def agent(opa: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpaServer]:
    with served(opa, tmp_path_factory.mktemp("opa")) as server:
        yield server


def explain(folder: Path, url: str, *words: str) -> Result:
    file = folder / "narthex.yaml"
    file.write_text(
        "version: 1\nservers: {billing: {url: 'http://localhost:1/mcp'}}\n"
        f"policy: {{opa: {{url: '{url}', path: narthex/decision, deadline: 20s}}}}\n"
    )
    return CliRunner().invoke(cli, ["explain", "--config", str(file), "--tool", "billing__refund", *words])


@pytest.mark.parametrize(
    ("amount", "verdicts"),
    [
        pytest.param(100, {9: "held", 10: "evaluated", 11: "evaluated", 12: "evaluated"}, id="allowed"),
        pytest.param(7, {5: "held", 9: "evaluated", 10: "evaluated", 11: "evaluated", 12: "failed"}, id="denied"),
    ],
)
def test_the_lines_that_it_looked_at(agent: OpaServer, tmp_path: Path, amount: int, verdicts: dict[int, str]) -> None:
    agent.put_policy("policy.rego", POLICY)
    done = explain(tmp_path, agent.url, "--arg", f"amount={amount}", "--json")
    trace = json.loads(done.stdout)["trace"]
    assert (trace["action"], trace["problem"]) == ("tools/call", None)
    assert {one["line"]: one["verdict"] for one in trace["lines"]} == verdicts
    assert {one["file"] for one in trace["lines"]} == {"policy.rego"}


def test_a_trace_that_is_too_long_is_said_and_the_decision_stands(agent: OpaServer, tmp_path: Path) -> None:
    agent.put_policy("policy.rego", MANY)
    done = explain(tmp_path, agent.url, "--arg", "amount=7")
    assert done.exit_code == 1 and "Denied: denied_by_policy by the policy (opa" in done.output
    assert f"  That is not known: {agent.url}: answer too large\n" in done.output


def test_an_agent_that_refuses_to_explain(opa: str, tmp_path: Path) -> None:
    (tmp_path / "authz.rego").write_text(NO_TRACES)
    (tmp_path / "policy.rego").write_text(POLICY)
    files = [str(tmp_path / "authz.rego"), str(tmp_path / "policy.rego")]
    with served(opa, tmp_path, "--authorization", "basic", *files) as server:
        done = explain(tmp_path, server.url, "--arg", "amount=10")
    assert done.exit_code == 0 and "Allowed: allowed_by_policy by the policy (opa" in done.output
    assert "  That is not known: HTTP 401 unauthorized: " in done.output


def test_an_agent_that_is_not_there(tmp_path: Path) -> None:
    done = explain(tmp_path, "http://127.0.0.1:1")
    assert done.exit_code == 1 and "Traceback" not in done.output
