"""Spans and metrics on their way to a collector: gathered, encoded in another thread, posted, and tried again.

In: a `Tracer`'s queue, `Accounts`. Out: gzipped OTLP over HTTP. The queue is bounded, and what does not fit, what a
collector does not take, and what is too old when it can be reached again, is counted. Threads give way between slices,
so that encoding holds up no call. Does I/O. Cases: `tests/telemetry/otlp/test_export.py`, with a receiver that reads
what it gets by `opentelemetry-proto`.
Source: OTLP 1.x, "OTLP/HTTP": 429, 502, 503 and 504 are worth another try, after `Retry-After` where it is said.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from narthex import __version__
from narthex.authority.fetch import Fetch, Headers
from narthex.errors import AuthorityUnavailable, SecretMissing
from narthex.outlet import OtlpSpec
from narthex.telemetry import conventions as names
from narthex.telemetry.accounts import Accounts, Family
from narthex.telemetry.otlp.metrics import Places, Point, copied, encode_metrics
from narthex.telemetry.otlp.spans import attributes_of_server, encode_traces, place_of_server
from narthex.telemetry.otlp.wire import attributes, read_rejected
from narthex.telemetry.traces import Ended, Tracer
from narthex.types import ServerSpec

BATCH: Final = 512
"""Calls of one request."""
TIMEOUT_S: Final = 10.0
LAST_S: Final = 2.0
"""How long the end of the process waits for the last batch."""
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
AGAIN: Final = frozenset({429, 502, 503, 504})
_log: Final = logging.getLogger("narthex.otlp")


class Refused(Exception):
    """The collector will not take this batch, however often it is sent."""


class Exporter:
    """Sends what is gathered, for as long as its spec stays the same: `start`, `close`.

    Args:
        tracer: None where no traces are sent.
        servers: The servers by name, as they are now.
        fill: A text with references to secrets as what it says; raises SecretMissing.
        now: Unix seconds. clock: monotonic seconds, as calls are timed. chance: 0 ≤ x < 1.
    """

    def __init__(
        self,
        spec: OtlpSpec,
        tracer: Tracer | None,
        accounts: Accounts,
        *,
        fetch: Fetch,
        servers: Callable[[], Mapping[str, ServerSpec]],
        secrets: Callable[[str], str],
        instance: str,
        environment: str,
        now: Callable[[], float],
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.spec = spec
        self.problem = ""
        """Why the last batch could not be sent; empty after one that was."""
        self.sent = self.lost = self.failures = 0
        """Calls whose spans were sent; those that were not, beside what the tracer had no room for; failed requests."""
        self._tracer, self._accounts, self._fetch, self._servers = tracer, accounts, fetch, servers
        self._secrets, self._now, self._clock, self._chance = secrets, now, clock, chance
        self._resource = attributes(
            1,
            (
                (names.SERVICE_NAME, spec.service),
                (names.SERVICE_VERSION, __version__),
                (names.SERVICE_INSTANCE, instance),
                (names.DEPLOYMENT, environment),
            ),
        )
        self._since = int(now() * 1e9)
        self._in_a_row = 0
        self._wait_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def dropped(self) -> int:
        """Calls whose spans nobody will see."""
        return self.lost + (self._tracer.dropped if self._tracer is not None else 0)

    def start(self) -> None:
        """Send from now on."""
        loop = asyncio.get_running_loop()
        if self._tracer is not None:
            self._tasks.append(loop.create_task(self._run(self.spec.every_s, self.flush)))
        if self.spec.metrics:
            self._tasks.append(loop.create_task(self._run(self.spec.metrics_every_s, self.send_metrics)))

    async def close(self) -> None:
        """Send what is left, if that goes quickly."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self.flush()
                if self.spec.metrics:
                    await self.send_metrics()

    async def _run(self, every_s: float, send: Callable[[], Awaitable[object]]) -> None:
        while True:
            await asyncio.sleep(max(every_s, self._wait_s))
            try:
                await send()
            except Exception:
                _log.exception("telemetry could not be sent")

    async def flush(self) -> None:
        """Send the spans that wait, batch by batch, until one cannot be sent."""
        while self._tracer is not None and self._tracer.ended and await self.send_spans():
            pass

    async def send_spans(self) -> bool:
        """Send one batch. False: it could not be, and waits again; or it is lost."""
        assert self._tracer is not None
        queue = self._tracer.ended
        batch = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
        if not batch:
            return True
        base = self._now() - self._clock()
        peers = {name: attributes_of_server(spec) for name, spec in self._servers().items()}
        try:
            body = await asyncio.to_thread(_packed_spans, batch, self._resource, base, peers)
            rejected = await self._post("/v1/traces", body)
        except Refused as problem:
            self.lost += len(batch)
            self._fail(str(problem))
            return False
        except (AuthorityUnavailable, SecretMissing) as error:
            self._put_back(batch)
            self._fail(error.detail or error.public)
            return False
        except BaseException:
            self._put_back(batch)
            raise
        self.sent += len(batch)
        if rejected:
            _log.warning("the collector has not taken %d spans", rejected)
        return True

    async def send_metrics(self) -> bool:
        """Send all metrics as they are now. False: they could not be; the next ones say the same."""
        taken = await self._take()
        now = int(self._now() * 1e9)
        places = {name: place_of_server(spec) for name, spec in self._servers().items()}
        try:
            body = await asyncio.to_thread(_packed_metrics, taken, self._resource, self._since, now, places)
            rejected = await self._post("/v1/metrics", body)
        except (AuthorityUnavailable, SecretMissing) as error:
            self._fail(error.detail or error.public)
            return False
        except Refused as problem:
            self._fail(str(problem))
            return False
        if rejected:
            _log.warning("the collector has not taken %d points of metrics", rejected)
        return True

    async def _take(self) -> list[tuple[Family, list[Point]]]:
        """All numbers, copied in slices: calls go first."""
        taken: list[tuple[Family, list[Point]]] = []
        for family in self._accounts.families():
            points: list[Point] = []
            for some in family.slices:
                points += [(labels, copied(value)) for labels, value in some]
                await asyncio.sleep(0)
            taken.append((family, points))
        return taken

    async def _post(self, path: str, body: bytes) -> int:
        """Returns what of it the collector has not taken. Raises AuthorityUnavailable, SecretMissing, Refused."""
        own = tuple((name, value.fill(self._secrets)) for name, value in self.spec.headers)
        headers: Headers = (("Content-Type", "application/x-protobuf"), ("Content-Encoding", "gzip"), *own)
        url = self.spec.url + path
        answer = await self._fetch(url, method="POST", headers=headers, body=body, timeout_s=TIMEOUT_S, learnt=False)
        if answer.status in AGAIN:
            self._wait_s = _seconds(answer.headers.get("retry-after", ""))
            raise AuthorityUnavailable(detail=f"{url}: HTTP {answer.status}")
        if not 200 <= answer.status < 300:
            raise Refused(f"{url}: HTTP {answer.status}")
        if self.problem:
            _log.info("telemetry is sent again")
        self.problem, self._in_a_row, self._wait_s = "", 0, 0.0
        return read_rejected(answer.body)

    def _put_back(self, batch: list[Ended]) -> None:
        """In front of what came meanwhile; the oldest goes where there is no room."""
        assert self._tracer is not None
        self.lost += self._tracer.put_back(batch)

    def _fail(self, problem: str) -> None:
        if not self.problem:
            _log.error("telemetry cannot be sent at present: %s", problem)
        self.problem = problem
        self.failures += 1
        self._in_a_row += 1
        pause = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._in_a_row - 1, 10)) * (0.5 + self._chance() / 2)
        self._wait_s = max(pause, self._wait_s)


def _packed_spans(batch: list[Ended], resource: bytes, base: float, peers: Mapping[str, bytes]) -> bytes:
    return gzip.compress(encode_traces(batch, resource, base, peers, _breathe), 1)


def _packed_metrics(
    taken: list[tuple[Family, list[Point]]], resource: bytes, since: int, now: int, places: Places
) -> bytes:
    return gzip.compress(encode_metrics(taken, resource, since, now, places, _breathe), 1)


def _breathe() -> None:
    """Let go of the interpreter: who waits for it gets it now, and not when its turn is over (5 ms)."""
    time.sleep(0)


def _seconds(text: str) -> float:
    """`Retry-After` in seconds, bounded; a date or nonsense counts as nothing."""
    return min(float(text), LAST_RETRY_S) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0
