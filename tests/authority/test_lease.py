from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from narthex.authority.grants import Grant
from narthex.authority.lease import DROP_AGAIN_S, LONGEST_BACK_OFF_S, SPARE_S, Lease


def lease(chance: float = 0.5) -> Lease:
    return Lease(chance=lambda: chance)


def test_a_token_is_shown_until_shortly_before_its_end() -> None:
    one = lease()
    one.granted(Grant("a", 3600.0), 0.0)
    one.expire(3600 - SPARE_S - 1)
    assert one.token == "a"
    one.expire(3600 - SPARE_S)
    assert one.token == ""


def test_a_new_one_is_fetched_beside_it_at_a_time_of_its_own() -> None:
    times = []
    for chance in (0.0, 0.5, 0.999):
        one = lease(chance)
        one.granted(Grant("a", 3600.0), 0.0)
        times.append(next(t for t in range(3600) if one.due(t)))
    assert len(set(times)) == 3
    assert all(3600 - 75 < t < 3600 - SPARE_S for t in times)


def test_a_short_life_is_used_too() -> None:
    one = lease()
    one.granted(Grant("a", 2.0), 0.0)
    one.expire(1.0)
    assert one.token == "a" and not one.due(1.0)
    assert one.due(1.7)


def test_a_token_outlives_a_failed_refresh() -> None:
    one = lease()
    one.granted(Grant("a", 100.0), 0.0)
    one.failed("dead", 80.0)
    assert one.token == "a" and one.error == "dead"
    assert not one.due(80.1) and one.due(82.0)


def test_back_off_grows_and_ends() -> None:
    one, waits = lease(0.999), []
    for _ in range(12):
        one.failed("dead", 0.0)
        waits.append(one.wait(0.0))
    assert waits == sorted(waits) and waits[0] <= 1.0 and waits[-1] <= LONGEST_BACK_OFF_S
    one.granted(Grant("a", 100.0), 0.0)
    assert one.wait(0.0) == 0.0


def test_what_the_endpoint_asks_for_is_waited() -> None:
    one = lease()
    one.failed("overloaded", 0.0, retry_after_s=500.0)
    assert one.wait(0.0) == 500.0


def test_a_refused_token_is_replaced_once() -> None:
    one = lease()
    one.granted(Grant("a", 3600.0), 0.0)
    assert one.refused("a", 10.0), "it may have been revoked"
    one.granted(Grant("b", 3600.0), 10.0)
    assert not one.refused("b", 11.0), "a fresh one is refused too: it is no matter of age"
    assert one.wait(11.0) > 0, "and no call fetches another until some time has passed"
    assert one.wait(10.0 + DROP_AGAIN_S) == 0.0


def test_who_comes_late_takes_the_new_one() -> None:
    one = lease()
    one.granted(Grant("a", 3600.0), 0.0)
    assert one.refused("a", 1.0)
    one.granted(Grant("b", 3600.0), 1.0)
    assert one.refused("a", 1.1), "a call that was sent with the old one"
    assert one.token == "b"


class Life(RuleBasedStateMachine):
    """Whatever happens, in whatever order: no token is shown past its end, and no endpoint is asked in a rush."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.lease = Lease(chance=lambda: 0.37)
        self.ends = 0.0
        self.count = 0

    @rule(seconds=st.floats(0.0, 500.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.lease.expire(self.now)

    def may_ask(self) -> bool:
        return self.lease.wait(self.now) == 0.0 and (not self.lease.token or self.lease.due(self.now))

    @precondition(may_ask)
    @rule(lasts_s=st.floats(0.1, 7200.0))
    def a_token_comes(self, lasts_s: float) -> None:
        self.count += 1
        self.lease.granted(Grant(f"t{self.count}", lasts_s), self.now)
        self.ends = self.now + lasts_s

    @precondition(may_ask)
    @rule(lasting=st.booleans(), retry_after_s=st.floats(0.0, 100.0))
    def none_comes(self, lasting: bool, retry_after_s: float) -> None:
        held = self.lease.token
        self.lease.failed("no", self.now, lasting=lasting, retry_after_s=retry_after_s)
        assert self.lease.token == held
        assert self.lease.wait(self.now) >= max(retry_after_s, 15.0 if lasting else 0.5) - 1e-6

    @precondition(lambda self: self.count)
    @rule(back=st.integers(0, 2))
    def the_server_refuses_one(self, back: int) -> None:
        token = f"t{max(1, self.count - back)}"
        current = self.lease.token
        again = self.lease.refused(token, self.now)
        assert self.lease.token != token, "it is shown to nobody any more"
        assert again or not self.lease.token
        if current and token != current:
            assert again and self.lease.token == current

    @rule()
    def the_secret_changes(self) -> None:
        self.lease.forget()
        assert not self.lease.token and self.lease.wait(self.now) == 0.0

    @invariant()
    def nothing_is_shown_past_its_end(self) -> None:
        assert not self.lease.token or self.now < self.ends

    @invariant()
    def due_only_where_something_is_shown(self) -> None:
        assert not self.lease.due(self.now) or self.lease.token


TestLife = Life.TestCase
