"""What calls have cost, put down to team, project, model and run, too.

Why: a bill is paid by a team or a project, and made by a model or a run.  Cost: the table is written anew, a second for
a million rows.  Old code: refuses the file, which is newer.  Back: put the copy that was made before in its place; what
was spent since is lost with it.
"""

UP: tuple[str, ...] = (
    """CREATE TABLE costs_anew (
        hour INTEGER NOT NULL, tenant TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL, client TEXT NOT NULL,
        team TEXT NOT NULL, project TEXT NOT NULL, endpoint TEXT NOT NULL, server TEXT NOT NULL, name TEXT NOT NULL,
        model TEXT NOT NULL, run TEXT NOT NULL, currency TEXT NOT NULL, amount INTEGER NOT NULL, calls INTEGER NOT NULL,
        PRIMARY KEY (
            hour, tenant, issuer, subject, client, team, project, endpoint, server, name, model, run, currency
        )
    ) WITHOUT ROWID""",
    """INSERT INTO costs_anew
        SELECT hour, tenant, issuer, subject, client, '', '', endpoint, server, name, '', '', currency, amount, calls
        FROM costs""",
    "DROP TABLE costs",
    "ALTER TABLE costs_anew RENAME TO costs",
)
