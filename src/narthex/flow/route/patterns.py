"""Which canonical names a list of globs covers.

In: globs as the operator wrote them (`*` any characters, `?` one, all else itself, case-sensitive). Out: a yes or no
for a name. A name comes from a server and may be hostile: the time is at worst its length times the patterns' length.
Cases: `tests/flow/route/test_patterns.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final


def compile_globs(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A function that says whether a name is covered by at least one of `patterns`; none covers nothing."""
    return _compile(tuple(patterns))


@lru_cache(maxsize=512)
def _compile(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """The plain forms, which are most, are looked for as text: a fraction of what a regular expression costs."""
    whole: set[str] = set()
    starts: list[str] = []
    ends: list[str] = []
    parts: list[str] = []
    rest: list[str] = []
    for glob in dict.fromkeys(patterns):
        text = glob.strip("*")
        if not text and glob:
            return everything
        if re.search(r"[*?]", text):
            rest.append(glob)
        elif glob == text:
            whole.add(glob)
        elif glob[0] != "*":
            starts.append(text)
        elif glob[-1] != "*":
            ends.append(text)
        else:
            parts.append(text)
    tests: list[Callable[[str], object]] = [whole.__contains__] if whole else []
    if starts:
        tests.append(_starts(tuple(starts)))
    if ends:
        tests.append(_ends(tuple(ends)))
    if parts:
        tests.append(_has_part(tuple(parts)))
    if rest:
        tests.append(re.compile("|".join(_regex(glob) for glob in rest), re.DOTALL).fullmatch)
    return _any(tests)


def _starts(texts: tuple[str, ...]) -> Callable[[str], bool]:
    return lambda name: name.startswith(texts)


def _ends(texts: tuple[str, ...]) -> Callable[[str], bool]:
    return lambda name: name.endswith(texts)


def _has_part(texts: tuple[str, ...]) -> Callable[[str], bool]:
    def has_part(name: str) -> bool:
        for text in texts:  # noqa: SIM110 - a generator costs more than what it runs
            if text in name:
                return True
        return False

    return has_part


def _any(tests: list[Callable[[str], object]]) -> Callable[[str], bool]:
    if not tests:
        return nothing
    if len(tests) == 1:
        only = tests[0]
        return lambda name: bool(only(name))

    def one_of(name: str) -> bool:
        for test in tests:  # noqa: SIM110
            if test(name):
                return True
        return False

    return one_of


def narrowed(patterns: Sequence[str], prefix: str, names: Sequence[str] | None = None) -> Callable[[str], bool]:
    """The same for names that begin with `prefix`, or for just these `names`: patterns that fit none of them are left
    out, which is found out for all names at once.

    Returns: `everything` or `nothing` where all of them, or none, are covered.
    """
    fitting: list[_Glob] = []
    for one in _read(tuple(patterns)):
        if prefix.startswith(one.start):
            if one.takes_all:
                return everything
            fitting.append(one)
        elif one.start.startswith(prefix):
            fitting.append(one)
    if names is not None and fitting:
        all_names = "\n".join(names)
        fitting = [one for one in fitting if one.longest in all_names]
    return compile_globs([one.text for one in fitting])


class _Glob:
    """A glob: what a name must begin with, the longest text that it must hold; does it take all that begins so?"""

    __slots__ = ("longest", "start", "takes_all", "text")

    def __init__(self, text: str) -> None:
        pieces = re.split(r"[*?]", text)
        self.text: Final = text
        self.start: Final = pieces[0]
        self.longest: Final = max(pieces, key=len)
        self.takes_all: Final = text == self.start + "*"


@lru_cache(maxsize=512)
def _read(patterns: tuple[str, ...]) -> tuple[_Glob, ...]:
    return tuple(map(_Glob, patterns))


def everything(name: str) -> bool:
    return True


def nothing(name: str) -> bool:
    return False


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
        self._included = compile_globs(include) if include else everything
        self._excluded = compile_globs(exclude)

    def allows(self, name: str) -> bool:
        """Is the item of this canonical name taken?"""
        return self._included(name) and not self._excluded(name)
