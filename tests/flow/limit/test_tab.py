"""What calls have used is added up, and every bit of it is taken once, whatever two threads do at the same time."""

from __future__ import annotations

import sys
import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.limit.tab import Key, Tab

A, B = (b"counter", b"a", 1), (b"counter", b"b", 1)
KEYS = st.sampled_from([A, B, (b"counter", b"a", 2), (b"other", b"a", 1)])


@given(st.lists(st.one_of(st.none(), st.tuples(KEYS, st.integers(0, 9), st.integers(0, 9)))))
def test_what_is_taken_is_what_was_added_since(steps: list[tuple[Key, int, int] | None]) -> None:
    """`None` takes."""
    calls: list[int] = []
    tab, expected = Tab(lambda: calls.append(1)), dict[Key, tuple[int, int, int]]()
    for step in [*steps, None]:
        if step is not None:
            key, at, amount = step
            last, ends, before = expected.get(key, (at, at + 100, 0))
            expected[key] = max(last, at), ends, before + amount
            tab.add(key, at, at + 100, amount)
            assert calls == [1], "they are called once, whatever comes"
        else:
            assert len(tab) == len(expected)
            assert {key: (one.at, one.ends, one.amount) for key, one in tab.take()} == expected
            assert len(tab) == 0
            expected.clear()
            calls.clear()


def test_two_threads_lose_nothing() -> None:
    """One adds, the other takes whenever it is called: all is taken in the end, and it is called for the last of it."""
    called, done, taken = threading.Event(), threading.Event(), dict.fromkeys((A, B), 0)
    tab = Tab(called.set)

    def take() -> None:
        while not (done.is_set() and not tab):
            called.wait()
            called.clear()
            for key, one in tab.take():
                taken[key] += one.amount

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=take)
    thread.start()
    try:
        for number in range(50_000):
            tab.add(B if number % 3 else A, number, number + 1, 1)
        until = time.monotonic() + 60
        while tab and time.monotonic() < until:
            time.sleep(0)
        assert not tab, "whoever takes was called for all of it"
    finally:
        sys.setswitchinterval(before)
        done.set()
        called.set()
        thread.join(60)
    assert not thread.is_alive()
    assert taken == {A: 16_667, B: 33_333}
