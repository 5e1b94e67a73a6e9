"""`prices`: what they become, and what is wrong with them at which place."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from narthex.config.compile import Examined, examine
from narthex.config.load import load
from narthex.config.prices import STALE_DAYS, compile_models, price_list
from narthex.types import CostsKept, PriceRule, TokenSpec

HEAD = """version: 1
servers: {git: {url: "http://localhost:2/"}}
endpoints: {default: {servers: [git]}}
prices:
"""


def write(tmp_path: Path, *prices: str, more: str = "") -> Path:
    file = tmp_path / "narthex.yaml"
    file.write_text(HEAD + "".join(f"  - {one}\n" for one in prices) + more)
    return file


def examined(tmp_path: Path, *prices: str, more: str = "") -> Examined:
    return examine(write(tmp_path, *prices, more=more), env={})


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
        pytest.param("{amount: /x}", "`currency` goes with", id="an amount of what"),
        pytest.param("{formula: args.n, expected: 1 USD}", "`currency` goes with", id="a formula of what"),
        pytest.param("{formula: args.n, currency: USD}", "`expected` says", id="a formula may have no value"),
        pytest.param("{formula: args.n *, currency: USD, expected: 1 USD}", "formula: ", id="a bad formula"),
        pytest.param("{model: nobodys-model}", "no price of 'nobodys-model'", id="an unknown model"),
        pytest.param("{model: 'arg:/model'}", "that is not in the list", id="whichever model"),
        pytest.param("{model: 'arg:model', per_call: 1 USD}", "no JSON pointer", id="no pointer to a model"),
        pytest.param("{model: gpt-4o, per_call: 1 EUR}", "one currency", id="models are in dollars"),
        pytest.param("{per_call: 1 USD, expected: 1 USD}", "expected: goes with", id="what is known is not expected"),
        pytest.param("{per_call: 1 USD, when: 'args.x =='}", "when: ", id="a bad condition"),
        pytest.param("{amount: x, currency: USD}", "is no JSON pointer", id="no pointer"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    found = examined(tmp_path, text)
    assert any(problem in str(one) and ":5:" in str(one) for one in found.problems), found.problems


def test_a_budget_that_no_price_is_in_is_worth_a_warning(tmp_path: Path) -> None:
    limit = "limits: [{name: a, money: 5 EUR, window: 1h}]\n"
    found = examined(tmp_path, "{per_call: 1 USD}", more=limit)
    assert any("no price is in EUR" in str(one) for one in found.warnings)


def test_what_models_cost(tmp_path: Path) -> None:
    models = "models: {own: {per_million_tokens_in: 1 USD}, gpt-4o: {per_million_tokens_out: 3 USD}}"
    found = examined(tmp_path, "{model: own, tokens_in: /_meta/in}", "{tokens_out: /usage/out}", more=models)
    assert found.snapshot is not None, found.problems
    assert found.snapshot.models["own"] == (1_000_000, 0)
    assert found.snapshot.models["gpt-4o"] == (0, 3_000_000), "the operator has the last word"
    assert "claude-sonnet-4-5" in found.snapshot.models
    first, second = found.snapshot.prices
    assert (first.currency, first.model, first.tokens_in) == ("USD", "own", "/_meta/in")
    assert (second.currency, second.tokens_out) == ("", "/usage/out")
    wrong = examined(tmp_path, "{model: own}", more="models: {own: {per_million_tokens_in: 1 EUR}}")
    assert "in USD" in str(wrong.problems)
    plain = examined(tmp_path, "{per_call: 1 USD}").snapshot
    assert plain is not None and plain.models == {}, "a list that nothing needs is not there"


def test_a_stale_list_is_told(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "{model: gpt-4o}"), env={})
    day = date.fromisoformat(price_list().date)
    compile_models({}, loaded.settings.prices, loaded.reading, day + timedelta(days=STALE_DAYS))
    assert not loaded.reading.warnings
    compile_models({}, loaded.settings.prices, loaded.reading, day + timedelta(days=STALE_DAYS + 1))
    assert "181 days ago" in str(loaded.reading.warnings)


def test_how_long_costs_are_kept(tmp_path: Path) -> None:
    snapshot = examined(tmp_path, "{per_call: 1 USD}", more="costs: {hours: 10d, days: 100d}").snapshot
    assert snapshot is not None and snapshot.costs == CostsKept(240, 100)


def test_which_tokenizer_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = "tokens: {tokenizer: o200k, models: {'gpt-3.5*': cl100k}}"
    snapshot = examined(tmp_path, "{per_call: 1 USD}", more=more).snapshot
    assert snapshot is not None and snapshot.tokens == TokenSpec("o200k", (("gpt-3.5*", "cl100k"),))
    monkeypatch.setattr("narthex.flow.limit.tokenizers.PACKAGE", "not_there")
    assert "narthex[tokens]" in str(examined(tmp_path, "{per_call: 1 USD}", more=more).problems)
    assert examined(tmp_path, "{per_call: 1 USD}", more="tokens: {}").snapshot is not None
