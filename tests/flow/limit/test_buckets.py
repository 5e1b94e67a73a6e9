"""Buckets: found again, swept when they are over, bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.limit.buckets import OVERFLOW, Buckets
from narthex.flow.limit.keys import SIZE


@given(st.sets(st.binary(min_size=SIZE, max_size=SIZE), max_size=200), st.integers(1, 50))
def test_a_sweep_removes_what_is_over_and_nothing_else(keys: set[bytes], most: int) -> None:
    buckets = Buckets()
    for number, key in enumerate(keys):
        shard, placed = buckets.place(key)
        shard[placed] = number
    rounds = 0
    while rounds < 2:
        rounds += buckets.sweep(lambda number: number % 2 == 0, most)[1]
    assert buckets.count == len(buckets)
    left = [value for shard in buckets.shards for value in shard.values()]
    assert sorted(left) == [number for number in range(len(keys)) if number % 2]
    assert all(buckets.place(key)[1] == key for key in keys)


def test_beyond_the_most_keys_share_buckets_and_known_ones_keep_theirs() -> None:
    buckets = Buckets()
    first, other = bytes(SIZE), bytes([1] * SIZE)
    shard, key = buckets.place(first, most=1)
    shard[key] = 1
    assert buckets.place(other, most=1)[1] == other[:OVERFLOW]
    assert buckets.place(first, most=1)[1] == first
