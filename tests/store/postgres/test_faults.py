"""The server is killed, stopped, started again: nothing is written twice or half, and who asks next is connected."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.errors import StoreError
from narthex.flow.limit.keys import Subject
from narthex.flow.limit.spending import Spent, Use
from narthex.store.exports import ExportBook
from narthex.store.ledger import HOUR, Ledger, read_costs, read_uses
from narthex.store.port import ApiKey, SealedSecret
from narthex.store.postgres.connection import PostgresConnection
from narthex.store.postgres.database import Postgres
from narthex.telemetry.audit.exports.tail import Place
from narthex.types import Principal
from tests.counterparts.postgres import Cluster
from tests.store.opened import at

KEY = ApiKey("aaaa", "ci", b"\x01" * 32, 100)
ADA = Subject(Principal("acme", "https://idp", "ada", "bot"), "default", "git", "log")
NOW = 1_800_000_000_000_000
PATIENCE_S = 60.0


@pytest.fixture
def running(cluster: Cluster) -> Cluster:
    cluster.start()
    Postgres(cluster.spec).migrate()
    return cluster


@pytest.mark.parametrize("end", [Cluster.kill, Cluster.stop], ids=["killed", "stopped"])
def test_a_server_that_comes_back_is_used_again(running: Cluster, end: Callable[[Cluster], None]) -> None:
    async def main() -> None:
        async with at(running.spec) as store:
            await store.add_key(KEY)
            before = await store.version()
            end(running)
            for _ in range(2):
                with pytest.raises(StoreError, match="store") as refused:
                    await store.version()
                assert "see whether it runs" in refused.value.problem
                with pytest.raises(StoreError):
                    await store.revoke_keys(["aaaa"], at=1)
            running.start()
            assert await store.keys() == [KEY], "at once"
            assert await store.version() != before, "it may be another one: everything is read again"
            await store.revoke_keys(["aaaa"], at=5)
            assert await store.keys() == [replace(KEY, revoked_at=5)]

    asyncio.run(main())


def test_a_restart_between_two_questions_is_not_noticed(running: Cluster) -> None:
    async def main() -> None:
        async with at(running.spec) as store:
            await store.add_key(KEY)
            running.kill()
            running.start()
            await store.put_secret(SealedSecret("one", b"x", 1))
            assert await store.keys() == [KEY]

    asyncio.run(main())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_server_that_goes_away_while_it_commits_is_asked_whether_it_has(
    running: Cluster, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    kept, fired = PostgresConnection.script, threading.Event()

    def script(self: PostgresConnection, statements: str) -> list[Any]:
        if statements != "COMMIT" or fired.is_set():
            return kept(self, statements)
        fired.set()
        if moment == "after":
            kept(self, statements)
        running.kill()
        running.start()
        return kept(self, statements)

    monkeypatch.setattr(PostgresConnection, "script", script)

    async def main() -> None:
        async with at(running.spec) as store:
            store._database._doubt_s = PATIENCE_S  # type: ignore[attr-defined]  # this machine may be busy
            if moment == "after":
                await store.add_key(KEY)
                assert await store.keys() == [KEY]
            else:
                with pytest.raises(StoreError):
                    await store.add_key(KEY)
                assert await store.keys() == []

    asyncio.run(main())
    assert fired.is_set()


def test_who_cannot_hear_whether_it_was_written_says_so(running: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = PostgresConnection.script

    def script(self: PostgresConnection, statements: str) -> list[Any]:
        if statements == "COMMIT":
            running.kill()
        return kept(self, statements)

    monkeypatch.setattr(PostgresConnection, "script", script)
    database = Postgres(running.spec, doubt_s=0.3)
    connection = database.open()
    with (
        pytest.raises(StoreError) as refused,
        database.explained(),
        database.transaction(connection),
    ):
        connection.execute("UPDATE changes SET counted = counted + 1")
    assert "look whether it was" in refused.value.problem
    connection.close()


def test_the_ledger_counts_once_whatever_kills_the_server(running: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("narthex.store.ledger.RETRY_S", 0.01)
    monkeypatch.setattr("narthex.store.ledger.FLUSH_S", 0.001)
    ledger, added, stopping = Ledger(running.spec), [0], threading.Event()

    def spend() -> None:
        while not stopping.is_set():
            use = Use(b"counter", b"key", 1, NOW, NOW + HOUR, 3)
            ledger.add(Spent(NOW, ADA, "USD", 3, (use,)))
            added[0] += 1
            if added[0] % 50 == 0:
                time.sleep(0.001)

    spender = threading.Thread(target=spend)
    spender.start()
    try:
        for _ in range(5):
            assert ledger.flush(PATIENCE_S)
            running.kill()
            running.start()
    finally:
        stopping.set()
        spender.join()
    assert ledger.flush(PATIENCE_S)
    ledger.close()
    (cost,) = read_costs(running.spec, 0, NOW // HOUR + 1)
    (use,) = read_uses(running.spec, NOW)
    assert (cost.calls, cost.amount, use.amount) == (added[0], 3 * added[0], 3 * added[0])


def test_a_ledger_waits_for_a_server_that_is_away(running: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("narthex.store.ledger.RETRY_S", 0.01)
    ledger = Ledger(running.spec)
    running.stop()
    ledger.add(Spent(NOW, ADA, "USD", 3))
    end = time.monotonic() + PATIENCE_S
    while not ledger.problem and time.monotonic() < end:
        time.sleep(0.005)
    assert "see whether it runs" in ledger.problem
    running.start()
    assert ledger.flush(PATIENCE_S) and not ledger.problem
    ledger.close()
    assert [one.amount for one in read_costs(running.spec, 0, NOW // HOUR + 1)] == [3]


def test_places_of_exports_outlive_the_server(running: Cluster) -> None:
    book = ExportBook(running.spec, "siem", "j1")
    book.write({"c": Place(1, 2)})
    running.kill()
    with pytest.raises(StoreError):
        book.read()
    running.start()
    assert book.read() == {"c": Place(1, 2)}
    book.close()


def test_a_loop_goes_on_while_the_server_does_not_answer(running: Cluster) -> None:
    """A lock that another one holds: the store waits on its thread, the loop does not."""

    async def main() -> None:
        other = Postgres(running.spec).connect()
        other.script("BEGIN; LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        async with at(running.spec, busy_s=0.1) as store:
            with pytest.raises(StoreError) as refused:
                await store.add_key(KEY)
            assert "keeps it locked" in refused.value.problem
        async with at(running.spec, busy_s=25) as store:
            asked = asyncio.ensure_future(store.add_key(KEY))
            for _ in range(1000):
                await asyncio.sleep(0)
                assert not asked.done()
            other.script("ROLLBACK")
            await asked
        other.close()

    asyncio.run(main())
