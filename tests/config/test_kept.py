"""`audit` on payloads and on how long things stay: what it gives the gateway, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from narthex.config.compile import load_snapshot
from narthex.errors import ConfigError
from narthex.kept import DETECTORS, PayloadRule, PayloadSpec, Retention

BASE = "version: 1\nservers: {crm: {url: 'http://127.0.0.1:1/mcp'}}\naudit: {dir: a, %s}\n"


def compiled(tmp_path: Path, text: str) -> Any:
    (tmp_path / "narthex.yaml").write_text(BASE % text)
    return load_snapshot(tmp_path / "narthex.yaml", env={})


def test_nothing_is_kept_and_all_stays_unless_it_is_said(tmp_path: Path) -> None:
    found = compiled(tmp_path, "durable: all")
    assert found.audit_payloads == PayloadSpec() and found.retention == Retention()


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    found = compiled(
        tmp_path,
        "payloads: [{keep: redacted, parts: [result], tools: [crm__a*], servers: [crm], endpoints: [default],"
        " classification: {at_least: confidential}}, {keep: none}], redact: {pointers: [/result/a], detectors: [jwts]},"
        " seal: true, retention: {records: 400d, payloads: 90d, restricted: 7d}, compress_after: 1d",
    )
    first, second = found.audit_payloads.rules
    assert first == PayloadRule(
        "redacted", frozenset({"result"}), frozenset({"default"}), frozenset({"crm"}),
        frozenset({"confidential", "restricted"}), ("crm__a*",),
    )  # fmt: skip
    assert second == PayloadRule("none")
    assert (found.audit_payloads.pointers, found.audit_payloads.detectors) == (("/result/a",), ("jwts",))
    assert found.audit_payloads.seal
    day = 86_400.0
    assert found.retention == Retention(400 * day, 90 * day, {"restricted": 7 * day}, day)
    assert (found.retention.of("restricted"), found.retention.of("public")) == (7 * day, 90 * day)


def test_all_detectors_look_unless_it_is_said(tmp_path: Path) -> None:
    assert compiled(tmp_path, "payloads: [{keep: redacted}]").audit_payloads.detectors == DETECTORS


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("payloads: [{tools: [crm__a]}]", "'keep' is missing"),
        ("payloads: [{keep: all}]", "wants one of full, redacted, none"),
        ("payloads: [{keep: full, servers: [crn]}]", "no server 'crn'; did you mean 'crm'?"),
        ("payloads: [{keep: full, endpoints: [x]}]", "no endpoint 'x'"),
        ("redact: {pointers: [/params/a]}", "a pointer begins with /arguments/"),
        ("redact: {detectors: [phones]}", "wants one of secrets"),
        ("retention: {payloads: 1m}", "too small"),
    ],
)
def test_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as error:
        compiled(tmp_path, text)
    assert fault in "\n".join(error.value.problems)
