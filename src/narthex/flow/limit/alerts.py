"""At which shares of a limit somebody is told: once on the way up, and again after it was free in between.

In: a limit with `alerts`, how much of a bucket is used. Out: the share that was just reached, for the log.
Cases: `tests/flow/limit/test_alerts.py`.
"""

from __future__ import annotations

import msgspec

from narthex.flow.limit.keys import Shown
from narthex.flow.limit.money import show_amount, show_money

MOST = 10_000
"""Buckets of one limit whose share is remembered; the oldest is forgotten, and may be told of again."""


class Alert(msgspec.Struct, frozen=True):
    """`share` in hundredths of `most` is used by what the bucket is for, which `per` says for people. `id` is the same
    whenever the same share of the same bucket is told of in the same window; `key` is the bucket's."""

    id: str
    limit: str
    share: int
    used: int
    most: int
    unit: str
    per: Shown
    key: bytes
    currency: str = ""
    soft: bool = False

    @property
    def words(self) -> str:
        """Whom the bucket is for."""
        return ", ".join(f"{word} {value.strip() or '-'}" for word, value in self.per) or "everybody"

    @property
    def amounts(self) -> str:
        """What is used, of what: money, which is counted in millionths, as money."""
        if self.currency:
            return f"{show_amount(self.used)} of {show_money(self.most, self.currency)}"
        return f"{self.used} of {self.most} {self.unit}"


class Shares:
    """Which share each bucket of a limit was last told of."""

    __slots__ = ("_shares", "_told")

    def __init__(self, shares: tuple[int, ...]) -> None:
        self._shares = tuple(sorted(shares))
        self._told: dict[bytes, int] = {}

    def reached(self, key: bytes, used: int, most: int) -> int:
        """The highest share that is reached and was not told of yet, else 0."""
        share = 0
        for one in self._shares:
            if used * 100 >= one * most:
                share = one
        told = self._told.get(key, 0)
        if share == told:
            return 0
        if not share:
            self._told.pop(key, None)
            return 0
        if key not in self._told and len(self._told) >= MOST:
            del self._told[next(iter(self._told))]
        self._told[key] = share
        return share if share > told else 0

    def forget(self, key: bytes) -> None:
        """Nobody could be told of what was reached: it is new again."""
        self._told.pop(key, None)
