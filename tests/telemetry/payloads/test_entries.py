"""Payloads and records of one journal: a record never names what is not there, and never waits for what is too much."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.telemetry import journal as module
from narthex.telemetry.journal import Journal
from narthex.telemetry.payloads.reading import Reader, files_in
from narthex.telemetry.payloads.rules import KeptParts
from narthex.telemetry.payloads.writing import Payloads
from narthex.telemetry.record import Entry
from tests.e2e.harness import wait_for
from tests.telemetry.audit.writing import AT, SIGNER, look
from tests.telemetry.audit.writing import journal as paths
from tests.telemetry.test_record import ENTRY

BOTH = KeptParts("full", "redacted", "confidential")


def entry(number: int = 0, keep: KeptParts | None = BOTH, **more: Any) -> Entry:
    answer = (b'{"n":', b"%d" % number, b',"password":"x"}')
    return replace(ENTRY, keep=keep, arguments=b'{"n":%d}' % number, answer=answer, **more)


def make(folder: Path, **options: Any) -> Journal:
    journal = Journal(folder, SIGNER, now=lambda: AT, **options)
    journal.payloads = Payloads(folder, **({"sync": options["sync"]} if "sync" in options else {}))
    return journal


def records(folder: Path) -> list[dict[str, Any]]:
    assert not look(folder).faults
    found = [json.loads(line) for path in paths(folder) for line in path.read_bytes().splitlines()]
    return [one for one in found if one["event"] in ("call", "begin")]


def said(folder: Path) -> list[dict[str, str]]:
    return [{one.part: one.state for one in Reader(folder).of(record)} for record in records(folder)]


def test_a_record_names_its_payloads(tmp_path: Path) -> None:
    journal = make(tmp_path)
    for number in range(300):
        journal.add(entry(number))
    journal.close()
    found = records(tmp_path)
    assert said(tmp_path) == [{"arguments": "here", "result": "here"}] * 300
    assert [json.loads(Reader(tmp_path).of(one)[1].body)["n"] for one in found] == list(range(300))
    assert found[0]["payload"]["result"]["redacted"] == ["name"]
    assert {path.name[:21] for path in files_in(tmp_path)} == {"payloads-confidential"}


def test_an_error_is_kept_as_one(tmp_path: Path) -> None:
    journal = make(tmp_path)
    journal.add(entry(is_error=True))
    journal.close()
    assert list(said(tmp_path)[0]) == ["arguments", "error"]


def test_the_task_is_a_payload_of_its_own(tmp_path: Path) -> None:
    keep, task = KeptParts("none", "none", "internal", "redacted"), b'"mail ada@example.com, password: hunter22"'
    journal = make(tmp_path)
    begin = entry(event="begin", keep=keep, task=task)
    journal.add(begin)
    end = entry(keep=keep)
    end.begun = begin
    journal.add(end)
    journal.add(entry(keep=KeptParts("full", "none", "internal"), task=task))
    journal.close()
    assert said(tmp_path) == [{"task": "here"}, {"task": "here"}, {"arguments": "here"}]
    for record in records(tmp_path)[:2]:
        (kept,) = Reader(tmp_path).of(record)
        assert json.loads(kept.body) == "mail [redacted: emails], password: [redacted: secrets]"
    assert not any(b"ada@" in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


def test_what_is_not_asked_for_is_not_kept(tmp_path: Path) -> None:
    journal = make(tmp_path)
    journal.add(entry(keep=None))
    journal.add(entry(keep=KeptParts("none", "full", "public")))
    journal.close()
    assert said(tmp_path) == [{}, {"result": "here"}]


def test_the_end_of_a_call_names_what_its_beginning_has(tmp_path: Path) -> None:
    journal = make(tmp_path)
    begin = entry(event="begin")
    begin.answer = ()
    journal.add(begin)
    end = entry()
    end.begun, end.arguments = begin, None
    journal.add(end)
    journal.close()
    assert said(tmp_path) == [{"arguments": "here"}, {"arguments": "here", "result": "here"}]
    first, second = records(tmp_path)
    assert second["payload"]["arguments"]["record"] == first["id"]
    assert look(tmp_path).payloads.here == 2, "what two records name is counted once"
    for path in files_in(tmp_path):
        path.unlink()
    assert look(tmp_path).payloads.elsewhere == 2, "the same of what is not there"


def test_no_record_is_on_the_disk_before_its_payloads(tmp_path: Path) -> None:
    synced: list[str] = []
    journal = make(
        tmp_path,
        sync=lambda file: synced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name[:5]),
        on_loop=lambda tell, waiting, problem: tell(waiting, problem),
    )
    told = threading.Event()
    journal.add(entry(done=lambda problem: told.set()))
    assert told.wait(60)
    assert synced[-2:] == ["paylo", "calls"]
    journal.close()


def test_while_a_disk_takes_no_payloads_it_takes_no_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, is_full = os.pwrite, threading.Event()

    def full(file: int, data: bytes, at: int) -> int:
        if is_full.is_set() and "payloads-" in os.readlink(f"/proc/self/fd/{file}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data, at)

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    journal = make(tmp_path, on_loop=lambda tell, waiting, problem: tell(waiting, problem))
    is_full.set()
    problems: list[str] = []
    journal.add(entry(1, done=problems.append))
    wait_for(lambda: problems, "the word that it cannot be recorded")
    assert "No space left" in problems[0] and "No space left" in journal.problem and records(tmp_path) == []
    is_full.clear()
    wait_for(lambda: not journal.problem, "the disk")
    journal.close()
    assert said(tmp_path) == [{"arguments": "here", "result": "here"}]


def test_where_no_file_can_be_made_the_same_record_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fails = os.open, threading.Event()

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if fails.is_set() and "payloads-" in str(path):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    journal = make(tmp_path)
    fails.set()
    for number in range(3):
        journal.add(entry(number))
    wait_for(lambda: "Read-only" in journal.problem, "the problem")
    fails.clear()
    journal.close()
    assert said(tmp_path) == [{"arguments": "here", "result": "here"}] * 3 and journal.lost == 0


def test_one_that_cannot_be_kept_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = make(tmp_path)
    assert journal.payloads is not None
    monkeypatch.setattr(journal.payloads.redactor, "applied", lambda body, part: 1 / 0)
    journal.add(entry())
    journal.close()
    assert said(tmp_path) == [{"arguments": "here", "result": "none"}]
    assert records(tmp_path)[0]["payload"]["result"]["reason"] == "failed"


def test_what_waits_for_a_slow_disk_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, begun = threading.Event(), threading.Event()

    def slow(file: int) -> None:
        begun.set()
        assert go.wait(60)

    monkeypatch.setattr(module, "MOST_KEPT", 5000)
    journal = make(tmp_path, sync=slow)
    journal.add(entry(done=lambda problem: None))
    assert begun.wait(60)
    for number in range(10):
        journal.add(entry(number, bytes_in=1000, bytes_out=1000))
    go.set()
    journal.close()
    states = said(tmp_path)
    assert states[0] == {"arguments": "here", "result": "here"} and states[-1] == {
        "arguments": "none",
        "result": "none",
    }
    assert records(tmp_path)[-1]["payload"]["result"] == {"kept": "none", "reason": "no_room"}
    assert journal.without_input == sum(one["result"] == "none" for one in states)
