"""The moment of a call at which it takes what it needs of the limits: a need of its walk, just ahead of the server.

In: whoever counts for the call. Out: nothing once it is reserved; the refusal. Counters that are shared by several
processes answer `later`. Cases: `tests/flow/test_walk.py`.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

import msgspec

from narthex.errors import RateLimited
from narthex.flow.codec.jsonrpc import RawMap
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

    def reserve(self, call: Call, target: Target, params: RawMap, *, beyond: bool = False) -> RawMap:
        """The parameters that go on: where a limit or a price has looked at the arguments, exactly what it saw.

        Args:
            beyond: A person has let it through: limits that hold calls are no bound for it, and count it.
        Raises:
            RateLimited, BudgetExhausted, InvalidParams.
        """


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

    def now(self) -> RawMap | RateLimited:
        try:
            return self.limited.reserve(self.call, self.target, self.params, beyond=self.beyond)
        except RateLimited as error:
            if error.holds or error.use:
                return error
            raise


def taken(answer: RawMap | RateLimited) -> RawMap:
    """What goes on. Raises the refusal."""
    if isinstance(answer, RateLimited):
        raise answer
    return answer
