"""`GET /api/v1/servers[/NAME]`: each upstream, how it is, and what it said last.

Never its headers, environment or arguments; and what stands in them is cut out of what the server says.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from narthex.admin.reply import json_reply
from narthex.admin.view import GatewayView, ServerStatus
from narthex.flow.upstream.secrets import hide, secrets_of
from narthex.types import HttpTarget, ServerSpec


def server_routes(gateway: GatewayView) -> list[Route]:
    def shown() -> list[dict[str, Any]]:
        specs = gateway.snapshot.servers
        return [show_server(specs[one.name], one) for one in gateway.servers() if one.name in specs]

    async def servers(request: Request) -> Response:
        return json_reply({"servers": shown()})

    async def server(request: Request) -> Response:
        for one in shown():
            if one["name"] == request.path_params["name"]:
                return json_reply(one)
        raise HTTPException(404)

    return [Route("/api/v1/servers", servers), Route("/api/v1/servers/{name}", server)]


def show_server(spec: ServerSpec, status: ServerStatus) -> dict[str, Any]:
    """One server as JSON; what its configuration keeps secret is cut out of what it says."""
    secrets = secrets_of(spec)
    document: dict[str, Any] = msgspec.to_builtins(status)
    target = spec.target
    if isinstance(target, HttpTarget):
        where: dict[str, Any] = {
            "url": f"{target.scheme}://{urlsplit(target.url).netloc.rpartition('@')[2]}{_path(target)}"
        }
    else:
        where = {"command": target.command}
    document |= {"transport": spec.transport, "sharing": spec.sharing, **where}
    for one in document["credentials"]:
        one["problem"] = hide(one["problem"], secrets)
    document["stderr_tail"] = [hide(line, secrets) for line in status.stderr_tail]
    document["last_error"] = hide(status.last_error, secrets) if status.last_error is not None else None
    return document


def _path(target: HttpTarget) -> str:
    return target.path.partition("?")[0]
