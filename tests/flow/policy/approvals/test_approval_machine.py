"""Whatever people, clients and time do: a yes lets the very call pass once, in its time, and nothing else does."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from narthex.flow.policy.approvals.approval import Approval, NotOpen, approve, ask, deny
from tests.flow.policy.approvals.test_approval import WAITS

CALLS = st.sampled_from([b"refund 500 by ann", b"refund 501 by ann", b"refund 500 by bob"])
WAIT, USE = 60, 30


class Machine(RuleBasedStateMachine):
    """`given` and `taken` count for each call, from what was said and done outside, not from the approvals."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000
        self.kept: dict[bytes, list[Approval]] = {}
        self.given: dict[bytes, list[int]] = {}
        """When each yes that stands was said."""

    @rule(seconds=st.integers(0, 40))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(call=CALLS)
    def make(self, call: bytes) -> None:
        rows = self.kept.setdefault(call, [])
        number = sum(map(len, self.kept.values()))
        new = replace(WAITS, id=f"a{number}", digest=call, asked_at=self.now, ends_at=self.now + WAIT, use_within=USE)
        before = rows[-1] if rows else None
        outcome, then = ask(before, new, self.now)
        assert then.digest == call
        if outcome == "asked":
            rows.append(then)
        else:
            rows[-1] = then
        if outcome == "passes":
            said_at = self.given[call].pop()
            assert said_at <= self.now < said_at + USE
        else:
            assert not any(self.now < at + USE for at in self.given.get(call, ())), "a yes that stands lets it pass"

    @rule(call=CALLS, yes=st.booleans())
    def decide(self, call: bytes, yes: bool) -> None:
        rows = self.kept.get(call)
        if not rows:
            return
        before = rows[-1]
        with suppress(NotOpen):
            rows[-1] = (approve if yes else deny)(before, "bob", self.now)
            if rows[-1] is before:
                return
            if yes:
                self.given.setdefault(call, []).append(self.now)
            else:
                self.given[call] = []

    @invariant()
    def nothing_comes_back(self) -> None:
        for rows in self.kept.values():
            for over in rows[:-1]:
                assert not over.is_open(self.now), "of the same call one at most is open"
            for one in rows:
                steps = one.steps(self.now)
                assert one.count(self.now) == len(steps)
                assert replace(one, told=len(steps), sent=len(steps)).is_told(self.now)
                assert not replace(one, told=len(steps) - 1, sent=len(steps)).is_told(self.now)
                assert not replace(one, told=len(steps), sent=len(steps) - 1).is_told(self.now)
                assert [at for _, at, _ in steps] == sorted(at for _, at, _ in steps)
                assert steps[-1][0] == ("asked" if one.state(self.now) == "pending" else one.state(self.now))


TestApprovals = Machine.TestCase
TestApprovals.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
