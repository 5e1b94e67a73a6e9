"""A store in memory, for tests: as short as the contract allows, and held to the same tests as the others."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from msgspec.structs import replace

from narthex.errors import StoreError
from narthex.store.port import ApiKey, SealedSecret


class MemoryStore:
    """Keeps rows until the process ends."""

    def __init__(self) -> None:
        self._version = 0
        self._keys: dict[str, ApiKey] = {}
        self._secrets: dict[tuple[str, str], SealedSecret] = {}

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

    async def close(self) -> None:
        return None
