"""The limits at one call: what is reserved just before it is sent, and what of that was used when it ends.

In: a call that counts, and how it ends. Out: a reservation that is settled once, whatever the way it ends; the header
lines that tell the client. Given back is only what never went out, or failed by our fault (design §3).
Cases: `tests/flow/accept/test_metering.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from narthex.errors import GatewayError, InvalidParams, Overloaded, UpstreamUnavailable
from narthex.flow.codec.crowds import refuse_crowd
from narthex.flow.codec.jsonrpc import BAD_JSON, RawMap
from narthex.flow.limit.limiter import Binding, Limiter, Reservation
from narthex.flow.route.index import Target
from narthex.types import Call, Kind, LimitRule, LimitUnit

COUNTED: Final[dict[str, Kind]] = {"tools/call": "tools", "prompts/get": "prompts", "resources/read": "resources"}
"""What counts (design §6)."""
FIRST_SIZE: Final = 1024
"""Bytes that the first answer of a tool is expected to have."""
MOST_SIZES: Final = 10_000
STEP_S: Final = 0.02
"""Between two steps of upkeep, where there are many buckets: a million are looked at in less than a minute."""
_SECOND: Final = 1_000_000
_JUMP: Final = _SECOND
"""So far may the wall clock be from ours before that counts: it is slewed all the time."""


class Metering:
    """The limits of a process, and what answers usually are. Lives as long as the process; `apply` swaps the rules.

    Args:
        clock: Monotonic seconds. now: Seconds since 1970.
    """

    def __init__(self, rules: tuple[LimitRule, ...], clock: Callable[[], float], now: Callable[[], float]) -> None:
        self._clock, self._now = clock, now
        self._base = self._offset()
        self._ahead = 0
        self.limiter = Limiter(rules, self.time)
        self._sizes: dict[tuple[str, str], int] = {}

    def _offset(self) -> int:
        return int((self._now() - self._clock()) * _SECOND)

    def time(self) -> int:
        """Whole microseconds since 1970, as they were counted when the process began: this clock is never set."""
        return int(self._clock() * _SECOND) + self._base

    def sweep(self) -> float:
        """A step of upkeep. Returns seconds until the next: a second, or a moment where there is much to do."""
        ahead = self._offset() - self._base
        if abs(ahead - self._ahead) > _JUMP:
            self._ahead = ahead
            self.limiter.set_ahead(ahead)
        return 1.0 if self.limiter.sweep() else STEP_S

    def size_of(self, server: str, name: str) -> int:
        """Bytes that an answer is expected to have."""
        return self._sizes.get((server, name), FIRST_SIZE)

    def was(self, server: str, name: str, size: int) -> None:
        """An answer had this size: what is expected follows, by an eighth of the difference."""
        known = self._sizes.get((server, name))
        if known is None and len(self._sizes) >= MOST_SIZES:
            return
        self._sizes[server, name] = size if known is None else known + (size - known) // 8


class Metered:
    """What one call has reserved. Each way of its end is told once; the first counts."""

    __slots__ = ("_held", "_metering", "_size_in")

    def __init__(self, metering: Metering, size_in: int) -> None:
        self._metering = metering
        self._size_in = size_in
        self._held: Reservation | None = None

    def reserve(self, call: Call, target: Target, params: RawMap) -> None:
        """Raises RateLimited, BudgetExhausted; InvalidParams: a limit is per argument, and they cannot be read."""
        limiter = self._metering.limiter
        binding = limiter.binding(call.principal, call.endpoint, COUNTED[call.method], target.server, target.name)
        if not binding.places:
            return
        if binding.plain:
            self._held = limiter.reserve(binding)
            return
        self._held = limiter.reserve(binding, self._demand(binding), _arguments(binding, params))

    def _demand(self, binding: Binding) -> dict[LimitUnit, int]:
        expected = self._metering.size_of(binding.subject.server, binding.subject.name)
        return {"bytes_in": self._size_in, "bytes_out": expected, "bytes": self._size_in + expected}

    def lines(self) -> bytes:
        """Header lines for the answer: which limits there are, and what is left of them."""
        return self._metering.limiter.left(self._held) if self._held is not None else b""

    def answered(self, size: int) -> bytes:
        """The server has answered, with so many bytes. Returns `lines`."""
        held = self._held
        if held is None:
            return b""
        limiter, binding = self._metering.limiter, held.binding
        if binding.plain:
            limiter.settle(held)
        else:
            self._metering.was(binding.subject.server, binding.subject.name, size)
            limiter.settle(held, {"bytes_out": size, "bytes": self._size_in + size})
        return limiter.left(held)

    def ended(self, *, sent: bool, error: GatewayError | None = None) -> None:
        """It ended without an answer. What was sent is used, as was expected, unless the fault is ours."""
        held = self._held
        if held is None or not held.open:
            return
        if not sent or _is_ours(error):
            self._metering.limiter.give_back(held)
        else:
            self._metering.limiter.settle(held)


def _is_ours(error: GatewayError | None) -> bool:
    """Did the call fail by no fault of the caller or the server, or was nothing sent?"""
    if isinstance(error, UpstreamUnavailable):
        return not error.sent
    return isinstance(error, Overloaded) or (error is not None and error.code == GatewayError.code)


def _arguments(binding: Binding, params: RawMap) -> Any:
    if not any(limit.per_arguments for *_, limit in binding.places) or "arguments" not in params:
        return None
    refuse_crowd(params["arguments"])
    try:
        return msgspec.json.decode(params["arguments"])
    except BAD_JSON:
        raise InvalidParams("params.arguments cannot be read") from None
