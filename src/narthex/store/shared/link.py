"""The link of a gateway to its shared counters: connected again and again, under a fresh name each time.

In: where the server is, who we are there, what the ledger knows. Out: a `Stint` for whoever counts on it, once the
server is one to count on: it has our scripts, knows our name, and what lasts, if it had forgotten it. Whoever counts is
told when that is over, and why. Cases: `tests/store/shared/test_counters.py`, with faults `test_faults.py`. Protocol:
`begin.lua`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import hiredis

from narthex.flow.limit.limiter import Limit, Limiter
from narthex.flow.limit.shared.beginning import begin_command, read_begun
from narthex.flow.limit.shared.wire import CHUNKS, LEASE_US, Garbled, Numbers, Remote, Request
from narthex.flow.limit.spending import Use
from narthex.store.shared.connection import Connection, Login, Refused, ask, client_context, explain, greet
from narthex.store.shared.entries import CORRECT, Stint
from narthex.types import SharedSpec

MOST_BUCKETS = 1000
"""Of one request: the server does nothing else meanwhile."""
BEAT_S = LEASE_US / 3_000_000
GREETING_S = 2.0
FIRST_TRY_S = 3.0
"""So long a gateway that starts waits for its counters."""
FIRST_S, LONGEST_S = 0.05, 5.0
LIVED_S = 1.0
"""A connection that was there for so long was a good one: the next is tried at once."""
GRACE_S = 0.2
"""So long other gateways with the same ledger take to write what they have spent."""
NOTHING_LASTS = b"-"
_log = logging.getLogger("narthex.shared")


class Counting(Protocol):
    """Whoever counts on the server."""

    problem: str
    hopeful: bool
    told: int

    def time(self) -> int:
        """The server's, as near as it is known: microseconds since 1970."""

    def heard_time(self, now: int) -> None:
        """What the server says it is."""

    def remote(self, limit: Limit) -> Remote:
        """A limit as the server knows it."""

    def count_on(self, stint: Stint, done: int) -> None:
        """All is known there. Of the requests under the name before, the first `done` were done (-1: nobody knows)."""

    def beat(self) -> None:
        """Say that we live, where nothing else was said."""

    def gone(self, why: str) -> None:
        """What was counted on is over. What was under way may have been done or not: the next beginning tells."""

    def away(self, why: str) -> None:
        """It cannot be connected, and whoever waits is to be decided about."""

    def stop(self) -> None:
        """The gateway stops."""


class Link:
    """Keeps one gateway connected, as long as `run` runs.

    Args:
        password: For each connection anew; what it raises is said as the problem.
        ledger: Names what `restore` reads: gateways with the same ledger have one name. Empty: nothing lasts.
        restore: What the ledger knows of limits that last, at a time in microseconds since 1970.
        clock: Monotonic seconds. holder: a fresh name below 2^53. chance: in [0, 1).
    """

    def __init__(
        self,
        counting: Counting,
        spec: SharedSpec,
        limiter: Limiter,
        *,
        password: Callable[[], str],
        ledger: Callable[[], str],
        restore: Callable[[int], Awaitable[Sequence[Use]]],
        clock: Callable[[], float],
        holder: Callable[[], int],
        chance: Callable[[], float],
    ) -> None:
        self._counting, self._spec, self._limiter = counting, spec, limiter
        self._password, self._ledger_name, self._restore = password, ledger, restore
        self._clock, self._holder, self._chance = clock, holder, chance
        prefix = spec.prefix.encode()
        self.hashes = (prefix + b":ledgers", prefix + b":gateways")
        self.ledger = b""
        self.tried = asyncio.Event()
        """It was tried to connect, once at least."""
        self.connection: Connection | None = None
        self._over = asyncio.Event()
        self._holder_before = 0

    def ledger_changed(self) -> None:
        """Begin anew where what lasts is written elsewhere now."""
        if self.connection is not None and self._named() != self.ledger:
            self.connection.close("the ledger is another one")

    def _named(self) -> bytes:
        return self._ledger_name().encode() or NOTHING_LASTS

    async def first_try(self) -> None:
        """Wait until it was tried to connect, and not for long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.tried.wait(), FIRST_TRY_S)

    async def run(self) -> None:
        """Keep the server connected, until it is cancelled."""
        counting, tries = self._counting, 0
        try:
            while True:
                why = await self._connect()
                self.tried.set()
                if not why:
                    since = self._clock()
                    await self._serve()
                    if self._clock() > since + LIVED_S:
                        tries = 0
                        if counting.hopeful:
                            continue
                    why = counting.problem
                counting.away(why)
                await asyncio.sleep(min(LONGEST_S, FIRST_S * 2**tries) * (0.5 + self._chance()))
                tries = min(tries + 1, 20)
        finally:
            counting.stop()
            if self.connection is not None:
                self.connection.close("the gateway stops")
            counting.away("the gateway stops")

    async def _serve(self) -> None:
        """Until the connection is over; a gateway that has nothing to ask says that it lives."""
        while not self._over.is_set():
            told = self._counting.told
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._over.wait()
            if told == self._counting.told:
                self._counting.beat()

    async def _connect(self) -> str:
        """Connect and begin. Returns why not, empty where it went well."""
        self._over.clear()
        try:
            self.connection = await self._open()
            password = self._password()
            await greet(self.connection, Login(self._spec.username, password, self._spec.database), GREETING_S)
            await self._begin(self.connection)
            return ""
        except Refused as error:
            why = str(error)
        except TimeoutError:
            why = "it does not answer"
        except ssl.SSLCertVerificationError as error:
            why = f"TLS: its certificate is not trusted: {error.verify_message}"
        except ssl.SSLError as error:
            why = f"TLS: {error.reason or error}"
        except OSError as error:
            why = f"it cannot be reached: {error.strerror or error}"
        except Garbled as error:
            why = f"it answers what no such server does: {error}"
        except Exception as error:  # a secret that cannot be had, a ledger that cannot be read
            why = str(error) or type(error).__name__
            _log.debug("the shared counters cannot be used", exc_info=True)
        if self.connection is not None:
            self.connection.close(why)
        return why

    async def _open(self) -> Connection:
        spec, context = self._spec, None
        if spec.tls:
            try:
                context = client_context(spec.ca, spec.cert, spec.key)
            except OSError as error:  # an SSLError is one, too
                raise Refused(f"TLS: ca, cert or key cannot be used: {error.strerror or error}") from None
        try:
            async with asyncio.timeout(GREETING_S):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._closed), spec.host, spec.port, ssl=context
                )
        except TimeoutError:  # a server without TLS may wait for the end of what it takes for a command
            raise Refused("it does not answer over TLS" if spec.tls else "it does not answer") from None
        return connection

    async def _begin(self, connection: Connection) -> None:
        """Take a fresh name, and restore what lasts where the server does not know it. Raises Garbled, Refused,
        TimeoutError, and what `restore` raises."""
        before, holder, restored = self._holder_before, self._holder(), b""
        self.ledger = self._named()
        done: int | None = None
        while True:
            answer = await ask(
                connection, begin_command(self.hashes, self.ledger, holder, before, restored), GREETING_S
            )
            if isinstance(answer, hiredis.ReplyError):
                raise Refused(explain(answer))
            begun = read_begun(answer)
            self._counting.heard_time(begun.now)
            done = begun.done if done is None else done
            if begun.state == 0:
                break
            before = 0
            if begun.state == 1:
                await asyncio.sleep(GRACE_S / 2)
            else:
                await self._bring(connection, begun.token, holder)
                restored = begun.token
        self._holder_before = holder
        self._counting.count_on(Stint(begun.token, holder, begun.since), done)

    async def _bring(self, connection: Connection, token: bytes, holder: int) -> None:
        """Tell a server that has forgotten everything what lasts, in steps that are each done once."""
        if self.ledger == NOTHING_LASTS:
            return
        await asyncio.sleep(GRACE_S)
        uses = await self._restore(self._counting.time())
        limits = {limit.counter: limit for limit in self._limiter.limits if limit.lasting}
        count = CHUNKS * (1 + len(uses) // (CHUNKS * MOST_BUCKETS))
        chunks: list[list[Use]] = [[] for _ in range(count)]
        for use in uses:
            if use.counter in limits:
                chunks[int.from_bytes(use.key[:4]) % count].append(use)
        for number, chunk in enumerate(chunks, 1):
            if not chunk:
                continue
            request = Request(self._counting.time())
            request.ops += [CORRECT, len(chunk)]
            for use in sorted(chunk, key=lambda one: one.at):
                request.ops += [
                    request.bucket(self._counting.remote(limits[use.counter]), use.key),
                    use.amount,
                    use.at,
                    0,
                ]
            who = (self.ledger, token, holder, 0)
            answer = await ask(connection, request.command(self.hashes, who, number), GREETING_S)
            if isinstance(answer, hiredis.ReplyError):
                raise Refused(explain(answer))
            if not Numbers(answer).begun:
                raise Refused("another gateway restores it")

    def _closed(self, why: str) -> None:
        """The connection is over."""
        self.connection = None
        self._counting.gone(why)
        self._over.set()
