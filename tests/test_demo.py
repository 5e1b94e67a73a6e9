"""What `make run` shows works: real servers, the gateway, a call to each, and nothing left when it ends."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INSTALLED = ROOT / ".cache" / "demo-servers" / ".installed"
pytestmark = pytest.mark.e2e


def two_free_ports() -> int:
    """A port whose neighbour is free as well, below those that the system hands out: nobody takes it meanwhile."""
    for port in random.sample(range(20_000, 30_000, 2), 100):
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError("no two neighbouring ports are free")


def demo(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "tools/demo.py", *arguments],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def processes_with(word: str) -> list[str]:
    """Command lines of the running processes that hold `word`."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if word in line and "tools/demo.py" not in line]


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if not INSTALLED.exists():
        said = f"the demo's servers are not installed here: make {INSTALLED.relative_to(ROOT)}"
        pytest.fail(said) if os.environ.get("CI") == "true" else pytest.skip(said)


def test_calls_every_server_then_leaves_nothing_behind() -> None:
    port = two_free_ports()
    process = demo("--port", str(port))
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "Ctrl-C ends" in line:
            break
    text = "".join(said)
    assert '"timezone": "Europe/Lisbon"' in text, text
    assert "On branch" in text or "HEAD detached" in text, text
    assert "42" in text, text
    assert f"http://127.0.0.1:{port}/mcp" in text, text
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=30)[0]
    assert process.returncode == 0, text + rest
    assert "Traceback" not in text + rest
    assert processes_with(str(ROOT / ".cache" / "demo-servers")) == []


def test_a_taken_port_is_said_with_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = demo("--port", str(port), "--once")
        text = process.communicate(timeout=30)[0]
    assert process.returncode == 1
    assert f"Port {port} on 127.0.0.1 is taken" in text
    assert f"make run PORT={port + 10}" in text
