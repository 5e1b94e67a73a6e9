"""`audit.export`: where records go, or what is wrong with it, at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.compile import load_snapshot
from narthex.errors import ConfigError
from narthex.types import ExportSpec, Snapshot


def compiled(folder: Path, text: str) -> Snapshot:
    path = folder / "narthex.yaml"
    path.write_text(f"version: 1\naudit:\n  dir: audit\n  export:\n    {text}\n")
    for name in ("ca.pem", "c.pem", "k.pem"):
        (folder / name).write_text("x")
    return load_snapshot(path, env={})


def test_places_of_both_kinds(tmp_path: Path) -> None:
    siem, otel = compiled(
        tmp_path,
        "siem: {url: 'syslog+tls://siem.example.com:6515', format: cef, ca: ca.pem, cert: c.pem, key: k.pem}\n"
        "    otel: {url: 'https://otel.example.com/v1/logs', headers: {Authorization: 'Bearer ${secret:otel}'}}",
    ).audit_exports
    ca, cert, key = (str(tmp_path / name) for name in ("ca.pem", "c.pem", "k.pem"))
    assert siem == ExportSpec("siem", "syslog+tls://siem.example.com:6515", "cef", (), ca, cert, key)
    ((name, text),) = otel.headers
    assert (otel.url, name, text.fill(lambda name: f"<{name}>")) == (
        "https://otel.example.com/v1/logs", "Authorization", "Bearer <otel>",
    )  # fmt: skip


def test_the_index_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text("version: 1\naudit: {dir: audit, index: false}\n")
    assert not load_snapshot(path, env={}).audit_index


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("siem: {format: cef}", "'url' is missing", id="nowhere"),
        pytest.param("siem: {url: 'syslog://x:514'}", "begins with https", id="without TLS"),
        pytest.param("siem: {url: 'syslog+tls://x/path'}", "nothing behind it", id="a path"),
        pytest.param("siem: {url: 'syslog+tls://u:p@x'}", "no user name", id="a password"),
        pytest.param("siem: {url: 'syslog+tls://x', headers: {A: b}}", "syslog has none", id="headers of syslog"),
        pytest.param("otel: {url: 'http://otel.example.com/v1/logs'}", "https, except on loopback", id="no TLS"),
        pytest.param("otel: {url: 'https://x/', format: cef}", "a form of its own", id="a form of OTLP"),
        pytest.param("otel: {url: 'https://x/', key: k.pem}", "of which 'cert'?", id="a key without certificate"),
        pytest.param("otel: {url: 'https://x/', ca: none.pem}", "no file", id="a file that is not there"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compiled(tmp_path, text)
    assert said in "\n".join(caught.value.problems)
