"""`narthex connect`: the right snippet for each client, and a merge that loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from narthex.cli.connect import CLIENTS, merge
from narthex.cli.main import cli
from narthex.config.jsonc import parse_jsonc, to_python
from narthex.errors import ConfigError

URL = "http://127.0.0.1:8080/mcp"
REMOTE = "https://gateway.example.com/mcp"
ENTRY = {"type": "http", "url": URL}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory that is also the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def connect(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["connect", *arguments])


def snippet(output: str) -> Any:
    return json.loads(output[output.index("\n  {\n") : output.index("\n  }\n") + 5])


@pytest.mark.parametrize(
    ("client", "url", "expected", "command"),
    [
        pytest.param(
            "claude-code",
            URL,
            {"mcpServers": {"narthex": {"type": "http", "url": URL}}},
            f"claude mcp add --transport http narthex {URL}",
            id="Claude Code",
        ),
        pytest.param(
            "claude-desktop",
            URL,
            {"mcpServers": {"narthex": {"command": "npx", "args": ["-y", "mcp-remote", URL, "--allow-http"]}}},
            None,
            id="Claude Desktop speaks to programs only",
        ),
        pytest.param(
            "claude-desktop",
            REMOTE,
            {"mcpServers": {"narthex": {"command": "npx", "args": ["-y", "mcp-remote", REMOTE]}}},
            None,
            id="no --allow-http for https",
        ),
        pytest.param("cursor", URL, {"mcpServers": {"narthex": {"url": URL}}}, None, id="Cursor"),
        pytest.param(
            "vscode",
            URL,
            {"servers": {"narthex": {"type": "http", "url": URL}}},
            f'code --add-mcp \'{{"name": "narthex", "type": "http", "url": "{URL}"}}\'',
            id="VS Code",
        ),
    ],
)
def test_snippets(home: Path, client: str, url: str, expected: Any, command: str | None) -> None:
    done = connect(client, "--url", url)
    assert done.exit_code == 0
    assert snippet(done.output) == expected
    assert (command is None) or command in done.output
    assert ("Run" in done.output) is (command is not None)
    assert not any(home.iterdir())


@pytest.mark.parametrize(
    ("client", "platform", "path"),
    [
        ("claude-desktop", "linux", "/h/.config/Claude/claude_desktop_config.json"),
        ("claude-desktop", "darwin", "/h/Library/Application Support/Claude/claude_desktop_config.json"),
        ("claude-desktop", "win32", "/r/Claude/claude_desktop_config.json"),
        ("vscode", "linux", "/h/.config/Code/User/mcp.json"),
        ("vscode", "darwin", "/h/Library/Application Support/Code/User/mcp.json"),
        ("vscode", "win32", "/r/Code/User/mcp.json"),
        ("cursor", "linux", "/h/.cursor/mcp.json"),
        ("cursor", "darwin", "/h/.cursor/mcp.json"),
        ("claude-code", "linux", ".mcp.json"),
    ],
)
def test_where_each_client_keeps_it(client: str, platform: str, path: str) -> None:
    assert str(CLIENTS[client].file({"HOME": "/h", "APPDATA": "/r"}, platform)) == path


def test_a_configured_settings_directory_is_used() -> None:
    found = CLIENTS["vscode"].file({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "linux")
    assert str(found) == "/x/Code/User/mcp.json"


@pytest.mark.parametrize(
    ("options", "again"),
    [
        pytest.param((), "narthex connect cursor --write", id="none"),
        pytest.param(("--endpoint", "default"), "narthex connect cursor --write", id="the default"),
        pytest.param(
            ("--url", "http://127.0.0.1:8090/mcp", "--name", "my own"),
            "narthex connect cursor --url http://127.0.0.1:8090/mcp --name 'my own' --write",
            id="those that were given, quoted",
        ),
    ],
)
def test_the_command_that_writes_it_has_the_same_options(home: Path, options: tuple[str, ...], again: str) -> None:
    assert connect("cursor", *options).output.splitlines()[-1].startswith(f"`{again}` writes it")


def test_the_url_comes_from_the_configuration(home: Path) -> None:
    (home / "narthex.yaml").write_text(
        "version: 1\nlisten: 127.0.0.1:9000\nservers: {a: {url: http://localhost/}}\n"
        "endpoints: {default: {}, support: {}}\n"
    )
    assert "http://127.0.0.1:9000/mcp\n" in connect("claude-code").output
    done = connect("claude-code", "--endpoint", "support")
    assert snippet(done.output) == {
        "mcpServers": {"narthex-support": {"type": "http", "url": "http://127.0.0.1:9000/mcp/support"}}
    }


@pytest.mark.parametrize(
    ("arguments", "config", "code", "says"),
    [
        pytest.param(
            ("--endpoint", "suport"), "endpoints: {support: {}}", 2, "did you mean 'support'?", id="no such endpoint"
        ),
        pytest.param((), "listen: 127.0.0.1:0", 2, "port 0", id="port not known"),
        pytest.param((), "lisen: x", 1, "narthex.yaml:3:1: unknown key 'lisen'", id="bad configuration"),
        pytest.param(("--url", "ftp://a"), "", 2, "a URL begins with", id="bad URL"),
        pytest.param(("--url", URL, "--config", "narthex.yaml"), "", 2, "give one of them", id="two sources"),
    ],
)
def test_refused(home: Path, arguments: tuple[str, ...], config: str, code: int, says: str) -> None:
    (home / "narthex.yaml").write_text(f"version: 1\nservers: {{a: {{url: http://localhost/}}}}\n{config}\n")
    done = connect("cursor", *arguments)
    assert done.exit_code == code
    assert says in done.stderr


def test_write_makes_the_file_for_its_owner(home: Path) -> None:
    done = connect("cursor", "--write")
    assert done.exit_code == 0
    file = home / ".cursor" / "mcp.json"
    assert json.loads(file.read_text()) == {"mcpServers": {"narthex": {"url": URL}}}
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["mcp.json"]


BEFORE = """{
  // my servers
  "servers": {
    "mine": { "command": "x" }, // keep
  },
  "inputs": [],
}
"""
AFTER = """{
  // my servers
  "servers": {
    "mine": { "command": "x" }, // keep
    "narthex": {
      "type": "http",
      "url": "http://127.0.0.1:8080/mcp"
    },
  },
  "inputs": [],
}
"""


def test_write_changes_one_place_keeps_the_mode_and_a_backup(home: Path) -> None:
    file = home / "mcp.json"
    file.write_text(BEFORE)
    file.chmod(0o640)
    done = connect("vscode", "--write", "--path", str(file))
    assert done.exit_code == 0
    assert file.read_text() == AFTER
    assert file.stat().st_mode & 0o777 == 0o640
    backup = home / "mcp.json.narthex-backup-1"
    assert backup.read_text() == BEFORE
    assert backup.stat().st_mode & 0o777 == 0o640
    assert str(backup) in done.output


def test_write_is_idempotent_and_backups_are_never_overwritten(home: Path) -> None:
    file = home / "mcp.json"
    file.write_text(BEFORE)
    for url in (URL, URL, REMOTE, REMOTE):
        assert connect("vscode", "--write", "--path", str(file), "--url", url).exit_code == 0
    assert sorted(path.name for path in home.iterdir()) == [
        "mcp.json",
        "mcp.json.narthex-backup-1",
        "mcp.json.narthex-backup-2",
    ]
    assert file.read_text() == AFTER.replace(URL, REMOTE)
    assert (home / "mcp.json.narthex-backup-2").read_text() == AFTER


def test_a_linked_file_stays_a_link(home: Path) -> None:
    (home / "dotfiles").mkdir()
    (home / "dotfiles" / "mcp.json").write_text("{}")
    link = home / "mcp.json"
    link.symlink_to("dotfiles/mcp.json")
    assert connect("cursor", "--write", "--path", str(link)).exit_code == 0
    assert link.is_symlink()
    assert "narthex" in (home / "dotfiles" / "mcp.json").read_text()


def test_the_gateway_is_not_told_to_call_itself(home: Path) -> None:
    (home / ".mcp.json").write_text('{"mcpServers": {"a": {"command": "sh"}}}')
    done = connect("claude-code", "--write")
    assert done.exit_code == 1
    assert "would call itself" in done.stderr
    assert "narthex" not in (home / ".mcp.json").read_text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param('{"mcpServers": [}', "mcp.json:1:17: a value is missing here", id="not JSON"),
        pytest.param("[]", "a client's file is a map", id="a list"),
        pytest.param('{"mcpServers": []}', "whose mcpServers is a map", id="servers that are a list"),
        pytest.param('{"mcpServers": {}, "mcpServers": {}}', "duplicate key", id="duplicate key"),
    ],
)
def test_a_file_that_is_not_understood_is_left_alone(home: Path, text: str, says: str) -> None:
    file = home / "mcp.json"
    file.write_text(text)
    done = connect("cursor", "--write", "--path", "mcp.json")
    assert done.exit_code == 1
    assert says in done.stderr
    assert file.read_text() == text
    assert [path.name for path in home.iterdir()] == ["mcp.json"]


def test_a_directory_in_place_of_the_file_is_a_clear_error(home: Path) -> None:
    (home / "file").write_text("")
    done = connect("cursor", "--write", "--path", "file/mcp.json")
    assert done.exit_code == 1
    assert "file" in done.stderr


names = st.text("ab-Z ü", min_size=1, max_size=5)
servers = st.dictionaries(
    names, st.dictionaries(names, st.integers() | st.lists(names, max_size=2), max_size=2), max_size=3
)
files = st.dictionaries(st.sampled_from(["x", "y"]), st.integers(), max_size=2)


@given(files, st.none() | servers, st.sampled_from([None, 2, 4, "\t"]), names, st.booleans())
def test_a_merge_sets_one_entry_and_doing_it_again_changes_nothing(
    rest: dict[str, Any], old: dict[str, Any] | None, indent: Any, name: str, bom: bool
) -> None:
    value = rest if old is None else {**rest, "mcpServers": old}
    before = json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8-sig" if bom else "utf-8")
    after = merge(before, "f", "mcpServers", name, ENTRY)
    expected = {**value, "mcpServers": {**(old or {}), name: ENTRY}}
    found = to_python(parse_jsonc(after.decode("utf-8-sig")))
    assert found == expected
    assert isinstance(found, dict)
    assert list(found) == list(expected)
    assert after.startswith(b"\xef\xbb\xbf") is bom
    assert merge(after, "f", "mcpServers", name, ENTRY) == after


@given(st.binary(max_size=40))
def test_whatever_is_in_the_file_it_is_merged_or_refused(data: bytes) -> None:
    try:
        after = merge(data, "f", "mcpServers", "narthex", ENTRY)
    except ConfigError as error:
        assert error.problems[0].startswith("f:")
    else:
        parse_jsonc(after.decode("utf-8-sig"))
