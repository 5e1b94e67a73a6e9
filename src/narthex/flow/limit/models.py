"""What the tokens of a model cost: by a list of models, and how a name that somebody else wrote leads into it.

In: a name, as an argument or a result has it (`gpt-4o`, `openai/gpt-4o-2024-08-06`). Out: millionths of a currency for
a million tokens in and out. Pure. Cases: `tests/flow/limit/test_models.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LONGEST = 128
"""Of a name: a longer one is none."""
Rates = tuple[int, int]
_VERSION = re.compile(r"[-@](latest|preview|v?[0-9][0-9.:-]*)$")


def name_of(value: Any) -> str:
    """The name of a model as lists and books have it; empty where it is none."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or not value.isprintable():
        return ""
    return value.lower()


def rates_of(models: Mapping[str, Rates], name: str) -> Rates | None:
    """What a model costs; None where the list has none of the name, without its maker, or without its version."""
    name = name.rpartition("/")[2]
    while name not in models:
        shorter = _VERSION.sub("", name)
        if shorter == name:
            return None
        name = shorter
    return models[name]
