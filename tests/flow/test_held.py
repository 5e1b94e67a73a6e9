"""The budget of held bytes: never overdrawn, nothing taken by a refusal, and all of it comes back."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import Overloaded
from narthex.flow.held import Held


@pytest.mark.parametrize(
    ("limit", "sizes", "accepted"),
    [
        pytest.param(10, [10], [True], id="the whole budget may be taken"),
        pytest.param(10, [11], [False], id="not a byte more"),
        pytest.param(10, [6, 6], [True, False], id="what is held counts"),
        pytest.param(10, [6, 6, 4], [True, False, True], id="a refusal takes nothing"),
        pytest.param(10, [10, 0], [True, True], id="nothing always fits"),
        pytest.param(0, [1], [False], id="no budget, no bytes"),
    ],
)
def test_take(limit: int, sizes: list[int], accepted: list[bool]) -> None:
    held = Held(limit)
    taken = []
    for size in sizes:
        try:
            held.take(size)
        except Overloaded:
            taken.append(False)
        else:
            taken.append(True)
    assert taken == accepted


def test_what_is_given_back_may_be_taken_again() -> None:
    held = Held(10)
    held.take(10)
    held.give(4)
    held.take(4)
    with pytest.raises(Overloaded) as refused:
        held.take(1)
    assert refused.value.data == {"retryAfterSeconds": 1}


@given(limit=st.integers(0, 100), steps=st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=40))
def test_never_more_than_the_limit_and_all_comes_back(limit: int, steps: list[tuple[bool, int]]) -> None:
    held, mine = Held(limit), list[int]()
    for takes, size in steps:
        if takes:
            with suppress(Overloaded):
                held.take(size)
                mine.append(size)
        elif mine:
            held.give(mine.pop())
        assert held.used == sum(mine) <= limit
    for size in mine:
        held.give(size)
    assert held.used == 0
