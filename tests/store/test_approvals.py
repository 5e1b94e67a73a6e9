"""Held calls in every store: what they keep, that a yes is used once whoever asks at the same time, and the bounds."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from narthex.errors import Overloaded
from narthex.flow.policy.approvals.approval import Approval, NotOpen, approve, deny
from narthex.store import memory as memory_module
from narthex.store import sql as sql_module
from narthex.store.database import Where
from narthex.store.port import KEPT_S, Store
from tests.counterparts.postgres import Databases
from tests.flow.policy.approvals.test_approval import WAITS
from tests.store.conftest import Opened
from tests.store.opened import at, memory, sqlite

Case = Callable[[Store], Awaitable[None]]
Run = Callable[[Case], None]
PLENTY = {"most": 100, "most_each": 100}


@pytest.fixture
def run(opened: Opened) -> Run:
    async def main(case: Case) -> None:
        async with opened() as store:
            await case(store)

    return lambda case: asyncio.run(main(case))


def new(number: int, **more: Any) -> Approval:
    return replace(WAITS, **{"id": f"n{number}", "digest": b"%032d" % number, **more})


def test_it_comes_back_as_it_was_kept(run: Run) -> None:
    one = new(1, actors=("svc", "ä"), approved_at=5, approved_by="bob", denied_at=6, denied_by="x", told=2)

    async def case(store: Store) -> None:
        assert await store.ask_approval(one, **PLENTY) == ("asked", one)
        assert await store.approvals() == [one]
        assert await store.approval("n1") == one
        assert await store.approval("n2") is None

    run(case)


def test_a_yes_is_used_once(run: Run) -> None:
    async def case(store: Store) -> None:
        again = partial(store.ask_approval, new(2, digest=WAITS.digest, asked_at=210), **PLENTY)
        assert await store.ask_approval(WAITS, **PLENTY) == ("asked", WAITS)
        assert await again() == ("pending", WAITS)
        approved = await store.change_approval(WAITS.id, lambda found: approve(found, "bob", 205))
        assert approved is not None and approved.state(210) == "approved"
        outcome, used = await again()
        assert (outcome, used.id, used.state(210)) == ("passes", WAITS.id, "used")
        assert (await again())[0] == "asked", "the next one needs a yes of its own"
        assert [one.id for one in await store.approvals()] == [WAITS.id, "n2"]

    run(case)


def test_what_a_change_refuses_changes_nothing(run: Run) -> None:
    async def case(store: Store) -> None:
        await store.ask_approval(WAITS, **PLENTY)
        with pytest.raises(NotOpen):
            await store.change_approval(WAITS.id, lambda found: approve(found, "eve", 700))
        assert await store.approvals() == [WAITS]
        assert await store.change_approval("nobody", lambda found: found) is None

    run(case)


@pytest.mark.parametrize(
    ("most", "most_each", "problem"),
    [
        pytest.param(100, 2, "of this client", id="of one principal"),
        pytest.param(3, 100, "too many calls wait", id="in all"),
    ],
)
def test_so_many_may_be_open(run: Run, most: int, most_each: int, problem: str) -> None:
    async def case(store: Store) -> None:
        bounds = {"most": most, "most_each": most_each}
        await store.ask_approval(new(1), **bounds)
        await store.ask_approval(new(2), **bounds)
        await store.ask_approval(new(3, client="another"), **bounds)
        with pytest.raises(Overloaded, match=problem):
            await store.ask_approval(new(4), **bounds)
        assert (await store.ask_approval(new(1), **bounds))[0] == "pending", "who waits already goes on waiting"
        await store.change_approval("n1", lambda found: deny(found, "bob", 150))
        assert (await store.ask_approval(new(4), **bounds))[0] == "asked", "what has ended makes room"
        with pytest.raises(Overloaded):
            await store.ask_approval(new(5), **bounds)
        assert (await store.ask_approval(new(6, asked_at=700, ends_at=800), **bounds))[0] == "asked", "so does time"

    run(case)


def test_of_what_has_ended_the_oldest_goes_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory_module, sql_module):
        monkeypatch.setattr(module, "MOST_KEPT", 3)

    async def case(store: Store) -> None:
        for number, ends_at in ((1, 110), (2, 900), (3, 110), (4, 900), (5, 900)):
            await store.ask_approval(new(number, ends_at=ends_at, asked_at=100 + 10 * number), **PLENTY)
        assert [one.id for one in await store.approvals()] == ["n2", "n4", "n5"]

    run(case)


def test_what_is_awaited_comes_without_its_parameters(run: Run) -> None:
    async def case(store: Store) -> None:
        await store.ask_approval(new(1, ends_at=150), **PLENTY)
        await store.ask_approval(new(2, ends_at=150, told=2, sent=2), **PLENTY)
        await store.ask_approval(new(3, ends_at=150, told=2, sent=2, approved_at=120), **PLENTY)
        await store.ask_approval(new(4), **PLENTY)
        awaited = await store.approvals(awaited_at=200)
        assert [(one.id, one.params) for one in awaited] == [("n1", b""), ("n3", b""), ("n4", b"")]
        await store.told_approvals({"n1": 2, "n3": 3, "nobody": 1}, {"n3": 3})
        await store.told_approvals({"n1": 1}, {})
        assert [one.id for one in await store.approvals(awaited_at=200)] == ["n1", "n4"], "n1 is not told"
        await store.told_approvals({}, {"n1": 2, "nobody": 1})
        await store.told_approvals({}, {"n1": 1})
        assert [one.id for one in await store.approvals(awaited_at=200)] == ["n4"]

    run(case)


def test_parameters_go_with_the_end_and_all_of_it_a_day_later(run: Run) -> None:
    async def case(store: Store) -> None:
        for number in (1, 2, 3, 4):
            await store.ask_approval(new(number, ends_at=150 if number == 4 else 700), **PLENTY)
        await store.change_approval("n1", lambda found: deny(found, "bob", 110))
        await store.change_approval("n2", lambda found: approve(found, "bob", 110))
        await store.sweep_approvals(160)
        kept = {one.id: one.params for one in await store.approvals()}
        assert kept == {"n1": b"", "n2": b"sealed", "n3": b"sealed", "n4": b""}
        await store.sweep_approvals(150 + KEPT_S)
        assert {one.id for one in await store.approvals()} == {"n1", "n2", "n3"}
        await store.sweep_approvals(700 + KEPT_S)
        assert await store.approvals() == []

    run(case)


def test_what_others_decide_is_seen(where: Where) -> None:
    async def main() -> None:
        async with at(where) as ours, at(where) as theirs:
            await ours.ask_approval(WAITS, **PLENTY)
            before = await ours.version()
            await ours.told_approvals({WAITS.id: 1}, {WAITS.id: 1})
            assert await ours.version() == before, "one's own steps are no news"
            await theirs.change_approval(WAITS.id, lambda found: approve(found, "bob", 110))
            assert await ours.version() != before

    asyncio.run(main())


def _ask_in_a_process(where: Where, barrier: Any, outcomes: Any) -> None:
    async def main() -> None:
        async with at(where, busy_s=30) as store:
            barrier.wait()
            outcomes.put((await store.ask_approval(new(2, digest=WAITS.digest, asked_at=210), **PLENTY))[0])

    asyncio.run(main())


def test_of_many_processes_at_once_one_passes(where: Where) -> None:
    async def prepare() -> None:
        async with at(where) as store:
            await store.ask_approval(WAITS, **PLENTY)
            await store.change_approval(WAITS.id, lambda found: approve(found, "bob", 205))

    asyncio.run(prepare())
    context, count = multiprocessing.get_context("spawn"), 4
    barrier, outcomes = context.Barrier(count), context.Queue()
    processes = [context.Process(target=_ask_in_a_process, args=(where, barrier, outcomes)) for _ in range(count)]
    for one in processes:
        one.start()
    said = sorted(outcomes.get(timeout=60) for _ in processes)
    for one in processes:
        one.join(60)
    assert said == ["asked", "passes", "pending", "pending"]


STEPS = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 3), st.integers(0, 90)),
    st.tuples(st.just("approve"), st.integers(0, 9), st.integers(0, 90)),
    st.tuples(st.just("deny"), st.integers(0, 9), st.integers(0, 90)),
    st.tuples(st.just("told"), st.integers(0, 9), st.integers(0, 3)),
    st.tuples(st.just("sent"), st.integers(0, 9), st.integers(0, 3)),
    st.tuples(st.just("sweep"), st.integers(0, 0), st.integers(0, 90)),
)


async def step(store: Store, at: int, name: str, which: int, value: int) -> Any:
    try:
        if name == "ask":
            now = 100 + value
            asked = new(at, digest=b"%d" % which, asked_at=now, ends_at=now + 30, use_within=20)
            return await store.ask_approval(asked, most=4, most_each=3)
        if name == "told":
            return await store.told_approvals({f"n{which}": value}, {})
        if name == "sent":
            return await store.told_approvals({}, {f"n{which}": value})
        if name == "sweep":
            return await store.sweep_approvals(100 + value)
        change = partial(approve if name == "approve" else deny, by="bob", now=100 + value)
        return await store.change_approval(f"n{which}", change)
    except (NotOpen, Overloaded) as error:
        return str(error)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, max_size=12))
def test_all_stores_are_the_same_whatever_happens(databases: Databases, steps: list[tuple[str, int, int]]) -> None:
    async def main(folder: Path) -> None:
        async with memory() as one, sqlite(folder) as two, at(databases.new()) as three:
            for number, (name, which, value) in enumerate(steps):
                first, *others = [await step(store, number, name, which, value) for store in (one, two, three)]
                assert others == [first, first]
                assert await one.approvals() == await two.approvals() == await three.approvals()
                awaited = await one.approvals(awaited_at=150)
                assert await two.approvals(awaited_at=150) == awaited == await three.approvals(awaited_at=150)

    with TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
