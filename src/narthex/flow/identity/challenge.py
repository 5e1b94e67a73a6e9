"""What is answered where a credential does not do: the challenge, and the document that says where to get a token.

In: what is missing, and the URL that the client used. Out: header values and documents, without anything of the request
in them that was not checked. Cases: `tests/flow/identity/test_challenge.py`.
Source: RFC 6750 §3, RFC 9728 §3 and §5.1; MCP 2026-07-28, authorization; Microsoft identity platform, "claims
challenges" (`insufficient_claims`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from narthex.errors import ClaimsRequired, InsufficientScope, Unauthorized
from narthex.flow.codec.jsonrpc import encode

WELL_KNOWN = "/.well-known/oauth-protected-resource"
_QUOTABLE = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+").fullmatch
NEVER = "offline_access"
"""Not a scope of any operation: a client asks for it, or not, on its own account (MCP, authorization)."""


def challenge_line(error: Unauthorized | ClaimsRequired, metadata_url: str) -> bytes:
    """The header line of a 401 or 403."""
    return f"WWW-Authenticate: {challenge(error, metadata_url)}\r\n".encode("ascii")


def challenge(error: Unauthorized | ClaimsRequired, metadata_url: str) -> str:
    """The value of `WWW-Authenticate`.

    Args:
        metadata_url: Of the endpoint; empty where no issuer could give a token.
    """
    parts = []
    if error.error:
        parts.append(f'error="{error.error}"')
        parts.append(f'error_description="{_QUOTABLE.sub("?", error.public)}"')
    if isinstance(error, ClaimsRequired):
        parts.append(f'claims="{error.claims}"')
    asked = scope_text(error.scopes)
    if asked:
        parts.append(f'scope="{asked}"')
    if metadata_url:
        parts.append(f'resource_metadata="{metadata_url}"')
    return "Bearer " + ", ".join(parts) if parts else "Bearer"


def scope_text(scopes: Iterable[str]) -> str:
    """Scopes as they stand in a challenge: sorted, each once, never what is not an operation's."""
    return " ".join(sorted({scope for scope in scopes if _SCOPE(scope) and scope != NEVER}))


def missing_scopes(needed: tuple[str, ...]) -> InsufficientScope:
    """The refusal that names all that an operation needs, whatever the token has: the client asks for the union."""
    return InsufficientScope("the token lacks a scope that this needs", scopes=needed)


def metadata_path(path: str) -> str:
    """Where the document of a resource lies, by the resource's path (RFC 9728 §3.1)."""
    return WELL_KNOWN + path


def resource_document(resource: str, issuers: Iterable[str], scopes: Iterable[str], name: str) -> bytes:
    """The protected resource metadata of an endpoint, as JSON.

    Args:
        resource: Its URL, exactly as its clients use it: they refuse a document that says another.
        scopes: What every operation needs; what single tools need comes by challenge.
    """
    document: dict[str, object] = {
        "resource": resource,
        "authorization_servers": list(issuers),
        "bearer_methods_supported": ["header"],
        "resource_name": name,
    }
    if asked := scope_text(scopes):
        document["scopes_supported"] = asked.split(" ")
    return encode(document)
