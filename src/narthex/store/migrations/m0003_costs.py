"""What calls have cost, and what limits that last longer than a process have counted.

Why: who spent what on what, by hour; budgets and quotas that a restart must not give anew.  Cost: two new tables, no
rewrite.  Old code: refuses the file, which is newer.  Back: put the copy that was made before in its place; what was
spent since is lost with it.
"""

UP: tuple[str, ...] = (
    """CREATE TABLE costs (
        hour INTEGER NOT NULL, tenant TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL, client TEXT NOT NULL,
        endpoint TEXT NOT NULL, server TEXT NOT NULL, name TEXT NOT NULL, currency TEXT NOT NULL,
        amount INTEGER NOT NULL, calls INTEGER NOT NULL,
        PRIMARY KEY (hour, tenant, issuer, subject, client, endpoint, server, name, currency)
    ) WITHOUT ROWID""",
    """CREATE TABLE uses (
        counter BLOB NOT NULL, key BLOB NOT NULL, slot INTEGER NOT NULL,
        at INTEGER NOT NULL, ends INTEGER NOT NULL, amount INTEGER NOT NULL,
        PRIMARY KEY (counter, key, slot)
    ) WITHOUT ROWID""",
)
