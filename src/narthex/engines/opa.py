"""A remote Open Policy Agent as the engine that decides: asked over kept connections, for each call and for lists.

In: documents. Out: decisions; whatever goes wrong is a denial with its own reason. The operator may have calls let
through while the agent is away (`on_error: allow`), and each one that is gets logged, counted and a reason of its own;
an agent that answers, and fails at the policy, denies all the same, because what is asked may be why. So may it be of
one that is too slow: whether it is away is asked of its `/health`, which no caller has a say in.
Does I/O by a `Fetch`. Cases: `tests/engines/test_opa.py`; with the real one: `tests/counterparts/test_opa.py`.
Source: Open Policy Agent, REST API; design §5.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from narthex.authority.fetch import Fetch, Headers
from narthex.engines.counts import Counts
from narthex.errors import AuthorityUnavailable, SecretMissing
from narthex.flow.policy.decision import (
    BAD_POLICY_RESULT,
    FAILED_OPEN,
    POLICY_FAILED,
    POLICY_TIMEOUT,
    Decision,
)
from narthex.flow.policy.document import Document
from narthex.flow.policy.engines.obligations import value_of
from narthex.flow.policy.engines.opa import (
    ENGINE,
    Nonsense,
    body_of,
    body_of_all,
    body_of_batch,
    lasting,
    picked,
    read_all,
    read_batch,
    read_fault,
    read_one,
)
from narthex.flow.policy.engines.trace import Trace, Unreadable, read_trace
from narthex.flow.upstream.secrets import HANDED_OUT
from narthex.types import OpaSpec

_log = logging.getLogger("narthex.policy")
MAX_ANSWER = 1024 * 1024
MAX_LIST = 8 * 1024 * 1024
AWAY = frozenset({429, 502, 503, 504})
"""Statuses of whoever stands in front of an agent that is not there."""
MOST_KEPT = 4096
"""Decisions that are kept for as long as the policy says."""
VISIBLE_BY = (
    *(("subject", part) for part in ("id", "issuer", "type", "groups", "roles", "scopes", "actor")),
    ("subject", "auth", "method"),
    *(("context", part) for part in ("endpoint", "tenant", "env")),
)
"""Without the operator's word: all that a document for a list says of its caller, but the time."""


class _Undecided(Exception):
    """Nothing was decided. `away`: because the agent was not to be had, which is what `on_error` is about."""

    def __init__(self, reason: str, detail: str, *, away: bool) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.away = reason, detail, away


class RemoteOpa:
    """One agent, for as long as its spec stays the same. An `Engine`.

    Args:
        secrets: The value of a secret by its name; raises SecretMissing.
        clock: Monotonic seconds.
        counts: Where it counts what it does.
    """

    name = ENGINE

    def __init__(
        self,
        spec: OpaSpec,
        *,
        fetch: Fetch,
        secrets: Callable[[str], str],
        clock: Callable[[], float],
        counts: Counts,
    ) -> None:
        self.spec = spec
        self.bundle = ""
        self.problem = ""
        """Why the last question was not answered; empty after one that was."""
        self.counts = counts
        self._fetch, self._secrets, self._clock = fetch, secrets, clock
        self._one = f"{spec.url}/v1/data/{spec.path}?provenance=true"
        self._many = f"{spec.url}/v1/data/{spec.batch}?provenance=true"
        self._batch = f"{spec.url}/v1/batch/data/{spec.path}?provenance=true"
        self._traced = f"{spec.url}/v1/data/{spec.path}?explain=full&pretty=true"
        self._has_batches = True
        self._token = ""
        self._room = asyncio.Semaphore(spec.max_in_flight)
        self._looking: asyncio.Task[bool] | None = None
        self._kept: dict[bytes, tuple[float, Decision]] = {}

    @property
    def reads_arguments(self) -> bool:
        return self.spec.arguments

    @property
    def seen_s(self) -> float:
        return self.spec.visible_s

    def seen_by(self, document: Document) -> object:
        """What the agent is taken to look at in a caller."""
        return picked(document, self.spec.visible_by or VISIBLE_BY)

    def known(self, document: Document) -> Decision | None:
        """A decision that the policy lets us use again (`cache_ttl_s`)."""
        if not self._kept:
            return None
        found = self._kept.get(_key(document))
        return found[1] if found is not None and self._clock() < found[0] else None

    async def decide(self, document: Document) -> Decision:
        """Ask about a call."""
        found = await self._decide(document, self.spec.deadline_s)
        if lasts_s := value_of(found.obligations, "cache_ttl_s"):
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[_key(document)] = (self._clock() + lasts_s, found)
        return found

    async def decide_all(self, documents: Sequence[Document]) -> Sequence[Decision]:
        """Ask about the things of a list: at once where the agent or its policy can, else side by side."""
        spec, count = self.spec, len(documents)
        try:
            async with self._within(spec.list_deadline_s):
                if spec.batch:
                    found = read_all(await self._post(self._many, body_of_all(documents), (), MAX_LIST), count)
                    self._learn(found[-1].bundle if found else "")
                    return found
                if self._has_batches and (answer := await self._post_batch(documents)) is not None:
                    return self._batched(read_batch(answer, count))
        except _Undecided as undecided:
            return [self._without(await self._made_sure(undecided), count)] * count
        return await asyncio.gather(*(self._decide(document, spec.list_deadline_s) for document in documents))

    async def _decide(self, document: Document, deadline_s: float) -> Decision:
        try:
            async with self._within(deadline_s):
                found = read_one(await self._post(self._one, body_of(document), document.trace, MAX_ANSWER))
        except _Undecided as undecided:
            return self._without(await self._made_sure(undecided))
        self._learn(found.bundle)
        return found

    async def trace(self, document: Document) -> Trace:
        """Which lines the agent looks at for this document: it is asked once more, and in full. Not for calls."""
        try:
            async with self._within(self.spec.list_deadline_s):
                return read_trace(await self._post(self._traced, body_of(document), (), MAX_ANSWER))
        except _Undecided as undecided:
            return Trace(problem=undecided.detail)
        except Unreadable as error:
            return Trace(problem=str(error))

    def _batched(self, found: list[Decision | None]) -> list[Decision]:
        self._learn(next((one.bundle for one in found if one is not None), ""))
        failed = _Undecided(POLICY_FAILED, "the policy failed at one of a batch", away=False)
        return [one if one is not None else self._without(failed) for one in found]

    async def _post_batch(self, documents: Sequence[Document]) -> bytes | None:
        """The answer of the batch API; None where there is none, which is asked once."""
        status, body = await self._send(self._batch, body_of_batch(documents), (), MAX_LIST)
        if status == 404:
            self._has_batches = False
            return None
        return _checked(status, body, (200, 207))

    async def _post(self, url: str, body: bytes, headers: Headers, max_bytes: int) -> bytes:
        return _checked(*await self._send(url, body, headers, max_bytes))

    async def _send(self, url: str, body: bytes, headers: Headers, max_bytes: int) -> tuple[int, bytes]:
        async with self._room:
            self.counts.asked += 1
            answer = await self._fetch(
                url, method="POST", headers=(("Content-Type", "application/json"), *headers, *self._shown()),
                body=body, max_bytes=max_bytes, timeout_s=2 * self.spec.list_deadline_s, learnt=False,
                tls=self.spec.tls,
            )  # fmt: skip
        return answer.status, answer.body

    def _shown(self) -> Headers:
        """Who we are. Raises SecretMissing."""
        if self.spec.token is None:
            return ()
        token = self.spec.token.fill(self._secrets)
        if token != self._token:
            self._token = token
            HANDED_OUT.add(token)
        return (("Authorization", f"Bearer {token}"),)

    @asynccontextmanager
    async def _within(self, deadline_s: float) -> AsyncIterator[None]:
        """Whatever goes wrong inside is `_Undecided`; waiting for our turn is part of the time."""
        try:
            async with asyncio.timeout(deadline_s):
                yield
        except TimeoutError:
            raise _Undecided(POLICY_TIMEOUT, f"no decision within {deadline_s:g} s", away=True) from None
        except (AuthorityUnavailable, SecretMissing) as error:
            away = isinstance(error, SecretMissing) or not error.answered  # a caller may have a say in how much it says
            raise _Undecided(POLICY_FAILED, error.detail or error.public, away=away) from None
        except Nonsense as error:
            raise _Undecided(BAD_POLICY_RESULT, str(error), away=False) from None

    async def _made_sure(self, undecided: _Undecided) -> _Undecided:
        """Is the agent away, where that would let something through? One that is there, and was too slow, or too busy,
        was made so by what is asked."""
        if not undecided.away or self.spec.on_error == "deny":
            return undecided
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._is_there())
            self._looking.add_done_callback(self._looked)
        if not await asyncio.shield(self._looking):
            return undecided
        return _Undecided(undecided.reason, f"{undecided.detail}; the agent is there", away=False)

    def _looked(self, task: asyncio.Task[bool]) -> None:
        self._looking = None

    async def _is_there(self) -> bool:
        """Does it answer at all, within the time that a decision has? Beside those that wait for their turn."""
        try:
            async with asyncio.timeout(self.spec.deadline_s):
                answer = await self._fetch(
                    f"{self.spec.url}/health", headers=self._shown(), timeout_s=2 * self.spec.deadline_s, learnt=False,
                    tls=self.spec.tls,
                )  # fmt: skip
        except (TimeoutError, AuthorityUnavailable, SecretMissing) as error:
            return isinstance(error, AuthorityUnavailable) and error.answered
        return answer.status not in AWAY

    def _without(self, undecided: _Undecided, count: int = 1) -> Decision:
        """What is said where nothing was decided."""
        reason, detail = undecided.reason, undecided.detail
        self.counts.undecided += count
        if not self.problem:
            _log.error("the policy agent at %s does not decide: %s", self.spec.url, detail)
        self.problem = detail
        if not undecided.away or self.spec.on_error == "deny":
            return Decision("deny", reason, detail=detail, engine=self.name, bundle=self.bundle)
        self.counts.opened += count
        _log.warning(
            "let through without a decision of %s (on_error: allow), %d times: %s", self.spec.url, count, detail
        )
        return Decision("allow", FAILED_OPEN, detail=f"{reason}: {detail}", engine=self.name, bundle=self.bundle)

    def _learn(self, bundle: str) -> None:
        """It has answered, by this revision: what another one said is forgotten."""
        if self.problem:
            _log.info("the policy agent at %s decides again", self.spec.url)
            self.problem = ""
        if bundle != self.bundle:
            self.bundle = bundle
            self._kept.clear()


def _checked(status: int, body: bytes, good: Sequence[int] = (200,)) -> bytes:
    if status not in good:
        raise _Undecided(POLICY_FAILED, read_fault(status, body), away=status in AWAY)
    return body


def _key(document: Document) -> bytes:
    return hashlib.sha256(lasting(document)).digest()
