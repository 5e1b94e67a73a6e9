"""The index in PostgreSQL: tables of all journals, of which a connection sees those of its own.

In: a database, the name of a journal. Out: connections on which `records`, `marks`, `texts`, `segments` and `about` are
the same as in a file: views, that show and take in the rows of the journal that the session is set to
(`store/postgres/migrations/m0002_index.py`). So no statement can forget whose rows are meant.
Cases: `tests/telemetry/audit/index/test_tables.py`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from narthex.store.database import Connection
from narthex.store.postgres.connection import PostgresConnection
from narthex.store.postgres.database import Postgres
from narthex.telemetry.audit.index.place import IndexTables

ANSWER_S = 120.0
"""Counting takes as long as there are records."""
BUSY_S = 30.0


class JournalTables:
    """The rows of one journal."""

    def __init__(self, where: IndexTables) -> None:
        self._journal = where.journal
        writers = f"index/{where.journal}"
        self._database = Postgres(where.database, busy_s=BUSY_S, writers=writers, answer_s=ANSWER_S)

    def open(self, folder: Path) -> PostgresConnection:
        with self.explained():
            connection = self._database.open()
            try:
                name, now = _name_of(self._journal, folder), int(time.time())
                connection.execute(
                    "INSERT INTO journals (name, folder, seen_at) VALUES (?, ?, ?)"
                    " ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at",
                    (name, str(folder.absolute()), now),
                )
                (number,) = connection.execute("SELECT id FROM journals WHERE name = ?", (name,)).fetchone()
                connection.script(f"SET narthex.journal = '{int(number)}'")
                connection.execute("INSERT INTO about VALUES ('pruned', '0') ON CONFLICT DO NOTHING")
            except BaseException:
                connection.close()
                raise
            return connection

    def usable(self, connection: Connection) -> bool:
        return self._database.usable(connection)

    def explained(self) -> AbstractContextManager[None]:
        return self._database.explained()

    def transaction(self, connection: Connection) -> AbstractContextManager[None]:
        return self._database.transaction(connection)

    def plan(self, connection: Connection, statement: str, values: Sequence[Any]) -> list[str]:
        return [str(row[0]) for row in connection.execute(f"EXPLAIN {statement}", values)]


def _name_of(journal: str, folder: Path) -> str:
    """Of a journal in a folder. One that was copied elsewhere is another one: what stands where may differ."""
    return f"{journal}/{hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]}"
