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
from narthex.telemetry.audit.heads import Heads, heads_in, write_place
from narthex.telemetry.frames import Frame, Short
from narthex.telemetry.journal import Journal
from narthex.telemetry.payloads.using import meanwhile
from narthex.testing import FakeClock
from narthex.types import EndpointSpec
from tests.e2e.harness import wait_for
from tests.flow.gateway import snapshot
from tests.telemetry.audit.writing import AT, SIGNER, look
from tests.telemetry.audit.writing import journal as paths
from tests.telemetry.test_record import ENTRY

DIGEST = "sha256:" + "ab" * 32


def lines(folder: Path) -> list[dict[str, Any]]:
    """All records but those of the journal's own, in their order; what was written is whole."""
    assert not look(folder).faults
    found = [json.loads(line) for path in paths(folder) for line in path.read_bytes().splitlines()]
    return [one for one in found if one["event"] not in ("open", "segment", "close")]


@pytest.fixture
def make(tmp_path: Path) -> Any:
    made: list[Journal] = []

    def start(**options: Any) -> Journal:
        made.append(Journal(tmp_path / "audit", SIGNER, now=options.pop("now", lambda: AT), **options))
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
    found = lines(tmp_path / "audit")
    assert [one["name"] for one in found] == [f"call-{number}" for number in range(5000)]
    ids = [one["id"] for one in found]
    assert ids == sorted(set(ids))
    assert found[0]["time"] == "2023-11-14T22:13:20.000000Z", "when it was accounted for"
    (path,) = paths(tmp_path / "audit")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert (journal.written, journal.lost, journal.problem) == (5000, 0, "")


def test_a_new_gateway_goes_on_behind_the_one_before_it(make: Callable[..., Journal], tmp_path: Path) -> None:
    for name in ("first", "second"):
        journal = make()
        add(journal, name)
        journal.close()
    assert [one["name"] for one in lines(tmp_path / "audit")] == ["first", "second"]
    assert len(look(tmp_path / "audit").chains) == 2


def test_a_day_has_a_segment_of_its_own(make: Callable[..., Journal], tmp_path: Path) -> None:
    clock = FakeClock(AT)
    journal = make(now=clock)
    add(journal, "today")
    wait_for(lambda: journal.written == 1 and not journal._entries, "the first record")
    clock.advance(86_400)
    add(journal, "tomorrow")
    journal.close()
    assert [path.name[:14] for path in paths(tmp_path / "audit")] == ["calls-20231114", "calls-20231115"]
    assert [one["name"] for one in lines(tmp_path / "audit")] == ["today", "tomorrow"]


def test_a_file_that_was_moved_away_is_made_anew(make: Callable[..., Journal], tmp_path: Path) -> None:
    journal, folder = make(), tmp_path / "audit"
    add(journal, "one")
    (path,) = paths(folder)
    wait_for(lambda: b'"name":"one"' in path.read_bytes(), "the first record")
    path.rename(tmp_path / "rotated")
    add(journal, "two")
    journal.close()
    assert [one.what for one in look(folder).faults] == ["missing"]
    (tmp_path / "rotated").rename(path.with_name("calls-0.jsonl"))
    assert [one["name"] for one in lines(folder)] == ["one", "two"]


def test_what_was_written_is_signed_when_the_second_is_over(make: Callable[..., Journal], tmp_path: Path) -> None:
    clock = FakeClock(AT)
    journal = make(now=clock)
    add(journal, "one")
    wait_for(lambda: journal.written == 1, "the record")
    clock.advance(1)
    wait_for(lambda: look(tmp_path / "audit").chains[0].signed == 2, "the checkpoint, without another record")


def test_who_waits_is_told_when_the_record_is_on_the_disk(make: Callable[..., Journal], tmp_path: Path) -> None:
    events: list[str] = []
    journal = make(
        sync=lambda file: events.append("synced"),
        on_loop=lambda tell, waiting, problem: tell(waiting, problem),
    )
    entry = replace(ENTRY, name="one", done=lambda problem: events.append(f"told{problem}"))
    journal.add(entry)
    wait_for(lambda: "told" in events, "the word")
    assert events[-2:] == ["synced", "told"] and entry.seq == 2
    journal.close()
    assert lines(tmp_path / "audit")[0]["seq"] == 2


def test_those_who_wait_while_the_disk_is_busy_share_the_next_sync(make: Callable[..., Journal]) -> None:
    go, begun, syncs, told = threading.Event(), threading.Event(), [0], [0]

    def slow(file: int) -> None:
        syncs[0] += 1
        begun.set()
        assert go.wait(60)

    def tell(problem: str) -> None:
        told[0] += 1

    journal = make(sync=slow, on_loop=lambda run, waiting, problem: run(waiting, problem))
    journal.add(replace(ENTRY, done=tell))
    assert begun.wait(60)
    for _ in range(200):
        journal.add(replace(ENTRY, done=tell))
    go.set()
    wait_for(lambda: told[0] == 201, "all are told")
    assert syncs[0] == 2


def test_those_who_wait_in_one_turn_of_the_loop_wake_the_thread_once_at_its_end(make: Callable[..., Journal]) -> None:
    ends: list[Callable[[], None]] = []
    told: list[str] = []
    journal = make(at_end=ends.append, on_loop=lambda run, waiting, problem: run(waiting, problem))
    for turn in (1, 2):
        for _ in range(3):
            journal.add(replace(ENTRY, done=told.append))
        assert len(ends) == turn
        ends[-1]()
        wait_for(lambda turn=turn: len(told) == 3 * turn, "all are told")
    assert not any(told)


class Disk:
    """Stands between the journal and `os.write`: full or gone when a test says so, and writing in pieces."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error = 0
        self.most = 1 << 30
        self.refused = threading.Event()
        self._write = os.pwrite
        monkeypatch.setattr(module.os, "pwrite", self.write)
        monkeypatch.setattr(module, "RETRY_S", 0.01)

    def write(self, file: int, data: bytes, offset: int) -> int:
        if self.error and self.most <= 0:
            self.refused.set()
            raise OSError(self.error, os.strerror(self.error))
        if self.error:
            piece = data[: self.most]
            self.most -= len(piece)
            return self._write(file, piece, offset)
        return self._write(file, data, offset)


@pytest.mark.parametrize(
    ("refusing", "said"),
    [
        pytest.param("ab", "calls that wait for the disk are refused, all others once 4 records wait", id="block"),
        pytest.param("", "calls go on, and records are lost once 4 wait", id="degrade"),
        pytest.param(
            "b",
            "calls at b that wait for the disk are refused, all others once 4 records wait;"
            " calls at a go on, and records are lost once 4 wait",
            id="each endpoint as it says",
        ),
    ],
)
def test_the_log_says_what_becomes_of_calls(
    make: Callable[..., Journal],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refusing: str,
    said: str,
) -> None:
    disk = Disk(monkeypatch)
    endpoints = {name: EndpointSpec(name, (), blocks=name in refusing) for name in "ab"}
    journal = make(capacity=4, meanwhile=meanwhile(snapshot({}, endpoints)))
    disk.error, disk.most = errno.ENOSPC, 0
    add(journal, "a")
    wait_for(lambda: bool(journal.problem), "the problem")
    wait_for(lambda: bool(caplog.records), "the word of it")
    assert f"cannot be written; {said}: " in caplog.records[0].getMessage()
    disk.error = 0


def test_a_full_disk_is_said_counted_and_gone_on_with(
    make: Callable[..., Journal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    with caplog.at_level(logging.INFO, "narthex.journal"):
        journal = make(capacity=4)
        disk.error, disk.most = errno.ENOSPC, 100  # in the middle of a line
        add(journal, "a")
        assert disk.refused.wait(60)
        wait_for(lambda: bool(journal.problem), "the problem")
        assert "No space left" in journal.problem
        add(journal, *"bcdefgh")
        assert journal.lost == 3, "four wait, the rest is counted"
        disk.error = 0
        wait_for(lambda: not journal.problem, "the disk is back")
        add(journal, "i")
        journal.close()
    found = lines(tmp_path / "audit")
    assert [one.get("name", one.get("count")) for one in found] == ["a", 3, "b", "c", "d", "e", "i"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "cannot be written" in said[0] and "3 were lost" in said[1]


def test_who_waits_is_told_why_the_record_is_not_on_the_disk(
    make: Callable[..., Journal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, told = Disk(monkeypatch), []
    journal = make(capacity=2, on_loop=lambda tell, waiting, problem: tell(waiting, problem))
    disk.error, disk.most = errno.ENOSPC, 0
    journal.add(replace(ENTRY, name="a", done=told.append))
    wait_for(lambda: bool(told), "the word")
    assert "No space left" in told[0]
    add(journal, *"bc")
    assert journal.is_full
    journal.add(replace(ENTRY, name="d", done=told.append))
    assert told[1] == module.FULL
    disk.error = 0
    wait_for(lambda: not journal.problem, "the disk is back")
    journal.close()
    assert [one["event"] for one in lines(tmp_path / "audit")] == ["call", "lost", "call", "call"]
    assert len(told) == 2, "once each"


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
    found = lines(tmp_path / "audit")
    assert sorted(str(one.get("name", one.get("count"))) for one in found) == ["1", "a", "b"]


@pytest.mark.parametrize("what", ["a file", "under a file"])
def test_a_folder_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path, what: str) -> None:
    path = tmp_path / "audit"
    path.write_text("a file")
    with pytest.raises(ConfigError) as refused:
        Journal(path if what == "a file" else path / "below", SIGNER)
    assert "audit.dir" in refused.value.problems[0]


def test_an_answer_waits_for_the_head_beside_the_store_and_a_beginning_does_not(
    make: Callable[..., Journal], tmp_path: Path
) -> None:
    events: list[str] = []
    broken = [False]

    def put(file: int, data: bytes, at: int, through: bool) -> None:
        if broken[0] and data[:1] != b"\0":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        events.append("head" if through else "later")
        write_place(file, data, at, through)

    (tmp_path / "audit").mkdir()
    heads = Heads(tmp_path, tmp_path / "audit", write=put)
    events.clear()
    journal = make(
        heads=heads,
        sync=lambda file: events.append("synced"),
        on_loop=lambda tell, waiting, problem: tell(waiting, problem),
    )
    journal.add(replace(ENTRY, event="begin", done=lambda problem: events.append(f"told{problem}")))
    wait_for(lambda: "told" in events, "the word of the first")
    assert events[-2:] == ["synced", "told"]
    events.clear()
    journal.add(replace(ENTRY, done=lambda problem: events.append(f"told{problem}")))
    wait_for(lambda: "told" in events, "the word of the second")
    assert events == ["synced", "head", "told"]
    broken[0] = True
    journal.add(replace(ENTRY, done=lambda problem: events.append(problem)))
    wait_for(lambda: "Input/output" in events[-1], "the word that it cannot be kept")
    assert ".heads" in journal.problem
    broken[0] = False
    wait_for(lambda: not journal.problem, "that it can again")
    journal.close()
    assert not look(tmp_path / "audit", heads=heads_in(tmp_path, tmp_path / "audit")).faults
    assert heads_in(tmp_path, tmp_path / "audit") and len(lines(tmp_path / "audit")) == 3


def test_who_waits_for_a_record_in_a_frame_is_told_as_others_are(
    make: Callable[..., Journal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, events, told = Disk(monkeypatch), [], []
    (tmp_path / "audit").mkdir()

    def put(file: int, data: bytes, at: int, through: bool) -> None:
        events.append("head" if through else "later")
        write_place(file, data, at, through)

    heads = Heads(tmp_path, tmp_path / "audit", write=put)
    events.clear()
    journal = make(heads=heads, capacity=2, on_loop=lambda tell, waiting, problem: tell(waiting, problem))
    frames = {event: framed(event, journal) for event in ("begin", "call")}

    def short(event: str, begun: Short | None = None) -> Short:
        return Short(
            frames[event], b"7", 1, 2, 0.3, 0.2, 0.05, 0.01, DIGEST, DIGEST if event == "call" else "",
            begins=event == "begin", begun=begun, disk_seconds=0.01, done=told.append,
        )  # fmt: skip

    begun = short("begin")
    journal.add_short(begun)
    wait_for(lambda: told == [""], "the word of the first")
    assert begun.seq == 2 and "head" not in events
    journal.add_short(short("call", begun))
    wait_for(lambda: told == ["", ""], "the word of the second")
    assert events[-1] == "head"
    disk.error, disk.most = errno.ENOSPC, 0
    journal.add_short(short("begin"))
    wait_for(lambda: len(told) == 3, "the word that it cannot be")
    assert "No space left" in told[2]
    add(journal, *"bc")
    assert journal.is_full
    journal.add_short(short("begin"))
    assert told[3] == module.FULL
    disk.error = 0
    wait_for(lambda: not journal.problem, "the disk is back")
    journal.close()
    assert len(told) == 4, "once each"
    found = lines(tmp_path / "audit")
    assert [one["event"] for one in found] == ["begin", "call", "begin", "lost", "call", "call"]
    assert found[1]["begin"] == 2


def test_who_waits_for_one_that_does_not_fit_its_frame_is_told_and_it_costs_no_other(
    make: Callable[..., Journal], tmp_path: Path
) -> None:
    told: list[str] = []
    journal = make(on_loop=lambda tell, waiting, problem: tell(waiting, problem))
    frame = framed("call", journal)
    for arguments in (DIGEST, "", DIGEST):
        begun = Short(framed("begin", journal), b"7", 1, 0, 0.0, 0.0, 0.0, 0.0, DIGEST, "", begins=True)
        journal.add_short(begun)
        short = Short(
            frame, b"7", 1, 2, 0.3, 0.2, 0.05, 0.01, arguments, DIGEST, begun=begun, disk_seconds=0.01, done=told.append
        )
        journal.add_short(short)
    wait_for(lambda: sorted(told) == ["", "", module.UNWRITABLE], "word of all three")
    journal.close()
    found = lines(tmp_path / "audit")
    assert sorted(one["event"] for one in found) == ["begin", "begin", "begin", "call", "call", "lost"]
    assert (journal.written, journal.lost) == (5, 1)


def framed(event: str, journal: Journal) -> Frame:
    """The frame of a record that a call begins, or of one that says how it went."""
    entry = replace(
        ENTRY, arguments_digest=DIGEST, result_digest=DIGEST, server_seconds=0.2, admission_seconds=0.05,
        answer_seconds=0.01, begun=ENTRY, waits={"disk": 0.01},
    )  # fmt: skip
    if event == "begin":
        entry = replace(ENTRY, event="begin", arguments_digest=DIGEST, bytes_out=0, seconds=0.0)
    for _ in range(2):
        journal.frames.learn((event,), (), entry, AT)
    frame = journal.frames.find((event,))
    assert frame is not None
    return frame


def test_a_disk_that_hangs_is_said_and_that_it_goes_on(
    make: Callable[..., Journal], caplog: pytest.LogCaptureFixture
) -> None:
    hangs, goes_on, clock = threading.Event(), threading.Event(), FakeClock(100.0)

    def sync(_: int) -> None:
        hangs.set()
        goes_on.wait(60)

    journal = make(sync=sync, clock=clock, meanwhile="calls are refused")
    journal.look(5.0)
    journal.add(replace(ENTRY, done=lambda problem: None))
    assert hangs.wait(60)
    clock.advance(4.0)
    journal.look(5.0)
    assert not journal.silence
    clock.advance(2.0)
    for _ in range(3):
        journal.look(5.0)
    assert "the disk takes too long" in journal.silence and not journal.problem
    assert [one.message for one in caplog.records] == [
        f"records of calls cannot be written; calls are refused: {journal.silence}"
    ]
    goes_on.set()
    wait_for(lambda: journal.look(5.0) or not journal.silence, "the end of it")
    assert "again" in caplog.records[-1].message
