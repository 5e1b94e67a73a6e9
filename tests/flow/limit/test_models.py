"""Names of models, as others write them, and what the list knows of them."""

from __future__ import annotations

from typing import Any

import pytest

from narthex.config.prices import price_list
from narthex.flow.limit.models import LONGEST, name_of, rates_of

KNOWN = {"gpt-4o": (1, 2), "gpt-4o-mini": (3, 4), "claude-sonnet-4-5": (5, 6)}


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        pytest.param("gpt-4o", (1, 2), id="as the list has it"),
        pytest.param("openai/gpt-4o", (1, 2), id="with its maker"),
        pytest.param("gpt-4o-2024-08-06", (1, 2), id="with its day"),
        pytest.param("gpt-4o-mini-latest", (3, 4), id="the latest"),
        pytest.param("vertex_ai/claude-sonnet-4-5@20250929", (5, 6), id="a version behind @"),
        pytest.param("gpt-4o-audio", None, id="another model is another one"),
        pytest.param("claude", None, id="a part of a name"),
        pytest.param("", None, id="nothing"),
        pytest.param("-1" * 60, None, id="nothing but versions"),
    ],
)
def test_a_name_leads_to_its_model(name: str, rates: tuple[int, int] | None) -> None:
    assert rates_of(KNOWN, name) == rates


@pytest.mark.parametrize("value", [None, 5, [], "", "a" * (LONGEST + 1), "a\nb"])
def test_what_is_no_name(value: Any) -> None:
    assert name_of(value) == ""
    assert name_of("GPT-4o") == "gpt-4o"


def test_the_list_is_whole() -> None:
    known = price_list()
    assert known.currency == "USD" and known.source and known.date > "2026"
    assert len(known.models) > 300
    assert all(name == name_of(name) and min(rates) >= 0 and max(rates) > 0 for name, rates in known.models.items())
