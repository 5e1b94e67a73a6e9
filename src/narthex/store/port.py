"""What a store keeps, and what every store can do. `sqlite` and `memory` do the same and pass the same tests.

In: nothing. Out: `Store`, its rows, `StoreError` from `narthex.errors`. Times are Unix seconds, whole.
A store holds no secret that it could read: keys are kept as hashes, secrets sealed. It is asked off the path of a call.
Proof: `tests/store/test_contract.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol

import msgspec

from narthex.errors import Overloaded
from narthex.flow.policy.approvals.approval import Approval, Outcome

KEPT_S = 86_400
"""How long an approval can be looked up after it has ended."""
APPROVAL_PAUSE_S = 60
"""When one who was refused for their number should come again."""
MOST_KEPT = 10_000
"""Approvals that are kept at all; of those that ended, the oldest go first."""


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


def refuse_more(in_all: int, most: int, of_one: int, most_each: int) -> None:
    """Raise `Overloaded` where no more calls may wait for a person."""
    if of_one >= most_each:
        raise Overloaded("too many calls of this client wait for approval", retry_after_s=APPROVAL_PAUSE_S)
    if in_all >= most:
        raise Overloaded("too many calls wait for approval", retry_after_s=APPROVAL_PAUSE_S)


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

    async def approvals(self, *, awaited_at: int | None = None) -> list[Approval]:
        """Held calls, the oldest first: all; or, without their parameters, those that are awaited at a time, because
        it has not ended then, or a step of it is not in the record, or not told."""

    async def approval(self, id_: str) -> Approval | None:
        """One of them."""

    async def ask_approval(self, new: Approval, *, most: int, most_each: int) -> tuple[Outcome, Approval]:
        """A held call is made: `approval.ask`, of the last one for the same call and `new`, at `new.asked_at`.

        This and `change_approval` change no `version` for the one who did it: the answer says what there is now.

        Args:
            most, most_each: So many may be open, in all, and of one principal.
        Raises:
            Overloaded: As many are open already.
        """

    async def change_approval(self, id_: str, change: Callable[[Approval], Approval]) -> Approval | None:
        """Keep what `change` makes of an approval, which nobody else changes meanwhile; None where there is none.

        What `change` raises goes through, and nothing is changed.
        """

    async def told_approvals(self, told: Mapping[str, int], sent: Mapping[str, int]) -> None:
        """How many steps of approvals are in the record, by id, and how many the webhook has taken; a number never goes
        back."""

    async def sweep_approvals(self, now: int) -> None:
        """Forget the parameters of those that have ended, and those that ended `KEPT_S` ago altogether."""

    async def close(self) -> None:
        """Let go of files and threads. Nothing is asked afterwards."""
