"""Programs, open files, addresses, and what a gateway says of itself, as findings with what to do."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from narthex import __version__
from narthex.config.compile import load_snapshot
from narthex.doctor.system import (
    files_needed,
    look_at_addresses,
    look_at_gateway,
    look_at_limits,
    look_at_programs,
    look_at_versions,
)
from narthex.types import Snapshot

READY = {"status": "ready", "degraded": [], "silent_issuers": [], "missing_secrets": 0}


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    file = tmp_path / "narthex.yaml"
    file.write_text(
        "version: 1\nservers: {a: {command: sh}, b: {command: no-such-program}, c: {command: sh, cwd: /none}}\n"
    )
    return load_snapshot(file, env={"PATH": "/bin:/usr/bin"})


def test_versions_are_said() -> None:
    assert __version__ in next(iter(look_at_versions())).said


def test_programs(snapshot: Snapshot) -> None:
    assert [(one.name, one.verdict) for one in look_at_programs(snapshot)] == [
        ("a", "ok"), ("b", "fail"), ("c", "fail"),
    ]  # fmt: skip


def test_open_files(snapshot: Snapshot) -> None:
    needed = files_needed(snapshot)
    assert needed > snapshot.limits.max_connections
    (enough,), (short,) = look_at_limits(snapshot, needed), look_at_limits(snapshot, needed - 1)
    assert (enough.verdict, short.verdict) == ("ok", "warn")
    assert f"ulimit -n {needed}" in short.do
    assert len(list(look_at_limits(snapshot))) == 1


def test_an_address_that_somebody_has(snapshot: Snapshot) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        one = msgspec.structs.replace(snapshot, listen=taken.getsockname(), admin_listen=("127.0.0.1", 0))
        assert [(found.name, found.verdict) for found in look_at_addresses(one)] == [
            ("listen", "fail"), ("admin.listen", "ok"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("ready", "running", "found"),
    [
        pytest.param({}, {}, [("readyz", "ok")], id="all is well"),
        pytest.param({"status": "store_unavailable"}, {}, [("readyz", "fail")], id="not ready"),
        pytest.param(
            {"degraded": [{"server": "git", "health": "down", "breaker": "open"}], "silent_issuers": ["corp"]}, {},
            [("readyz", "ok"), ("git", "warn"), ("corp", "warn")], id="degraded",
        ),
        pytest.param({"missing_secrets": 2}, {}, [("readyz", "ok"), ("secrets", "fail")], id="secrets"),
        pytest.param(
            {"policy_problem": "away", "telemetry_problem": "away"}, {},
            [("readyz", "ok"), ("policy", "warn"), ("telemetry", "warn")], id="engines and collectors",
        ),
        pytest.param({}, {"revision": "other"}, [("readyz", "ok"), ("configuration", "warn")], id="an older file"),
        pytest.param({}, {"version": "0.0.1"}, [("readyz", "ok"), ("version", "warn")], id="another version"),
    ],
)  # fmt: skip
def test_what_a_gateway_says(
    snapshot: Snapshot, ready: dict[str, Any], running: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    said = look_at_gateway(snapshot, READY | ready, running, {})
    assert [(one.name, one.verdict) for one in said] == found


def test_a_server_that_is_down_says_why(snapshot: Snapshot) -> None:
    down = [{"server": name, "health": "down", "breaker": "open"} for name in "ab"]
    servers = {"servers": [{"name": "a", "last_error": "the process exited with code 1"}, {"name": "b"}]}
    said = {one.name: one.do for one in look_at_gateway(snapshot, READY | {"degraded": down}, {}, servers)}
    assert said["a"] == "the process exited with code 1"
    assert said["b"] == "GET /api/v1/servers/b has its last error"
