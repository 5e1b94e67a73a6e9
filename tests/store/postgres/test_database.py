"""Tables are made by `narthex migrate` alone, once, whole; an older and a newer form are refused in words."""

from __future__ import annotations

import builtins
import multiprocessing
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.errors import StoreError
from narthex.store.database import database_of
from narthex.store.opening import migrate_store
from narthex.store.postgres.database import Postgres
from narthex.store.postgres.migrations import MIGRATIONS
from narthex.stores import PostgresSpec
from tests.counterparts.postgres import Databases


@dataclass
class Step:
    """A migration of a later version."""

    UP: tuple[str, ...]


LATER = (*MIGRATIONS, Step(("ALTER TABLE api_keys ADD COLUMN note TEXT NOT NULL DEFAULT ''",)))
NOW = len(MIGRATIONS)


def problem(spec: PostgresSpec, **options: Any) -> str:
    with pytest.raises(StoreError) as refused:
        Postgres(spec).open(**options).close()
    assert spec.name in refused.value.problem and spec.name not in refused.value.public
    return refused.value.problem


def test_a_new_database_is_refused_until_it_was_migrated(databases: Databases) -> None:
    spec = databases.empty()
    assert "has no tables of Narthex yet; run `narthex migrate`" in problem(spec)
    assert migrate_store(spec) == (spec.name, 0, NOW)
    assert migrate_store(spec) == (spec.name, NOW, NOW)
    Postgres(spec).open().close()


def test_an_older_form_is_refused_until_it_was_migrated(databases: Databases) -> None:
    spec = databases.new()
    assert f"an older Narthex made its tables (form {NOW} of {NOW + 1}); run `narthex migrate`" in problem(
        spec, migrations=LATER
    )
    assert Postgres(spec).migrate(LATER) == (NOW, NOW + 1)
    connection = Postgres(spec).open(LATER)
    assert connection.execute("SELECT note FROM api_keys").fetchall() == []
    connection.close()


def test_a_newer_form_is_left_alone(databases: Databases) -> None:
    spec = databases.new()
    Postgres(spec).migrate(LATER)
    assert f"a newer Narthex has changed its tables (form {NOW + 1}, this one knows {NOW})" in problem(spec)
    with pytest.raises(StoreError, match="store") as refused:
        Postgres(spec).migrate()
    assert "a newer Narthex" in refused.value.problem


def test_a_migration_that_fails_changes_nothing(databases: Databases) -> None:
    spec = databases.new()
    broken = (*MIGRATIONS, Step(("CREATE TABLE more (x BIGINT)", "no SQL at all")))
    with pytest.raises(StoreError) as refused:
        Postgres(spec).migrate(broken)
    assert "syntax error" in refused.value.problem
    connection = Postgres(spec).open()
    assert connection.execute("SELECT to_regclass('more')").fetchone() == [None]
    connection.close()


def test_who_may_not_make_tables_is_told_so(databases: Databases) -> None:
    spec = databases.empty()
    admin = Postgres(spec).connect()
    role = spec.schema  # a name that nobody else has
    admin.script(f"CREATE ROLE {role} LOGIN")
    admin.close()
    with pytest.raises(StoreError) as refused:
        Postgres(replace(spec, user=role)).migrate()
    assert f"'{role}' may not do that there; GRANT it" in refused.value.problem


def test_who_reads_and_writes_needs_no_more_than_that(databases: Databases) -> None:
    """One role makes the tables, the gateway has another: as the guide says."""
    spec = databases.new()
    role, admin = f"r{spec.schema}", Postgres(spec).connect()
    admin.script(
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {spec.schema} TO {role};"
        f" GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {spec.schema} TO {role};"
        f" GRANT USAGE ON ALL SEQUENCES IN SCHEMA {spec.schema} TO {role}"
    )
    admin.close()
    database = Postgres(replace(spec, user=role))
    connection = database.open()
    with database.explained(), database.transaction(connection):
        connection.execute("UPDATE changes SET counted = counted + 1")
    with pytest.raises(StoreError) as refused, database.explained():
        connection.script("DROP TABLE changes")
    assert "may not do that" in refused.value.problem or "must be owner" in refused.value.problem
    connection.close()


def test_another_encoding_is_refused(databases: Databases) -> None:
    spec = databases.empty()
    admin = Postgres(spec).connect()
    admin.script(f"CREATE DATABASE {spec.schema} TEMPLATE template0 ENCODING 'SQL_ASCII'")
    admin.close()
    with pytest.raises(StoreError) as refused:
        Postgres(replace(spec, database=spec.schema)).migrate()
    assert "is encoded in SQL_ASCII; make one with createdb --encoding=UTF8" in refused.value.problem


def _migrate(spec: PostgresSpec, barrier: Any, done: Any) -> None:
    barrier.wait()
    done.put(Postgres(spec).migrate())


def test_of_two_that_migrate_at_once_one_does(databases: Databases) -> None:
    spec, context, count = databases.empty(), multiprocessing.get_context("spawn"), 3
    barrier, done = context.Barrier(count), context.Queue()
    processes = [context.Process(target=_migrate, args=(spec, barrier, done)) for _ in range(count)]
    for one in processes:
        one.start()
    assert sorted(done.get(timeout=120) for _ in processes) == [(0, NOW), (NOW, NOW), (NOW, NOW)]
    for one in processes:
        one.join(60)


def test_without_its_driver_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "pg8000":
            raise ImportError(name)
        return kept(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StoreError) as refused:
        database_of(PostgresSpec("db"))
    assert "pip install 'narthex[postgres]'" in refused.value.problem
