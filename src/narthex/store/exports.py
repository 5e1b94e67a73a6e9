"""How far each sink has got the records of a journal: by sink and chain, in the store's file.

In: the name of a sink. Out: its places; who sends reads and writes them, off the path of a call and in another process.
Cases: `tests/store/test_exports.py`.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from narthex.store.file import explained, open_file, transaction
from narthex.telemetry.audit.exports.tail import Place, Places


class ExportBook:
    """The rows of one sink. Raises StoreError from each method."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._connection: sqlite3.Connection | None = None

    def read(self) -> Places:
        """How far it is; empty where nothing was sent yet."""
        with explained(self._path):
            rows = self._opened().execute("SELECT chain, first, size FROM exports WHERE name = ?", (self._name,))
            return {chain: Place(first, size) for chain, first, size in rows}

    def write(self, places: Places) -> None:
        """It is so far now."""
        with explained(self._path), transaction(connection := self._opened()):
            connection.execute("DELETE FROM exports WHERE name = ?", (self._name,))
            rows = [(self._name, chain, place.first, place.size) for chain, place in places.items()]
            connection.executemany("INSERT INTO exports VALUES (?, ?, ?, ?)", rows)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = open_file(self._path)
        return self._connection
