"""The API keys that are valid now, in memory: whose key is this?

In: rows of the store, then keys as they were presented. Out: principals, and when each key was last used.
A look-up is one in a dict, by the id that everybody may see, then one comparison of digests that takes the same time
wherever they differ; an unknown id is compared too. Cases: `tests/authority/test_api_keys.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from hmac import compare_digest
from math import inf

from narthex.flow.identity.api_keys import ID_AT, KEY_SIZE
from narthex.store.port import ApiKey
from narthex.types import Principal

ISSUER = "narthex/keys"
"""The issuer of every principal that an API key proves."""


class _Entry:
    """One key. `used_at` is 0 until it is used after having been loaded."""

    __slots__ = ("digest", "id", "principal", "until", "used_at")

    def __init__(self, id_: str, digest: bytes, principal: Principal | None, until: float) -> None:
        self.id, self.digest, self.principal, self.until = id_, digest, principal, until
        self.used_at = 0.0


_NOBODY = _Entry("", bytes(32), None, 0.0)
"""Compared with what has an unknown id; its digest is none that SHA-256 is known to give."""


class KeyTable:
    """Implements `KnownKeys`. Used on the event loop only.

    Args:
        now: Seconds since 1970.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._proved: set[tuple[tuple[str, str, str, str], float]] = set()
        self._next_end = inf
        self._by_id: dict[bytes, _Entry] = {}
        self._used: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def load(self, keys: Iterable[ApiKey]) -> None:
        """Know these from now on, and no others."""
        now = self._now()
        self._gather()
        self._know({key.id.encode(): _entry(key) for key in keys if key.valid_at(now)})

    def sweep(self) -> None:
        """Now and then: forget keys that have ended."""
        now = self._now()
        if now >= self._next_end:
            self._gather()
            self._know({id_: entry for id_, entry in self._by_id.items() if now < entry.until})

    def holds(self, principal: Principal) -> bool:
        """Is the key by which this principal once came still one? True for who came otherwise."""
        return principal.method != "api_key" or (principal.key, principal.authenticated_at) in self._proved

    def _know(self, entries: dict[bytes, _Entry]) -> None:
        self._by_id = entries
        # Not the whole principal: a key whose end was brought forward still proves whom it did.
        self._proved = {(one.key, one.authenticated_at) for entry in entries.values() if (one := entry.principal)}
        self._next_end = min((entry.until for entry in entries.values()), default=inf)

    def find(self, presented: bytes) -> Principal | None:
        """Whose key it is, None where it is no key of ours or not one any more."""
        entry = self._by_id.get(presented[ID_AT], _NOBODY)
        if not compare_digest(sha256(presented[: KEY_SIZE + 1]).digest(), entry.digest):
            return None
        now = self._now()
        if now >= entry.until:
            return None
        entry.used_at = now
        return entry.principal

    def take_used(self) -> dict[str, int]:
        """When keys were used since this was last asked, by id."""
        self._gather()
        used, self._used = self._used, {}
        return used

    def _gather(self) -> None:
        for entry in self._by_id.values():
            if entry.used_at:
                self._used[entry.id], entry.used_at = int(entry.used_at), 0.0


def _entry(key: ApiKey) -> _Entry:
    return _Entry(key.id, key.digest, principal_of(key), inf if key.expires_at is None else key.expires_at)


def principal_of(key: ApiKey) -> Principal:
    """Who comes with this key: the service that its name says, which is its own agent. A key that replaces another has
    its name, so sessions outlive the change."""
    return Principal(
        tenant=key.tenant,
        issuer=ISSUER,
        subject=key.name,
        client=key.name,
        roles=key.roles,
        scopes=frozenset(key.scopes),
        kind="service",
        method="api_key",
        authenticated_at=float(key.created_at),
        expires_at=float(key.expires_at or 0),
    )
