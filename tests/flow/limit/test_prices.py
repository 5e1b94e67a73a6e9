"""What calls cost: a row a rule; what the answer does not say; hostile answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.limit.keys import Subject
from narthex.flow.limit.money import MOST
from narthex.flow.limit.prices import MOST_READ, Price, first_fitting, result_in
from narthex.types import LOCAL, PriceRule

SUBJECT = Subject(LOCAL, "default", "git", "log")


@pytest.mark.parametrize(
    ("rule", "size", "result", "cost"),
    [
        pytest.param(PriceRule("USD", per_call=5), 100, None, 5, id="a call"),
        pytest.param(PriceRule("USD", per_mib=1 << 20), 100, None, 100, id="bytes"),
        pytest.param(PriceRule("USD", per_mib=1), 100, None, 1, id="rounded up"),
        pytest.param(
            PriceRule("USD", per_million_tokens_in=3_000_000, per_million_tokens_out=15_000_000),
            1,
            None,
            33_000,
            id="tokens",
        ),
        pytest.param(PriceRule("USD", per_call=5, per_unit=7, units="/n"), 1, {"n": 3}, 26, id="units, added up"),
        pytest.param(PriceRule("USD", amount="/a/cost"), 1, {"a": {"cost": 2}}, 2_000_000, id="the answer says it"),
        pytest.param(PriceRule("USD", per_unit=7, units="/n"), 1, {"n": "3"}, None, id="no number"),
        pytest.param(PriceRule("USD", per_unit=7, units="/n"), 1, None, None, id="no result"),
        pytest.param(PriceRule("USD", per_unit=7, units="/n"), 1, {"n": -1}, None, id="below nothing"),
        pytest.param(PriceRule("USD", per_unit=10**9, units="/n"), 1, {"n": 10**12}, MOST, id="bounded"),
    ],
)
def test_a_cost(rule: PriceRule, size: int, result: Any, cost: int | None) -> None:
    used = {"bytes": size, "tokens_in": 1000, "tokens_out": 2000}
    assert Price(rule).cost(used, result) == cost


MODELS = {"small": (1_000_000, 2_000_000), "large": (10_000_000, 20_000_000)}


def test_tokens_cost_what_the_model_does_that_the_call_names() -> None:
    price = Price(PriceRule("USD", model="arg:/model", per_million_tokens_in=99_000_000), MODELS)
    used = {"bytes": 1, "tokens_in": 1000, "tokens_out": 1000}
    assert price.reads_arguments and price.counts_tokens and not price.reads
    for model, cost in (("small", 3000), ("openai/large-2026-01-01", 30_000), ("unknown", 99_000), (7, 99_000)):
        facts = price.facts("tools", SUBJECT, {"model": model})
        assert price.cost(used, None, facts) == price.expected(used, None, facts) == cost
    assert price.model({"model": "Small"}) == "small"
    said = Price(PriceRule("USD", model="result:/m", per_million_tokens_in=99_000_000), MODELS)
    assert said.reads and said.model({}, {"m": "small"}) == "small"
    assert said.cost(used, {"m": "small"}) == 3000
    assert Price(PriceRule("USD", model="small"), MODELS).cost(used, None) == 3000


@pytest.mark.parametrize(
    ("result", "found"),
    [
        pytest.param({"u": {"in": 5, "out": 7}}, {"tokens_in": 5, "tokens_out": 7}, id="both"),
        pytest.param({"u": {"in": 5}}, {"tokens_in": 5}, id="one"),
        pytest.param({"u": {"in": "5", "out": -1}}, {}, id="no numbers of tokens"),
        pytest.param(None, {}, id="no result"),
    ],
)
def test_tokens_that_the_result_reports(result: Any, found: dict[str, int]) -> None:
    assert Price(PriceRule("USD", tokens_in="/u/in", tokens_out="/u/out")).reported(result) == found


def test_a_formula_is_added_and_may_have_no_value() -> None:
    price = Price(PriceRule("USD", per_call=5, formula="args.n * 0.001", expected=77))
    used = {"bytes": 1}
    assert price.cost(used, None, price.facts("tools", SUBJECT, {"n": 2})) == 2005
    nothing = price.facts("tools", SUBJECT, {})
    assert price.cost(used, None, nothing) is None
    assert price.expected(used, None, nothing) == 77, "nobody gets it cheaper by leaving an argument out"
    later = Price(PriceRule("USD", formula="result.pages * 0.01", expected=50))
    assert later.reads and later.expected(used, None) == 50 and later.expected(used, 20) == 20
    assert later.cost(used, {"pages": 3}) == 30_000


def test_what_is_expected() -> None:
    assert Price(PriceRule("USD", per_call=5)).expected({"bytes": 10}, 99) == 5
    unknown = Price(PriceRule("USD", per_call=5, per_unit=1, units="/n", expected=20))
    assert unknown.expected({"bytes": 10}, None) == 20
    assert unknown.expected({"bytes": 10}, 7) == 7
    assert unknown.expected({"bytes": 10}, 0) == 1, "what was free so far may cost something"
    assert Price(PriceRule("USD", amount="/cost")).expected({"bytes": 10}, None) == 1


def test_the_first_that_fits_counts_and_a_condition_without_a_value_fits() -> None:
    dear = Price(PriceRule("USD", per_call=9, when="args.model == 'large'"))
    rest = Price(PriceRule("USD", per_call=1))
    prices = [dear, rest]
    assert first_fitting(prices, "tools", SUBJECT, {"model": "large"}) is dear
    assert first_fitting(prices, "tools", SUBJECT, {"model": "small"}) is rest
    assert first_fitting(prices, "tools", SUBJECT, {}) is dear, "nobody gets a cheaper one by leaving it out"
    assert first_fitting([], "tools", SUBJECT, {}) is None


def test_numbers_of_an_answer_are_exact() -> None:
    result = result_in(b'{"jsonrpc":"2.0","id":1,"result":{"cost":0.1000000000000000055}}')
    assert Price(PriceRule("USD", amount="/cost")).cost({"bytes": 1}, result) == 100_001
    assert Price(PriceRule("USD", amount="/cost")).cost({"bytes": 1}, result_in(b'{"result":{"cost":0.1}}')) == 100_000


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
    lambda value: json.dumps({"result": value}).encode()
))  # fmt: skip
def test_no_answer_breaks_it(body: bytes) -> None:
    cost = Price(PriceRule("USD", per_unit=3, units="/n")).cost({"bytes": 1}, result_in(body))
    assert cost is None or 0 <= cost <= MOST


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"result":1e999999999999}', b'{"result":' + b" " * MOST_READ + b"1}", b'{"error":{}}']
)
def test_hostile_answers_say_nothing(body: bytes) -> None:
    assert Price(PriceRule("USD", amount="/n")).cost({"bytes": 1}, result_in(body)) is None
