"""`secrets` and `vault`: where the secrets are that `${secret:NAME}` refers to."""

from __future__ import annotations

from typing import Annotated

import msgspec

from narthex.config.kinds import BASE_URL, FILE, SECRET_NAME, SECRET_SOURCE, WORD, Group, Mapped, Setting, duration
from narthex.types import SecretSource, VaultSpec

DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(VaultSpec)}

SOURCES = Setting(
    Mapped(SECRET_NAME, SECRET_SOURCE, "sources"),
    "Where secrets come from, by name; a value never stands here. What is not named here is in the store, put there by"
    " `narthex secrets set NAME`.",
)


class KubernetesSettings(msgspec.Struct, frozen=True):
    """Sign-in at the Vault with the token that Kubernetes gives to a pod."""

    role: Annotated[str | None, Setting(WORD, "Role of the Vault that is asked for.", default="required")] = None
    mount: Annotated[str, Setting(WORD, "Where the method is mounted.")] = DEFAULTS["auth_mount"]
    jwt: Annotated[str, Setting(FILE, "The pod's token.")] = DEFAULTS["jwt_file"]


class VaultSettings(msgspec.Struct, frozen=True):
    """A HashiCorp Vault (KV version 2) that secrets come from."""

    address: Annotated[
        str | None, Setting(BASE_URL, "Its address; http on loopback only.", default="the variable VAULT_ADDR")
    ] = None
    namespace: Annotated[str | None, Setting(WORD, "Its namespace.", default="the variable VAULT_NAMESPACE")] = None
    token: Annotated[
        SecretSource | None,
        Setting(SECRET_SOURCE, "Where a token for it is: `env:VAR` or `file:PATH`.", default="env:VAULT_TOKEN"),
    ] = None
    kubernetes: Annotated[
        KubernetesSettings | None,
        Setting(Group(KubernetesSettings, "a map `{role, mount, jwt}`"), "Sign-in by Kubernetes, instead of a token."),
    ] = None
    refresh: Annotated[float, Setting(duration("1s", "1d"), "A changed secret is seen within this time.")] = DEFAULTS[
        "refresh_s"
    ]


VAULT = Setting(
    Group(VaultSettings, "a map `{address, namespace, token, kubernetes, refresh}`"),
    "The Vault of `vault:` secrets.",
    default="what VAULT_ADDR, VAULT_NAMESPACE and VAULT_TOKEN say, where a secret needs it",
)
