"""Segments: a chain over several files, that a failing disk does not tear."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from narthex.telemetry.audit import segments as module
from narthex.telemetry.audit.segments import SIGN_RECORDS, Segments, predecessor
from tests.telemetry.audit.writing import AT, SIGNER, journal, look, points, record, segments, whats, write


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_chain_opens_and_closes_in_private_files(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (path,) = journal(tmp_path)
    assert path.name == "calls-20231114T221320000-0.jsonl"
    assert [one["event"] for one in read(path)] == ["open", "call", "call", "call", "close"]
    assert [one["seq"] for one in read(path)] == [1, 2, 3, 4, 5]
    assert read(path)[0]["chain"] == f"{SIGNER.id}/0/b1" and "previous" not in read(path)[0]
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in (path, *points(tmp_path)))
    report = look(tmp_path)
    assert not report.faults and report.records == 5 and report.chains[0].signed == 5


def test_a_chain_opens_with_the_head_of_the_one_before_it(tmp_path: Path) -> None:
    first = write(tmp_path, 3)
    write(tmp_path, 1, boot="b2", at=AT + 1)
    opening = read(journal(tmp_path)[1])[0]
    assert opening["previous"] == {"chain": first.chain.name, "seq": 5, "hash": first.chain.head.hex()}
    assert not look(tmp_path).faults


def test_a_line_that_a_crash_cut_off_is_told_by_the_next_chain(tmp_path: Path) -> None:
    first = write(tmp_path, 3, close=False)
    with journal(tmp_path)[0].open("ab") as file:
        file.write(record(3)[:20])
    write(tmp_path, 1, boot="b2", at=AT + 1)
    opening = read(journal(tmp_path)[1])[0]
    assert (opening["torn"], opening["previous"]["seq"]) == (20, first.chain.seq)
    report = look(tmp_path)
    assert not report.faults and "cut off its last line (20 bytes)" in report.notes[0]


def test_a_file_without_a_whole_first_line_is_no_predecessor(tmp_path: Path) -> None:
    first = write(tmp_path, 1)
    (tmp_path / "calls-20231115T000000000-0.jsonl").write_bytes(b'{"v":1')
    found = predecessor(tmp_path, 0)[0]
    assert found is not None and found.chain == first.chain.name


def test_a_full_segment_and_a_new_day_go_on_in_another_file(tmp_path: Path) -> None:
    one = write(tmp_path, 40, most_bytes=2000, close=False)
    one.turn(AT + 86_400)
    one.add(record(41))
    one.close(AT + 86_400)
    paths = journal(tmp_path)
    assert len(paths) > 3 and paths[-1].name.startswith("calls-20231115T")
    assert [read(path)[0]["event"] for path in paths] == ["open"] + ["segment"] * (len(paths) - 1)
    report = look(tmp_path)
    assert not report.faults and [one.last for one in report.chains] == [one.chain.seq]


def test_a_segment_that_was_moved_away_is_missed(tmp_path: Path) -> None:
    def move(one: Segments, number: int) -> None:
        if number == 4:
            journal(tmp_path)[0].rename(tmp_path / "moved")

    write(tmp_path, 8, step=move)
    assert whats(look(tmp_path)) == ["missing"]
    (tmp_path / "moved").rename(tmp_path / "calls-moved.jsonl")
    assert not look(tmp_path).faults, "whatever it is called"


def test_two_gateways_that_overlap_write_two_chains(tmp_path: Path) -> None:
    first, second = segments(tmp_path, "b1"), segments(tmp_path, "b2")
    first.open(AT)
    second.open(AT)
    for number in range(3):
        first.add(record(number))
        second.add(record(number))
        first.flush()
        second.flush()
    second.close(AT)
    first.close(AT)
    report = look(tmp_path)
    assert not report.faults and len(report.chains) == 2


def test_no_more_than_so_many_records_stay_unsigned(tmp_path: Path) -> None:
    one = segments(tmp_path)
    one.open(AT)
    for number in range(SIGN_RECORDS - 2):
        one.add(record(number))
    assert not one.is_due(AT + 0.9) and one.is_due(AT + 1.0)
    assert one.is_due(AT - 5), "the clock went back"
    one.add(record(0))
    assert one.is_due(AT) and one.unsigned == SIGN_RECORDS
    one.commit(AT)
    assert not one.unsigned and not one.is_due(AT + 60), "nothing to sign"
    one.close(AT)


class Disk:
    """Takes so many bytes, then it is full; `broken`: what was written does not get to the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room, self.broken = 1 << 30, False
        self._write = os.pwrite
        monkeypatch.setattr(module.os, "pwrite", self.write)

    def write(self, file: int, data: bytes, offset: int) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        piece = data[: self.room]
        self.room -= len(piece)
        return self._write(file, piece, offset)

    def sync(self, file: int) -> None:
        if self.broken:
            os.ftruncate(file, 0)  # the worst that a disk may do: nothing of it is there any more
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_line_that_a_full_disk_took_half_of_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    one = segments(tmp_path, sync=disk.sync)
    one.open(AT)
    disk.room = 30
    one.add(record(0))
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            one.commit(AT)
    disk.room = 1 << 30
    one.add(record(1))
    one.close(AT)
    assert not look(tmp_path).faults and [each["event"] for each in read(journal(tmp_path)[0])][1:3] == ["call", "call"]


def test_what_a_failed_sync_may_have_lost_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    one = segments(tmp_path, sync=disk.sync)
    one.open(AT)
    one.add(record(0))
    disk.broken = True
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            one.commit(AT)
    assert not points(tmp_path)[0].read_bytes(), "nothing is signed that is not there"
    disk.broken = False
    one.close(AT)
    assert not look(tmp_path).faults and look(tmp_path).records == 3


def test_half_a_checkpoint_is_not_left_between_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk takes a part of a line, and says so by a number only."""
    disk = Disk(monkeypatch)
    one = segments(tmp_path, sync=disk.sync)
    one.open(AT)
    for number in range(3):
        one.add(record(number))
        one.flush()
        disk.room = 100
        with pytest.raises(OSError, match="No space"):
            one.commit(AT)
        disk.room = 1 << 30
        one.commit(AT)
    one.close(AT)
    report = look(tmp_path)
    assert not report.faults and not report.notes and report.chains[0].signed == 5
    assert len(points(tmp_path)[0].read_bytes().splitlines()) == 4


def test_a_checkpoint_is_on_the_disk_as_soon_as_it_is_due(tmp_path: Path) -> None:
    """What a machine that fails may lose of signatures is no more than `verify` puts down to it."""
    synced: dict[str, bytes] = {}

    def sync(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        synced[path.name] = path.read_bytes()

    def fails(one: Segments, number: int) -> None:
        one.commit(AT + number / 900)  # as for a durable call: each is signed at once
        if number in (0, 898, 901, 1_250):
            copy = tmp_path / "copies" / str(number)
            copy.mkdir(parents=True)
            for name, data in synced.items():
                (copy / name).write_bytes(data)
            assert not look(copy).faults
            assert look(copy).records - look(copy).chains[0].signed < SIGN_RECORDS

    write(tmp_path / "audit", 1_300, sync=sync, step=fails)
    assert {path.name: path.read_bytes() for path in (tmp_path / "audit").glob("c*")} == synced


def test_a_signature_whose_sync_failed_is_written_again(tmp_path: Path) -> None:
    broken: list[str] = []

    def sync(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        if path.name.startswith("checkpoints-") and broken:
            path.write_bytes(path.read_bytes()[:-50] + bytes(20))  # anything may be there
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    one = segments(tmp_path, sync=sync)
    one.open(AT)
    one.add(record(0))
    one.commit(AT + 2)
    for number in range(3):
        one.add(record(1))
        one.commit(AT + 2)
        broken.append("")
        with pytest.raises(OSError, match="Input/output"):
            one.commit(AT + 4 + number * 2)
        broken.clear()
    one.close(AT + 20)
    report = look(tmp_path)
    assert not report.faults and not report.notes and report.chains[0].signed == 6


def test_the_public_key_outlives_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)
    (key,) = tmp_path.glob("*.pub")
    pem = key.read_bytes()
    assert pem == SIGNER.pem()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "fsync", full)
    for there in (pem, b"what a crash has left"):
        key.write_bytes(there)
        with pytest.raises(OSError, match="No space"):
            segments(tmp_path, "b2").open(AT)
        assert key.read_bytes() == there
    assert not list(tmp_path.glob(".*"))
    monkeypatch.undo()
    write(tmp_path, 1, boot="b2")
    assert key.read_bytes() == pem


def test_a_folder_that_cannot_be_synced_leaves_no_open_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write(tmp_path, 3, close=False)
    there, count = sorted(tmp_path.iterdir()), len(os.listdir("/proc/self/fd"))

    def broken(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(module, "sync_folder", broken)
        for _ in range(5):
            with pytest.raises(OSError, match="Input/output"):
                one.turn(AT + 86_400)
    assert len(os.listdir("/proc/self/fd")) == count
    assert [path for path in sorted(tmp_path.iterdir()) if path not in there and path.name.startswith("calls-")] == []
    one.turn(AT + 86_400)
    one.close(AT + 86_400)
    assert not look(tmp_path).faults
