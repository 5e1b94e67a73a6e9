"""Each algorithm beside a naive model that keeps everything: what is granted, what is given back, how long to wait."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from narthex.flow.limit.algorithms import NEVER, SLOTS, Concurrent, Periodic, Sliding, TokenBucket
from narthex.flow.limit.buckets import Shard

KEY = b"k"
WINDOW, MOST, BURST = 1000, 7, 5
AMOUNTS = st.integers(0, 4)


class Model(RuleBasedStateMachine):
    """Takes, gives back and settles at a time that goes on; `entries` are what was taken and not given back."""

    def __init__(self) -> None:
        super().__init__()
        self.shard: Shard = {}
        self.now = 10**15
        self.entries: list[list[int]] = []

    algorithm: Any

    def used(self) -> int:
        """What a model that keeps everything says is used."""
        raise NotImplementedError

    @rule(gap=st.integers(0, WINDOW // 3))
    def time_passes(self, gap: int) -> None:
        self.now += gap

    @rule(amount=AMOUNTS)
    def take(self, amount: int) -> None:
        fits = not amount or self.used() + amount <= self.algorithm.most
        wait = self.algorithm.wait(self.shard, KEY, amount, self.now)
        assert self.algorithm.take(self.shard, KEY, amount, self.now) is fits
        if fits and amount:
            assert wait == 0
            self.entries.append([self.now, amount])

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), change=st.integers(-4, 4))
    def settle(self, data: st.DataObject, change: int) -> None:
        entry = data.draw(st.sampled_from(self.entries))
        change = max(change, -entry[1])
        self.algorithm.correct(self.shard, KEY, change, entry[0], self.now)
        entry[1] += change

    @rule()
    def sweep(self) -> None:
        if KEY in self.shard and self.algorithm.over(self.now)(self.shard[KEY]):
            assert self.used() == 0
            del self.shard[KEY]

    @invariant()
    def says_what_is_used(self) -> None:
        assert self.algorithm.used(self.shard, KEY, self.now)[0] == self.used()


class SlidingModel(Model):
    def __init__(self) -> None:
        super().__init__()
        self.algorithm = Sliding(MOST, WINDOW)

    def used(self) -> int:
        return sum(amount for at, amount in self.entries if at > self.now - WINDOW)

    @rule(amount=st.integers(1, MOST))
    def waits_exactly_as_long_as_it_says(self, amount: int) -> None:
        wait = self.algorithm.wait(self.shard, KEY, amount, self.now)
        later = self.now + wait
        left = sum(amount for at, amount in self.entries if at > later - WINDOW)
        assert left + amount <= MOST or self.used() > MOST
        if wait:
            before = sum(amount for at, amount in self.entries if at > later - 1 - WINDOW)
            assert before + amount > MOST


class CountedModel(SlidingModel):
    def __init__(self) -> None:
        super().__init__()
        self.algorithm = Sliding(MOST, WINDOW, by_one=True)


class PeriodicModel(Model):
    def __init__(self) -> None:
        super().__init__()
        self.algorithm = Periodic(MOST, lambda at: (at - at % WINDOW, at - at % WINDOW + WINDOW))

    def used(self) -> int:
        return sum(amount for at, amount in self.entries if at >= self.now - self.now % WINDOW)


class ConcurrentModel(Model):
    def __init__(self) -> None:
        super().__init__()
        self.algorithm = Concurrent(MOST)

    def used(self) -> int:
        return sum(amount for _, amount in self.entries)


TestSliding = SlidingModel.TestCase
TestCounted = CountedModel.TestCase
TestPeriodic = PeriodicModel.TestCase
TestConcurrent = ConcurrentModel.TestCase
for one in (TestSliding, TestCounted, TestPeriodic, TestConcurrent):
    one.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 4)), max_size=60))
def test_a_bucket_grants_exactly_what_a_bucket_of_fractions_does(steps: list[tuple[int, int]]) -> None:
    bucket, shard, now = TokenBucket(MOST, WINDOW, BURST), dict[bytes, Any](), 10**15
    level, rate = Fraction(BURST), Fraction(MOST, WINDOW)
    for gap, amount in steps:
        now += gap
        level = min(Fraction(BURST), level + gap * rate)
        wait = bucket.wait(shard, KEY, amount, now)
        taken = bucket.take(shard, KEY, amount, now)
        assert taken is (amount <= level)
        if taken:
            level -= amount
        else:
            assert level + wait * rate >= amount > level + (wait - 1) * rate


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 4), st.booleans()), max_size=60))
def test_what_is_given_back_to_a_bucket_at_once_was_never_taken(steps: list[tuple[int, int, bool]]) -> None:
    bucket, shard, other, now = TokenBucket(MOST, WINDOW, BURST), dict[bytes, Any](), dict[bytes, Any](), 10**15
    for gap, amount, back in steps:
        now += gap
        taken = bucket.take(shard, KEY, amount, now)
        if back and taken:
            bucket.correct(shard, KEY, -amount, bucket.receipt(shard, KEY, now), now)
        elif not back:
            assert bucket.take(other, KEY, amount, now) is taken


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, BURST), st.integers(0, 3)), max_size=60))
def test_a_bucket_never_gives_more_than_its_burst_at_once_however_late_something_is_given_back(
    steps: list[tuple[int, int, int]],
) -> None:
    """The model keeps what was given back out of its sums from the beginning: it was never taken."""
    bucket, shard, now = TokenBucket(MOST, WINDOW, BURST), dict[bytes, Any](), 10**15
    taken: list[tuple[int, int, int]] = []
    kept: list[tuple[int, int]] = []
    for gap, amount, late in steps:
        now += gap
        while late and taken:
            at, receipt, back = taken.pop(0)
            bucket.correct(shard, KEY, -back, receipt, now)
            kept.remove((at, back))
            late -= 1
        if bucket.take(shard, KEY, amount, now):
            taken.append((now, bucket.receipt(shard, KEY, now), amount))
            kept.append((now, amount))
        for first, (since, _) in enumerate(kept):
            assert (sum(one for _, one in kept[first:]) - BURST) * WINDOW <= (now - since) * MOST


@given(st.lists(st.integers(0, 30), min_size=1, max_size=400), st.integers(SLOTS, 200))
def test_beyond_its_slots_a_window_never_grants_too_much_and_refuses_a_slot_late_at_most(
    gaps: list[int], most: int
) -> None:
    window = Sliding(most, WINDOW)
    shard: Shard = {}
    now, granted = 10**15, list[int]()
    for gap in gaps:
        now += gap
        inside = [at for at in granted if at > now - WINDOW]
        late = [at for at in granted if at > now - WINDOW - window.slot]
        if window.take(shard, KEY, 1, now):
            granted.append(now)
            assert len(inside) < most
        else:
            assert len(late) >= most
    assert len(shard[KEY].log) <= 16 * (2 * SLOTS + 2)


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(Sliding(5, 1000), id="sliding"),
        pytest.param(TokenBucket(5, 1000, 5), id="bucket"),
        pytest.param(Periodic(5, lambda at: (0, 10**18)), id="calendar"),
        pytest.param(Concurrent(5), id="concurrent"),
    ],
)
def test_more_than_there_ever_is_room_for_is_never_granted(algorithm: Any) -> None:
    shard: Shard = {}
    assert not algorithm.take(shard, KEY, 6, 1)
    assert algorithm.wait(shard, KEY, 6, 1) == NEVER
    assert algorithm.take(shard, KEY, 5, 1)


class TestAClockThatIsSet:
    """A period is one of the wall clock; what was used in it stays used, however the clock is set."""

    def periodic(self) -> Periodic:
        return Periodic(1, lambda at: (at - at % 100, at - at % 100 + 100))

    def test_back_within_the_period_or_before_it(self) -> None:
        for ahead in (-10, -300):
            one, shard = self.periodic(), dict[bytes, Any]()
            assert one.take(shard, KEY, 1, 1050)
            one.set_ahead(ahead, 1051)
            assert not one.take(shard, KEY, 1, 1052)

    def test_on_into_the_next_period(self) -> None:
        one, shard = self.periodic(), dict[bytes, Any]()
        assert one.take(shard, KEY, 1, 1050)
        one.set_ahead(60, 1051)
        assert one.take(shard, KEY, 1, 1052)

    def test_what_was_used_in_a_period_that_is_over_is_not_given_back_to_the_next(self) -> None:
        one, shard = self.periodic(), dict[bytes, Any]()
        assert one.take(shard, KEY, 1, 1050)
        assert one.take(shard, KEY, 1, 1150)
        one.correct(shard, KEY, -1, 1050, 1151)
        assert not one.take(shard, KEY, 1, 1152)
