"""`shared`: what it becomes, and what is wrong with it at which place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from narthex.config.compile import Examined, examine
from narthex.types import SecretName, SecretText, SharedSpec

HEAD = 'version: 1\nservers: {git: {url: "http://localhost:2/"}}\nsecrets: {pw: env:PW}\n'
URL = "valkey://127.0.0.1:6379"


def examined(tmp_path: Path, text: str) -> Examined:
    file = tmp_path / "narthex.yaml"
    file.write_text(f"{HEAD}shared: {text}\n")
    (tmp_path / "ca.pem").write_text("")
    return examine(file, env={"PW": "x"})


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        pytest.param("null", None, id="nothing is shared"),
        pytest.param(URL, SharedSpec("127.0.0.1", 6379), id="the URL alone"),
        pytest.param("{url: redis://counters/3}", SharedSpec("counters", 6379, database=3), id="port and database"),
        pytest.param(
            "{url: 'rediss://me@c:1/', password: '${secret:pw}', when_down: refuse, timeout: 250ms, prefix: a:b}",
            SharedSpec("c", 1, True, 0, "me", SecretText((SecretName("pw"),)), prefix="a:b", timeout_s=0.25,
                       when_down="refuse"),
            id="TLS, a user, a password from the secrets",
        ),
        pytest.param(f"{{url: '{URL}', processes: 4}}", SharedSpec("127.0.0.1", 6379, processes=4), id="processes"),
    ],
)  # fmt: skip
def test_becomes(tmp_path: Path, text: str, spec: Any) -> None:
    found = examined(tmp_path, text)
    assert not found.problems
    assert found.snapshot is not None and found.snapshot.shared == spec


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("http://127.0.0.1", "valkey://", id="another scheme"),
        pytest.param("'redis://u:secret@h'", "could be read by anybody", id="a password in the URL"),
        pytest.param("redis://h/x", "the database is a number", id="a database that is no number"),
        pytest.param("redis://h:99999", "port", id="a port out of bounds"),
        pytest.param("{prefix: a}", "'url' is missing", id="no URL"),
        pytest.param("{url: redis://h, prefix: 'a b'}", "without spaces", id="a prefix with a space"),
        pytest.param("{url: redis://h, when_down: sleep}", "local_share", id="an unknown policy"),
        pytest.param("{url: redis://h, timeout: 1ms}", "too small", id="a deadline that nobody keeps"),
        pytest.param("{url: redis://h, ca: ca.pem}", "says no TLS", id="an authority without TLS"),
        pytest.param("{url: rediss://h, ca: none.pem}", "no file", id="a file that is not there"),
        pytest.param("{url: rediss://h, cert: ca.pem}", "'key' is missing", id="a certificate without its key"),
        pytest.param("{url: redis://u@h}", "'password' is missing", id="a user without a password"),
    ],
)
def test_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    found = examined(tmp_path, text)
    assert any(problem in str(one) for one in found.problems), found.problems
    assert "secret@" not in str(found.problems)


def test_a_password_in_the_clear_is_warned_of(tmp_path: Path) -> None:
    for host, warned in (("counters.example.com", True), ("localhost", False)):
        found = examined(tmp_path, f"{{url: 'redis://{host}', password: '${{secret:pw}}'}}")
        assert found.snapshot is not None
        assert any("in the clear" in one for one in found.snapshot.warnings) is warned
