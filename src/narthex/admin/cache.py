"""`GET /api/v1/cache`: what is kept of which tool, prompt or resource, never what was asked or answered;
`DELETE /api/v1/cache[?name=GLOB&tenant=TENANT]` ends it. A principal hears of their tenant, and ends what is theirs."""

from __future__ import annotations

from msgspec.structs import asdict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from narthex.admin.guard import note, tenant_of
from narthex.admin.reply import json_reply
from narthex.admin.view import GatewayView

MOST = 1000
"""Rows in one answer."""


def cache_routes(gateway: GatewayView) -> list[Route]:
    async def show(request: Request) -> Response:
        report = gateway.cached(tenant_of(request.scope))
        if report is None:
            return json_reply({"cache": None})
        more, report.rows = len(report.rows) > MOST, report.rows[:MOST]
        return json_reply({"cache": asdict(report), "more": more})

    async def clear(request: Request) -> Response:
        given = request.query_params
        tenant = tenant_of(request.scope) or given.get("tenant") or None
        cleared = gateway.clear_cache(given.get("name") or "*", tenant)
        note(request.scope, cleared=cleared)
        return json_reply({"cleared": cleared})

    return [
        Route("/api/v1/cache", show, methods=["GET"]),
        Route("/api/v1/cache", clear, methods=["DELETE"]),
    ]
