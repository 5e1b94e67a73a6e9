"""The process beside the journal: it answers, keeps up by itself, sends, and comes back when it was killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from narthex.telemetry.audit import keeper as module
from narthex.telemetry.audit.exports.sink import SinkSpec
from narthex.telemetry.audit.frames import Answer, Question, Task
from narthex.telemetry.audit.index.place import IndexTables
from narthex.telemetry.audit.keeper import Away, Keeper
from narthex.telemetry.audit.matching import Wanted
from tests.counterparts.postgres import Databases
from tests.telemetry.audit.exports.receivers import SyslogServer, closing, make_certificate
from tests.telemetry.audit.writing import write

EVERYTHING = Question(Wanted(), limit=500)
PATIENCE_S = 300.0
"""A process takes its time to come up on a machine that does much else; one that is given up begins anew."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_PAUSE_S", "LOOK_S"):
        monkeypatch.setattr(module, name, 0.05)
    monkeypatch.setattr(module, "ANSWER_S", PATIENCE_S)


def task(tmp_path: Path, *sinks: SinkSpec, index: bool = True) -> Task:
    index_ = str(tmp_path / "index.db") if index else ""
    return Task(str(tmp_path / "audit"), str(tmp_path / "narthex.db"), index_, sinks)


async def answered(keeper: Keeper, fits: Callable[[Answer], bool], question: Question = EVERYTHING) -> Answer:
    """The first answer that is so."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                answer = await keeper.ask(question)
                if fits(answer):
                    return answer
            except Away:
                pass
            await asyncio.sleep(0.02)


def run(given: Callable[[], Task], work: Callable[[Keeper], Awaitable[None]]) -> None:
    async def main() -> None:
        keeper = Keeper(given, start_s=0.0)
        keeper.start()
        try:
            await work(keeper)
        finally:
            await keeper.close()

    asyncio.run(main())


def test_it_answers_and_follows(tmp_path: Path) -> None:
    write(tmp_path / "audit", 5)

    async def work(keeper: Keeper) -> None:
        found = await answered(keeper, lambda answer: len(answer.records) == 5)
        assert [one["n"] for one in found.records] == [4, 3, 2, 1, 0]
        page = await keeper.ask(Question(Wanted(), limit=2))
        rest = await keeper.ask(Question(Wanted(), page.next, 2))
        assert [one["n"] for one in page.records + rest.records] == [4, 3, 2, 1]
        wrong = await keeper.ask(Question(Wanted(tenant="x"), page.next))
        assert wrong.refused and "another question" in wrong.error
        write(tmp_path / "audit", 2, boot="b2")
        assert len((await keeper.ask(EVERYTHING)).records) == 7, "what was written before the question is in the answer"

    run(lambda: task(tmp_path), work)


def test_it_is_the_last_of_our_session_and_not_the_first_of_its_own(tmp_path: Path) -> None:
    """What is nice in a session of its own has as much of a busy core as we have: the kernel shares among sessions."""
    write(tmp_path / "audit", 1)

    async def work(keeper: Keeper) -> None:
        await answered(keeper, lambda answer: True)
        assert keeper._process is not None
        pid = keeper._process.pid
        assert os.getsid(pid) == os.getsid(0) and os.getpgid(pid) == pid
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19

    run(lambda: task(tmp_path), work)


def test_in_postgresql_two_gateways_follow_their_own_journals(tmp_path: Path, databases: Databases) -> None:
    spec = databases.new()

    write(tmp_path / "k1", 3)
    write(tmp_path / "k2", 4)

    def of(name: str) -> Task:
        return Task(str(tmp_path / name), spec, IndexTables(spec, name), (), name)

    async def work(keeper: Keeper) -> None:
        async def theirs(other: Keeper) -> None:
            for one, count in ((keeper, 3), (other, 4)):
                found = await answered(one, lambda answer, count=count: len(answer.records) == count)  # type: ignore[misc]
                assert not found.problem and not found.error
            page = await keeper.ask(Question(Wanted(), limit=2))
            rest = await keeper.ask(Question(Wanted(), page.next, 2))
            assert [one["n"] for one in page.records + rest.records] == [2, 1, 0]

        other = Keeper(lambda: of("k2"), start_s=0.0)
        other.start()
        try:
            await theirs(other)
        finally:
            await other.close()

    run(lambda: of("k1"), work)


def test_one_that_was_killed_comes_back_and_has_lost_nothing(tmp_path: Path) -> None:
    async def work(keeper: Keeper) -> None:
        for turn in range(4):
            write(tmp_path / "audit", 50, boot=f"b{turn}")
            await answered(keeper, lambda answer, count=50 * (turn + 1): len(answer.records) == count)  # type: ignore[misc]
            assert keeper._process is not None
            os.kill(keeper._process.pid, signal.SIGKILL)

    run(lambda: task(tmp_path), work)


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    process = []

    async def work(keeper: Keeper) -> None:
        await answered(keeper, lambda answer: True)
        process.append(keeper._process)

    run(lambda: task(tmp_path), work)
    assert process[0].wait(PATIENCE_S) == 0


def test_who_gives_up_waiting_spoils_no_answer(tmp_path: Path) -> None:
    write(tmp_path / "audit", 5)

    async def work(keeper: Keeper) -> None:
        await answered(keeper, lambda answer: len(answer.records) == 5)
        first = keeper._process
        for _ in range(20):
            asking = asyncio.ensure_future(keeper.ask(EVERYTHING))
            await asyncio.sleep(0)
            asking.cancel()
        assert [one["n"] for one in (await keeper.ask(Question(Wanted(), limit=1))).records] == [4]
        assert keeper._process is first

    run(lambda: task(tmp_path), work)


def test_without_an_index_it_does_not_search(tmp_path: Path) -> None:
    async def work(keeper: Keeper) -> None:
        found = await answered(keeper, lambda answer: True)
        assert found.error and not found.refused and not (tmp_path / "index.db").exists()

    run(lambda: task(tmp_path, index=False), work)


def test_records_are_sent_and_a_new_secret_is_taken_up(tmp_path: Path) -> None:
    write(tmp_path / "audit", 30)
    cert, other = make_certificate(tmp_path, "siem"), make_certificate(tmp_path, "other")
    server = SyslogServer(cert)
    trusted = [other[0]]

    def given() -> Task:
        return task(tmp_path, SinkSpec("siem", f"syslog+tls://127.0.0.1:{server.port}", ca=trusted[0]))

    async def work(keeper: Keeper) -> None:
        await answered(keeper, lambda answer: any("not trusted" in one.problem for one in answer.exports), Question())
        trusted[0] = cert[0]
        await answered(keeper, lambda answer: any(one.sent == 30 for one in answer.exports), Question())
        assert keeper.exports[0].problem == ""

    with closing(server):
        run(given, work)
        assert [json.loads(one[one.index(b"{") :])["n"] for one in server.messages] == list(range(30))
        write(tmp_path / "audit", 3, boot="b2")

        async def goes_on(keeper: Keeper) -> None:
            await answered(keeper, lambda answer: any(one.sent == 3 for one in answer.exports), Question())

        run(given, goes_on)
        assert len(server.messages) == 33, "where the process before has stopped"


def test_a_receiver_that_takes_nothing_holds_up_itself_alone(tmp_path: Path) -> None:
    write(tmp_path / "audit", 3_000)
    cert, go = make_certificate(tmp_path, "siem"), threading.Event()
    stuck, well = SyslogServer(cert, reading=lambda size: go.wait(PATIENCE_S)), SyslogServer(cert)
    sinks = [
        SinkSpec(name, f"syslog+tls://127.0.0.1:{server.port}", ca=cert[0])
        for name, server in (("stuck", stuck), ("well", well))
    ]

    async def work(keeper: Keeper) -> None:
        found = await answered(keeper, lambda answer: any(one.sent == 3_000 for one in answer.exports))
        assert {one.name: one.sent for one in found.exports} == {"stuck": 0, "well": 3_000}
        assert len(found.records) == 500, "and it searches meanwhile"
        go.set()
        await answered(keeper, lambda answer: all(one.sent == 3_000 for one in answer.exports), Question())

    with closing(stuck, well):
        run(lambda: task(tmp_path, *sinks), work)
        for server in (stuck, well):  # at least once: who has taken nothing for long is told again
            numbers = [json.loads(one[one.index(b"{") :])["n"] for one in server.messages]
            assert list(dict.fromkeys(numbers)) == list(range(3_000))
