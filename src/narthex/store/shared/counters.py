"""The counters of limits that several gateways share: all calls of a moment are asked about in one request.

In: calls with their places and amounts, and how they end. Out: reservations and refusals, as the limits in memory give
them, in a while. What is asked has a deadline; while the server is away or slow, a `StandIn` decides at once. What
calls have used meanwhile is told to the counters once they are back. A server that has forgotten everything is told
what lasts, of the ledger, before anybody counts on it again.
Cases: `tests/store/shared/test_counters.py`, with faults `test_faults.py`. Protocol: `script.lua`, `begin.lua`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import hiredis

from narthex.errors import LimitsUnavailable, RateLimited
from narthex.flow.accept.metering import Metering
from narthex.flow.codec.jsonrpc import RawMap
from narthex.flow.limit.alerts import Alert
from narthex.flow.limit.limiter import Binding, Limit, Limiter, Place, Reservation, state_of
from narthex.flow.limit.shared.wire import (
    CHUNKS,
    LEASE_US,
    SCRIPT,
    Garbled,
    Numbers,
    Remote,
    Request,
    begin_command,
    command,
    read_begun,
)  # fmt: skip
from narthex.flow.limit.spending import Use
from narthex.flow.limit.state import State
from narthex.store.books import Books
from narthex.store.shared.connection import Connection, Login, Refused, ask, client_context, explain, greet
from narthex.store.shared.entries import CORRECT, Ask, Ended, Entry, Holding, Look, Row, Stint, Took
from narthex.store.shared.standin import Locally, StandIn
from narthex.types import SharedSpec

MOST_ASKED = 128
"""Entries of one request: the server does nothing else meanwhile."""
MOST_BUCKETS = 1000
MOST_SENT = 4
"""Requests under way; beyond, entries gather for the next."""
MOST_WAITING = 4096
"""Calls that wait for their turn."""
MOST_OWED = 100_000
"""Calls that have ended and are not told yet."""
ENDED_S = 0.005
"""So long the end of a call waits for a request to go along with."""
BEAT_S = LEASE_US / 3_000_000
GREETING_S = 2.0
FIRST_TRY_S = 3.0
"""So long a gateway that starts waits for its counters."""
GIVEN_UP_S = 1.0
"""A server that says nothing for so long is taken for dead."""
FIRST_S, LONGEST_S = 0.05, 5.0
LIVED_S = 1.0
"""A connection that was there for so long was a good one: the next is tried at once."""
GRACE_S = 0.2
"""So long other gateways with the same ledger take to write what they have spent."""
NOTHING_LASTS = b"-"
NOT_ASKED = "it was not asked yet"
SECOND = 1_000_000
Register = Callable[..., None]
_log = logging.getLogger("narthex.shared")


class Sent:
    """A request under way."""

    __slots__ = ("again", "at", "entries", "late", "number", "said")

    def __init__(self, entries: list[Entry], number: int, said: bytes, at: float) -> None:
        self.entries = entries
        self.number = number
        self.said = said
        self.at = at
        self.late = self.again = False


class Counters:
    """The counters of one gateway. `run` keeps them connected until it is cancelled.

    Args:
        limiter: Says which buckets there are; it counts nothing.
        password: For each connection anew; what it raises is said as the problem.
        ledger: Names what `restore` reads: gateways with the same ledger have one name. Empty: nothing lasts.
        restore: What the ledger knows of limits that last, at a time in microseconds since 1970.
        clock: Monotonic seconds. now: seconds since 1970. holder: a fresh name below 2^53. chance: in [0, 1).
    """

    def __init__(
        self,
        spec: SharedSpec,
        limiter: Limiter,
        *,
        password: Callable[[], str],
        ledger: Callable[[], str],
        restore: Callable[[int], Awaitable[Sequence[Use]]],
        tell: Callable[[Alert], None],
        clock: Callable[[], float],
        now: Callable[[], float],
        holder: Callable[[], int],
        chance: Callable[[], float],
    ) -> None:
        self.spec = spec
        self.limiter = limiter
        self._password, self._ledger_name, self._restore, self._tell = password, ledger, restore, tell
        self._clock, self._holder, self._chance = clock, holder, chance
        prefix = spec.prefix.encode()
        self._prefix = prefix + b":"
        self._hashes = (prefix + b":ledgers", prefix + b":gateways")
        self._remotes: dict[Limit, Remote] = {}
        self._ahead = int((now() - clock()) * SECOND)
        self.stand_in = StandIn(spec.when_down, spec.processes, self.time)
        self.problem = NOT_ASKED
        """Why the counters cannot be asked at present; empty while all is well."""
        self.living = self.told = self.lost = 0
        """Gateways that live, as last heard; requests that were answered; ended calls that nobody could be told of."""
        self._hopeful = False
        """It has just gone, and may be back before anybody has waited too long."""
        self._late = self._suspects = self._stops = False
        self._connection: Connection | None = None
        self._stint: Stint | None = None
        self._stint_before: Stint | None = None
        self._over, self.tried = asyncio.Event(), asyncio.Event()
        self._ledger = b""
        self._number = 0
        self._asks: deque[Ask | Look] = deque()
        self._owed: deque[Ended | Holding] = deque()
        self._sent: deque[Sent] = deque()
        self._unsure: list[Sent] = []
        self._holds: dict[tuple[bytes, bytes], int] = {}
        self._due: asyncio.Handle | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.stand_in.begin(limiter, 0)

    # --- calls

    def time(self) -> int:
        """The server's, as near as it is known: microseconds since 1970."""
        return int(self._clock() * SECOND) + self._ahead

    def apply(self) -> None:
        """The limits have changed."""
        self._remotes.clear()
        if self.problem:
            self.stand_in.begin(self.limiter, self.living)
        if self._connection is not None and (self._ledger_name().encode() or NOTHING_LASTS) != self._ledger:
            self._connection.close("the ledger is another one")

    def now(self, binding: Binding, places: tuple[Place, ...], amounts: tuple[int, ...]) -> Reservation | None:
        """None: ask, and wait. While the counters are away, whatever stands in decides. Raises as `StandIn.decide`."""
        if (self._stint is not None and not self._late) or self._hopeful:
            return None
        return self._instead(binding, places, amounts)

    def later(
        self, binding: Binding, places: tuple[Place, ...], amounts: tuple[int, ...], took: Took
    ) -> asyncio.Future[RawMap | RateLimited]:
        """What `took` makes of the reservation, or the refusal, within the time that is set."""
        future: asyncio.Future[RawMap | RateLimited] = self._loop.create_future()
        one = Ask(self, binding, places, amounts, took, future, self._clock() + self.spec.timeout_s)
        if len(self._asks) >= MOST_WAITING:
            self._decide(one)
        else:
            self._asks.append(one)
            self._soon()
        return future

    def settle(self, held: Reservation, used: Mapping[str, int]) -> None:
        """The call is over. `used`: how much it really was, by unit; what is not named was what was reserved."""
        self._end(held, used)

    def give_back(self, held: Reservation) -> None:
        """The call never went out: it used nothing."""
        self._end(held, None)

    async def states(self, subject: str) -> list[State]:
        """What is used of each limit, for people, by callers that were here lately. Raises LimitsUnavailable."""
        listed = list(self.limiter.listed(subject))
        found = await self.look([place for place, _ in listed])
        if found is None:
            raise LimitsUnavailable(f"the shared counters cannot be asked: {self.problem or 'they do not answer'}")
        return [state_of(place[3], words, *numbers) for (place, words), numbers in zip(listed, found, strict=True)]

    @property
    def holder(self) -> int:
        """The name under which it counts there; 0 while it does not."""
        return self._stint.holder if self._stint is not None else 0

    @property
    def owed(self) -> int:
        """Calls that have ended, and that the server does not know of yet."""
        return len(self._owed)

    def register(self, register: Register) -> None:
        """What is counted here, for `/metrics`."""
        stand_in = self.stand_in
        register("narthex_shared_up", "Can the shared counters be asked?", lambda: int(not self.problem))
        register("narthex_shared_requests_total", "Requests that they have answered.", lambda: self.told, "counter")
        register("narthex_shared_local_share_total", "Calls decided by this gateway's share while they were away.",
                 lambda: stand_in.shared, "counter")  # fmt: skip
        register("narthex_shared_refused_total", "Calls refused because they were away.",
                 lambda: stand_in.refused, "counter")  # fmt: skip
        register("narthex_shared_allowed_total", "Calls that went on although they were away.",
                 lambda: stand_in.allowed, "counter")  # fmt: skip
        register("narthex_shared_owed", "Calls that have ended, and that they do not know of yet.", lambda: self.owed)
        register("narthex_shared_lost_total", "Ended calls that they will never know of, for want of room.",
                 lambda: self.lost, "counter")  # fmt: skip

    def stood_in(self, held: Reservation) -> str:
        """How it was decided while the counters were away; empty where they have."""
        return self.spec.when_down if isinstance(held.stint, Locally) else ""

    async def look(self, places: Sequence[Place]) -> list[tuple[int, int]] | None:
        """What is used of buckets, and microseconds until there is more; None while nobody can say."""
        if self._stint is None or not places:
            return [] if not places else None
        found: list[tuple[int, int]] = []
        for start in range(0, len(places), MOST_BUCKETS):
            until = self._clock() + GIVEN_UP_S
            one = Look(places[start : start + MOST_BUCKETS], self._loop.create_future(), until)
            self._asks.append(one)
            self._soon()
            try:
                async with asyncio.timeout(GIVEN_UP_S):
                    found += await one.future
            except TimeoutError:
                return None
        return found

    def lines(self, held: Reservation) -> bytes:
        """Header lines that tell what is left."""
        return self.limiter.left(held)

    def hold(self, held: Reservation, times: int = 1) -> None:
        """What is concurrent is told anew under each new name, so it is known what is held."""
        for at in held.binding.held:
            _, _, key, limit = held.places[at]
            name = limit.counter, key
            count = self._holds.get(name, 0) + times * held.amounts[at]
            if count > 0:
                self._holds[name] = count
            else:
                self._holds.pop(name, None)

    def _instead(self, binding: Binding, places: tuple[Place, ...], amounts: tuple[int, ...]) -> Reservation:
        held = self.stand_in.decide(binding, places, amounts, f"the shared counters: {self.problem}")
        self.hold(held)
        return held

    def _decide(self, one: Ask | Look) -> None:
        """Nobody else has, in time."""
        if one.future.done() or isinstance(one, Look):
            return
        try:
            held = self._instead(one.binding, one.places, one.amounts)
        except RateLimited as error:
            if error.holds or error.use:
                one.future.set_result(error)
            else:
                one.future.set_exception(error)
        except Exception as error:
            one.future.set_exception(error)
        else:
            one.future.set_result(one.took(held))

    def _end(self, held: Reservation, used: Mapping[str, int] | None) -> None:
        if not held.open:
            return
        held.open = False
        self.hold(held, -1)
        stint: Stint | Locally = held.stint
        if isinstance(stint, Locally) and stint.share is not None:
            self.stand_in.settle(stint.share, used)
        rows: list[Row] = []
        if not used and used is not None and stint is self._stint and not held.binding.alerts:
            rows = [(at, held.amounts[at], 0) for at in held.binding.held]  # it was as it was reserved
            if rows:
                self._owe(held, rows)
            return
        for at, ((*_, limit), amount) in enumerate(zip(held.places, held.amounts, strict=True)):
            if limit.rule.unit == "concurrent":
                rows.append((at, amount, 0))
                continue
            spent = 0 if used is None else used.get(limit.measure, amount)
            if spent != amount or limit.rule.alerts or isinstance(stint, Locally) or stint is not self._stint:
                rows.append((at, amount, spent))
        if rows:
            self._owe(held, rows)

    def recount(self, held: Reservation, changes: Mapping[str, int]) -> None:
        """A settled call has used more (or, below 0, less) than it was settled by."""
        rows = [(at, 0, changes.get(limit.measure, 0)) for at, (*_, limit) in enumerate(held.places)]
        if any(change for *_, change in rows):
            self._owe(held, [row for row in rows if row[2]])

    def _owe(self, held: Reservation, rows: list[Row]) -> None:
        if len(self._owed) >= MOST_OWED:
            self._owed.popleft()
            self.lost += 1
        self._owed.append(Ended(held, rows, self.time(), self._stint, self._tell))
        self._soon_told()

    # --- requests

    def _soon(self) -> None:
        if self._due is None and self._stint is not None:
            self._due = self._loop.call_soon(self._flush)
        if self._watch is None:
            self._watch = self._loop.call_later(self.spec.timeout_s / 4, self._look)

    def _soon_told(self) -> None:
        if self._ending is None and self._stint is not None:
            self._ending = self._loop.call_later(ENDED_S, self._flush)

    def _flush(self) -> None:
        """Ask all that waits, as far as it may go now."""
        for handle in (self._due, self._ending):
            if handle is not None:
                handle.cancel()
        self._due = self._ending = None
        while (self._asks or self._owed) and len(self._sent) < MOST_SENT and self._stint is not None:
            self._send(self._stint)

    def _send(self, stint: Stint) -> None:
        request, entries = Request(self.time()), list[Entry]()
        for queue in (self._owed, self._asks):  # first what makes room
            while queue and len(entries) < MOST_ASKED and len(request) < MOST_BUCKETS:
                one = queue.popleft()
                if one.ask(request, self._remote, stint):
                    entries.append(one)
        if entries:
            self._go(stint, request, entries)

    def _go(self, stint: Stint, request: Request, entries: list[Entry]) -> None:
        assert self._connection is not None
        self._number += 1
        said = request.command(self._hashes, (self._ledger, stint.token, stint.holder, self._number))
        sent = Sent(entries, self._number, said, self._clock())
        self._sent.append(sent)
        self._connection.send(said, partial(self._answered, sent))

    def _remote(self, limit: Limit) -> Remote:
        found = self._remotes.get(limit)
        if found is None:
            found = self._remotes[limit] = Remote(limit, self._prefix)
        return found

    def _answered(self, sent: Sent, answer: object) -> None:
        connection, stint = self._connection, self._stint
        if connection is None or stint is None:
            return
        if isinstance(answer, hiredis.ReplyError):
            if str(answer).startswith("NOSCRIPT") and not sent.again:  # somebody has flushed the scripts
                sent.again = True
                connection.send(command(b"SCRIPT", b"LOAD", SCRIPT), lambda _: None)
                connection.send(sent.said, partial(self._answered, sent))
                return
            self._undone([sent])
            connection.close(explain(answer))
            return
        try:
            said = Numbers(answer)
            if not said.begun:
                self._undone([one for one in self._sent if one.number >= sent.number])
                connection.close("it has forgotten this gateway")
                return
            self._sent.remove(sent)
            self._ahead = said.now - int(self._clock() * SECOND)
            self.living = said.living
            for one in sent.entries:
                one.answer(said, stint)
            said.end()
        except (Garbled, IndexError) as error:
            connection.close(f"it answers what no such server does: {error}")
            return
        self.told += 1
        if self._late and not any(one.late for one in self._sent):
            self._late = False
            self._say("")
        if self._asks or len(self._owed) >= MOST_ASKED:
            self._flush()
        elif self._owed:
            self._soon_told()

    def _undone(self, requests: Sequence[Sent]) -> None:
        """Nothing of these was done: what stands in them waits again."""
        for sent in reversed(requests):
            self._sent.remove(sent)
            for one in reversed(sent.entries):
                if isinstance(one, Ended):
                    self._owed.appendleft(one)
                elif isinstance(one, (Ask, Look)):
                    self._asks.appendleft(one)

    def _look(self) -> None:
        """Whose time is up? One timer for all that wait."""
        now = self._clock()
        late = bool(self._sent) and self._sent[0].at <= now - self.spec.timeout_s and not self._sent[0].late
        if late and not self._suspects:  # or was it us who had no time? Its answer may be there, and is read first
            self._suspects, self._watch = True, self._loop.call_later(0.001, self._look)
            return
        self._watch, self._suspects = None, False
        for sent in self._sent:
            if not sent.late and sent.at <= now - self.spec.timeout_s:
                sent.late = self._late = True
                self._away("it does not answer in time")
                for one in sent.entries:
                    if isinstance(one, Ask):
                        self._decide(one)
        while self._asks and (self._late or self._asks[0].until <= now):
            self._hopeful = False
            self._decide(self._asks.popleft())
        given_up = now - max(GIVEN_UP_S, self.spec.timeout_s)
        if self._sent and self._sent[0].at <= given_up and self._connection is not None:
            self._connection.close("it does not answer")
        if self._asks or self._sent:
            self._watch = self._loop.call_later(self.spec.timeout_s / 4, self._look)

    # --- the connection

    async def first_try(self) -> None:
        """Wait until it was tried to connect, and not for long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.tried.wait(), FIRST_TRY_S)

    async def run(self) -> None:
        """Keep the counters connected, until it is cancelled."""
        tries = 0
        try:
            while True:
                why = await self._connect()
                self.tried.set()
                if not why:
                    since = self._clock()
                    await self._serve()
                    if self._clock() > since + LIVED_S:
                        tries = 0
                        if self._hopeful:
                            continue
                    why = self.problem
                self._hopeful = False
                self._away(why)
                self._give_up()
                await asyncio.sleep(min(LONGEST_S, FIRST_S * 2**tries) * (0.5 + self._chance()))
                tries = min(tries + 1, 20)
        finally:
            self._hopeful, self._stops = False, True
            if self._connection is not None:
                self._connection.close("the gateway stops")
            for handle in (self._due, self._ending, self._watch):
                if handle is not None:
                    handle.cancel()
            self._give_up()

    async def _serve(self) -> None:
        """Until the connection is over; a gateway that has nothing to ask says that it lives."""
        while not self._over.is_set():
            told = self.told
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._over.wait()
            if self._stint is not None and told == self.told and not self._sent:
                self._go(self._stint, Request(self.time()), [])
                self._soon()

    async def _connect(self) -> str:
        """Connect and begin. Returns why not, empty where it went well."""
        self._over.clear()
        try:
            self._connection = await self._open()
            password = self._password()
            await greet(self._connection, Login(self.spec.username, password, self.spec.database), GREETING_S)
            await self._begin(self._connection)
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
        if self._connection is not None:
            self._connection.close(why)
        return why

    async def _open(self) -> Connection:
        spec, context = self.spec, None
        if spec.tls:
            try:
                context = client_context(spec.ca, spec.cert, spec.key)
            except OSError as error:  # an SSLError is one, too
                raise Refused(f"TLS: ca, cert or key cannot be used: {error.strerror or error}") from None
        try:
            async with asyncio.timeout(GREETING_S):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._closed), spec.host, spec.port, ssl=context
                )
        except TimeoutError:  # a server without TLS may wait for the end of what it takes for a command
            raise Refused("it does not answer over TLS" if spec.tls else "it does not answer") from None
        return connection

    async def _begin(self, connection: Connection) -> None:
        """Take a fresh name, and restore what lasts where the server does not know it. Raises Garbled, Refused,
        TimeoutError, and what `restore` raises."""
        before = self._stint_before.holder if self._stint_before is not None else 0
        self._ledger, holder, restored = self._ledger_name().encode() or NOTHING_LASTS, self._holder(), b""
        done: int | None = None
        while True:
            answer = await ask(
                connection, begin_command(self._hashes, self._ledger, holder, before, restored), GREETING_S
            )
            if isinstance(answer, hiredis.ReplyError):
                raise Refused(explain(answer))
            begun = read_begun(answer)
            self._ahead = begun.now - int(self._clock() * SECOND)
            done = begun.done if done is None else done
            if begun.state == 0:
                break
            before = 0
            if begun.state == 1:
                await asyncio.sleep(GRACE_S / 2)
            else:
                await self._bring(connection, begun.token, holder)
                restored = begun.token
        self._number = 0
        self._count_on(Stint(begun.token, holder, begun.since), done)

    def _count_on(self, stint: Stint, done: int) -> None:
        """All is known there again: tell what is owed, and go on asking."""
        before, self._stint = self._stint_before, stint
        self._stint_before = stint
        same = before is not None and before.token == stint.token
        for sent in reversed(self._unsure):
            if not same or sent.number > done >= 0:
                self._owed.extendleft(reversed([one for one in sent.entries if isinstance(one, Ended)]))
        self._unsure.clear()
        known = {limit.counter: limit for limit in self.limiter.limits}
        held = [(known[counter], key, count) for (counter, key), count in self._holds.items() if counter in known]
        for start in range(0, len(held), MOST_BUCKETS):
            self._owed.appendleft(Holding(held[start : start + MOST_BUCKETS]))
        self._hopeful = self._late = False
        self._say("")
        self._flush()

    async def _bring(self, connection: Connection, token: bytes, holder: int) -> None:
        """Tell a server that has forgotten everything what lasts, in steps that are each done once."""
        if self._ledger == NOTHING_LASTS:
            return
        await asyncio.sleep(GRACE_S)
        uses = await self._restore(self.time())
        limits = {limit.counter: limit for limit in self.limiter.limits if limit.lasting}
        count = CHUNKS * (1 + len(uses) // (CHUNKS * MOST_BUCKETS))
        chunks: list[list[Use]] = [[] for _ in range(count)]
        for use in uses:
            if use.counter in limits:
                chunks[int.from_bytes(use.key[:4]) % count].append(use)
        for number, chunk in enumerate(chunks, 1):
            if not chunk:
                continue
            request = Request(self.time())
            request.ops += [CORRECT, len(chunk)]
            for use in sorted(chunk, key=lambda one: one.at):
                request.ops += [request.bucket(self._remote(limits[use.counter]), use.key), use.amount, use.at, 0]
            who = (self._ledger, token, holder, 0)
            answer = await ask(connection, request.command(self._hashes, who, number), GREETING_S)
            if isinstance(answer, hiredis.ReplyError):
                raise Refused(explain(answer))
            if not Numbers(answer).begun:
                raise Refused("another gateway restores it")

    def _closed(self, why: str) -> None:
        """The connection is over. What was under way may have been done or not: the next beginning tells."""
        self._connection = None
        if self._stint is not None:
            self._stint, self._hopeful = None, not self._late
            self._away(why)
            self._unsure += self._sent
            for sent in self._sent:
                for one in sent.entries:
                    if isinstance(one, Ask):
                        self._decide(one)
            self._sent.clear()
            self._late = False
        self._over.set()

    def _give_up(self) -> None:
        """Whoever still waits is decided about."""
        while self._asks:
            self._decide(self._asks.popleft())

    def _away(self, why: str) -> None:
        if not self.problem:
            self.stand_in.begin(self.limiter, self.living)
        self._say(why)

    def _say(self, problem: str) -> None:
        """Once for each change."""
        before, self.problem = self.problem, problem
        if self._stops:
            return
        if problem and before in ("", NOT_ASKED):
            _log.error("the shared counters are away (%s): %s", self.spec.when_down.replace("_", " "), problem)
        elif not problem and before not in ("", NOT_ASKED):
            _log.warning("the shared counters are there again")


def share(spec: SharedSpec, metering: Metering, books: Books, secret: Callable[[str], str]) -> Counters:
    """Count the limits of a gateway there from now on; its ledger tells what lasts. The caller starts `run`. A server
    that cannot be reached is no reason not to start."""
    counters = Counters(
        spec, metering.limiter, password=lambda: spec.password.fill(secret) if spec.password is not None else "",
        ledger=lambda: books.name, restore=books.all_uses, tell=metering.alert, clock=time.monotonic, now=time.time,
        holder=lambda: int.from_bytes(os.urandom(6)) + 1, chance=random.random,
    )  # fmt: skip
    metering.share(counters)
    return counters
