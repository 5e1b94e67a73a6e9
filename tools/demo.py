"""What `make run` does after installing: real servers, the gateway in front of them, a first call, and it stays.

In: `examples/demo/narthex.yaml`, the servers installed in `.cache/demo-servers`, two neighbouring free ports.
Out: a running gateway until Ctrl-C; exit 0 when it was stopped, 1 when something did not work. No process is left.
With `--once` it makes the calls and stops; `tests/test_demo.py` runs it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SERVERS = ROOT / ".cache" / "demo-servers" / "bin"
HOST = "127.0.0.1"
START_LIMIT_S = 30.0
STOP_LIMIT_S = 15.0
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CALLS = (
    ("time__get_current_time", "--arg", "timezone=Europe/Lisbon"),
    ("git__git_status", "--arg", f"repo_path={ROOT}"),
    ("sql__execute_query", "--arg", "sql=SELECT 6 * 7 AS answer"),
)


class Failed(Exception):
    """Something the user has to know before the demo can go on; the text is for them."""


class Stopped(Exception):
    """Ctrl-C, or the signal that ends a service."""


class Processes:
    """The children, each in a process group of its own: Ctrl-C reaches them through us, once, in order."""

    def __init__(self) -> None:
        self.running: list[tuple[str, subprocess.Popen[bytes], Path | None]] = []

    def start(self, name: str, command: list[str], log: Path | None = None) -> None:
        """Start a child. Its output goes to `log`, or to the terminal."""
        environment = {**os.environ, "PATH": f"{SERVERS}{os.pathsep}{os.environ.get('PATH', '')}"}
        output = log.open("wb") if log else None
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        if output:
            output.close()
        self.running.append((name, process, log))

    def check(self) -> None:
        """Raise `Failed` with the last lines of a child that has ended, if any has."""
        for name, process, log in self.running:
            if process.poll() is not None:
                last = log.read_text(errors="replace").splitlines()[-8:] if log else []
                raise Failed("\n".join([f"{name} has ended.", *last]))

    def stop(self) -> None:
        """End them, the last one started first; whoever does not go within `STOP_LIMIT_S` is killed with its group."""
        for _, process, _ in reversed(self.running):
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.running.clear()


def say(text: str = "") -> None:
    print(text, flush=True)


def step(text: str) -> None:
    say(f"==> {text}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def ready(admin_port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{admin_port}/readyz", timeout=1.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_for(what: str, holds: Callable[[], bool], processes: Processes) -> None:
    """Wait until `holds` says so.

    Raises:
        Failed: A child ended meanwhile, or `START_LIMIT_S` have passed.
    """
    deadline = time.monotonic() + START_LIMIT_S
    while not holds():
        processes.check()
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not answer within {START_LIMIT_S:g} s.")
        time.sleep(0.05)


def write_config(folder: Path, port: int, sql_port: int) -> Path:
    """The example with this checkout's path and the chosen ports filled in."""
    text = (ROOT / "examples" / "demo" / "narthex.yaml").read_text(encoding="utf-8")
    for old, new in (
        ("[--repository, ../..]", f"[--repository, {str(ROOT)!r}]"),
        (f"{HOST}:8080", f"{HOST}:{port}"),
        (f"{HOST}:8081", f"{HOST}:{port + 1}"),
        (f"{HOST}:8082", f"{HOST}:{sql_port}"),
    ):
        text = text.replace(old, new)
    path = folder / "narthex.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def narthex(*arguments: str) -> bool:
    """Run a command as the reader would, and show it. Returns whether it ended with 0."""
    say(f"\n$ narthex {shlex.join(arguments)}")
    return subprocess.run([str(BIN / "narthex"), *arguments], cwd=ROOT, stdin=subprocess.DEVNULL).returncode == 0


def start(processes: Processes, port: int) -> None:
    """Bring up the HTTP server and the gateway in front of all three.

    Raises:
        Failed: A port is taken, or one of the two did not come up.
    """
    for taken in (port, port + 1):
        if not is_free(taken):
            raise Failed(
                f"Port {taken} on {HOST} is taken by another program. Choose another: make run PORT={port + 10}"
            )
    folder = ROOT / ".cache" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    sql_port = free_port()
    config = write_config(folder, port, sql_port)
    log = folder / "sql.log"
    step(f"a server over HTTP: mcp-server-motherduck on {HOST}:{sql_port} (DuckDB in memory)")
    processes.start(
        "mcp-server-motherduck",
        [str(SERVERS / "mcp-server-motherduck"), "--db-path", ":memory:", "--read-write"]
        + ["--transport", "http", "--host", HOST, "--port", str(sql_port)],
        log,
    )
    step(f"the gateway: narthex serve {config.relative_to(ROOT)}")
    processes.start("narthex serve", [str(BIN / "narthex"), "serve", str(config)])
    wait_for("narthex serve", lambda: ready(port + 1), processes)
    wait_for("mcp-server-motherduck", lambda: answers(sql_port), processes)


def show(port: int) -> bool:
    """A list and three calls through the gateway. Returns whether all of them worked."""
    url = f"http://{HOST}:{port}/mcp"
    step("first calls through it: two servers over stdio, started by their first use, and one over HTTP")
    worked = [narthex("call", *call, "--url", url) for call in CALLS]
    return all(worked)


def how_to_connect(port: int) -> None:
    url = f"http://{HOST}:{port}/mcp"
    say()
    step("it runs")
    say(f"""
  For agents    {url}          all tools, named <server>__<tool>
                {url}/clock    one server, names as it gives them
  Admin         http://{HOST}:{port + 1}/readyz

  Connect a client, in a second terminal (. .venv/bin/activate first):
    claude mcp add --transport http narthex {url}
    narthex connect cursor --url {url} --write
    narthex connect vscode --url {url}         shows what to add; also claude-code, claude-desktop
  Look around:
    narthex list --url {url}
    $EDITOR .cache/demo/narthex.yaml           a saved change is taken at once

  Ctrl-C ends the gateway and every server that it started.
""")


def stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def run(port: int, once: bool) -> int:
    """The whole demo. Returns the exit code."""
    for number in ENDING:
        signal.signal(number, stop)
    parent = os.getppid()
    processes = Processes()
    try:
        start(processes, port)
        worked = show(port)
        if once or not worked:
            return 0 if worked else 1
        how_to_connect(port)
        # `make` may be killed without a word to us: then somebody else is our parent, and nobody wants the demo.
        while os.getppid() == parent:
            processes.check()
            time.sleep(0.5)
        return 0
    except Stopped:
        return 0
    except Failed as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    finally:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        processes.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=8080, help="for agents; the next one is the admin side")
    parser.add_argument("--once", action="store_true", help="make the calls, then stop")
    arguments = parser.parse_args()
    return run(arguments.port, arguments.once)


if __name__ == "__main__":
    sys.exit(main())
