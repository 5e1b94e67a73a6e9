"""A shared program starts once, is found by all, and ends with its run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.counterparts import shared
from tests.counterparts.shared import Shared
from tests.e2e.harness import alive, descendants, wait_for

SERVES = "import os, time; print('at', f'http://{os.getpid()}', flush=True); time.sleep(600)"
READY = re.compile(r"at (\S+)\n")


def program(folder: Path, patience_s: float = 20) -> Shared:
    return Shared(folder, "program", READY, patience_s)


def test_two_workers_find_one_program(tmp_path: Path) -> None:
    first, second = program(tmp_path), program(tmp_path)
    for each in (first, second):
        each.start([sys.executable, "-c", SERVES])
    try:
        assert first.url() == second.url()
    finally:
        first.stop()
    wait_for(lambda: not Path("/proc", first.url().removeprefix("http://")).exists(), "its end")


def test_it_ends_with_the_run_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    monkeypatch.setattr(shared, "owner", lambda: run.pid)
    started = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SERVES!r}])"
    one = program(tmp_path)
    one.start([sys.executable, "-c", started])
    one.url()
    below = descendants(int((tmp_path / "program.pid").read_text()))
    assert len(below) == 2
    run.kill()
    run.wait()
    wait_for(lambda: not alive(below), "the end of the program and of its child")


@pytest.mark.parametrize(
    ("code", "patience_s", "said"),
    [("print('no port left')", 20, "ended:\nno port left"), ("import time; time.sleep(600)", 0.3, "not up after")],
    ids=["one that ended says why", "one that hangs is not waited for without end"],
)
def test_a_program_that_does_not_come_up(tmp_path: Path, code: str, patience_s: float, said: str) -> None:
    one = program(tmp_path, patience_s)
    one.start([sys.executable, "-c", code])
    try:
        with pytest.raises(AssertionError, match=said):
            one.url()
    finally:
        one.stop()


def test_the_run_is_the_controller() -> None:
    assert shared.owner() == (os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid())
