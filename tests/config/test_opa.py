"""`policy.opa`: what it becomes, and what is wrong with it at which place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from narthex.config.compile import Examined, examine
from narthex.types import OpaSpec, SecretName, SecretText

HEAD = """version: 1
egress: {allow_http: [opa.internal]}
servers: {git: {url: "http://localhost:2/"}}
"""


def examined(tmp_path: Path, text: str) -> Examined:
    file = tmp_path / "narthex.yaml"
    file.write_text(f"{HEAD}policy: {text}\n")
    return examine(file, env={})


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        pytest.param('{opa: {url: "http://127.0.0.1:8181"}}', {"url": "http://127.0.0.1:8181"}, id="only a URL"),
        pytest.param('{opa: {url: "https://opa.example.com/a/"}}', {"url": "https://opa.example.com/a"}, id="a prefix"),
        pytest.param('{opa: {url: "http://opa.internal:8181"}}', {"url": "http://opa.internal:8181"}, id="a host"),
        pytest.param(
            '{opa: {url: "http://localhost:1", path: a/b_c, batch: a/many, deadline: 50ms, list_deadline: 2s,'
            " on_error: allow, arguments: false, visible_for: 1m, visible_by: [subject.roles, context.tenant],"
            ' token: "${secret:opa}", max_in_flight: 8}}',
            {
                "url": "http://localhost:1", "path": "a/b_c", "batch": "a/many", "deadline_s": 0.05,
                "list_deadline_s": 2.0, "on_error": "allow", "arguments": False, "visible_s": 60.0,
                "visible_by": (("subject", "roles"), ("context", "tenant")),
                "token": SecretText((SecretName("opa"),)), "max_in_flight": 8,
            },
            id="all of it",
        ),
    ],
)  # fmt: skip
def test_what_it_becomes(tmp_path: Path, text: str, spec: dict[str, Any]) -> None:
    found = examined(tmp_path, text)
    assert found.snapshot is not None, found.problems
    assert found.snapshot.policy == msgspec.structs.replace(OpaSpec("", "narthex/decision"), **spec)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{opa: {}}", "'url' is missing", id="no URL"),
        pytest.param("{}", "needs `rego` or `opa`", id="nobody"),
        pytest.param('{opa: {url: "http://opa.example.com"}}', "https, except on loopback", id="in the clear"),
        pytest.param('{opa: {url: "https://opa.example.com/?a=b"}}', "url", id="a query"),
        pytest.param('{opa: {url: "https://x.example.com", path: data.narthex.decision}}', "narthex/decision",
                     id="a rule with dots"),
        pytest.param('{opa: {url: "https://x.example.com", path: ../../v1/policies}}', "path", id="a way out"),
        pytest.param('{opa: {url: "https://x.example.com", on_eror: allow}}', "on_error", id="misspelt"),
        pytest.param('{opa: {url: "https://x.example.com", deadline: 0s}}', "deadline", id="no time at all"),
    ],
)  # fmt: skip
def test_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    found = examined(tmp_path, text)
    assert found.snapshot is None
    assert said in "\n".join(map(str, found.problems))


def test_that_its_policy_is_not_looked_at_is_said(tmp_path: Path) -> None:
    """No warning: `check --strict` of a sound configuration would never end well."""
    found = examined(tmp_path, '{opa: {url: "http://127.0.0.1:8181"}}')
    (notice,) = (one for one in found.notices if "opa" in one.text)
    assert "not looked at here" in notice.text and "narthex policy test" in notice.text
    assert notice.mark is not None and notice.mark.line == 4
    assert not [one for one in found.warnings if "opa" in one.text]
