"""A small issuer for tests: keys made once, tokens with any header and claims, signed or not."""

from __future__ import annotations

import functools
import json
import threading
from base64 import urlsafe_b64encode
from typing import Any

from joserfc import jwk
from joserfc.jws import JWSRegistry

from narthex.flow.identity.keys import KeySet, read_keys

NOW = 1_800_000_000.0
ISSUER = "https://sso.example.com/realms/corp"
AUDIENCE = "https://gateway.example.com/mcp"
KINDS: dict[str, tuple[str, Any]] = {
    "rsa": ("RSA", 2048), "rsa2": ("RSA", 2048), "p256": ("EC", "P-256"), "p384": ("EC", "P-384"),
    "ed": ("OKP", "Ed25519"),
}  # fmt: skip


_making = threading.Lock()


def key(name: str) -> Any:
    """Made once, whichever thread asks first: one that serves the keys, or one that signs with them."""
    with _making:
        return _made(name)


@functools.cache
def _made(name: str) -> Any:
    kty, size = KINDS[name]
    return jwk.generate_key(kty, size, {"kid": name})  # type: ignore[call-overload]


def public(name: str, **more: Any) -> dict[str, Any]:
    return {**key(name).as_dict(private=False), **more}


def jwks(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(entries)}).encode()


def keys(*names: str) -> KeySet:
    return read_keys(jwks(*[public(name) for name in names or ("rsa",)]))


def base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def claims(**more: Any) -> dict[str, Any]:
    """Claims that are accepted, with others in the place of some; None leaves one out."""
    found = {"iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "exp": NOW + 300, "iat": NOW, **more}
    return {name: value for name, value in found.items() if value is not None}


def token(
    said: dict[str, Any] | bytes | None = None,
    *,
    by: str = "rsa",
    alg: str = "RS256",
    header: dict[str, Any] | bytes | None = None,
    signature: bytes | None = None,
) -> bytes:
    """A token: `header` is added to `alg`, `typ` and `kid`, or is all of it as bytes."""
    head: Any = header
    if not isinstance(header, bytes):
        head = {"alg": alg, "typ": "at+jwt", "kid": by, **(header or {})}
        head = json.dumps({name: value for name, value in head.items() if value is not None}).encode()
    body = said if isinstance(said, bytes) else json.dumps(said if said is not None else claims()).encode()
    signing = base64url(head) + b"." + base64url(body)
    if signature is None:
        signature = JWSRegistry.algorithms[alg].sign(signing, key(by))
    return signing + b"." + base64url(signature)
