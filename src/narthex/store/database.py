"""What SQLite and PostgreSQL have alike, so that statements are written once: `?` for values, a few methods.

In: where the store is, as a snapshot says it. Out: a `Database`, from which whoever has a thread opens a connection of
their own. Statements are in the SQL that both know (upserts by `ON CONFLICT (…)`, `CASE` for the smaller of two).
Cases: `tests/store/test_contract.py`, `tests/store/test_ledger.py`, `tests/store/test_exports.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from narthex.stores import PostgresSpec, StorePlace

Where = StorePlace | Path


def storable(text: str) -> str:
    """As every database keeps it: PostgreSQL has no NUL in a text, and none has half of a surrogate pair; both may come
    from outside. Who adds up by a text does so by this one, or two rows of a statement are one in the database."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


class Rows(Protocol):
    """What a statement has given."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Of one thread at a time; commits only what is told to. `sqlite3.Connection` is one as it stands."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows: ...
    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> Rows: ...
    def close(self) -> None: ...


class Database(Protocol):
    """Where rows are. Raises StoreError, which says which one it is, and the way out."""

    @property
    def name(self) -> str:
        """For people: a path, or a URL without its password."""

    def exists(self) -> bool:
        """Can there be anything? Whoever only reads makes no file."""

    def open(self) -> Connection:
        """A connection, to tables of this version's form."""

    def usable(self, connection: Connection) -> bool:
        """Does a connection still lead there? Asked before it is used again; costs microseconds."""

    def explained(self) -> AbstractContextManager[None]:
        """What the database refuses, as a StoreError."""

    def transaction(self, connection: Connection) -> AbstractContextManager[None]:
        """All that happens within, or nothing of it; of all programs that write here, one at a time."""


def database_of(where: Where, *, busy_s: float = 5.0, writers: str = "store", doubt_s: float = 5.0) -> Database:
    """The database that a snapshot names.

    Args:
        busy_s: So long another one may keep us from writing.
        writers: Who of PostgreSQL's writers wait for each other: those of one name. In a file it is all of them.
        doubt_s: So long a server is waited for that went away while something was being committed.
    Raises:
        StoreError: The driver of PostgreSQL is not installed.
    """
    if isinstance(where, PostgresSpec):
        from narthex.store.opening import require_driver

        require_driver(where)
        from narthex.store.postgres.database import Postgres

        return Postgres(where, busy_s=busy_s, writers=writers, doubt_s=doubt_s)
    from narthex.store.file import SqliteFile

    return SqliteFile(Path(where), busy_s=busy_s)


class Held:
    """A connection that is kept as long as it leads there, and made anew when it does not."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.made = 0
        """How many connections there were."""
        self._connection: Connection | None = None

    def opened(self) -> Connection:
        """Raises StoreError."""
        if self._connection is not None and not self.database.usable(self._connection):
            self.close()
        if self._connection is None:
            self._connection = self.database.open()
            self.made += 1
        return self._connection

    def close(self) -> None:
        """Let go of it. Never raises."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
