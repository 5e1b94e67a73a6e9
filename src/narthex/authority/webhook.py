"""Tells somebody of each step of a held call: a POST of JSON, signed, tried again until it is taken, never waited for.

In: approvals and their steps, in order. Out: requests in the form of Standard Webhooks (`webhook-id`,
`webhook-timestamp`, `webhook-signature`). Arguments only where the operator says so. The address is one that the
operator wrote, so it may be private; redirects are not followed. While the receiver is away, steps wait in their order,
and in the store: a restart loses none. What it refuses, by a status that says so, is given up after `TRIES`, and said.
Cases: `tests/authority/test_webhook.py`. Source: the Standard Webhooks specification 1.0.0 (signature scheme `v1`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from narthex.authority.approvals import document
from narthex.authority.fetch import Fetch
from narthex.errors import GatewayError
from narthex.flow.policy.approvals.approval import Approval, Step
from narthex.telemetry.record import stamp
from narthex.types import SecretText, Webhook

TRIES = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
"""Behind the first try that failed; twice as long behind each further one, up to the longest."""
LATEST_S = 86_400.0
"""How old a step may be that is tried again: the store keeps it for about as long."""
TIMEOUT_S = 10.0
MOST_WAITING = 1000
"""Steps that wait in memory to be told; others wait in the store."""
LATER = frozenset({401, 403, 404, 408, 421, 425, 429})
"""Statuses that say nothing of what is told: the way there, or who we are, is not in order yet; or it is too much."""
MAX_ANSWER = 64 * 1024
PREFIX = "whsec_"
_log = logging.getLogger("narthex.approvals")


def signature(key: bytes, id_: str, at: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = hmac.digest(key, b"%b.%d.%b" % (id_.encode(), at, body), "sha256")
    return "v1," + base64.b64encode(signed).decode()


def key_of(secret: str) -> bytes:
    """What signs: the bytes behind `whsec_`, or any other text as it stands."""
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


class _Problem(msgspec.Struct, frozen=True):
    """`refused`: whoever is there does not want this."""

    text: str
    refused: bool


class Hook:
    """Tells one receiver, one step at a time. `close` leaves to another one what is left.

    Args:
        fetch: Asks by the egress rules in force.
        fill: Puts the value of a secret together; raises SecretMissing.
        parameters: Those of a held call, where they can still be read.
        done: Called when a step need not be told again: the approval, and its how-manieth step it was.
        now: Seconds since 1970. chance: 0 to 1. sleep: waits.
    """

    def __init__(
        self,
        spec: Webhook,
        *,
        fetch: Fetch,
        fill: Callable[[SecretText], str],
        parameters: Callable[[Approval], Awaitable[Any]],
        done: Callable[[Approval, int], None],
        now: Callable[[], float],
        chance: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.spec = spec
        self.lost = 0
        """Steps that were given up."""
        self.problem = ""
        """Why the last step was not taken; empty after one that was."""
        self._fetch, self._fill, self._parameters = fetch, fill, parameters
        self._done, self._now, self._chance, self._sleep = done, now, chance, sleep
        self._waiting: deque[tuple[Approval, Step, int]] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def room(self) -> int:
        """So many more of them at present."""
        return MOST_WAITING - len(self._waiting)

    def tell(self, approval: Approval, step: Step, number: int) -> None:
        """Queue one step, the `number`-th of its approval. Never waits, never raises."""
        self._waiting.append((approval, step, number))
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._tell_all())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _tell_all(self) -> None:
        while self._waiting:
            approval, step, number = self._waiting[0]
            try:
                await self._tell(approval, step)
            except Exception:
                self.lost += 1
                _log.exception("the webhook of approvals failed")
            self._waiting.popleft()
            self._done(approval, number)

    async def _tell(self, approval: Approval, step: Step) -> None:
        """Until it is taken, or refused, or too old."""
        body, id_ = await self._body(approval, step), f"{approval.id}.{step[0]}"
        tries = refusals = 0
        while problem := await self._try(id_, body):
            tries += 1
            refusals += problem.refused
            if refusals >= TRIES or self._now() >= step[1] + LATEST_S:
                self.lost += 1
                _log.error("the webhook was not told that call %s is %s: %s", approval.id, step[0], problem.text)
                return
            if not self.problem:
                _log.warning("the webhook of approvals does not take what it is told: %s", problem.text)
            self.problem = problem.text
            await self._sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries - 1, 30)) * (0.5 + self._chance()))
        self.problem = ""

    async def _try(self, id_: str, body: bytes) -> _Problem | None:
        """Why it was not told; None where it was."""
        at = int(self._now())
        headers = [("content-type", "application/json"), ("webhook-id", id_), ("webhook-timestamp", str(at))]
        try:
            if self.spec.secret is not None:
                key = key_of(self._fill(self.spec.secret))
                headers.append(("webhook-signature", signature(key, id_, at, body)))
            answer = await self._fetch(
                self.spec.url, method="POST", headers=tuple(headers), body=body, max_bytes=MAX_ANSWER,
                timeout_s=TIMEOUT_S, learnt=False,
            )  # fmt: skip
        except GatewayError as error:
            return _Problem(error.detail or error.public, False)
        if 200 <= answer.status < 300:
            return None
        return _Problem(f"HTTP status {answer.status}", 400 <= answer.status < 500 and answer.status not in LATER)

    async def _body(self, approval: Approval, step: Step) -> bytes:
        what, at, by = step
        told = document(approval, at)
        if self.spec.arguments:
            told["arguments"] = ((await self._parameters(approval)) or {}).get("arguments")
        told["decided_by"] = by or None
        return msgspec.json.encode({"type": f"approval.{what}", "timestamp": stamp(float(at)), "data": told})
