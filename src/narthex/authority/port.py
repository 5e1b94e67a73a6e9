"""What the path of a call may ask of what we hold: answered from memory, at once.

Proof: `tests/authority/test_secrets.py`, `tests/authority/test_api_keys.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from narthex.errors import AuthorityUnavailable, SecretMissing
from narthex.types import Principal


class Secrets(Protocol):
    """Upstream secrets by name."""

    @property
    def version(self) -> int:
        """Goes up whenever a value changes, comes or goes: what was made of values under another version is stale."""

    def get(self, name: str) -> str:
        """The value, from memory.

        Raises:
            SecretMissing: There is none, or it cannot be opened; the operator's detail says the way out.
        """


class KnownKeys(Protocol):
    """API keys that are valid now."""

    def find(self, presented: bytes) -> Principal | None:
        """Whose key it is: what followed `Bearer `, as it came. None: no key, or not one any more. At most 2 µs."""

    def holds(self, principal: Principal) -> bool:
        """Is the key by which this principal once came still one? True for who came otherwise."""


def getter(secrets: Secrets | None) -> Callable[[str], str]:
    """`Secrets.get` for what is shown to an issuer: what is missing is AuthorityUnavailable, with the way out."""

    def get(name: str) -> str:
        if secrets is None:
            raise AuthorityUnavailable(detail=f"the secret {name} is not known here")
        try:
            return secrets.get(name)
        except SecretMissing as missing:
            raise AuthorityUnavailable(detail=missing.detail) from None

    return get
