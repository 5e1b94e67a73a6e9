"""A condition of a rule (CEL), as a function of the facts of a call.

In: the text as the operator wrote it. Out: a `Condition`: `met(facts)` is True or False, or raises `ConditionFailed`
where the expression has no value (a missing argument, another type): the caller decides, closed.
Comparisons of a fact with a constant, `in`, prefixes, ranges and what `&&`, `||`, `!` make of them become closures;
the CEL engine takes the rest. Both give the same answer: `tests/flow/policy/test_conditions.py` asks both.
Source: the CEL specification (cel-spec, langdef.md: equality, logical operators absorb errors).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from narthex.flow.policy.syntax import CallExpr, Const, Expr, Ident, ListExpr, Other, Select, read_checked

MOST_TEXT = 4096
ENGINE_MOST_ARGUMENTS = 64 * 1024
"""Bytes of arguments that the engine walks through: a comprehension over more would hold up other calls."""
ROOTS = ("args", "principal", "resource", "context", "run")
"""What a condition can speak of. All are maps. `run` is among the facts only where a condition names it."""
OF_COSTS = ("used", "result")
"""What formulas of prices can speak of besides."""

Facts = Mapping[str, Any]
"""One entry for each of `ROOTS`; values are what JSON decodes to."""
Closure = Callable[[Facts], Any]


class ConditionFailed(Exception):
    """The expression has no value for these facts. The text says why, for the operator."""


class BadCondition(ValueError):
    """The text is no condition. `column` counts from 1, None where the place is not known."""

    def __init__(self, text: str, column: int | None = None) -> None:
        super().__init__(text)
        self.column = column


class Condition:
    """A compiled condition.

    Args:
        text: As written.
        reads: Which of `ROOTS` it looks at: only those need to be among the facts, and `context`.
        value: What it says of some facts: a truth, or anything else, which is none.
        compiled: False where the engine evaluates it.
    """

    __slots__ = ("_value", "compiled", "reads", "text")

    def __init__(self, text: str, reads: frozenset[str], value: Closure, *, compiled: bool) -> None:
        self.text: Final = text
        self.reads: Final = reads
        self.compiled: Final = compiled
        self._value: Final = value

    def met(self, facts: Facts) -> bool:
        """Does it hold? Raises ConditionFailed."""
        return _boolean(self._value(facts))


class NeedsEngine(Exception):
    """Not in the subset that becomes closures."""


def compile_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        BadCondition: Syntax, an unknown name, no boolean, or comprehensions in each other (their cost is a product).
    """
    if len(text) > MOST_TEXT:
        raise BadCondition(f"longer than {MOST_TEXT} characters")
    engine = _engine_condition(text)
    tree = engine.tree
    if _nesting(tree) > 1:
        raise BadCondition("comprehensions (all, exists, map, filter) may not stand inside each other")
    reads = frozenset(root for root in ROOTS if names(tree, root))
    try:
        return Condition(text, reads, closure_of(tree), compiled=True)
    except NeedsEngine:
        return Condition(text, reads, engine.met, compiled=False)


# --- the engine

_COMPLAINT = re.compile(r"[A-Z_]+: [^:\"']*")


def _without_values(said: str) -> str:
    """What the engine says without what it says it of: `NOT_FOUND: Key not found in map : "…"`. That is an argument of
    the call, and this goes into logs and records."""
    match = _COMPLAINT.match(said)
    return match[0].strip()[:200] if match is not None else "the expression has no value"


class _Engine:
    def __init__(self, tree: Expr, expression: Any) -> None:
        self.tree = tree
        self._evaluate = expression.eval

    def met(self, facts: Facts) -> bool:
        size = facts["context"].get("arguments_size", 0)
        if size > ENGINE_MOST_ARGUMENTS:
            raise ConditionFailed(f"arguments of {size} bytes; at most {ENGINE_MOST_ARGUMENTS} here")
        try:
            found = self._evaluate(data=facts)
            value = found.value()
        except Exception as error:  # the engine raises what pybind makes of its own errors
            raise ConditionFailed(f"{type(error).__name__}: {_without_values(str(error))}") from None
        if value is not True and value is not False:
            is_error = str(found.type()).endswith("ERROR")
            raise ConditionFailed(_without_values(value) if is_error else "neither true nor false")
        return value


@cache
def _environment() -> Any:
    from cel_expr_python import cel  # 14 MB of engine: only where a rule has a condition

    return cel.NewEnv(variables=dict.fromkeys(ROOTS, cel.Type.Map(cel.Type.STRING, cel.Type.DYN)))


def _engine_condition(text: str) -> _Engine:
    try:
        expression = _environment().compile(text)
    except Exception as error:
        raise explained(str(error)) from None
    if expression.return_type().name() not in ("bool", "BOOL", "dyn", "DYN"):
        raise BadCondition("not a condition: it is neither true nor false")
    return _Engine(read_checked(expression.serialize()), expression)


def explained(said: str) -> BadCondition:
    """The engine's first complaint: `INVALID_ARGUMENT: ERROR: <input>:1:14: Syntax error: …`."""
    first = said.split("\n", 1)[0].removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: ")
    place, _, rest = first.partition(" expecting {")[0].partition(": ")
    parts = place.split(":")
    if len(parts) == 3 and parts[2].isdigit():
        return BadCondition(rest.replace(" (in container '')", ""), int(parts[2]))
    return BadCondition(first)


def _nesting(expr: Expr) -> int:
    inside = max((_nesting(one) for one in _children(expr)), default=0)
    return inside + (isinstance(expr, Other) and expr.what == "comprehension")


def names(expr: Expr, name: str) -> bool:
    """Does it speak of this?"""
    return (isinstance(expr, Ident) and expr.name == name) or any(names(one, name) for one in _children(expr))


def _children(expr: Expr) -> tuple[Expr, ...]:
    if isinstance(expr, Select):
        return (expr.operand,)
    if isinstance(expr, CallExpr):
        return expr.args if expr.target is None else (expr.target, *expr.args)
    if isinstance(expr, ListExpr):
        return expr.elements
    return expr.inner if isinstance(expr, Other) else ()


# --- closures


def closure_of(expr: Expr) -> Closure:
    """What an expression asks, true or false. Raises NeedsEngine."""
    if isinstance(expr, Select) and expr.tested:
        return _has(value_of(expr.operand), expr.field)
    if isinstance(expr, CallExpr):
        make = _FORMS.get((expr.function, expr.target is not None, len(expr.args)))
        if make is None:
            raise NeedsEngine
        return make(expr)
    return value_of(expr)


def value_of(expr: Expr) -> Closure:
    """A fact: a root, a member of a map by its name, an element of a list by its number. Raises NeedsEngine."""
    if isinstance(expr, Const):
        if isinstance(expr.value, bytes):
            raise NeedsEngine
        constant = expr.value
        return lambda facts: constant
    if isinstance(expr, Ident):
        if expr.name not in ROOTS and expr.name not in OF_COSTS:
            raise NeedsEngine
        root = expr.name
        return lambda facts: facts[root]
    if isinstance(expr, Select) and not expr.tested:
        return _member(value_of(expr.operand), expr.field)
    if isinstance(expr, CallExpr) and expr.function == "_[_]":
        of, key = expr.args
        if isinstance(key, Const) and type(key.value) is str:
            return _member(value_of(of), key.value)
    raise NeedsEngine


def _member(of: Closure, name: str) -> Closure:
    def member(facts: Facts) -> Any:
        value = of(facts)
        if type(value) is not dict:
            raise ConditionFailed(f"nothing has a member {name!r} but a map")
        try:
            return value[name]
        except KeyError:
            raise ConditionFailed(f"{name!r} is missing") from None

    return member


def _has(of: Closure, name: str) -> Closure:
    def has(facts: Facts) -> bool:
        value = of(facts)
        if type(value) is not dict:
            raise ConditionFailed(f"nothing has a member {name!r} but a map")
        return name in value

    return has


def _boolean(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise ConditionFailed("neither true nor false")


def _and(expr: CallExpr) -> Closure:
    left, right = (closure_of(one) for one in expr.args)

    def both(facts: Facts) -> bool:
        try:
            if not _boolean(left(facts)):
                return False
        except ConditionFailed:
            if not _boolean(right(facts)):
                return False
            raise
        return _boolean(right(facts))

    return both


def _or(expr: CallExpr) -> Closure:
    left, right = (closure_of(one) for one in expr.args)

    def either(facts: Facts) -> bool:
        try:
            if _boolean(left(facts)):
                return True
        except ConditionFailed:
            if _boolean(right(facts)):
                return True
            raise
        return _boolean(right(facts))

    return either


def _not(expr: CallExpr) -> Closure:
    inner = closure_of(expr.args[0])
    return lambda facts: not _boolean(inner(facts))


def _sides(expr: CallExpr) -> tuple[Closure, Closure]:
    """Both sides of a comparison. One is a constant: two facts may be lists or maps, which the engine compares."""
    left, right = expr.args
    if not (isinstance(left, Const) or isinstance(right, Const)):
        raise NeedsEngine
    return value_of(left), value_of(right)


def same(left: Any, right: Any) -> bool:
    """CEL's equality, where at least one side is a constant: numbers by value, booleans are no numbers."""
    if type(left) is bool or type(right) is bool:
        return left is right
    return bool(left == right)


def _equal(expr: CallExpr) -> Closure:
    left, right = _sides(expr)
    return lambda facts: same(left(facts), right(facts))


def _unequal(expr: CallExpr) -> Closure:
    left, right = _sides(expr)
    return lambda facts: not same(left(facts), right(facts))


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[CallExpr], Closure]:
    def make(expr: CallExpr) -> Closure:
        left, right = _sides(expr)

        def ordered(facts: Facts) -> bool:
            a, b = left(facts), right(facts)
            kind, other = type(a), type(b)
            if kind is other and kind in _ORDERED or kind in _NUMBERS and other in _NUMBERS:
                return compare(a, b)
            raise ConditionFailed(f"{kind.__name__} and {other.__name__} have no order")

        return ordered

    return make


def _in(expr: CallExpr) -> Closure:
    what, among = expr.args
    value = value_of(what)
    if isinstance(among, ListExpr):
        constants = [one.value for one in among.elements if isinstance(one, Const)]
        if len(constants) != len(among.elements) or any(isinstance(one, bytes) for one in constants):
            raise NeedsEngine
        return lambda facts: _is_one_of(value(facts), constants)
    if not (isinstance(what, Const) and type(what.value) is str):
        raise NeedsEngine
    text, container = what.value, value_of(among)

    def within(facts: Facts) -> bool:
        found = container(facts)
        if type(found) is dict:
            return text in found
        if type(found) is list:
            return _is_one_of(text, found)
        raise ConditionFailed("`in` wants a list or a map")

    return within


def _is_one_of(value: Any, among: list[Any]) -> bool:
    return any(same(value, one) for one in among)


def _text(test: Callable[[str, str], bool]) -> Callable[[CallExpr], Closure]:
    def make(expr: CallExpr) -> Closure:
        (argument,) = expr.args
        if expr.target is None or not (isinstance(argument, Const) and type(argument.value) is str):
            raise NeedsEngine
        value, wanted = value_of(expr.target), argument.value

        def tested(facts: Facts) -> bool:
            found = value(facts)
            if type(found) is not str:
                raise ConditionFailed(f"{type(found).__name__} is no text")
            return test(found, wanted)

        return tested

    return make


_NUMBERS = (int, float)
_ORDERED = (int, float, str, bool)
_FORMS: Mapping[tuple[str, bool, int], Callable[[CallExpr], Closure]] = {
    ("_&&_", False, 2): _and,
    ("_||_", False, 2): _or,
    ("!_", False, 1): _not,
    ("_==_", False, 2): _equal,
    ("_!=_", False, 2): _unequal,
    ("_<_", False, 2): _ordered(lambda a, b: a < b),
    ("_<=_", False, 2): _ordered(lambda a, b: a <= b),
    ("_>_", False, 2): _ordered(lambda a, b: a > b),
    ("_>=_", False, 2): _ordered(lambda a, b: a >= b),
    ("@in", False, 2): _in,
    ("_[_]", False, 2): value_of,
    ("startsWith", True, 1): _text(str.startswith),
    ("endsWith", True, 1): _text(str.endswith),
    ("contains", True, 1): _text(lambda value, wanted: wanted in value),
}
