"""The estimate of tokens beside what a tokenizer (o200k) has counted in made-up results of tools (`tokens.jsonl`).

Of larger and other collections `python bench/tokens.py FILE` tells.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.limit.tokens import WHOLE, estimate, estimate_size

TEXTS = [json.loads(line) for line in Path(__file__).with_name("tokens.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_sum_is_within_three_in_a_hundred_and_a_single_text_near_it() -> None:
    found = [estimate(one["text"].encode()) for one in TEXTS]
    exact = [one["tokens"] for one in TEXTS]
    assert abs(sum(found) / sum(exact) - 1) < 0.03
    assert median(abs(one / true - 1) for one, true in zip(found, exact, strict=True)) < 0.12


def test_a_large_text_is_judged_by_its_pieces() -> None:
    text = "\n".join(one["text"] for one in TEXTS).encode()
    large = text * (10 * WHOLE // len(text) + 1)
    assert abs(estimate(large) / (estimate(text[:WHOLE]) * len(large) / min(len(text), WHOLE)) - 1) < 0.1


@given(st.binary(max_size=500))
def test_any_bytes_have_a_number_of_tokens_that_is_no_more_than_they_are_and_two(text: bytes) -> None:
    assert (estimate(text) == 0) is (text == b"")
    assert 0 <= estimate(text) <= len(text) * 112 // 100 + 3


def test_of_a_size_alone() -> None:
    assert estimate_size(0) == 0
    assert estimate_size(1000) == 285
