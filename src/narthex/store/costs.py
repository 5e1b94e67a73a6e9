"""Costs added up, as `narthex cost` and the admin API show them: the same document from both.

In: rows of the ledger. Out: `{"total", "rows"}`, amounts as texts, because they are exact.
Cases: `tests/store/test_ledger.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from narthex.flow.limit.money import show_amount

if TYPE_CHECKING:
    from narthex.store.ledger import Cost


COLUMNS = (
    "day", "hour", "tenant", "subject", "client", "team", "project", "endpoint", "server", "name", "model", "run",
)  # fmt: skip
"""What costs can be added up by. Days and hours are those of UTC."""


def added_up(costs: Iterable[Cost], columns: Sequence[str]) -> dict[str, Any]:
    """One row for each combination of `columns` (`day`, UTC, or a member of `Cost`) and currency, in their order."""
    rows: dict[tuple[str, ...], list[int]] = {}
    total: dict[str, int] = {}
    for cost in costs:
        values = [_value(cost, column) for column in columns]
        row = rows.setdefault((*values, cost.currency), [0, 0])
        row[0] += cost.calls
        row[1] += cost.amount
        total[cost.currency] = total.get(cost.currency, 0) + cost.amount
    return {
        "total": [{"amount": show_amount(total[currency]), "currency": currency} for currency in sorted(total)],
        "rows": [
            {
                **dict(zip(columns, key, strict=False)),
                "calls": rows[key][0],
                "amount": show_amount(rows[key][1]),
                "currency": key[-1],
            }
            for key in sorted(rows)
        ],
    }


def _value(cost: Cost, column: str) -> str:
    if column not in ("day", "hour"):
        return str(getattr(cost, column))
    at = datetime.fromtimestamp(cost.hour * 3600, UTC)
    return at.date().isoformat() if column == "day" else at.strftime("%Y-%m-%dT%HZ")
