"""Live state of legacy sessions: made at need, bounded, forgotten when idle. Time is handed in."""

from __future__ import annotations

from typing import Any

import pytest

from narthex.errors import Overloaded
from narthex.flow.notify.live import IDLE_S, LiveSessions
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
