"""`narthex explain` where an engine decides beside the grants, or alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli

SERVERS = "version: 1\nservers: {billing: {url: 'http://localhost:1/mcp'}}\npolicy: {rego: {bundle: policy}}\n"
GRANTS = "grants: [{name: all, allow: ['billing__*'], when: 'args.amount < 50'}]\n"
POLICY = """package narthex

import rego.v1

default decision := {"allow": false, "reasons": ["no rule allows it"]}

decision := {"allow": true} if {
	input.action == "list"
	not startswith(input.resource.upstream_name, "secret")
}

decision := {"allow": true, "reasons": ["small"]} if input.mcp.arguments.amount <= 100
"""
Explain = Callable[..., Result]


@pytest.fixture
def explain(tmp_path: Path) -> Explain:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "policy.rego").write_text(POLICY)

    def run(*words: str, grants: bool = False) -> Result:
        file = tmp_path / "narthex.yaml"
        file.write_text(SERVERS + (GRANTS if grants else ""))
        return CliRunner().invoke(cli, ["explain", "--config", str(file), *words])

    return run


@pytest.mark.parametrize(
    ("tool", "amount", "grants", "code", "said"),
    [
        pytest.param("refund", 7, False, 0, "Allowed: allowed_by_policy by the policy (rego, revision sha256:",
                     id="allowed"),
        pytest.param("refund", 700, False, 1, "): no rule allows it", id="denied"),
        pytest.param("secret", 7, False, 1, "Denied: not_granted; the caller does not see it", id="hidden"),
        pytest.param("refund", 7, True, 0, "Allowed: allowed_by_policy by the policy", id="both allow"),
        pytest.param("refund", 70, True, 1, "Denied: condition_not_met by 'all'", id="the grants deny"),
    ],
)  # fmt: skip
def test_an_engine_is_asked(explain: Explain, tool: str, amount: int, grants: bool, code: int, said: str) -> None:
    done = explain("--tool", f"billing__{tool}", "--arg", f"amount={amount}", grants=grants)
    assert done.exit_code == code, done.output
    assert said in done.output
    assert "may call everything" not in done.output


def test_for_programs(explain: Explain) -> None:
    document = json.loads(explain("--tool", "billing__refund", "--arg", "amount=700", "--json").output)
    assert (document["decision"], document["reason"], document["visible"]) == ("deny", "denied_by_policy", True)
    assert document["policy"]["engine"] == "rego" and document["policy"]["detail"] == "no rule allows it"
