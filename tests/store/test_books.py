"""The books: opened only where something lasts, and read into limits that are new to the process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from narthex.errors import RateLimited, StoreError
from narthex.flow.accept.metering import Metering
from narthex.flow.limit.keys import Subject
from narthex.flow.limit.spending import Spent
from narthex.store.books import Books
from narthex.types import LOCAL, LimitRule, Snapshot
from tests.admin.gateway import snapshot_with

DAY = LimitRule("day", "calls", 3, algorithm="calendar", period="day")
HOURS = LimitRule("hours", "calls", 3, window=2 * 3_600_000_000)
RATE = LimitRule("rate", "calls", 3, window=60_000_000)


def of(path: Path, *quotas: LimitRule) -> Snapshot:
    return msgspec.structs.replace(snapshot_with(), quotas=quotas, store=str(path / "s.db"))


def calls(metering: Metering, number: int) -> None:
    for _ in range(number):
        binding = metering.limiter.binding(LOCAL, "default", "tools", "one", "echo")
        held = metering.limiter.reserve(binding)
        metering.limiter.settle(held)
        if metering.book is not None:
            uses = metering.limiter.uses(held, {}, metering.ahead)
            metering.book(Spent(held.at, Subject(LOCAL, "default", "one", "echo"), "", 0, uses))


async def begin(snapshot: Snapshot) -> tuple[Books, Metering]:
    books, metering = Books(), Metering(lambda: 5.0, lambda: 1.8e9)
    metering.apply(snapshot)
    await books.prepare(snapshot, metering)
    books.restore(metering)
    return books, metering


def used(metering: Metering) -> dict[str, int]:
    metering.limiter.binding(LOCAL, "default", "tools", "one", "echo")
    return {one.limit: one.used for one in metering.limiter.states()}


def test_lasting_limits_count_on_after_a_restart_and_rates_begin_anew(tmp_path: Path) -> None:
    async def main() -> None:
        books, metering = await begin(of(tmp_path, DAY, HOURS, RATE))
        calls(metering, 2)
        await books.close()
        books, metering = await begin(of(tmp_path, DAY, HOURS, RATE))
        assert used(metering) == {"day": 2, "hours": 2, "rate": 0}
        calls(metering, 1)
        with pytest.raises(RateLimited):
            calls(metering, 1)
        await books.close()

    asyncio.run(main())


def test_a_limit_that_comes_back_with_a_reload_counts_on_and_none_counts_twice(tmp_path: Path) -> None:
    async def main() -> None:
        books, metering = await begin(of(tmp_path, DAY))
        calls(metering, 2)
        await books.close()
        books, metering = await begin(of(tmp_path, RATE))
        for quotas in ((RATE, DAY), (DAY,), (DAY, HOURS)):
            snapshot = of(tmp_path, *quotas)
            await books.prepare(snapshot, metering)
            metering.apply(snapshot)
            books.restore(metering)
            assert used(metering)["day"] == 2
        await books.close()

    asyncio.run(main())


def test_where_nothing_lasts_no_store_is_made(tmp_path: Path) -> None:
    async def main() -> None:
        books, metering = await begin(of(tmp_path, RATE))
        assert metering.book is None
        assert not (tmp_path / "s.db").exists()
        assert books.problem == ""
        await books.close()

    asyncio.run(main())


def test_a_store_that_cannot_be_used_leaves_the_old_one(tmp_path: Path) -> None:
    async def main() -> None:
        books, metering = await begin(of(tmp_path, DAY))
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "s.db").write_text("no database, and long enough to be looked at" * 100)
        with pytest.raises(StoreError):
            await books.prepare(of(tmp_path / "other", DAY), metering)
        calls(metering, 1)
        await books.close()
        books, metering = await begin(of(tmp_path, DAY))
        assert used(metering) == {"day": 1}
        await books.close()

    asyncio.run(main())
