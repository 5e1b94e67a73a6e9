"""`make conformance UPSTREAM=URL` in front of servers that were not written for it: what they pass, they pass here.

In: a server made with the official Python SDK (`reference.py`), one made with the TypeScript SDK (`everything.mjs`),
the conformance server that comes with the Go SDK, with sessions and without. The command runs as its user runs it; its
closing lines and its exit status are what counts.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import suites
from tests.e2e.harness import ROOT, listening_ports, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def conformance(upstream: str, *arguments: str) -> tuple[int, list[str]]:
    """The exit status of the command and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance.run", *arguments],
        cwd=ROOT,
        env={**suites.environment(), "UPSTREAM": upstream},
        capture_output=True,
        text=True,
        timeout=suites.SUITE_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


@contextlib.contextmanager
def go_server(programs: Path, *options: str) -> Iterator[str]:
    process = subprocess.Popen(
        [str(programs / "everything-server"), "-http", "127.0.0.1:0", *options],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = wait_for(lambda: listening_ports(process.pid), "the server of the Go SDK").pop()
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


def test_a_server_of_the_python_sdk_passes_all_that_is_possible(node: str) -> None:
    with suites.reference() as url:
        status, lines = conformance(url)
    assert [line for line in lines if line.startswith("conformance ")] == [
        "conformance server-2026-07-28 37/37",
        "conformance server-2025-11-25 30/30",
        "conformance crossed-2026-on-legacy 35/37",
        "conformance crossed-2025-on-modern 30/30",
        "conformance client-2026-07-28 7/7",
        "conformance client-auth 7/7",
    ], "\n".join(lines)
    assert not [line for line in lines if line.endswith("FAILED")]
    assert status == 0


@pytest.mark.parametrize(
    ("options", "suite", "spoken"),
    [
        pytest.param((), "server-2026-07-28", "legacy, modern", id="stateless: both eras"),
        pytest.param((), "server-2025-11-25", "legacy, modern", id="stateless: legacy without a session"),
        pytest.param(("-stateless=false",), "server-2025-11-25", "legacy", id="sessions: legacy alone"),
    ],
)
def test_a_server_of_the_go_sdk_fails_here_what_it_fails_alone(
    node: str, go_programs: Path, options: tuple[str, ...], suite: str, spoken: str
) -> None:
    with go_server(go_programs, *options) as url:
        alone = conformance(url, "--only", suite, "--direct")
        through = conformance(url, "--only", suite)
    assert through[1][0] == f"{url} speaks: {spoken}"
    scored = [[line for line in lines if "beside" not in line] for _, lines in (alone, through)]
    assert scored[0] == scored[1]
    assert alone[0] == through[0] == (0 if scored[0][-1].endswith(("37/37", "30/30")) else 1)


def test_a_server_of_the_typescript_sdk_that_asks_and_logs_on_its_own_stream_passes_here_too(node: str) -> None:
    with suites.typescript(node) as url:
        alone = conformance(url, "--only", "server-2025-11-25", "--direct")
        through = conformance(url, "--only", "server-2025-11-25")
    assert through[1][0] == f"{url} speaks: legacy"
    for status, lines in (alone, through):
        assert (status, lines[-1]) == (0, "conformance server-2025-11-25 30/30"), "\n".join(lines)


def test_a_server_of_sessions_alone_makes_every_modern_suite_a_crossed_one(node: str, go_programs: Path) -> None:
    """What a legacy server cannot do is excused; the rest is not, as its second question: the Go SDK asks but once."""
    with go_server(go_programs, "-stateless=false") as url:
        status, lines = conformance(url, "--only", "server-2026-07-28")
    told = [line for line in lines if line.endswith(("FAILED", "cannot pass (crossed.yml)"))]
    assert told == [
        "server-2026-07-28: server-stateless cannot pass (crossed.yml)",
        "server-2026-07-28: input-required-result-basic-elicitation cannot pass (crossed.yml)",
        "server-2026-07-28: input-required-result-multi-round FAILED",
    ]
    assert (status, lines[-1]) == (1, "conformance server-2026-07-28 34/37")
