"""The second place of checkpoints: nobody waits for it, and the latest always gets there."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from narthex.telemetry.audit import elsewhere as module
from narthex.telemetry.audit.elsewhere import Elsewhere
from tests.e2e.harness import wait_for


def test_the_latest_gets_there_before_the_end(tmp_path: Path) -> None:
    one = Elsewhere(tmp_path / "there")
    for number in range(100):
        one.put("checkpoints-1.jsonl", b"%d\n" % number)
    one.put("checkpoints-2.jsonl", b"a\n")
    one.close()
    assert (tmp_path / "there" / "checkpoints-1.jsonl").read_bytes().endswith(b"99\n")
    assert (tmp_path / "there" / "checkpoints-2.jsonl").read_bytes() == b"a\n"


def test_a_slow_place_gets_what_is_newest_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, begun, sync = threading.Event(), threading.Event(), os.fsync

    def slow(file: int) -> None:
        begun.set()
        assert go.wait(60)
        sync(file)

    monkeypatch.setattr(module.os, "fsync", slow)
    one = Elsewhere(tmp_path)
    one.put("c", b"1\n")
    assert begun.wait(60)
    for number in range(2, 9):
        one.put("c", b"%d\n" % number)
    go.set()
    one.close()
    assert (tmp_path / "c").read_bytes() == b"1\n8\n"


def test_a_place_that_is_gone_is_said_and_caught_up_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    (tmp_path / "there").write_text("a file")
    one = Elsewhere(tmp_path / "there")
    one.put("c", b"1\n")
    wait_for(lambda: bool(one.problem), "the problem")
    one.put("c", b"2\n")
    (tmp_path / "there").unlink()
    wait_for(lambda: not one.problem, "the place is back")
    one.close()
    assert (tmp_path / "there" / "c").read_bytes().endswith(b"2\n")
