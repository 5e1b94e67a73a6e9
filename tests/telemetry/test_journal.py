"""Records in files: whole lines in order, nobody waits for the disk, and nothing is lost without being said."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.errors import ConfigError
from narthex.telemetry import journal as module
from narthex.telemetry.journal import Journal
from narthex.testing import FakeClock
from tests.e2e.harness import wait_for
from tests.telemetry.test_record import ENTRY

AT = 1_700_000_000.0  # 2023-11-14, 22:13:20 UTC
DAY = "calls-20231114.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines() if line]


@pytest.fixture
def make(tmp_path: Path) -> Any:
    made: list[Journal] = []

    def start(**options: Any) -> Journal:
        made.append(Journal(tmp_path / "audit", now=options.pop("now", lambda: AT), **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


def add(journal: Journal, *names: str) -> None:
    for name in names:
        journal.add(replace(ENTRY, name=name))


def test_records_stand_in_order_in_a_private_file(make: Callable[..., Journal], tmp_path: Path) -> None:
    journal = make()
    add(journal, *(f"call-{number}" for number in range(5000)))
    journal.close()
    journal.close()
    path = tmp_path / "audit" / DAY
    found = lines(path)
    assert [one["name"] for one in found] == [f"call-{number}" for number in range(5000)]
    ids = [one["id"] for one in found]
    assert ids == sorted(set(ids))
    assert found[0]["time"] == "2023-11-14T22:13:20.000000Z", "when it was accounted for"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert (journal.written, journal.lost, journal.problem) == (5000, 0, "")


def test_a_new_gateway_goes_on_in_the_same_file(make: Callable[..., Journal], tmp_path: Path) -> None:
    for name in ("first", "second"):
        journal = make()
        add(journal, name)
        journal.close()
    assert [one["name"] for one in lines(tmp_path / "audit" / DAY)] == ["first", "second"]


def test_a_line_that_a_crash_cut_off_is_closed(make: Callable[..., Journal], tmp_path: Path) -> None:
    path = tmp_path / "audit" / DAY
    path.parent.mkdir()
    path.write_text('{"v":1,"id":"0189')
    journal = make()
    add(journal, "next")
    journal.close()
    cut, whole = path.read_text().splitlines()
    assert cut == '{"v":1,"id":"0189' and json.loads(whole)["name"] == "next"


def test_a_day_has_a_file_of_its_own(make: Callable[..., Journal], tmp_path: Path) -> None:
    clock = FakeClock(AT)
    journal = make(now=clock)
    add(journal, "today")
    wait_for(lambda: journal.written == 1 and not journal._entries, "the first record")
    clock.advance(86_400)
    add(journal, "tomorrow")
    journal.close()
    assert [[one["name"] for one in lines(path)] for path in sorted((tmp_path / "audit").iterdir())] == [
        ["today"], ["tomorrow"],
    ]  # fmt: skip


def test_a_file_that_was_moved_away_is_made_anew(make: Callable[..., Journal], tmp_path: Path) -> None:
    journal, path = make(), tmp_path / "audit" / DAY
    add(journal, "one")
    wait_for(lambda: path.stat().st_size > 0, "the first record")
    path.rename(tmp_path / "rotated")
    add(journal, "two")
    journal.close()
    assert [one["name"] for one in (*lines(tmp_path / "rotated"), *lines(path))] == ["one", "two"]


class Disk:
    """Stands between the journal and `os.write`: full or gone when a test says so, and writing in pieces."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error = 0
        self.most = 1 << 30
        self.refused = threading.Event()
        self._write = os.write
        monkeypatch.setattr(module.os, "write", self.write)
        monkeypatch.setattr(module, "RETRY_S", 0.01)

    def write(self, file: int, data: bytes) -> int:
        if self.error and self.most <= 0:
            self.refused.set()
            raise OSError(self.error, os.strerror(self.error))
        if self.error:
            piece = data[: self.most]
            self.most -= len(piece)
            return self._write(file, piece)
        return self._write(file, data)


def test_a_full_disk_is_said_counted_and_gone_on_with(
    make: Callable[..., Journal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    with caplog.at_level(logging.INFO, "narthex.journal"):
        journal = make(capacity=4)
        disk.error, disk.most = errno.ENOSPC, 100  # in the middle of a line
        add(journal, "a")
        assert disk.refused.wait(10)
        wait_for(lambda: bool(journal.problem), "the problem")
        assert "No space left" in journal.problem
        add(journal, *"bcdefgh")
        assert journal.lost == 3, "four wait, the rest is counted"
        disk.error = 0
        wait_for(lambda: not journal.problem, "the disk is back")
        add(journal, "i")
        journal.close()
    found = lines(tmp_path / "audit" / DAY)
    assert [one.get("name", one.get("count")) for one in found] == ["a", 3, "b", "c", "d", "e", "i"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "cannot be written" in said[0] and "3 were lost" in said[1]


def test_closing_does_not_wait_for_a_disk_that_is_full(
    make: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    journal = make()
    disk.error, disk.most = errno.EIO, 0
    add(journal, "a")
    journal.close()
    assert not journal._thread.is_alive()
    disk.error = 0


def test_a_record_that_cannot_be_written_costs_no_other(make: Callable[..., Journal], tmp_path: Path) -> None:
    journal = make()
    add(journal, "a", "\ud800", "b")
    journal.close()
    found = lines(tmp_path / "audit" / DAY)
    assert sorted(str(one.get("name", one.get("count"))) for one in found) == ["1", "a", "b"]


@pytest.mark.parametrize("what", ["a file", "under a file"])
def test_a_folder_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path, what: str) -> None:
    path = tmp_path / "audit"
    path.write_text("a file")
    with pytest.raises(ConfigError) as refused:
        Journal(path if what == "a file" else path / "below")
    assert "audit.dir" in refused.value.problems[0]
