"""`prices`: what they become, and what is wrong with them at which place."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.compile import Examined, examine
from narthex.types import PriceRule

HEAD = """version: 1
servers: {git: {url: "http://localhost:2/"}}
endpoints: {default: {servers: [git]}}
prices:
"""


def examined(tmp_path: Path, *prices: str, more: str = "") -> Examined:
    file = tmp_path / "narthex.yaml"
    file.write_text(HEAD + "".join(f"  - {one}\n" for one in prices) + more)
    return examine(file, env={})


@pytest.mark.parametrize(
    ("text", "price"),
    [
        pytest.param(
            '{tools: ["git__*"], per_call: 0.01 USD}', PriceRule("USD", per_call=10_000, tools=("git__*",)), id="a call"
        ),
        pytest.param("{per_mib: 1 EUR, per_call: 2 EUR}", PriceRule("EUR", 2_000_000, 1_000_000), id="and its bytes"),
        pytest.param(
            "{per_unit: 0.002 USD, units: /structuredContent/pages, expected: 1 USD, cancelled: nothing}",
            PriceRule("USD", per_unit=2000, units="/structuredContent/pages", expected=1_000_000, cancelled="nothing"),
            id="units",
        ),
        pytest.param(
            "{amount: /cost, currency: USD, when: \"args.model == 'x'\"}",
            PriceRule("USD", amount="/cost", when="args.model == 'x'"),
            id="the answer says it",
        ),
    ],
)
def test_a_price(tmp_path: Path, text: str, price: PriceRule) -> None:
    found = examined(tmp_path, text)
    assert found.snapshot is not None, found.problems
    assert found.snapshot.prices == (price,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("{}", "a price says", id="nothing"),
        pytest.param("{per_call: 1}", "is not an amount", id="no currency"),
        pytest.param("{per_call: 1 USD, per_mib: 1 EUR}", "one currency, not EUR and USD", id="two currencies"),
        pytest.param("{per_unit: 1 USD}", "go together", id="units of what"),
        pytest.param("{amount: /x}", "`amount` and `currency` go together", id="an amount of what"),
        pytest.param("{per_call: 1 USD, expected: 1 USD}", "expected: goes with", id="what is known is not expected"),
        pytest.param("{per_call: 1 USD, when: 'args.x =='}", "when: ", id="a bad condition"),
        pytest.param("{amount: x, currency: USD}", "is no JSON pointer", id="no pointer"),
        pytest.param("{formula: args.n * 2}", "not in this version", id="not built yet"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    found = examined(tmp_path, text)
    assert any(problem in str(one) and ":5:" in str(one) for one in found.problems), found.problems


def test_a_budget_that_no_price_is_in_is_worth_a_warning(tmp_path: Path) -> None:
    limit = "limits: [{name: a, money: 5 EUR, window: 1h}]\n"
    found = examined(tmp_path, "{per_call: 1 USD}", more=limit)
    assert any("no price is in EUR" in str(one) for one in found.warnings)
