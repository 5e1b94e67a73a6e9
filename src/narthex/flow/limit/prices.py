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

from narthex.flow.limit.keys import Subject, at_pointer
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
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Price:
    """One price with its condition compiled."""

    __slots__ = ("condition", "counts_tokens", "pointer", "rule")

    def __init__(self, rule: PriceRule) -> None:
        self.rule = rule
        self.condition: Condition | None = compile_condition(rule.when) if rule.when else None
        self.pointer = rule.amount or rule.units
        self.counts_tokens = bool(rule.per_million_tokens_in or rule.per_million_tokens_out)

    def covers(self, kind: Kind, subject: Subject) -> bool:
        rule = self.rule
        if not (rule.tools or rule.prompts or rule.resources):
            return True
        patterns: Mapping[str, tuple[str, ...]] = {
            "tools": rule.tools, "prompts": rule.prompts, "resources": rule.resources,
        }  # fmt: skip
        return compile_globs(patterns.get(kind, ()))(canonical(subject.server, subject.name))

    def cost(self, used: Mapping[str, int], result: Any) -> int | None:
        """What a call cost; None: the answer should say and does not.

        Args:
            used: `bytes`, and `tokens_in` and `tokens_out` where these have a price.
        """
        total = self._known(used)
        if self.pointer:
            rule = self.rule
            said = times(UNIT if rule.amount else rule.per_unit, at_pointer(result, self.pointer))
            if said is None:
                return None
            total += said
        return min(total, MOST)

    def expected(self, demand: Mapping[str, int], usual: int | None) -> int:
        """The same beforehand. `usual`: what such calls have cost lately, None where there was none.

        What may cost something is expected to, if only a millionth: with an empty budget nobody makes it.
        """
        if not self.pointer:
            return min(MOST, self._known(demand))
        return max(1, usual if usual is not None else max(self.rule.expected, self.rule.per_call))

    def _known(self, used: Mapping[str, int]) -> int:
        rule = self.rule
        total = rule.per_call - (-rule.per_mib * used["bytes"] // MIB)
        if self.counts_tokens:
            total -= -rule.per_million_tokens_in * used["tokens_in"] // MILLION
            total -= -rule.per_million_tokens_out * used["tokens_out"] // MILLION
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
