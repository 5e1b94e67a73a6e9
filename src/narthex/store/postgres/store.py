"""The store in PostgreSQL, which several gateways share.

In: where it is. Out: a `Store`. A change is told by a number in the database that every one of them counts up; it is
asked every half second, which is a round trip and no lock. Cases: `tests/store/test_contract.py`,
`tests/store/postgres/test_store.py`.
"""

from __future__ import annotations

from collections.abc import Hashable

from narthex.store.database import Connection, Held
from narthex.store.postgres.database import Postgres
from narthex.store.sql import SqlStore
from narthex.stores import PostgresSpec


class PostgresStore(SqlStore):
    """Rows in a database; `await PostgresStore.open(spec)` makes one. A server that goes away is an error until it is
    back; the next one that asks connects anew."""

    def __init__(self, spec: PostgresSpec, *, busy_s: float = 5.0) -> None:
        super().__init__(database := Postgres(spec, busy_s=busy_s))
        self._held = Held(database)
        self._own = 0

    @classmethod
    async def open(cls, spec: PostgresSpec, *, busy_s: float = 5.0) -> PostgresStore:
        """Connect. Raises StoreError: it cannot be reached, or its tables are not of this version's form."""
        store = cls(spec, busy_s=busy_s)
        try:
            await store._off_loop(store._held.opened)
        except BaseException:
            store._thread.shutdown(wait=False)
            raise
        return store

    # --- on the thread

    def _version(self) -> Hashable:
        """What was counted, without what this one has changed and knows. Of each connection anew: behind it may be
        what was restored from a dump."""
        with self._database.explained():
            connection = self._opened()
            (counted,) = connection.execute("SELECT counted FROM changes").fetchone()
            return self._held.made, int(counted) - self._own

    def _count(self, connection: Connection) -> None:
        connection.execute("UPDATE changes SET counted = counted + 1")

    def _written(self, counts: bool) -> None:
        self._own += not counts

    def _opened(self) -> Connection:
        return self._held.opened()

    def _let_go(self) -> None:
        self._held.close()
