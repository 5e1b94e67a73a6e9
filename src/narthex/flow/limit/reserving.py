"""Whoever counts for a call, as its walk knows them (`reserve.py` asks), and whoever counts for several gateways."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, Protocol

import msgspec

from narthex.errors import RateLimited
from narthex.flow.codec.jsonrpc import RawMap
from narthex.flow.limit.limiter import Binding, Place, Reservation
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
