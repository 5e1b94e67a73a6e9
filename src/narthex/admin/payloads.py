"""`GET /api/v1/payloads/ID`: what was kept of a call, its arguments and its result, as they were recorded.

For the token, and for who has a grant for `payloads.read`: an auditor, say, where others see records without what calls
have said. A principal hears of their tenant. Each reading is a record that names the call.
Cases: `tests/admin/test_payloads.py`.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from narthex.admin.guard import PAYLOADS, caller_of, note
from narthex.admin.reply import error_reply, json_reply
from narthex.admin.view import GatewayView
from narthex.errors import ConfigError
from narthex.telemetry.audit.frames import Question
from narthex.telemetry.audit.keeper import Away
from narthex.telemetry.audit.matching import Record, Wanted
from narthex.telemetry.payloads.lines import Seals
from narthex.types import Snapshot


def payload_routes(gateway: GatewayView) -> list[Route]:
    async def payloads(request: Request) -> Response:
        _, principal = caller_of(request.scope)
        keeper = gateway.keeping.keeper
        if keeper is None:
            return error_reply(409, "not_recorded", "no calls are recorded, or none are indexed: see audit.index")
        tenant = principal.tenant if principal is not None else ""
        try:
            answer = await keeper.ask(Question(Wanted(id=request.path_params["id"], tenant=tenant), limit=8))
        except Away as error:
            return error_reply(503, "search_unavailable", str(error))
        if answer.error:
            return error_reply(503, "search_unavailable", "the index of records cannot be used; the log says why")
        record = next((one for one in answer.records if one.get("payload")), None) or next(iter(answer.records), None)
        if record is None:
            raise HTTPException(404)
        try:
            rows = await asyncio.to_thread(_read, gateway.snapshot, record)
        except OSError:
            return error_reply(503, "payloads_unavailable", "the files of payloads cannot be read")
        note(request.scope, record=record.get("id"), parts=[one["part"] for one in rows])
        return json_reply({"record": record.get("id"), "payloads": rows})

    return [Route(f"{PAYLOADS}/{{id}}", payloads)]


def _read(snapshot: Snapshot, record: Record) -> list[dict[str, Any]]:
    """The payloads of a record, as `narthex audit payload --json` shows them. Raises OSError."""
    from narthex.telemetry.payloads.reading import Reader

    return [
        {"part": one.part, "state": one.state, "kept": one.note.kept, "redacted": one.note.redacted,
         "size": one.note.size, "body": msgspec.Raw(one.body) if one.body else None}
        for one in Reader(Path(snapshot.audit_dir), _seals(snapshot)).of(record)
    ]  # fmt: skip


def _seals(snapshot: Snapshot) -> Seals | None:
    """What opens payloads that are sealed; None where there is no master key: they stay so."""
    from narthex.authority.envelope import Envelopes
    from narthex.keys import FILE_NAME, VARIABLE, load_keys

    state = Path(snapshot.state_dir)
    if VARIABLE not in os.environ and not (state / FILE_NAME).exists():
        return None
    try:
        return Envelopes(load_keys(state, os.environ), os.urandom)
    except ConfigError:
        return None
