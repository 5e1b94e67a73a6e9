"""`runs`: what it becomes, and what is wrong with it at which place."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.compile import Examined, examine
from narthex.types import LabelRow, Patterns, RunRule, RunSpec, Who

HEAD = """version: 1
servers:
  web: {url: "http://localhost:1/", classification: public, privacy: none}
  crm: {url: "http://localhost:2/", classification: confidential, privacy: personal}
"""


def examined(tmp_path: Path, *lines: str) -> Examined:
    file = tmp_path / "narthex.yaml"
    file.write_text(HEAD + "".join(f"{one}\n" for one in lines))
    return examine(file, env={})


def problems(found: Examined) -> list[str]:
    return [f"{one.mark.line if one.mark else 0}: {one.text}" for one in found.problems]


def test_everything_of_a_run(tmp_path: Path) -> None:
    found = examined(
        tmp_path,
        "runs:",
        "  window: 30m",
        "  endpoints: together",
        "  trusted_agents: [bot, {agent: ide, issuer: corp}]",
        "  run_id: traceparent",
        "  most_runs: 7",
        "  labels:",
        '    - {adds: untrusted, tools: ["web__*"], resources: ["web__*"]}',
        "    - {adds: [confidential, tenant:acme], classification: {at_least: confidential}}",
        "  rules:",
        '    - {name: a, deny: ["crm__send"], labels: [untrusted, confidential], who: {role: support}}',
        '    - {name: b, hold: {prompts: ["crm__p"]}, unless_after: ["crm__get"], after: ["web__*"]}',
        '    - {name: c, deny: ["crm__pay"], at_most: 3, within: 10m, cool_down: 30s}',
    )
    assert found.snapshot is not None, found.problems
    assert found.snapshot.runs == RunSpec(
        1800.0,
        "together",
        (Who(client=("bot",)), Who(client=("ide",), issuer=("corp",))),
        "traceparent",
        7,
        (
            LabelRow(("untrusted",), Patterns(("web__*",), (), ("web__*",))),
            LabelRow(("confidential", "tenant:acme"), None, frozenset({"confidential", "restricted"})),
        ),
        (
            RunRule(
                "a",
                "deny",
                Patterns(("crm__send",)),
                Who(role=("support",)),
                labels=("untrusted", "confidential"),
                line=15,
            ),
            RunRule(
                "b",
                "hold",
                Patterns((), ("crm__p",)),
                after=Patterns(("web__*",)),
                unless_after=Patterns(("crm__get",)),
                line=16,
            ),
            RunRule("c", "deny", Patterns(("crm__pay",)), at_most=3, within_s=600.0, cool_down_s=30.0, line=17),
        ),
    )


LABELS = 'labels: [{adds: untrusted, tools: ["web__*"]}]'


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        pytest.param(
            ['grants: [{name: a, allow: ["*"], when: "!(\'x\' in run.labels)"}]'],
            "5: when: `run` is known only where `runs:` says what is watched",
            id="a condition on runs that nobody watches",
        ),
        pytest.param(
            ["runs:", f"  {LABELS}", "  rules:", '    - {name: a, deny: ["*"], labels: untrustd}'],
            "8: nothing in `runs.labels` adds 'untrustd'; did you mean 'untrusted'?: it would never hold",
            id="a label that nothing adds",
        ),
        pytest.param(
            ["runs:", "  rules:", '    - {name: a, deny: ["*"]}'],
            "7: rule 'a' says nothing of the run: give it `labels`, `after`, `unless_after`, `at_most` or `cool_down`;"
            " what is always denied belongs into `grants`",
            id="no run in it",
        ),
        pytest.param(
            ["runs:", "  rules:", '    - {name: a, after: ["*"]}'],
            "7: rule 'a' needs one of `deny` and `hold`",
            id="no effect",
        ),
        pytest.param(
            ["runs:", "  rules:", '    - {name: a, deny: ["*"], after: ["*"], within: 3s}'],
            "7: within: how often? `at_most` is missing",
            id="within without at_most",
        ),
        pytest.param(
            [
                "runs:",
                "  rules:",
                '    - {name: a, deny: ["*"], at_most: 1}',
                '    - {name: a, deny: ["*"], at_most: 1}',
            ],
            "8: a rule 'a' stands there already",
            id="two of a name",
        ),
        pytest.param(
            [
                'grants: [{name: a, allow: ["*"]}]',
                "runs:",
                "  rules:",
                '    - {name: a, deny: ["*"], at_most: 1}',
            ],
            "8: a grant is called 'a' already",
            id="called as a grant",
        ),
        pytest.param(
            ["runs:", "  labels: [{adds: a}]"],
            "6: a row of `labels` needs `tools`, `prompts`, `resources`, `classification` or `privacy`",
            id="a label of everything",
        ),
    ],
)
def test_what_is_wrong(tmp_path: Path, lines: list[str], text: str) -> None:
    assert problems(examined(tmp_path, *lines)) == [text]
