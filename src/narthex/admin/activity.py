"""`GET /api/v1/activity[?most=N]`: what is going on, for `narthex top`. Who calls what, how it ends, how long it takes,
what it costs; the servers; the tools that nobody has called. A principal hears of their tenant.

Sums since the gateway started: who wants rates asks twice. Cases: `tests/admin/test_activity.py`.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from narthex.admin.guard import tenant_of
from narthex.admin.reply import json_reply
from narthex.admin.view import GatewayView
from narthex.flow.limit.money import show_amount
from narthex.telemetry.accounts import Accounts, Times
from narthex.telemetry.behaviour import Row, RowKey

MOST = 500
"""Rows in one answer: those with the most calls."""
SHARES = (0.5, 0.95, 0.99)


def activity_routes(gateway: GatewayView) -> list[Route]:
    async def activity(request: Request) -> Response:
        asked = request.query_params.get("most", "100")
        most = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 9 else 0
        if not 0 < most <= MOST:
            raise HTTPException(400, f"most: 1 to {MOST}")
        tenant = tenant_of(request.scope)
        rows = [(key, row) for key, row in gateway.behaviour.rows.items() if tenant is None or key[0] == tenant]
        shown = heapq.nlargest(most, rows, key=lambda one: one[1].calls)
        document: dict[str, Any] = {
            "at": time.time(),
            "started_at": gateway.started_at,
            "open_calls": gateway.open_calls,
            "latency": latency(gateway.accounts) if tenant is None else {},
            "totals": _totals([row for _, row in rows]),
            "rows": [_row(key, row) for key, row in shown],
            "more": len(rows) > most,
            "servers": [
                {"name": one.name, "health": one.health, "breaker": one.breaker, "in_flight": one.in_flight}
                for one in gateway.servers()
            ],
        }
        return json_reply(document)

    async def unused(request: Request) -> Response:
        """By server, for everybody: whoever lists the servers may see them."""
        used, found = gateway.accounts.called(), []
        for one in gateway.snapshot.servers:
            await asyncio.sleep(0)  # a server may list thousands
            listed = gateway.listed(one)
            found.append({"server": one, "listed": len(listed), "tools": sorted(listed - used.get(one, set()))[:MOST]})
        return json_reply({"since": gateway.started_at, "servers": found})

    return [Route("/api/v1/activity", activity), Route("/api/v1/activity/unused", unused)]


def latency(accounts: Accounts) -> dict[str, Any]:
    """Of all calls of tools since the start, in all, at servers, and here: bounds in seconds, and how many fell under
    each."""
    found: dict[str, Any] = {}
    for name in ("call", "upstream", "gateway"):
        counts: list[int] = []
        bounds: list[float] = []
        for shared in {id(one.shared): one.shared for one in accounts.counters.values()}.values():
            if shared.key[2] == "tools/call":
                times: Times = getattr(shared, name)
                bounds, more = times.bounds(), times.counts()
                counts = [mine + theirs for mine, theirs in zip(counts, more, strict=True)] if counts else more
        found[name] = {"bounds": bounds, "counts": counts}
    return found


def _totals(rows: list[Row]) -> dict[str, int]:
    names = ("ok", "failed", "held", "refused", "runs", "retries", "repeats", "loops")
    return {name: sum(getattr(row, name) for row in rows) for name in names}


def _row(key: RowKey, row: Row) -> dict[str, Any]:
    tenant, subject, client, server, name = key
    return {
        "tenant": tenant, "subject": subject, "client": client, "server": server, "name": name,
        "ok": row.ok, "failed": row.failed, "held": row.held, "refused": row.refused, "seconds": round(row.seconds, 6),
        "runs": row.runs, "retries": row.retries, "repeats": row.repeats, "loops": row.loops,
        "cost": [{"amount": show_amount(amount), "currency": currency} for currency, amount in row.cost.items()],
    }  # fmt: skip
