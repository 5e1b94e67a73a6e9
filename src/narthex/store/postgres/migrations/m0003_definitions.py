"""The index of records knows the definition of what was called.

Why: `audit search --definition` finds every call of a tool as it was listed then.  Cost: the index is emptied, and each
gateway makes its own anew from its journal, half a minute for a million records, in the process beside it.  Old code:
refuses the database, which is newer.  Back: drop the column; nothing older reads it.
"""

from narthex.store.postgres.migrations.m0002_index import COLUMNS, OURS

UP: tuple[str, ...] = (
    "TRUNCATE index_records, index_marks, index_segments",
    "ALTER TABLE index_records ADD COLUMN definition BIGINT",
    "CREATE INDEX index_by_definition ON index_records (journal, definition, at) WHERE definition IS NOT NULL",
    f"CREATE OR REPLACE VIEW records AS SELECT at, segment, start, size, {', '.join(COLUMNS)}, definition"
    f" FROM index_records WHERE journal = {OURS}",
)
