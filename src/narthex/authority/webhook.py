"""Tells somebody of each step of a held call: a POST of JSON, signed, tried again, never waited for.

In: approvals and their steps, in order. Out: requests in the form of Standard Webhooks (`webhook-id`,
`webhook-timestamp`, `webhook-signature`). Arguments only where the operator says so. The address is one that the
operator wrote, so it may be private; redirects are not followed. What cannot be told in `TRIES` is given up, and said.
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
FIRST_PAUSE_S = 1.0
"""Behind the first try that failed; twice as long behind each further one: about two minutes in all."""
TIMEOUT_S = 10.0
MOST_WAITING = 1000
"""Steps that wait to be told; the oldest are given up for newer ones."""
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


class Hook:
    """Tells one receiver, one step at a time. `close` gives up what is left.

    Args:
        fetch: Asks by the egress rules in force.
        fill: Puts the value of a secret together; raises SecretMissing.
        parameters: Those of a held call, where they can still be read.
        now: Seconds since 1970. chance: 0 to 1. sleep: waits.
    """

    def __init__(
        self,
        spec: Webhook,
        *,
        fetch: Fetch,
        fill: Callable[[SecretText], str],
        parameters: Callable[[Approval], Awaitable[Any]],
        now: Callable[[], float],
        chance: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.spec = spec
        self.lost = 0
        self._fetch, self._fill, self._parameters = fetch, fill, parameters
        self._now, self._chance, self._sleep = now, chance, sleep
        self._waiting: deque[tuple[Approval, Step]] = deque()
        self._task: asyncio.Task[None] | None = None

    def tell(self, approval: Approval, step: Step) -> None:
        """Queue one step. Never waits, never raises."""
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append((approval, step))
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._tell_all())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _tell_all(self) -> None:
        while self._waiting:
            approval, step = self._waiting.popleft()
            try:
                await self._tell(approval, step)
            except Exception:
                self.lost += 1
                _log.exception("the webhook of approvals failed")

    async def _tell(self, approval: Approval, step: Step) -> None:
        body, id_ = await self._body(approval, step), f"{approval.id}.{step[0]}"
        problem = ""
        for number in range(TRIES):
            if number:
                await self._sleep(FIRST_PAUSE_S * 2 ** (number - 1) * (0.5 + self._chance()))
            problem = await self._try(id_, body)
            if not problem:
                return
        self.lost += 1
        _log.error("the webhook was not told that call %s is %s, tried %d times: %s",
                   approval.id, step[0], TRIES, problem)  # fmt: skip

    async def _try(self, id_: str, body: bytes) -> str:
        """Why it was not told; empty where it was."""
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
            return error.detail or error.public
        return "" if 200 <= answer.status < 300 else f"HTTP status {answer.status}"

    async def _body(self, approval: Approval, step: Step) -> bytes:
        what, at, by = step
        told = document(approval, at)
        if self.spec.arguments:
            told["arguments"] = ((await self._parameters(approval)) or {}).get("arguments")
        told["decided_by"] = by or None
        return msgspec.json.encode({"type": f"approval.{what}", "timestamp": stamp(float(at)), "data": told})
