"""What one call has spent, for the books: its cost, and what it has used of limits that last longer than a process.

One of each is made for a call and waits for the books; the collector does not look at them, as nothing in them leads
back.
"""

from __future__ import annotations

import msgspec

from narthex.flow.limit.keys import Subject
from narthex.types import LimitRule


class Taken:
    """So much of each of these limits. `usual`: it is what the call before has taken, too, of the same limits."""

    __slots__ = ("amounts", "rules", "usual")

    def __init__(self, rules: tuple[LimitRule, ...], amounts: tuple[int, ...]) -> None:
        self.rules = rules
        self.amounts = amounts
        self.usual = False


class Use(msgspec.Struct, frozen=True, gc=False):
    """So much of one bucket. `counter` is the limit's, `slot` what of its window shares a row; `ends`: when it counts
    no more. Times are microseconds since 1970."""

    counter: bytes
    key: bytes
    slot: int
    at: int
    ends: int
    amount: int


class Spent(msgspec.Struct, frozen=True, gc=False):
    """`amount` is millionths of `currency`; without one nothing was to be paid. `run`: as the agent calls it."""

    at: int
    subject: Subject
    currency: str
    amount: int
    uses: tuple[Use, ...] = ()
    model: str = ""
    run: str = ""
    calls: int = 1
