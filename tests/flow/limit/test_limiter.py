"""Several limits at once: all or none, settled, given back, kept over a reload; a machine against naive counters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from narthex.errors import RateLimited
from narthex.flow.limit.limiter import Binding, Limiter, Reservation
from narthex.types import ANONYMOUS, LimitRule, LimitUnit, Principal, Who

SECOND = 1_000_000
MINUTE = 60 * SECOND
ADA = Principal("acme", "https://idp", "ada", "bot", roles=("support",))
BOB = Principal("acme", "https://idp", "bob", "bot")
CALLS = LimitRule("calls", "calls", 3, ("principal",), window=MINUTE)
TOGETHER = LimitRule("together", "calls", 4, window=MINUTE)
OPEN = LimitRule("open", "concurrent", 2, ("principal",), algorithm="concurrent")
BYTES = LimitRule("bytes", "bytes", 1000, window=MINUTE)


@dataclass
class Clock:
    now: int = 10**15

    def __call__(self) -> int:
        return self.now


@dataclass
class Rig:
    rules: tuple[LimitRule, ...]
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.limiter = Limiter(self.rules, self.clock)

    def binding(
        self, who: Principal = ADA, kind: Any = "tools", name: str = "log", endpoint: str = "default"
    ) -> Binding:
        return self.limiter.binding(who, endpoint, kind, "git", name)

    def take(self, who: Principal = ADA, demand: dict[LimitUnit, int] | None = None, **what: Any) -> Reservation:
        return self.limiter.reserve(self.binding(who, **what), demand)

    def used(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for state in self.limiter.states():
            found[state.limit] = found.get(state.limit, 0) + state.used
        return found


def test_the_same_share_of_the_same_bucket_has_one_id_and_can_be_told_again() -> None:
    rig = Rig((LimitRule("spend", "calls", 4, ("principal",), algorithm="calendar", period="day", alerts=(50,)),))
    held = [rig.take() for _ in range(3)]
    assert [len(rig.limiter.alerts(one)) for one in held[:1]] == [1]
    (limit,) = rig.limiter.limits
    assert rig.limiter.alerts(held[1]) == []
    other = Rig(rig.rules, rig.clock)
    (first,) = other.limiter.alerts([other.take() for _ in range(2)][1])
    other.limiter.told_nobody(first)
    (again,) = other.limiter.alerts(other.take())
    assert (first.id, first.per) == (again.id, again.per) and limit.rule.name == again.limit
    assert first.words == "tenant acme, principal https://idp ada bot"


def test_a_team_is_the_first_that_fits_and_has_its_bucket() -> None:
    rig = Rig((LimitRule("team", "calls", 1, ("team",), window=MINUTE),))
    rig.limiter.teams = (("payments", Who(role=("pay",))), ("rest", Who()))
    rig.limiter.projects = {"default": "atlas"}
    ada, bob = Principal("t", "i", "ada", roles=("pay",)), Principal("t", "i", "bob", roles=("pay",))
    limiter = rig.limiter
    binding = limiter.binding(ada, "default", "tools", "one", "echo")
    assert (binding.subject.team, binding.subject.project) == ("payments", "atlas")
    limiter.reserve(binding)
    with pytest.raises(RateLimited):
        limiter.reserve(limiter.binding(bob, "default", "tools", "one", "echo"))
    limiter.reserve(limiter.binding(Principal("t", "i", "eve"), "default", "tools", "one", "echo"))


def test_the_refusal_names_the_limit_and_when_to_come_again() -> None:
    rig = Rig((CALLS,))
    for _ in range(3):
        rig.limiter.settle(rig.take())
        rig.clock.now += SECOND
    with pytest.raises(RateLimited) as refused:
        rig.take()
    assert refused.value.data == {"limit": "calls", "retryAfterSeconds": 57}
    rig.take(BOB)
    rig.clock.now += 57 * SECOND
    rig.take()


def test_all_are_taken_or_none() -> None:
    rig = Rig((OPEN, CALLS, TOGETHER))
    for who in (ADA, ADA, BOB, BOB):
        rig.limiter.settle(rig.take(who))
    before = rig.used()
    with pytest.raises(RateLimited) as refused:
        rig.take()
    assert refused.value.limit == "together"
    assert rig.used() == before == {"open": 0, "calls": 4, "together": 4}


def test_the_one_that_stands_longest_in_the_way_is_named() -> None:
    hour = LimitRule("hour", "calls", 1, window=60 * MINUTE)
    rig = Rig((LimitRule("minute", "calls", 1, window=MINUTE), hour))
    rig.take()
    with pytest.raises(RateLimited) as refused:
        rig.take()
    assert (refused.value.limit, (refused.value.data or {})["retryAfterSeconds"]) == ("hour", 3600)


def test_what_is_concurrent_is_held_until_it_is_settled_once() -> None:
    rig = Rig((OPEN,))
    first, _ = rig.take(), rig.take()
    with pytest.raises(RateLimited):
        rig.take()
    rig.limiter.settle(first)
    rig.limiter.settle(first)
    rig.limiter.give_back(first)
    rig.take()
    with pytest.raises(RateLimited):
        rig.take()


def test_what_was_expected_is_corrected_by_what_was_used() -> None:
    rig = Rig((BYTES,))
    held = rig.take(demand={"bytes": 300})
    assert rig.used() == {"bytes": 300}
    rig.limiter.settle(held, {"bytes": 1700})
    assert rig.used() == {"bytes": 1700}
    with pytest.raises(RateLimited):
        rig.take(demand={"bytes": 1})
    rig.clock.now += MINUTE
    held = rig.take(demand={"bytes": 9_999})
    assert rig.used() == {"bytes": 1000}, "an expectation above all there is takes all there is"
    rig.limiter.settle(held, {"bytes": 10})
    assert rig.used() == {"bytes": 10}
    rig.limiter.give_back(rig.take(demand={"bytes": 500}))
    assert rig.used() == {"bytes": 10}


@pytest.mark.parametrize(
    ("rule_", "who", "what", "counts"),
    [
        pytest.param({"tools": ("git__*",)}, ADA, {}, True, id="a pattern"),
        pytest.param({"tools": ("time__*",)}, ADA, {}, False, id="another server's"),
        pytest.param({"prompts": ("*",)}, ADA, {}, False, id="patterns of one kind leave out the others"),
        pytest.param({"prompts": ("*",)}, ADA, {"kind": "prompts"}, True, id="of its kind"),
        pytest.param({}, ADA, {"kind": "resources", "name": "file:///x"}, True, id="no pattern: everything"),
        pytest.param({"endpoints": ("plain",)}, ADA, {}, False, id="another endpoint"),
        pytest.param({"who": Who(role=("support",))}, ADA, {}, True, id="a role"),
        pytest.param({"who": Who(role=("support",))}, BOB, {}, False, id="without it"),
        pytest.param({}, ANONYMOUS, {}, True, id="anonymous callers count like others"),
        pytest.param({"who": Who(anonymous=True)}, ADA, {}, False, id="for anonymous callers alone"),
    ],
)
def test_what_counts(rule_: dict[str, Any], who: Principal, what: dict[str, Any], counts: bool) -> None:
    rig = Rig((LimitRule("one", "calls", 1, window=MINUTE, **rule_),))
    assert bool(rig.binding(who, **what).places) is counts


def test_per_argument_values_count_apart() -> None:
    rig = Rig((LimitRule("account", "calls", 1, ("arg:/id",), window=MINUTE),))
    binding = rig.binding()
    rig.limiter.reserve(binding, {}, {"id": 1})
    rig.limiter.reserve(binding, {}, {"id": 2})
    with pytest.raises(RateLimited):
        rig.limiter.reserve(binding, {}, {"id": 1})
    rig.limiter.reserve(binding, {}, None)


def test_of_a_limit_with_several_buckets_the_least_is_told() -> None:
    rig = Rig((LimitRule("role", "calls", 5, ("role",), window=MINUTE),))
    rig.take(Principal("acme", "https://idp", "bob", roles=("dev",)))
    held = rig.take(Principal("acme", "https://idp", "ada", roles=("dev", "support")))
    assert rig.limiter.left(held).endswith(b'RateLimit: "role";r=3;t=60\r\n')


@pytest.mark.parametrize(
    "rule_",
    [
        LimitRule("soft", "calls", 1, window=MINUTE, soft=True),
        LimitRule("soft", "calls", 1, window=MINUTE, algorithm="bucket", soft=True),
        LimitRule("soft", "calls", 1, algorithm="calendar", period="day", soft=True),
        LimitRule("soft", "concurrent", 1, algorithm="concurrent", soft=True),
    ],
    ids=lambda rule_: rule_.algorithm,
)
def test_beyond_a_soft_limit_calls_go_on_and_are_counted(rule_: LimitRule) -> None:
    rig = Rig((rule_, CALLS))
    held = [rig.take() for _ in range(3)]
    assert rig.used() == {"soft": 3, "calls": 3}
    assert b"soft" not in rig.limiter.left(held[0])
    with pytest.raises(RateLimited) as refused:
        rig.take()
    assert refused.value.limit == "calls"
    for one in held:
        rig.limiter.give_back(one)
    assert rig.used() == {"soft": 0, "calls": 0}


class TestReload:
    def test_counters_of_what_is_counted_as_before_stay(self) -> None:
        rig = Rig((CALLS, TOGETHER))
        held = rig.take()
        rig.limiter.apply((LimitRule("other", "calls", 9, window=MINUTE), CALLS))
        assert rig.used() == {}
        rig.binding()
        assert rig.used() == {"calls": 1, "other": 0}
        rig.limiter.give_back(held)
        assert rig.used() == {"calls": 0, "other": 0}

    def test_more_room_keeps_what_was_used_and_another_window_does_not(self) -> None:
        rig = Rig((CALLS,))
        for _ in range(3):
            rig.take()
        rig.limiter.apply((LimitRule("calls", "calls", 5, ("principal",), window=MINUTE),))
        rig.take()
        assert rig.used() == {"calls": 4}
        rig.limiter.apply((LimitRule("calls", "calls", 5, ("principal",), window=2 * MINUTE),))
        rig.take()
        assert rig.used() == {"calls": 1}


def test_a_role_that_was_added_counts_at_once() -> None:
    rig = Rig((LimitRule("support", "calls", 1, window=MINUTE, who=Who(role=("support",))),))
    assert not rig.binding(BOB).places
    assert rig.binding(Principal("acme", "https://idp", "bob", "bot", roles=("support",))).places
    assert not rig.binding(BOB).places


class Naive(RuleBasedStateMachine):
    """Calls of two callers that begin, end in each way, and overlap, beside lists that keep everything."""

    RULES = (CALLS, TOGETHER, OPEN, BYTES)

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(self.RULES)
        self.calls: list[tuple[Principal, Reservation]] = []
        self.counted: list[list[Any]] = []  # [at, who, bytes, still open]

    def sums(self, who: Principal) -> dict[str, int]:
        lately = [one for one in self.counted if one[0] > self.rig.clock.now - MINUTE]
        return {
            "calls": sum(one[1] is who for one in lately),
            "together": len(lately),
            "open": sum(one[1] is who and one[3] for one in self.counted),
            "bytes": sum(one[2] for one in lately),
        }

    @rule(seconds=st.integers(0, 40))
    def time_passes(self, seconds: int) -> None:
        self.rig.clock.now += seconds * SECOND
        self.rig.limiter.sweep()

    @rule(who=st.sampled_from((ADA, BOB)), size=st.integers(1, 600))
    def begin(self, who: Principal, size: int) -> None:
        sums = self.sums(who)
        fits = (
            sums["calls"] < 3 and sums["together"] < 4 and sums["open"] < 2 and sums["bytes"] + size <= 1000
        )  # fmt: skip
        try:
            held = self.rig.take(who, {"bytes": size})
        except RateLimited:
            assert not fits
        else:
            assert fits
            self.calls.append((who, held))
            self.counted.append([self.rig.clock.now, who, size, True])

    @rule(data=st.data(), how=st.sampled_from(("settle", "use", "give back")), used=st.integers(0, 1500))
    def end(self, data: st.DataObject, how: str, used: int) -> None:
        if not self.calls:
            return
        at = data.draw(st.integers(0, len(self.calls) - 1))
        _, held = self.calls.pop(at)
        one = [one for one in self.counted if one[3]][at]
        one[3] = False
        if how == "settle":
            self.rig.limiter.settle(held)
        elif how == "use":
            self.rig.limiter.settle(held, {"bytes": used})
            one[2] = used
        else:
            self.rig.limiter.give_back(held)
            self.counted.remove(one)

    @invariant()
    def counts_what_the_lists_say(self) -> None:
        ada, bob = self.sums(ADA), self.sums(BOB)
        for who in (ADA, BOB):
            self.rig.binding(who)
        expected = {"together": ada["together"], "bytes": ada["bytes"]}
        expected |= {name: ada[name] + bob[name] for name in ("calls", "open")}
        assert self.rig.used() == expected


TestNaive = Naive.TestCase
TestNaive.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
