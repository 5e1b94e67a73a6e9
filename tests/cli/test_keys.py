"""`narthex keys`: what it prints, how it exits, and that a key is shown once and kept nowhere."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli
from narthex.flow.identity.api_keys import is_whole

CONFIG = "version: 1\nservers: {one: {url: 'http://127.0.0.1:1/mcp'}}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "narthex.yaml").write_text(CONFIG)
    return tmp_path


def keys(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["keys", *arguments])


def document(*arguments: str) -> Any:
    done = keys(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_key_is_shown_once_and_kept_nowhere(here: Path) -> None:
    made = document("create", "ci", "--role", "reader", "--role", "reader", "--scope", "tools:call", "--expires", "90d")
    assert list(made) == ["id", "name", "key"]
    assert is_whole(made["key"].encode()) and f"_{made['id']}_" in made["key"]
    for path in (here / ".narthex").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert made["key"][12:].encode() not in path.read_bytes()
    (row,) = document("list")["keys"]
    assert (row["id"], row["roles"], row["scopes"], row["state"]) == (made["id"], ["reader"], ["tools:call"], "valid")
    assert made["key"][12:] not in keys("list").output


def test_the_key_alone_stands_on_stdout(here: Path) -> None:
    done = keys("create", "ci")
    assert is_whole(done.stdout.strip().encode())
    assert "shown only now" in done.stderr


def test_a_name_has_one_key(here: Path) -> None:
    document("create", "ci")
    done = keys("create", "ci")
    assert done.exit_code == 1 and "narthex keys rotate ci" in done.stderr and not done.stdout
    document("create", "ci", "--tenant", "acme")
    document("revoke", "ci")
    document("create", "ci")


@pytest.mark.parametrize("by", ["id", "name"])
def test_a_rotated_key_ends_after_the_grace(here: Path, by: str) -> None:
    old = document("create", "ci", "--role", "reader", "--expires", "90d")
    new = document("rotate", old[by], "--grace", "10m")
    assert new["replaces"] == [old["id"]] and new["name"] == "ci" and new["key"] != old["key"]
    rows = {row["id"]: row for row in document("list")["keys"]}
    first, second = rows[old["id"]], rows[new["id"]]
    assert first["expires"] < second["expires"], "the new one lives as long as the old one should have"
    assert (second["roles"], second["state"]) == (["reader"], "valid")
    assert "works until" in keys("rotate", "ci").stderr


def test_no_grace_ends_the_old_key_at_once(here: Path) -> None:
    old = document("create", "ci")
    document("rotate", "ci", "--grace", "0s")
    states = {row["id"]: row["state"] for row in document("list", "--all")["keys"]}
    assert states[old["id"]] == "expired"
    assert old["id"] not in [row["id"] for row in document("list")["keys"]]


@pytest.mark.parametrize("command", ["revoke", "rotate"])
@pytest.mark.parametrize("which", ["nobody", "ci"])
def test_what_is_no_valid_key_is_said(here: Path, command: str, which: str) -> None:
    document("create", "ci")
    document("revoke", "ci")
    done = keys(command, which)
    assert done.exit_code == 1 and f"no valid key {which}" in done.stderr


def test_a_key_given_in_the_place_of_its_id_is_not_repeated(here: Path) -> None:
    key = document("create", "ci")["key"]
    done = keys("revoke", key)
    assert done.exit_code == 1 and key not in done.output and "give its id" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["create", "two words"], id="a name with a blank"),
        pytest.param(["create", "ci", "--scope", 'a"b'], id="no scope of OAuth"),
        pytest.param(["create", "ci", "--expires", "90"], id="a duration without unit"),
        pytest.param(["create"], id="no name"),
        pytest.param(["make", "ci"], id="no such command"),
    ],
)
def test_misuse_is_exit_2(here: Path, arguments: list[str]) -> None:
    assert keys(*arguments).exit_code == 2
    assert not (here / ".narthex").exists()


def test_without_a_configuration_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = keys("create", "ci")
    assert done.exit_code == 2 and "narthex keys create --config" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_with_other_faults_still_has_its_keys(here: Path) -> None:
    """A key must be revoked even while a variable of its gateway is not set."""
    (here / "narthex.yaml").write_text("version: 1\nservers: {one: {url: '${NOT_SET_HERE}'}}\n")
    document("create", "ci")
    assert len(document("list")["keys"]) == 1


@pytest.mark.parametrize(
    "store", ["postgresql://db/narthex?x=1", "sqlite://narthex.db", "redis://x", "sqlite:///", "[sqlite]", "null"]
)
def test_a_wrong_store_is_refused(here: Path, store: str) -> None:
    (here / "narthex.yaml").write_text(f"{CONFIG}store: {store}\n")
    done = keys("create", "ci")
    assert done.exit_code == 1 and "narthex.yaml:3:" in done.stderr
    assert not (here / ".narthex").exists()


def test_a_store_that_cannot_be_used_is_exit_1(here: Path) -> None:
    (here / "narthex.yaml").write_text(f"{CONFIG}store: sqlite:///narthex.yaml\n")
    done = keys("list")
    assert done.exit_code == 1 and "no file of SQLite" in done.stderr
    assert (here / "narthex.yaml").read_text().startswith("version: 1")


def test_the_store_lies_where_the_file_says(here: Path) -> None:
    (here / "narthex.yaml").write_text(f"{CONFIG}store: sqlite:///data/keys.db\n")
    document("create", "ci", "--config", str(here / "narthex.yaml"))
    assert (here / "data" / "keys.db").is_file()
    assert stat.S_IMODE((here / "data").stat().st_mode) == 0o700
