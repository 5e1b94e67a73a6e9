"""The moment of a call at which it takes what it needs of the limits: a need of its walk, just ahead of the server.

In: whoever counts for the call. Out: nothing once it is reserved; the refusal. Counters that are shared by several
processes answer `later`. Cases: `tests/flow/test_walk.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from narthex.errors import RateLimited
from narthex.flow.codec.jsonrpc import RawMap
from narthex.flow.limit.reserving import Reserving
from narthex.flow.route.target import Target
from narthex.types import Call


class Reserve:
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
        """The answer from memory; None where it takes `later`."""
        try:
            return self.limited.reserve(self.call, self.target, self.params, beyond=self.beyond)
        except RateLimited as error:
            if error.holds or error.use:
                return error
            raise

    def later(self) -> Awaitable[RawMap | RateLimited]:
        """The same, in a while."""
        return self.limited.reserved()


def taken(answer: RawMap | RateLimited) -> RawMap:
    """What goes on. Raises the refusal."""
    if isinstance(answer, RateLimited):
        raise answer
    return answer
