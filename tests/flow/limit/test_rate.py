"""The cheap bound: so many a second and at once, each by itself, bounded in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.limit import rate
from narthex.flow.limit.rate import RequestRate


@given(st.integers(1, 20), st.lists(st.floats(0, 0.5), max_size=200))
def test_never_more_than_twice_a_second_s_worth_in_a_second(per_second: int, gaps: list[float]) -> None:
    one, now, granted = RequestRate(per_second), 100.0, list[float]()
    for gap in gaps:
        now += gap
        one.sweep(now)
        if one.take("a", now) == 0.0:
            granted.append(now)
    assert all(sum(at < other <= at + 1.0 for other in granted) <= 2 * per_second for at in granted)


def test_all_at_once_then_one_by_one_as_long_as_it_says() -> None:
    one = RequestRate(10)
    assert [one.take("a", 5.0) for _ in range(10)] == [0.0] * 10
    wait = one.take("a", 5.0)
    assert 0.0 < wait <= 0.1 + 1e-9
    assert one.take("b", 5.0) == 0.0
    assert one.take("a", 5.0 + wait) == 0.0


def test_newcomers_share_one_count_while_too_many_are_remembered() -> None:
    one = RequestRate(1)
    for number in range(rate.MOST):
        assert one.take(number, 5.0) == 0.0
    assert one.take("new", 5.0) == 0.0
    assert one.take("newer", 5.0) > 0.0
    one.sweep(7.0)
    one.sweep(9.0)
    assert one.take("newer", 9.0) == 0.0
