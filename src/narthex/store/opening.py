"""Opens the store that a configuration names: a file of SQLite, or a database of PostgreSQL.

Does I/O. Cases: `tests/store/postgres/test_store.py`.
"""

from __future__ import annotations

from pathlib import Path

from narthex.errors import StoreError
from narthex.store.port import Store
from narthex.stores import NO_DRIVER, PostgresSpec, StorePlace


async def open_store(place: StorePlace | Path) -> Store:
    """Raises StoreError: it cannot be used; the text says which one, and the way out."""
    if isinstance(place, PostgresSpec):
        require_driver(place)
        from narthex.store.postgres.store import PostgresStore

        return await PostgresStore.open(place)
    from narthex.store.sqlite import SqliteStore

    return await SqliteStore.open(Path(place))


def migrate_store(place: Path | PostgresSpec) -> tuple[str, int, int]:
    """Bring it to this version's form: what it is called, its form before and now. Raises StoreError."""
    if isinstance(place, PostgresSpec):
        require_driver(place)
        from narthex.store.postgres.database import Postgres

        return (place.name, *Postgres(place).migrate())
    from narthex.store.file import form_of, open_file
    from narthex.store.migrations import MIGRATIONS

    before = form_of(place)
    open_file(place).close()
    return str(place), before, len(MIGRATIONS)


def require_driver(place: PostgresSpec) -> None:
    """Raises StoreError: it is an extra that is not there."""
    try:
        import pg8000  # noqa: F401
    except ImportError:
        raise StoreError(f"{place.name}: {NO_DRIVER}") from None
