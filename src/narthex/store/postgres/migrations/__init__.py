"""The forms that the tables in PostgreSQL have had. `narthex migrate` runs what is missing, in one transaction."""

from __future__ import annotations

from narthex.store.migrations import Migration
from narthex.store.postgres.migrations import m0001_store, m0002_index, m0003_definitions

MIGRATIONS: tuple[Migration, ...] = (m0001_store, m0002_index, m0003_definitions)
"""The number of the last one that a database has seen stands in its table `forms`."""
