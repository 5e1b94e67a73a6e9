"""API keys and sealed secrets: the first form.

Why: keys are kept as hashes, secrets sealed; nothing in this file opens anything without the key file beside it.
Cost: none, the file is new.  Old code: there is none.  Back: remove the file.
"""

UP: tuple[str, ...] = (
    """CREATE TABLE api_keys (
        id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, digest BLOB NOT NULL, created_at INTEGER NOT NULL,
        tenant TEXT NOT NULL, roles TEXT NOT NULL, scopes TEXT NOT NULL,
        expires_at INTEGER, revoked_at INTEGER, used_at INTEGER
    )""",
    """CREATE TABLE secrets (
        tenant TEXT NOT NULL, name TEXT NOT NULL, sealed BLOB NOT NULL, changed_at INTEGER NOT NULL,
        PRIMARY KEY (tenant, name)
    ) WITHOUT ROWID""",
)
