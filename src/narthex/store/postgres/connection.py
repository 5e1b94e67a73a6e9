"""One connection to PostgreSQL, with the methods of SQLite's: `?` for values, transactions only where they are begun.

In: where the database is. Out: a `PostgresConnection`; errors as the driver, the system and TLS raise them, which
`problems.py` puts into words. Blocking, for a thread; each call has an end, whoever it is that answers
(`deadline.py`). What is fixed is prepared once, so that a
statement costs one round trip; many rows at once are a few statements.
Cases: `tests/store/postgres/test_connection.py`. Source: docs/decisions/store.md.
"""

from __future__ import annotations

import os
import re
import select
import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from pg8000.converters import make_params
from pg8000.exceptions import DatabaseError, Error, InterfaceError

from narthex.store.database import storable
from narthex.store.postgres.deadline import Deadline, TimedSocket, timed_tls
from narthex.store.postgres.signing_in import Guarded
from narthex.stores import PostgresSpec

CONNECT_S = 5.0
SIGN_IN_S = 15.0
"""For all that is said until we are let in."""
ANSWER_S = 30.0
"""So long the server may work on one statement; a little later we hang up, for then it is not there any more."""
SLACK_S = 5.0
MOST_VALUES = 5_000
"""Of one statement with many rows (the protocol has room for 65,535)."""
MOST_PREPARED = 200
NOT_UNDERSTOOD = "what it says is not PostgreSQL's protocol"
_VALUES = re.compile(r"VALUES (\((?:\?, )*\?\))")
_UPSERT = re.compile(r"(INSERT INTO (\w+)\b.*)ON CONFLICT DO UPDATE", re.DOTALL)


class Rows:
    """What a statement has given: lists of values, and how many rows it has changed."""

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self.rowcount = rowcount
        self._rows, self._at = rows, 0

    def fetchone(self) -> Any:
        return next(self, None)

    def fetchall(self) -> list[Any]:
        return list(self)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._at >= len(self._rows):
            raise StopIteration
        self._at += 1
        return self._rows[self._at - 1]


class PostgresConnection:
    """Connected when it is made. Of one thread at a time.

    Args:
        busy_s: So long another transaction may keep a lock that we wait for.
        answer_s: Seconds that one statement may take. sign_in_s: that it may take until we are let in.
    """

    def __init__(
        self,
        spec: PostgresSpec,
        *,
        busy_s: float = 5.0,
        answer_s: float = ANSWER_S,
        sign_in_s: float | None = None,
    ) -> None:
        self._broken = False
        self._prepared: dict[str, Any] = {}
        self._deadline, self._answer_s = Deadline(), answer_s + SLACK_S
        shielded = spec.sslmode in ("verify-ca", "verify-full") and not spec.host.startswith("/")
        self._socket: socket.socket = TimedSocket(_dial(spec), self._deadline)
        self._deadline.begin(SIGN_IN_S if sign_in_s is None else sign_in_s, each=CONNECT_S)
        try:
            self._core = Guarded(
                known=shielded or spec.host.startswith("/"), shielded=shielded, password=password_of(spec),
                user=spec.user, host=spec.host, database=spec.database,
                ssl_context=_tls(spec, self._deadline), application_name="narthex", sock=self._socket,
            )  # fmt: skip
            self._socket = self._core._usock  # with TLS another object
            found = self._core.execute_simple(
                f"SET search_path = {spec.schema}; SET statement_timeout = {answer_s * 1000:.0f};"
                f" SET lock_timeout = {max(1.0, busy_s * 1000):.0f}; SET idle_in_transaction_session_timeout = 60000;"
                " SET default_transaction_isolation = 'read committed'; SET plan_cache_mode = force_custom_plan;"
                " SET standard_conforming_strings = on; SET bytea_output = hex; SET synchronous_commit = on;"
                " SET client_min_messages = error; SELECT pg_backend_pid()"
            )
            self.backend = int(found.rows[0][0]) if found.rows else 0
            """The process of the server that works for us."""
            said = self._core._backend_key_data
            self.pooled = said is not None and int.from_bytes(said[:4]) != self.backend
            """Does somebody stand between, who has let us in himself?"""
        except BaseException as error:
            self._broken = True
            self._socket.close()
            if self._deadline.is_over and isinstance(error, (Error, OSError)):
                raise TimeoutError from None  # the driver says that it cannot say good-bye
            raise _known(error) from None

    @property
    def in_transaction(self) -> bool:
        return not self._broken and self._core._transaction_status in (b"T", b"E")

    def usable(self) -> bool:
        """False where the server has hung up, or said something that nobody has asked for: that it ends, mostly."""
        return not self._broken and not self.in_transaction and not _has_news(self._socket)

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        return self._run(statement, _kept(statement), values, keep=True)

    def script(self, statements: str) -> list[Any]:
        """Several statements without values: one round trip, the rows of all of them."""
        with self._whole():
            return self._core.execute_simple(statements).rows or []

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> Rows:
        """One statement for many rows where it inserts them, else one after the other."""
        rows = list(values)
        found = _VALUES.search(statement)
        count = 0
        if found is None:
            for row in rows:
                count += self.execute(statement, row).rowcount
            return Rows([], count)
        at_once = max(1, MOST_VALUES // found[1].count("?"))
        for first in range(0, len(rows), at_once):
            some = rows[first : first + at_once]
            many = f"{statement[: found.start(1)]}{', '.join([found[1]] * len(some))}{statement[found.end(1) :]}"
            flat = [value for row in some for value in row]
            count += self._run(many, translated(many), flat, keep=False).rowcount
        return Rows([], count)

    def close(self) -> None:
        """Idempotent. Never raises."""
        broken, self._broken = self._broken, True
        if not broken:
            with suppress(Exception):
                self._deadline.begin(1.0)
                self._core.close()
        with suppress(OSError):
            self._socket.close()

    def _run(self, statement: str, text: str, values: Sequence[Any], *, keep: bool) -> Rows:
        plain = [storable(value) if isinstance(value, str) else value for value in values]
        with self._whole():
            if not keep or len(self._prepared) >= MOST_PREPARED and statement not in self._prepared:
                found = self._core.execute_unnamed(text, plain)
            else:
                if statement not in self._prepared:
                    self._prepared[statement] = self._core.prepare_statement(text, ())
                name, columns, readers = self._prepared[statement]
                params = make_params(self._core.py_types, plain)
                found = self._core.execute_named(name, params, columns, readers, text)
            return Rows(found.rows or [], found.row_count)

    def _whole(self) -> _Whole:
        return _Whole(self)


class _Whole:
    """An answer is read to its end, or the connection is not used again: nobody knows what comes next on it."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        if self._connection._broken:
            raise InterfaceError("connection is closed")
        self._connection._deadline.begin(self._connection._answer_s)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and not isinstance(error, DatabaseError):
            self._connection._broken = True
            with suppress(OSError):
                self._connection._socket.close()
            if (known := _known(error)) is not error:
                raise known from None


def _known(error: BaseException) -> BaseException:
    """What the driver's parser stumbles on, as what it raises on purpose: whoever is there may say anything."""
    if isinstance(error, Exception) and not isinstance(error, (Error, OSError)):
        found: BaseException = InterfaceError(f"{NOT_UNDERSTOOD} ({type(error).__name__})")
        return found
    return error


def translated(statement: str) -> str:
    """`$1` for each `?` (no statement of ours has a question mark in a text); which conflict is meant where SQLite may
    be left to find that: of the primary key; and how a list, which is handed over as JSON, is read here."""
    statement = statement.replace(
        "IN (SELECT value FROM json_each(?))", "= ANY (translate(?, '[]', '{}')::bigint[])"
    )  # of which the planner knows how many there are
    statement = _UPSERT.sub(r"\1ON CONFLICT ON CONSTRAINT \2_pkey DO UPDATE", statement)
    first, *rest = statement.split("?")
    return first + "".join(f"${number}{piece}" for number, piece in enumerate(rest, 1))


_kept = lru_cache(1000)(translated)


def password_of(spec: PostgresSpec) -> str:
    """Read where it stands, whenever a connection is made: it may have been changed. Raises OSError, KeyError."""
    if isinstance(spec.password, str):
        return spec.password
    if spec.password.kind == "env":
        return os.environ.get(spec.password.where, "")
    return Path(spec.password.where).read_text(encoding="utf-8").rstrip("\r\n")


def _dial(spec: PostgresSpec) -> socket.socket:
    if not spec.host.startswith("/"):
        return socket.create_connection((spec.host, spec.port), CONNECT_S)
    found = socket.socket(socket.AF_UNIX)
    try:
        found.settimeout(CONNECT_S)
        found.connect(f"{spec.host}/.s.PGSQL.{spec.port}")
    except BaseException:
        found.close()
        raise
    return found


def _tls(spec: PostgresSpec, deadline: Deadline) -> ssl.SSLContext | bool:
    """False: none. A server that does not speak it is refused otherwise."""
    if spec.sslmode == "disable" or spec.host.startswith("/"):
        return False
    for file in filter(None, (spec.ca, spec.cert, spec.key)):
        os.stat(file)  # says which one is not there; `ssl` does not
    context = ssl.create_default_context(cafile=spec.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = timed_tls(deadline)
    context.check_hostname = spec.sslmode == "verify-full"
    if spec.sslmode == "require":
        context.verify_mode = ssl.CERT_NONE
    if spec.cert:
        context.load_cert_chain(spec.cert, spec.key or None)
    return context


def _has_news(found: socket.socket) -> bool:
    """Is there something to read? `poll`, because a file descriptor may be above what `select` takes."""
    try:
        poll = select.poll()
        poll.register(found, select.POLLIN)
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return True
