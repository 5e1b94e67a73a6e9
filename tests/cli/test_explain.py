"""`narthex explain`: what it prints and exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli

CONFIG = """version: 1
servers:
  time: {command: python3}
  billing: {url: "http://localhost:1/mcp"}
grants:
  - {name: support reads, who: {role: support}, allow: ["time__*"]}
  - {name: small refunds, who: {role: support, agent: bot}, allow: ["billing__refund"], when: "args.amount <= 100"}
  - {name: office, allow: {prompts: ["billing__*"]}, networks: [10.0.0.0/8]}
  - {name: no deletes, deny: ["*__delete_*"]}
  - {name: large refunds, who: {role: lead}, hold: ["billing__refund"], when: "args.amount > 100"}
"""


@pytest.fixture
def explain(tmp_path: Path) -> object:
    file = tmp_path / "narthex.yaml"
    file.write_text(CONFIG)

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli, ["explain", "--config", str(file), *words])

    return run


SUPPORT = ("--who", "role=support", "--who", "agent=bot")


def test_what_rules_in_shadow_mode_would_say(tmp_path: Path) -> None:
    file = tmp_path / "narthex.yaml"
    file.write_text(CONFIG + '  - {name: nothing on sundays, deny: ["time__*"], when: "true", mode: shadow}\n')
    words = ["explain", "--config", str(file), *SUPPORT, "--tool", "time__now"]
    found = CliRunner().invoke(cli, words)
    assert found.exit_code == 0, "it decides nothing"
    assert "With the rules in shadow mode: deny, denied_by_rule by 'nothing on sundays' (narthex.yaml:" in found.output
    assert json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)["shadow"]["decision"] == "deny"


def test_what_a_policy_and_a_rule_on_runs_in_shadow_mode_would_say(tmp_path: Path) -> None:
    file, policy = tmp_path / "narthex.yaml", tmp_path / "policy"
    policy.mkdir()
    listed = 'decision if input.action == "list"'
    (policy / "p.rego").write_text(f"package narthex\n\ndefault decision := false\n\n{listed}\n")
    head = CONFIG.partition("grants:")[0]
    words = ["explain", "--config", str(file), *SUPPORT, "--tool", "time__now"]
    file.write_text(head + "policy: {rego: {bundle: policy, engine: inline}, mode: shadow}\n")
    found = CliRunner().invoke(cli, words)
    assert (found.exit_code, "With the rules in shadow mode: deny, denied_by_policy" in found.output) == (0, True)
    rule = "{name: once, deny: ['time__now'], at_most: 1, mode: shadow}"
    file.write_text(head + f"runs: {{rules: [{rule}]}}\n")
    found = CliRunner().invoke(cli, [*words, "--run-call", "time__now"])
    assert found.exit_code == 0 and "in shadow mode: 1 of at most 1" in found.output
    assert "With the rules in shadow mode: deny, run_count by 'once'" in found.output


@pytest.mark.parametrize(
    ("words", "code", "last"),
    [
        pytest.param(
            (*SUPPORT, "--tool", "billing__refund", "--arg", "amount=7"),
            0,
            "Allowed: granted by 'small refunds' (narthex.yaml:7)",
            id="allowed",
        ),
        pytest.param(
            (*SUPPORT, "--tool", "billing__refund", "--args", '{"amount": 700}'),
            1,
            "Denied: condition_not_met by 'small refunds' (narthex.yaml:7)",
            id="condition",
        ),
        pytest.param(
            ("--who", "role=dev", "--tool", "time__now"),
            1,
            "Denied: not_granted; the caller does not see it: it answers as what is missing",
            id="not granted",
        ),
        pytest.param(
            (*SUPPORT, "--tool", "time__delete_all"),
            1,
            "Denied: denied_by_rule by 'no deletes' (narthex.yaml:9); the caller does not see it: it answers as what is"
            " missing",
            id="denied",
        ),
        pytest.param(
            ("--prompt", "billing__hi", "--address", "10.1.1.1"),
            0,
            "Allowed: granted by 'office' (narthex.yaml:8)",
            id="prompt",
        ),
        pytest.param(
            ("--who", "role=lead", "--tool", "billing__refund", "--arg", "amount=700"),
            1,
            "Held: approval_required by 'large refunds' (narthex.yaml:10)",
            id="held",
        ),
    ],
)
def test_says_and_exits(explain: object, words: tuple[str, ...], code: int, last: str) -> None:
    found: Result = explain(*words)  # type: ignore[operator]
    assert found.exit_code == code, found.output
    assert found.output.rstrip().splitlines()[-1] == last
    assert "narthex.yaml:6    allow  support reads" in found.output


def test_one_json_document(explain: object) -> None:
    found: Result = explain(*SUPPORT, "--tool", "billing__refund", "--arg", "amount=7", "--json")  # type: ignore[operator]
    document = json.loads(found.output)
    assert (document["decision"], document["rule"], document["line"], document["visible"]) == (
        "allow", "small refunds", 7, True,
    )  # fmt: skip
    assert [rule["verdict"] for rule in document["rules"]] == ["skipped", "applies", "skipped", "skipped", "skipped"]


@pytest.mark.parametrize(
    ("endpoint", "words", "code", "last"),
    [
        pytest.param("scopes: {'time__*': [clock]}", (), 1, "Denied: insufficient_scope", id="lacks a scope"),
        pytest.param("scopes: {'time__*': [clock]}", ("--who", "scope=clock"), 0, "Allowed: granted by", id="has it"),
        pytest.param("servers: [billing]", (), 1, "Denied: not_found; the caller does not see it", id="not there"),
    ],
)
def test_scopes_and_the_endpoint_have_a_say(
    tmp_path: Path, endpoint: str, words: tuple[str, ...], code: int, last: str
) -> None:
    file = tmp_path / "narthex.yaml"
    file.write_text(CONFIG + "endpoints: {default: {" + endpoint + "}}\n")
    done = CliRunner().invoke(cli, ["explain", "--config", str(file), *SUPPORT, *words, "--tool", "time__now"])
    assert done.exit_code == code and done.output.splitlines()[-1].startswith(last), done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param((), "one of --tool, --prompt and --resource", id="nothing called"),
        pytest.param(("--tool", "refund"), "is no canonical name", id="not canonical"),
        pytest.param(("--tool", "bill__refund"), "no server 'bill'", id="unknown server"),
        pytest.param(
            ("--tool", "time__now", "--who", "rol=x"), "no 'rol' in --who; did you mean 'role'?", id="misspelt"
        ),
        pytest.param(("--tool", "time__now", "--who", "role"), "is not KEY=VALUE", id="no value"),
        pytest.param(("--tool", "time__now", "--args", "[]"), "must be an object", id="no object"),
        pytest.param(("--tool", "time__now", "--endpoint", "x"), "no endpoint 'x'", id="endpoint"),
    ],
)
def test_misused(explain: object, words: tuple[str, ...], says: str) -> None:
    found: Result = explain(*words)  # type: ignore[operator]
    assert found.exit_code == 2
    assert says in found.output
