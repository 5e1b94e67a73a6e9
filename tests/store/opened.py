"""Opens stores of each kind, and closes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from narthex.store.database import Where
from narthex.store.memory import MemoryStore
from narthex.store.port import Store
from narthex.store.postgres.store import PostgresStore
from narthex.store.sql import SqlStore
from narthex.store.sqlite import SqliteStore
from narthex.stores import PostgresSpec


@asynccontextmanager
async def memory() -> AsyncIterator[Store]:
    yield MemoryStore()


@asynccontextmanager
async def at(where: Where, **options: Any) -> AsyncIterator[Store]:
    """The one that lies there."""
    if isinstance(where, PostgresSpec):
        store: SqlStore = await PostgresStore.open(where, **options)
    else:
        store = await SqliteStore.open(Path(where), **options)
    try:
        yield store
    finally:
        await store.close()


def sqlite(folder: Path) -> AbstractAsyncContextManager[Store]:
    return at(folder / "narthex.db")
