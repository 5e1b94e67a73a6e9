"""Keys, secrets, held calls, costs, how far records were sent: the first form, and what a file of SQLite has in its
sixth.

Why: several gateways share one store.  Cost: none, the tables are new.  Old code: there is none.  Back: drop the
schema.
"""

UP: tuple[str, ...] = (
    """CREATE TABLE api_keys (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, digest BYTEA NOT NULL, created_at BIGINT NOT NULL,
        tenant TEXT NOT NULL, roles TEXT NOT NULL, scopes TEXT NOT NULL,
        expires_at BIGINT, revoked_at BIGINT, used_at BIGINT
    )""",
    """CREATE TABLE secrets (
        tenant TEXT NOT NULL, name TEXT NOT NULL, sealed BYTEA NOT NULL, changed_at BIGINT NOT NULL,
        PRIMARY KEY (tenant, name)
    )""",
    """CREATE TABLE approvals (
        rowid BIGINT GENERATED ALWAYS AS IDENTITY, id TEXT PRIMARY KEY, digest BYTEA NOT NULL,
        tenant TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL, client TEXT NOT NULL, actors TEXT NOT NULL,
        endpoint TEXT NOT NULL, kind TEXT NOT NULL, server TEXT NOT NULL, name TEXT NOT NULL,
        rule TEXT NOT NULL, "by" TEXT NOT NULL, config TEXT NOT NULL, params BYTEA NOT NULL, size BIGINT NOT NULL,
        asked_at BIGINT NOT NULL, ends_at BIGINT NOT NULL, use_within BIGINT NOT NULL,
        approved_at BIGINT, approved_by TEXT NOT NULL, denied_at BIGINT, denied_by TEXT NOT NULL, used_at BIGINT,
        rounds BIGINT NOT NULL, told BIGINT NOT NULL, sent BIGINT NOT NULL
    )""",
    "CREATE INDEX approvals_by_digest ON approvals (digest)",
    # An entry of an index has 2,704 bytes at most, and what callers are called may be longer. The encoding of a
    # database never changes, so this always gives the same.
    """CREATE FUNCTION digest_of(texts TEXT[]) RETURNS BYTEA LANGUAGE sql IMMUTABLE PARALLEL SAFE
        AS $$ SELECT sha256(convert_to(texts::text, 'UTF8')) $$""",
    """CREATE TABLE costs (
        hour BIGINT NOT NULL, tenant TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL, client TEXT NOT NULL,
        team TEXT NOT NULL, project TEXT NOT NULL, endpoint TEXT NOT NULL, server TEXT NOT NULL, name TEXT NOT NULL,
        model TEXT NOT NULL, run TEXT NOT NULL, currency TEXT NOT NULL, amount BIGINT NOT NULL, calls BIGINT NOT NULL,
        what BYTEA NOT NULL GENERATED ALWAYS AS (digest_of(ARRAY[
            tenant, issuer, subject, client, team, project, endpoint, server, name, model, run, currency
        ])) STORED,
        PRIMARY KEY (hour, what)
    )""",
    """CREATE TABLE uses (
        counter BYTEA NOT NULL, key BYTEA NOT NULL, slot BIGINT NOT NULL,
        at BIGINT NOT NULL, ends BIGINT NOT NULL, amount BIGINT NOT NULL,
        PRIMARY KEY (counter, key, slot)
    )""",
    """CREATE TABLE exports (
        name TEXT NOT NULL, chain TEXT NOT NULL, first BIGINT NOT NULL, size BIGINT NOT NULL,
        PRIMARY KEY (name, chain)
    )""",
    # One row, counted up by each change that others want to know of.
    "CREATE TABLE changes (counted BIGINT NOT NULL)",
    "INSERT INTO changes VALUES (0)",
)
