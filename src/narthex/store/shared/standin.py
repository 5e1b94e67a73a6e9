"""What decides a call while the shared counters cannot be asked: this gateway's share of each limit, or nobody.

In: what is set for that (`when_down`), a call with its places. Out: a reservation, or the refusal; each is counted.
Cases: `tests/store/shared/test_standin.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec.structs import replace

from narthex.errors import LimitsUnavailable
from narthex.flow.limit.limiter import EXPECTED, Binding, Limit, Limiter, Place, Reservation
from narthex.types import LimitRule

Policy = Literal["local_share", "refuse", "allow"]


class Locally:
    """Whoever has decided in the counters' place; `share` is what it has taken of this gateway's own."""

    __slots__ = ("share",)

    def __init__(self, share: Reservation | None) -> None:
        self.share = share


class StandIn:
    """Decides while the counters are away.

    Args:
        processes: Among how many a limit is shared; 0 for as many as there were when they were last counted.
        clock: Microseconds, as the limiter's.
    """

    def __init__(self, policy: Policy, processes: int, clock: Callable[[], int]) -> None:
        self._policy = policy
        self._processes = processes
        self._clock = clock
        self._limits: dict[bytes, Limit] = {}
        self._limiter: Limiter | None = None
        self._hands = Limiter((), clock)  # it settles what any limiter has reserved
        self.shared = self.refused = self.allowed = 0
        """Calls that were decided here: by this gateway's share, refused, allowed."""

    def begin(self, limiter: Limiter, living: int) -> None:
        """The counters are away from now on.

        Args:
            limiter: Of the shared limits: what was last known of them is taken into account.
            living: Gateways, when they were last counted; 0 where they never were.
        """
        count = self._processes or living
        self._limiter, self._limits = None, {}
        if self._policy != "local_share" or not count:
            return
        shares = tuple(_share(limit.rule, count) for limit in limiter.limits)
        self._limiter = Limiter(shares, self._clock)
        self._limits = {ours.counter: own for ours, own in zip(limiter.limits, self._limiter.limits, strict=True)}
        now, seen = self._clock(), set[tuple[bytes, bytes]]()
        for (_, _, key, limit), used in limiter.last_known():
            own = self._limits.get(limit.counter)
            if own is not None and (limit.counter, key) not in seen and limit.rule.unit != "concurrent":
                seen.add((limit.counter, key))
                shard, placed = own.buckets.place(key)
                own.algorithm.correct(shard, placed, -(-used // count), now, now)

    def decide(self, binding: Binding, places: tuple[Place, ...], amounts: tuple[int, ...], why: str) -> Reservation:
        """Raises RateLimited, BudgetExhausted: the share is used up. LimitsUnavailable."""
        now = self._clock()
        share = None
        if self._policy != "allow":
            limiter = self._limiter
            if limiter is None or any(place[3].counter not in self._limits for place in places):
                self.refused += 1
                raise LimitsUnavailable(why)
            own = tuple(map(self._own, places))
            least = tuple(
                min(amount, limit.algorithm.most) if limit.rule.unit in EXPECTED else amount
                for (*_, limit), amount in zip(own, amounts, strict=True)
            )
            try:
                share = limiter.take(binding, own, least)
            finally:
                self.shared += 1
        else:
            self.allowed += 1
        held = Reservation(binding, places, amounts, now, (now,) * len(places))
        held.left = (
            ((0, 0),) * len(places)
            if share is None
            else tuple(
                (max(0, place[3].algorithm.most - own[3].algorithm.most + own[0].used(own[1], own[2], now)[0]), 0)
                for place, own in zip(places, share.places, strict=True)
            )
        )
        held.stint = Locally(share)
        return held

    def settle(self, share: Reservation, used: Mapping[str, int] | None) -> None:
        """A call that was decided here has ended; None: it gives back what it took."""
        if used is None:
            self._hands.give_back(share)
        else:
            self._hands.settle(share, used)

    def _own(self, place: Place) -> Place:
        own = self._limits[place[3].counter]
        shard, key = own.buckets.place(place[2])
        return own.algorithm, shard, key, own


def _share(rule: LimitRule, count: int) -> LimitRule:
    """One of so many equal parts of a limit, and never nothing."""
    return replace(rule, most=max(1, rule.most // count), burst=max(1, rule.burst // count) if rule.burst else 0)
