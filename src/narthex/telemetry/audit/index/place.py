"""Where an index is: in a file of SQLite, or in the tables of a PostgreSQL that several gateways share.

In: a path, or a database with the name of a journal. Out: a `Place`, which opens connections to the index of that
journal alone, whoever else has one there. The statements are those that both know.
Cases: `tests/telemetry/audit/index/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from narthex.store.database import Connection
from narthex.stores import PostgresSpec


class IndexTables(msgspec.Struct, frozen=True):
    """In a database: `journal` is what the chains of the journal begin with, who signs it."""

    database: PostgresSpec
    journal: str


Where = Path | IndexTables


class Place(Protocol):
    """Raises StoreError, which says which place it is, and the way out."""

    def open(self, folder: Path) -> Connection:
        """To the index of the journal in a folder, made where there is none."""

    def usable(self, connection: Connection) -> bool:
        """Does a connection still lead there?"""

    def explained(self) -> AbstractContextManager[None]:
        """What the database refuses, as a StoreError."""

    def transaction(self, connection: Connection) -> AbstractContextManager[None]:
        """All that happens within, or nothing of it; of all that note the same journal, one at a time."""

    def plan(self, connection: Connection, statement: str, values: Sequence[Any]) -> list[str]:
        """How it would be looked up, in the database's words."""


def place_of(where: Where) -> Place:
    """Raises StoreError: the driver is not installed."""
    if isinstance(where, IndexTables):
        from narthex.store.opening import require_driver

        require_driver(where.database)
        from narthex.telemetry.audit.index.tables import JournalTables

        return JournalTables(where)
    from narthex.telemetry.audit.index.file import IndexFile

    return IndexFile(where)
