"""`narthex replay`: records of calls, held against the configuration that decided them and against another one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli
from narthex.config.compile import load_snapshot
from narthex.flow.policy.grants import Grants
from narthex.types import Principal
from tests.flow.policy.evidence.test_replay import decided, line

CONFIG = """version: 1
servers:
  time: {command: python3}
  billing: {url: "http://localhost:1/mcp"}
grants:
  - {name: reads, who: {role: support}, allow: ["time__*"]}
  - {name: small refunds, who: {role: support}, allow: ["billing__refund"], when: "args.amount <= 100"}
audit: {dir: audit, inputs: full}
"""
ADA = Principal("default", "https://sso.example.com", "ada", "helpdesk-bot", ("support",), method="jwt")
CALLS = (("time__now", b"{}"), ("billing__refund", b'{"amount":7}'), ("billing__refund", b'{"amount":700}'))


class Rig:
    """A configuration, and the records of three calls that it decided."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = self.write("narthex.yaml", CONFIG)
        self.records = self.write("audit/calls-20261127.jsonl", "")
        self.record(*CALLS)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def record(self, *calls: tuple[str, bytes], full: bool = True) -> None:
        rules = Grants(load_snapshot(self.config, env={}).grants)
        with self.records.open("ab") as file:
            for name, arguments in calls:
                file.write(line(*decided(rules, ADA, name, arguments), full=full))

    def run(self, *words: str, input: str | None = None) -> Result:
        return CliRunner().invoke(cli, ["replay", "--config", str(self.config), *words], input=input)

    def document(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(*words, "--json").stdout)
        return found


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_the_configuration_that_decided_agrees(rig: Rig) -> None:
    for words in ((), (str(rig.records),), (str(rig.records.parent),)):
        found = rig.run(*words)
        assert (found.exit_code, found.stdout) == (0, "3 decisions: all agree.\n")
    assert rig.run("-", input=rig.records.read_text()).exit_code == 0


def test_another_policy_is_held_against_them(rig: Rig) -> None:
    other = rig.write("next.yaml", CONFIG.replace("<= 100", "<= 5").replace("time__*", "time__get_*"))
    found = rig.run("--against", str(other))
    assert found.exit_code == 1
    assert "ada by helpdesk-bot   time__now         allow by 'reads'           hidden (not_granted)" in found.output
    assert "allow by 'small refunds'   deny by 'small refunds'" in found.output
    assert "3 decisions: 2 would change under" in found.output
    document = rig.document("--against", str(other))
    assert (document["decided"], document["agrees"]) == (3, False)
    (refund,) = [one for one in document["differences"] if one["resource"] == "billing__refund"]
    assert refund["principal"] == {
        "tenant": "default", "issuer": "https://sso.example.com", "subject": "ada", "client": "helpdesk-bot",
    }  # fmt: skip
    assert (refund["before"]["effect"], refund["after"]["effect"], refund["count"]) == ("allow", "deny", 1)
    assert refund["after"]["line"] == 7


def test_rules_in_shadow_mode_are_held_against_them(rig: Rig) -> None:
    rule = '  - {name: none at all, deny: ["billing__*"], when: "args.amount > 5", mode: shadow}\n'
    rig.config.write_text(CONFIG.replace("audit:", rule + "audit:"))
    assert rig.run().exit_code == 0
    found = rig.run("--shadow")
    assert found.exit_code == 1 and "deny by 'none at all'" in found.output and "1 would change" in found.output


def test_a_policy_in_shadow_mode_is_held_against_them(rig: Rig) -> None:
    listed = 'decision if input.resource.server == "time"'
    rig.write("policy/p.rego", f"package narthex\n\ndefault decision := false\n\n{listed}\n")
    rig.config.write_text(CONFIG + "policy: {rego: {bundle: policy, engine: inline}, mode: shadow}\n")
    assert rig.run().exit_code == 0, "it decides nothing"
    found = rig.run("--shadow")
    assert found.exit_code == 1 and "2 would change" in found.output, "allowed or denied, it would not be there"


@pytest.mark.parametrize("on_error", ["deny", "allow"])
def test_an_agent_that_is_not_there_has_decided_nothing(rig: Rig, on_error: str) -> None:
    opa = f"{{opa: {{url: 'http://127.0.0.1:1', on_error: {on_error}}}}}"
    rig.config.write_text(CONFIG + f"policy: {opa}\n")
    found = rig.run()
    assert found.exit_code == 1 and found.stdout == "Nothing could be compared.\n", found.output
    assert "3 could not be decided" in found.stderr and "let through" not in found.stderr


def test_a_record_that_was_changed_does_not_agree(rig: Rig) -> None:
    rig.records.write_text(rig.records.read_text().replace('"amount":7}', '"amount":701}'))
    found = rig.run()
    assert found.exit_code == 1 and "1 differs from what was recorded" in found.output


def test_what_cannot_be_told_is_said(rig: Rig) -> None:
    rig.record(*CALLS, full=False)
    found = rig.run()
    assert (found.exit_code, found.stdout) == (0, "4 decisions: all agree.\n")
    assert "2 could not be decided: its arguments were not recorded, and a rule looks at them" in found.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "none of 0 lines is a decision with its input", id="no line"),
        pytest.param('{"event":"lost","count":3}\n', "none of 1 lines", id="none with an input"),
        pytest.param('{"input":7}\n{\n', "none of 2 lines", id="nonsense"),
    ],
)
def test_nothing_compared_is_not_agreement(rig: Rig, text: str, says: str) -> None:
    rig.records.write_text(text)
    found = rig.run()
    assert found.exit_code == 1 and says in found.stdout


def test_another_revision_of_the_configuration_is_named(rig: Rig) -> None:
    words = "3 were decided by another revision of the configuration.\n"
    assert rig.run().stderr == words and rig.document()["other_revision"] == 3
    assert words not in rig.run("--against", str(rig.config)).stderr
    revision = load_snapshot(rig.config, env={}).revision
    rig.records.write_text(rig.records.read_text().replace('"config":"c0ffee"', f'"config":"{revision}"'))
    assert rig.run().stderr == "" and rig.document()["other_revision"] == 0


def test_compressed_files_are_read_too(rig: Rig) -> None:
    packed = rig.folder / "audit" / "calls-20261126T000000000-0.jsonl.gz"
    packed.write_bytes(gzip.compress(rig.records.read_bytes()))
    assert rig.run().stdout == "6 decisions: all agree.\n"
    rig.records.unlink()
    assert rig.run(str(packed)).stdout == "3 decisions: all agree.\n"
    words = ["policy", "suggest", "--config", str(rig.config)]
    assert "From 2 allowed calls" in CliRunner().invoke(cli, words).stderr
    damaged = packed.read_bytes()
    packed.write_bytes(damaged[:40] + bytes(40) + damaged[80:])
    found = rig.run()
    assert found.exit_code == 1 and f"{packed}: it cannot be read further" in found.output


def test_one_record_or_a_run_is_decided_again_by_its_id(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the whole id or half of it, by the index of the configuration, and in a copied folder without one."""
    ids = ("0d0d2f6e-4c5b-4a55-9d25-3a0bd1c2c0a4", "1d0d2f6e-4c5b-4a55-9d25-3a0bd1c2c0a4")
    rig.record(*CALLS[:1])
    lines = [json.loads(one) for one in rig.records.read_text().splitlines()]
    for record, id_, run in zip(lines, (ids[0], ids[1], "x", "y"), ("trip-7", "trip-7", "trip-8", ""), strict=True):
        record |= {"event": "call", "id": id_, "run": run}
    folder = rig.folder / "copy"
    folder.mkdir()
    (folder / "calls-20261127T000000000-0.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    for id_, count in ((ids[0], 1), ("0d0d2f6e", 1), ("trip-7", 2)):
        assert rig.document(id_, "--dir", str(folder))["decided"] == count, id_
    config, other = str(rig.config), rig.write("next.yaml", CONFIG.replace("<= 100", "<= 5"))
    monkeypatch.chdir(folder)
    alone = CliRunner().invoke(cli, ["replay", "trip-7", "--dir", str(folder), "--against", str(other)])
    assert alone.exit_code == 1 and "2 decisions: 1 would change" in alone.stdout, alone.output
    for words in (("trip-7", "--dir", str(folder)), (str(folder),)):
        unruled = CliRunner().invoke(cli, ["replay", *words])
        assert unruled.exit_code == 2 and "By which rules?" in unruled.stderr and "--against FILE" in unruled.stderr
        ruled = CliRunner().invoke(cli, ["replay", *words, "--config", config])
        assert ruled.exit_code == 0 and "all agree" in ruled.stdout, ruled.output


def test_misused(rig: Rig) -> None:
    missing = rig.run("nowhere\x1b.jsonl")
    assert missing.exit_code == 1 and "nothing is recorded in" in missing.output and "\x1b" not in missing.output
    assert "an ID is what the agent called its run" in missing.output
    both = rig.run(str(rig.records), "--dir", str(rig.folder / "audit"))
    assert both.exit_code == 2 and "which is meant" in both.output
    rig.records.unlink()
    found = rig.run()
    assert found.exit_code == 1 and "no records in" in found.output and "calls-STAMP-SLOT.jsonl" in found.output
    rig.config.write_text(CONFIG.partition("audit:")[0])
    found = rig.run()
    assert found.exit_code == 1 and "records nothing" in found.output
