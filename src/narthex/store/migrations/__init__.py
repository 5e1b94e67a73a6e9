"""The forms that the store's file has had: each migration is a file of its own that says why, what it costs, and what
an older version sees. They run in order, once, in one transaction, after a copy of the file was made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from narthex.store.migrations import (
    m0001_keys_and_secrets,
    m0002_approvals,
    m0003_costs,
    m0004_costs_of_teams,
    m0005_told_steps,
    m0006_exports,
)


class Migration(Protocol):
    """A module with the statements that lead from the form before it to its own."""

    @property
    def UP(self) -> Sequence[str]: ...


MIGRATIONS: tuple[Migration, ...] = (
    m0001_keys_and_secrets,
    m0002_approvals,
    m0003_costs,
    m0004_costs_of_teams,
    m0005_told_steps,
    m0006_exports,
)
"""The number of a file's last migration is its `user_version`."""
