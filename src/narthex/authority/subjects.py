"""The tokens that callers came with, for the credentials that are made of them; kept only while such are configured.

In: verified tokens, by their principal. Out: the one that lasts longest. In memory alone, bounded, never shown.
Proof: `tests/authority/test_subjects.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from narthex.types import Principal

MOST = 50_000
SPARE_S = 5.0
"""A token that ends within this time is no good to exchange."""
Key = tuple[tuple[str, str, str, str], str]


class Subjects:
    """Whose token is which.

    Args:
        now: Unix seconds.
    """

    def __init__(self, *, now: Callable[[], float]) -> None:
        self.wanted = False
        """Is any credential made of callers' tokens? Until then none is kept."""
        self._now = now
        self._kept: dict[Key, tuple[str, float]] = {}

    def want(self, wanted: bool) -> None:
        """From now on they are needed, or not any more: then none is left."""
        self.wanted = wanted
        if not wanted:
            self._kept.clear()

    def keep(self, principal: Principal, token: str) -> None:
        """A token was verified as this principal's. `principal.expires_at` is its end."""
        if not self.wanted:
            return
        key = (principal.key, " ".join(sorted(principal.scopes)))
        before = self._kept.pop(key, None)
        if before is not None and before[1] > principal.expires_at:
            self._kept[key] = before
            return
        self._kept[key] = (token, principal.expires_at)
        self._drop_old()

    def find(self, who: tuple[str, str, str, str], scopes: str) -> str:
        """The token of a principal (by its key, and its scopes sorted in one text); empty where there is none."""
        kept = self._kept.get((who, scopes))
        if kept is None:
            return ""
        token, expires_at = kept
        if expires_at and expires_at < self._now() + SPARE_S:
            del self._kept[who, scopes]
            return ""
        return token

    def _drop_old(self) -> None:
        """With each that comes, up to two go: the oldest, if they have ended or there are too many."""
        now = self._now()
        for key in list(islice(self._kept, 2)):
            expires_at = self._kept[key][1]
            if len(self._kept) > MOST or (expires_at and expires_at < now):
                del self._kept[key]
