"""The moment of a call at which it takes what it needs of the limits: a need of its walk, just ahead of the server.

In: whoever counts for the call. Out: nothing once it is reserved; the refusal. Counters that are shared by several
processes answer `later`. Cases: `tests/flow/test_walk.py`.
"""

from __future__ import annotations

from typing import Final, Protocol

from narthex.flow.codec.jsonrpc import RawMap
from narthex.flow.policy.deciding import Question
from narthex.flow.route.target import Target
from narthex.types import Call


class Reserving(Protocol):
    """Counts for one call."""

    def reserve(self, call: Call, target: Target, params: RawMap) -> RawMap:
        """The parameters that go on: where a limit or a price has looked at the arguments, exactly what it saw.

        Raises:
            RateLimited, BudgetExhausted, InvalidParams.
        """


class Reserve(Question):
    """Needs what the call takes of the limits. Answer: the parameters that go on."""

    __slots__ = ("call", "limited", "params", "target")

    def __init__(self, limited: Reserving, call: Call, target: Target, params: RawMap) -> None:
        self.limited: Final = limited
        self.call: Final = call
        self.target: Final = target
        self.params: Final = params

    def now(self) -> RawMap:
        return self.limited.reserve(self.call, self.target, self.params)
