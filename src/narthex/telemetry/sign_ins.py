"""Who has proved to be whom, and who could not: a record each, and no more of them than anybody can read.

In: what became of a credential that was not known before. Out: acts of the event `signin`. A credential that is known,
and an API key, which proves itself anew with each call, is told by the records of its calls. Bounded: a caller is
recorded once an hour and proof, refusals twenty a second, and how many were left out.
Cases: `tests/telemetry/test_sign_ins.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from narthex.errors import GatewayError
from narthex.telemetry.acts import ActEntry
from narthex.types import ANONYMOUS, Principal

AGAIN_S = 3600.0
MOST_KNOWN = 10_000
"""Callers that are remembered; when there are more, all are new again."""
MOST_REFUSED = 20
"""Refusals that are recorded in one second."""


class SignIns:
    """Belongs to the event loop. `now`: seconds since 1970."""

    def __init__(self, add: Callable[[ActEntry], None], now: Callable[[], float]) -> None:
        self._add, self._now = add, now
        self._seen: dict[tuple[Any, ...], float] = {}
        self._second = 0
        self._count = self._left_out = 0

    def succeeded(self, principal: Principal, endpoint: str, source: str) -> None:
        """Somebody has proved who they are."""
        if principal is ANONYMOUS:
            return
        key, now = (principal.key, principal.method, source), self._now()
        if 0 <= now - self._seen.get(key, -AGAIN_S) < AGAIN_S:
            return
        if len(self._seen) >= MOST_KNOWN:
            self._seen.clear()
        self._seen[key] = now
        who = {
            "issuer": principal.issuer, "subject": principal.subject, "proof": principal.method,
            **({"client": principal.client} if principal.client else {}),
            **({"roles": principal.roles} if principal.roles else {}),
        }  # fmt: skip
        said = {
            "tenant": principal.tenant,
            "principal": who,
            "endpoint": endpoint,
            "decision": "allow",
            "source": source,
        }
        self._add(ActEntry("signin", said))

    def refused(self, error: GatewayError, endpoint: str, source: str, *, side: str = "") -> None:
        """Somebody has shown a credential that proves nothing. What it was, or said, is not recorded. `side`: `admin`,
        where it was shown at no endpoint."""
        second = int(self._now())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        if self._count > MOST_REFUSED:
            self._left_out += 1
            return
        where = {"side": side} if side else {"endpoint": endpoint}
        said = {**where, "decision": "deny", "reason": error.reason, "source": source}
        if self._left_out:
            said, self._left_out = {**said, "left_out": self._left_out}, 0  # type: ignore[dict-item]
        self._add(ActEntry("signin", said))
