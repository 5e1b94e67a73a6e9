"""How far records were sent elsewhere.

Why: what was sent stands in no journal, and must outlive the process that sends; who lost this would send all records
again.  Cost: a new table, no rewrite.  Old code: refuses the file, which is newer.  Back: put the copy that was made
before in its place; what was sent since is sent again.
"""

UP: tuple[str, ...] = (
    """CREATE TABLE exports (
        name TEXT NOT NULL, chain TEXT NOT NULL, first INTEGER NOT NULL, size INTEGER NOT NULL,
        PRIMARY KEY (name, chain)
    ) WITHOUT ROWID""",
)
