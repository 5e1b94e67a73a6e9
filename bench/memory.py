"""What the gateway keeps in memory: at start, per idle connection, per session that its client has left behind.

`python bench/memory.py [--connections N] [--sessions N] [--out FILE]`. The figure is RSS of the gateway process alone,
from `/proc/PID/smaps_rollup`, children not counted; PSS, which shares out the pages that other processes map too,
stands beside the first. What the kernel keeps for a socket is not in it. Writes `bench/results/memory.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import uvloop
from clients import Client, call, connect, initialize, initialized, session_id, status
from report import RESULTS, facts_line, figures_table, write_results
from rig import BenchError, Rig, facts, memory, need, two_cores
from subjects import Subject, gateway, many, upstream

MB, KB = 1e6, 1e3
TOOL = "s0__echo"
TOKENS = 50_000


def rss(subject: Subject) -> int:
    assert subject.process is not None
    subject.process.check()
    return memory(subject.process.pid).rss


async def idle(subject: Subject, count: int, tls: ssl.SSLContext | None) -> float:
    """Bytes per connection that has made one call and then only stands there."""

    async def opened(number: int) -> Client:
        client = await connect(subject.port, tls)
        answer = await client.ask(call(subject.port, TOOL, number, None))
        if status(answer) != 200:
            raise BenchError(f"a call was answered with {answer[:300]!r}")
        return client

    async def some(first: int, number: int) -> list[Client]:
        out = []
        for start in range(first, first + number, 50):
            out += await asyncio.gather(*(opened(n) for n in range(start, min(start + 50, first + number))))
        await asyncio.sleep(0.5)
        return out

    held = await some(0, count // 10)  # arenas and pools that any first connections would make
    before = rss(subject)
    held += await some(count // 10, count)
    after = rss(subject)
    for client in held:
        client.transport.abort()
    await asyncio.sleep(1)
    return (after - before) / count


async def sessions(subject: Subject, count: int) -> float:
    """Bytes per legacy session: the handshake and one call, then the client is gone without a word."""

    async def some(number: int) -> None:
        for _ in range(0, number, 50):
            clients = await asyncio.gather(*(connect(subject.port) for _ in range(50)))
            for client in clients:
                session = session_id(await client.ask(initialize(subject.port)))
                await client.ask(initialized(subject.port, session))
                answer = await client.ask(call(subject.port, TOOL, 7, session))
                if status(answer) != 200:
                    raise BenchError(f"a call was answered with {answer[:300]!r}")
                client.transport.abort()
        await asyncio.sleep(1)

    await some(count // 10)
    before = rss(subject)
    await some(count)
    return (rss(subject) - before) / count


def certificate(folder: Path) -> tuple[Path, Path]:
    need("openssl")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"openssl: {done.stderr}")
    return cert, key


def tls_gateway(rig: Rig, servers: dict[str, Any]) -> tuple[Subject, ssl.SSLContext]:
    """A gateway that listens with TLS; ready once a call over TLS is answered."""
    cert, key = certificate(rig.folder)
    trust = ssl.create_default_context(cafile=str(cert))
    subject = gateway(rig, "gateway-tls", servers, TOOL, tls_trust=trust, tls={"cert": str(cert), "key": str(key)})
    return subject, trust


def measure(rig: Rig, connections: int, left: int) -> list[dict[str, Any]]:
    servers = many(upstream(rig), 1, 10)
    first = gateway(rig, "gateway", servers, TOOL)
    assert first.process is not None
    start = memory(first.process.pid)
    lines: list[dict[str, Any]] = [
        {
            "label": "resident at start, after the first call (RSS)",
            "value": start.rss / MB,
            "target": 60.0,
            "unit": "MB",
        },
        {"label": "the same, shared pages divided (PSS)", "value": start.pss / MB, "unit": "MB"},
    ]
    per = uvloop.run(idle(first, connections, None))
    lines.append({"label": f"per idle connection, of {connections:,}", "value": per / KB, "target": 20.0, "unit": "kB"})
    second = gateway(rig, "gateway-sessions", servers, TOOL)
    per = uvloop.run(sessions(second, left))
    lines.append(
        {
            "label": f"per legacy session left behind, of {left:,}",
            "value": per / KB,
            "target": 4.0,
            "unit": "kB",
            "digits": 2,
        }
    )
    third, trust = tls_gateway(rig, servers)
    some = max(100, connections // 4)
    per = uvloop.run(idle(third, some, trust))
    lines.append({"label": f"per idle TLS connection, of {some:,}", "value": per / KB, "unit": "kB"})
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("identity.py")), "--tokens", str(TOKENS)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    label = f"{TOKENS:,} distinct tokens that are known, together"
    lines.append({"label": label, "value": int(done.stdout) / MB, "target": 60.0, "unit": "MB"})
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--sessions", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=RESULTS / "memory.json")
    given = parser.parse_args()
    try:
        two_cores()
        with Rig() as rig:
            lines = measure(rig, given.connections, given.sessions)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    results = {"kind": "memory", "facts": facts(), "figures": lines}
    print(f"{facts_line(results)}\n\n{figures_table(results)}")
    write_results(results, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
