"""Credentials that have been checked: the SHA-256 of what came -> who it is, until it expires or is revoked.

A call whose token was seen before costs one hash and one look-up. Bounded, the oldest entry goes first; principals
share their roles, groups and scopes wherever they are equal. The time is handed in.
Cases: `tests/flow/identity/test_verified.py`; what it weighs: `bench/memory.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import msgspec

from narthex.types import Principal

MOST = 50_000


class Vouch:
    """What a check rested on: the keys of an issuer as they were. Withdrawn, all that rested on it falls at once."""

    __slots__ = ("valid",)

    def __init__(self) -> None:
        self.valid = True


class Known(msgspec.Struct, frozen=True, gc=False):
    """One checked credential.

    Args:
        until: Unix seconds; from then on it is to be checked again, in vain where it has expired.
        bound: Thumbprint of the certificate that must come with it; empty for none.
        endpoint: The only endpoint that it counts at; empty for all.
    """

    principal: Principal
    until: float
    vouch: Vouch
    bound: str = ""
    endpoint: str = ""


class Verified:
    """The cache. Not thread-safe: it belongs to the loop."""

    __slots__ = ("_known", "_most")

    def __init__(self, most: int = MOST) -> None:
        self._known: dict[bytes, Known] = {}
        self._most = most

    def __len__(self) -> int:
        return len(self._known)

    def get(self, header: bytes, now: float) -> Known | None:
        """What is known of this value of `Authorization`, if it still holds."""
        known = self._known.get(sha256(header).digest())
        return known if known is not None and now < known.until and known.vouch.valid else None

    def put(self, header: bytes, known: Known) -> None:
        """Keep it; when full, the oldest goes."""
        entries, digest = self._known, sha256(header).digest()
        entries.pop(digest, None)
        if len(entries) >= self._most:
            del entries[next(iter(entries))]
        entries[digest] = known

    def forget(self, which: Callable[[Known], bool]) -> int:
        """Drop what was revoked, one by one (some milliseconds when full). Returns how many went."""
        gone = [digest for digest, known in self._known.items() if which(known)]
        for digest in gone:
            del self._known[digest]
        return len(gone)
