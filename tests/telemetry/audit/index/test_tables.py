"""Journals that share a PostgreSQL do not mix, each is looked up by an index, a server that was away is caught up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from narthex.errors import StoreError
from narthex.store.postgres.database import Postgres
from narthex.store.postgres.migrations import MIGRATIONS
from narthex.telemetry.audit.index.find import Finder
from narthex.telemetry.audit.index.follow import Follower
from narthex.telemetry.audit.index.place import IndexTables, place_of
from narthex.telemetry.audit.matching import Wanted
from narthex.telemetry.audit.segments import Segments
from narthex.telemetry.stamps import stamp
from tests.counterparts.postgres import Cluster, Databases
from tests.telemetry.audit.writing import AT, segments


def record(number: int, **more: Any) -> bytes:
    return json.dumps({"id": f"r{number}", "event": "call", "time": stamp(AT + number), **more}).encode()


def journal(folder: Path, count: int, **more: Any) -> Segments:
    one = segments(folder)
    one.open(AT)
    for number in range(count):
        one.add(record(number, **more))
    one.flush()
    return one


def who(follower: Follower, where: IndexTables, **wanted: Any) -> list[Any]:
    finder = Finder(follower.folder, where, follower.connection)
    return [one["principal"]["subject"] for one in finder.each(Wanted(**wanted))]


def test_journals_do_not_mix(databases: Databases, tmp_path: Path) -> None:
    """Of the same moments, with the same names, followed by turns; the same folder under another signer is another."""
    spec = databases.new()
    places = {name: IndexTables(spec, name) for name in ("k1", "k2")}
    followers = {}
    for name, place in places.items():
        journal(tmp_path / name, 5, principal={"subject": name}, tool="log", run="same")
        followers[name] = Follower(tmp_path / name, place)
    assert [one.catch_up() for one in followers.values()] == [5, 5]
    for name, follower in followers.items():
        assert who(follower, places[name]) == [name] * 5 == who(follower, places[name], run="same")
        other = "k2" if name == "k1" else "k1"
        assert who(follower, places[name], principal=other) == []
        assert Finder(tmp_path / name, places[name], follower.connection).count(Wanted()) == 5
        assert Finder(tmp_path / name, places[name], follower.connection).grouped(Wanted(), "subject")[0].count == 5
    for path in (tmp_path / "k1").glob("*.jsonl"):
        path.unlink()
    followers["k1"].catch_up()
    assert who(followers["k1"], places["k1"]) == [] and who(followers["k2"], places["k2"]) == ["k2"] * 5
    moved = Follower(tmp_path / "k2", IndexTables(spec, "k3"))
    assert moved.catch_up() == 5 and followers["k2"].catch_up() == 0
    for one in (*followers.values(), moved):
        one.close()


def test_whoever_writes_the_database_reads_no_file_of_ours_by_it(databases: Databases, tmp_path: Path) -> None:
    """It says where records stand: in segments of the journal, and nowhere else."""
    place, folder = IndexTables(databases.new(), "k1"), tmp_path / "k1"
    journal(folder, 1, principal={"subject": "ada"})
    secret = tmp_path / "secret.json"
    secret.write_bytes(line := record(1, principal={"subject": "SECRET"}))
    (folder / "calls-x").mkdir()
    follower = Follower(folder, place)
    follower.catch_up()
    for name in (str(secret), "../secret.json", "calls-x/../../secret.json"):
        values = (name, 0, len(line))
        follower.connection.execute("UPDATE segments SET name = ?", values[:1])
        follower.connection.execute("UPDATE records SET start = ?, size = ?", values[1:])
        page = Finder(folder, place, follower.connection).page(Wanted())
        assert page.records == [] and page.unread == 1
    follower.close()


def test_a_journal_can_be_forgotten(databases: Databases, tmp_path: Path) -> None:
    spec = databases.new()
    for name in ("k1", "k2"):
        journal(tmp_path / name, 3, principal={"subject": name}, run="u")
        follower = Follower(tmp_path / name, IndexTables(spec, name))
        follower.catch_up()
        follower.close()
    admin = Postgres(spec).open()
    names = [name for (name,) in admin.execute("SELECT name FROM journals ORDER BY name")]
    admin.execute("SELECT forget_journal(?)", (names[0],))
    left = {
        table: admin.execute(f"SELECT count(*) FROM index_{table} WHERE journal <> 0").fetchone()[0]
        for table in ("about", "texts", "segments", "records", "marks")
    }
    assert left == {"about": 1, "texts": 1, "segments": 1, "records": 3, "marks": 6}
    assert [name for (name,) in admin.execute("SELECT name FROM journals")] == names[1:]
    admin.close()


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({"principal": "rare"}, "index_by_subject"),
        ({"run": "u7"}, "index_marks_pkey"),
        ({"decision": "deny"}, "index_by_decision"),
        ({"definition": "sha256:rare"}, "index_by_definition"),
        ({}, "index_records_pkey"),
    ],
)
def test_it_is_looked_up_and_not_sorted(
    databases: Databases, tmp_path: Path, wanted: dict[str, Any], index: str
) -> None:
    where = IndexTables(databases.new(), "k1")
    connection = place_of(where).open(tmp_path)
    connection.execute(
        "INSERT INTO texts (id, kind, text) VALUES (2000, 'subject', 'rare'), (2001, 'decision', 'deny'),"
        " (2002, 'definition', 'sha256:rare')"
    )
    connection.execute(
        "INSERT INTO records (at, segment, start, size, definition, subject, decision, event, tenant, outcome)"
        " SELECT n, 1, 0, 1, CASE WHEN n % 1000 = 2 THEN 2002 ELSE 3002 END,"
        " CASE WHEN n % 1000 = 0 THEN 2000 ELSE 3000 END,"
        " CASE WHEN n % 1000 = 1 THEN 2001 ELSE 1 END, 3, 5, 2 FROM generate_series(1, 20000) AS n"
    )
    connection.execute("INSERT INTO marks SELECT n, n FROM generate_series(1, 20000) AS n")
    connection.execute("ANALYZE index_records, index_marks")
    plan = Finder(tmp_path, where, connection).explain(Wanted(**wanted))
    assert any(index in line for line in plan) and not any("Seq Scan" in line for line in plan), plan
    assert not any("Sort" in line for line in plan), plan
    connection.close()


def test_an_index_of_an_older_form_is_made_anew(databases: Databases, tmp_path: Path) -> None:
    """What was noted without definitions would not be found by them."""
    spec, digest = databases.empty(), "sha256:" + "ab" * 32
    Postgres(spec).migrate(MIGRATIONS[:2])
    journal(tmp_path / "audit", 3, principal={"subject": "ada"}, definition_digest=digest)
    old = Postgres(spec).open(MIGRATIONS[:2])
    old.execute("INSERT INTO journals (name, folder, seen_at) VALUES ('k', '/', 0)")
    for table in (
        "records (journal, at, segment, start, size) VALUES (1, 7, 1, 0, 1)",
        "segments (journal, chain, first, name, stamp, size, seq) VALUES (1, 'c', 1, 'calls-0', '', 1, 1)",
    ):
        old.execute(f"INSERT INTO index_{table}")
    old.close()
    Postgres(spec).migrate()
    where = IndexTables(spec, "k1")
    follower = Follower(tmp_path / "audit", where)
    assert follower.catch_up() == 3 and who(follower, where, definition=digest) == ["ada"] * 3
    (left,) = follower.connection.execute("SELECT count(*) FROM index_records").fetchone()
    assert left == 3
    follower.close()


def test_names_that_are_longer_than_an_entry_of_an_index(databases: Databases, tmp_path: Path) -> None:
    long = "".join(chr(0x4E00 + number % 5000) for number in range(20_000))
    where = IndexTables(databases.new(), "k1")
    journal(tmp_path / "audit", 3, principal={"subject": long})
    for _ in range(2):
        follower = Follower(tmp_path / "audit", where)
        follower.catch_up()
        assert who(follower, where, principal=long) == [long] * 3
        follower.close()


def test_a_server_that_was_away_is_caught_up(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start()
    Postgres(cluster.spec).migrate()
    where = IndexTables(cluster.spec, "k1")
    one = journal(tmp_path / "audit", 3, principal={"subject": "ada"})
    follower = Follower(tmp_path / "audit", where)
    assert follower.catch_up() == 3 and follower.usable
    cluster.kill()
    one.add(record(9, principal={"subject": "bob"}))
    one.flush()
    with pytest.raises(StoreError) as refused:
        follower.catch_up()
    assert "see whether it runs" in refused.value.problem and not follower.usable
    with pytest.raises(StoreError):
        Follower(tmp_path / "audit", where)
    cluster.start()
    again = Follower(tmp_path / "audit", where)
    assert again.catch_up() == 1 and who(again, where) == ["bob", "ada", "ada", "ada"]
    again.close()
    follower.close()
