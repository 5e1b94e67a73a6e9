"""Shares of a limit: each told once on the way up, whatever the steps; and again after it was free in between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.limit import alerts
from narthex.flow.limit.alerts import Alert, Shares
from narthex.flow.limit.keys import Shown

SHARES = (50, 80, 90, 100)


@pytest.mark.parametrize(
    ("unit", "currency", "amounts"),
    [("money", "USD", "0.03 of 0.05 USD"), ("calls", "", "30000 of 50000 calls")],
    ids=["money", "calls"],
)
def test_what_is_used_is_said_in_its_unit(unit: str, currency: str, amounts: str) -> None:
    assert alert(unit, currency).amounts == amounts


def test_whom_it_is_for_is_said_also_of_those_without_an_agent() -> None:
    assert alert(per=(("tenant", "default"), ("agent", ""))).words == "tenant default, agent -"
    assert alert(per=()).words == "everybody"


def alert(unit: str = "calls", currency: str = "", per: Shown = ()) -> Alert:
    return Alert("1", "spend", 50, 30_000, 50_000, unit, per, b"k", currency)


def told(*used: int) -> list[int]:
    shares = Shares(SHARES)
    return [shares.reached(b"k", one, 200) for one in used]


def test_each_share_is_told_once_on_the_way_up() -> None:
    assert told(99, 100, 120, 160, 161, 200, 230) == [0, 50, 0, 80, 0, 100, 0]


def test_of_several_that_are_reached_at_once_the_highest() -> None:
    assert told(190) == [90]


def test_again_after_it_was_free() -> None:
    assert told(170, 0, 99, 170, 110, 170) == [80, 0, 0, 80, 0, 80]


@given(st.lists(st.integers(0, 250)))
def test_never_twice_the_same_without_less_in_between(used: list[int]) -> None:
    last = 0
    for share in told(*used):
        assert share in (0, *SHARES)
    shares, last = Shares(SHARES), 0
    for one in sorted(used):
        share = shares.reached(b"k", one, 200)
        assert share == 0 or share > last
        last = max(last, share)


def test_buckets_are_apart_and_bounded() -> None:
    shares = Shares((50,))
    for number in range(alerts.MOST + 1):
        assert shares.reached(number.to_bytes(3), 1, 2) == 50
    assert shares.reached((1).to_bytes(3), 1, 2) == 0
    assert shares.reached((0).to_bytes(3), 1, 2) == 50
