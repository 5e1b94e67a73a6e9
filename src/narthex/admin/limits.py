"""`GET /api/v1/limits[?principal=SUBJECT]`: what is used of each limit, by callers that were here
lately; a principal hears of their tenant, and of what everybody shares."""

from __future__ import annotations

from itertools import islice

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from narthex.admin.guard import tenant_of
from narthex.admin.reply import json_reply
from narthex.admin.view import GatewayView
from narthex.errors import LimitsUnavailable

MOST = 1000
"""Buckets in one answer: more of them are nothing that anybody reads, and take too long on the loop."""


def limit_routes(gateway: GatewayView) -> list[Route]:
    async def limits(request: Request) -> Response:
        tenant = tenant_of(request.scope)
        try:
            states = await gateway.limit_states(request.query_params.get("principal", ""))
        except LimitsUnavailable as error:
            return json_reply({"error": error.detail}, 503)
        theirs = (one for one in states if tenant is None or one.per.get("tenant", tenant) == tenant)
        found = list(islice(theirs, MOST + 1))
        return json_reply({"limits": found[:MOST], "more": len(found) > MOST})

    return [Route("/api/v1/limits", limits)]
