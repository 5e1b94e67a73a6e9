"""A refusal as HTTP says it: its status, and the header lines that tell a client what to do about it.

Cases: `tests/flow/accept/test_front.py`, `tests/flow/accept/test_gate.py`. Source: RFC 9110 §10.2.3, RFC 6750 §3,
draft-ietf-httpapi-ratelimit-headers-10; design §5.
"""

from __future__ import annotations

import math

from narthex.errors import (
    ClaimsRequired,
    GatewayError,
    HttpRefusal,
    InvalidParams,
    MethodNotFound,
    MissingCapability,
    RateLimited,
    Unauthorized,
)
from narthex.flow.identity.challenge import challenge_line
from narthex.types import Era


def status_of(error: GatewayError, era: Era) -> int:
    """The HTTP status of an error whose request's id is known: a legacy client drops the body of other statuses."""
    if era == "legacy" and isinstance(error, (MethodNotFound, InvalidParams, MissingCapability)):
        return 200
    return error.status


def error_lines(error: GatewayError, status: int, metadata_url: str = "") -> bytes:
    """Header lines of a refusal: what to come with, when to come again, and what it says itself.

    `metadata_url` is for the challenge of one that has one.
    """
    if isinstance(error, (Unauthorized, ClaimsRequired)):
        return challenge_line(error, metadata_url)
    seconds, limited = (error.data or {}).get("retryAfterSeconds"), isinstance(error, RateLimited)
    told = seconds is not None and (status >= 400 or limited)
    lines = b"Retry-After: %d\r\n" % math.ceil(seconds or 0) if told else b""
    if isinstance(error, RateLimited):
        return lines + error.lines
    if isinstance(error, HttpRefusal):
        lines += "".join(f"{name}: {value}\r\n" for name, value in error.headers).encode()
    return lines
