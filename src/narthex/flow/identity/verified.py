"""Credentials that have been checked: the SHA-256 of what came -> who it is, until it expires or is revoked.

A call whose token was seen before costs one hash and one look-up; where its connection has just shown the same, a
comparison (`Shown`). Bounded, the oldest entry goes first; principals share their roles, groups and scopes wherever
they are equal. The time is handed in.
Cases: `tests/flow/identity/test_verified.py`; what it weighs: `bench/memory.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from narthex.types import Principal

MOST: Final = 50_000


class Vouch:
    """What a check rested on: the keys of an issuer as they were. Withdrawn, all that rested on it falls at once."""

    __slots__ = ("valid",)

    def __init__(self) -> None:
        self.valid = True


class Known:
    """One checked credential.

    Args:
        until: Unix seconds; from then on it is to be checked again, in vain where it has expired.
        bound: Thumbprint of the certificate that must come with it; empty for none.
        endpoint: The only endpoint that it counts at; empty for all.
    """

    __slots__ = ("bound", "endpoint", "principal", "until", "vouch")

    def __init__(self, principal: Principal, until: float, vouch: Vouch, bound: str = "", endpoint: str = "") -> None:
        self.principal: Final = principal
        self.until: Final = until
        self.vouch: Final = vouch
        self.bound: Final = bound
        self.endpoint: Final = endpoint

    def holds(self, now: float) -> bool:
        return now < self.until and self.vouch.valid


class Verified:
    """The cache. Not thread-safe: it belongs to the loop."""

    __slots__ = ("_known", "_most", "revoked")

    def __init__(self, most: int = MOST) -> None:
        self._known: dict[bytes, Known] = {}
        self._most = most
        self.revoked = 0
        """How often something was: what was found before that may be gone."""

    def __len__(self) -> int:
        return len(self._known)

    def get(self, header: bytes, now: float) -> Known | None:
        """What is known of this value of `Authorization`, if it still holds."""
        known = self._known.get(sha256(header).digest())
        return known if known is not None and known.holds(now) else None

    def put(self, header: bytes, known: Known) -> None:
        """Keep it; when full, the oldest goes."""
        entries, digest = self._known, sha256(header).digest()
        entries.pop(digest, None)
        if len(entries) >= self._most:
            del entries[next(iter(entries))]
        entries[digest] = known

    def forget(self, which: Callable[[Known], bool]) -> int:
        """Drop what was revoked, one by one (some milliseconds when full). Returns how many went."""
        self.revoked += 1
        gone = [digest for digest, known in self._known.items() if which(known)]
        for digest in gone:
            del self._known[digest]
        return len(gone)


class Shown:
    """The credential that a connection has shown last, and whom it proves at one endpoint by one configuration.

    It lives as long as its connection, and holds what came on that: no other connection is known by it. Compared first
    is Python's hash, which is keyed by chance: how long it takes says nothing of what is held.

    `again`: was it shown twice, one time behind the other? Whoever knows it before it is read (`accept.listener`) hands
    in `header` itself.
    """

    __slots__ = ("_by", "_endpoint", "_known", "_revoked", "_verified", "again", "header")

    def __init__(self, header: bytes, known: Known, verified: Verified, endpoint: str, by: object) -> None:
        self.header: Final = header
        self.again = False
        self._known = known
        self._verified = verified
        self._revoked = verified.revoked
        self._endpoint = endpoint
        self._by = by

    def principal(self, header: bytes, endpoint: str, by: object, now: float) -> Principal | None:
        """The same again, if all of this is the same, and what was found still holds; None: it is to be looked up.

        `by`: stands for the configuration; after a reload it is another.
        """
        if self._by is not by or self._endpoint != endpoint or self._revoked != self._verified.revoked:
            return None
        mine = self.header
        if header is not mine:
            if hash(header) != hash(mine) or header != mine:
                return None
            self.again = True
        return self._known.principal if self._known.holds(now) else None
