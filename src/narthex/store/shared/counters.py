"""The counters of limits that several gateways share: all calls of a moment are asked about in one request.

In: calls with their places and amounts, and how they end. Out: reservations and refusals, as the limits in memory give
them, in a while. What is asked has a deadline; while the server is away or slow, a `StandIn` decides at once. What
calls have used meanwhile is told to the counters once they are back. `link.py` keeps them connected.
Cases: `tests/store/shared/test_counters.py`, with faults `test_faults.py`. Protocol: `script.lua`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import hiredis

from narthex.errors import LimitsUnavailable, RateLimited
from narthex.flow.accept.metering import Metering
from narthex.flow.codec.jsonrpc import RawMap
from narthex.flow.limit.alerts import Alert
from narthex.flow.limit.limiter import Binding, Limit, Limiter, Place, Reservation, state_of
from narthex.flow.limit.shared.wire import SCRIPT, Garbled, Numbers, Remote, Request, command
from narthex.flow.limit.spending import Use
from narthex.flow.limit.state import State
from narthex.store.books import Books
from narthex.store.shared.connection import explain
from narthex.store.shared.entries import Ask, Ended, Entry, Holding, Look, Row, Stint, Took
from narthex.store.shared.link import MOST_BUCKETS, Link
from narthex.store.shared.standin import Locally, StandIn
from narthex.types import SharedSpec

MOST_ASKED: Final = 128
"""Entries of one request: the server does nothing else meanwhile."""
MOST_SENT: Final = 4
"""Requests under way; beyond, entries gather for the next."""
MOST_WAITING: Final = 4096
"""Calls that wait for their turn."""
MOST_OWED: Final = 100_000
"""Calls that have ended and are not told yet."""
ENDED_S: Final = 0.005
"""So long the end of a call waits for a request to go along with."""
GIVEN_UP_S: Final = 1.0
"""A server that says nothing for so long is taken for dead."""
NOT_ASKED: Final = "it was not asked yet"
SECOND: Final = 1_000_000
Register = Callable[..., None]
_log: Final = logging.getLogger("narthex.shared")


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
    """The counters of one gateway, as long as its `link` keeps them connected.

    Args:
        limiter: Says which buckets there are; it counts nothing.
        tell: Told when a share of a limit is used.
        clock: Monotonic seconds. now: seconds since 1970. The rest is its link's.
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
        self._tell, self._clock = tell, clock
        self._prefix = spec.prefix.encode() + b":"
        self.link = Link(self, spec, limiter, password=password, ledger=ledger, restore=restore, clock=clock,
                         holder=holder, chance=chance)  # fmt: skip
        self._remotes: dict[Limit, Remote] = {}
        self._ahead = int((now() - clock()) * SECOND)
        self.stand_in = StandIn(spec.when_down, spec.processes, self.time)
        self.problem = NOT_ASKED
        """Why the counters cannot be asked at present; empty while all is well."""
        self.living = self.told = self.lost = 0
        """Gateways that live, as last heard; requests that were answered; ended calls that nobody could be told of."""
        self.hopeful = False
        """It has just gone, and may be back before anybody has waited too long."""
        self._late = self._suspects = self._stops = False
        self._stint: Stint | None = None
        self._stint_before: Stint | None = None
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
        self.link.ledger_changed()

    def now(self, binding: Binding, places: tuple[Place, ...], amounts: tuple[int, ...]) -> Reservation | None:
        """None: ask, and wait. While the counters are away, whatever stands in decides. Raises as `StandIn.decide`."""
        if (self._stint is not None and not self._late) or self.hopeful:
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
        stint: Stint | Locally | None = held.stint
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
                if one.ask(request, self.remote, stint):
                    entries.append(one)
        if entries:
            self._go(stint, request, entries)

    def _go(self, stint: Stint, request: Request, entries: list[Entry]) -> None:
        link = self.link
        assert link.connection is not None
        self._number += 1
        said = request.command(link.hashes, (link.ledger, stint.token, stint.holder, self._number))
        sent = Sent(entries, self._number, said, self._clock())
        self._sent.append(sent)
        link.connection.send(said, partial(self._answered, sent))

    def remote(self, limit: Limit) -> Remote:
        found = self._remotes.get(limit)
        if found is None:
            found = self._remotes[limit] = Remote(limit, self._prefix)
        return found

    def _answered(self, sent: Sent, answer: object) -> None:
        connection, stint = self.link.connection, self._stint
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
            self.heard_time(said.now)
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
                self._mark_away("it does not answer in time")
                for one in sent.entries:
                    if isinstance(one, Ask):
                        self._decide(one)
        while self._asks and (self._late or self._asks[0].until <= now):
            self.hopeful = False
            self._decide(self._asks.popleft())
        given_up = now - max(GIVEN_UP_S, self.spec.timeout_s)
        connection = self.link.connection
        if self._sent and self._sent[0].at <= given_up and connection is not None:
            connection.close("it does not answer")
        if self._asks or self._sent:
            self._watch = self._loop.call_later(self.spec.timeout_s / 4, self._look)

    # --- what its link tells

    def count_on(self, stint: Stint, done: int) -> None:
        """All is known there again: tell what is owed, and go on asking."""
        self._number = 0
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
        self.hopeful = self._late = False
        self._say("")
        self._flush()

    def gone(self, why: str) -> None:
        """What was under way may have been done or not: the next beginning tells."""
        if self._stint is None:
            return
        self._stint, self.hopeful = None, not self._late
        self._mark_away(why)
        self._unsure += self._sent
        for sent in self._sent:
            for one in sent.entries:
                if isinstance(one, Ask):
                    self._decide(one)
        self._sent.clear()
        self._late = False

    def away(self, why: str) -> None:
        """Whoever still waits is decided about."""
        self.hopeful = False
        self._mark_away(why)
        while self._asks:
            self._decide(self._asks.popleft())

    def stop(self) -> None:
        """The gateway stops: nothing is asked any more."""
        self._stops = True
        for handle in (self._due, self._ending, self._watch):
            if handle is not None:
                handle.cancel()

    def heard_time(self, now: int) -> None:
        """The server's, as it has just said."""
        self._ahead = now - int(self._clock() * SECOND)

    def beat(self) -> None:
        """Say that this gateway lives, where nothing else says so."""
        if self._stint is not None and not self._sent:
            self._go(self._stint, Request(self.time()), [])
            self._soon()

    def _mark_away(self, why: str) -> None:
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
    """Count the limits of a gateway there from now on; its ledger tells what lasts. The caller starts its `link`. A
    server that cannot be reached is no reason not to start."""
    counters = Counters(
        spec, metering.limiter, password=lambda: spec.password.fill(secret) if spec.password is not None else "",
        ledger=lambda: books.name, restore=books.all_uses, tell=metering.alert, clock=time.monotonic, now=time.time,
        holder=lambda: int.from_bytes(os.urandom(6)) + 1, chance=random.random,
    )  # fmt: skip
    metering.share(counters)
    return counters
