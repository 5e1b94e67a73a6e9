"""Decisions of the engine, logged as Open Policy Agent logs them: gathered, and sent in batches or written to a file.

In: documents with their decisions. Out: gzipped JSON arrays posted to a log service, or lines of JSON in a file. A call
leaves two references here and goes on; events are made when they are sent, in slices. What cannot be sent is kept and
tried again later, until the buffer is full: then the oldest go, counted. Does I/O.
Cases: `tests/engines/test_decision_log.py`. Source: Open Policy Agent, Decision Logs.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import msgspec

from narthex import __version__
from narthex.authority.fetch import Fetch, Headers
from narthex.engines.counts import Counts
from narthex.errors import AuthorityUnavailable, SecretMissing
from narthex.flow.policy.decision import Decision
from narthex.flow.policy.document import Document
from narthex.flow.policy.engines.decision_events import erased, event_of
from narthex.types import DecisionLogSpec

_log = logging.getLogger("narthex.policy")
BATCH = 500
"""Events of one request."""
SLICE = 25
"""Events that are made between two pauses: well under a millisecond."""
OVERHEAD = 1024
"""Bytes that an event is taken to hold beside the request of its call."""
TIMEOUT_S = 10.0
LAST_S = 2.0
"""How long the end of the process waits for the last batch."""
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 300.0
_Entry = tuple[Document, Decision, float, int]
"""With when it was taken, and the bytes that it holds."""


class DecisionLog:
    """One log, for as long as its spec stays the same: `start`, `add`, `close`.

    Args:
        path: Of the rule that is asked.
        secrets: The value of a secret by its name; raises SecretMissing.
        now: Unix seconds. chance: 0 ≤ x < 1. new_id: a UUID.
        counts: Where it counts what it does.
    """

    def __init__(
        self,
        spec: DecisionLogSpec,
        path: str,
        *,
        fetch: Fetch,
        secrets: Callable[[str], str],
        now: Callable[[], float],
        chance: Callable[[], float],
        new_id: Callable[[], str],
        counts: Counts,
    ) -> None:
        self.spec, self.path, self.counts = spec, path, counts
        self.problem = ""
        """Why the last batch could not be sent; empty after one that was."""
        self._fetch, self._secrets = fetch, secrets
        self._now, self._chance, self._new_id = now, chance, new_id
        self._labels = {"app": "narthex", "id": new_id(), "version": __version__, **spec.labels}
        self._waiting: deque[_Entry] = deque()
        self._size = 0
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Send from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def add(self, document: Document, decision: Decision) -> None:
        """Log a decision that was just taken."""
        self._put([(document, decision, self._now(), size_of(document))])

    async def close(self) -> None:
        """Send what is left, if that goes quickly."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                while self._waiting and await self.flush():
                    pass

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._wait_s())
            try:
                while self._waiting and await self.flush():
                    if len(self._waiting) < BATCH:
                        break
            except Exception:
                _log.exception("sending decisions failed")
                self._failures += 1

    def _wait_s(self) -> float:
        if not self._failures:
            return self.spec.every_s
        return min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 30)) * (0.5 + self._chance() / 2)

    async def flush(self) -> bool:
        """Send one batch. False: it could not be, and waits again."""
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        self._size -= sum(size for *_, size in batch)
        try:
            lines = await self._lines(batch)
            await (self._post(lines) if self.spec.url else asyncio.to_thread(_append, self.spec.file, lines))
        except BaseException as error:
            self._put_back(batch)
            if not isinstance(error, AuthorityUnavailable | SecretMissing | OSError):
                raise
            self._fail(error.detail or error.public if not isinstance(error, OSError) else str(error))
            return False
        self.counts.logged += len(batch)
        if self.problem:
            _log.info("decisions are logged again")
        self.problem, self._failures = "", 0
        return True

    async def _lines(self, batch: Sequence[_Entry]) -> list[bytes]:
        lines = []
        for number, (document, decision, at, _) in enumerate(batch, 1):
            event = event_of(document, decision, at=at, id_=self._new_id(), labels=self._labels, path=self.path)
            lines.append(msgspec.json.encode(erased(event, self.spec.mask)))
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return lines

    async def _post(self, lines: Sequence[bytes]) -> None:
        """As the log service takes it. Raises AuthorityUnavailable, SecretMissing."""
        headers: Headers = (("Content-Type", "application/json"), ("Content-Encoding", "gzip"))
        if self.spec.token is not None:
            headers = (*headers, ("Authorization", f"Bearer {self.spec.token.fill(self._secrets)}"))
        body = await asyncio.to_thread(gzip.compress, b"[" + b",".join(lines) + b"]", 6)
        answer = await self._fetch(
            self.spec.url, method="POST", headers=headers, body=body, timeout_s=TIMEOUT_S, learnt=False,
            tls=self.spec.tls,
        )  # fmt: skip
        if not 200 <= answer.status < 300:
            raise AuthorityUnavailable(detail=f"{self.spec.url}: HTTP {answer.status}")

    def _put(self, entries: Iterable[_Entry]) -> None:
        for entry in entries:
            self._waiting.append(entry)
            self._size += entry[3]
        while self._size > self.spec.max_buffer and self._waiting:
            self._size -= self._waiting.popleft()[3]
            self.counts.lost += 1

    def _put_back(self, batch: Sequence[_Entry]) -> None:
        """In front of what came meanwhile: it is older, and goes first where there is no room."""
        since = list(self._waiting)
        self._waiting.clear()
        self._size = 0
        self._put([*batch, *since])

    def _fail(self, problem: str) -> None:
        if not self.problem:
            _log.error("decisions cannot be logged at present: %s", problem)
        self.problem = problem
        self._failures += 1


def size_of(document: Document) -> int:
    """What it holds: its call with the whole request, and the arguments as they were decoded."""
    if document.call is None:
        return OVERHEAD
    params = document.call.params
    decoded = decoded_size(bytes(params.get("arguments", b""))) if document.arguments is not None else 0
    return sum(map(len, params.values())) + decoded + OVERHEAD


def decoded_size(raw: bytes) -> int:
    """At least the memory that JSON takes once it is decoded, told by its punctuation: a caller makes seventy bytes of
    one with `[[[[`. As CPython lays objects out."""
    count = raw.count
    return 96 + 4 * len(raw) + 240 * count(b"{") + 88 * count(b"[") + 64 * (count(b",") + count(b":"))


def _append(path: str, lines: Sequence[bytes]) -> None:
    """Opened each time, so that whoever rotates files may move it. For this user alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"\n".join(lines) + b"\n")
