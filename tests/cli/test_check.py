"""`narthex check`: what it prints and how it exits; it starts nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli

GOOD = """version: 1
servers:
  time: {command: sh, args: [-c, "touch started; echo hunter2"]}
  docs: {url: "https://mcp.example.com/mcp?key=hunter2", headers: {Authorization: Bearer hunter2}}
endpoints:
  default: {}
  plain: {servers: [docs], naming: none, tools: {exclude: [docs__delete_*]}}
"""
BAD = "version: 1\nlisen: x\nservers: {a: {}}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["check", *arguments])


def test_a_good_file_shows_what_it_sets_up(here: Path) -> None:
    (here / "a.yaml").write_text(GOOD)
    done = check("a.yaml")
    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert lines[0].startswith("a.yaml is fine revision ")
    assert lines[2:8] == [
        "Servers",
        "time stdio sh (started on first use)",
        "docs http https://mcp.example.com/mcp",
        "",
        "Endpoints",
        "default http://127.0.0.1:8080/mcp time, docs",
    ]
    assert lines[8] == "plain http://127.0.0.1:8080/mcp/plain docs plain names some tools"
    assert "a.yaml: no grants: every caller may call everything" in lines


def test_nothing_is_started(here: Path) -> None:
    (here / "a.yaml").write_text(GOOD)
    check("a.yaml")
    assert [path.name for path in here.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_no_secret_is_shown(here: Path, arguments: tuple[str, ...]) -> None:
    (here / "a.yaml").write_text(GOOD)
    assert "hunter2" not in check("a.yaml", *arguments).output


def test_every_fault_is_a_line_that_an_editor_can_follow(here: Path) -> None:
    (here / "a.yaml").write_text(BAD)
    done = check("a.yaml")
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "a.yaml:2:1: unknown key 'lisen'; did you mean 'listen'?",
        "a.yaml:3:11: server 'a' needs `command` (stdio) or `url` (HTTP)",
        "a.yaml cannot be used: 2 problems",
    ]


@pytest.mark.parametrize(
    ("text", "arguments", "code"),
    [
        pytest.param(GOOD, (), 0, id="warnings are fine"),
        pytest.param(GOOD, ("--strict",), 1, id="warnings are faults with --strict"),
        pytest.param(BAD, ("--json",), 1, id="faults with --json"),
        pytest.param(GOOD, ("--json", "--strict"), 1, id="strict with --json"),
    ],
)
def test_exit_codes(here: Path, text: str, arguments: tuple[str, ...], code: int) -> None:
    (here / "a.yaml").write_text(text)
    assert check("a.yaml", *arguments).exit_code == code


@pytest.mark.parametrize("text", [GOOD, BAD])
def test_json_is_exactly_one_document(here: Path, text: str) -> None:
    (here / "a.yaml").write_text(text)
    done = check("--json", "a.yaml")
    document = json.loads(done.stdout)
    assert done.stderr == ""
    assert document["ok"] is (text == GOOD)
    if text == BAD:
        assert document["problems"][0] == {
            "file": "a.yaml",
            "line": 2,
            "column": 1,
            "text": "unknown key 'lisen'; did you mean 'listen'?",
        }
        assert document["revision"] is None
    else:
        assert document["servers"][1] == {
            "name": "docs",
            "transport": "auto",
            "sharing": "principal",
            "url": "https://mcp.example.com/mcp",
        }
        assert document["endpoints"][1]["url"] == "http://127.0.0.1:8080/mcp/plain"


def test_a_file_that_is_not_there_is_misuse(here: Path) -> None:
    assert check("gone.yaml").exit_code == 2
    assert check(".").exit_code == 2


def test_without_a_file_it_takes_what_serve_takes(here: Path) -> None:
    done = check()
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "narthex check FILE" in done.stderr
    (here / ".mcp.json").write_text('{"mcpServers": {"A b": {"command": "sh"}}}')
    assert "server 'A b' is called 'a-b' here" in check().output
    (here / "narthex.yaml").write_text(GOOD)
    assert check().output.startswith("narthex.yaml is fine")


def test_a_port_that_is_chosen_later_is_not_made_up(here: Path) -> None:
    (here / "a.yaml").write_text("version: 1\nlisten: 127.0.0.1:0\nservers: {}\n")
    assert "http://127.0.0.1:<port>/mcp" in check("a.yaml").output
