"""The shelves against a model that does everything the slow way: entries, bytes, time, what is ended."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from narthex.flow.cache.lots import Lots
from narthex.flow.cache.shelves import OVERHEAD, Kept, Shelves
from tests.flow.cache.keeping import kept_as

KEYS = st.integers(0, 7)
TENANTS = st.sampled_from(["a", "b", "c"])
NAMES = st.sampled_from(["list", "tool", "write"])
MOST, ENTRIES, SHARE = 12 * OVERHEAD, 9, 50


class ShelvesMachine(RuleBasedStateMachine):
    """The model knows what was put, what has ended, and what the shelves say they hold; nothing may come back."""

    def __init__(self) -> None:
        super().__init__()
        self.lots = Lots()
        self.shelves = Shelves(MOST, ENTRIES, SHARE, self.lots)
        self.now = 0.0
        self.last: dict[Any, Kept] = {}
        self.names: dict[int, set[str]] = {}
        self.ended: set[int] = set()
        self.all: list[Kept] = []  # so that no id is given twice

    @rule(tenant=TENANTS, key=KEYS, size=st.integers(0, 8 * OVERHEAD), for_s=st.floats(0.1, 20), name=NAMES)
    def put(self, tenant: str, key: int, size: int, for_s: float, name: str) -> None:
        kept = kept_as((tenant, key), tenant, OVERHEAD + size, self.now, for_s, self.lots, (name, (tenant, name)))
        took = self.shelves.put(kept)
        assert took == (kept.size <= MOST * SHARE // 100)
        self.last[tenant, key] = kept
        self.all.append(kept)
        self.names[id(kept)] = {name}
        if not took:
            self.ended.add(id(kept))

    @rule(tenant=TENANTS, key=KEYS)
    def get(self, tenant: str, key: int) -> None:
        got = self.shelves.get((tenant, key), self.now)
        if got is not None:
            assert got is self.last[tenant, key], "only what was put last"
            assert got.tenant == tenant, "never another tenant's"
            assert self.now < got.ends_at
            assert id(got) not in self.ended

    @rule(name=NAMES)
    def end(self, name: str) -> None:
        self.lots.end(name)
        self.ended |= {id(kept) for kept in self.last.values() if name in self.names[id(kept)]}

    @rule(name=NAMES, tenant=TENANTS)
    def end_one_tenants(self, name: str, tenant: str) -> None:
        self.lots.end((tenant, name))
        self.ended |= {
            id(kept) for kept in self.last.values() if kept.tenant == tenant and name in self.names[id(kept)]
        }

    @rule(seconds=st.floats(0, 8))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        self.shelves.sweep(self.now)
        self.shelves.sweep(self.now)
        assert all(self.now < kept.ends_at and id(kept) not in self.ended for kept in self.shelves)

    @rule(tenant=TENANTS)
    def clear(self, tenant: str) -> None:
        there = [kept for kept in self.shelves if kept.tenant == tenant]
        assert self.shelves.clear(lambda kept: kept.tenant == tenant) == len(there)
        assert not any(kept.tenant == tenant for kept in self.shelves)

    @invariant()
    def bounds_hold_and_nothing_is_counted_twice(self) -> None:
        found = list(self.shelves)
        assert len(found) == len(self.shelves) <= ENTRIES
        assert sum(kept.size for kept in found) == self.shelves.bytes <= MOST
        for tenant in "abc":
            theirs = [kept for kept in found if kept.tenant == tenant]
            assert sum(kept.size for kept in theirs) <= MOST * SHARE // 100
            assert len(theirs) <= max(1, ENTRIES * SHARE // 100)
        if not found:
            assert len(self.lots) == 0


TestShelves = ShelvesMachine.TestCase
TestShelves.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
