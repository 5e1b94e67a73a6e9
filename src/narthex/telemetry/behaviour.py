"""What agents do: which tools they call with what success and cost, how many calls a run has, what they do again.

In: each call that has ended. Out: rows and sums, bounded; texts and numbers, no argument. A run is what one principal
does in one session, or in one trace, or with no pause of `IDLE_S`. The same call (tool and arguments) again at once is
a retry where the last one failed, a repeat where it did not, and neither where it was held: so agents ask whether they
may by now. From the third time in a row it is a loop.
Cases: `tests/telemetry/test_behaviour.py`.
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from narthex.telemetry.accounts import OTHER, OUTCOME
from narthex.types import Call

MOST_ROWS: Final = 4096
MOST_RUNS: Final = 8192
"""Runs that are watched at a time; the one that began first goes."""
IDLE_S: Final = 600.0
LOOP: Final = 3
LOOKED_AT: Final = 4096
"""Bytes of arguments that tell two calls apart, beside their length."""
UNKNOWN: Final = "(unknown)"
"""Stands for names that lead to no tool that the caller sees."""
OK: Final = OUTCOME["ok"]
_HELD: Final = OUTCOME["approval_required"]
_LAST_OF_SERVER: Final = OUTCOME["cancelled"]
"""Outcomes up to this one are what the server and its caller made of a call; behind it stands what we refused."""
RowKey = tuple[str, str, str, str, str]
"""(tenant, subject, client, server, name); the name is a listed one, or `UNKNOWN`."""


class Row:
    """What one principal with one agent made of one tool. `held`: a person is to approve it first; `refused`: we did
    not let it pass, or could not."""

    __slots__ = ("cost", "failed", "held", "loops", "ok", "refused", "repeats", "retries", "runs", "seconds")

    def __init__(self) -> None:
        self.ok = self.failed = self.held = self.refused = 0
        self.retries = self.repeats = self.loops = self.runs = 0
        self.seconds = 0.0
        self.cost: dict[str, int] = {}

    @property
    def calls(self) -> int:
        return self.ok + self.failed + self.held + self.refused


class _Run:
    """What a run did last: the call, as what tells it from others, with the row that it stands in; None: nothing yet.

    `arguments`: their hash; `last`: its outcome.
    """

    __slots__ = ("again", "arguments", "at", "last", "name", "row", "server", "size")

    def __init__(self) -> None:
        self.row: Row | None = None
        self.server = self.name = ""
        self.arguments = self.size = 0
        self.again = 0
        self.last = OK
        self.at = 0.0


class Behaviour:
    """All of a process. Used from the event loop only."""

    def __init__(self, most_rows: int = MOST_ROWS, most_runs: int = MOST_RUNS) -> None:
        self.rows: Final[dict[RowKey, Row]] = {}
        self._runs: Final[dict[tuple[str, str, str, str, str], _Run]] = {}
        self._most_rows, self._most_runs = most_rows, most_runs

    def note(
        self,
        call: Call,
        server: str,
        name: str,
        outcome: int,
        seconds: float,
        now: float,
        trace_id: str,
        cost: tuple[int, str] | None,
    ) -> None:
        """A call of a tool has ended, whatever became of it.

        Args:
            outcome: Index in `accounts.OUTCOMES`. now: monotonic seconds. trace_id: empty where it belongs to none.
            cost: In millionths of a currency, and which.
        """
        who = call.principal
        tenant, subject, client = who.tenant, who.subject, who.client
        key = (tenant, who.issuer, subject, client, call.session.id if call.session is not None else trace_id)
        run = self._runs.get(key)
        begins = run is None or now - run.at > IDLE_S
        if run is None or begins:
            run = self._begin(key)
        row, raw = run.row, call.params.get("arguments")
        size = len(raw) if raw is not None else 0
        arguments = hash(_looked_at(raw, size)) if raw is not None else 0
        if row is not None and run.server == server and run.name == name:  # its row is known, and stays what it is
            same = run.arguments == arguments and run.size == size
        else:
            row = run.row = self._row((tenant, subject, client, server, name))
            run.server, run.name, same = server, name, False
        if outcome == OK:
            row.ok += 1
        elif outcome <= _LAST_OF_SERVER:
            row.failed += 1
        elif outcome == _HELD:
            row.held += 1
        else:
            row.refused += 1
        row.seconds += seconds
        if cost is not None:
            amount, currency = cost
            row.cost[currency] = row.cost.get(currency, 0) + amount
        if begins:
            row.runs += 1
        if same:
            run.again += 1
            if run.again >= LOOP:
                row.loops += 1
            if run.last == OK:
                row.repeats += 1
            elif run.last != _HELD:
                row.retries += 1
        else:
            run.arguments, run.size, run.again = arguments, size, 1
        run.last = outcome
        run.at = now

    def _row(self, key: RowKey) -> Row:
        row = self.rows.get(key)
        if row is None:
            if len(self.rows) >= self._most_rows:
                key = (OTHER, OTHER, OTHER, OTHER, OTHER)
            row = self.rows.get(key)
            if row is None:
                row = self.rows[key] = Row()
        return row

    def _begin(self, key: tuple[str, str, str, str, str]) -> _Run:
        runs = self._runs
        runs.pop(key, None)
        if len(runs) >= self._most_runs:
            del runs[next(iter(runs))]
        run = runs[key] = _Run()
        return run


def _looked_at(raw: Raw, size: int) -> bytes:
    """Of arguments, what tells them from others. Most are short, and need no view to be cut out of."""
    return bytes(raw) if size <= LOOKED_AT else bytes(memoryview(raw)[:LOOKED_AT])
