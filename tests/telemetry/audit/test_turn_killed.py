"""A gateway is killed at any step of the turn to a new segment, or its machine fails there: the chain is whole, no
answer is without its record, and what comes next goes on behind it.

What the machine has for certain is kept beside the files, in copies that each sync makes: the bytes of a file with its
own, its name with its folder's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.telemetry.audit.heads import Heads, heads_in
from narthex.telemetry.journal import Journal
from narthex.testing import FakeClock
from tests.killing import STRIDE, killed_at
from tests.telemetry.audit.writing import AT, SIGNER, journal, look
from tests.telemetry.test_record import ENTRY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="steps are counted by the calls of one kernel")
NAMES = ("one", "two", "three")
MOST_STEPS = 200


class Machine:
    """Files as a gateway sees them, in `here`, and as they are after the machine has failed, in `disk`."""

    def __init__(self, root: Path) -> None:
        self.here, self.disk = root / "here", root / "disk"
        self.folder = self.here / "audit"
        self.answered = root / "answered"
        self.again()

    def again(self) -> None:
        for path in (self.here, self.disk):
            shutil.rmtree(path, ignore_errors=True)
            (path / "audit").mkdir(parents=True)
        self.answered.write_text("")

    def remember(self) -> None:
        """From now on what is synced is copied. Called in the child, whose calls are counted already."""
        os.fsync, os.fdatasync = self._told(os.fsync), self._told(os.fdatasync)
        real = os.pwritev

        def pwritev(file: int, pieces: list[bytes], at: int, flags: int = 0) -> int:
            count = real(file, pieces, at, flags)
            copy = self._copy_of(file)
            if flags & os.RWF_DSYNC and copy is not None:
                data = bytearray(copy.read_bytes())
                data[at : at + count] = pieces[0][:count]
                copy.write_bytes(data)
            return count

        os.pwritev = pwritev  # type: ignore[assignment]

    def _told(self, real: Callable[[int], None]) -> Callable[[Any], None]:
        def sync(file: int) -> None:
            real(file)
            copy = self._copy_of(file)
            if copy is not None and copy.is_dir():
                for path in (self.here / copy.relative_to(self.disk)).iterdir():
                    if path.is_file() and not (copy / path.name).exists():
                        (copy / path.name).touch()  # its name; of its bytes nothing is certain
            elif copy is not None and copy.exists():
                shutil.copyfile(f"/proc/self/fd/{file}", copy)

        return sync

    def _copy_of(self, file: int) -> Path | None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        return self.disk / path.relative_to(self.here) if path.is_relative_to(self.here) else None

    def fail(self) -> None:
        """The machine is on again: what no sync has brought to the disk is gone."""
        shutil.rmtree(self.here)
        shutil.copytree(self.disk, self.here)

    # --- what is done, and what there is

    def serve(self, *names: str, why: str) -> None:
        """Calls that wait for the disk, one behind the other, with a turn between them; without an end of the chain."""
        clock = FakeClock(AT)
        gateway = Journal(
            self.folder, SIGNER, heads=Heads(self.here, self.folder), now=clock,
            on_loop=lambda tell, waiting, problem: tell(waiting, problem),
            sync=lambda file: os.fdatasync(file), most_bytes=1 if why == "full" else 1 << 20,
        )  # fmt: skip
        for name in names:
            begun = None
            for event in ("begin", "call"):
                told = threading.Event()

                def done(problem: str, told: threading.Event = told) -> None:
                    assert not problem
                    told.set()

                entry = replace(ENTRY, event=event, name=name, begun=begun, done=done)
                gateway.add(entry)
                assert told.wait(60)
                begun = entry
            with self.answered.open("a") as file:
                file.write(f"{name}\n")
            if why == "another day":
                clock.advance(86_400)

    def look(self) -> None:
        report = look(self.folder, heads=heads_in(self.here, self.folder))
        assert not report.faults, report.faults
        answered = self.answered.read_text().split()
        missing = set(answered) - {one["name"] for one in self.lines() if one["event"] == "call"}
        assert not missing, f"{missing} were answered and are not recorded"
        assert report.unfinished_count <= 1

    def lines(self) -> list[dict[str, Any]]:
        found = [line for path in journal(self.folder) for line in path.read_bytes().splitlines(keepends=True)]
        return [json.loads(line) for line in found if line.endswith(b"\n")]


@pytest.mark.parametrize("half", [False, True], ids=["before", "half"])
@pytest.mark.parametrize("machine", [False, True], ids=["killed", "the machine fails"])
@pytest.mark.parametrize("why", ["full", "another day"])
def test_a_turn_that_is_broken_off_at_any_step_loses_no_answer(
    tmp_path: Path, why: str, machine: bool, half: bool
) -> None:
    it = Machine(tmp_path)

    def work() -> None:
        it.remember()
        it.serve(*NAMES, why=why)

    for step in range(1 + 2 * half + machine, MOST_STEPS, STRIDE):
        it.again()
        if not killed_at(step, work, half=half):
            break
        if machine:
            it.fail()
        it.look()
        assert not killed_at(MOST_STEPS, lambda: it.serve("next", why=why)), "nobody is in the way of the next one"
        it.look()
        opened = [one for one in it.lines() if one["event"] == "open"]
        assert "held" not in opened[-1], f"step {step}: a crash was taken for a cut"
    else:
        raise AssertionError("it never ends")
    assert step > 40, "it has done something"
    assert it.answered.read_text().split() == list(NAMES) and len(journal(it.folder)) >= len(NAMES)
    it.look()
