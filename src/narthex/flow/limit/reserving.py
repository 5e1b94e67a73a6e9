"""The moment of a call at which it takes what it needs of the limits: a need of its walk, just ahead of the server.

In: whoever counts for the call. Out: nothing once it is reserved; the refusal. Counters that are shared by several
processes answer `later`. Cases: `tests/flow/test_walk.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, Protocol

import msgspec

from narthex.errors import RateLimited
from narthex.flow.codec.jsonrpc import RawMap
from narthex.flow.limit.limiter import Binding, Place, Reservation
from narthex.flow.policy.deciding import Question
from narthex.flow.route.target import Target
from narthex.types import Call


class Instead(msgspec.Struct, frozen=True):
    """A call was answered by another tool than the one that it names, because a limit was spent. Both are canonical
    names. `output`: is the schema of what it gives the same?"""

    asked: str
    answers: str
    limit: str
    output: Literal["same", "differs"]


class Reserving(Protocol):
    """Counts for one call."""

    instead: Instead | None

    def reserve(self, call: Call, target: Target, params: RawMap, *, beyond: bool = False) -> RawMap | None:
        """The parameters that go on: where a limit or a price has looked at the arguments, exactly what it saw. None:
        somebody else counts, and says so in a while (`reserved`).

        Args:
            beyond: A person has let it through: limits that hold calls are no bound for it, and count it.
        Raises:
            RateLimited, BudgetExhausted, LimitsUnavailable, InvalidParams.
        """

    def reserved(self) -> Awaitable[RawMap | RateLimited]:
        """The same, in a while; or the refusal of a limit that says what becomes of such calls."""


class Counters(Protocol):
    """Whoever counts for several gateways. What it gives is settled with it, and nobody else."""

    def apply(self) -> None:
        """The limits have changed."""

    def now(self, binding: Binding, places: tuple[Place, ...], amounts: tuple[int, ...]) -> Reservation | None:
        """What is decided at once; None: ask, and wait. Raises RateLimited, BudgetExhausted, LimitsUnavailable."""

    def later(
        self,
        binding: Binding,
        places: tuple[Place, ...],
        amounts: tuple[int, ...],
        took: Callable[[Reservation], RawMap],
    ) -> Awaitable[RawMap | RateLimited]:
        """What `took` makes of the reservation, in a while; or the refusal of a limit that says what becomes of such
        calls. Raises as `now`."""

    def settle(self, held: Reservation, used: Mapping[str, int]) -> None:
        """The call is over. `used`: how much it really was, by unit; what is not named was what was reserved."""

    def give_back(self, held: Reservation) -> None:
        """The call never went out: it used nothing."""

    def recount(self, held: Reservation, changes: Mapping[str, int]) -> None:
        """A settled call has used more (or, below 0, less) than it was settled by."""

    def stood_in(self, held: Reservation) -> str:
        """How it was decided while nobody could count for all: `local_share`, `allow`; empty where they did."""


class Reserve(Question):
    """Needs what the call takes of the limits. Answer: the parameters that go on; or the refusal, of a limit that says
    what becomes of calls that it has no room for. (One that comes later is raised, whatever the limit says.)"""

    __slots__ = ("beyond", "call", "limited", "params", "target")

    def __init__(self, limited: Reserving, call: Call, target: Target, params: RawMap, *, beyond: bool = False) -> None:
        self.beyond: Final = beyond
        self.limited: Final = limited
        self.call: Final = call
        self.target: Final = target
        self.params: Final = params

    def now(self) -> RawMap | RateLimited | None:
        try:
            return self.limited.reserve(self.call, self.target, self.params, beyond=self.beyond)
        except RateLimited as error:
            if error.holds or error.use:
                return error
            raise

    def later(self) -> Awaitable[RawMap | RateLimited]:
        return self.limited.reserved()


def taken(answer: RawMap | RateLimited) -> RawMap:
    """What goes on. Raises the refusal."""
    if isinstance(answer, RateLimited):
        raise answer
    return answer
