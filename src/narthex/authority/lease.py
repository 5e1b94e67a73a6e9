"""The life of one fetched token: when it is shown, when a new one is fetched beside it, when it is let go. Pure.

In: grants, refusals, what the server thought of a token; monotonic seconds and chance, handed in. Out: what to do now.
Whoever does it (`oauth.py`) fetches one token at a time. Proof: `tests/authority/test_lease.py`, a state machine.

    empty ──granted──> held ──due──> held, a fetch beside it ──granted──> held
      ^                  │ expires, or the server refuses it
      └──────────────────┘          a failure: nobody asks until its back-off is over
"""

from __future__ import annotations

from collections.abc import Callable

from narthex.authority.grants import Grant

EARLY_S = 60.0
"""A new token is fetched up to this long before the old one ends, and at most a quarter of its life."""
SPARE_S = 10.0
"""The old one is shown no more this long before it ends (a tenth of a short life): it travels, and clocks differ."""
FIRST_BACK_OFF_S = 1.0
LONGEST_BACK_OFF_S = 60.0
LASTING_BACK_OFF_S = 30.0
"""Where asking again does not help: somebody has to change something first, and then `forget` ends the wait."""
LOOK_AGAIN_S = 5.0
"""A token that is due and that nobody has used for a while is looked at again after this long."""
DROP_AGAIN_S = 30.0
"""A server that refuses a token gets one fresh one in this time. Then its refusal stands: it is no matter of age."""


class Lease:
    """One token, or its absence.

    Args:
        chance: A number in [0, 1): fetches and back-offs are spread over their time.
    """

    __slots__ = ("_chance", "_drop_at", "_failures", "_next_at", "_refresh_at", "_until", "error", "token")

    def __init__(self, *, chance: Callable[[], float]) -> None:
        self.token = ""
        """What is shown now; empty: nothing can be."""
        self.error = ""
        """Why the last fetch gave nothing, for the operator; empty after one that did."""
        self._chance = chance
        self._until = 0.0
        self._refresh_at = 0.0
        self._failures = 0
        self._next_at = 0.0
        self._drop_at = float("-inf")

    # --- what has happened

    def granted(self, grant: Grant, now: float) -> None:
        """A token has come. One that lasts less than a moment is still good for whoever waits for it."""
        lasts = grant.lasts_s
        self.token, self.error = grant.token, ""
        self._until = now + lasts - min(SPARE_S, lasts / 10)
        self._refresh_at = self._until - min(EARLY_S, lasts / 4) * (0.5 + self._chance() / 2)
        self._failures, self._next_at = 0, 0.0

    def failed(self, error: str, now: float, *, lasting: bool = False, retry_after_s: float = 0.0) -> None:
        """None has come. A token that is still held goes on."""
        self.error = error
        self._failures += 1
        wait = min(LONGEST_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0 ** min(self._failures - 1, 16))
        if lasting:
            wait = max(wait, LASTING_BACK_OFF_S)
        self._next_at = now + max(wait * (0.5 + self._chance() / 2), retry_after_s)

    def refused(self, token: str, now: float) -> bool:
        """The server has refused this token (401). Is there, or may there be, another one to try with, once?"""
        if token != self.token:
            return bool(self.token) or self.wait(now) == 0.0  # it is not the one that would be shown now
        self.token = ""
        if now - self._drop_at < DROP_AGAIN_S:
            self.error = self.error or "the server refuses the token that was just fetched for it"
            self._next_at = max(self._next_at, self._drop_at + DROP_AGAIN_S)
            return False
        self._drop_at = now
        return self.wait(now) == 0.0

    def forget(self) -> None:
        """What it was made of is another now: begin anew."""
        self.token, self.error = "", ""
        self._failures, self._next_at, self._drop_at = 0, 0.0, float("-inf")

    # --- what to do

    def expire(self, now: float) -> None:
        """Let go of a token whose time is over."""
        if self.token and now >= self._until:
            self.token = ""

    def due(self, now: float) -> bool:
        """Is it time to fetch a new token beside the one that is shown?"""
        return bool(self.token) and now >= self._refresh_at and self.wait(now) == 0.0

    def next_at(self, now: float) -> float | None:
        """When something is to be done about the token that is shown; None: nothing is shown."""
        if not self.token:
            return None
        if now < self._refresh_at:
            return self._refresh_at
        return min(self._until, now + max(self.wait(now), LOOK_AGAIN_S))

    def wait(self, now: float) -> float:
        """Seconds until a fetch may begin; 0: now."""
        return max(0.0, self._next_at - now)
