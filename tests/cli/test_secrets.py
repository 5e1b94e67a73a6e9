"""`narthex secrets`: values come in by stdin and never go out; a rotation loses nothing; a lost key has a way out."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from narthex.authority.envelope import Envelopes
from narthex.cli.main import cli
from narthex.keys import load_keys

CONFIG = "version: 1\nservers: {one: {url: 'http://127.0.0.1:1/mcp'}}\n"
VALUE = "ghp_s3cr3t-0123456789"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NARTHEX_KEY", raising=False)
    (tmp_path / "narthex.yaml").write_text(CONFIG)
    return tmp_path


def secrets(*arguments: str, stdin: str | bytes | None = None, env: Mapping[str, str] | None = None) -> Result:
    done = CliRunner().invoke(cli, ["secrets", *arguments], input=stdin, env=env)
    assert VALUE not in done.output
    return done


def states(*, code: int = 0, env: Mapping[str, str] | None = None) -> dict[str, str]:
    done = secrets("list", "--json", env=env)
    assert done.exit_code == code, done.output
    return {row["name"]: row["state"] for row in json.loads(done.stdout)["secrets"]}


def value_of(here: Path, name: str, env: Mapping[str, str] | None = None) -> str:
    rows = sqlite3.connect(here / ".narthex" / "narthex.db").execute("SELECT tenant, name, sealed FROM secrets")
    (tenant, _, sealed) = next(row for row in rows if row[1] == name)
    return Envelopes(load_keys(here / ".narthex", env or {}), os.urandom).open(sealed, tenant, name)


def keep(*names: str) -> None:
    for name in names:
        assert secrets("set", name, stdin=VALUE).exit_code == 0


@pytest.mark.parametrize(
    ("stdin", "value"),
    [
        pytest.param(VALUE, VALUE, id="as it comes"),
        pytest.param(VALUE + "\n", VALUE, id="one line end is not part of it"),
        pytest.param(VALUE + "\r\n", VALUE, id="nor that of Windows"),
        pytest.param("a\nb\n\n", "a\nb\n", id="but others are"),
        pytest.param(" blank ", " blank ", id="blanks are"),
        pytest.param("pässword ✓", "pässword ✓", id="any text"),
    ],
)
def test_a_value_from_stdin(here: Path, stdin: str, value: str) -> None:
    assert secrets("set", "pat", stdin=stdin.encode()).exit_code == 0
    assert value_of(here, "pat") == value
    for path in (here / ".narthex").iterdir():
        assert value.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        pytest.param(b"", "no value on stdin", id="nothing"),
        pytest.param(b"\n", "no value on stdin", id="an empty line"),
        pytest.param(b"\xff\xfe", "not UTF-8", id="no text"),
        pytest.param(b"a\0b", "no NUL", id="a NUL"),
        pytest.param(b"x" * 65537, "1 to 65536", id="too long"),
        pytest.param(b"x" * 1_000_000, "1 to 65536", id="much too long"),
    ],
)
def test_what_is_no_value(here: Path, stdin: bytes, says: str) -> None:
    done = secrets("set", "pat", stdin=stdin)
    assert done.exit_code == 2 and says in done.stderr
    assert states() == {}


def test_a_value_on_the_command_line_is_refused(here: Path) -> None:
    assert CliRunner().invoke(cli, ["secrets", "set", "pat", VALUE]).exit_code == 2
    assert secrets("set", "a b", stdin=VALUE).exit_code == 2


def test_names_and_states_are_shown_and_never_a_value(here: Path) -> None:
    keep("b", "a")
    assert list(states()) == ["a", "b"]
    assert "ok" in secrets("list").stdout
    assert secrets("remove", "a").exit_code == 0
    assert states() == {"b": "ok"}
    assert secrets("remove", "a").exit_code == 1


def test_no_secrets(here: Path) -> None:
    assert "narthex secrets set NAME" in secrets("list").stdout
    assert secrets("rotate-key").exit_code == 0


def test_a_rotation_says_how_many(here: Path) -> None:
    keep("a")
    assert "1 secret was brought under it" in secrets("rotate-key").stderr
    keep("b")
    assert "2 secrets were brought under it" in secrets("rotate-key").stderr


def test_a_rotation_loses_nothing(here: Path) -> None:
    keep("a", "b")
    first = (here / ".narthex" / "narthex.key").read_text()
    done = json.loads(secrets("rotate-key", "--json").stdout)
    assert done["secrets"] == 2
    lines = (here / ".narthex" / "narthex.key").read_text().splitlines()
    assert lines[1].startswith(first.strip()) and "until" in lines[1]
    assert states() == {"a": "ok", "b": "ok"} and value_of(here, "a") == VALUE
    (here / ".narthex" / "narthex.key").write_text(lines[0] + "\n")
    assert states() == {"a": "ok", "b": "ok"}, "the old key is not needed"


def test_a_key_that_has_leaked_is_gone_at_once(here: Path) -> None:
    keep("a")
    assert secrets("rotate-key", "--keep", "0s").exit_code == 0
    assert len((here / ".narthex" / "narthex.key").read_text().splitlines()) == 1
    assert value_of(here, "a") == VALUE


def test_a_rotation_that_was_interrupted_goes_on(here: Path) -> None:
    keep("a")
    key = here / ".narthex" / "narthex.key"
    old = key.read_text().strip()
    new = base64.b64encode(bytes(range(32))).decode()
    key.write_text(f"{new}\n{old} until 2001-01-01T00:00:00Z\n")  # ended long ago, and a secret is still under it
    assert states() == {"a": "ok"}
    assert secrets("rotate-key").exit_code == 0
    assert old not in key.read_text() and value_of(here, "a") == VALUE


def test_keys_of_the_environment_are_rotated_there(here: Path) -> None:
    one, two = (base64.b64encode(bytes([fill]) * 32).decode() for fill in (1, 2))
    assert secrets("set", "a", stdin=VALUE, env={"NARTHEX_KEY": one}).exit_code == 0
    done = secrets("rotate-key", env={"NARTHEX_KEY": one})
    assert done.exit_code == 1 and "put a new key before the old one" in done.stderr
    both = {"NARTHEX_KEY": f"{two},{one} until 2001-01-01T00:00:00Z"}
    assert secrets("rotate-key", env=both).exit_code == 0
    assert value_of(here, "a", {"NARTHEX_KEY": two}) == VALUE


@pytest.mark.parametrize("lost", ["removed", "another"])
def test_a_lost_key_says_which_secrets_and_the_way_out(here: Path, lost: str) -> None:
    keep("a", "b")
    key = here / ".narthex" / "narthex.key"
    was = key.read_text()
    key.unlink()
    if lost == "another":
        key.write_text(base64.b64encode(bytes(32)).decode())
        key.chmod(0o600)
    assert states(code=1) == {"a": "key_missing", "b": "key_missing"}
    said = secrets("list").stderr
    assert "from a backup" in said and "narthex secrets set a" in said and "narthex secrets set b" in said
    assert secrets("rotate-key").exit_code == 1, "and nothing is lost by trying"
    with key.open("a") as file:
        file.write("\n" + was)
    assert states() == {"a": "ok", "b": "ok"}, "the way out works"


def edit(here: Path, statement: str, *values: Any) -> None:
    connection = sqlite3.connect(here / ".narthex" / "narthex.db")
    with connection:
        connection.execute(statement, values)
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE name = 'b') WHERE name = 'a'",
                     id="another's row"),
        pytest.param("UPDATE secrets SET tenant = 'acme' WHERE name = 'a'", id="moved to another tenant"),
        pytest.param("UPDATE secrets SET sealed = substr(sealed, 1, 60) WHERE name = 'a'", id="cut"),
        pytest.param("UPDATE secrets SET sealed = x'00' WHERE name = 'a'", id="overwritten"),
        pytest.param("UPDATE secrets SET sealed = CAST(substr(sealed, 1, 40) || 'x' || substr(sealed, 42) AS BLOB)"
                     " WHERE name = 'a'", id="one byte changed"),
    ],
)  # fmt: skip
def test_a_store_that_was_tampered_with(here: Path, statement: str) -> None:
    keep("a", "b")
    edit(here, statement)
    assert states(code=1) == {"a": "damaged", "b": "ok"}
    done = secrets("rotate-key")
    assert done.exit_code == 1 and "a: " in done.stderr and "backup" in done.stderr
    assert value_of(here, "b") == VALUE


def test_a_store_of_another_installation_does_not_open(here: Path, tmp_path: Path) -> None:
    keep("a")
    other = tmp_path / "other"
    other.mkdir()
    (other / "narthex.yaml").write_text(CONFIG)
    config = str(other / "narthex.yaml")
    assert secrets("set", "mine", "--config", config, stdin=VALUE).exit_code == 0
    (other / ".narthex" / "narthex.db").write_bytes((here / ".narthex" / "narthex.db").read_bytes())
    done = secrets("list", "--json", "--config", config)
    assert done.exit_code == 1 and json.loads(done.stdout)["secrets"][0]["state"] == "key_missing"
