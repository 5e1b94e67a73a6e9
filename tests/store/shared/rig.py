"""Gateways that count together on a real server: each with its own connection, all in one loop."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from narthex.errors import GatewayError
from narthex.flow.limit.alerts import Alert
from narthex.flow.limit.limiter import Limiter, Reservation, wanted
from narthex.flow.limit.spending import Use
from narthex.store.shared.counters import Counters
from narthex.types import LimitRule, Principal, SharedSpec

PATIENCE_S = 60.0
_holders = itertools.count(1)
ADA = Principal("acme", "https://idp", "ada", "bot")


async def until(condition: Callable[[], object]) -> None:
    """Wait for it; only a failure takes long."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it does not come to that"
        await asyncio.sleep(0.005)


@dataclass
class Gateway:
    """One gateway's counters, and a caller or more."""

    spec: SharedSpec
    rules: Sequence[LimitRule]
    ledger: str = ""
    uses: list[Use] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    restored: int = 0
    password: str = ""

    async def __aenter__(self) -> Gateway:
        self.limiter = Limiter(self.rules, lambda: time.time_ns() // 1000)
        self.limiter.count_elsewhere()

        async def restore(since: int) -> list[Use]:
            self.restored += 1
            return self.uses

        self.counters = Counters(
            self.spec, self.limiter, password=lambda: self.password, ledger=lambda: self.ledger, restore=restore,
            tell=self.alerts.append, clock=time.monotonic, now=time.time, chance=random.random,
            holder=lambda: next(_holders) * 1000 + random.randrange(1000),
        )  # fmt: skip
        self._task = asyncio.ensure_future(self.counters.link.run())
        await self.counters.link.tried.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def take(
        self, who: Principal = ADA, demand: dict[str, int] | None = None, arguments: Any = None
    ) -> Reservation:
        """As a call does it. Raises its refusal."""
        binding = self.limiter.binding(who, "default", "tools", "git", "log")
        places, amounts = wanted(binding, demand, arguments)
        held = self.counters.now(binding, places, amounts)
        if held is not None:
            return held
        found: list[Reservation] = []

        def took(one: Reservation) -> dict[str, Any]:
            found.append(one)
            return {}

        await self.counters.later(binding, places, amounts, took)
        return found[0]

    async def granted(self, who: Principal = ADA, times: int = 1) -> int:
        """How many of so many calls, one after the other, go on."""
        count = 0
        for _ in range(times):
            try:
                await self.take(who)
            except GatewayError:
                continue
            count += 1
        return count

    async def used(self, who: Principal = ADA) -> dict[str, int]:
        """What the server says, once it has been told of all that has ended here."""
        binding = self.limiter.binding(who, "default", "tools", "git", "log")
        found = None
        while found is None:  # on a machine that is busy elsewhere, the server may be late once more
            await until(lambda: not self.counters.owed and not self.counters.problem)
            found = await self.counters.look(binding.places)
        return {place[3].rule.name: used for place, (used, _) in zip(binding.places, found, strict=True)}


def uses_of(gateway: Gateway, at: int, amount: int) -> list[Use]:
    """What its ledger would know, had Ada used so much of all that lasts."""
    binding = gateway.limiter.binding(ADA, "default", "tools", "git", "log")
    return [
        Use(limit.counter, key, 0, at, at + 3_600_000_000, amount)
        for _, _, key, limit in binding.places
        if limit.lasting
    ]
