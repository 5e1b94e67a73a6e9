"""`GET /api/v1/endpoints`: what clients can connect to, and which servers stand behind it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from narthex.admin.reply import json_reply
from narthex.admin.view import GatewayView


def endpoint_routes(gateway: GatewayView) -> list[Route]:
    async def endpoints(request: Request) -> Response:
        urls = gateway.endpoint_urls()
        shown = [
            {"name": name, "url": urls.get(name), "servers": spec.servers, "naming": spec.naming}
            for name, spec in gateway.snapshot.endpoints.items()
        ]
        return json_reply({"endpoints": shown})

    return [Route("/api/v1/endpoints", endpoints)]
