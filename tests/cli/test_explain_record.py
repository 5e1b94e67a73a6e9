"""`narthex explain RECORD`: a recorded decision, explained with what was recorded of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli
from tests.cli.test_replay import CALLS, CONFIG, Rig
from tests.telemetry.test_record import ENTRY, line_of


def explained(rig: Rig, *words: str, input: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["explain", *words, "--config", str(rig.config)], input=input)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    lines = rig.records.read_text().replace('"id":"r-1"', '"id":"rec-<n>","decision_id":"dec-<n>"').splitlines()
    rig.records.write_text("".join(line.replace("<n>", str(n)) + "\n" for n, line in enumerate(lines, 1)))
    return rig


@pytest.mark.parametrize("by", ["rec-3", "dec-3", "file", "stdin"])
def test_a_record_by_its_id_or_from_a_file(rig: Rig, by: str) -> None:
    third = rig.records.read_text().splitlines()[2]
    words = {"file": f"{rig.records}:3", "stdin": "-"}.get(by, by)
    found = explained(rig, words, input=third)
    assert found.exit_code == 0, found.output
    assert "ada by helpdesk-bot from 10.1.1.1  tools/call billing__refund at default" in found.output
    assert "allow  small refunds  not met  false: args.amount <= 100" in found.output
    assert "Denied: condition_not_met by 'small refunds' (narthex.yaml:7)" in found.output
    assert "Recorded: deny, condition_not_met by 'small refunds' (line 7): the same." in found.output


def test_a_copied_folder_is_named(rig: Rig) -> None:
    id_ = "0d0d2f6e-4c5b-4a55-9d25-3a0bd1c2c0a4"
    copy = rig.folder / "copy"
    copy.mkdir()
    text = rig.records.read_text().replace('"dec-3"', f'"{id_}"')
    (copy / "calls-20261127T000000000-0.jsonl").write_text(text)
    for half in (id_, "0d0d2f6e"):
        found = explained(rig, half, "--dir", str(copy))
        assert found.exit_code == 0 and "small refunds' (line 7): the same." in found.output, found.output
    assert explained(rig, id_).exit_code == 1, "where the configuration records it is not"
    which = explained(rig, "--dir", str(copy), "--tool", "time__now")
    assert which.exit_code == 2 and "which one?" in which.output


def test_rules_that_have_changed_since_do_not_agree(rig: Rig) -> None:
    rig.config.write_text(CONFIG.replace("<= 100", "<= 1000"))
    found = explained(rig, "rec-3")
    assert found.exit_code == 1
    assert "Allowed: granted by 'small refunds'" in found.output and "not the same" in found.output
    document = json.loads(explained(rig, "rec-3", "--json").stdout)
    assert (document["decision"], document["agrees"], document["record"]["decision"]) == ("allow", False, "deny")
    assert document["record"]["id"] == "rec-3" and document["rules"][1]["verdict"] == "applies"


def test_a_tool_that_its_endpoint_no_longer_takes(rig: Rig) -> None:
    rig.config.write_text(CONFIG + "endpoints: {default: {servers: [billing]}}\n")
    found = explained(rig, "rec-1")
    assert found.exit_code == 1 and "Denied: not_found" in found.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(("rec-9",), "no record rec-9", id="no such id"),
        pytest.param(("r",), "no record r in", id="a part of an id"),
        pytest.param(("audit/calls-20261127.jsonl",), "several records", id="several"),
        pytest.param(("audit/calls-20261127.jsonl:8",), "no record in", id="no such line"),
        pytest.param(("plain.jsonl",), "was not recorded", id="without its input"),
        pytest.param(("missing.jsonl",), "led to nothing that the caller sees", id="a name that leads to nothing"),
        pytest.param(("limited.jsonl",), "was refused before (rate_limited)", id="refused before any rule"),
        pytest.param(("free.jsonl",), "no rule has decided that call: there was none", id="without rules"),
        pytest.param(("reload.jsonl",), "is of no call: config", id="no call"),
        pytest.param(("digest.jsonl",), "its arguments were not recorded", id="without its arguments"),
        pytest.param(("bad.jsonl",), "no record of a decision", id="nonsense"),
    ],
)
def test_what_cannot_be_explained(rig: Rig, words: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(rig.folder)
    plain = json.loads(line_of(ENTRY, "r-1"))
    for name, more in (
        ("plain", {"policy": {"effect": "allow", "reason": "granted"}}),
        ("missing", {"outcome": "not_found", "decision": "deny"}),
        ("limited", {"outcome": "rate_limited", "decision": "deny"}),
        ("free", {}),
        ("reload", {"event": "config"}),
    ):
        rig.write(f"{name}.jsonl", json.dumps({**plain, **more}))
    rig.write("bad.jsonl", "{\n")
    records, rig.records = rig.records, rig.write("digest.jsonl", "")
    rig.record(CALLS[2], full=False)
    rig.records = records
    found = explained(rig, *words)
    assert found.exit_code == 1 and says in found.output


def test_a_hidden_tool_names_what_hides_it_and_what_is_recorded(rig: Rig) -> None:
    rig.config.write_text(CONFIG.replace("audit:", '  - {name: none, deny: ["billing__*"]}\naudit:'))
    rig.records.write_text("")
    rig.record(CALLS[1])
    found = explained(rig, str(rig.records))
    assert found.exit_code == 0
    assert "Denied: denied_by_rule by 'none' (narthex.yaml:8); the caller does not see it" in found.output
    assert "Recorded: deny, not_granted (so is all that the caller does not see): the same." in found.output


def test_a_refusal_for_a_scope_that_the_policy_demands(rig: Rig) -> None:
    rego = 'package narthex\n\nimport rego.v1\n\ndecision := {"allow": true, "obligations": {"step_up_scope": "pay"}}\n'
    rig.write("policy/policy.rego", rego)
    rig.config.write_text(CONFIG.partition("grants:")[0] + "policy: {rego: {bundle: policy}}\n")
    said = {"effect": "deny", "reason": "insufficient_scope", "engine": "rego"}
    record = json.loads(rig.records.read_text().splitlines()[0])
    rig.write("one.jsonl", json.dumps(record | {"policy": record["policy"] | said | {"rule": ""}}) + "\n")
    found = explained(rig, str(rig.folder / "one.jsonl"))
    assert found.exit_code == 0, found.output
    assert "No grants are configured" not in found.output and "Denied: insufficient_scope by the policy" in found.output
    assert "Recorded: deny, insufficient_scope: the same." in found.output


def test_what_was_recorded_is_shown_where_it_cannot_be_decided_again(rig: Rig) -> None:
    rig.write("digest.jsonl", "")
    records, rig.records = rig.records, rig.folder / "digest.jsonl"
    rig.record(CALLS[2], full=False)
    rig.records = records
    found = explained(rig, str(rig.folder / "digest.jsonl"))
    recorded, why = found.output.splitlines()[-2:]
    assert recorded == "Recorded: deny, condition_not_met by 'small refunds' (line 7)."
    assert why.startswith("Error: it cannot be decided again: its arguments were not recorded")
    document = json.loads(explained(rig, str(rig.folder / "digest.jsonl"), "--json").stdout)
    assert document["record"]["rule"] == "small refunds" and not document["agrees"]
    assert document["untold"] == why.removeprefix("Error: ")


def test_what_a_rule_on_runs_refused_is_shown_and_not_decided_again(rig: Rig) -> None:
    runs = "runs: {rules: [{name: few, deny: ['billing__refund'], at_most: 1, within: 1m}]}\n"
    rig.config.write_text(CONFIG + runs)
    record = json.loads(rig.records.read_text().splitlines()[1])
    record["policy"] |= {"effect": "deny", "reason": "run_count", "rule": "few", "line": 9}
    record["input"].pop("run", None)
    found = explained(rig, str(rig.write("one.jsonl", json.dumps(record) + "\n")))
    recorded, why = found.output.splitlines()[-2:]
    assert found.exit_code == 1 and recorded == "Recorded: deny, run_count by 'few' (line 9)."
    assert why.startswith("Error: it cannot be decided again: what its run had done was not recorded, and 'few'")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_call_that_has_begun_is_explained_by_its_end(rig: Rig, compressed: bool) -> None:
    begin = '{"id":"b-1","event":"begin","policy":{"effect":"allow","reason":"granted"},"seq":7}\n'
    end = rig.records.read_text().splitlines()[0].removesuffix("}") + ',"begin":7,"seq":9}\n'
    first = rig.folder / "audit" / "calls-20261126T000000000-0.jsonl"
    first.write_text(begin)
    found = explained(rig, "b-1")
    assert found.exit_code == 1 and "that record says that a call begins" in found.output
    rig.records.write_text(end)
    if compressed:
        first.with_name(first.name + ".gz").write_bytes(gzip.compress(begin.encode()))
        first.unlink()
    found = explained(rig, "b-1")
    assert found.exit_code == 0 and "Recorded: allow, granted by 'reads' (line 6): the same." in found.output


def test_a_record_stands_alone(rig: Rig) -> None:
    assert explained(rig, "rec-1", "--tool", "time__now").exit_code == 2
