"""Formulas: what they are worth, what has no value, what is none, and that nothing of a call breaks or bloats them."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.limit.formulas import compile_formula
from narthex.flow.limit.money import MOST
from narthex.flow.policy.conditions import BadCondition

CALL = {"pages": [1, 2, 3], "model": "large", "n": 5, "half": 0.5, "text": "äb", "zero": 0}
USED = {"tokens_in": 1000, "tokens_out": 200, "bytes": 10}
RESULT = {"structuredContent": {"pages": Decimal("2.5"), "kind": "scan"}}


def cost(text: str, args: Any = CALL) -> int | None:
    return compile_formula(text).cost({"args": args, "used": USED, "result": RESULT})


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        pytest.param("0.01 + 0.002 * double(size(args.pages))", 16_000, id="a list's size"),
        pytest.param("size(args.text) * 2", 4_000_000, id="a text's, in characters"),
        pytest.param("args.model == 'large' ? 0.5 : 0.1", 500_000, id="one of two"),
        pytest.param("args.n > 3 && args.n < 10 ? 1.0 : 2.0", 1_000_000, id="and"),
        pytest.param("args.n > 9 || !(args.n == 5) ? 1 : 2", 2_000_000, id="or, not"),
        pytest.param("used.tokens_in * 0.001 + used.tokens_out * 0.003", 1_600_000, id="what was used"),
        pytest.param("result.structuredContent.pages * 0.5", 1_250_000, id="the result"),
        pytest.param("result.structuredContent.kind == 'scan' ? 1 : 0", 1_000_000, id="a text of the result"),
        pytest.param("has(args.pages) ? 1 : 0", 1_000_000, id="has"),
        pytest.param("args.n / 3", 1_666_667, id="rounded up to a millionth"),
        pytest.param("7 / 2", 3_500_000, id="a division is exact"),
        pytest.param("int(args.n * 1.5) % 4", 3_000_000, id="whole numbers"),
        pytest.param("args.half + 0.1 + 0.2", 800_000, id="decimals are exact"),
        pytest.param("-args.n + 6", 1_000_000, id="minus"),
        pytest.param("args.n * 1000000000000", MOST, id="bounded"),
        pytest.param("args.n - 6", None, id="below nothing"),
        pytest.param("args.n / args.zero", None, id="by nothing"),
        pytest.param("args.missing * 2", None, id="missing"),
        pytest.param("args.text * 2", None, id="no number"),
        pytest.param("size(args.n)", None, id="no size"),
        pytest.param("args.n == 'x' ? 1 : 2", 2_000_000, id="a number is no text"),
    ],
)
def test_what_it_is_worth(text: str, amount: int | None) -> None:
    assert cost(text) == amount


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("'a'", "no number", id="a text"),
        pytest.param("args.n == 5", "no number", id="a condition"),
        pytest.param("args.l.map(x, x)[0]", "formulas know", id="a comprehension"),
        pytest.param("ars.n", "undeclared", id="an unknown name"),
        pytest.param("2 * 0.5", "no matching overload", id="two types"),
        pytest.param("1 +", "Syntax error", id="syntax"),
        pytest.param("1 + " * 2000 + "1", "longer than", id="too long"),
    ],
)
def test_what_is_none(text: str, says: str) -> None:
    with pytest.raises(BadCondition, match=says):
        compile_formula(text)


def test_it_says_what_it_looks_at() -> None:
    formula = compile_formula("args.n * 0.1")
    assert (formula.reads_arguments, formula.reads_result, formula.counts_tokens) == (True, False, False)
    formula = compile_formula("result.x * 0.1 + used.tokens_in * 0.1")
    assert (formula.reads_arguments, formula.reads_result, formula.counts_tokens) == (False, True, True)


NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**6, places=6)


@given(NUMBERS, NUMBERS)
def test_sums_are_exact(left: Decimal, right: Decimal) -> None:
    found = cost("args.a + args.b", {"a": left, "b": right})
    assert found == min(MOST, int((Fraction(left) + Fraction(right)) * 10**6))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text(max_size=5)
        | st.sampled_from([Decimal("1e999999999"), Decimal("1e-999999999"), 10**4000]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
        max_leaves=6,
    )
)  # fmt: skip
def test_no_argument_breaks_or_bloats_it(value: Any) -> None:
    for text in ("args.a * args.a / 3 + 1", "size(args.a)", "args.a > 2 ? args.a : 1", "int(args.a) % 7"):
        found = cost(text, {"a": value})
        assert found is None or 0 <= found <= MOST
