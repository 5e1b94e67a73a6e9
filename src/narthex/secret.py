"""Secrets as the configuration speaks of them, without values. Of the small shared types; `types` has them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec


class SecretName(msgspec.Struct, frozen=True):
    """`${secret:NAME}` in the configuration."""

    name: str


class SecretText(msgspec.Struct, frozen=True):
    """A text of the configuration with references to secrets in it: pieces in order, `SecretName`s and plain text.

    A snapshot holds only this. The value is put together where it is sent, and kept no longer than it must.
    """

    pieces: tuple[str | SecretName, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The secrets that it needs."""
        return tuple(piece.name for piece in self.pieces if isinstance(piece, SecretName))

    def fill(self, get: Callable[[str], str]) -> str:
        """The text with the values in their places; what `get` raises goes through."""
        return "".join(piece if isinstance(piece, str) else get(piece.name) for piece in self.pieces)

    def __repr__(self) -> str:  # a plain piece may come from a secret of the environment
        shown = ["…" if isinstance(piece, str) else f"${{secret:{piece.name}}}" for piece in self.pieces]
        return f"SecretText({''.join(shown)})"


class SecretSource(msgspec.Struct, frozen=True):
    """Where a secret comes from. `where`: a variable, an absolute path, or `mount/path` in a Vault, then of `field`."""

    kind: Literal["env", "file", "vault"]
    where: str
    field: str = ""


class VaultSpec(msgspec.Struct, frozen=True):
    """How a HashiCorp Vault is asked. Either `token` says where a token is, or `role` is signed in for with the
    Kubernetes token in `jwt_file`."""

    address: str
    namespace: str = ""
    token: SecretSource | None = None
    role: str = ""
    auth_mount: str = "kubernetes"
    jwt_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    refresh_s: float = 60.0
