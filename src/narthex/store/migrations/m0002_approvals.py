"""Held calls that wait for a person, and what people said of them.

Why: an approval outlives a restart; commands of the terminal and the gateway see each other's.  Cost: a new table, no
rewrite.  Old code: refuses the file, which is newer.  Back: put the copy that was made before in its place; what was
changed since is lost with it.
"""

UP: tuple[str, ...] = (
    """CREATE TABLE approvals (
        id TEXT NOT NULL PRIMARY KEY, digest BLOB NOT NULL,
        tenant TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL, client TEXT NOT NULL, actors TEXT NOT NULL,
        endpoint TEXT NOT NULL, kind TEXT NOT NULL, server TEXT NOT NULL, name TEXT NOT NULL,
        rule TEXT NOT NULL, "by" TEXT NOT NULL, config TEXT NOT NULL, params BLOB NOT NULL, size INTEGER NOT NULL,
        asked_at INTEGER NOT NULL, ends_at INTEGER NOT NULL, use_within INTEGER NOT NULL,
        approved_at INTEGER, approved_by TEXT NOT NULL, denied_at INTEGER, denied_by TEXT NOT NULL, used_at INTEGER,
        rounds INTEGER NOT NULL, told INTEGER NOT NULL
    )""",
    "CREATE INDEX approvals_by_digest ON approvals (digest)",
)
