"""Calls that have ended, for the tests of what becomes of them."""

from __future__ import annotations

from typing import Any

from narthex.flow.codec.trace_context import Context
from narthex.telemetry.accounts import OUTCOME
from narthex.telemetry.traces import Ended, Trace

TRACE, PARENT, SPAN, CHILD = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "1" * 16, "2" * 16


def ended(outcome: str = "ok", *, trace: Trace | None = None, **given: Any) -> Ended:
    """A call of `s` `t` that was sent on; `given` differs."""
    trace = trace or Trace(TRACE, SPAN, None, None, Context(TRACE, CHILD, 1), True)
    return Ended(
        **{
            "trace": trace, "method": "tools/call", "name": "t", "endpoint": "default", "server": "s",
            "tenant": "acme", "client": "helpdesk-bot", "session": "", "version": "2026-07-28", "request": b'"7"',
            "source": "127.0.0.1", "outcome": OUTCOME[outcome], "reason": "", "code": 0, "decision_id": "",
            "config": "c0ffee", "bytes_in": 10, "bytes_out": 20, "began_at": 1.0, "sent_at": 1.25, "heard_at": 1.5,
            "ended_at": 2.0,
        }
        | given
    )  # fmt: skip
