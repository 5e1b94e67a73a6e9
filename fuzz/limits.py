"""Fuzz target for what limits and prices read of others: arguments that a bucket is per, results that say a cost."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from narthex.flow.codec.jsonrpc import decode_map
from narthex.flow.codec.notes import noted
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
    Price(PriceRule("USD", model="result:/m", tokens_in="/a", tokens_out="/b", per_million_tokens_in=3), {"x": (5, 7)}),
    Price(PriceRule("USD", formula="result.a * result.a / size(args.b) + (args.a > 2 ? args.a : 1)", expected=1)),
)


def fuzz_limits(data: bytes) -> None:
    """Whatever an answer says, a call costs nothing below nothing and no more than the most; whatever the arguments
    say, they lead to a key, and the same ones to the same."""
    tokens = estimate(data)
    assert 0 <= tokens <= 2 * len(data) + 3
    used = {"bytes": len(data), "tokens_in": tokens, "tokens_out": tokens}
    result = result_in(data)
    for price in PRICES:
        then = {**used, **price.reported(result)}
        assert all(0 <= amount <= MOST for amount in then.values())
        cost = price.cost(then, result, {"args": result})
        assert cost is None or 0 <= cost <= MOST
        assert price.expected(used, None, {"args": result}) >= 0
    note = noted(data, "k", 1)
    assert note is None or bytes(decode_map(decode_map(note)["_meta"])["k"]) == b"1"
    with suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        arguments = msgspec.json.decode(data)
        for pointer in ("/a", "/a/0", "/~0/~1", "/"):
            at_pointer(arguments, pointer)
            per = (f"arg:{pointer}",)
            key = with_arguments(KEY, per, arguments)
            assert len(key) == SIZE
            assert key == with_arguments(KEY, per, arguments)
