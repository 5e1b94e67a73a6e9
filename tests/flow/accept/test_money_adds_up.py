"""Whatever becomes of calls, and whatever they are found to have cost later: what the books say is what budgets count,
to the last unit, and nothing of it is below nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from narthex.errors import BudgetExhausted, GatewayError, UpstreamTimeout, UpstreamUnavailable
from narthex.flow.accept.metering import Metered, Metering
from narthex.flow.accept.recounting import Recount
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.limit.spending import Spent
from narthex.flow.route.target import Target
from narthex.types import Call, LimitRule, PriceRule, Principal, TokenSpec, WhenSpent

DAY = {"algorithm": "calendar", "period": "day"}
MOST = 40_000
RULES = (
    LimitRule("all", "money", MOST, currency="USD", **DAY, when_spent=WhenSpent(hold=True)),  # type: ignore[arg-type]
    LimitRule("window", "money", 10**12, ("subject",), window=86_400_000_000, currency="USD"),
    LimitRule("soft", "money", 100, ("tool",), currency="USD", soft=True, **DAY),  # type: ignore[arg-type]
)
PRICES = (
    PriceRule("USD", per_call=7, per_mib=999, tools=("one__plain",)),
    PriceRule("USD", per_unit=13, units="/n", expected=500, tools=("one__units",), cancelled="nothing"),
    PriceRule("USD", per_million_tokens_in=999_999, per_million_tokens_out=3_000_001, tools=("one__tokens",)),
    PriceRule("USD", formula="args.n / 7000", expected=90, tools=("one__formula",)),
)
MODEL = PriceRule("USD", model="arg:/m", tokens_out="/n", per_million_tokens_in=5_000_000, tools=("one__model",))
NAMES = ("plain", "units", "tokens", "formula", "model", "free")
WAYS: dict[str, Callable[[Metered, bytes], Any]] = {
    "answered": lambda one, body: one.answered(len(body), (body,)),
    "streamed": lambda one, body: one.answered(len(body)),
    "cancelled": lambda one, body: one.ended(sent=True),
    "late": lambda one, body: one.ended(sent=True, error=UpstreamTimeout("late")),
    "away": lambda one, body: one.ended(sent=False, error=UpstreamUnavailable("away")),
    "ours": lambda one, body: one.ended(sent=True, error=GatewayError()),
}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(NAMES), st.sampled_from(sorted(WAYS)), st.integers(0, 500), st.booleans(), st.integers(0, 2000)
    ),
    max_size=25,
)


@dataclass
class Later:
    """In the place of the thread that counts: tokens are what the test says, when it says so."""

    missed: int = 0
    waiting: list[Recount] = field(default_factory=list)

    def add(self, one: Recount) -> None:
        self.waiting.append(one)


def counted(metering: Metering) -> dict[str, int]:
    found: dict[str, int] = {}
    for state in metering.limiter.states():
        found[state.limit] = found.get(state.limit, 0) + state.used
    return found


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_the_books_are_what_budgets_count(steps: list[tuple[str, str, int, bool, int]]) -> None:
    asyncio.run(_spend(steps))


async def _spend(steps: list[tuple[str, str, int, bool, int]]) -> None:
    metering, later, book = Metering(lambda: 50_000.0, lambda: 1_800_014_400.0), Later(), list[Spent]()
    metering.book, metering.exact = book.append, TokenSpec("o200k")
    metering.recounter = later  # type: ignore[assignment]
    metering.limiter.models = {"m": (2_000_003, 7_000_001)}
    metering.limiter.apply(RULES, (*PRICES, MODEL))
    who = Principal("acme", "https://idp", "ada", "bot")
    for name, way, number, beyond, tokens in steps:
        call = Call("tools/call", {}, {}, b"1", "modern", "2026-07-28", who, "default", f"one__{name}")
        target, one = Target("one", name, b'"x"'), Metered(metering, 100)
        params = {"arguments": Raw(b'{"n":%d,"m":"%b"}' % (number, b"m" if number % 2 else b"other"))}
        try:
            one.reserve(call, target, params)
        except BudgetExhausted:
            if not beyond:
                continue
            one.reserve(call, target, params, beyond=True)
        WAYS[way](one, b'{"jsonrpc":"2.0","id":1,"result":{"n":%d}}' % number)
        one.ended(sent=True)  # the end is told more than once
        if later.waiting and number % 3:
            later.waiting.pop(0).done(tokens, tokens)
        spent = sum(row.amount for row in book)
        assert spent == counted(metering).get("all", 0) == counted(metering).get("window", 0) >= 0
        for limit in metering.limiter.limits:
            if limit.lasting:
                uses = sum(use.amount for row in book for use in row.uses if use.counter == limit.counter)
                assert uses == counted(metering).get(limit.rule.name, 0)
    for waiting in later.waiting:
        waiting.done(0, 0)
    assert sum(row.amount for row in book) == counted(metering).get("all", 0)
    assert all(row.calls in (0, 1) and (row.amount >= 0 or not row.calls) for row in book)
