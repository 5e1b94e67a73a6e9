"""Shown names: legal, short enough, the same every time, apart from each other, and they keep their server."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.route.names import MIN_MAX_NAME, canonical, shown_name, split_prefix

Naming = Literal["prefix", "none"]
SERVERS = st.text("abz09-", min_size=1, max_size=24)
NAMES = st.text(min_size=0, max_size=80) | st.text("ab_-Z9 .é", max_size=80) | st.just("\ud800")
NAMINGS: st.SearchStrategy[Naming] = st.sampled_from(["prefix", "none"])
LENGTHS = st.integers(MIN_MAX_NAME, 128)


@pytest.mark.parametrize(
    ("server", "name", "naming", "shown"),
    [
        pytest.param("time", "get_time", "prefix", "time__get_time", id="legal and short stays"),
        pytest.param("time", "get_time", "none", "get_time", id="without prefix"),
        pytest.param("a-1", "x" * 43, "prefix", "a-1__" + "x" * 43, id="48 fit"),
        pytest.param("time", "get.time", "prefix", "time__get_time_0aa280a8", id="replaced and marked"),
        pytest.param("time", "get.time", "none", "get_time_0aa280a8", id="replaced and marked without prefix"),
        pytest.param("time", "", "prefix", "time__4a6f5ed9", id="no name is the digits alone"),
    ],
)
def test_shown(server: str, name: str, naming: Naming, shown: str) -> None:
    assert shown_name(server, name, naming=naming, max_name=48) == shown


@given(server=SERVERS, name=NAMES, naming=NAMINGS, max_name=LENGTHS)
def test_always_legal_and_short_enough(server: str, name: str, naming: Naming, max_name: int) -> None:
    shown = shown_name(server, name, naming=naming, max_name=max_name)
    assert re.fullmatch(rf"[A-Za-z0-9_-]{{1,{max_name}}}", shown, re.ASCII)
    assert shown == shown_name(server, name, naming=naming, max_name=max_name), "the same every time"


@given(server=SERVERS, name=NAMES, max_name=LENGTHS)
def test_the_prefix_survives_whole(server: str, name: str, max_name: int) -> None:
    assert split_prefix(shown_name(server, name, naming="prefix", max_name=max_name)) == server


@given(names=st.sets(st.tuples(SERVERS, NAMES), max_size=30), max_name=LENGTHS)
def test_distinct_names_stay_distinct(names: set[tuple[str, str]], max_name: int) -> None:
    assert len({shown_name(*name, naming="prefix", max_name=max_name) for name in names}) == len(names)
    assert len({canonical(*name) for name in names}) == len(names)


def test_names_that_are_cut_alike_stay_distinct() -> None:
    long = ["x" * 60 + str(number) for number in range(1000)]
    assert len({shown_name("s", name, naming="none", max_name=48) for name in long}) == 1000


def test_too_small_a_bound_still_keeps_prefix_and_digits() -> None:
    server = "a" * 24
    assert re.fullmatch(rf"{server}__[0-9a-f]{{8}}", shown_name(server, "tool", naming="prefix", max_name=16))


@pytest.mark.parametrize("shown", ["", "plain", "a_b", "__x", "time__", "Time__x", "a_b__x", "x" * 25 + "__x"])
def test_what_has_no_prefix(shown: str) -> None:
    assert split_prefix(shown) is None
