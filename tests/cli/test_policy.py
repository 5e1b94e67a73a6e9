"""`narthex policy`: cases that rules have to decide; what they allow beside what was used."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli
from narthex.config.compile import examine
from tests.cli.test_replay import ADA, Rig
from tests.flow.policy.evidence.test_replay import decided, line

CONFIG = """version: 1
servers:
  time: {command: python3}
  billing: {url: "http://localhost:1/mcp"}
grants:
  - {name: reads, who: {role: support}, allow: ["time__*", "billing__get_*"]}
  - name: refunds
    who: {role: support}
    allow: {tools: [billing__refund], prompts: ["billing__*"]}
    when: args.amount <= 100
    expires: 2099-12-31
  - {name: others, who: {role: dev}, allow: ["*"]}
  - {name: no deletes, deny: ["*__delete_*"]}
audit: {dir: audit, inputs: full}
"""
CASES = """config: narthex.yaml
cases:
  - {who: {role: support}, tool: time__now, expect: allow, rule: reads}
  - name: a small refund
    who: {role: [support, staff], agent: bot}
    tool: billing__refund
    arguments: {amount: 7, note: "a: b", parts: [1, 2.5, true, null]}
    expect: allow
  - {name: a large refund, who: {role: support}, tool: billing__refund, arguments: {amount: 700}, expect: deny}
  - {who: {role: support}, tool: billing__delete_all, expect: hidden, rule: no deletes}
  - {who: {role: support}, tool: billing__delete_all, expect: deny}
  - {who: {anonymous: true}, tool: time__now, expect: hidden}
  - {who: {role: support}, prompt: billing__letter, expect: deny}
  - {who: {role: dev}, resource: "billing__file:///a", expect: hidden}
  - {who: {role: support}, tool: time__now, endpoint: other, expect: hidden}
  - {who: {role: support}, tool: billing__refund, arguments: {amount: 7}, at: 2100-01-01, expect: hidden}
"""


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    rig.config.write_text(CONFIG)
    rig.records.write_text("")
    return rig


def policy(rig: Rig, *words: str) -> Result:
    return CliRunner().invoke(cli, ["policy", *words])


# --- test


def test_cases_that_are_decided_as_they_have_to_be(rig: Rig) -> None:
    cases = rig.write("cases.yaml", CASES)
    found = policy(rig, "test", str(cases))
    assert (found.exit_code, found.output) == (0, "10 cases: all as they have to be.\n"), found.output
    document = json.loads(policy(rig, "test", str(cases), "--json").stdout)
    assert (document["cases"], document["failed"]) == (10, 0)
    assert document["results"][2] == {
        "file": str(cases), "line": 9, "name": "a large refund", "expect": "deny", "decision": "deny",
        "reason": "condition_not_met", "rule": "refunds", "ok": True, "expect_rule": None, "wrong": None,
    }  # fmt: skip


def test_a_case_that_is_not_is_told_with_its_line(rig: Rig) -> None:
    cases = rig.write("cases.yaml", CASES.replace("amount: 7,", "amount: 701,").replace("rule: reads", "rule: refunds"))
    found = policy(rig, "test", str(cases))
    assert found.exit_code == 1
    assert f"{cases}:3: time__now: allow, but by 'reads', not 'refunds' (granted)" in found.output
    assert f"{cases}:4: a small refund: not allow, but deny (condition_not_met by 'refunds')" in found.output
    assert "2 of 10 cases are decided otherwise." in found.output


def test_another_configuration_may_be_named(rig: Rig) -> None:
    cases = rig.write("cases.yaml", CASES)
    other = rig.write("next.yaml", CONFIG.replace("<= 100", "<= 1000"))
    found = policy(rig, "test", str(cases), "--config", str(other))
    assert found.exit_code == 1 and "a large refund: not deny, but allow" in found.output


def test_a_case_of_an_unknown_server_is_no_case(rig: Rig) -> None:
    cases = rig.write("cases.yaml", CASES.replace("tool: time__now", "tool: tme__now", 1))
    found = policy(rig, "test", str(cases))
    assert found.exit_code == 1 and "line 3: no server 'tme'; did you mean 'time'?" in found.output


# --- suggest


USED = (("time__now", b"{}"), ("time__now", b"{}"), ("billing__refund", b'{"amount":7}'), ("billing__refund", b"{}"))


def test_a_narrower_set_of_grants_is_proposed(rig: Rig) -> None:
    rig.record(*USED)
    found = policy(rig, "suggest", "--config", str(rig.config))
    assert found.exit_code == 1
    assert "narthex.yaml:6: 'reads': 2 calls, all of time__now" in found.stderr
    assert "narthex.yaml:12: 'others': nobody used it" in found.stderr
    assert "  - {name: reads, who: {role: support}, allow: [time__now]}\n" in found.stdout
    assert "  # left out: others: nobody used it from " in found.stdout
    assert "{name: no deletes, deny: ['*__delete_*']}" in found.stdout
    refunds = next(line for line in found.stdout.splitlines() if "refunds" in line)
    assert "allow: {tools: [billing__refund]}, when: args.amount <= 100, expires: '2099-12-31'" in refunds
    document = json.loads(policy(rig, "suggest", "--config", str(rig.config), "--json").stdout)
    assert document["proposal"] == found.stdout and document["allowed"] == 3
    assert document["grants"][0]["narrower"] == {"tools": ["time__now"]} and document["grants"][2]["unused"]


def test_a_proposal_can_be_used_and_changes_nothing_that_was_allowed(rig: Rig) -> None:
    rig.record(*USED)
    proposal = policy(rig, "suggest", "--config", str(rig.config)).stdout
    head, _, rest = CONFIG.partition("grants:")
    other = rig.write("next.yaml", head + proposal + "audit:" + rest.partition("audit:")[2])
    assert not examine(other, env={}).problems
    assert rig.run("--against", str(other)).exit_code == 0
    assert policy(rig, "suggest", str(rig.records), "--config", str(other)).exit_code == 0


def test_nothing_used_proposes_no_open_door(rig: Rig) -> None:
    rig.config.write_text(CONFIG.replace('  - {name: no deletes, deny: ["*__delete_*"]}\n', ""))
    rig.record(("billing__refund", b"{}"))
    proposal = policy(rig, "suggest", "--config", str(rig.config)).stdout
    assert proposal.endswith('  - {name: nothing is granted, deny: ["*"]}\n')
    rig.config.write_text("version: 1\nservers: {time: {command: python3}}\n" + proposal)
    found = examine(rig.config, env={})
    assert found.snapshot is not None and found.snapshot.grants, "without grants everybody may call everything"


def test_calls_without_arguments_count_for_every_grant_that_may_have_allowed_them(rig: Rig) -> None:
    rig.record(("billing__refund", b'{"amount":7}'), full=False)
    found = policy(rig, "suggest", "--config", str(rig.config), "--json")
    assert [(one["name"], one["uses"]) for one in json.loads(found.stdout)["grants"]] == [
        ("reads", 0), ("refunds", 1), ("others", 0),
    ]  # fmt: skip
    assert "1 call without arguments: counted for every grant" in found.stderr


def test_grants_beside_a_policy_are_used_where_both_let_a_call_through(rig: Rig) -> None:
    (rig.folder / "rego").mkdir()
    (rig.folder / "rego" / "all.rego").write_text("package narthex\n\ndecision := true\n")
    rig.config.write_text(CONFIG + "policy: {rego: {bundle: rego, engine: inline}}\n")
    rig.record(*USED)
    found = policy(rig, "suggest", "--config", str(rig.config), "--json")
    assert [(one["name"], one["uses"]) for one in json.loads(found.stdout)["grants"]] == [
        ("reads", 2), ("refunds", 1), ("others", 0),
    ]  # fmt: skip


def test_without_inputs_there_is_nothing_to_learn(rig: Rig) -> None:
    for command in ("suggest", "review"):
        found = policy(rig, command, "--config", str(rig.config))
        assert found.exit_code == 1 and "nothing to learn from" in found.output
        assert policy(rig, command, "nowhere.jsonl", "--config", str(rig.config)).exit_code == 2


# --- review


def test_an_access_review(rig: Rig) -> None:
    rig.record(*USED)
    found = policy(rig, "review", "--config", str(rig.config))
    rows = list(csv.DictReader(io.StringIO(found.stdout)))
    assert [(one["resource"], one["rule"], one["uses"]) for one in rows] == [
        ("billing__refund", "refunds", "1"),
        ("time__now", "reads", "2"),
        ("billing__get_*", "reads", "0"),
        ("billing__*", "refunds", "0"),
    ]
    assert rows[0]["subject"] == "ada" and rows[0]["line"] == "7" and rows[0]["last_use"]
    as_json = [
        json.loads(line) for line in policy(rig, "review", "--config", str(rig.config), "--json").stdout.splitlines()
    ]
    assert as_json[1]["uses"] == 2 and as_json[1]["client"] == "helpdesk-bot"


def test_a_review_lists_what_is_granted_and_was_not_used(rig: Rig) -> None:
    rig.record(("billing__refund", b'{"amount":7}'))
    rows = list(csv.DictReader(io.StringIO(policy(rig, "review", "--config", str(rig.config)).stdout)))
    unused = [(one["resource"], one["rule"], one["last_use"]) for one in rows if one["uses"] == "0"]
    assert unused == [("time__*", "reads", ""), ("billing__get_*", "reads", ""), ("billing__*", "refunds", "")]


def test_a_name_is_no_formula_in_a_spreadsheet(rig: Rig) -> None:
    check, call = decided(None, ADA.__class__("default", "", "=cmd()", roles=("support",)), "time__now", b"{}")
    rig.records.write_bytes(line(check, call))
    rows = list(csv.DictReader(io.StringIO(policy(rig, "review", "--config", str(rig.config)).stdout)))
    assert {one["subject"] for one in rows} == {"'=cmd()"}
