"""The moments of a call's walk at which the cache has a say, as needs that its driver answers. Pure.

    admitted, by the rules of now ── Recall ──> kept     ── reserve, Give ──> over
                                          ├───> joined   ── reserve, Wait ──> kept, or on to the server
                                          └───> none     ── reserve ────────> on to the server

In: a call that every rule has let through. Out: whether it is answered, and the parameters that go on.
Cases: `tests/flow/cache/test_recall.py`, `tests/flow/test_walk.py`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, Literal, Protocol

from narthex.errors import RateLimited
from narthex.flow.cache.shelves import Kept
from narthex.flow.codec.jsonrpc import RawMap
from narthex.flow.limit.reserve import Reserve, taken
from narthex.flow.limit.reserving import Reserving
from narthex.flow.policy.deciding import Question
from narthex.flow.route.target import Target
from narthex.types import Call

Found = Kept | Literal["joined", "none"]


class Recalls(Protocol):
    """Whoever drives a call that the cache may have a say in."""

    def recalling(self) -> Recalling:
        """What it asks of the cache; only for calls of what the cache has a plan for."""


class Recalling(Protocol):
    """What one call asks of the cache."""

    def look(self, call: Call, target: Target, params: RawMap, *, plain: bool) -> tuple[Found, RawMap]:
        """What is kept for it, that it has joined an equal call under way, or neither; and the parameters that go on:
        those of which the key was made.

        Args:
            plain: Nothing but the parameters says what is asked: no headers of the client go to the server.
        """

    def leave(self) -> None:
        """It does not go on as it was asked: whoever waits for it goes."""

    def goes(self, target: Target, params: RawMap) -> None:
        """It goes to the server without a look, for an answer of its own."""

    def counts(self, kept: Kept) -> bool:
        """Does an answer from memory count in limits?"""

    async def wait(self) -> Kept | None:
        """The answer of the call that was joined; None: it goes itself."""

    def give(self, kept: Kept) -> None:
        """Answer with what is kept."""


class Joined(Question):
    """Needs the answer of the call that was joined."""

    __slots__ = ("recalling",)

    def __init__(self, recalling: Recalling) -> None:
        self.recalling: Final = recalling

    def now(self) -> None:
        return None

    async def later(self) -> Kept | None:
        return await self.recalling.wait()


class _Give(Question):
    """Needs the call answered with what is kept. Answer: True."""

    __slots__ = ("kept", "recalling")

    def __init__(self, recalling: Recalling, kept: Kept) -> None:
        self.recalling: Final = recalling
        self.kept: Final = kept

    def now(self) -> bool:
        self.recalling.give(self.kept)
        return True


def recalled(
    recalling: Recalling, call: Call, target: Target, params: RawMap, limited: Reserving | None, *, plain: bool
) -> Generator[Question | Reserve, Any, RawMap | None]:
    """Answer a call from memory, or join an equal one. Takes what it needs of the limits in any case.

    Returns:
        The parameters that go on to the server; None: it is answered.
    Raises:
        RateLimited, BudgetExhausted, InvalidParams: as `Reserve`.
    """
    found, params = recalling.look(call, target, params, plain=plain)
    kept = found if isinstance(found, Kept) else None
    if limited is not None and (kept is None or recalling.counts(kept)):
        try:
            params = taken((yield Reserve(limited, call, target, params)))
        except RateLimited:
            recalling.leave()  # it may yet go on, otherwise than it was asked
            raise
    if found == "joined":
        kept = yield Joined(recalling)
    if kept is None:
        return params
    yield _Give(recalling, kept)
    return None
