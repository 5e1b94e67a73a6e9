"""Each record gets there at least once, in order, whatever becomes of the sink and of whoever sends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex.errors import StoreError
from narthex.telemetry.audit.exports import pump as module
from narthex.telemetry.audit.exports.pump import Pump
from narthex.telemetry.audit.exports.sink import SinkError, SinkSpec
from narthex.telemetry.audit.exports.syslog import SyslogSink
from narthex.telemetry.audit.exports.tail import Places, Tail
from narthex.telemetry.audit.matching import Record
from tests.e2e.harness import wait_for
from tests.telemetry.audit.exports.receivers import SyslogServer, closing, make_certificate
from tests.telemetry.audit.writing import write

COUNT = 40


class Kept:
    """Where it is kept how far it is; says no when it is told to."""

    def __init__(self) -> None:
        self.places: Places = {}
        self.fails = 0

    def read(self) -> Places:
        return dict(self.places)

    def write(self, places: Places) -> None:
        if self.fails:
            self.fails -= 1
            raise StoreError("the disk is full")
        self.places = dict(places)


class Faulty:
    """A sink with a plan: each word is what becomes of the next thing it is asked."""

    def __init__(self, plan: list[str], *, answers: bool) -> None:
        self.plan, self.answers = plan, answers
        self.unsure: list[int] = []
        self.has: list[int] = []

    def send(self, records: Sequence[Record]) -> int:
        numbers = [int(one["n"]) for one in records]
        word = self.plan.pop(0) if self.plan else "ok"
        if word == "away":
            raise SinkError("it is away")
        if word == "half":
            self.unsure += numbers[: len(numbers) // 2]
            raise SinkError("reset")
        self.unsure += numbers
        if word == "silent":  # it has them, and the word for it is lost
            self.has += self.unsure
            self.unsure = []
            raise SinkError("it does not answer")
        return 0

    def confirm(self) -> None:
        word = self.plan.pop(0) if self.plan else "ok"
        if word != "ok":
            raise SinkError("reset")
        self.has += self.unsure
        self.unsure = []

    def close(self) -> None:
        self.unsure = []  # what nobody has confirmed may be lost


class Stop(threading.Event):
    """Set once all is there; waits for nothing."""

    def __init__(self, done: Callable[[], bool]) -> None:
        super().__init__()
        self._done, self.left = done, 500

    def wait(self, timeout: float | None = None) -> bool:
        self.left -= 1
        if self._done() or self.left < 0:
            self.set()
        return self.is_set()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pump") / "audit"
    write(folder, COUNT, most_bytes=1500)
    return folder


@settings(max_examples=150)
@given(
    plan=st.lists(st.sampled_from(["ok", "ok", "away", "half", "silent", "reset"]), max_size=30),
    answers=st.booleans(), batch=st.integers(1, 9), confirm=st.integers(1, 12), disk=st.integers(0, 3),
    kills=st.lists(st.integers(1, 12), max_size=3),
)  # fmt: skip
def test_each_record_at_least_once_and_in_order(
    folder: Path, plan: list[str], answers: bool, batch: int, confirm: int, disk: int, kills: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH", batch)
        patch.setattr(module, "CONFIRM_RECORDS", confirm)
        kept, sink, clock = Kept(), Faulty(plan, answers=answers), iter(range(0, 10**9, 1))
        kept.fails = disk
        for steps in [*kills, 0]:
            stop = Stop(lambda: len(set(sink.has)) == COUNT)
            stop.left = steps or 500
            sink.close()  # of the process before, with what it had not been told
            Pump("s", Tail(folder, {}), sink, kept, stop=stop, now=lambda: float(next(clock))).run()
        firsts = list(dict.fromkeys(sink.has))
        assert firsts == list(range(COUNT)), "all, and the first time in order"


def test_what_is_wrong_is_said_until_it_is_mended(folder: Path) -> None:
    sink, said = Faulty(["away", "away"], answers=True), []
    stop = Stop(lambda: said.append(pump.state.problem) or len(sink.has) == COUNT)  # type: ignore[func-returns-value]
    pump = Pump("s", Tail(folder, {}), sink, Kept(), stop=stop)
    pump.run()
    assert said[:2] == ["it is away", "it is away"] and said[-1] == ""
    assert (pump.state.sent, pump.state.refused, pump.state.until) == (COUNT, 0, "2023-11-14T22:13:20Z")


def test_a_receiver_that_goes_away_and_comes_back(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real TLS: a connection that is reset after some kilobytes, a receiver that is away, and one that is slow."""
    monkeypatch.setattr(module, "FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(module, "CONFIRM_S", 0.05)
    monkeypatch.setattr(module, "BATCH", 7)
    cert = make_certificate(tmp_path, "siem")
    first = SyslogServer(cert, reading=lambda size: size < 1_500)
    spec = SinkSpec("siem", f"syslog+tls://127.0.0.1:{first.port}", ca=cert[0])
    stop, kept = threading.Event(), Kept()
    pump = Pump("siem", Tail(folder, {}), SyslogSink(spec, timeout_s=10), kept, stop=stop)
    thread = threading.Thread(target=pump.run, daemon=True)
    thread.start()
    wait_for(lambda: first.connections > 2)
    first.close()
    wait_for(lambda: "refused" in pump.state.problem)
    assert not kept.places, "nothing was confirmed"
    second = SyslogServer(cert, port=first.port)
    with closing(second):
        wait_for(lambda: pump.state.sent >= COUNT and not pump.state.problem)
        assert _numbers(second.messages) == list(range(COUNT))
        stop.set()
        thread.join(60)


def _numbers(messages: list[bytes]) -> list[int]:
    found: list[dict[str, Any]] = [json.loads(one[one.index(b"{") :]) for one in messages]
    return list(dict.fromkeys(int(one["n"]) for one in found))
