"""`GET /api/v1/audit`: records of calls, by who, what and when, a page at a time. `GET /api/v1/exports`: how it goes
with the places that records are sent to.

Records say who did what: reading them needs the token or a grant for `audit.read`, wherever it is asked from, and is
recorded itself; a principal hears of their tenant. What a call has said is not shown to who has no grant for
`payloads.read`. The search runs in the process beside the journal. Cases: `tests/admin/test_audit.py`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from narthex.admin.guard import AUDIT, caller_of, note
from narthex.admin.reply import error_reply, json_reply
from narthex.admin.view import GatewayView
from narthex.telemetry.audit.frames import Question
from narthex.telemetry.audit.keeper import Away
from narthex.telemetry.audit.matching import Record, Wanted
from narthex.telemetry.audit.reading import moment

LIMIT, MOST = 100, 500
PAYLOADS = "payloads.read"
"""The action of who may see what calls have said."""
_NAMES = frozenset({*Wanted.__struct_fields__, "tool", "limit", "cursor"} - {"tools"})


def audit_routes(gateway: GatewayView) -> list[Route]:
    async def search(request: Request) -> Response:
        _, principal = caller_of(request.scope)
        keeper = gateway.keeping.keeper
        if keeper is None:
            return error_reply(409, "not_recorded", "no calls are recorded, or none are indexed: see audit.index")
        question = _question(request, principal.tenant if principal is not None else None)
        try:
            answer = await keeper.ask(question)
        except Away as error:
            return error_reply(503, "search_unavailable", str(error))
        if answer.refused:
            raise HTTPException(400, answer.error)
        if answer.error:
            return error_reply(503, "search_unavailable", "the index of records cannot be used; the log says why")
        whole = principal is None
        if principal is not None:
            source = (request.scope.get("client") or ("", 0))[0]
            decision = (await gateway.admit(principal, PAYLOADS, source)).decision
            whole = decision is not None and decision.effect == "allow"
        note(request.scope, records=len(answer.records))
        records = answer.records if whole else [without_payload(one) for one in answer.records]
        return json_reply({"records": records, "next": answer.next, "unread": answer.unread})

    async def exports(request: Request) -> Response:
        keeper = gateway.keeping.keeper
        return json_reply({"exports": keeper.exports if keeper is not None else []})

    return [Route(AUDIT, search), Route("/api/v1/exports", exports)]


def without_payload(record: Record) -> Record:
    """A record without what the call has said."""
    return {name: value for name, value in record.items() if name != "input"}


def _question(request: Request, tenant: str | None) -> Question:
    """What is asked for. Raises HTTPException: it is not what can be asked."""
    given = request.query_params
    if unknown := sorted(set(given) - _NAMES):
        raise HTTPException(400, f"{unknown[0][:64]!r} is nothing that can be asked for")
    wanted: dict[str, Any] = {name: given[name] for name in _NAMES & set(given) - {"tool", "limit", "cursor"}}
    try:
        wanted |= {name: moment(wanted[name]) for name in ("since", "until") if name in wanted}
    except ValueError as error:
        raise HTTPException(400, f"{str(error)[:64]!r} is no time") from None
    limit = given.get("limit", str(LIMIT))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 9 and 0 < int(limit) <= MOST):
        raise HTTPException(400, f"limit: 1 to {MOST}")
    if tenant is not None:
        if wanted.get("tenant", tenant) != tenant:
            raise HTTPException(403, "of your own tenant alone")
        wanted["tenant"] = tenant
    tools = tuple(given.getlist("tool"))
    return Question(msgspec.convert({**wanted, "tools": tools}, Wanted), given.get("cursor", ""), int(limit))
