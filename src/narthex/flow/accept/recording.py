"""What is recorded of a call: made of what is at hand when it ends, nothing that it said, and nothing large.

In: an exchange that is being accounted for. Out: an `Entry`. Cases: `tests/flow/accept/test_recording.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from narthex.errors import GatewayError
from narthex.flow.upstream.viewers import account_in
from narthex.telemetry.record import LONGEST, Entry

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange


def entry_of(
    one: Exchange, config: str, outcome: int, seconds: float, size: int, error: GatewayError | None, decision_id: str
) -> Entry:
    """The record of a call.

    Args:
        config: Revision of the configuration.
        outcome: Index in `accounts.OUTCOMES`. seconds: from request to answer. size: bytes of the answer.
        error: What it was refused with, or failed by; None for an answer of the server.
    """
    call = one.call
    scope = one.viewer.scopes.get(one.server_name)
    return Entry(
        call.principal,
        one.source,
        call.session.id if call.session is not None else "",
        call.endpoint,
        one.server_name,
        call.method,
        one.target_name or call.name[:LONGEST],
        call.id_json if len(call.id_json) <= LONGEST else b"",
        call.version,
        outcome,
        error.reason if error is not None else "",
        error.code if error is not None else one.code,
        decision_id,
        account_in(scope) if scope is not None else "",
        one.size_in,
        size,
        seconds,
        config,
    )
