"""What a store keeps, and what every store can do. `sqlite` and `memory` do the same and pass the same tests.

In: nothing. Out: `Store`, its rows, `StoreError` from `narthex.errors`. Times are Unix seconds, whole.
A store holds no secret that it could read: keys are kept as hashes, secrets sealed. It is asked off the path of a call.
Proof: `tests/store/test_contract.py`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

import msgspec


class ApiKey(msgspec.Struct, frozen=True):
    """An API key as it is kept. `digest` is the SHA-256 of the whole key; the key itself is kept nowhere."""

    id: str
    name: str
    digest: bytes
    created_at: int
    tenant: str = "default"
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    expires_at: int | None = None
    """From this second on it is no key. Revoking one, and replacing one, brings it forward; it never goes back."""
    revoked_at: int | None = None
    used_at: int | None = None
    """About when it was last used: written now and then, not with each call."""

    def valid_at(self, now: float) -> bool:
        """Does it still open anything?"""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class SealedSecret(msgspec.Struct, frozen=True):
    """A secret as it is kept: `sealed` is what `authority.envelope` made of it, bound to tenant and name."""

    name: str
    sealed: bytes
    changed_at: int
    tenant: str = "default"


class Store(Protocol):
    """Keeps rows. Each method is one transaction: it is done whole, on the disk, or not at all.

    Raises:
        StoreError: From any of them: the store cannot be read or written; the text says which file, and the way out.
    """

    async def version(self) -> Hashable:
        """A value that differs from the last one after anybody, this process or another, has changed something."""

    async def keys(self) -> list[ApiKey]:
        """All keys, those that ended too, the oldest first."""

    async def add_key(self, key: ApiKey, *, ends: Mapping[str, int] | None = None) -> None:
        """Keep a new key; in the same step let others end, by id, at a second, unless they end sooner.

        Raises:
            StoreError: Its id is taken.
        """

    async def revoke_keys(self, ids: Sequence[str], *, at: int) -> None:
        """These are no keys any more. One that was revoked before keeps its time; an unknown id changes nothing."""

    async def used_keys(self, used: Mapping[str, int]) -> None:
        """When keys were last used, by id; a time never goes back."""

    async def secrets(self) -> list[SealedSecret]:
        """All secrets, by tenant and name."""

    async def put_secret(self, secret: SealedSecret) -> None:
        """Keep a secret, in the place of the one of its tenant and name."""

    async def delete_secret(self, tenant: str, name: str) -> bool:
        """Was there one? There is none now."""

    async def reseal(self, changed: Sequence[tuple[SealedSecret, bytes]]) -> int:
        """Keep other bytes for the same values (a key was rotated). A secret that was set meanwhile stays as it is.

        Args:
            changed: A secret as `secrets` gave it, and its new bytes.
        Returns:
            How many were replaced.
        """

    async def close(self) -> None:
        """Let go of files and threads. Nothing is asked afterwards."""
