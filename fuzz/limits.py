"""Fuzz target for what limits and prices read of others: arguments that a bucket is per, results that say a cost."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from narthex.flow.limit.keys import SIZE, at_pointer, with_arguments
from narthex.flow.limit.money import MOST
from narthex.flow.limit.prices import Price, result_in
from narthex.flow.limit.tokens import estimate
from narthex.types import PriceRule

KEY = bytes(SIZE)
PRICES = (
    Price(PriceRule("USD", per_call=1, per_unit=1500, units="/a/0")),
    Price(PriceRule("USD", amount="/a")),
    Price(PriceRule("USD", per_mib=7, per_million_tokens_in=3, per_million_tokens_out=15)),
)


def fuzz_limits(data: bytes) -> None:
    """Whatever an answer says, a call costs nothing below nothing and no more than the most; whatever the arguments
    say, they lead to a key, and the same ones to the same."""
    tokens = estimate(data)
    assert 0 <= tokens <= 2 * len(data) + 3
    used = {"bytes": len(data), "tokens_in": tokens, "tokens_out": tokens}
    for price in PRICES:
        cost = price.cost(used, result_in(data))
        assert cost is None or 0 <= cost <= MOST
    with suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        arguments = msgspec.json.decode(data)
        for pointer in ("/a", "/a/0", "/~0/~1", "/"):
            at_pointer(arguments, pointer)
            per = (f"arg:{pointer}",)
            key = with_arguments(KEY, per, arguments)
            assert len(key) == SIZE
            assert key == with_arguments(KEY, per, arguments)
