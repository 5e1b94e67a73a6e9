"""`prices` to what the gateway works with: one currency a price, pointers with what they need.

In: the settings of all prices. Out: `PriceRule`s; or a fault at the place it stands at.
Cases: `tests/config/test_prices.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading
from narthex.config.grants import check_condition, check_patterns
from narthex.config.schema.prices import PriceSettings
from narthex.types import LimitRule, PriceRule

PARTS = ("per_call", "per_mib", "per_million_tokens_in", "per_million_tokens_out")


def compile_prices(
    settings: Sequence[PriceSettings], servers: Iterable[str], limits: Sequence[LimitRule], reading: Reading
) -> tuple[PriceRule, ...]:
    """All prices, in their order. Faults and warnings go into `reading`."""
    known = tuple(servers)
    rules = []
    for number, one in enumerate(settings):
        at: KeyPath = ("prices", str(number))
        for kind in ("tools", "prompts", "resources"):
            check_patterns(getattr(one, kind), (*at, kind), known, reading)
        check_condition(one.when, (*at, "when"), reading)
        rules.append(_rule(one, at, reading))
    currencies = {rule.currency for rule in rules}
    for number, limit in enumerate(limits):
        if limit.unit == "money" and limit.currency not in currencies:
            at = ("limits", str(number), "money")
            reading.warn(at, f"limit '{limit.name}': no price is in {limit.currency}, so nothing will count")
    return tuple(rules)


def _rule(one: PriceSettings, at: KeyPath, reading: Reading) -> PriceRule:
    amounts = {key: getattr(one, key) for key in (*PARTS, "per_unit", "expected")}
    currencies = {money.currency for money in amounts.values() if money is not None} | (
        {one.currency} if one.currency else set()
    )
    if len(currencies) > 1:
        reading.fault(at, f"a price has one currency, not {' and '.join(sorted(currencies))}")
    if not any(getattr(one, key) for key in (*PARTS, "per_unit", "amount")) and not reading.problems:
        parts = ", ".join(f"`{key}`" for key in PARTS)
        reading.fault(at, f"a price says {parts}, `per_unit` with `units`, or `amount` with `currency`")
    if (one.per_unit is None) != (not one.units):
        reading.fault(at, "`per_unit` and `units` go together")
    if bool(one.amount) != bool(one.currency):
        reading.fault(at, "`amount` and `currency` go together")
    if one.amount and one.units:
        reading.fault((*at, "amount"), "amount: the result says what it cost, or how many units; keep one")
    if one.expected is not None and not (one.amount or one.units):
        reading.fault((*at, "expected"), "expected: goes with `amount` or `units`; all else is known before")
    millionths = {key: money.amount if money is not None else 0 for key, money in amounts.items()}
    return PriceRule(
        currency=min(currencies, default="XXX"),
        units=one.units,
        amount=one.amount,
        cancelled="nothing" if one.cancelled == "nothing" else "full",
        tools=one.tools,
        prompts=one.prompts,
        resources=one.resources,
        when=one.when,
        **millionths,
    )
