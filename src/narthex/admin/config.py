"""`GET /api/v1/config`: which configuration is in force, without its values. `POST /api/v1/reload`: take it up anew."""

from __future__ import annotations

import resource
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from narthex import FORM, __version__
from narthex.admin.guard import note
from narthex.admin.reply import error_reply, json_reply
from narthex.admin.view import GatewayView


def config_routes(gateway: GatewayView) -> list[Route]:
    async def config(request: Request) -> Response:
        snapshot, last = gateway.snapshot, gateway.last_reload
        document: dict[str, Any] = {
            "version": __version__,
            "form": {"name": FORM.name, "why": FORM.why},
            "revision": snapshot.revision,
            "source": snapshot.source,
            "warnings": snapshot.warnings,
            "notices": snapshot.notices,
            "last_reload": last,
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        }
        return json_reply(document)

    async def reload(request: Request) -> Response:
        outcome = await gateway.reload("admin")
        if outcome is None:
            return error_reply(409, "nothing_to_reload", "this configuration does not come from a file")
        document = msgspec.to_builtins(outcome)
        note(request.scope, status=outcome.status, revision=outcome.revision, problems=len(outcome.problems))
        if outcome.status == "refused":
            message = "the configuration is refused; the old one goes on"
            return json_reply({"error": "bad_configuration", "message": message, **document}, 422)
        return json_reply(document)

    return [Route("/api/v1/config", config), Route("/api/v1/reload", reload, methods=["POST"])]
