"""PgBouncer in front of PostgreSQL: in session mode all goes as without it, in transaction mode it is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from narthex.errors import StoreError
from narthex.store.port import ApiKey
from narthex.store.postgres import connection, database
from narthex.store.postgres.connection import PostgresConnection
from narthex.store.postgres.database import Postgres
from narthex.telemetry.audit.index.find import Finder
from narthex.telemetry.audit.index.follow import Follower
from narthex.telemetry.audit.index.place import IndexTables
from narthex.telemetry.audit.matching import Wanted
from narthex.telemetry.stamps import stamp
from tests.conftest import missing
from tests.counterparts import pgbouncer
from tests.counterparts.postgres import Cluster
from tests.store.opened import at
from tests.telemetry.audit.writing import AT, segments

KEY = ApiKey("aaaa", "ci", b"\x01" * 32, 100)


@pytest.fixture
def running(cluster: Cluster) -> Cluster:
    if pgbouncer.program() is None:
        missing("PgBouncer", pgbouncer.NEEDED)
    cluster.start()
    Postgres(cluster.spec).migrate()
    return cluster


def test_in_session_mode_all_goes_as_without_it(running: Cluster, tmp_path: Path) -> None:
    """Two gateways at once: what each has set for its connection is its own, and what one writes the other reads."""

    async def main() -> None:
        async with at(spec) as one, at(spec) as other:
            await one.add_key(KEY)
            assert await other.keys() == [KEY]

    with pgbouncer.pooling(running.spec, "session", 20) as spec:
        asyncio.run(main())
        followers = []
        for name in ("k1", "k2"):
            chain = segments(tmp_path / name)
            chain.open(AT)
            chain.add(json.dumps({"id": name, "event": "call", "time": stamp(AT)}).encode())
            chain.close(AT)
            followers.append(Follower(tmp_path / name, IndexTables(spec, name)))
        for _ in range(2):
            for follower, name in zip(followers, ("k1", "k2"), strict=True):
                follower.catch_up()
                found = Finder(follower.folder, IndexTables(spec, name), follower.connection).page(Wanted())
                assert [one["id"] for one in found.records] == [name]
        for follower in followers:
            follower.close()


def test_a_pool_that_is_used_up_is_no_sign_of_sharing(running: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PROBE_S", 0.3)
    with pgbouncer.pooling(running.spec, "session", 1) as spec:
        one = Postgres(spec).open()
        assert one.pooled
        one.close()


@pytest.mark.parametrize("size", [1, 20])
def test_in_transaction_mode_it_is_refused(running: Cluster, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PROBE_S", 60.0)  # however busy the machine is
    monkeypatch.setattr(connection, "CONNECT_S", 60.0)
    monkeypatch.setattr(connection, "SIGN_IN_S", 60.0)
    with pgbouncer.pooling(running.spec, "transaction", size) as spec:
        for what in (Postgres(spec).open, Postgres(spec).migrate):
            with pytest.raises(StoreError) as refused:
                what()
            assert "pool_mode = session" in refused.value.problem


def test_without_one_nothing_is_tried(running: Cluster) -> None:
    one = PostgresConnection(running.spec)
    assert not one.pooled and one.backend
    one.close()
