"""Calls by name: never fewer than there were in the window, and no more than in a slice more than it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.policy.runs.tally import LONGEST, MOST_NAMES, OTHERS, SLICES, Room, Tally

WINDOW_S = 80.0
STEPS = st.lists(st.tuples(st.floats(0, 60), st.sampled_from("abc")), max_size=40)


@given(STEPS, st.floats(0, 100))
def test_counts_what_was_in_the_window(steps: list[tuple[float, str]], wait: float) -> None:
    tally, now, calls = Tally(Room(100)), 1000.0, []
    for gap, name in steps:
        now += gap
        tally.add(name, now, WINDOW_S)
        calls.append((now, name))
    now += wait
    counts = tally.counts(now, WINDOW_S)
    for name in "abc":
        found = counts.get(name, 0)
        assert found >= sum(at > now - WINDOW_S for at, one in calls if one == name)
        assert found <= sum(at > now - WINDOW_S * (1 + 1 / SLICES) - 1e-6 for at, one in calls if one == name)


@given(STEPS)
def test_what_is_cleared_gives_its_room_back(steps: list[tuple[float, str]]) -> None:
    room = Room(2)
    tally, now = Tally(room), 1000.0
    for gap, name in steps:
        now += gap
        tally.add(name, now, WINDOW_S)
        assert room.left >= 0
    tally.clear()
    assert room.left == 2
    assert tally.counts(now, WINDOW_S) == {}


def test_names_without_end_count_together() -> None:
    tally = Tally(Room(10**6))
    for number in range(MOST_NAMES + 7):
        tally.add(f"tool_{number}", 1.0, WINDOW_S)
    tally.add("x" * (LONGEST + 1), 1.0, WINDOW_S)
    counts = tally.counts(1.0, WINDOW_S)
    assert len(counts) == MOST_NAMES + 1
    assert counts[OTHERS] == 8


def test_another_window_begins_anew() -> None:
    tally = Tally(Room(10))
    tally.add("a", 1000.0, 80.0)
    assert tally.counts(1000.0, 8000.0) == {}
