"""One load against one address, by wrk, with the CPU time that the measured process spent on it.

In: what to ask for (`Ask`) and who is measured. Out: a `Sample`. The script `call.lua` makes and checks the calls.
Proof: `tests/bench/test_tools.py`.
"""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rig import BENCH, OTHERS, BenchError, Rig, Started

MODERN, LEGACY = "2026-07-28", "2025-11-25"
ACCEPT = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
CLIENT = {"name": "bench", "version": "1"}
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass(frozen=True)
class Ask:
    """What every call of a load is: `names` are called in turn; `expect` is what `call.lua` checks.
    `distinct`: so many calls differ from each other; 0: all do."""

    path: str
    era: str = "modern"
    names: tuple[str, ...] = ("echo",)
    expect: str = "echo"
    method: str = "tools/call"
    connections: int = 64
    distinct: int = 0


@dataclass(frozen=True)
class Sample:
    """One measured stretch. Times in microseconds; `cpu_us` is what the measured process spent per call."""

    calls: int
    per_s: float
    cpu_us: float
    p50_us: float
    p99_us: float
    max_us: float
    failures: int
    why: str = ""


def post(
    port: int,
    path: str,
    message: dict[str, Any],
    headers: dict[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """One POST on a connection of its own, over TLS with `trust`: status, headers with lower-case names, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    if trust is not None:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=trust)
    try:
        connection.request("POST", path, json.dumps(message), ACCEPT | (headers or {}))
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def ask_once(
    port: int,
    path: str,
    method: str,
    params: dict[str, Any],
    session: str | None = None,
    trust: ssl.SSLContext | None = None,
    token: str = "",
) -> Any:
    """One request, modern unless a session is given; the `result`, or BenchError with the answer."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"MCP-Protocol-Version": LEGACY, "Mcp-Session-Id": session or ""}
    if session is None:
        message["params"] = params | {"_meta": META}
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
        if "name" in params:
            headers["Mcp-Name"] = params["name"]
    if token:
        headers["Authorization"] = f"Bearer {token}"
    status, _, body = post(port, path, message, headers, trust)
    text = body.decode(errors="replace")
    if "data:" in text[:200]:
        text = [line[5:] for line in text.splitlines() if line.startswith("data:")][-1]
    try:
        return json.loads(text)["result"]
    except (ValueError, KeyError):
        raise BenchError(f"{method} on {path} was answered with {status}: {text[:400]}") from None


def open_session(port: int, path: str) -> str:
    """The handshake of a legacy client; its session id, empty where the server gives none."""
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}
    status, headers, body = post(port, path, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
    if status != 200:
        raise BenchError(f"initialize on {path} was answered with {status}: {body[:400]!r}")
    session = headers.get("mcp-session-id", "")
    known = {"Mcp-Session-Id": session, "MCP-Protocol-Version": LEGACY}
    post(port, path, {"jsonrpc": "2.0", "method": "notifications/initialized"}, known)
    return session


def wait_for(
    port: int,
    path: str,
    name: str,
    who: Started,
    trust: ssl.SSLContext | None = None,
    token: str = "",
    limit_s: float = 30.0,
) -> None:
    """Return once the tool `name` answers; BenchError with the process' output when it never does."""
    until, last = time.monotonic() + limit_s, "nothing"
    while time.monotonic() < until:
        who.check()
        try:
            ask_once(port, path, "tools/call", {"name": name, "arguments": {"text": "ready"}}, trust=trust, token=token)
            return
        except (OSError, http.client.HTTPException, BenchError) as error:
            last = str(error)
            time.sleep(0.01)
    raise BenchError(f"{who.name} does not answer {name} on {path}; last: {last}\n{who.output()}")


@lru_cache(maxsize=256)
def _file(folder: Path, lines: tuple[str, ...]) -> Path:
    path = folder / f"lines-{abs(hash(lines)):x}.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def load(
    rig: Rig,
    port: int,
    ask: Ask,
    seconds: float,
    measured: Started | None,
    sessions: tuple[str, ...] = (),
    token: str = "",
) -> Sample:
    """Drive `ask` for about `seconds` and read the CPU clock of `measured` before and after. `token` is shown."""
    command = [
        "taskset",
        "-c",
        str(OTHERS),
        "wrk",
        "-t1",
        f"-c{ask.connections}",
        f"-d{max(1, round(seconds))}s",
        "--latency",
        "--timeout",
        "60s",
    ]
    command += [
        "-s",
        str(BENCH / "call.lua"),
        f"http://127.0.0.1:{port}{ask.path}",
        "--",
        f"host=127.0.0.1:{port}",
        f"path={ask.path}",
    ]
    command += [
        f"era={ask.era}",
        f"method={ask.method}",
        f"names={_file(rig.folder, ask.names)}",
        f"expect={ask.expect}",
        "text=400",
        f"distinct={ask.distinct}",
    ]
    if ask.era == "legacy":
        command.append(f"sessions={_file(rig.folder, sessions)}")
    if token:
        command.append(f"token={token}")
    before = measured.cpu_ns() if measured else 0
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
    spent = (measured.cpu_ns() if measured else 0) - before
    if measured:
        measured.check()
    try:
        said = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise BenchError(f"wrk said: {done.stdout[-800:]} {done.stderr[-800:]}") from None
    calls = max(1, said["calls"])
    return Sample(
        calls=said["calls"],
        per_s=said["calls"] / said["seconds"],
        cpu_us=spent / 1000 / calls,
        p50_us=said["p50_us"],
        p99_us=said["p99_us"],
        max_us=said["max_us"],
        failures=said["wrong"] + said["socket_errors"] + said["timeouts"],
        why=said["why"],
    )
