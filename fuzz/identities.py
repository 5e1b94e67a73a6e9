"""Fuzz targets for what says who calls: credentials, tokens, certificates in headers, keys and metadata of issuers."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from contextlib import suppress
from functools import cache
from typing import Any

from joserfc import jwk, jws

from narthex.authority.identify import Identity, Presented
from narthex.errors import GatewayError
from narthex.flow.codec.jsonrpc import encode
from narthex.flow.identity.certificates import read_xfcc
from narthex.flow.identity.challenge import challenge_line
from narthex.flow.identity.claims import principal_of
from narthex.flow.identity.discovery import metadata_urls, read_metadata
from narthex.flow.identity.keys import read_keys
from narthex.flow.identity.tokens import FAMILY, TokenRefused, looks_like_jwt, parse
from narthex.types import ClaimRules, EndpointSpec, IdentitySpec, IssuerSpec, Principal

NOW = 1_800_000_000.0
ISSUER = "https://sso.example.com/realms/corp"
RULES = ClaimRules(
    roles=(("realm_access", "roles"),), groups=(("groups",),), role_map={"gw": ("support",)}, role_prefix="n-",
    preset="keycloak",
)  # fmt: skip
ENDPOINT = EndpointSpec("default", (), base_scopes=("mcp",))


async def _nobody(*_: Any, **__: Any) -> Any:
    raise AssertionError("nobody is asked while a token is only looked at")


@cache
def _key() -> Any:
    return jwk.generate_key("EC", "P-256", {"kid": "k"})


@cache
def _identity() -> Identity:
    spec = IssuerSpec("corp", "keycloak", ISSUER, RULES, audiences=("gw",))
    identity = Identity(
        IdentitySpec(issuers={"corp": spec}), {"default": ENDPOINT}, keys=None, fetch=_nobody, secrets=None,
        now=lambda: NOW, clock=lambda: 0.0, chance=lambda: 0.5,
    )  # fmt: skip
    identity.issuers["corp"].keys = read_keys(encode({"keys": [_key().as_dict(private=False)]}))
    return identity


def _try(header: bytes, query: bytes = b"") -> Principal | None:
    """Whom a header lets in; a request that would wait for its issuer is none."""
    try:
        found = _identity().identify(Presented(header, query), ENDPOINT)
    except GatewayError as error:
        assert error.public.isprintable()
        with suppress(AttributeError):
            challenge_line(error, "https://gw/x")  # type: ignore[arg-type]
        return None
    if isinstance(found, Principal):
        return found
    found.close()
    return None


def fuzz_bearer(data: bytes) -> None:
    """Nobody is let in by bytes that nobody signed; every refusal is one of ours."""
    header, _, query = data.partition(b"\0")
    assert _try(header, query) is None
    assert _try(b"Bearer " + header, query) is None


def fuzz_jwt(data: bytes) -> None:
    """Header and claims at will: without the issuer's signature nobody; with it, who the claims say and rules give."""
    head, _, claims = data.partition(b"\0")
    parts = [urlsafe_b64encode(part).rstrip(b"=") for part in (head, claims, bytes(64))]
    token = b".".join(parts)
    looks_like_jwt(token)
    with suppress(TokenRefused):
        parse(token)
    assert _try(b"Bearer " + token) is None
    signed = jws.serialize_compact({"alg": "ES256", "kid": "k", "typ": "JWT"}, claims, _key(), ["ES256"]).encode()
    found = _try(b"Bearer " + signed)
    if found is not None:
        _is_by_the_rules(found, claims)
    with suppress(TokenRefused):
        _is_by_the_rules(principal_of(parse(signed).claims, RULES, issuer=ISSUER, method="jwt"), claims)


def _is_by_the_rules(found: Principal, claims: bytes) -> None:
    assert (found.tenant, found.issuer) == ("default", ISSUER)
    assert found.subject and all(text.isprintable() or max(text) > "\x7f" for text in found.key)
    assert not any(char < " " or char == "\x7f" for text in (*found.key, *found.roles, *found.groups) for char in text)
    for role in found.roles:
        assert role == "support" or len(role) < 512


def fuzz_xfcc(data: bytes) -> None:
    """Refused, or exactly one certificate: a thumbprint of its size, names without control characters."""
    try:
        found = read_xfcc(data)
    except ValueError:
        return
    assert len(found.thumbprint) == 43 and data.lower().count(b"hash") >= 1
    for name in found.names:
        assert name.startswith(("URI:", "DNS:", "CN=")) and not any(char < " " for char in name)


def fuzz_jwks(data: bytes) -> None:
    """Refused, or public keys for the algorithms that we accept."""
    try:
        found = read_keys(data)
    except ValueError:
        return
    for key in (*found.by_kid.values(), *found.unnamed):
        assert (key.kty, key.crv) in FAMILY.values() and not key.material.is_private
        assert not key.fits("none") and not key.fits("HS256")
    assert found.find("", "none") is None


def fuzz_metadata(data: bytes) -> None:
    """Refused, or the document of the issuer that was asked for; any issuer has places to look."""
    with suppress(ValueError):
        assert read_metadata(data, ISSUER).issuer == ISSUER
    with suppress(ValueError):
        assert all("/.well-known/" in url for url in metadata_urls("https://" + data.decode(errors="replace")))
