"""`approvals` and `approval`: what a grant says wins over what counts for all; a webhook needs its address."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.compile import Examined, examine
from narthex.types import ApprovalSpec, HoldTerms, SecretName, SecretText, Webhook

HEAD = "version: 1\nservers: {one: {url: 'https://one.example.com/mcp'}}\n"
HOLD = "grants: [{name: a, hold: ['one__*']%s}]\n"
HOOK = Webhook("https://hooks.example.com/T0", SecretText((SecretName("hook"),)), True)


def examined(folder: Path, text: str) -> Examined:
    path = folder / "narthex.yaml"
    path.write_text(HEAD + text)
    return examine(path, env={"HOOK": "https://hooks.example.com/T0"})


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        pytest.param("", ApprovalSpec(), id="nothing said"),
        pytest.param("approvals: {by: user, wait: 1h, use_within: 1m}\n",
                     ApprovalSpec(HoldTerms("user", 3600.0, 60.0)), id="for all"),
        pytest.param("approvals: {most: 50, most_each: 5}\n", ApprovalSpec(most=50, most_each=5), id="bounds"),
        pytest.param("approvals: {webhook: {url: '${HOOK}', secret: '${secret:hook}', arguments: true}}\n",
                     ApprovalSpec(webhook=HOOK), id="a webhook"),
    ],
)  # fmt: skip
def test_read(tmp_path: Path, text: str, spec: ApprovalSpec) -> None:
    found = examined(tmp_path, text + HOLD % "")
    assert found.snapshot is not None, found.problems
    assert found.snapshot.approvals == spec
    assert found.snapshot.grants[0].effect == "hold"
    assert found.snapshot.grants[0].terms == spec.terms
    assert found.snapshot.secret_names == (("hook",) if spec.webhook else ())


def test_what_a_grant_says_wins(tmp_path: Path) -> None:
    text = "approvals: {by: user, wait: 1h}\n" + HOLD % ", approval: {by: approver, use_within: 30s}"
    found = examined(tmp_path, text).snapshot
    assert found is not None and found.grants[0].terms == HoldTerms("approver", 3600.0, 30.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("approvals: {webhook: {secret: x}}\n", "'url' is missing", id="no address"),
        pytest.param("approvals: {webhook: {url: 'ftp://x'}}\n", "begins with https://", id="no HTTP"),
        pytest.param("approvals: {wait: 5s}\n", "the least is 10s", id="too short"),
        pytest.param("approvals: {most_each: 0}\n", "a whole number, 1 to 1000", id="none at all"),
        pytest.param("approvals: {webhooks: {}}\n", "did you mean 'webhook'?", id="misspelt"),
    ],
)
def test_wrong(tmp_path: Path, text: str, says: str) -> None:
    found = examined(tmp_path, text)
    assert found.snapshot is None
    assert any(says in str(problem) for problem in found.problems), found.problems


def test_a_webhook_that_signs_nothing_is_said(tmp_path: Path) -> None:
    found = examined(tmp_path, "approvals: {webhook: {url: 'https://hooks.example.com/'}}\n")
    assert any("nothing is signed" in str(one) for one in found.warnings)


def test_the_webhook_is_no_part_of_a_revision_by_its_value(tmp_path: Path) -> None:
    text = "approvals: {webhook: {url: '${HOOK}', secret: s}}\n"
    first, second = examined(tmp_path, text).snapshot, examined(tmp_path, text).snapshot
    assert first is not None and second is not None and first.revision == second.revision
