"""Amounts: read, shown, and multiplied without a float."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.limit.money import MOST, parse_money, show_amount, show_money, times


@given(st.integers(0, MOST - 1))
def test_what_is_shown_is_read_again(amount: int) -> None:
    assert parse_money(show_money(amount, "USD")) == (amount, "USD")


@pytest.mark.parametrize(
    ("text", "amount"),
    [("5.00 USD", 5_000_000), ("0.000001 EUR", 1), ("12 CHF", 12_000_000), ("0.5 USD", 500_000)],
)
def test_an_amount(text: str, amount: int) -> None:
    assert parse_money(text) == (amount, text[-3:])


@pytest.mark.parametrize("text", ["5.00", "USD 5", "5.0000001 USD", "-1 USD", "5,00 USD", "5 usd", "1e3 USD", "٣ USD"])
def test_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount"):
        parse_money(text)


@pytest.mark.parametrize(("amount", "text"), [(50_000, "0.05"), (1, "0.000001"), (0, "0.00"), (-1_500_000, "-1.50")])
def test_shown(amount: int, text: str) -> None:
    assert show_amount(amount) == text


@given(st.integers(0, 10**9), st.decimals(0, 10**5, places=9))
def test_a_product_is_rounded_up_and_by_less_than_one(price: int, number: Decimal) -> None:
    found, exact = times(price, number), Fraction(number) * price
    assert found is not None
    assert exact <= found < exact + 1


@pytest.mark.parametrize("number", [-1, True, None, "3", Decimal("NaN"), Decimal("inf"), [], Decimal("-0.1"), 10**16])
def test_what_is_no_number_gives_no_cost(number: Any) -> None:
    assert times(1, number) is None
