"""The store in a database of SQL: the statements, which SQLite and PostgreSQL both know, on one thread of its own.

In: a `Database`. Out: a `Store`, but for how a change is told, which each has its own way for. A thread, because a disk
or a server may let anybody wait. Cases: `tests/store/test_contract.py`.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from msgspec.structs import astuple

from narthex.errors import StoreError
from narthex.flow.policy.approvals.approval import Approval, Outcome, ask
from narthex.store.database import Connection, Database
from narthex.store.port import KEPT_S, MOST_KEPT, ApiKey, SealedSecret, refuse_more

T = TypeVar("T")
Row = TypeVar("Row", ApiKey, SealedSecret, Approval)

_KEY = ", ".join(ApiKey.__struct_fields__)
_APPROVAL = ", ".join(f'"{name}"' for name in Approval.__struct_fields__)
_LISTS = {"roles", "scopes", "actors"}
_SECRET = ", ".join(SealedSecret.__struct_fields__)


class SqlStore(ABC):
    """Rows in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, "narthex-store")

    async def version(self) -> Hashable:
        return await self._off_loop(self._version)

    async def keys(self) -> list[ApiKey]:
        return await self._read(f"SELECT {_KEY} FROM api_keys ORDER BY created_at, id", ApiKey)

    async def add_key(self, key: ApiKey, *, ends: Mapping[str, int] | None = None) -> None:
        row = _values(key)

        def work(connection: Connection) -> None:
            marks = ", ".join("?" * len(row))
            insert = f"INSERT INTO api_keys ({_KEY}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING"
            if connection.execute(insert, row).rowcount != 1:
                raise StoreError(f"there is a key {key.id} already")
            connection.executemany(
                "UPDATE api_keys SET expires_at = CASE WHEN expires_at < ? THEN expires_at ELSE ? END WHERE id = ?",
                [(at, at, id_) for id_, at in (ends or {}).items()],
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
                "UPDATE api_keys SET used_at = CASE WHEN used_at > ? THEN used_at ELSE ? END WHERE id = ?",
                [(at, at, id_) for id_, at in used.items()],
            ),
            counts=False,
        )

    async def secrets(self) -> list[SealedSecret]:
        return await self._read(f"SELECT {_SECRET} FROM secrets ORDER BY tenant, name", SealedSecret)

    async def put_secret(self, secret: SealedSecret) -> None:
        statement = (
            f"INSERT INTO secrets ({_SECRET}) VALUES (?, ?, ?, ?) ON CONFLICT (tenant, name)"
            " DO UPDATE SET sealed = excluded.sealed, changed_at = excluded.changed_at"
        )
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
        # Nothing, as bytes: the literal is another one in each of them, and of nothing SQLite makes NULL.
        columns = _APPROVAL.replace('"params"', "coalesce(substr(params, 1, 0), params)")
        steps = "CASE WHEN approved_at IS NULL THEN 2 ELSE 3 END"  # of one that has ended
        awaited = (
            f"SELECT {columns} FROM approvals WHERE ends_at > ? OR told < {steps} OR sent < {steps}"
            " ORDER BY asked_at, rowid"
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

        def work(connection: Connection) -> tuple[Outcome, Approval]:
            row = connection.execute(last, (new.digest,)).fetchone()
            found = _row(row, Approval) if row is not None else None
            outcome, then = ask(found, new, new.asked_at)
            if outcome == "asked":
                (in_all,), (of_one,) = (
                    connection.execute(count, whose[:1]).fetchone(), connection.execute(each, whose).fetchone(),
                )  # fmt: skip
                refuse_more(in_all, most, of_one, most_each)
                (kept,) = connection.execute("SELECT count(*) FROM approvals").fetchone()
                if kept >= MOST_KEPT:
                    connection.execute(
                        "DELETE FROM approvals WHERE rowid IN (SELECT rowid FROM approvals WHERE used_at IS NOT NULL"
                        " OR denied_at IS NOT NULL OR ends_at <= ? ORDER BY rowid LIMIT ?)",
                        (new.asked_at, kept - MOST_KEPT + 1),
                    )
                marks = ", ".join("?" * len(Approval.__struct_fields__))
                connection.execute(f"INSERT INTO approvals ({_APPROVAL}) VALUES ({marks})", _values(then))
            elif then is not found:
                _replace(connection, then)
            return outcome, then

        return await self._write(work, counts=False)

    async def change_approval(self, id_: str, change: Callable[[Approval], Approval]) -> Approval | None:
        def work(connection: Connection) -> Approval | None:
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
        ids = told.keys() | sent.keys()
        rows = [(*[told.get(id_, 0)] * 2, *[sent.get(id_, 0)] * 2, id_) for id_ in ids]
        later = "{0} = CASE WHEN {0} < ? THEN ? ELSE {0} END".format
        update = f"UPDATE approvals SET {later('told')}, {later('sent')} WHERE id = ?"
        await self._write(lambda connection: connection.executemany(update, rows), counts=False)

    async def sweep_approvals(self, now: int) -> None:
        def work(connection: Connection) -> None:
            connection.execute("DELETE FROM approvals WHERE ends_at <= ?", (now - KEPT_S,))
            connection.execute(
                "UPDATE approvals SET params = substr(params, 1, 0) WHERE length(params) > 0"
                " AND (used_at IS NOT NULL OR denied_at IS NOT NULL OR ends_at <= ?)",
                (now,),
            )

        await self._write(work)

    async def close(self) -> None:
        await self._off_loop(self._let_go)
        self._thread.shutdown(wait=False)

    # --- on the thread

    @abstractmethod
    def _opened(self) -> Connection:
        """The connection, to where the store is now. Raises StoreError."""

    @abstractmethod
    def _let_go(self) -> None:
        """Of the connection."""

    @abstractmethod
    def _version(self) -> Hashable:
        """As `version` says it. Raises StoreError."""

    @abstractmethod
    def _count(self, connection: Connection) -> None:
        """A transaction is about to end: let others see that there was one."""

    @abstractmethod
    def _written(self, counts: bool) -> None:
        """It has ended. `counts`: others of this process want to know."""

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _read(self, statement: str, row_type: type[Row], values: tuple[Any, ...] = ()) -> list[Row]:
        def work() -> list[Row]:
            with self._database.explained():
                rows = self._opened().execute(statement, values).fetchall()
            try:
                return [_row(row, row_type) for row in rows]
            except (
                ValueError,
                TypeError,
                RecursionError,
                msgspec.MsgspecError,
            ) as error:  # somebody has edited it by hand
                raise StoreError(f"{self._database.name}: a row that no Narthex has written: {error}") from None

        return await self._off_loop(work)

    async def _write(self, work: Callable[[Connection], T], *, counts: bool = True) -> T:
        """One transaction."""

        def run() -> T:
            with self._database.explained():
                connection = self._opened()
                with self._database.transaction(connection):
                    done = work(connection)
                    self._count(connection)
                self._written(counts)
                return done

        return await self._off_loop(run)


def _values(row: ApiKey | Approval) -> list[Any]:
    """A row for the database; lists stand in it as JSON."""
    return [json.dumps(one) if isinstance(one, tuple) else one for one in astuple(row)]


def _replace(connection: Connection, then: Approval) -> None:
    marks = ", ".join(f'"{name}" = ?' for name in Approval.__struct_fields__)
    connection.execute(f"UPDATE approvals SET {marks} WHERE id = ?", [*_values(then), then.id])


def _row(row: Sequence[Any], row_type: type[Row]) -> Row:
    """A row as its type; lists stand in the database as JSON."""
    found = dict(zip(row_type.__struct_fields__, row, strict=True))
    for name in _LISTS & found.keys():
        found[name] = json.loads(found[name])
    return msgspec.convert(found, row_type, builtin_types=(bytes,))
