"""`prices` to what the gateway works with: one currency a price, pointers with what they need.

In: the settings of all prices. Out: `PriceRule`s; or a fault at the place it stands at.
Cases: `tests/config/test_prices.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path

import msgspec

from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading
from narthex.config.grants import check_condition, check_patterns
from narthex.config.schema.prices import ModelSettings, PriceSettings, TokenSettings
from narthex.flow.limit.formulas import compile_formula
from narthex.flow.limit.models import rates_of
from narthex.flow.limit.tokenizers import ESTIMATE, is_installed
from narthex.flow.policy.conditions import BadCondition
from narthex.types import LimitRule, PriceRule, TokenSpec

PARTS = ("per_call", "per_mib", "per_million_tokens_in", "per_million_tokens_out")
SAID = (*PARTS, "per_unit", "amount", "formula", "model", "tokens_in", "tokens_out")
"""What a price says, one of it at least."""
STALE_DAYS = 180
"""So old may the list of models be before that is worth a warning."""


class PriceList(msgspec.Struct, frozen=True):
    """What models cost, as it comes with Narthex. `date`: of what day; `models`: millionths for a million tokens."""

    source: str
    date: str
    currency: str
    unit: str
    models: dict[str, tuple[int, int]]


@cache
def price_list() -> PriceList:
    """The list; `tools/model_prices.py` writes it."""
    return msgspec.json.decode(Path(__file__).with_name("model_prices.json").read_bytes(), type=PriceList)


def compile_models(
    settings: Mapping[str, ModelSettings], prices: Sequence[PriceSettings], reading: Reading, today: date | None = None
) -> dict[str, tuple[int, int]]:
    """What the tokens of models cost: of the list, and of the operator, who has the last word. A stale list is told."""
    if not any(one.model for one in prices):
        return {}
    known = price_list()
    found = dict(known.models)
    for name, one in settings.items():
        amounts = [one.per_million_tokens_in, one.per_million_tokens_out]
        if any(money is not None and money.currency != known.currency for money in amounts):
            reading.fault(("models", name), f"models: prices of models are in {known.currency}, as their list is")
        found[name] = (amounts[0].amount if amounts[0] else 0, amounts[1].amount if amounts[1] else 0)
    age = ((today or date.today()) - date.fromisoformat(known.date)).days
    if age > STALE_DAYS:
        text = f"what models cost is of {known.date}, {age} days ago: write newer prices in `models`"
        reading.warn(("prices",), text)
    for number, price in enumerate(prices):
        if price.model and ":" not in price.model and not _has_own_rates(price) and not rates_of(found, price.model):
            text = f"model: no price of '{price.model}' is known; write it in `models`"
            reading.fault(("prices", str(number), "model"), text)
    return found


def compile_tokens(settings: TokenSettings, reading: Reading) -> TokenSpec:
    """Which tokenizer counts what; the package that has them must be there."""
    spec = TokenSpec(settings.tokenizer, tuple(settings.models.items()))
    if {spec.tokenizer, *settings.models.values()} != {ESTIMATE} and not is_installed():
        reading.fault(("tokens",), "tokens: the exact tokenizers are not installed: pip install 'narthex[tokens]'")
    return spec


def _has_own_rates(one: PriceSettings) -> bool:
    return one.per_million_tokens_in is not None or one.per_million_tokens_out is not None


def _check_formula(one: PriceSettings, at: KeyPath, reading: Reading) -> None:
    if not one.formula:
        return
    try:
        compile_formula(one.formula)
    except BadCondition as error:
        place = f", character {error.column}" if error.column is not None else ""
        reading.fault((*at, "formula"), f"formula: {error}{place}")
    if one.expected is None:
        reading.fault((*at, "formula"), "formula: `expected` says what a call costs for which it has no value")


def _check_model(one: PriceSettings, at: KeyPath, reading: Reading) -> None:
    """Whoever names a model that nobody knows must not get it for nothing."""
    if ":" in one.model and not _has_own_rates(one):
        reading.fault(
            (*at, "model"), "model: `per_million_tokens_in` and `_out` say what one costs that is not in the list"
        )


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
        _check_formula(one, at, reading)
        _check_model(one, at, reading)
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
    if one.model:
        currencies.add(price_list().currency)
    if len(currencies) > 1:
        reading.fault(at, f"a price has one currency, not {' and '.join(sorted(currencies))}")
    if not any(getattr(one, key) for key in SAID) and not reading.problems:
        parts = ", ".join(f"`{key}`" for key in PARTS)
        reading.fault(at, f"a price says {parts}, `per_unit` with `units`, `amount`, `formula`, `model`, or `tokens_…`")
    if (one.per_unit is None) != (not one.units):
        reading.fault(at, "`per_unit` and `units` go together")
    if bool(one.amount or one.formula) != bool(one.currency):
        reading.fault(at, "`currency` goes with `amount` or `formula`, and these with it")
    if one.amount and one.units:
        reading.fault((*at, "amount"), "amount: the result says what it cost, or how many units; keep one")
    if one.expected is not None and not (one.amount or one.units or one.formula):
        reading.fault((*at, "expected"), "expected: goes with `amount`, `units` or `formula`; all else is known before")
    millionths = {key: money.amount if money is not None else 0 for key, money in amounts.items()}
    return PriceRule(
        currency=min(currencies, default=""),
        units=one.units,
        amount=one.amount,
        cancelled="nothing" if one.cancelled == "nothing" else "full",
        tools=one.tools,
        prompts=one.prompts,
        resources=one.resources,
        when=one.when,
        formula=one.formula,
        model=one.model,
        tokens_in=one.tokens_in,
        tokens_out=one.tokens_out,
        **millionths,
    )
