"""Values of arguments that clearing rules compare: one text for what a server may take for the same. Pure.

In: decoded arguments, JSON pointers. Out: their values, to be compared; None where one is missing.
Cases: `tests/flow/cache/test_plans.py`.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from narthex.flow.limit.keys import at_pointer, plain

Mark = tuple[str, ...]
LONGEST = 64
"""Characters; of longer ones a digest stands."""


def marks_in(arguments: Any, pointers: tuple[str, ...]) -> Mark | None:
    """The values at all pointers; None where one has none."""
    found = []
    for pointer in pointers:
        value = plain(at_pointer(arguments, pointer))
        if value is None:
            return None
        if len(value) > LONGEST:
            value = "#" + blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        found.append(value)
    return tuple(found)
