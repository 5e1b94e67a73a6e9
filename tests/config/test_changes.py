"""What differs between two configurations: by name, and by value of rules alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from narthex.config.changes import MOST_DIFFERENCES, act_of_reload, changes, differences
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


LIMITED = (
    BASE
    + """limits:
- {name: calls, per: [principal], calls: 60, window: 1m}
- {name: spend, per: [tenant], money: 5.00 USD, window: calendar day}
prices: [{tools: ['a__*'], per_call: 0.01 USD}]
"""
)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        pytest.param("calls: 60", "calls: 61", {"limits.calls.most": (60, 61)}, id="more of a limit"),
        pytest.param("5.00 USD", "6.00 USD", {"limits.spend.most": (5_000_000, 6_000_000)}, id="money in millionths"),
        pytest.param("['a__*']}, {name: two", "['a__x']}, {name: two", {"grants.one.tools": (("a__*",), ("a__x",))},
                     id="a pattern of a grant"),
        pytest.param("0.01 USD", "0.02 USD", {"prices.0.per_call": (10_000, 20_000)}, id="a price, by its place"),
        pytest.param("\nprices", "\n\n\nprices", {}, id="another line"),
        pytest.param("a: {url: 'http://127.0.0.1:1/", "a: {url: 'http://127.0.0.1:9/", {}, id="no rule: no value"),
    ],
)  # fmt: skip
def test_what_rules_said_and_say(tmp_path: Path, old: str, new: str, found: dict[str, Any]) -> None:
    assert LIMITED.count(old) == 1
    one, other = snapshot(tmp_path, LIMITED), snapshot(tmp_path, LIMITED.replace(old, new))
    assert differences(one, other) == found
    act = act_of_reload(ReloadOutcome("applied", "file", "r", 1.0), one, other)
    assert act.get("diff", {}) == found
    msgspec.json.encode(act)


def test_a_rule_that_is_new_is_said_whole_and_a_condition_by_its_digest(tmp_path: Path) -> None:
    rule = "{name: two, who: {role: [ops]}, networks: [10.0.0.0/8], allow: ['b__*'], when: 'args.x == \"PLANTED\"'}"
    one = snapshot(tmp_path, BASE.replace(", {name: two, who: {}, allow: ['b__*']}", ""))
    other = snapshot(tmp_path, BASE.replace("{name: two, who: {}, allow: ['b__*']}", rule))
    (before, after), *rest = differences(one, other).values()
    assert before is None and not rest
    assert after.pop("when").startswith("sha256:") and "PLANTED" not in str(after)
    assert after == {"effect": "allow", "tools": ("b__*",), "networks": ("10.0.0.0/8",), "who": {"role": ("ops",)}}
    assert list(differences(other, one)) == ["grants.two"] and differences(other, one)["grants.two"][1] is None


def test_what_differs_is_bounded(tmp_path: Path) -> None:
    long = ", ".join(f"'a__{letter * 200}'" for letter in "xyz")
    many = "".join(f"- {{name: n{number}, who: {{}}, allow: [{long}]}}\n" for number in range(300))
    one, other = snapshot(tmp_path, BASE), snapshot(tmp_path, BASE.partition("grants")[0] + "grants:\n" + many)
    found = differences(one, other)
    assert len(found) == MOST_DIFFERENCES and len(msgspec.json.encode(found)) < MOST_DIFFERENCES * 600
    assert found["grants.n0"][1].startswith("sha256:")


def test_of_one_that_was_refused_its_problems_are_counted(tmp_path: Path) -> None:
    one = snapshot(tmp_path, BASE)
    act = act_of_reload(ReloadOutcome("refused", "file", "r", 1.0, ("x: PLANTED", "y")), one, one)
    assert act["problems"] == 2 and "PLANTED" not in str(act)
