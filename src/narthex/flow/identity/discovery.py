"""An issuer's metadata: where it may lie, and what it must say before it counts.

In: the issuer as the operator wrote it; documents, which are hostile. Out: URLs to try in order; the metadata.
`authority.discovery` reads what concerns the issuers of whom we ask tokens ourselves.
Cases: `tests/flow/identity/test_discovery.py`. Source: RFC 8414 §3, OpenID Connect Discovery 1.0 §4; MCP 2026-07-28,
authorization server discovery (order of the documents, the issuer compared as plain text).
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.flow.identity.tokens import TID

MAX_DOCUMENT = 256 * 1024
COMMON = "organizations"
"""What Entra has in the place of a tenant where all of them are meant."""


class Metadata(msgspec.Struct, frozen=True):
    """What is used of the document. Addresses in it were learnt from the issuer: `authority.fetch` guards them."""

    issuer: str
    jwks_uri: str = ""
    introspection_endpoint: str = ""
    token_endpoint: str = ""


class _Said(msgspec.Struct):
    """The document as it comes: what it does not have may be null. All else in it is skipped unread."""

    issuer: str
    jwks_uri: str | None = None
    introspection_endpoint: str | None = None
    token_endpoint: str | None = None


def metadata_urls(issuer: str, first: Literal["oauth", "oidc", "none"] = "oauth") -> tuple[str, ...]:
    """Where the metadata of an issuer may lie, in the order to ask.

    Args:
        first: `oauth` is the order of MCP (RFC 8414 with its path inserted, OpenID Connect inserted, appended); `oidc`
            asks first where OpenID providers have it.
    """
    issuer = issuer.replace(TID, COMMON)
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    oauth = f"{origin}/.well-known/oauth-authorization-server{path}"
    inserted = f"{origin}/.well-known/openid-configuration{path}"
    appended = f"{origin}{path}/.well-known/openid-configuration"
    order = (appended, oauth, inserted) if first == "oidc" else (oauth, inserted, appended)
    return tuple(dict.fromkeys(order))


def read_metadata(document: bytes, issuer: str) -> Metadata:
    """The metadata that a document holds.

    The issuer in it must be the one asked for, character by character: otherwise somebody answers for another.
    Raises:
        ValueError: No metadata, or somebody else's.
    """
    if len(document) > MAX_DOCUMENT:
        raise ValueError("the document is too large")
    try:
        said = msgspec.json.decode(document, type=_Said)
    except BAD_JSON as error:
        raise ValueError(f"not the metadata of an issuer ({type(error).__name__})") from None
    if said.issuer != issuer.replace(TID, "{tenantid}"):
        raise ValueError("it is the metadata of another issuer")
    return Metadata(said.issuer, said.jwks_uri or "", said.introspection_endpoint or "", said.token_endpoint or "")
