"""Which canonical names a list of globs covers.

In: globs as the operator wrote them (`*` any characters, `?` one, all else itself, case-sensitive). Out: a yes or no
for a name. A name comes from a server and may be hostile: the time is at worst its length times the patterns' length.
Cases: `tests/flow/route/test_patterns.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache


def compile_globs(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A function that says whether a name is covered by at least one of `patterns`; none covers nothing."""
    return _compile(tuple(patterns))


@lru_cache(maxsize=512)
def _compile(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    plain = frozenset(pattern for pattern in patterns if not re.search(r"[*?]", pattern))
    globs = [pattern for pattern in dict.fromkeys(patterns) if pattern not in plain]
    if not globs:
        return plain.__contains__
    if any(pattern.strip("*") == "" for pattern in globs):
        return _everything
    match = re.compile("|".join(_regex(pattern) for pattern in globs), re.DOTALL).fullmatch
    if not plain:
        return lambda name: match(name) is not None
    return lambda name: name in plain or match(name) is not None


def _everything(name: str) -> bool:
    return True


def _regex(pattern: str) -> str:
    """The regular expression of one glob.

    What stands between two stars is looked for once, at its first place, and never again: if the rest does not fit
    behind the first place, it fits behind no later one. The atomic groups say that, and forbid backtracking.
    """
    first, *middle = ["".join("." if char == "?" else re.escape(char) for char in part) for part in pattern.split("*")]
    if not middle:
        return first
    *middle, last = middle
    return first + "".join(f"(?>.*?{part})" for part in middle if part) + ".*" + last


class Selector:
    """What an endpoint takes: an empty `include` means all, and `exclude` wins."""

    __slots__ = ("_excluded", "_included")

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self._included = compile_globs(include) if include else _everything
        self._excluded = compile_globs(exclude)

    def allows(self, name: str) -> bool:
        """Is the item of this canonical name taken?"""
        return self._included(name) and not self._excluded(name)
