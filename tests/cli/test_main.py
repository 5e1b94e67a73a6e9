"""The `narthex` program: exit codes, the overview, and how long it takes to say its version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from narthex import FORM, __version__
from narthex.cli.main import COMMANDS, cli

SOURCE = str(Path(__file__).parents[2] / "src")


def narthex(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does, in a directory of its own."""
    env = {**os.environ, "PYTHONPATH": SOURCE, "HOME": str(cwd), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "narthex.cli.main", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def test_version(tmp_path: Path) -> None:
    done = narthex("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"narthex {__version__} ({FORM})\n")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["--help"], 0, "check", id="help"),
        pytest.param(["-h"], 0, "check", id="short help"),
        pytest.param([], 2, "Usage: narthex", id="nothing asked"),
        pytest.param(["chek"], 2, "no command 'chek'; did you mean 'check'?", id="misspelt command"),
        pytest.param(["check", "--nope"], 2, "No such option", id="unknown option"),
        pytest.param(["connect"], 2, "Missing argument", id="argument missing"),
        pytest.param(["schema"], 0, '"$schema"', id="schema"),
    ],
)
def test_exit_codes(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    done = narthex(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert says in done.stdout + done.stderr


def test_the_overview_says_what_each_command_says_of_itself() -> None:
    context = click.Context(cli)
    assert cli.list_commands(context) == list(COMMANDS)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        assert command.help


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["audit", "search"], "narthex audit search … DIR", id="an argument"),
        pytest.param(["run", "show", "trip-7"], "narthex run show … --dir DIR", id="an option"),
    ],
)
def test_without_a_configuration_it_says_that_a_folder_is_enough(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = narthex(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and "No configuration here" in done.stderr and says in done.stderr
    assert "DIR" not in narthex("top", "--once", cwd=tmp_path).stderr


def groups(command: click.Command) -> list[click.Group]:
    """The command groups below one, itself among them."""
    if not isinstance(command, click.Group):
        return []
    context = click.Context(command)
    below = [command.get_command(context, name) for name in command.list_commands(context)]
    return [command, *(group for one in below if one is not None for group in groups(one))]


@pytest.mark.parametrize("width", [40, 80])
def test_no_overview_is_cut_in_a_narrow_terminal(width: int) -> None:
    found = groups(cli)
    assert {"audit", "hold", "keys", "run", "policy"} <= {one.name for one in found}
    for one in found:
        shown = one.get_help(click.Context(one, terminal_width=width, max_content_width=width))
        assert "..." not in shown.replace("]...", "]"), shown
        assert all(len(line) <= width for line in shown.splitlines()), shown


def test_the_version_loads_no_command_and_no_parser(tmp_path: Path) -> None:
    """What makes `narthex --version` and shell completion quick is what they do not import."""
    heavy = ("yaml", "asyncio", "msgspec", "uvicorn")
    code = f"import sys, narthex.cli.main; print([name for name in {heavy} if name in sys.modules])"
    env = {**os.environ, "PYTHONPATH": SOURCE}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"
