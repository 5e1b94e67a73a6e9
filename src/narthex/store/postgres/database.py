"""PostgreSQL as a `Database`: a connection where its tables are of this version's form, one writer at a time.

In: where it is. Out: connections, transactions. Tables are made and changed by `narthex migrate` alone: several
gateways share them, and an old one must not find them changed by a new one's start (design §6).
Cases: `tests/store/postgres/test_database.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from hashlib import blake2b

from pg8000.exceptions import Error, InterfaceError

from narthex.errors import StoreError
from narthex.store.database import Connection
from narthex.store.migrations import Migration
from narthex.store.postgres.connection import ANSWER_S, PostgresConnection
from narthex.store.postgres.migrations import MIGRATIONS
from narthex.store.postgres.problems import MIGRATE, explained
from narthex.stores import PostgresSpec

DOUBT_PAUSE_S = 0.1
PROBE_S = 5.0
SHARED = (
    "a pooler stands in front, in transaction mode, and gives what belongs to one connection to others too; let it have"
    " pool_mode = session, or name the server itself"
)
_FORM = "SELECT form FROM forms"


class Postgres:
    """One database.

    Args:
        busy_s: So long another transaction may keep a lock that we wait for.
        writers: Those who use the same word wait for each other in their transactions.
        answer_s: So long a statement may take.
        doubt_s: So long it is waited for the server where it went away while a transaction was ending.
    """

    def __init__(
        self,
        spec: PostgresSpec,
        *,
        busy_s: float = 5.0,
        writers: str = "store",
        answer_s: float = ANSWER_S,
        doubt_s: float = 5.0,
    ) -> None:
        self.spec, self.name = spec, spec.name
        self._doubt_s = doubt_s
        self._busy_s, self._answer_s, self._lock = busy_s, answer_s, _number(f"{spec.schema}/{writers}")

    def exists(self) -> bool:
        return True

    def explained(self) -> AbstractContextManager[None]:
        return explained(self.spec)

    def open(self, migrations: Sequence[Migration] = MIGRATIONS) -> PostgresConnection:
        with self.explained():
            connection = self.connect()
            try:
                self._check(_form(connection), len(migrations))
            except BaseException:
                connection.close()
                raise
            return connection

    def connect(self) -> PostgresConnection:
        """Whatever is there. Raises what the driver raises. StoreError: what we set there would not stay ours."""
        found = PostgresConnection(self.spec, busy_s=self._busy_s, answer_s=self._answer_s)
        try:
            if found.pooled and _is_shared(found, self.spec):
                raise StoreError(f"{self.name}: {SHARED}")
        except BaseException:
            found.close()
            raise
        return found

    def usable(self, connection: Connection) -> bool:
        assert isinstance(connection, PostgresConnection)
        return connection.usable()

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[None]:
        assert isinstance(connection, PostgresConnection)
        begin = f"BEGIN; SELECT pg_advisory_xact_lock({self._lock}); SELECT pg_current_xact_id()"
        try:
            number = str(connection.script(begin)[-1][0])
            yield
        except BaseException:
            if connection.in_transaction:
                with suppress(Exception):
                    connection.script("ROLLBACK")
            raise
        try:
            connection.script("COMMIT")
        except (InterfaceError, OSError):
            if not self._has_happened(number):
                raise

    def _has_happened(self, number: str) -> bool:
        """The server went away while a transaction was ending: ask it, once it is back, whether that was before or
        after. Source: PostgreSQL 15, 9.27 (`pg_xact_status`). Raises StoreError: it is not back in time."""
        end = time.monotonic() + self._doubt_s
        while time.monotonic() < end:
            with suppress(Error, OSError), closing(self.connect()) as connection:
                (status,) = connection.execute("SELECT pg_xact_status(?::text::xid8)", (number,)).fetchone()
                if status in ("committed", "aborted"):
                    return bool(status == "committed")
            time.sleep(DOUBT_PAUSE_S)  # it starts up, or its process for us has not noticed yet
        raise StoreError(
            f"{self.name}: went away while something was written; look whether it was, before you repeat it"
        )

    def migrate(self, migrations: Sequence[Migration] = MIGRATIONS) -> tuple[int, int]:
        """Bring the tables to this version's form: before, after. Of two that do so at once, one waits for the other.

        Raises:
            StoreError: It cannot be reached, we may not, or a newer version has been there.
        """
        with self.explained():
            connection = self.connect()
            try:
                connection.script("SET statement_timeout = 0; SET lock_timeout = '60s'")
                (encoding,) = connection.execute("SELECT current_setting('server_encoding')").fetchone()
                if encoding != "UTF8":
                    raise StoreError(f"{self.name}: is encoded in {encoding}; make one with createdb --encoding=UTF8")
                with Postgres(self.spec, writers="migrate").transaction(connection):
                    before = _form(connection)
                    if before > len(migrations):
                        self._check(before, len(migrations))
                    if not before:
                        _begin(connection, self.spec.schema)
                    for migration in migrations[before:]:
                        for statement in migration.UP:
                            connection.script(statement)
                    connection.execute("UPDATE forms SET form = ?", (len(migrations),))
                return before, len(migrations)
            finally:
                connection.close()

    def _check(self, form: int, known: int) -> None:
        if not form:
            raise StoreError(f"{self.name}: has no tables of Narthex yet; {MIGRATE}")
        if form < known:
            raise StoreError(f"{self.name}: an older Narthex made its tables (form {form} of {known}); {MIGRATE}")
        if form > known:
            raise StoreError(
                f"{self.name}: a newer Narthex has changed its tables (form {form}, this one knows {known}); start that"
                " version again, or restore a dump from before it"
            )


def _form(connection: PostgresConnection) -> int:
    """How many migrations the tables have seen; 0 where there are none."""
    found = connection.execute("SELECT to_regclass(current_schema() || '.forms') IS NOT NULL").fetchone()
    return int(connection.execute(_FORM).fetchone()[0]) if found[0] else 0


def _is_shared(connection: PostgresConnection, spec: PostgresSpec) -> bool:
    """Does a pooler give the process that works for us to another one while we are connected? A second one that gets
    none is the sign of a pool whose connections belong to those who have them, and is used up."""
    try:
        with closing(PostgresConnection(spec, sign_in_s=PROBE_S)) as other:
            if other.backend == connection.backend:
                return True
    except (Error, OSError):
        pass
    (backend,) = connection.execute("SELECT pg_backend_pid()").fetchone()
    return bool(backend != connection.backend)


def _begin(connection: PostgresConnection, schema: str) -> None:
    connection.script(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    connection.script("CREATE TABLE forms (form BIGINT NOT NULL)")
    connection.script("INSERT INTO forms VALUES (0)")


def _number(text: str) -> int:
    """The number of an advisory lock."""
    return int.from_bytes(blake2b(f"narthex/{text}".encode(), digest_size=8).digest(), signed=True)
