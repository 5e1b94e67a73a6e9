"""Where a server's tokens come from: its challenge, its protected-resource metadata, the metadata of its authorization
server. Pure: which addresses to ask in which order, and what their answers are allowed to say.

In: headers and JSON documents of strangers, URLs. Out: `Challenge`, `Resource`, `Server`, or `Untrusted` that says why.
Cases: `tests/authority/test_discovery.py`; fuzz target `challenge`.
Source: RFC 9110 §11 (challenges), RFC 6750 §3, RFC 9728 (resource), RFC 8414 and OpenID Connect Discovery (server),
MCP 2025-11-25 and 2026-07-28, authorization.
"""

from __future__ import annotations

import re
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.flow.identity.discovery import metadata_urls

T = TypeVar("T")
MAX_DOCUMENT = 256 * 1024
"""Bytes of a metadata document."""
MAX_LIST = 16 * 1024
"""Bytes of a list in a document; a longer one counts as none."""
MOST_CHALLENGE = 8 * 1024
MOST_SCOPES = 64
_PART = re.compile(
    r"""[ \t,]*(?:
      (?P<key>[!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*
          (?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"=]+))(?=[ \t]*(?:,|$))
    | (?P<scheme>[!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]+(?P<token68>[A-Za-z0-9._~+/-]+=*)(?=[ \t]*(?:,|$)))?(?=[ \t,]|$)
    )""",
    re.VERBOSE,
)
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")


class Untrusted(ValueError):
    """A document or an address that must not be followed. The text is for the operator; it quotes no secret."""


class Challenge(msgspec.Struct, frozen=True):
    """What a 401 or 403 asks for."""

    scopes: tuple[str, ...] = ()
    metadata: str = ""
    """Where the resource's metadata is, as the server says it; empty where it does not."""
    error: str = ""
    claims: str = ""
    """With the error `insufficient_claims`: what the user must sign in with, base64 as it came."""


class Resource(msgspec.Struct, frozen=True):
    """A protected resource as its own metadata describes it."""

    resource: str
    servers: tuple[str, ...]
    scopes: tuple[str, ...] = ()


class _SaysResource(msgspec.Struct):
    """A resource's metadata as it comes: members of any form."""

    resource: msgspec.Raw = msgspec.Raw()
    authorization_servers: msgspec.Raw = msgspec.Raw()
    scopes_supported: msgspec.Raw = msgspec.Raw()


class _SaysServer(msgspec.Struct):
    """The same of an authorization server."""

    issuer: msgspec.Raw = msgspec.Raw()
    token_endpoint: msgspec.Raw = msgspec.Raw()
    token_endpoint_auth_methods_supported: msgspec.Raw = msgspec.Raw()


class Server(msgspec.Struct, frozen=True):
    """An authorization server, as far as a token request needs to know it. Empty `auth_methods`: it does not say."""

    issuer: str
    token_endpoint: str
    auth_methods: tuple[str, ...] = ()


def read_challenge(header: str) -> Challenge:
    """The Bearer challenge in a `WWW-Authenticate`; an empty one where there is none, or none that can be read."""
    scheme, found, at = "", Challenge(), 0
    header = header[:MOST_CHALLENGE]
    while (match := _PART.match(header, at)) is not None and match.end() > at:
        at = match.end()
        if match["scheme"] is not None:
            if scheme == "bearer":
                break
            scheme = match["scheme"].lower()
        elif scheme == "bearer":
            value = match["plain"] if match["plain"] is not None else re.sub(r"\\(.)", r"\1", match["quoted"])
            key = match["key"].lower()
            if key == "scope":
                found = msgspec.structs.replace(found, scopes=read_scopes(value))
            elif key == "resource_metadata":
                found = msgspec.structs.replace(found, metadata=value)
            elif key == "claims" and len(value) <= MOST_CHALLENGE:
                found = msgspec.structs.replace(found, claims=value)
            elif key == "error":
                found = msgspec.structs.replace(found, error=value[:64])
    return found


def read_scopes(text: str) -> tuple[str, ...]:
    """The scopes of a space-separated list, each once; what is no scope (RFC 6749 §3.3) is left out."""
    return tuple(dict.fromkeys(one for one in text.split(" ") if _SCOPE.fullmatch(one)))[:MOST_SCOPES]


# --- the resource -------------------------------------------------------------------------------------------------


def resource_urls(server: str, challenge: Challenge) -> tuple[str, ...]:
    """Where the metadata of the server at this URL may be, in order: as it says, else at its path, else at its root."""
    if challenge.metadata:
        return (challenge.metadata,)
    parts = urlsplit(server)
    root = f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource"
    path = parts.path.rstrip("/")
    return (f"{root}{path}", root) if path else (root,)


def read_resource(document: bytes, server: str) -> Resource:
    """A resource's metadata, if it speaks of this server.

    `resource` must be the server's URL, or lie above it on the same origin: one document may stand for a whole host
    (RFC 9728 §3.3 binds it to where it was found; its path may then be the shorter one).
    Raises:
        Untrusted: No such document, or one about another resource.
    """
    what = "the resource's metadata"
    found = _read(document, _SaysResource, what)
    resource = _text(found.resource, "resource", what)
    if not is_above(resource, server):
        raise Untrusted(f"the resource's metadata speaks of {resource[:200]!r}, not of the server's own address")
    servers = _texts(found.authorization_servers)
    if not servers:
        raise Untrusted("the resource's metadata names no authorization server")
    return Resource(resource, servers, tuple(one for one in _texts(found.scopes_supported) if _SCOPE.fullmatch(one)))


def is_above(resource: str, server: str) -> bool:
    """Is this the URL of the server, or one of the same origin above its path?"""
    try:
        asked, own = urlsplit(resource), urlsplit(server)
        if _origin(asked) != _origin(own) or asked.query not in ("", own.query) or asked.fragment:
            return False
    except ValueError:
        return False
    above, path = asked.path.rstrip("/"), own.path.rstrip("/")
    return path == above or path.startswith(above + "/")


def canonical(server: str) -> str:
    """A server's URL as a resource identifier: no fragment, no query, host in lower case, no empty path (MCP,
    authorization, canonical server URI)."""
    parts = urlsplit(server)
    return f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host, port. Raises Untrusted for what is no URL."""
    try:
        return _origin(urlsplit(url))
    except ValueError:
        raise Untrusted("not a URL") from None


# --- the authorization server ------------------------------------------------------------------------------------


def server_urls(issuer: str) -> tuple[str, ...]:
    """Where an issuer's metadata may be, in the order that MCP asks for: RFC 8414, then OpenID Connect."""
    return metadata_urls(issuer)


def read_server(document: bytes, issuer: str) -> Server:
    """An authorization server's metadata, if it is this issuer's own.

    Raises:
        Untrusted: No such document, or another issuer's (RFC 8414 §3.3: identical, as text).
    """
    what = "the authorization server's metadata"
    found = _read(document, _SaysServer, what)
    said = _text(found.issuer, "issuer", what)
    if said != issuer:
        raise Untrusted(f"{what} says that its issuer is {said[:200]!r}, not {issuer[:200]!r}")
    return Server(
        issuer,
        _text(found.token_endpoint, "token_endpoint", what),
        _texts(found.token_endpoint_auth_methods_supported),
    )


def choose_server(resource: Resource, issuer: str) -> str:
    """The issuer to ask: the configured one, which the resource must name; else the first that it names.

    Raises:
        Untrusted: The resource has gone over to other authorization servers: credentials are one issuer's alone.
    """
    if not issuer:
        return resource.servers[0]
    if issuer not in resource.servers:
        raise Untrusted(f"the server's metadata no longer names the issuer {issuer[:200]!r}, whose credential this is")
    return issuer


def _read(document: bytes, type_: type[T], what: str) -> T:
    """The members that we ask for; all else is skipped unread, for a stranger may have written a lot."""
    try:
        return msgspec.json.decode(document, type=type_)
    except BAD_JSON:
        raise Untrusted(f"{what} is no JSON object") from None


def _text(raw: msgspec.Raw, key: str, what: str) -> str:
    try:
        value = msgspec.json.decode(raw, type=str)
    except BAD_JSON:
        value = ""
    if not value:
        raise Untrusted(f"{what} has no {key!r}")
    return value


def _texts(raw: msgspec.Raw) -> tuple[str, ...]:
    try:
        value = msgspec.json.decode(raw) if len(raw) <= MAX_LIST else None
    except BAD_JSON:
        value = None
    return tuple(one for one in value if isinstance(one, str))[:MOST_SCOPES] if isinstance(value, list) else ()
