"""Where answers stand: what goes first, and for whom."""

from __future__ import annotations

from narthex.flow.cache.lots import Lots
from narthex.flow.cache.shelves import OVERHEAD, SWEPT, Shelves
from tests.flow.cache.keeping import kept_as

KIB = OVERHEAD + 10


def shelves(entries: int = 10, most: int = 1 << 30, share: int = 100) -> Shelves:
    return Shelves(most, entries, share, Lots())


def test_what_was_asked_for_once_goes_before_what_is_in_use() -> None:
    some = shelves(entries=4)
    some.put(kept_as("used"))
    some.put(kept_as("used too"))
    assert some.get("used", 1.0) and some.get("used too", 1.0)
    for number in range(100):  # somebody makes up arguments
        some.put(kept_as(number))
    assert some.get("used", 1.0) and some.get("used too", 1.0)
    assert {kept.key for kept in some} == {"used", "used too", 98, 99}
    assert some.pushed_out == 98


def test_of_what_is_in_use_that_goes_which_was_used_longest_ago() -> None:
    some = shelves(entries=3)
    for key in "abc":
        some.put(kept_as(key))
    for key in "cab":
        some.get(key, 1.0)
    some.put(kept_as("d"))
    assert {kept.key for kept in some} == {"a", "b", "d"}


def test_a_tenant_makes_room_for_itself_within_its_share() -> None:
    some = shelves(most=10 * KIB, share=50)
    some.put(kept_as("other's", "other"))
    for number in range(20):
        some.put(kept_as(number, "one"))
    assert some.get("other's", 1.0)
    assert some.bytes == 6 * KIB and len(some) == 6


def test_the_tenant_that_has_most_makes_room_for_all() -> None:
    some = shelves(most=10 * KIB)
    for number in range(50):
        some.put(kept_as(number, "loud"))
    some.put(kept_as("a", "quiet"))
    some.put(kept_as("b", "quiet"))
    for number in range(50):
        some.put(kept_as(number, "loud"))
    assert some.get("a", 1.0) and some.get("b", 1.0)
    assert some.bytes <= 10 * KIB


def test_what_is_larger_than_all_that_a_tenant_may_have_is_not_kept() -> None:
    some = shelves(most=10 * KIB, share=50)
    assert some.put(kept_as("k"))
    assert not some.put(kept_as("k", size=6 * KIB))
    assert len(some) == 0 and some.bytes == 0, "and the old one is not given in its place"


def test_an_answer_is_given_until_its_time_is_over() -> None:
    some = shelves()
    some.put(kept_as("k", at=100.0, for_s=10.0))
    assert some.get("k", 109.9)
    assert some.get("k", 110.0) is None
    assert len(some) == 0


def test_a_sweep_lets_go_of_what_is_over_a_step_at_a_time() -> None:
    lots = Lots()
    some = Shelves(1 << 30, 10_000, 100, lots)
    for number in range(3 * SWEPT):
        some.put(kept_as(number, lots=lots, names=("list",)))
    lots.end("list")
    for left in (3, 2, 1, 0):
        some.sweep(1.0)
        assert len(some) == left * SWEPT
    some.sweep(1.0)
    assert len(some) == some.bytes == len(lots) == 0
