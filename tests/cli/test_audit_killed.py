"""Whoever works on the folder of a journal is killed at every step, and the next one ends the work.

A command runs in a child of its own, which ends without another word just before its first, second, third … call that
changes a file, or with half of what it was about to write. After each: the journal is whole, what a hold covers is
there, what was erased before stays so; once more the same, and nothing is left that was begun.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from narthex.authority.envelope import Envelopes
from narthex.cli.main import cli
from narthex.keys import load_keys
from narthex.telemetry.audit.checkpoints import read_keys
from narthex.telemetry.audit.verify import Report, verify
from tests.cli.test_audit_kept import CONFIG, run, write
from tests.killing import STRIDE, killed_at

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="steps are counted by the calls of one kernel")
MOST_STEPS = 400


def command(*words: str) -> Callable[[], None]:
    def work() -> None:
        found = CliRunner().invoke(cli, words)
        assert found.exit_code in (0, 1), found.output

    return work


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Segments and payloads of several days; ada's are held, bob's of today were erased."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "narthex.yaml").write_text(CONFIG)
    folder = tmp_path / "audit"
    (tmp_path / ".narthex").mkdir(mode=0o700)
    seals = Envelopes(load_keys(tmp_path / ".narthex", {}), os.urandom)
    write(folder, "ada", "carl", days_ago=40)
    write(folder, "carl", days_ago=30)
    write(folder, "carl", "dora", days_ago=3)
    write(folder, "dora", days_ago=2)
    write(folder, "dora", "erik", seals=seals, group="internal")
    write(folder, "bob", "carl", "dora")
    run("hold", "place", "--principal", "ada", "--reason", "Doe v. Roe")
    run("erase", "--principal", "bob", "--reason", "GDPR 17")
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-before")
    return folder


def again(folder: Path) -> None:
    """As it was before the command."""
    here = folder.parent
    for path in (folder, here / ".narthex"):
        shutil.rmtree(path)
        shutil.copytree(here.parent / f"{here.name}-before" / path.name, path)


def look(folder: Path) -> Report:
    seals = Envelopes(load_keys(folder.parent / ".narthex", {}), os.urandom)
    report = verify(folder, read_keys(folder.glob("audit-*.pub")), (), seals)
    assert not report.faults, report.faults[:3]
    return report


def of(folder: Path, subject: str, kind: str = "payloads-") -> list[str]:
    """Where somebody is named, in files of a kind under any name: once for each line."""
    found = []
    for path in folder.iterdir():
        if not path.name.removeprefix(".").startswith(kind):
            continue
        data = path.read_bytes()
        if path.suffix == ".gz":
            try:
                data = gzip.decompress(data)
            except EOFError:
                continue  # it was being made
        found += [path.name for line in data.splitlines() if b'"subject":"%b"' % subject.encode() in line]
    return found


WORK = {
    "erase": ("audit", "erase", "--principal", "carl", "--reason", "GDPR 17"),
    "hold": ("audit", "hold", "place", "--principal", "carl", "--reason", "Roe v. Doe"),
    "upkeep": ("audit", "upkeep"),
    "rotate": ("secrets", "rotate-key", "--keep", "0s"),
}


@pytest.mark.parametrize("half", [False, True], ids=["before", "half"])
@pytest.mark.parametrize("what", WORK)
def test_a_command_that_is_killed_at_any_step_is_ended_by_the_next(folder: Path, what: str, half: bool) -> None:
    work = command(*WORK[what])
    for step in range(1, MOST_STEPS):
        if step % STRIDE != (2 if half else 1) % STRIDE:
            continue
        if not killed_at(step, work, half=half):
            break
        look(folder)
        assert len(of(folder, "ada")) >= 2 and of(folder, "ada", "calls-"), "held"
        assert not of(folder, "bob"), "erased"
        run("upkeep", code=0)
        work()
        run("upkeep", code=0)
        report = look(folder)
        left = [path.name for path in folder.glob(".*") if path.name != ".upkeep.lock"]
        assert not left, f"step {step}"
        assert not report.payloads.unfinished and not report.payloads.lost
        assert not report.payloads.sealed, "every payload opens"
        assert len(of(folder, "ada")) == 2 and not of(folder, "bob")
        assert what != "erase" or not of(folder, "carl"), f"step {step}"
        assert not [path for path in folder.glob("*.gz") if path.with_suffix("").exists()]
        segments = {path.name.partition("-")[2].removesuffix(".gz") for path in folder.glob("calls-*")}
        assert {path.name.partition("-")[2].removesuffix(".gz") for path in folder.glob("checkpoints-*")} <= segments
        again(folder)
    else:
        raise AssertionError("it never ends")
    assert step > 5, "it has done something"
