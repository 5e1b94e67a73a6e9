"""What waits to be asked of the shared counters, and what each makes of its part of the answer.

In: calls that want their part, calls that have ended, what a gateway holds; a `Request` to stand in. Out: operations in
it; reservations, refusals and alerts. Cases: `tests/store/shared/test_counters.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from narthex.errors import RateLimited
from narthex.flow.codec.jsonrpc import RawMap
from narthex.flow.limit.alerts import Alert
from narthex.flow.limit.algorithms import TokenBucket
from narthex.flow.limit.limiter import Binding, Limit, Place, Reservation, alert_of, lowered_of, refused_of
from narthex.flow.limit.shared.wire import Numbers, Remote, Request, until_full

Took = Callable[[Reservation], RawMap]
RESERVE: Final = 1
CORRECT: Final = 2
LOOK: Final = 3


class Stint:
    """A time during which one gateway counted on one server under one name: what was reserved in it is known there.

    `token`: of what the server has counted; another one after it has forgotten everything. `since`: what had ended by
    then, and lasts, was restored with it. Microseconds since 1970, by the server's clock.
    """

    __slots__ = ("holder", "since", "token")

    def __init__(self, token: bytes, holder: int, since: int) -> None:
        self.token = token
        self.holder = holder
        self.since = since


class Entry(Protocol):
    """Something that stands in a request."""

    def ask(self, request: Request, remote: Callable[[Limit], Remote], stint: Stint) -> bool:
        """Stand in it. False: there is nothing to ask."""

    def answer(self, said: Numbers, stint: Stint) -> None:
        """Take its part of the answer."""


class Keeper(Protocol):
    """Whoever keeps what calls have reserved."""

    def hold(self, held: Reservation, times: int = 1) -> None:
        """A reservation is there from now on (-1: not any more)."""

    def give_back(self, held: Reservation) -> None:
        """Nobody wants it."""

    def lines(self, held: Reservation) -> bytes:
        """Header lines that tell what is left."""


class Ask:
    """A call that wants its part of its limits. `future` is the parameters that it goes on with, or its refusal."""

    __slots__ = ("amounts", "binding", "future", "keeper", "places", "took", "until")

    def __init__(
        self,
        keeper: Keeper,
        binding: Binding,
        places: tuple[Place, ...],
        amounts: tuple[int, ...],
        took: Took,
        future: asyncio.Future[RawMap | RateLimited],
        until: float,
    ) -> None:
        self.keeper = keeper
        self.binding = binding
        self.places = places
        self.amounts = amounts
        self.took = took
        self.future = future
        self.until = until

    def ask(self, request: Request, remote: Callable[[Limit], Remote], stint: Stint) -> bool:
        if self.future.done():
            return False
        ops, named, binding = request.ops, request.named, self.binding
        names: Sequence[tuple[bytes, Remote]] | None = binding.names
        if names is None or self.places is not binding.places:
            names = [((at := remote(limit)).before + key, at) for _, _, key, limit in self.places]
            if self.places is binding.places:
                binding.names = names
        ops += (RESERVE, len(names))
        for (name, at), amount in zip(names, self.amounts, strict=True):
            ops.append(named(name, at))
            ops.append(amount)
        return True

    def answer(self, said: Numbers, stint: Stint) -> None:
        (granted,) = said.take(1)
        count, now = len(self.places), said.now
        numbers = said.take(2 * count)
        pairs, receipts = list(zip(numbers[::2], numbers[1::2], strict=True)), [now] * count
        if self.binding.has_buckets:
            for at, (algorithm, _, _, limit) in enumerate(self.places):
                if isinstance(algorithm, TokenBucket):
                    receipts[at] = numbers[2 * at + 1]
                    pairs[at] = numbers[2 * at], until_full(limit, receipts[at])
        held = Reservation(self.binding, self.places, self.amounts, now, receipts)
        held.left = self.binding.known = tuple(pairs)
        held.stint = stint
        if not granted:
            self._refuse(refused_of(held, *said.take(2)), held)
            return
        self.keeper.hold(held)
        lowered = lowered_of(held) if self.binding.lowers else None
        if lowered is not None:
            self._refuse(lowered, held)
        if lowered is not None or self.future.done():  # or it came too late, or the client has gone
            self.keeper.give_back(held)
        else:
            self.future.set_result(self.took(held))

    def _refuse(self, error: RateLimited, held: Reservation) -> None:
        if self.future.done():
            return
        error.lines = self.keeper.lines(held)
        if error.holds or error.use:  # the walk looks at what the limit says of such calls
            self.future.set_result(error)
        else:
            self.future.set_exception(error)


Row = tuple[int, int, int]
"""Which place of a reservation, how much of it was reserved, how much was used: of a recount 0, and the difference."""


class Ended:
    """A call that has ended: what it has used, as far as the counters do not know it yet."""

    __slots__ = ("_asked", "at", "during", "held", "rows", "tell")

    def __init__(
        self, held: Reservation, rows: Sequence[Row], at: int, during: Stint | None, tell: Callable[[Alert], None]
    ) -> None:
        self.held = held
        self.during = during
        """The stint in which it has ended: what is held is told anew in each, and in later ones it is not held."""
        self.rows = rows
        self.at = at
        self.tell = tell
        self._asked: list[int] = []

    def ask(self, request: Request, remote: Callable[[Limit], Remote], stint: Stint) -> bool:
        held, ops = self.held, request.ops
        start = len(ops)
        counted = isinstance(held.stint, Stint) and held.stint.token == stint.token  # else somebody stood in for it
        self._asked.clear()
        ops += (CORRECT, 0)
        for at, reserved, used in self.rows:
            algorithm, _, key, limit = held.places[at]
            if limit.rule.unit == "concurrent":
                change = -reserved if self.during is stint else 0
            elif counted:
                change = used - reserved
            elif limit.lasting:  # nobody there knows of it, but for what was restored
                change = 0 if self.at <= stint.since else used
            else:  # of what it has forgotten, nothing is given back
                change = max(0, used)
            if change or limit.rule.alerts:
                lacked = held.receipts[at] if isinstance(algorithm, TokenBucket) else 0
                ops += (request.bucket(remote(limit), key), change, held.at, lacked)
                self._asked.append(at)
        ops[start + 1] = len(self._asked)
        if not self._asked:
            del ops[start:]
        return bool(self._asked)

    def answer(self, said: Numbers, stint: Stint) -> None:
        for _ in range(said.take(1)[0]):
            at, share, used = said.take(3)
            self.tell(alert_of(self.held, self._asked[at], share, used))


class Holding:
    """What a gateway holds of what is concurrent, told anew under a new name."""

    __slots__ = ("_held",)

    def __init__(self, held: Sequence[tuple[Limit, bytes, int]]) -> None:
        self._held = held

    def ask(self, request: Request, remote: Callable[[Limit], Remote], stint: Stint) -> bool:
        request.ops += (CORRECT, len(self._held))
        for limit, key, count in self._held:
            request.ops += (request.bucket(remote(limit), key), count, 0, 0)
        return bool(self._held)

    def answer(self, said: Numbers, stint: Stint) -> None:
        said.take(3 * said.take(1)[0])


class Look:
    """Somebody who wants to know what is used of some buckets, and how long until there is more."""

    __slots__ = ("_places", "future", "until")

    def __init__(self, places: Sequence[Place], future: asyncio.Future[list[tuple[int, int]]], until: float) -> None:
        self._places = places
        self.future = future
        self.until = until

    def ask(self, request: Request, remote: Callable[[Limit], Remote], stint: Stint) -> bool:
        if self.future.done():
            return False
        request.ops += (LOOK, len(self._places), *(request.bucket(remote(one[3]), one[2]) for one in self._places))
        return True

    def answer(self, said: Numbers, stint: Stint) -> None:
        numbers = said.take(2 * len(self._places))
        if not self.future.done():
            self.future.set_result(
                [
                    (used, until_full(place[3], resets) if isinstance(place[0], TokenBucket) else resets)
                    for place, used, resets in zip(self._places, numbers[::2], numbers[1::2], strict=True)
                ]
            )
