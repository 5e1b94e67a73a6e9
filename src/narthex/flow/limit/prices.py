"""What a call costs: by the first price of the configuration that fits it.

In: `PriceRule`s, a call before it is sent, and the server's answer. Out: what it is expected to cost, and what it did.
Every sum is rounded up to a millionth of its currency. What the answer should say and does not, counts as expected.
Cases: `tests/flow/limit/test_prices.py`. Source: design §6 (`prices`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from narthex.flow.limit.formulas import Formula, compile_formula
from narthex.flow.limit.keys import Subject, at_pointer
from narthex.flow.limit.models import Rates, name_of, rates_of
from narthex.flow.limit.money import MOST, UNIT, times
from narthex.flow.policy.admission import principal_facts
from narthex.flow.policy.conditions import Condition, ConditionFailed, compile_condition
from narthex.flow.route.names import canonical
from narthex.flow.route.patterns import compile_globs
from narthex.types import Kind, PriceRule

MIB = 1 << 20
MILLION = 1_000_000
MOST_READ = 1 << 20
"""Bytes of an answer that is searched for what it cost."""
OF_ARGUMENTS, OF_RESULT = "arg:", "result:"
"""Where the name of a model stands, with a JSON pointer behind it."""
NO_FACTS: Mapping[str, Any] = {}
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Price:
    """One price, compiled.

    Args:
        models: What the tokens of models cost, where the price is a model's.
    Attributes:
        reads: Is the result looked at for what it has cost?
        counts_tokens: Do tokens cost something?
    """

    __slots__ = ("condition", "counts_tokens", "formula", "models", "pointer", "reads", "rule")

    def __init__(self, rule: PriceRule, models: Mapping[str, Rates] | None = None) -> None:
        self.rule = rule
        self.models = models or {}
        self.condition: Condition | None = compile_condition(rule.when) if rule.when else None
        self.formula: Formula | None = compile_formula(rule.formula) if rule.formula else None
        self.pointer = rule.amount or rule.units
        self.counts_tokens = bool(
            rule.per_million_tokens_in or rule.per_million_tokens_out or rule.model
            or rule.tokens_in or rule.tokens_out or (self.formula is not None and self.formula.counts_tokens)
        )  # fmt: skip
        self.reads = bool(
            self.pointer or rule.tokens_in or rule.tokens_out or rule.model.startswith(OF_RESULT)
            or (self.formula is not None and self.formula.reads_result)
        )  # fmt: skip

    @property
    def reads_arguments(self) -> bool:
        """Are the arguments looked at?"""
        return (
            self.condition is not None or self.rule.model.startswith(OF_ARGUMENTS)
            or (self.formula is not None and self.formula.reads_arguments)
        )  # fmt: skip

    def covers(self, kind: Kind, subject: Subject) -> bool:
        rule = self.rule
        if not (rule.tools or rule.prompts or rule.resources):
            return True
        patterns: Mapping[str, tuple[str, ...]] = {
            "tools": rule.tools, "prompts": rule.prompts, "resources": rule.resources,
        }  # fmt: skip
        return compile_globs(patterns.get(kind, ()))(canonical(subject.server, subject.name))

    def model(self, arguments: Any, result: Any = None) -> str:
        """Which model worked: as the price says, or where it says that its name stands; empty where none does."""
        said = self.rule.model
        for prefix, value in ((OF_ARGUMENTS, arguments), (OF_RESULT, result)):
            if said.startswith(prefix):
                return name_of(at_pointer(value, said.removeprefix(prefix)))
        return said

    def facts(self, kind: Kind, subject: Subject, arguments: Any) -> Mapping[str, Any]:
        """What its formula, or the name of its model, is looked up in: kept until the call is over."""
        if self.formula is not None:
            return facts_of(kind, subject, arguments)
        return {"args": arguments} if self.rule.model.startswith(OF_ARGUMENTS) else NO_FACTS

    def reported(self, result: Any) -> dict[str, int]:
        """The tokens that the result says were used; nothing where it does not."""
        found = {}
        for unit, pointer in (("tokens_in", self.rule.tokens_in), ("tokens_out", self.rule.tokens_out)):
            number = times(1, at_pointer(result, pointer)) if pointer else None
            if number is not None:
                found[unit] = number
        return found

    def cost(self, used: Mapping[str, int], result: Any, facts: Mapping[str, Any] = NO_FACTS) -> int | None:
        """What a call cost; None: the answer should say and does not, or the formula has no value.

        Args:
            used: `bytes`, and `tokens_in` and `tokens_out` where these have a price.
            facts: Of the call, for a formula; `args` for a model that they name.
        """
        total = self._known(used, self.model(facts.get("args"), result))
        if self.pointer:
            rule = self.rule
            said = times(UNIT if rule.amount else rule.per_unit, at_pointer(result, self.pointer))
            if said is None:
                return None
            total += said
        if self.formula is not None:
            value = self.formula.cost({**facts, "used": dict(used), "result": result})
            if value is None:
                return None
            total += value
        return min(total, MOST)

    def expected(self, demand: Mapping[str, int], usual: int | None, facts: Mapping[str, Any] = NO_FACTS) -> int:
        """The same beforehand. `usual`: what such calls have cost lately, None where there was none.

        What may cost something is expected to, if only a millionth: with an empty budget nobody makes it.
        """
        if not self.pointer and not (self.formula is not None and self.formula.reads_result):
            found = self.cost(demand, None, facts)
            return found if found is not None else self.rule.expected
        return max(1, usual if usual is not None else max(self.rule.expected, self.rule.per_call))

    def _known(self, used: Mapping[str, int], model: str) -> int:
        rule = self.rule
        total = rule.per_call - (-rule.per_mib * used["bytes"] // MIB)
        if self.counts_tokens:
            rates = rates_of(self.models, model) if model else None
            for unit, rate in zip(
                ("tokens_in", "tokens_out"),
                rates or (rule.per_million_tokens_in, rule.per_million_tokens_out),
                strict=True,
            ):
                total -= -rate * used[unit] // MILLION
        return total


def first_fitting(prices: Sequence[Price], kind: Kind, subject: Subject, arguments: Any) -> Price | None:
    """The price of a call. A condition that has no value for it counts as met: nobody gets a cheaper one by that."""
    facts: dict[str, Any] | None = None
    for price in prices:
        if price.condition is None:
            return price
        facts = facts or facts_of(kind, subject, arguments)
        try:
            if price.condition.met(facts):
                return price
        except ConditionFailed:
            return price
    return None


def facts_of(kind: Kind, subject: Subject, arguments: Any) -> dict[str, Any]:
    """What conditions of prices can speak of."""
    server, name = subject.server, subject.name
    return {
        "args": arguments,
        "principal": principal_facts(subject.principal),
        "resource": {"kind": kind, "server": server, "name": name, "canonical": canonical(server, name)},
        "context": {"endpoint": subject.endpoint},
    }


def result_in(body: bytes) -> Any:
    """The `result` of a JSON-RPC response, numbers exact; None where there is none, or too much of it to be read."""
    if len(body) > MOST_READ:
        return None
    try:
        message = _decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError, ArithmeticError):
        return None
    return message.get("result") if isinstance(message, dict) else None
