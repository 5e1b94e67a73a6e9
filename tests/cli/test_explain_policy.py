"""`narthex explain` where an engine decides beside the grants, or alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli

SUPPORT = ("--who", "role=support")
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


OBLIGED = """package narthex

import rego.v1

decision := {"allow": true} if input.action == "list"

decision := {"allow": true, "obligations": {"step_up_scope": "pay", "max_results": 20, "rewrite": {"limit": 3}}} if {
	input.action != "list"
}
"""
MISSPELT = """package narthex

import rego.v1

decision := {"allow": true, "reason": "everybody"}
"""


@pytest.fixture
def obliged(explain: Explain, tmp_path: Path) -> Explain:
    (tmp_path / "policy" / "policy.rego").write_text(OBLIGED)
    return explain


def test_a_scope_that_the_policy_demands_and_the_caller_lacks(obliged: Explain) -> None:
    done = obliged(*SUPPORT, "--tool", "billing__refund")
    assert done.exit_code == 1
    assert "\n\nDenied: insufficient_scope by the policy (rego, revision sha256:" in done.output
    assert "): step_up_scope: the caller lacks pay\n" in done.output
    assert 'The policy demands step_up_scope: ["pay"]\n' in done.output


def test_what_the_policy_demands_is_shown(obliged: Explain) -> None:
    words = (*SUPPORT, "--who", "scope=pay", "--tool", "billing__refund")
    done = obliged(*words)
    assert done.exit_code == 0 and "\n\nAllowed: allowed_by_policy by the policy" in done.output, done.output
    assert "demands max_results: 20\n" in done.output and 'demands rewrite: {"limit": 3}\n' in done.output
    assert json.loads(obliged(*words, "--json").stdout)["policy"]["obligations"] == {
        "step_up_scope": ["pay"], "max_results": 20, "rewrite": {"limit": 3},
    }  # fmt: skip


def test_a_grant_that_holds_beside_a_policy_that_allows(explain: Explain, tmp_path: Path) -> None:
    (tmp_path / "narthex.yaml").write_text(SERVERS + "grants: [{name: g, hold: ['billing__*']}]\n")
    words = ["explain", "--config", str(tmp_path / "narthex.yaml"), "--tool", "billing__refund", "--arg", "amount=7"]
    done = CliRunner().invoke(cli, words)
    assert (done.exit_code, done.output.splitlines()[-1]) == (1, "Held: approval_required by 'g' (narthex.yaml:4)")


@pytest.mark.parametrize("command", ["explain", "policy test"])
def test_what_the_engine_says_that_is_no_decision(explain: Explain, tmp_path: Path, command: str) -> None:
    (tmp_path / "policy" / "policy.rego").write_text(MISSPELT)
    done = explain("--tool", "billing__refund")
    if command == "policy test":
        (tmp_path / "cases.yaml").write_text("cases:\n  - {tool: billing__refund, expect: allow}\n")
        words = ["policy", "test", str(tmp_path / "cases.yaml"), "--config", str(tmp_path / "narthex.yaml")]
        done = CliRunner().invoke(cli, words)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert "it cannot be decided: the engine does not say what the caller sees: bad_policy_result: " in done.output
    assert "unknown member 'reason'" in done.output


# --- which lines of it were looked at


def test_each_line_that_the_policy_looked_at(explain: Explain) -> None:
    done = explain("--tool", "billing__refund", "--arg", "amount=700")
    assert done.output.split("\n\n")[0].splitlines() == [
        "What the policy looked at, asked about tools/call:",
        '  policy.rego:5   evaluated    default decision := {"allow": false, "reasons": ["no rule allows it"]}',
        '  policy.rego:7   not reached  decision := {"allow": true} if {',
        '  policy.rego:8   evaluated    input.action == "list"',
        '  policy.rego:9   not reached  not startswith(input.resource.upstream_name, "secret")',
        f"  policy.rego:12  evaluated    {POLICY.splitlines()[11]}",
    ]


@pytest.mark.parametrize(
    ("tool", "grants", "action"),
    [
        pytest.param("refund", False, "tools/call", id="of a call"),
        pytest.param("secret", False, "list", id="of what is hidden, why it is"),
        pytest.param("refund", True, "list", id="of a call that the grants deny, why it is seen"),
    ],
)
def test_the_lines_for_programs(explain: Explain, tool: str, grants: bool, action: str) -> None:
    done = explain("--tool", f"billing__{tool}", "--arg", "amount=70", "--json", grants=grants)
    trace = json.loads(done.stdout)["trace"]
    assert (trace["action"], trace["more"], trace["problem"]) == (action, 0, None)
    verdicts = {one["line"]: one["verdict"] for one in trace["lines"]}
    assert verdicts[9] == ("evaluated" if action == "list" else "not reached")


def test_no_lines_without_a_policy(tmp_path: Path) -> None:
    (tmp_path / "narthex.yaml").write_text(SERVERS.partition("policy")[0] + GRANTS)
    words = ["explain", "--config", str(tmp_path / "narthex.yaml"), "--tool", "billing__refund"]
    assert json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)["trace"] is None
    assert "looked at" not in CliRunner().invoke(cli, words).output


def test_nothing_of_a_policy_moves_the_terminal(explain: Explain, tmp_path: Path) -> None:
    (tmp_path / "policy" / "policy.rego").write_text(POLICY.replace('"small"', '"\x9b31m\u202esmall"' + " " * 300))
    for words in ((), ("--json",)):
        said = explain("--tool", "billing__refund", "--arg", "amount=700", *words).output
        assert "small" in said and "\x9b" not in said and "\u202e" not in said
        assert max(map(len, said.splitlines())) < 400


def test_an_error_at_this_input_is_where_it_ends(explain: Explain, tmp_path: Path) -> None:
    (tmp_path / "policy" / "policy.rego").write_text(POLICY.replace("amount <= 100", "amount / 0 > 1"))
    done = explain("--tool", "billing__refund", "--arg", "amount=7")
    assert done.exit_code == 1
    assert "  It ends there: it fails at this input, in policy.rego:12:" in done.output
