"""Exact tokenizers: what they count, which one counts for a model."""

from __future__ import annotations

import pytest

from narthex.flow.limit.tokenizers import ENCODINGS, chosen, is_installed, tokenizer

MODELS = (("gpt-3.5*", "cl100k"), ("gpt-4o*", "o200k"), ("voyage-*", "voyage3"))


@pytest.mark.parametrize(
    ("name", "text", "tokens"),
    [
        pytest.param("o200k", b"hello world", 2, id="words"),
        pytest.param("cl100k", b"hello world", 2, id="another one"),
        pytest.param("o200k", b"", 0, id="nothing"),
        pytest.param("o200k", b"\xff\xfe", 1, id="no UTF-8"),
        pytest.param("o200k", " \u00e9".encode(), 1, id="no ASCII"),
    ],
)
def test_what_they_count(name: str, text: bytes, tokens: int) -> None:
    assert is_installed()
    assert tokenizer(name)(text) == tokens


def test_special_tokens_of_a_text_are_text() -> None:
    assert tokenizer("o200k")(b"<|endoftext|>") > 1, "nobody writes less by writing what stands for an end"


def test_each_name_has_one() -> None:
    assert all(tokenizer(name)(b"a") == 1 for name in ENCODINGS)
    with pytest.raises(KeyError):
        tokenizer("p50k")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        pytest.param("gpt-3.5-turbo", "cl100k", id="by a pattern"),
        pytest.param("openai/gpt-4o", "o200k", id="whoever made it"),
        pytest.param("claude-sonnet-4-5", "estimate", id="none fits"),
        pytest.param("", "estimate", id="no model"),
    ],
)
def test_which_one_counts_for_a_model(model: str, name: str) -> None:
    assert chosen(model, "estimate", MODELS) == name
