"""The file of the store: private, migrated after a copy, and refused in words where it cannot be used."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from narthex.errors import StoreError
from narthex.store.file import backups_of, open_file
from narthex.store.migrations import MIGRATIONS
from narthex.store.port import ApiKey, SealedSecret
from narthex.store.sqlite import SqliteStore

KEY = ApiKey("aaaa", "ci", b"\x01" * 32, 100)


@dataclass
class Step:
    """A migration of a later version."""

    UP: tuple[str, ...]


LATER = (*MIGRATIONS, Step(("ALTER TABLE api_keys ADD COLUMN note TEXT NOT NULL DEFAULT ''",)))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def problem(path: Path, **options: Any) -> str:
    with pytest.raises(StoreError) as refused:
        open_file(path, **options).close()
    assert str(path) in refused.value.problem
    assert str(path) not in refused.value.public, "a client learns no path"
    return refused.value.problem


def with_store(path: Path, case: Callable[[SqliteStore], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        store = await SqliteStore.open(path, **options)
        try:
            await case(store)
        finally:
            await store.close()

    asyncio.run(main())


def test_what_it_makes_is_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "narthex.db"
    was = os.umask(0)
    try:

        async def case(store: SqliteStore) -> None:
            await store.add_key(KEY)
            assert {one.name: mode(one) for one in path.parent.iterdir()} == {"narthex.db": 0o600}

        with_store(path, case)
    finally:
        os.umask(was)
    assert mode(path.parent) == 0o700


def test_a_file_that_others_could_read_is_private_again(tmp_path: Path) -> None:
    path = tmp_path / "narthex.db"
    open_file(path).close()
    path.chmod(0o664)
    open_file(path).close()
    assert mode(path) == 0o600


def test_an_older_file_is_copied_and_then_changed(tmp_path: Path) -> None:
    path = tmp_path / "narthex.db"

    async def fill(store: SqliteStore) -> None:
        await store.add_key(KEY)

    with_store(path, fill)
    connection = open_file(path, migrations=LATER)
    assert connection.execute("SELECT id, note FROM api_keys").fetchall() == [("aaaa", "")]
    connection.close()
    (copy,) = backups_of(path)
    assert mode(copy) == 0o600

    async def read(store: SqliteStore) -> None:
        assert await store.keys() == [KEY]

    with_store(copy, read)
    open_file(path, migrations=LATER).close()
    assert backups_of(path) == [copy], "once"


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "narthex.db"
    open_file(path).close()
    broken = (*MIGRATIONS, Step(("CREATE TABLE more (x)", "no SQL at all")))
    assert "syntax" in problem(path, migrations=broken)
    connection = open_file(path)
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'more'").fetchone() == (0,)
    connection.close()


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "narthex.db"
    open_file(path, migrations=LATER).close()
    said = problem(path)
    assert "newer" in said and f"form {len(LATER)}, this one knows {len(LATER) - 1}" in said


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    assert "another program" in problem(path)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"not a database, but a text" * 400, id="another kind of file"),
        pytest.param(lambda data: data[:100] + b"\xff" * (len(data) - 100), id="garbage behind its head"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut in half"),
    ],
)
def test_a_damaged_file_is_said_with_the_way_back(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "narthex.db"

    async def fill(store: SqliteStore) -> None:
        await store.put_secret(SealedSecret("large", b"x" * 100_000, 1))
        await store.add_key(KEY)

    with_store(path, fill)
    path.write_bytes(damage(path.read_bytes()))

    async def read(store: SqliteStore) -> None:
        await store.keys()
        await store.secrets()

    with pytest.raises(StoreError) as refused:
        with_store(path, read)
    assert "damaged" in refused.value.problem and "put a backup in its place" in refused.value.problem


@pytest.mark.parametrize(
    "edit",
    [
        "roles = 'admin'",
        "roles = '[1]'",
        "digest = 'text'",
        "created_at = 'x'",
        "name = x'ff'",
        "expires_at = 1.5",
        f"roles = '{'[' * 100_000}'",
        "roles = x'ff'",
        "roles = 5",
    ],
)
def test_a_row_that_was_edited_by_hand_is_refused(tmp_path: Path, edit: str) -> None:
    path = tmp_path / "narthex.db"

    async def case(store: SqliteStore) -> None:
        await store.add_key(KEY)
        other = sqlite3.connect(path)
        other.execute(f"UPDATE api_keys SET {edit}")
        other.commit()
        other.close()
        with pytest.raises(StoreError) as refused:
            await store.keys()
        assert "no Narthex has written" in refused.value.problem

    with_store(path, case)


def test_a_locked_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "narthex.db"

    async def case(store: SqliteStore) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError) as refused:
            await store.add_key(KEY)
        assert "keeps it locked" in refused.value.problem
        assert await store.keys() == [], "reading waits for nobody"
        other.execute("ROLLBACK")
        await store.add_key(KEY)
        other.close()

    with_store(path, case, busy_s=0.0)


def as_somebody_else(work: Callable[[], None]) -> int:
    """Run in a child without the rights of root; its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    path = tmp_path / "state" / "narthex.db"
    open_file(path).close()
    for one, bits in ((path, 0o444), (path.parent, 0o555)):
        one.chmod(bits)
    for above in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        above.chmod(0o755)

    def work() -> None:
        try:
            connection = open_file(path)
            connection.execute("DELETE FROM secrets")
        except StoreError as error:
            assert "writable for this user" in error.problem, error.problem
        except sqlite3.OperationalError as error:
            assert error.sqlite_errorname.startswith("SQLITE_READONLY"), error
        else:
            raise AssertionError("written")

    assert as_somebody_else(work) == 0


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    path = tmp_path / "narthex.db"
    open_file(path).close()

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))

        async def case(store: SqliteStore) -> None:
            with pytest.raises(StoreError) as refused:
                await store.put_secret(SealedSecret("big", b"x" * 1024 * 1024, 1))
            assert "disk" in refused.value.problem
            assert await store.secrets() == [], "and what is there is whole"

        with_store(path, case)

    child = os.fork()  # the limit stays in the child
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("what", ["fifo", "folder"])
def test_what_is_no_file_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "narthex.db"
    if what == "fifo":
        os.mkfifo(path)
        assert "not a file" in problem(path)
    else:
        path.mkdir()
        problem(path)


def test_two_that_open_at_once_migrate_once(tmp_path: Path) -> None:
    async def main() -> None:
        stores = await asyncio.gather(*(SqliteStore.open(tmp_path / "narthex.db") for _ in range(4)))
        await asyncio.gather(*(store.add_key(ApiKey(f"{n}", "ci", b"", 1)) for n, store in enumerate(stores)))
        for store in stores:
            assert len(await store.keys()) == 4
            await store.close()

    asyncio.run(main())


def test_another_program_is_seen_and_a_replaced_file_too(tmp_path: Path) -> None:
    path = tmp_path / "narthex.db"

    async def case(store: SqliteStore) -> None:
        other = await SqliteStore.open(path)
        before = await store.version()
        await other.add_key(KEY)
        between = await store.version()
        assert between != before and await store.keys() == [KEY]
        await other.close()

        aside = tmp_path / "restored.db"
        open_file(aside).close()
        os.replace(aside, path)
        assert await store.version() != between
        assert await store.keys() == []

        path.unlink()
        with pytest.raises(StoreError) as refused:
            await store.version()
        assert "is not there" in refused.value.problem, "no empty one in its place: every key would be gone"
        assert not path.exists()

    with_store(path, case)
