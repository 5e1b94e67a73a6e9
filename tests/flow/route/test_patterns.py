"""Globs on canonical names: what they cover, and that no name makes them slow."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.route.patterns import Selector, compile_globs, narrowed


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        pytest.param("time__now", "time__now", True, id="a plain name is itself"),
        pytest.param("time__now", "time__now2", False, id="the whole name counts, not its start"),
        pytest.param("now", "time__now", False, id="nor its end"),
        pytest.param("time__*", "time__", True, id="a star may be empty"),
        pytest.param("time__*", "TIME__now", False, id="case counts"),
        pytest.param("*__delete_*", "a__b__delete_x", True, id="a star covers separators"),
        pytest.param("a?c", "abc", True, id="a question mark is one character"),
        pytest.param("a?c", "ac", False, id="exactly one"),
        pytest.param("?", "\n", True, id="a line end is a character too"),
        pytest.param("a*", "a\nb\n", True, id="a star covers line ends"),
        pytest.param("a", "a\n", False, id="a line end at the end counts"),
        pytest.param("[ab]", "a", False, id="no character classes"),
        pytest.param("[ab]", "[ab]", True, id="brackets are themselves"),
        pytest.param("a.b*", "axb", False, id="a dot is itself"),
        pytest.param("a|b*", "a", False, id="a bar is itself"),
        pytest.param("**", "", True, id="stars cover everything"),
        pytest.param("", "", True, id="nothing is itself"),
        pytest.param("*a*b", "xbaxb", True, id="what stands at the end may also stand before"),
        pytest.param("a*a", "a", False, id="start and end do not overlap"),
    ],
)
def test_glob(pattern: str, name: str, covered: bool) -> None:
    assert compile_globs([pattern])(name) is covered
    assert compile_globs(["other", pattern, "x*y"])(name) is covered


def by_definition(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(by_definition(pattern[1:], name[i:]) for i in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and by_definition(pattern[1:], name[1:])


@given(patterns=st.lists(st.text("ab*?.", max_size=7), max_size=3), name=st.text("ab.\n", max_size=9))
def test_says_what_the_definition_says(patterns: list[str], name: str) -> None:
    assert compile_globs(patterns)(name) == any(by_definition(pattern, name) for pattern in patterns)


@given(
    patterns=st.lists(st.text("ab*?.", max_size=7), max_size=3),
    prefix=st.text("ab.", max_size=3),
    own=st.text("ab.", max_size=6),
)
def test_narrowed_to_a_prefix_it_says_the_same(patterns: list[str], prefix: str, own: str) -> None:
    name = prefix + own
    assert narrowed(patterns, prefix)(name) == compile_globs(patterns)(name)
    assert narrowed(patterns, prefix, [prefix + "b", name])(name) == compile_globs(patterns)(name)


@pytest.mark.parametrize("pattern", ["*a" * 60 + "b", "*" + "a" * 100 + "*b", "*?" * 60 + "b", "a*" * 60 + "b"])
def test_no_name_makes_it_slow(pattern: str) -> None:
    covered = compile_globs([pattern])
    start = time.thread_time()
    assert not covered("a" * 4096)
    assert time.thread_time() - start < 5, "with backtracking this would take years"


@pytest.mark.parametrize(
    ("include", "exclude", "allowed"),
    [
        pytest.param([], [], True, id="empty means all"),
        pytest.param(["time__*"], [], True, id="included"),
        pytest.param(["git__*"], [], False, id="not included"),
        pytest.param([], ["*__now"], False, id="excluded from all"),
        pytest.param(["time__now"], ["time__now"], False, id="exclude wins"),
    ],
)
def test_selector(include: list[str], exclude: list[str], allowed: bool) -> None:
    assert Selector(include, exclude).allows("time__now") is allowed
