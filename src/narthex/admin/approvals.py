"""`/api/v1/approvals`: held calls, and yes or no to one of them.

Reading needs the token too, wherever it is asked from: what somebody wants to call is nobody else's business. Who said
yes or no is recorded; nobody says yes to a call of their own, or hears of another tenant's.
Cases: `tests/admin/test_approvals.py`.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from narthex.admin.guard import GUARDED, caller_of, note
from narthex.admin.reply import error_reply, json_reply
from narthex.admin.view import GatewayView
from narthex.authority.approvals import OwnCall, document
from narthex.flow.policy.approvals.approval import Approval, NotOpen

LISTED = 2048
"""Bytes of the parameters that a list shows; of a call with more it says only how many."""


def approval_routes(gateway: GatewayView) -> list[Route]:
    approvals = gateway.approvals

    async def told(rows: list[Approval], most: int) -> list[dict[str, Any]]:
        shown = await approvals.read([one if one.size <= most else replace(one, params=b"") for one in rows])
        now = approvals.now()
        return [{**document(one, now), "params": params} for one, params in zip(rows, shown, strict=True)]

    async def listed(request: Request) -> Response:
        everything, now = request.query_params.get("all") == "true", approvals.now()
        _, principal = caller_of(request.scope)
        found = [one for one in await approvals.all(principal) if everything or one.is_open(now)]
        return json_reply({"approvals": await told(found, LISTED)})

    async def one(request: Request) -> Response:
        _, principal = caller_of(request.scope)
        found = await approvals.one(request.path_params["id"], principal)
        if found is None:
            raise HTTPException(404)
        return json_reply((await told([found], found.size))[0])

    async def decide(request: Request, *, yes: bool) -> Response:
        by, principal = caller_of(request.scope)
        try:
            found = await approvals.decide(request.path_params["id"], by, yes=yes, principal=principal)
        except NotOpen as over:
            return error_reply(409, "not_open", f"it can be decided no more: it is {over}")
        except OwnCall:
            return error_reply(403, "own_call", "nobody approves a call of their own")
        if found is None:
            raise HTTPException(404)
        note(request.scope, approval=found.id, server=found.server, name=found.name)
        return json_reply(document(found, approvals.now()))

    async def approve(request: Request) -> Response:
        return await decide(request, yes=True)

    async def deny(request: Request) -> Response:
        return await decide(request, yes=False)

    return [
        Route(GUARDED, listed),
        Route(f"{GUARDED}/{{id}}", one),
        Route(f"{GUARDED}/{{id}}/approve", approve, methods=["POST"]),
        Route(f"{GUARDED}/{{id}}/deny", deny, methods=["POST"]),
    ]
