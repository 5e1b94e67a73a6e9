"""The file of a SQLite store: private, ours, and in this version's form; or a refusal that says the way out.

In: a path. Out: a connection that commits only what is told to. A file that an older version wrote is copied, then
migrated; one that a newer version wrote is left alone. Does I/O. Cases: `tests/store/test_sqlite.py`.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from narthex.errors import StoreError
from narthex.store.database import Connection
from narthex.store.migrations import MIGRATIONS, Migration

APPLICATION_ID = 0x4E585354  # "NXST": `file` and we see by it whose file this is
_EXPLAINED = {
    "SQLITE_BUSY": "another program keeps it locked; try again, or see with `lsof` which one",
    "SQLITE_LOCKED": "another program keeps it locked; try again, or see with `lsof` which one",
    "SQLITE_READONLY": "cannot be written; make the file and its folder writable for this user",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_CANTOPEN": "cannot be opened; make its folder and the file readable and writable for this user",
    "SQLITE_IOERR": "the disk does not read or write it",
}


class SqliteFile:
    """A file as a `Database` (`database.py`)."""

    def __init__(self, path: Path, *, busy_s: float = 5.0) -> None:
        self.path, self.name, self._busy_s = path, str(path), busy_s

    def exists(self) -> bool:
        return self.path.exists()

    def open(self) -> sqlite3.Connection:
        return open_file(self.path, busy_s=self._busy_s)

    def usable(self, connection: Connection) -> bool:
        return True

    def explained(self) -> AbstractContextManager[None]:
        return explained(self.path)

    def transaction(self, connection: Connection) -> AbstractContextManager[None]:
        assert isinstance(connection, sqlite3.Connection)
        return transaction(connection)


def open_file(
    path: Path, *, create: bool = True, busy_s: float = 5.0, migrations: Sequence[Migration] = MIGRATIONS
) -> sqlite3.Connection:
    """Open the store's file, making it (0600, its folder 0700) and migrating it where that is needed.

    Raises:
        StoreError: There is none and `create` is False; it is not a file, damaged, foreign, locked, newer than this
            program, or cannot be read or written.
    """
    with explained(path):
        _claim(path, create)
        connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            _migrate(connection, path, migrations)
            connection.execute("PRAGMA journal_mode = DELETE")  # one file at rest: a copy is whole, a restored one too
            connection.execute("PRAGMA synchronous = FULL")  # a revoked key stays so, whatever the power does
            connection.execute("PRAGMA secure_delete = ON")  # what was sealed is not left behind in the file
        except BaseException:
            connection.close()
            raise
        return connection


def form_of(path: Path) -> int:
    """How many migrations a file has seen; 0 where there is none. Raises StoreError."""
    with explained(path):
        if not path.exists():
            return 0
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)
        try:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
        finally:
            connection.close()


def identity_of(path: Path) -> Hashable:
    """Which file stands there, None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def backups_of(path: Path) -> list[Path]:
    """Copies that migrations have made of a store, the newest first."""
    return sorted(path.parent.glob(f"{path.name}.v*.bak"), key=lambda one: one.stat().st_mtime, reverse=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What SQLite and the system refuse, as a `StoreError` with the way out."""
    try:
        yield
    except sqlite3.Error as error:
        name = "_".join(str(getattr(error, "sqlite_errorname", "")).split("_")[:2])
        if name in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
            raise StoreError(f"{path}: damaged, or no file of SQLite; {_way_back(path)}") from None
        raise StoreError(f"{path}: {_EXPLAINED.get(name, error)}") from None
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror or error}; make {path.parent} writable for this user, or set `store`"
        ) from None


def _way_back(path: Path) -> str:
    found = backups_of(path)
    newest = f"for instance {found[0]}, the newest one that a migration made" if found else "there is none beside it"
    return f"stop the gateway, remove {path.name}-journal, and put a backup in its place ({newest})"


def _claim(path: Path, create: bool) -> None:
    """Make sure of a regular file that others of this machine cannot read."""
    if create:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        # O_NONBLOCK: a FIFO there must not hang us. SQLite gives the files beside it the same mode.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_CREAT if create else 0), 0o600)
    except FileNotFoundError:
        raise StoreError(f"{path}: is not there; put it back, or restart to begin with an empty one") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(f"{path}: not a file; remove it, or set `store`")
        if found.st_mode & 0o077 and found.st_uid == os.geteuid():
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    """Bring the file to the last form. Of two programs that start at once, one does it."""
    with transaction(connection, "BEGIN"):
        version = _version(connection, path, migrations)
    if version == len(migrations):
        return
    with transaction(connection):
        version = _version(connection, path, migrations)
        if 0 < version < len(migrations):
            _back_up(connection, path, version)
        for number, migration in enumerate(migrations[version:], version + 1):
            for statement in migration.UP:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """All that happens within, or nothing of it."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> int:
    """How many migrations the file has seen; 0 for a new one. Asked within a transaction: another may be at work."""
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if owner != APPLICATION_ID and (owner or version or tables):
        raise StoreError(f"{path}: a file of another program; set `store` to one of its own")
    if version > len(migrations):
        raise StoreError(
            f"{path}: a newer Narthex wrote it (form {version}, this one knows {len(migrations)}); start that version"
            f" again, or put back the copy from before it changed the file ({path.name}.v{len(migrations)}-….bak)"
        )
    return int(version)


def _back_up(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Copy the file, on the disk, before it is changed. Our own transaction keeps others from writing meanwhile."""
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    copy = path.with_name(f"{path.name}.v{version}-{at}.bak")
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    source, target = sqlite3.connect(path), sqlite3.connect(copy)
    try:
        source.backup(target)
    finally:
        source.close()
        target.close()
