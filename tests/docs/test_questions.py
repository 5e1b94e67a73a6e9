"""The table that leads from a question to a command: each command in it is one that this version takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from narthex.cli.main import cli

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "audit-questions.md"
ROWS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
COMMANDS = sorted({one for row in ROWS for one in re.findall(r"`(narthex [^`]+)`", row)})
STARRED = sorted({one for row in ROWS for one in re.findall(r"`(narthex [^`]+)` \*", row)})
FILES, FOLDERS = ("next.yaml", "audit-KEY.pub", "narthex.yaml"), ("SECOND", "COPY")


def parsed(words: list[str]) -> click.Context:
    """As far as click takes a command, which is all but doing it. Raises UsageError."""
    context, command, rest = None, cli, words
    while True:
        context = command.make_context(command.name, list(rest), parent=context)
        if not isinstance(command, click.Group):
            return context
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command = found


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / name).touch()
    for name in FOLDERS:
        (tmp_path / name).mkdir()


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 25 and len(STARRED) > 15


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_taken(command: str) -> None:
    parsed(shlex.split(command)[1:])


@pytest.mark.parametrize("command", STARRED)
def test_one_with_a_star_takes_a_copied_folder(command: str) -> None:
    words = shlex.split(command)[1:]
    has_option = any("--dir" in one.opts for one in parsed(words).command.params)
    given = parsed([*words, *(["--dir"] if has_option else []), "COPY"]).params
    assert Path("COPY") in (given.get("folder"), given.get("dir")), command
