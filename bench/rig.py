"""Processes on their cores, their CPU time and memory as the kernel counts them, and what machine this is.

In: commands to start. Out: `Started` processes that end with the `Rig`, whatever ends it. Linux only: the figures come
from `/proc` and from the CPU clocks of other processes. Proof: `tests/bench/test_tools.py`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
MEASURED, OTHERS = CORES[0], CORES[-1]
"""What is measured has a core for itself; wrk and the canned servers share the other one."""


class BenchError(Exception):
    """The bench cannot go on; the text says why and what helps."""


def need(*programs: str) -> None:
    """Raise BenchError with the installing command where a program of the machine is missing."""
    packages = {"wrk": "wrk", "nginx": "nginx-light", "openssl": "openssl", "perf": "linux-perf"}
    missing = [p for p in programs if shutil.which(p, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None]
    if missing:
        what = " ".join(packages[p] for p in missing)
        install = f"sudo apt-get install --no-install-recommends {what}"
        raise BenchError(f"{' and '.join(missing)} not found. On Debian or Ubuntu: {install}")


def two_cores() -> None:
    if sys.platform != "linux" or len(CORES) < 2:
        raise BenchError("this needs Linux and two cores: one for what is measured, one for the load")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children(pid: int) -> list[int]:
    """All descendants of a process, nearest first."""
    found, queue = [], [pid]
    while queue:
        try:
            text = Path(f"/proc/{queue[0]}/task/{queue[0]}/children").read_text()
        except OSError:
            text = ""
        below = [int(child) for child in text.split()]
        found += below
        queue = queue[1:] + below
    return found


def on_core(pid: int, core: int) -> bool:
    try:
        return os.sched_getaffinity(pid) == {core}
    except OSError:
        return False


def cpu_ns(pid: int) -> int:
    """CPU time of one process, user and kernel, all its threads, in ns: the kernel's own clock of it, no ticks."""
    return time.clock_gettime_ns(
        (~pid << 3) | 2
    )  # CPUCLOCK_SCHED of another process, as clock_getcpuclockid(3) makes it


@dataclass(frozen=True)
class Memory:
    """Resident memory of one process in bytes; its children are not counted."""

    rss: int
    pss: int


def memory(pid: int) -> Memory:
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, value = line.split(":")
        fields[key] = int(value.split()[0]) * 1024
    return Memory(fields["Rss"], fields["Pss"])


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """In the child, before exec: the kernel ends it when we die, even by SIGKILL. PR_SET_PDEATHSIG is 1."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGTERM)


@dataclass
class Started:
    """One process of the bench, with the file that has its output."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self, last: int = 3000) -> str:
        return self.log.read_text(errors="replace")[-last:]

    def cpu_ns(self) -> int:
        """CPU time of the process and of its children on the measured core (nginx's worker; not a stdio server's)."""
        total = cpu_ns(self.pid)
        for child in children(self.pid):
            if on_core(child, MEASURED):
                total += cpu_ns(child)
        return total

    def check(self) -> None:
        if self.process.poll() is not None:
            raise BenchError(f"{self.name} ended with {self.process.returncode}:\n{self.output()}")


@dataclass
class Rig:
    """Owns every process and the scratch folder; a context manager. SIGTERM and Ctrl-C end everything too."""

    started: list[Started] = field(default_factory=list)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="narthex-bench-")))

    def __enter__(self) -> Rig:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.folder.chmod(0o755)  # nginx's worker may be another user
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for started in reversed(self.started):
            self.stop(started)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(
        self,
        name: str,
        command: Sequence[str],
        core: int,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Started:
        """Start `command` on `core`, in a process group of its own."""
        log = self.folder / f"{name}-{len(self.started)}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd or self.folder,
                process_group=0,
                preexec_fn=_die_with_parent,
            )
        started = Started(name, process, log)
        self.started.append(started)
        return started

    def stop(self, started: Started, grace_s: float = 5.0) -> None:
        """SIGTERM, then SIGKILL to the whole group; what a gateway started ends with it."""
        process, below = started.process, children(started.pid)
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                process.terminate()  # a drain is not what we measure: the second signal stops at once
            try:
                process.wait(grace_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in (-started.pid, *below):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if started in self.started:
            self.started.remove(started)


def _first_line(path: str, key: str) -> str:
    try:
        for line in Path(path).read_text().splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "unknown"


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=ROOT, check=False)
    except OSError:
        return "not installed"
    return (done.stdout + done.stderr).strip().partition("\n")[0]


def facts() -> dict[str, Any]:
    """When, which revision, which machine. No host name: it says nothing about speed."""
    dirty = bool(_said("git", "status", "--porcelain", "--untracked-files=no"))
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": _said("git", "rev-parse", "--short=12", "HEAD") + ("+changes" if dirty else ""),
        "cpu": _first_line("/proc/cpuinfo", "model name"),
        "cores": len(CORES),
        "memory": _first_line("/proc/meminfo", "MemTotal"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "nginx": _said("/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else "nginx", "-v").rpartition("/")[2],
        "wrk": _said("wrk", "-v").split(" [")[0].removeprefix("wrk "),
    }
