"""The bounds on requests of any kind: an address before it is known who calls, then who calls.

In: `bounds.address_rate`, `bounds.principal_rate`. Out: nothing, or 429 with `Retry-After`; the request was not read.
Cases: `tests/flow/accept/test_rates.py`. Source: design §3 ("Two moments of limits").
"""

from __future__ import annotations

import math

from narthex.errors import HttpRefusal, RateLimited
from narthex.flow.limit.rate import RequestRate
from narthex.types import Limits, Principal


class Rates:
    """Both bounds. `limits` are those of the process."""

    def __init__(self, limits: Limits) -> None:
        self.given = limits.address_rate, limits.principal_rate
        self._addresses, self._principals = (RequestRate(rate) if rate else None for rate in self.given)

    def count_address(self, address: str, now: float) -> None:
        """Raises HttpRefusal. `now`: monotonic seconds."""
        if self._addresses is not None and (wait := self._addresses.take(address, now)):
            raise _refusal("address", wait)

    def count_principal(self, principal: Principal, now: float) -> None:
        """Raises HttpRefusal."""
        if self._principals is not None and (wait := self._principals.take(principal.key, now)):
            raise _refusal("caller", wait)

    def sweep(self, now: float) -> None:
        """Once a second."""
        for one in (self._addresses, self._principals):
            if one is not None:
                one.sweep(now)


def rates_of(limits: Limits, before: Rates | None) -> Rates | None:
    """The bounds of a configuration, None without any; those in force go on counting where they have not changed."""
    if before is not None and before.given == (limits.address_rate, limits.principal_rate):
        return before
    return Rates(limits) if limits.address_rate or limits.principal_rate else None


def _refusal(whose: str, wait: float) -> HttpRefusal:
    error = HttpRefusal(
        429, "rate_limited", f"too many requests of this {whose}", headers=(("Retry-After", str(math.ceil(wait))),)
    )
    error.code = RateLimited.code
    return error
