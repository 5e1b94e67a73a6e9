"""What others change is seen, by whichever gateway; what one changes itself and knows is no news."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from narthex.errors import StoreError
from narthex.flow.policy.approvals.approval import approve
from narthex.store.opening import open_store
from narthex.store.port import ApiKey, SealedSecret
from narthex.store.postgres.database import Postgres
from tests.counterparts.postgres import Databases
from tests.flow.policy.approvals.test_approval import WAITS
from tests.store.opened import at

KEY = ApiKey("aaaa", "ci", b"\x01" * 32, 100)


def test_each_sees_what_the_other_has_done(databases: Databases) -> None:
    spec = databases.new()

    async def main() -> None:
        async with at(spec) as ours, at(spec) as theirs:
            for number in range(3):
                before = await ours.version(), await theirs.version()
                await (ours if number % 2 else theirs).add_key(replace(KEY, id=f"k{number}"))
                assert await ours.version() != before[0] and await theirs.version() != before[1]
                assert await ours.keys() == await theirs.keys()
            before = await ours.version(), await theirs.version()
            await ours.ask_approval(WAITS, most=9, most_each=9)
            await ours.change_approval(WAITS.id, lambda found: approve(found, "bob", 110))
            assert await ours.version() == before[0], "one's own steps are no news"
            assert await theirs.version() != before[1]
            seen = await ours.version()
            await theirs.told_approvals({WAITS.id: 1}, {})
            await theirs.put_secret(SealedSecret("one", b"x", 1))
            assert await ours.version() != seen

    asyncio.run(main())


def test_all_that_write_at_once_are_counted(databases: Databases) -> None:
    spec, most = databases.new(), 5

    async def main() -> None:
        async with at(spec, busy_s=60) as one, at(spec, busy_s=60) as two, at(spec, busy_s=60) as three:
            asked = [
                store.ask_approval(replace(WAITS, id=f"n{n}", digest=b"%032d" % n), most=most, most_each=most)
                for n, store in enumerate([one, two, three] * 4)
            ]
            done = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(isinstance(each, tuple) for each in done) == most, "no more than may wait, whoever asks"
            assert len(await one.approvals()) == most

    asyncio.run(main())


def test_a_store_is_opened_by_what_the_configuration_says(databases: Databases) -> None:
    async def main() -> None:
        store = await open_store(databases.new())
        await store.add_key(KEY)
        assert await store.keys() == [KEY]
        await store.close()
        with pytest.raises(StoreError):
            await open_store(databases.empty())

    asyncio.run(main())


def test_a_row_that_was_edited_by_hand_is_refused(databases: Databases) -> None:
    spec = databases.new()

    async def main() -> None:
        async with at(spec) as store:
            await store.add_key(KEY)
            other = Postgres(spec).open()
            other.script("UPDATE api_keys SET roles = 'admin'")
            other.close()
            with pytest.raises(StoreError) as refused:
                await store.keys()
            assert "no Narthex has written" in refused.value.problem

    asyncio.run(main())
