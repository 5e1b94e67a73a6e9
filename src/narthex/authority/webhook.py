"""Tells somebody what has happened, a step of a held call say: a POST of JSON, signed, tried again until it is taken,
never waited for.

In: messages, in order. Out: requests in the form of Standard Webhooks (`webhook-id`, `webhook-timestamp`,
`webhook-signature`). Arguments only where the operator says so. The address is one that the operator wrote, so it may
be private; redirects are not followed. While the receiver is away, messages wait in their order; steps of held calls in
the store, too: a restart loses none. What it refuses, by a status that says so, is given up after `TRIES`, and said.
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
from functools import partial
from typing import Any

import msgspec

from narthex.authority.approvals import document
from narthex.authority.fetch import Fetch
from narthex.errors import GatewayError
from narthex.flow.policy.approvals.approval import Approval, Step
from narthex.telemetry.stamps import stamp
from narthex.types import SecretText, Webhook

TRIES = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
"""Behind the first try that failed; twice as long behind each further one, up to the longest."""
LATEST_S = 86_400.0
"""How old a message may be that is tried again: the store keeps steps for about as long."""
TIMEOUT_S = 10.0
MOST_WAITING = 1000
"""Messages that wait in memory to be told; other steps wait in the store."""
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


class Message(msgspec.Struct, frozen=True):
    """What is to be told. `id` is the same however often it is tried; `words` say it in the log, `at` (Unix seconds)
    when it happened. `body` makes what is sent, once; `done` is called in the end: True where somebody took it."""

    id: str
    at: float
    words: str
    body: Callable[[], Awaitable[bytes]]
    done: Callable[[bool], None]


class Sender:
    """Tells one receiver, one message at a time. `close` leaves to another one what is left.

    Args:
        fetch: Asks by the egress rules in force.
        fill: Puts the value of a secret together; raises SecretMissing.
        now: Seconds since 1970. chance: 0 to 1. sleep: waits.
    """

    def __init__(
        self,
        spec: Webhook,
        *,
        fetch: Fetch,
        fill: Callable[[SecretText], str],
        now: Callable[[], float],
        chance: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.spec = spec
        self.lost = 0
        """Messages that were given up."""
        self.problem = ""
        """Why the last one was not taken; empty after one that was."""
        self._fetch, self._fill = fetch, fill
        self._now, self._chance, self._sleep = now, chance, sleep
        self._waiting: deque[Message] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def room(self) -> int:
        """So many more messages at present."""
        return MOST_WAITING - len(self._waiting)

    def send(self, message: Message) -> None:
        """Queue one. Never waits, never raises; whoever may send more than there is `room` for asks first."""
        self._waiting.append(message)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._send_all())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _send_all(self) -> None:
        while self._waiting:
            message, taken = self._waiting[0], False
            try:
                taken = await self._send(message)
            except Exception:
                _log.exception("a webhook failed")
            self.lost += not taken
            self._waiting.popleft()
            message.done(taken)

    async def _send(self, message: Message) -> bool:
        """Until it is taken; or refused, or too old: False."""
        body = await message.body()
        tries = refusals = 0
        while problem := await self._try(message.id, body):
            tries += 1
            refusals += problem.refused
            if refusals >= TRIES or self._now() >= message.at + LATEST_S:
                _log.error("the webhook was not told that %s: %s", message.words, problem.text)
                return False
            if not self.problem:
                _log.warning("a webhook does not take what it is told: %s", problem.text)
            self.problem = problem.text
            await self._sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries - 1, 30)) * (0.5 + self._chance()))
        self.problem = ""
        return True

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


class Hook(Sender):
    """Tells of the steps of held calls.

    Args:
        parameters: Those of a held call, where they can still be read.
        done: Called when a step need not be told again: the approval, and its how-manieth step it was.
    """

    def __init__(
        self,
        spec: Webhook,
        *,
        parameters: Callable[[Approval], Awaitable[Any]],
        done: Callable[[Approval, int], None],
        **means: Any,
    ) -> None:
        super().__init__(spec, **means)
        self._parameters, self._done = parameters, done

    def tell(self, approval: Approval, step: Step, number: int) -> None:
        """Queue one step, the `number`-th of its approval. Never waits, never raises."""
        self.send(
            Message(
                f"{approval.id}.{step[0]}",
                step[1],
                f"call {approval.id} is {step[0]}",
                partial(self._body, approval, step),
                lambda taken: self._done(approval, number),
            )  # fmt: skip
        )

    async def _body(self, approval: Approval, step: Step) -> bytes:
        what, at, by = step
        told = document(approval, at)
        if self.spec.arguments:
            told["arguments"] = ((await self._parameters(approval)) or {}).get("arguments")
        told["decided_by"] = by or None
        return msgspec.json.encode({"type": f"approval.{what}", "timestamp": stamp(float(at)), "data": told})
