"""Live state of legacy sessions: made at need, bounded, forgotten when idle. Time is handed in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from narthex.errors import Overloaded
from narthex.flow.notify.live import IDLE_S, LiveSession, LiveSessions
from narthex.types import Session


def session(number: int) -> Session:
    return Session(f"s{number}", "2025-11-25", 10**10)


OPEN: Any = object()
"""Stands for an open stream."""


def test_made_at_need_and_the_same_again() -> None:
    live = LiveSessions()
    assert live.get(session(1), 0.0) is None
    one, gone = live.of(session(1), 0.0)
    assert not gone and live.of(session(1), 5.0) == (one, [])
    assert live.get(session(1), 6.0) is one and one.last_used == 6.0
    assert "s1" in live.by_id and len(live) == 1


def test_what_is_not_used_goes() -> None:
    live = LiveSessions(idle_s=10.0)
    one, _ = live.of(session(1), 0.0)
    two, _ = live.of(session(2), 1.0)
    assert live.idle(9.0) == []
    live.get(session(1), 9.0)
    assert live.idle(11.0) == [two]
    assert live.idle(19.0) == [one] and not len(live)


def test_an_open_stream_is_use() -> None:
    live = LiveSessions(idle_s=10.0)
    one, _ = live.of(session(1), 0.0)
    one.stream = OPEN
    assert live.idle(100.0) == []
    one.stream = None
    assert live.idle(109.0) == []
    assert live.idle(110.0) == [one]


def test_the_longest_unused_makes_room() -> None:
    live = LiveSessions(most=2)
    one, _ = live.of(session(1), 0.0)
    live.of(session(2), 1.0)
    live.get(session(1), 2.0)
    _, gone = live.of(session(3), 3.0)
    assert [each.session.id for each in gone] == ["s2"] and "s1" in live.by_id
    one.stream = OPEN
    _, gone = live.of(session(4), 4.0)
    assert [each.session.id for each in gone] == ["s3"]


def test_who_has_streams_is_not_driven_out() -> None:
    live = LiveSessions(most=2)
    for number in range(2):
        live.of(session(number), 0.0)[0].stream = OPEN
    with pytest.raises(Overloaded):
        live.of(session(3), 1.0)
    assert len(live) == 2


def test_ten_thousand_go_in_a_few_sweeps() -> None:
    live = LiveSessions()
    for number in range(10_000):
        live.of(session(number), float(number) / 1000)
    sweeps = 0
    while len(live):
        live.idle(IDLE_S + 10)
        sweeps += 1
    assert sweeps == 10


def test_the_end_of_a_session() -> None:
    live = LiveSessions()
    one, _ = live.of(session(1), 0.0)
    assert live.end("s1") is one
    assert live.end("s1") is None


def test_a_stream_that_ends_keeps_nobody_else_from_going() -> None:
    live = LiveSessions(idle_s=10.0)
    one, _ = live.of(session(1), 0.0)
    two, _ = live.of(session(2), 0.0)
    one.stream = OPEN
    one.stream = None
    live.use(one, 9.0)
    assert live.idle(11.0) == [two], "though the other came first"
    live.use(two, 12.0)
    assert len(live) == 1, "one that was forgotten stays so"


class Life(RuleBasedStateMachine):
    """Against a plain list, the one longest unused first: who is there, who goes and when, who may not come."""

    MOST, IDLE_S = 4, 100.0

    def __init__(self) -> None:
        super().__init__()
        self.lives = LiveSessions(self.MOST, self.IDLE_S)
        self.now = 0.0
        self.model: list[tuple[str, LiveSession]] = []
        self.used: dict[str, float] = {}

    def touch(self, id_: str) -> None:
        self.used[id_] = self.now
        self.model.append(next(one for one in self.model if one[0] == id_))
        self.model.remove(self.model[-1])

    @rule(number=st.integers(0, 7))
    def need(self, number: int) -> None:
        one = session(number)
        known = [live for id_, live in self.model if id_ == one.id]
        free = [entry for entry in self.model if entry[1].stream is None]
        try:
            live, gone = self.lives.of(one, self.now)
        except Overloaded:
            assert not known and len(self.model) == self.MOST and not free
            return
        if known:
            assert known == [live] and not gone
        else:
            assert gone == ([free[0][1]] if len(self.model) == self.MOST else [])
            self.model = [entry for entry in self.model if entry[1] not in gone]
            self.model.append((one.id, live))
        self.touch(one.id)

    @rule(number=st.integers(0, 7))
    def look(self, number: int) -> None:
        one = session(number)
        known = [live for id_, live in self.model if id_ == one.id]
        assert self.lives.get(one, self.now) is (known[0] if known else None)
        if known:
            self.touch(one.id)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), open_=st.booleans())
    def stream(self, data: st.DataObject, open_: bool) -> None:
        """A client opens its GET, or that ends: either is a use."""
        id_, live = data.draw(st.sampled_from(self.model))
        live.stream = OPEN if open_ else None
        self.lives.use(live, self.now)
        self.touch(id_)

    @rule(number=st.integers(0, 7))
    def end(self, number: int) -> None:
        id_ = session(number).id
        known = [live for one, live in self.model if one == id_]
        assert self.lives.end(id_) is (known[0] if known else None)
        self.model = [entry for entry in self.model if entry[0] != id_]

    @rule(seconds=st.sampled_from([0.0, 30.0, 100.0, 250.0]))
    def sweep(self, seconds: float) -> None:
        self.now += seconds
        gone = self.lives.idle(self.now)
        for id_, live in list(self.model):
            if self.now - self.used[id_] >= self.IDLE_S:
                if live.stream is not None:
                    self.touch(id_)
                else:
                    assert live in gone
                    self.model = [entry for entry in self.model if entry[0] != id_]
        assert len(gone) == len(set(map(id, gone)))

    @invariant()
    def the_same_are_there(self) -> None:
        assert list(self.lives.by_id.items()) == self.model
        assert len(self.lives) <= self.MOST


TestLife = Life.TestCase
