"""How the admin side answers: JSON always, errors as `{"error": reason, "message": text}`, never cached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from narthex.errors import StoreError

_REASONS = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
_MESSAGES = {404: "nothing is served here", 405: "another method is needed here"}
NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` (anything msgspec encodes) as JSON."""
    body = msgspec.json.encode(value)
    return Response(body, status, {**NO_STORE, **(headers or {})}, media_type="application/json")


def error_reply(status: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error: a stable reason and a sentence."""
    return json_reply({"error": reason, "message": message}, status, headers)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (unknown path, wrong method) in our form."""
    assert isinstance(error, HTTPException)
    status = error.status_code
    return error_reply(status, _REASONS.get(status, "refused"), _MESSAGES.get(status, error.detail), error.headers)


async def on_store_error(request: Request, error: Exception) -> Response:
    """What is kept cannot be read or written; the log says why."""
    assert isinstance(error, StoreError)
    return error_reply(503, error.reason, error.public)


async def on_failure(request: Request, error: Exception) -> Response:
    """Something is wrong with us: the log says what, the client learns nothing."""
    return error_reply(500, "internal", "internal error")
