"""Sums stay sums, whoever makes up values for their labels."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from narthex.telemetry.tally import Tally


def test_each_set_of_values_has_its_sum() -> None:
    tally = Tally("server", "direction")
    tally.add(2, "a", "in")
    tally.add(3, "a", "in")
    tally.add(4, "a", "out")
    assert dict(tally.read()) == {
        (("server", "a"), ("direction", "in")): 5.0,
        (("server", "a"), ("direction", "out")): 4.0,
    }


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=80))
def test_sets_are_bounded_and_nothing_is_lost(values: list[tuple[str, str]]) -> None:
    tally = Tally("who", "what", most=4, fixed=1)
    for who, what in values:
        tally.add(1, who, what)
    read = dict(tally.read())
    assert sum(read.values()) == len(values)
    assert len(read) <= 9


def test_few_values_keep_their_name() -> None:
    tally = Tally("who", "what", most=1, fixed=1)
    for who in "abc":
        tally.add(1, who, "in")
    assert (("who", "other"), ("what", "in")) in dict(tally.read())
