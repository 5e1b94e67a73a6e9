"""The record of what is done on the admin side, beside those of calls.

In: who did what, what was decided of it, the HTTP status that came of it. Out: an `Entry` with the event `admin`.
Cases: `tests/admin/test_guard.py`. Reference: `docs/reference/records.md`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from narthex.flow.policy.check import Check
from narthex.telemetry.accounts import OUTCOME
from narthex.telemetry.record import LONGEST, Entry
from narthex.types import Principal

TOKEN_HOLDER = Principal("default", "narthex", "admin.token", method="admin_token")
"""Who comes with the token in the file: the way in that no rule closes. Who has the file is not known."""
LONGEST_QUERY = 1024
_OUTCOME = {HTTPStatus.FORBIDDEN: "denied", HTTPStatus.NOT_FOUND: "not_found"}


def entry_of_act(
    principal: Principal, check: Check | None, action: str, path: str, source: str, status: int, seconds: float,
    config: str, query: str = "", did: dict[str, Any] | None = None,
) -> Entry:  # fmt: skip
    """The record of one action.

    Args:
        check: What rules decided; None for the token.
        path: Of the request, as `query`; `status`: HTTP, of the answer. config: revision of the configuration.
        did: What came of it, by names and numbers; None: the status says it.
    """
    outcome = "ok" if status < 400 else _OUTCOME.get(HTTPStatus(status), "invalid_request")
    if status >= 500:
        outcome = "internal"
    decision = check.decision if check is not None else None
    denied = decision is not None and decision.effect != "allow"
    return Entry(
        principal,
        source,
        "",
        "",
        "",
        action,
        path[:LONGEST],
        b"",
        "",
        OUTCOME[outcome],
        decision.reason if decision is not None and denied else "" if status < 400 else f"http_{status}",
        0,
        "",
        "",
        0,
        0,
        seconds,
        config,
        event="admin",
        check=check,
        query=query[:LONGEST_QUERY],
        did=did,
    )
