"""How many steps of a held call the webhook has taken.

Why: what it was not told before a restart, it is told after.  Cost: no table rewrite; the column has a default.  Old
code: refuses the file, which is newer.  Back: put the copy that was made before in its place; what was changed since is
lost with it.
"""

UP: tuple[str, ...] = (
    "ALTER TABLE approvals ADD COLUMN sent INTEGER NOT NULL DEFAULT 0",
    "UPDATE approvals SET sent = told",
)
