"""A formula in CEL as a function of a call and its result: what the call costs, exactly.

In: the text as the operator wrote it, which the CEL engine parses and type-checks. Out: a `Formula`, whose value is an
amount of its currency. Nothing is rounded on the way, and no float is near it: numbers are fractions, as the decimal
digits say them; so `7 / 2` is 3.5 here. Where a formula has no value (an argument is missing, a text in the place of a
number, a division by nothing), the caller decides. Cases: `tests/flow/limit/test_formulas.py`.
Source: the CEL specification (cel-spec, langdef.md), but for integer division.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

import msgspec

from narthex.flow.limit.money import MOST, UNIT
from narthex.flow.policy.conditions import (
    OF_COSTS,
    BadCondition,
    ConditionFailed,
    NeedsEngine,
    closure_of,
    explained,
    names,
    value_of,
)
from narthex.flow.policy.syntax import CallExpr, Const, Expr, read_checked

MOST_TEXT = 4096
ROOTS = ("args", "principal", "resource", "context", *OF_COSTS)
"""`used` has `bytes`, `bytes_in`, `bytes_out`, `tokens_in`, `tokens_out`; `result` is the server's, whole."""
WIDEST = 40
"""Powers of ten that a number of a call may have: beyond, it has no value, and takes no memory."""

Facts = Mapping[str, Any]
Number = Callable[[Facts], Fraction]
Test = Callable[[Facts], bool]


class Formula(msgspec.Struct, frozen=True):
    """A compiled formula. `reads_result`: it has a value only once the server has answered."""

    text: str
    reads_arguments: bool
    reads_result: bool
    counts_tokens: bool
    value: Number

    def cost(self, facts: Facts) -> int | None:
        """Millionths, rounded up; None where it has no value, or is below nothing."""
        try:
            found = self.value(facts) * UNIT
        except (ConditionFailed, ArithmeticError):
            return None
        return min(MOST, math.ceil(found)) if found >= 0 else None


def compile_formula(text: str) -> Formula:
    """Read a formula. Raises BadCondition: syntax, an unknown name, no number, or what formulas do not know."""
    if len(text) > MOST_TEXT:
        raise BadCondition(f"longer than {MOST_TEXT} characters")
    try:
        expression = _environment().compile(text)
    except Exception as error:  # the engine raises what pybind makes of its own errors
        raise explained(str(error)) from None
    if expression.return_type().name().lower() not in ("int", "uint", "double", "dyn"):
        raise BadCondition("not a formula: it is no number")
    tree = read_checked(expression.serialize())
    try:
        value = _number(tree)
    except NeedsEngine:
        raise BadCondition("formulas know + - * / %, ?:, comparisons, && || !, has, size, int and double") from None
    tokens = any(name in text for name in ("tokens_in", "tokens_out"))
    return Formula(text, names(tree, "args"), names(tree, "result"), tokens, value)


@cache
def _environment() -> Any:
    from cel_expr_python import cel  # 14 MB of engine: only where a price has a formula

    return cel.NewEnv(variables=dict.fromkeys(ROOTS, cel.Type.Map(cel.Type.STRING, cel.Type.DYN)))


def exact(value: Any) -> Fraction:
    """A number of a call, as its digits say it. Raises ConditionFailed."""
    if type(value) is int:
        if value.bit_length() <= 4 * WIDEST:
            return Fraction(value)
    elif type(value) is float and math.isfinite(value):
        return exact(Decimal(repr(value)))
    elif type(value) is Decimal and value.is_finite() and abs(value.adjusted()) + len(value.as_tuple().digits) < WIDEST:
        return Fraction(value)
    raise ConditionFailed(f"{type(value).__name__} is no number, or too wide a one")


def _number(expr: Expr) -> Number:
    """Raises NeedsEngine."""
    if isinstance(expr, Const):
        constant = exact(expr.value) if type(expr.value) in (int, float) else None
        if constant is None:
            raise NeedsEngine
        return lambda facts: constant
    if isinstance(expr, CallExpr):
        if expr.function in _ARITHMETIC and len(expr.args) == 2:
            return _both(_ARITHMETIC[expr.function], *map(_number, expr.args))
        if expr.function == "_?_:_":
            return _either(_test(expr.args[0]), _number(expr.args[1]), _number(expr.args[2]))
        if expr.function == "-_":
            (inner,) = map(_number, expr.args)
            return lambda facts: -inner(facts)
        if expr.function == "size":
            return _size(value_of(expr.args[0] if expr.args else expr.target or expr))
        if expr.function == "double" and len(expr.args) == 1:
            return _number(expr.args[0])
        if expr.function == "int" and len(expr.args) == 1:
            (inner,) = map(_number, expr.args)
            return lambda facts: Fraction(math.trunc(inner(facts)))
    value = value_of(expr)
    return lambda facts: exact(value(facts))


def _both(do: Callable[[Fraction, Fraction], Any], left: Number, right: Number) -> Number:
    return lambda facts: do(left(facts), right(facts))


def _either(test: Test, yes: Number, no: Number) -> Number:
    return lambda facts: yes(facts) if test(facts) else no(facts)


def _size(of: Callable[[Facts], Any]) -> Number:
    def size(facts: Facts) -> Fraction:
        value = of(facts)
        if isinstance(value, (str, list, dict)):
            return Fraction(len(value))
        raise ConditionFailed(f"{type(value).__name__} has no size")

    return size


def _test(expr: Expr) -> Test:
    """What is asked: of numbers here, exactly; of all else as in conditions."""
    if isinstance(expr, CallExpr):
        if expr.function in _LOGIC:
            left, right = map(_test, expr.args)
            both = expr.function == "_&&_"
            return lambda facts: (left(facts) and right(facts)) if both else (left(facts) or right(facts))
        if expr.function == "!_":
            inner = _test(expr.args[0])
            return lambda facts: not inner(facts)
        if expr.function in _ORDER and not any(
            isinstance(one, Const) and type(one.value) not in (int, float) for one in expr.args
        ):
            return _compared(_ORDER[expr.function], *map(_number, expr.args))
    closure = closure_of(expr)

    def test(facts: Facts) -> bool:
        value = closure(facts)
        if value is not True and value is not False:
            raise ConditionFailed("neither true nor false")
        return value

    return test


def _compared(do: Callable[[Any, Any], bool], left: Number, right: Number) -> Test:
    return lambda facts: do(left(facts), right(facts))


_ARITHMETIC: Mapping[str, Callable[[Fraction, Fraction], Any]] = {
    "_+_": operator.add, "_-_": operator.sub, "_*_": operator.mul, "_/_": operator.truediv, "_%_": operator.mod,
}  # fmt: skip
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "_<_": operator.lt, "_<=_": operator.le, "_>_": operator.gt, "_>=_": operator.ge, "_==_": operator.eq,
    "_!=_": operator.ne,
}  # fmt: skip
_LOGIC = ("_&&_", "_||_")
