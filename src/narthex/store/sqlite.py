"""The store in a file of SQLite: what runs without a database server.

In: a path. Out: a `Store`. The module of the standard library, because a larger one costs every gateway more memory
than all it keeps (docs/decisions/store.md). Cases: `tests/store/test_contract.py`, `tests/store/test_sqlite.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable
from pathlib import Path

from narthex.store.database import Connection
from narthex.store.file import SqliteFile, identity_of, open_file
from narthex.store.sql import SqlStore


class SqliteStore(SqlStore):
    """Rows in a file; `await SqliteStore.open(path)` makes one.

    Args:
        busy_s: Seconds that another program may keep us from writing.
    """

    def __init__(self, path: Path, *, busy_s: float = 5.0) -> None:
        super().__init__(SqliteFile(path, busy_s=busy_s))
        self._path, self._busy_s = path, busy_s
        self._writes = 0
        self._connection: sqlite3.Connection | None = None
        self._identity: Hashable = None

    @classmethod
    async def open(cls, path: Path, *, create: bool = True, busy_s: float = 5.0) -> SqliteStore:
        """Open the file, and bring it to this version's form.

        Args:
            create: Make one where there is none.
        Raises:
            StoreError: It cannot be opened, is none of ours, or newer than this program.
        """
        store = cls(path, busy_s=busy_s)
        try:
            await store._off_loop(lambda: store._reopen(create=create))
        except BaseException:
            store._thread.shutdown(wait=False)
            raise
        return store

    # --- on the thread

    def _version(self) -> Hashable:
        """`data_version` tells of what others have committed (SQLite, PRAGMA data_version); our own writes we count."""
        with self._database.explained():
            connection = self._opened()
            (data,) = connection.execute("PRAGMA data_version").fetchone()
            return self._identity, data, self._writes

    def _count(self, connection: Connection) -> None:
        """SQLite does."""

    def _written(self, counts: bool) -> None:
        self._writes += counts

    def _opened(self) -> sqlite3.Connection:
        """The connection; to the file that stands there now, which a restored backup may have replaced."""
        if self._connection is None or identity_of(self._path) != self._identity:
            self._reopen(create=False)
        assert self._connection is not None
        return self._connection

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _reopen(self, *, create: bool) -> None:
        self._let_go()
        self._connection = open_file(self._path, create=create, busy_s=self._busy_s)
        self._identity = identity_of(self._path)
