"""The store in a file of SQLite: what runs without a database server.

In: a path. Out: a `Store`. One thread of its own does all the work, because a disk may let anybody wait. The module of
the standard library, because a larger one costs every gateway more memory than all it keeps (docs/decisions/store.md).
Cases: `tests/store/test_contract.py`, `tests/store/test_sqlite.py`.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import astuple

from narthex.errors import StoreError
from narthex.flow.policy.approvals.approval import Approval, Outcome, ask
from narthex.store.file import explained, identity_of, open_file, transaction
from narthex.store.port import KEPT_S, MOST_KEPT, ApiKey, SealedSecret, refuse_more

T = TypeVar("T")
Row = TypeVar("Row", ApiKey, SealedSecret, Approval)

_KEY = ", ".join(ApiKey.__struct_fields__)
_APPROVAL = ", ".join(f'"{name}"' for name in Approval.__struct_fields__)
_LISTS = {"roles", "scopes", "actors"}
_SECRET = ", ".join(SealedSecret.__struct_fields__)


class SqliteStore:
    """Rows in a file; `await SqliteStore.open(path)` makes one.

    Args:
        busy_s: Seconds that another program may keep us from writing.
    """

    def __init__(self, path: Path, *, busy_s: float = 5.0) -> None:
        self._path, self._busy_s = path, busy_s
        self._writes = 0
        self._connection: sqlite3.Connection | None = None
        self._identity: Hashable = None
        self._thread = ThreadPoolExecutor(1, "narthex-store")

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

    async def version(self) -> Hashable:
        return await self._off_loop(self._version)

    async def keys(self) -> list[ApiKey]:
        return await self._read(f"SELECT {_KEY} FROM api_keys ORDER BY created_at, id", ApiKey)

    async def add_key(self, key: ApiKey, *, ends: Mapping[str, int] | None = None) -> None:
        row = _values(key)

        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(f"INSERT INTO api_keys ({_KEY}) VALUES ({', '.join('?' * len(row))})", row)
            except sqlite3.IntegrityError:
                raise StoreError(f"there is a key {key.id} already") from None
            connection.executemany(
                "UPDATE api_keys SET expires_at = min(coalesce(expires_at, ?1), ?1) WHERE id = ?2",
                [(at, id_) for id_, at in (ends or {}).items()],
            )

        await self._write(work)

    async def revoke_keys(self, ids: Sequence[str], *, at: int) -> None:
        await self._write(
            lambda connection: connection.executemany(
                "UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", [(at, id_) for id_ in ids]
            )
        )

    async def used_keys(self, used: Mapping[str, int]) -> None:
        await self._write(
            lambda connection: connection.executemany(
                "UPDATE api_keys SET used_at = max(coalesce(used_at, ?1), ?1) WHERE id = ?2",
                [(at, id_) for id_, at in used.items()],
            ),
            counts=False,
        )

    async def secrets(self) -> list[SealedSecret]:
        return await self._read(f"SELECT {_SECRET} FROM secrets ORDER BY tenant, name", SealedSecret)

    async def put_secret(self, secret: SealedSecret) -> None:
        statement = f"INSERT OR REPLACE INTO secrets ({_SECRET}) VALUES (?, ?, ?, ?)"
        await self._write(lambda connection: connection.execute(statement, astuple(secret)))

    async def delete_secret(self, tenant: str, name: str) -> bool:
        done = await self._write(
            lambda connection: connection.execute("DELETE FROM secrets WHERE tenant = ? AND name = ?", (tenant, name))
        )
        return done.rowcount == 1

    async def reseal(self, changed: Sequence[tuple[SealedSecret, bytes]]) -> int:
        rows = [(sealed, old.tenant, old.name, old.sealed) for old, sealed in changed]
        done = await self._write(
            lambda connection: connection.executemany(
                "UPDATE secrets SET sealed = ? WHERE tenant = ? AND name = ? AND sealed = ?", rows
            )
        )
        return max(done.rowcount, 0)

    async def approvals(self, *, awaited_at: int | None = None) -> list[Approval]:
        if awaited_at is None:
            return await self._read(f"SELECT {_APPROVAL} FROM approvals ORDER BY asked_at, rowid", Approval)
        columns = _APPROVAL.replace('"params"', "x''")
        steps = "2 + (approved_at IS NOT NULL)"  # of one that has ended
        awaited = (
            f"SELECT {columns} FROM approvals WHERE ends_at > ? OR min(told, sent) < {steps} ORDER BY asked_at, rowid"
        )
        return await self._read(awaited, Approval, (awaited_at,))

    async def approval(self, id_: str) -> Approval | None:
        found = await self._read(f"SELECT {_APPROVAL} FROM approvals WHERE id = ?", Approval, (id_,))
        return found[0] if found else None

    async def ask_approval(self, new: Approval, *, most: int, most_each: int) -> tuple[Outcome, Approval]:
        last = f"SELECT {_APPROVAL} FROM approvals WHERE digest = ? ORDER BY rowid DESC LIMIT 1"
        count = "SELECT count(*) FROM approvals WHERE used_at IS NULL AND denied_at IS NULL AND ends_at > ?"
        each = f"{count} AND tenant = ? AND issuer = ? AND subject = ? AND client = ?"
        whose = (new.asked_at, new.tenant, new.issuer, new.subject, new.client)

        def work(connection: sqlite3.Connection) -> tuple[Outcome, Approval]:
            row = connection.execute(last, (new.digest,)).fetchone()
            found = _row(row, Approval) if row is not None else None
            outcome, then = ask(found, new, new.asked_at)
            if outcome == "asked":
                (in_all,), (of_one,) = (
                    connection.execute(count, whose[:1]).fetchone(), connection.execute(each, whose).fetchone(),
                )  # fmt: skip
                refuse_more(in_all, most, of_one, most_each)
                connection.execute(
                    "DELETE FROM approvals WHERE rowid IN (SELECT rowid FROM approvals WHERE used_at IS NOT NULL"
                    " OR denied_at IS NOT NULL OR ends_at <= ? ORDER BY rowid"
                    " LIMIT max(0, (SELECT count(*) FROM approvals) - ?))",
                    (new.asked_at, MOST_KEPT - 1),
                )
                marks = ", ".join("?" * len(Approval.__struct_fields__))
                connection.execute(f"INSERT INTO approvals ({_APPROVAL}) VALUES ({marks})", _values(then))
            elif then is not found:
                _replace(connection, then)
            return outcome, then

        return await self._write(work, counts=False)

    async def change_approval(self, id_: str, change: Callable[[Approval], Approval]) -> Approval | None:
        def work(connection: sqlite3.Connection) -> Approval | None:
            row = connection.execute(f"SELECT {_APPROVAL} FROM approvals WHERE id = ?", (id_,)).fetchone()
            if row is None:
                return None
            found = _row(row, Approval)
            then = change(found)
            if then is not found:
                _replace(connection, then)
            return then

        return await self._write(work, counts=False)

    async def told_approvals(self, told: Mapping[str, int], sent: Mapping[str, int]) -> None:
        rows = [(told.get(id_, 0), sent.get(id_, 0), id_) for id_ in told.keys() | sent.keys()]
        update = "UPDATE approvals SET told = max(told, ?), sent = max(sent, ?) WHERE id = ?"
        await self._write(lambda connection: connection.executemany(update, rows), counts=False)

    async def sweep_approvals(self, now: int) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM approvals WHERE ends_at <= ?", (now - KEPT_S,))
            connection.execute(
                "UPDATE approvals SET params = x'' WHERE params != x''"
                " AND (used_at IS NOT NULL OR denied_at IS NOT NULL OR ends_at <= ?)",
                (now,),
            )

        await self._write(work)

    async def close(self) -> None:
        def work() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

        await self._off_loop(work)
        self._thread.shutdown(wait=False)

    # --- on the thread

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _read(self, statement: str, row_type: type[Row], values: tuple[Any, ...] = ()) -> list[Row]:
        def work() -> list[Row]:
            with explained(self._path):
                rows = self._opened().execute(statement, values).fetchall()
            try:
                return [_row(row, row_type) for row in rows]
            except (
                ValueError,
                TypeError,
                RecursionError,
                msgspec.MsgspecError,
            ) as error:  # somebody has edited the file by hand
                raise StoreError(f"{self._path}: a row that no Narthex has written: {error}") from None

        return await self._off_loop(work)

    async def _write(self, work: Callable[[sqlite3.Connection], T], *, counts: bool = True) -> T:
        """One transaction. `counts`: others of this process want to know."""

        def run() -> T:
            with explained(self._path):
                connection = self._opened()
                with transaction(connection):
                    done = work(connection)
                self._writes += counts
                return done

        return await self._off_loop(run)

    def _version(self) -> Hashable:
        """`data_version` tells of what others have committed (SQLite, PRAGMA data_version); our own writes we count."""
        with explained(self._path):
            connection = self._opened()
            (data,) = connection.execute("PRAGMA data_version").fetchone()
            return self._identity, data, self._writes

    def _opened(self) -> sqlite3.Connection:
        """The connection; to the file that stands there now, which a restored backup may have replaced."""
        if self._connection is None or identity_of(self._path) != self._identity:
            self._reopen(create=False)
        assert self._connection is not None
        return self._connection

    def _reopen(self, *, create: bool) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._connection = open_file(self._path, create=create, busy_s=self._busy_s)
        self._identity = identity_of(self._path)


def _values(row: ApiKey | Approval) -> list[Any]:
    """A row for the file; lists stand in it as JSON."""
    return [json.dumps(one) if isinstance(one, tuple) else one for one in astuple(row)]


def _replace(connection: sqlite3.Connection, then: Approval) -> None:
    marks = ", ".join(f'"{name}" = ?' for name in Approval.__struct_fields__)
    connection.execute(f"UPDATE approvals SET {marks} WHERE id = ?", [*_values(then), then.id])


def _row(row: tuple[Any, ...], row_type: type[Row]) -> Row:
    """A row as its type; lists stand in the file as JSON."""
    found = dict(zip(row_type.__struct_fields__, row, strict=True))
    for name in _LISTS & found.keys():
        found[name] = json.loads(found[name])
    return msgspec.convert(found, row_type, builtin_types=(bytes,))
