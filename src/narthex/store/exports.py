"""How far each sink has got the records of a journal: by sink and chain, in the store.

In: the name of a sink, and which journal it gets. Out: its places; who sends reads and writes them, off the path of a
call and in another process. Cases: `tests/store/test_exports.py`.
"""

from __future__ import annotations

from narthex.store.database import Held, Where, database_of
from narthex.stores import PostgresSpec
from narthex.telemetry.audit.exports.tail import Place, Places


class ExportBook:
    """The rows of one sink. Raises StoreError from each method."""

    def __init__(self, where: Where, name: str, journal: str) -> None:
        # Gateways that share a database have sinks of the same name; a file is one gateway's.
        self._name = f"{journal}/{name}" if isinstance(where, PostgresSpec) else name
        self._held = Held(database_of(where, writers="exports"))

    def read(self) -> Places:
        """How far it is; empty where nothing was sent yet."""
        with self._held.database.explained():
            rows = self._held.opened().execute("SELECT chain, first, size FROM exports WHERE name = ?", (self._name,))
            return {chain: Place(first, size) for chain, first, size in rows}

    def write(self, places: Places) -> None:
        """It is so far now."""
        database = self._held.database
        with database.explained(), database.transaction(connection := self._held.opened()):
            connection.execute("DELETE FROM exports WHERE name = ?", (self._name,))
            rows = [(self._name, chain, place.first, place.size) for chain, place in places.items()]
            connection.executemany("INSERT INTO exports VALUES (?, ?, ?, ?)", rows)

    def close(self) -> None:
        self._held.close()
