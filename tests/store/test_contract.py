"""What every store does. Each of them passes the same cases, on its own kind of storage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from narthex.errors import StoreError
from narthex.store.port import ApiKey, SealedSecret, Store
from tests.counterparts.postgres import Databases
from tests.store.conftest import Opened
from tests.store.opened import at as opened_at
from tests.store.opened import memory, sqlite

KEY = ApiKey("aaaa", "ci", b"\x01" * 32, 100, roles=("reader",), scopes=("tools:read", "tools:call"))
SECRET = SealedSecret("github-pat", b"\x00sealed\xff", 100)
FIRST = SealedSecret("first", b"1", 1)
Case = Callable[[Store], Awaitable[None]]


@pytest.fixture
def run(opened: Opened) -> Callable[[Case], None]:
    async def main(case: Case) -> None:
        async with opened() as store:
            await case(store)

    return lambda case: asyncio.run(main(case))


Run = Callable[[Case], None]


def test_a_key_comes_back_as_it_was_kept(run: Run) -> None:
    other = ApiKey("bbbb", "ci", b"\x02" * 32, 50, "acme", (), (), 1000, 200, 150)

    async def case(store: Store) -> None:
        await store.add_key(KEY)
        await store.add_key(other)
        assert await store.keys() == [other, KEY], "the oldest first"

    run(case)


def test_an_id_is_given_once(run: Run) -> None:
    async def case(store: Store) -> None:
        await store.add_key(KEY)
        with pytest.raises(StoreError) as refused:
            await store.add_key(replace(KEY, name="other"), ends={"aaaa": 1})
        assert "aaaa" in refused.value.problem
        assert await store.keys() == [KEY], "and nothing else has happened"

    run(case)


@pytest.mark.parametrize(
    ("expires_at", "ends", "then"),
    [
        pytest.param(None, {"aaaa": 500}, 500, id="the old key ends"),
        pytest.param(400, {"aaaa": 500}, 400, id="it ends sooner anyway"),
        pytest.param(600, {"aaaa": 500}, 500, id="its end is brought forward"),
        pytest.param(None, {"zzzz": 500}, None, id="an unknown id changes nothing"),
    ],
)
def test_a_new_key_lets_others_end(run: Run, expires_at: int | None, ends: dict[str, int], then: int | None) -> None:
    old = replace(KEY, expires_at=expires_at)

    async def case(store: Store) -> None:
        await store.add_key(old)
        new = replace(KEY, id="bbbb", created_at=200)
        await store.add_key(new, ends=ends)
        assert await store.keys() == [replace(old, expires_at=then), new]

    run(case)


def test_a_revoked_key_stays_revoked_since_then(run: Run) -> None:
    async def case(store: Store) -> None:
        await store.add_key(KEY)
        await store.revoke_keys(["aaaa", "zzzz"], at=300)
        await store.revoke_keys(["aaaa"], at=400)
        assert await store.keys() == [replace(KEY, revoked_at=300)]

    run(case)


def test_the_last_use_never_goes_back(run: Run) -> None:
    async def case(store: Store) -> None:
        await store.add_key(KEY)
        for at in (300, 200):
            await store.used_keys({"aaaa": at, "zzzz": 1})
        assert await store.keys() == [replace(KEY, used_at=300)]

    run(case)


def test_secrets_are_told_apart_by_tenant_and_name(run: Run) -> None:
    there = replace(SECRET, tenant="acme")

    async def case(store: Store) -> None:
        await store.put_secret(SECRET)
        await store.put_secret(there)
        again = replace(SECRET, sealed=b"new", changed_at=200)
        await store.put_secret(again)
        assert await store.secrets() == [there, again]
        assert await store.delete_secret("acme", "github-pat")
        assert not await store.delete_secret("acme", "github-pat")
        assert await store.secrets() == [again]

    run(case)


def test_only_what_is_as_it_was_is_sealed_anew(run: Run) -> None:
    other = SealedSecret("other", b"x", 100)

    async def case(store: Store) -> None:
        await store.put_secret(SECRET)
        await store.put_secret(other)
        set_meanwhile = replace(SECRET, sealed=b"set meanwhile", changed_at=200)
        await store.put_secret(set_meanwhile)
        assert await store.reseal([(SECRET, b"stale"), (other, b"y")]) == 1
        assert await store.secrets() == [set_meanwhile, replace(other, sealed=b"y")]
        assert await store.reseal([]) == 0

    run(case)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda store: store.add_key(replace(KEY, id="new")), id="a key was added"),
        pytest.param(lambda store: store.revoke_keys(["aaaa"], at=1), id="a key was revoked"),
        pytest.param(lambda store: store.put_secret(SECRET), id="a secret was set"),
        pytest.param(lambda store: store.delete_secret("default", "first"), id="a secret was removed"),
        pytest.param(lambda store: store.reseal([(FIRST, b"2")]), id="a secret was sealed anew"),
    ],
)
def test_the_version_tells_of_a_change(run: Run, change: Callable[[Store], Awaitable[Any]]) -> None:
    async def case(store: Store) -> None:
        await store.add_key(KEY)
        await store.put_secret(FIRST)
        before = await store.version()
        assert await store.version() == before, "nothing has changed"
        await change(store)
        assert await store.version() != before

    run(case)


KEYS = st.builds(
    ApiKey,
    id=st.text("abc", min_size=1, max_size=2),
    name=st.text(max_size=5).filter(lambda text: text.isprintable()),
    digest=st.binary(min_size=32, max_size=32),
    created_at=st.integers(0, 2**40),
    roles=st.lists(st.text(max_size=3), max_size=2).map(tuple),
    expires_at=st.none() | st.integers(0, 2**40),
)
STEPS = st.one_of(
    st.tuples(st.just("add_key"), KEYS),
    st.tuples(st.just("revoke_keys"), st.lists(st.text("abc", min_size=1, max_size=2), max_size=2)),
    st.tuples(st.just("used_keys"), st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(0, 2**40))),
    st.tuples(st.just("put_secret"), st.builds(SealedSecret, st.text("ab", max_size=2), st.binary(), st.just(1))),
    st.tuples(st.just("delete_secret"), st.text("ab", max_size=2)),
)


async def step(store: Store, name: str, given: Any) -> Any:
    try:
        if name == "revoke_keys":
            return await store.revoke_keys(given, at=5)
        if name == "delete_secret":
            return await store.delete_secret("default", given)
        return await getattr(store, name)(given)
    except StoreError as error:
        return str(error.problem)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, max_size=12))
def test_all_stores_are_the_same_whatever_happens(databases: Databases, steps: list[tuple[str, Any]]) -> None:
    async def main(folder: Path) -> None:
        async with memory() as one, sqlite(folder) as two, opened_at(databases.new()) as three:
            for name, given_ in steps:
                first, *others = [await step(store, name, given_) for store in (one, two, three)]
                assert others == [first, first]
                assert await one.keys() == await two.keys() == await three.keys()
                assert await one.secrets() == await two.secrets() == await three.secrets()

    with TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
