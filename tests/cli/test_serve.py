"""`narthex serve` as a process: what ends it at once, and how. Its life is in `tests/e2e/test_lifecycle.py`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = str(Path(__file__).parents[2] / "src")
EMPTY = "version: 1\nservers:\n  a: {url: 'http://127.0.0.1:1/mcp'}\n"
FREE = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")


def serve(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": SOURCE, "HOME": str(cwd), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "narthex.cli.main", "serve", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("text", "arguments", "code", "says"),
    [
        pytest.param(None, [], 2, "Start with these three", id="nothing to run"),
        pytest.param(None, ["absent.yaml"], 2, "does not exist", id="no such file"),
        pytest.param("version: 1\nserverz: {}\n", [], 1, "narthex.yaml:2:1", id="a bad file"),
        pytest.param(EMPTY, ["--listen", "here"], 2, "is not an address", id="an address that is none"),
        pytest.param(EMPTY, ["--admin-listen", "127.0.0.1:70000"], 2, "port 70000", id="a port that is none"),
        pytest.param(EMPTY, ["--listen", "192.0.2.1:0"], 1, "192.0.2.1", id="an address of others"),
    ],
)
def test_what_cannot_run_ends_at_once(
    tmp_path: Path, text: str | None, arguments: list[str], code: int, says: str
) -> None:
    if text is not None:
        (tmp_path / "narthex.yaml").write_text(text)
    done = serve(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--listen", "--admin-listen"])
def test_a_taken_port_is_one_clear_line(tmp_path: Path, option: str) -> None:
    (tmp_path / "narthex.yaml").write_text(EMPTY)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = serve(*FREE, option, address, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot listen on {address}" in done.stderr
    assert done.stderr.count("\n") == 1
