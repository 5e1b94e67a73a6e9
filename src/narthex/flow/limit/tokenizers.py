"""Exact tokenizers, where the package that has them is installed: which one, by name, and how many tokens a text has.

In: a tokenizer's name, bytes of UTF-8. Out: tokens. The vocabularies come with the package (`narthex[tokens]`): nothing
is fetched. Counting takes some tens of nanoseconds a byte and lets other threads run; making one takes a second. So
none of it is for the path of a call. Cases: `tests/flow/limit/test_tokenizers.py`; how far the estimate is from it:
`python bench/tokens.py FILE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec

from narthex.flow.route.patterns import compile_globs

ENCODINGS = {"o200k": "o200k_base", "cl100k": "cl100k_base", "voyage3": "voyage3_base"}
ESTIMATE = "estimate"
PACKAGE = "bpe_openai"


def is_installed() -> bool:
    """Is the package here that has them?"""
    return find_spec(PACKAGE) is not None


@cache
def tokenizer(name: str) -> Callable[[bytes], int]:
    """Counts the tokens of a text. What is no UTF-8 in it counts as the character that stands for such.

    Raises:
        ImportError: The package is not installed. KeyError: There is no such tokenizer.
    """
    # What stands above this in the package makes lists of tokens, only to count them.
    from bpe_openai._bindings import tokenizer_for_encoding

    count = tokenizer_for_encoding(ENCODINGS[name]).count
    return lambda text: int(count(text.decode(errors="replace")))


def chosen(model: str, default: str, models: Sequence[tuple[str, str]]) -> str:
    """Which tokenizer counts for a model: the first whose pattern fits its name, without the maker's."""
    name = model.rpartition("/")[2]
    return next((one for pattern, one in models if name and compile_globs((pattern,))(name)), default)
