"""The file of the index: where in the journal which records stand, by who, what and when. SQLite, beside the store.

In: a path, the folder of a journal. Out: a connection. All that is in it is derived from the journal: a file that is
damaged, of another version, or of another folder is begun anew, and nothing is lost by that but time. Records
themselves are not in it. Does I/O. Cases: `tests/telemetry/audit/index/test_follow.py`.
Source: `docs/decisions/index-beside-the-journal.md`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from narthex.errors import StoreError
from narthex.store.database import Connection
from narthex.store.file import transaction

FORM: Final = 3
"""Of the tables; a file of another form is begun anew."""
APPLICATION_ID: Final = 0x4E584155  # "NXAU"
BUSY_S = 30.0
TIES: Final = 11
"""A key is microseconds since 1970, moved left by so many bits: 2,048 records of one microsecond keep apart."""
USUAL: Final = ((1, "decision", "allow"), (2, "outcome", "ok"), (3, "event", "call"), (4, "event", "begin"),
                (5, "tenant", "default"))  # fmt: skip
"""Texts that nearly all records have, by number: partial indexes leave them out."""
COLUMNS: Final = (
    "event", "tenant", "subject", "client", "endpoint", "server", "target", "method", "decision", "outcome", "rule",
    "config", "definition",
)  # fmt: skip
"""Numbers of texts; NULL where a record has none."""
PARTIAL: Final = {
    "decision": "decision <> 1", "outcome": "outcome <> 2", "event": "event NOT IN (3, 4)", "tenant": "tenant <> 5",
    "rule": "rule IS NOT NULL", "definition": "definition IS NOT NULL",
}  # fmt: skip
INDEXED: Final = ("subject", "client", "server", "target", *PARTIAL)
TABLES: Final = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE texts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, text TEXT NOT NULL, UNIQUE (kind, text)
    )""",
    # How far a segment was read: `size` bytes of its lines, the last of them number `seq` of the chain.
    """CREATE TABLE segments (
        id INTEGER PRIMARY KEY, chain TEXT NOT NULL, first INTEGER NOT NULL, name TEXT NOT NULL, stamp TEXT NOT NULL,
        size INTEGER NOT NULL, seq INTEGER NOT NULL, since INTEGER, until INTEGER, UNIQUE (chain, first)
    )""",
    f"""CREATE TABLE records (
        at INTEGER PRIMARY KEY, segment INTEGER NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL,
        {", ".join(f"{name} INTEGER" for name in COLUMNS)}
    )""",
    "CREATE TABLE marks (mark INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (mark, at)) WITHOUT ROWID",
    *(
        f"CREATE INDEX by_{name} ON records ({name}){' WHERE ' + PARTIAL[name] if name in PARTIAL else ''}"
        for name in INDEXED
    ),
)


class IndexFile:
    """A file as a `Place` (`place.py`)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, folder: Path) -> sqlite3.Connection:
        return open_index(self.path, folder)

    def usable(self, connection: Connection) -> bool:
        return True

    def explained(self) -> AbstractContextManager[None]:
        return explained(self.path)

    def transaction(self, connection: Connection) -> AbstractContextManager[None]:
        assert isinstance(connection, sqlite3.Connection)
        return transaction(connection)

    def plan(self, connection: Connection, statement: str, values: Sequence[Any]) -> list[str]:
        return [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


def open_index(path: Path, folder: Path) -> sqlite3.Connection:
    """The index of a journal, made where there is none (0600). Raises StoreError."""
    with explained(path):
        connection = _connect(path)
        if not _is_of(connection, folder):
            connection.close()
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.unlink(f"{path}{suffix}")
            connection = _connect(path)
            _begin(connection, folder)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = ON")  # who was forgotten is not left behind in the file
        connection.execute("PRAGMA cache_size = -65536")
        return connection


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _is_of(connection: sqlite3.Connection, folder: Path) -> bool:
    """Is it of this form, and of that folder? Not where it is new, damaged or no file of SQLite."""
    try:
        with transaction(connection, "BEGIN"):
            owner, form = (
                connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
            )
            if (*owner, *form) != (APPLICATION_ID, FORM):
                return False
            row = connection.execute("SELECT value FROM about WHERE name = 'folder'").fetchone()
            for table in ("segments", "records", "marks"):
                connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()
            return row is not None and row[0] == str(folder.absolute())
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN")):
            raise
        return False


def _begin(connection: sqlite3.Connection, folder: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")  # who searches waits for nobody
    with transaction(connection):
        if connection.execute("PRAGMA user_version").fetchone() == (FORM,):
            return  # another one was first
        for statement in TABLES:
            connection.execute(statement)
        connection.executemany("INSERT INTO texts (id, kind, text) VALUES (?, ?, ?)", USUAL)
        connection.execute("INSERT INTO about VALUES ('folder', ?), ('pruned', 0)", (str(folder.absolute()),))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORM}")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What SQLite and the system refuse, as a `StoreError`. The way out is the same for all of it."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(
            f"{path}: the index of records cannot be used ({error}); it can be removed: it is made anew"
        ) from None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}; make {path.parent} writable for this user") from None
