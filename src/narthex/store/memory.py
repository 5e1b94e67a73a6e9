"""A store in memory, for tests: as short as the contract allows, and held to the same tests as the others."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from msgspec.structs import replace

from narthex.errors import StoreError
from narthex.flow.policy.approvals.approval import Approval, Outcome, ask
from narthex.store.port import KEPT_S, MOST_KEPT, ApiKey, SealedSecret, refuse_more


class MemoryStore:
    """Keeps rows until the process ends."""

    def __init__(self) -> None:
        self._version = 0
        self._keys: dict[str, ApiKey] = {}
        self._secrets: dict[tuple[str, str], SealedSecret] = {}
        self._approvals: dict[str, Approval] = {}

    async def version(self) -> Hashable:
        return self._version

    async def keys(self) -> list[ApiKey]:
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))

    async def add_key(self, key: ApiKey, *, ends: Mapping[str, int] | None = None) -> None:
        if key.id in self._keys:
            raise StoreError(f"there is a key {key.id} already")
        self._keys[key.id] = key
        for id_, at in (ends or {}).items():
            if (old := self._keys.get(id_)) is not None:
                self._keys[id_] = replace(old, expires_at=at if old.expires_at is None else min(at, old.expires_at))
        self._version += 1

    async def revoke_keys(self, ids: Sequence[str], *, at: int) -> None:
        for id_ in ids:
            if (key := self._keys.get(id_)) is not None and key.revoked_at is None:
                self._keys[id_] = replace(key, revoked_at=at)
        self._version += 1

    async def used_keys(self, used: Mapping[str, int]) -> None:
        for id_, at in used.items():
            if (key := self._keys.get(id_)) is not None:
                self._keys[id_] = replace(key, used_at=max(at, key.used_at or at))

    async def secrets(self) -> list[SealedSecret]:
        return [self._secrets[key] for key in sorted(self._secrets)]

    async def put_secret(self, secret: SealedSecret) -> None:
        self._secrets[secret.tenant, secret.name] = secret
        self._version += 1

    async def delete_secret(self, tenant: str, name: str) -> bool:
        self._version += 1
        return self._secrets.pop((tenant, name), None) is not None

    async def reseal(self, changed: Sequence[tuple[SealedSecret, bytes]]) -> int:
        same = [(old, sealed) for old, sealed in changed if self._secrets.get((old.tenant, old.name)) == old]
        for old, sealed in same:
            self._secrets[old.tenant, old.name] = replace(old, sealed=sealed)
        self._version += 1
        return len(same)

    async def approvals(self, *, awaited_at: int | None = None) -> list[Approval]:
        found = sorted(self._approvals.values(), key=lambda one: one.asked_at)
        if awaited_at is None:
            return found
        awaited = [one for one in found if one.ends_at > awaited_at or not one.is_told(awaited_at)]
        return [replace(one, params=b"") for one in awaited]

    async def approval(self, id_: str) -> Approval | None:
        return self._approvals.get(id_)

    async def ask_approval(self, new: Approval, *, most: int, most_each: int) -> tuple[Outcome, Approval]:
        now, found = new.asked_at, None
        for one in self._approvals.values():
            found = one if one.digest == new.digest else found
        outcome, then = ask(found, new, now)
        if outcome == "asked":
            opened = [one for one in self._approvals.values() if one.is_open(now)]
            refuse_more(len(opened), most, sum(_whose(one) == _whose(new) for one in opened), most_each)
            ended = [id_ for id_, one in self._approvals.items() if not one.is_open(now)]
            for id_ in ended[: max(0, len(self._approvals) - MOST_KEPT + 1)]:
                del self._approvals[id_]
        self._approvals[then.id] = then
        return outcome, then

    async def change_approval(self, id_: str, change: Callable[[Approval], Approval]) -> Approval | None:
        if id_ not in self._approvals:
            return None
        self._approvals[id_] = change(self._approvals[id_])
        return self._approvals[id_]

    async def told_approvals(self, told: Mapping[str, int], sent: Mapping[str, int]) -> None:
        for id_ in told.keys() | sent.keys():
            if (one := self._approvals.get(id_)) is not None:
                self._approvals[id_] = replace(
                    one, told=max(one.told, told.get(id_, 0)), sent=max(one.sent, sent.get(id_, 0))
                )

    async def sweep_approvals(self, now: int) -> None:
        kept = {id_: one for id_, one in self._approvals.items() if one.ends_at > now - KEPT_S}
        self._approvals = {
            id_: one if one.is_open(now) else replace(one, params=b"") for id_, one in kept.items()
        }  # fmt: skip
        self._version += 1

    async def close(self) -> None:
        return None


def _whose(one: Approval) -> tuple[str, str, str, str]:
    return one.tenant, one.issuer, one.subject, one.client
