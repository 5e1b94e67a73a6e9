"""The breaker: when it opens, how it comes back, and what holds whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from narthex.flow.upstream.breaker import ASK_AGAIN_S, IN_A_ROW, LONGEST_S, PROBE_S, SHARE, Breaker


def opened(now: float = 0.0, *, chance: float = 0.0) -> Breaker:
    breaker = Breaker(chance=lambda: chance)
    for _ in range(IN_A_ROW):
        assert breaker.allow(now) == 0
        breaker.failure(now)
    return breaker


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        pytest.param("ffff", "closed", id="four failures do not open"),
        pytest.param("fffff", "open", id="five in a row open"),
        pytest.param("ffffsffff", "closed", id="a success breaks the row"),
        pytest.param("fs" * 9 + "f", "open", id="ten of the last twenty open"),
        pytest.param("fss" * 20, "closed", id="a third does not open"),
        pytest.param("ffff" + "s" * 20 + "ffff", "closed", id="old failures are forgotten"),
        pytest.param("s" * 1000 + "fffff", "open", id="a good past does not help"),
    ],
)
def test_what_opens_it(outcomes: str, state: str) -> None:
    breaker = Breaker(chance=lambda: 0.5)
    for outcome in outcomes:
        (breaker.failure if outcome == "f" else breaker.success)(0.0)
    assert breaker.state == state


def test_back_off_doubles_to_thirty_seconds() -> None:
    breaker, now, waits = opened(), 0.0, []
    for _ in range(8):
        waits.append(breaker.allow(now))
        now += waits[-1]
        assert breaker.allow(now) == 0
        breaker.failure(now)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.999999])
def test_back_off_is_jittered_over_its_whole_length(chance: float) -> None:
    assert opened(chance=chance).allow(0.0) == pytest.approx(1.0 - chance)


def test_one_probe_at_a_time() -> None:
    breaker = opened()
    assert breaker.allow(0.5) == 0.5
    assert breaker.allow(1.0) == 0
    assert breaker.state == "half_open"
    assert breaker.allow(1.0) == ASK_AGAIN_S
    assert breaker.allow(1.0 + PROBE_S - 0.25) == 0.25
    assert breaker.allow(1.0 + PROBE_S) == 0, "a probe that never reports is given up"


def test_a_successful_probe_closes_and_resets_the_back_off() -> None:
    breaker = opened()
    breaker.allow(1.0)
    breaker.failure(1.0)
    assert breaker.allow(3.0) == 0
    breaker.success(3.0)
    assert breaker.state == "closed"
    for _ in range(IN_A_ROW - 1):
        breaker.failure(3.0)
    assert breaker.state == "closed", "what was before is forgotten"
    breaker.failure(3.0)
    assert breaker.allow(3.0) == 1.0


def test_late_outcomes_do_not_move_an_open_breaker() -> None:
    breaker = opened()
    breaker.success(0.1)
    breaker.failure(0.1)
    breaker.forget(0.1)
    assert breaker.state == "open"
    assert breaker.allow(0.1) == pytest.approx(0.9)


def test_a_cancelled_probe_makes_room_for_another() -> None:
    breaker = opened()
    assert breaker.allow(1.0) == 0
    breaker.forget(1.5)
    assert breaker.allow(1.5) == 0
    breaker.success(1.6)
    assert breaker.state == "closed"


def test_asking_for_the_wait_takes_no_probe() -> None:
    breaker = opened()
    assert breaker.wait(0.25) == 0.75
    assert [breaker.wait(1.0), breaker.wait(1.0), breaker.state] == [0, 0, "open"]
    assert breaker.allow(1.0) == 0
    assert breaker.wait(1.0) == ASK_AGAIN_S


class Life(RuleBasedStateMachine):
    """Calls come, end well, badly or not at all, in any order and time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.draw = 0.0
        self.breaker = Breaker(chance=lambda: self.draw)
        self.running = 0
        self.bad_in_a_row = 0
        self.last_probe = -1e9

    @rule(seconds=st.floats(0, 40), draw=st.floats(0, 1, exclude_max=True))
    def time_passes(self, seconds: float, draw: float) -> None:
        self.now += seconds
        self.draw = draw

    @rule()
    def a_call_comes(self) -> None:
        was = self.breaker.state
        expected = self.breaker.wait(self.now)
        wait_s = self.breaker.allow(self.now)
        assert wait_s == expected
        assert 0 <= wait_s <= LONGEST_S
        if wait_s == 0:
            self.running += 1
        if was == "closed":
            assert wait_s == 0, "a closed breaker never refuses"
        elif wait_s == 0:
            assert self.breaker.state == "half_open"

    @precondition(lambda self: self.running > 0)
    @rule(outcome=st.sampled_from(["success", "failure", "forget"]))
    def a_call_ends(self, outcome: str) -> None:
        was = self.breaker.state
        self.running -= 1
        getattr(self.breaker, outcome)(self.now)
        if was == "closed" and outcome != "forget":
            self.bad_in_a_row = self.bad_in_a_row + 1 if outcome == "failure" else 0
        if was == "half_open" and outcome == "success":
            assert self.breaker.state == "closed"
        if self.breaker.state != "closed" or was != "closed":
            self.bad_in_a_row = 0

    @invariant()
    def it_never_stays_away_for_long(self) -> None:
        assert self.breaker.wait(self.now + max(LONGEST_S, PROBE_S)) == 0

    @invariant()
    def five_in_a_row_always_open(self) -> None:
        assert self.bad_in_a_row < IN_A_ROW
        assert self.breaker._failures.bit_count() <= SHARE


TestLife = Life.TestCase
