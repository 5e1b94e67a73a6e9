"""What calls have cost, and what lasting limits have counted, in the store: written in groups, off the loop.

In: `Spent`, one a call that costs something, from the event loop; of all others the tab. Out: rows, added up: costs by
hour and who spent what on what; uses by counter and key. Both of a group are one transaction, so that the sum of the
costs and what limits have counted agree, however the process ends. A disk that does not answer loses nothing: what
waits is added up in memory meanwhile.
Cases: `tests/store/test_ledger.py`. Source: design §5, §6 (`cost`).
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from narthex.errors import StoreError
from narthex.flow.limit.spending import Spent, Use
from narthex.flow.limit.tab import Tab
from narthex.store.database import Connection, Database, Held, Where, database_of, storable
from narthex.types import CostsKept

FLUSH_S = 0.05
"""Calls of this time share a transaction: what a killed process can lose."""
RETRY_S = 1.0
DOUBT_S = 600.0
"""What was written twice would be wrong for ever, so a server that may have written it is waited for."""
HOUR = 3_600_000_000
MOST_RUNS = 10_000
"""Of one hour whose costs are apart; beyond, they are those of `OTHERS`."""
OTHERS = "others"
KEPT = CostsKept()
_log = logging.getLogger("narthex.ledger")

_ROW = "hour, tenant, issuer, subject, client, team, project, endpoint, server, name, model, run, currency"
MOST_KEPT = 4 * 10**18
"""Of one row: a sum ends near it, and two of them have room in 64 bits. What no column has room for would keep waiting
all that came with it, and what a call costs is, in the end, said by servers."""
_ADDED = (
    f"CASE WHEN {{0}}.amount > {MOST_KEPT} AND excluded.amount > 0 THEN {{0}}.amount"
    " ELSE {0}.amount + excluded.amount END"
)
_ADD = f"ON CONFLICT DO UPDATE SET amount = {_ADDED.format('costs')}, calls = costs.calls + excluded.calls"
_COST = f"INSERT INTO costs ({_ROW}, amount, calls) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {_ADD}"
_FINE = "hour >= ? AND hour < ? AND (hour % 24 != 0 OR run != '')"
_DAY = _ROW.replace("hour", "min(hour) / 24 * 24").replace("run", "''")
_WHOLE = "sum(amount / 1000000)"  # SQLite's sum is an error where it has no room
_SUM = f"CASE WHEN {_WHOLE} > {MOST_KEPT // 10**6} THEN {MOST_KEPT // 10**6} ELSE {_WHOLE} END"
_ROLL_UP = f"""INSERT INTO costs ({_ROW}, amount, calls)
    SELECT {_DAY}, CAST(({_SUM}) * 1000000 + sum(amount % 1000000) AS BIGINT), CAST(sum(calls) AS BIGINT)
    FROM costs WHERE {_FINE}
    GROUP BY tenant, issuer, subject, client, team, project, endpoint, server, name, model, currency {_ADD}"""
_USE = f"""INSERT INTO uses (counter, key, slot, at, ends, amount) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET amount = {_ADDED.format("uses")},
    at = CASE WHEN uses.at > excluded.at THEN uses.at ELSE excluded.at END"""

CostKey = tuple[int, *tuple[str, ...]]


class Cost(msgspec.Struct, frozen=True):
    """What was spent in one hour (Unix hours) by one caller on one thing; `amount` in millionths of `currency`. Of a
    day that is long ago the first hour has all of it, and no `run`."""

    hour: int
    tenant: str
    issuer: str
    subject: str
    client: str
    team: str
    project: str
    endpoint: str
    server: str
    name: str
    model: str
    run: str
    currency: str
    amount: int
    calls: int


class Ledger:
    """The way in for all that is spent by a process. `close` writes what is left.

    Raises:
        StoreError: The file cannot be opened or brought to this version's form.
    """

    def __init__(self, where: Where, *, busy_s: float = 5.0, kept: CostsKept = KEPT) -> None:
        self.where = where
        self.kept = kept
        self.problem = ""
        """Why nothing can be written at present; empty while all is well."""
        self._queue: deque[Spent | threading.Event] = deque()
        self._marks: list[threading.Event] = []
        self._costs: dict[CostKey, list[int]] = {}
        self._uses: dict[tuple[bytes, bytes, int], list[int]] = {}
        self._runs: tuple[int, set[str]] = (0, set())
        self._pruned = 0
        self._wake = threading.Event()
        self.tab = Tab(self._wake.set)
        """What calls have used that cost nothing: added to by the event loop, taken here."""
        self._closing = threading.Event()
        self._held = Held(_database(where, busy_s))
        self._held.opened()
        self._thread = threading.Thread(target=self._write_all, name="narthex-ledger", daemon=True)
        self._thread.start()

    def add(self, spent: Spent) -> None:
        """Queue what a call has spent. Never waits, never raises."""
        self._queue.append(spent)
        if not self._wake.is_set():
            self._wake.set()

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all that was added before is written. False: it takes longer than that."""
        mark = threading.Event()
        self._queue.append(mark)
        self._wake.set()
        return mark.wait(timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is queued, waiting at most this long. Idempotent."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)

    # --- on the thread

    def _write_all(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._add_up()
            done = self._write()
            if done:
                for mark in self._marks:
                    mark.set()
                self._marks.clear()
            if self._closing.is_set() and not (self._queue or self.tab):
                break
            if not done:
                self._wake.set()
            self._closing.wait(FLUSH_S if done else RETRY_S)
        self._held.close()

    def _add_up(self) -> None:
        while self._queue:
            spent = self._queue.popleft()
            if isinstance(spent, threading.Event):
                self._marks.append(spent)
                continue
            who = spent.subject.principal
            if spent.currency:
                hour, of = spent.at // HOUR, spent.subject
                texts = (
                    who.tenant, who.issuer, who.subject, who.client, of.team, of.project, of.endpoint, of.server,
                    of.name, spent.model, self._run(hour, spent.run), spent.currency,
                )  # fmt: skip
                cost = self._costs.setdefault((hour, *map(storable, texts)), [0, 0])
                cost[0] += spent.amount
                cost[1] += spent.calls
            for one in spent.uses:
                use = self._uses.setdefault((one.counter, one.key, one.slot), [0, one.ends, 0])
                use[0] = max(use[0], one.at)
                use[2] += one.amount
        for key, some in self.tab.take():
            use = self._uses.setdefault(key, [0, some.ends, 0])
            use[0] = max(use[0], some.at)
            use[2] += some.amount

    def _run(self, hour: int, run: str) -> str:
        """The run under its own name, as long as there are not too many: agents make their names up."""
        if self._runs[0] != hour:
            self._runs = (hour, set())
        known = self._runs[1]
        if run and run not in known:
            if len(known) >= MOST_RUNS:
                return OTHERS
            known.add(run)
        return run

    def _write(self) -> bool:
        """One transaction of all that was added up. False where the disk did not take it: it is kept for the next."""
        if not (self._costs or self._uses):
            return True
        try:
            database = self._held.database
            with database.explained(), database.transaction(connection := self._held.opened()):
                connection.executemany(
                    _COST, [(*key, _kept(cost), calls) for key, (cost, calls) in self._costs.items()]
                )
                connection.executemany(_USE, [(*key, at, ends, _kept(n)) for key, (at, ends, n) in self._uses.items()])
                self._prune(connection)
        except StoreError as error:
            if error.problem != self.problem:
                self.problem = error.problem
                _log.error("what calls cost cannot be written down, and waits: %s", error.problem)
            return False
        except Exception:  # a row that no file takes must not cost all that follow
            _log.exception("what calls cost cannot be written down")
        self._costs.clear()
        self._uses.clear()
        if self.problem:
            _log.warning("what calls cost is written down again")
            self.problem = ""
        return True

    def _prune(self, connection: Connection) -> None:
        """Once an hour: uses that count no more, costs that are not kept any longer; and the days whose hours are not,
        one with each group, so that none takes long."""
        now = max([use[0] for use in self._uses.values()] + [key[0] * HOUR for key in self._costs], default=0)
        if now < self._pruned + HOUR:
            return
        hour = now // HOUR
        fine = (hour - self.kept.hours) // 24 * 24
        (oldest,) = connection.execute(f"SELECT min(hour) FROM costs WHERE {_FINE}", (0, fine)).fetchone()
        if oldest is not None:
            span = (oldest // 24 * 24, oldest // 24 * 24 + 24)
            connection.execute(_ROLL_UP, span)
            connection.execute(f"DELETE FROM costs WHERE {_FINE}", span)
            return
        self._pruned = now
        connection.execute("DELETE FROM uses WHERE ends < ?", (now,))
        connection.execute("DELETE FROM costs WHERE hour < ?", (hour - self.kept.days * 24,))


def _kept(amount: int) -> int:
    return max(-MOST_KEPT, min(amount, MOST_KEPT))


def read_uses(where: Where, since: int) -> list[Use]:
    """What lasting limits have counted, and still count at `since` (microseconds since 1970). Raises StoreError."""
    rows = _select(where, "SELECT counter, key, slot, at, ends, amount FROM uses WHERE ends >= ?", (since,))
    return [Use(*row) for row in rows]


def name_of(where: Where) -> str:
    """What a ledger is called, wherever it lies: made up once, and kept as a row of no counter. Raises StoreError."""
    database = _database(where)
    connection = database.open()
    try:
        with database.explained(), database.transaction(connection):
            found = connection.execute("SELECT key FROM uses WHERE counter = ?", (b"",)).fetchone()
            if found is None:
                found = connection.execute(
                    "INSERT INTO uses (counter, key, slot, at, ends, amount) VALUES (?, ?, 0, 0, ?, 0) RETURNING key",
                    (b"", os.urandom(15), 9_000_000_000_000_000_000),
                ).fetchone()
            return bytes(found[0]).hex().upper()
    finally:
        connection.close()


def read_costs(where: Where, since_hour: int, until_hour: int) -> list[Cost]:
    """What was spent from one Unix hour to another, that one left out. Nothing where there is no store yet. Raises
    StoreError."""
    if not _database(where).exists():
        return []
    columns = ", ".join(Cost.__struct_fields__)
    rows = _select(
        where, f"SELECT {columns} FROM costs WHERE hour >= ? AND hour < ? ORDER BY hour", (since_hour, until_hour)
    )
    return [Cost(*row) for row in rows]


def _select(where: Where, statement: str, values: Sequence[int]) -> list[Any]:
    database = _database(where)
    connection = database.open()
    try:
        with database.explained():
            return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


def _database(where: Where, busy_s: float = 5.0) -> Database:
    return database_of(where, busy_s=busy_s, writers="ledger", doubt_s=DOUBT_S)
