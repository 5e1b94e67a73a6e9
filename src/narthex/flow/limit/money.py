"""Amounts of money, in whole millionths of a currency: sums are exact, and no float is near them.

In: text (`5.00 USD`), or a number that a server's answer holds. Out: an integer, and back. Pure.
Cases: `tests/flow/limit/test_money.py`.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from typing import Any

UNIT = 1_000_000
MOST = 10**15
"""Of one amount: a thousand million. Sums of many still fit into 64 bits."""
_TEXT = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,6}))? ([A-Z]{3})")


def parse_money(text: str) -> tuple[int, str]:
    """Millionths, and the currency. Raises ValueError."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:32]!r} is not an amount; write 5.00 USD, with at most six digits behind the point")
    return int(match[1]) * UNIT + int((match[2] or "").ljust(6, "0")), match[3]


def show_amount(amount: int) -> str:
    """The amount without its currency, with at least two digits behind the point."""
    whole, part = divmod(abs(amount), UNIT)
    digits = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}{whole}.{digits}"


def show_money(amount: int, currency: str) -> str:
    return f"{show_amount(amount)} {currency}"


def times(price: int, number: Any) -> int | None:
    """A price times a number of an answer, rounded up to a millionth; None where it is no number, or below nothing.

    Args:
        number: What JSON decoded to, with `Decimal` for what is no integer.
    """
    if type(number) is int and 0 <= number <= MOST:
        return min(MOST, price * number)
    if type(number) is Decimal and number.is_finite() and 0 <= number <= MOST:
        return min(MOST, int((number * price).to_integral_value(ROUND_CEILING)))
    return None
