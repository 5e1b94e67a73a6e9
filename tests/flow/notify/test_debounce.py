"""Marks: many of one thing are one, each comes due in its span, none is lost, and nothing stays behind."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from narthex.flow.notify.debounce import Debounce

FIRST_S, LAST_S = 1.0, 3.0


def test_many_marks_are_one_and_the_first_decides_when() -> None:
    marks: Debounce[str] = Debounce(FIRST_S, LAST_S)
    for now in (0.0, 0.5, 1.5):
        marks.mark("a", now=now, chance=0.5)
    assert (marks.due(1.9), marks.next_due()) == ([], 2.0)
    assert (marks.due(2.0), marks.due(9.0), marks.next_due()) == (["a"], [], None)


def test_chance_spreads_them() -> None:
    marks: Debounce[float] = Debounce(FIRST_S, LAST_S)
    for chance in (0.75, 0.0, 0.25):
        marks.mark(chance, now=10.0, chance=chance)
    assert [marks.due(at) for at in (10.9, 11.0, 11.5, 12.5)] == [[], [0.0], [0.25], [0.75]]


def test_of_very_many_a_part_is_given_and_the_rest_stays_due() -> None:
    marks: Debounce[int] = Debounce(FIRST_S, LAST_S)
    for key in range(5):
        marks.mark(key, now=0.0, chance=key / 10)
    assert (marks.due(9.0, 2), marks.next_due()) == ([0, 1], 1.4)
    assert (marks.due(9.0, 2), marks.due(9.0), marks.next_due()) == ([2, 3], [4], None)


def test_what_is_marked_while_it_is_handled_comes_due_again() -> None:
    marks: Debounce[str] = Debounce(FIRST_S, LAST_S)
    marks.mark("a", now=0.0, chance=0.0)
    assert marks.due(1.0) == ["a"]
    marks.mark("a", now=1.0, chance=0.0)
    assert marks.due(2.0) == ["a"]


class Life(RuleBasedStateMachine):
    """Against a plain map of what is marked to its span."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: Debounce[str] = Debounce(FIRST_S, LAST_S)
        self.model: dict[str, float] = {}
        self.now = 0.0

    @rule(key=st.sampled_from("abc"), chance=st.floats(0, 1, exclude_max=True))
    def mark(self, key: str, chance: float) -> None:
        self.marks.mark(key, now=self.now, chance=chance)
        self.model.setdefault(key, self.now + FIRST_S + (LAST_S - FIRST_S) * chance)

    @rule(key=st.sampled_from("abc"))
    def forget(self, key: str) -> None:
        self.marks.forget(key)
        self.model.pop(key, None)

    @rule(seconds=st.floats(0, 2))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        due = sorted((at, key) for key, at in self.model.items() if at <= self.now)
        assert sorted(self.marks.due(self.now)) == sorted(key for _, key in due)
        for _, key in due:
            del self.model[key]

    @invariant()
    def it_knows_when_the_next_comes(self) -> None:
        assert self.model or not self.marks._heap
        assert self.marks.next_due() == min(self.model.values(), default=None)
        assert len(self.marks._keys) == len(self.marks._numbers) == len(self.model)


TestLife = Life.TestCase
