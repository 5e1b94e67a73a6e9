"""`narthex explain` of a call in a run that one imagines: the guide's own file and output."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "runs.md").read_text(encoding="utf-8")
CONFIG = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)[0]
SHOWN = re.findall(r"```console\n\$ narthex (.*?)\n(.*?)```", GUIDE, re.DOTALL)


def explained(tmp_path: Path, words: list[str], config: str = CONFIG) -> Result:
    file = tmp_path / "narthex.yaml"
    file.write_text(config)
    return CliRunner().invoke(cli, [*words, "--config", str(file)])


def test_the_guide_shows_what_is_printed(tmp_path: Path) -> None:
    assert SHOWN
    for command, output in SHOWN:
        found = explained(tmp_path, command.split())
        assert found.exit_code == 1
        assert found.output == output


@pytest.mark.parametrize(
    ("words", "code", "decision"),
    [
        pytest.param(["--tool", "mail__send"], 0, ("allow", "no_rules", None), id="nothing done"),
        pytest.param(["--tool", "mail__send", "--run-label", "untrusted"], 0, ("allow", "no_rules", None), id="one"),
        pytest.param(
            ["--tool", "mail__send", "--run-label", "untrusted", "--run-label", "private"],
            1,
            ("deny", "run_labels", "trifecta"),
            id="labels",
        ),
        pytest.param(
            ["--tool", "mail__send", "--run-call", "web__fetch", "--run-call", "crm__find"],
            1,
            ("deny", "run_labels", "trifecta"),
            id="calls label",
        ),
        pytest.param(["--tool", "billing__refund"], 1, ("deny", "run_order", "look first"), id="order"),
        pytest.param(
            ["--tool", "billing__refund", "--run-call", "billing__find"], 0, ("allow", "no_rules", None), id="in order"
        ),
        pytest.param(
            ["--tool", "billing__refund", "--run-call", "billing__find", *["--run-call", "billing__refund"] * 3],
            1,
            ("deny", "run_count", "few refunds"),
            id="count",
        ),
        pytest.param(
            ["--tool", "mail__send", "--run-call", "mail__send"], 1, ("deny", "run_cool_down", "slowly"), id="pace"
        ),
    ],
)
def test_decides(tmp_path: Path, words: list[str], code: int, decision: tuple[str, str, str | None]) -> None:
    found = explained(tmp_path, ["explain", *words, "--json"])
    document = json.loads(found.output)
    assert (found.exit_code, (document["decision"], document["reason"], document["rule"])) == (code, decision)
    assert [one["rule"] for one in document["rules"]] == [
        *("trifecta", "look first", "no mail after export", "few refunds", "slowly")
    ]


def test_without_rules_on_runs_nothing_of_them_can_be_said(tmp_path: Path) -> None:
    config = "version: 1\nservers: {web: {url: 'http://localhost:1/'}}\n"
    found = explained(tmp_path, ["explain", "--tool", "web__x", "--run-label", "a"], config)
    assert found.exit_code == 2
    assert "this configuration has no `runs`" in found.output


CASES = """cases:
  - {name: clean, tool: mail__send, expect: allow}
  - {name: labelled, tool: mail__send, expect: deny, rule: trifecta, run_labels: [untrusted, private]}
  - {name: out of order, tool: billing__refund, expect: deny, rule: look first}
  - {name: in order, tool: billing__refund, expect: allow, run_calls: [billing__find]}
  - name: too many
    tool: billing__refund
    expect: deny
    rule: few refunds
    run_calls: [billing__find, billing__refund, billing__refund, billing__refund]
"""


def test_cases_say_what_the_run_has_done(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yaml"
    cases.write_text(CASES)
    found = explained(tmp_path, ["policy", "test", str(cases)])
    assert (found.exit_code, found.output) == (0, "5 cases: all as they have to be.\n")
    together = CONFIG.replace("  window: 1h", "  endpoints: together")
    assert explained(tmp_path, ["policy", "test", str(cases)], together).exit_code == 0
    found = explained(tmp_path, ["policy", "test", str(cases)], "version: 1\nservers: {mail: {command: python3}}\n")
    assert found.exit_code != 0
    assert "case 'labelled', line 3: this configuration has no `runs`" in found.output
