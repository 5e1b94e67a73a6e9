"""`tls` of an agent, a bundle server and a log service: what it becomes, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from narthex.config.compile import Examined, examine
from narthex.types import PeerTls
from tests.e2e.certificates import Authority

PLACES = {
    "an agent": "{opa: {url: URL, tls: TLS}}",
    "a bundle server": "{rego: {bundle: URL, tls: TLS}}",
    "a log service": "{opa: {url: 'http://127.0.0.1:1'}, decision_logs: {url: URL, tls: TLS}}",
}


def examined(folder: Path, place: str, tls: str, url: str = "https://peer.example.com/x") -> Examined:
    file = folder / "narthex.yaml"
    policy = PLACES[place].replace("URL", f"'{url}'").replace("TLS", tls)
    file.write_text(f"version: 1\nservers: {{git: {{url: 'http://localhost:2/'}}}}\npolicy: {policy}\n")
    return examine(file, env={})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = Authority(tmp_path, "ca")
    authority.issue("mine")
    authority.issue("other")
    (tmp_path / "text.pem").write_text("no PEM")
    return tmp_path


@pytest.mark.parametrize("place", PLACES)
def test_files_are_relative_to_the_configuration(folder: Path, place: str) -> None:
    found = examined(folder, place, "{ca: ca.pem, cert: mine.cert.pem, key: mine.key.pem}").snapshot
    assert found is not None
    spec: Any = found.decision_log if place == "a log service" else found.policy
    assert spec.tls == PeerTls(*(str(folder / name) for name in ("ca.pem", "mine.cert.pem", "mine.key.pem")))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("tls", "said"),
    [
        pytest.param("{}", "needs `cert` and `key`, or `ca`", id="nothing"),
        pytest.param("{cert: mine.cert.pem}", "'key' is missing", id="no key"),
        pytest.param("{ca: ca.pem, key: mine.key.pem}", "'cert' is missing", id="no certificate"),
        pytest.param("{ca: none.pem}", "none.pem", id="no file"),
        pytest.param("{ca: text.pem}", "text.pem", id="no certificate in it"),
        pytest.param("{cert: mine.cert.pem, key: other.key.pem}", "cannot be used", id="another one's key"),
        pytest.param("{cert: text.pem, key: mine.key.pem}", "cannot be used", id="no PEM"),
        pytest.param("{certs: a}", "certs", id="misspelt"),
    ],
)
def test_what_is_wrong(folder: Path, place: str, tls: str, said: str) -> None:
    problems = examined(folder, place, tls).problems
    assert [one for one in problems if said in str(one)], problems


@pytest.mark.parametrize("place", PLACES)
def test_it_goes_with_https(folder: Path, place: str) -> None:
    problems = examined(folder, place, "{ca: ca.pem}", "http://127.0.0.1:1/x").problems
    assert any("not https" in str(one) for one in problems)
