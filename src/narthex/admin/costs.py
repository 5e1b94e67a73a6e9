"""`GET /api/v1/costs[?days=N&by=COLUMN…]`: who spent what on what, by day; a principal hears of their tenant."""

from __future__ import annotations

import asyncio
import time

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from narthex.admin.guard import tenant_of
from narthex.admin.reply import json_reply
from narthex.admin.view import GatewayView
from narthex.store.costs import COLUMNS, added_up

MOST_DAYS = 400


def cost_routes(gateway: GatewayView) -> list[Route]:
    async def costs(request: Request) -> Response:
        days = request.query_params.get("days", "30")
        columns = request.query_params.getlist("by") or ["day", "subject", "server", "name"]
        number = int(days[:9]) if days.isascii() and days.isdigit() else 0
        if not 0 < number <= MOST_DAYS or not set(COLUMNS).issuperset(columns):
            raise HTTPException(400, f"days: 1 to {MOST_DAYS}; by: {', '.join(sorted(COLUMNS))}")
        until = int(time.time()) // 3600 + 1
        tenant = tenant_of(request.scope)
        store, since = gateway.snapshot.store, (until // 24 + 1 - number) * 24

        def work() -> object:
            from narthex.store.ledger import read_costs  # a database: only where something is kept

            found = read_costs(store, since, until)
            return added_up([one for one in found if tenant is None or one.tenant == tenant], columns)

        return json_reply(await asyncio.to_thread(work))

    return [Route("/api/v1/costs", costs)]
