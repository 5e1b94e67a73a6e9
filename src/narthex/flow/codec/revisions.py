"""Which revision of MCP a request speaks, and what that era asks of it.

In: the version header, the method and the parameters. Out: the revision, or the error to answer with.
Cases: `tests/flow/codec/test_revisions.py`, one row a rule.
Source: MCP 2026-07-28, basic/versioning and Streamable HTTP; MCP 2025-11-25, transports ("Protocol Version Header").

| a request says | it speaks |
| --- | --- |
| a modern version, in header and `_meta` | that one; `initialize`, too, which it does not have any more |
| `initialize`, otherwise | what the handshake agrees on |
| a session | what its handshake has agreed on, whatever legacy version the header says, or with none (2025-11-25, |
| | lifecycle: both sides respect it; transports: the header SHOULD say the same, so another is no reason to refuse) |
| a legacy version, without a session | that one |
| nothing | 2025-03-26, the last one without the header |
| anything else | refused, 400 |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from narthex.errors import HeaderMismatch, InvalidParams, MethodNotFound, UnsupportedVersion
from narthex.flow.codec.crowds import refuse_crowd
from narthex.flow.codec.headers import OWS
from narthex.flow.codec.jsonrpc import (
    BAD_JSON,
    RawMap,
    Request,
    compact_length,
    decode_map,
    refuse_duplicate_keys,
)
from narthex.types import Era

MODERN: Final = ("2026-07-28",)
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
LATEST_LEGACY: Final = LEGACY[0]
ASSUMED: Final = "2025-03-26"
"""What a request without a version header speaks (2025-11-25, transports)."""

META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_CLIENT: Final = "io.modelcontextprotocol/clientInfo"
META_SERVER: Final = "io.modelcontextprotocol/serverInfo"
META_LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
META_PREFIX: Final = "io.modelcontextprotocol/"
META_TASK: Final = "io.narthex/task"
"""What the agent was asked to do, a text: for the record alone, no server is told."""
_META_VERSION_BYTES: Final = META_VERSION.encode()

ERA_OF_HEADER: Final[Mapping[bytes | None, tuple[str, Era]]] = {
    **{version.encode(): (version, "modern") for version in MODERN},
    **{version.encode(): (version, "legacy") for version in LEGACY},
}
_QUOTED: Final = {version: f'"{version}"'.encode() for version in MODERN}
_SHARED_METHODS: Final = frozenset(
    {
        "tools/list",
        "tools/call",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "completion/complete",
        *("skills/list", "skills/get", "resources/directory/read"),
    }
)
METHODS: Final[dict[Era, frozenset[str]]] = {
    "modern": _SHARED_METHODS
    | {"server/discover", "subscriptions/listen"}
    | {"tasks/get", "tasks/update", "tasks/cancel"},
    "legacy": _SHARED_METHODS
    | {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
    | {"tasks/get", "tasks/result", "tasks/list", "tasks/cancel"},
}
"""What a client may ask."""


def era_of(header: bytes | None, request: Request, body: bytes) -> tuple[str, Era]:
    """The revision and era that a request speaks, by itself: a legacy session knows better which revision.

    Args:
        header: `MCP-Protocol-Version` as received, None where absent.
        body: The request's bytes: without a header, its `_meta` still tells a modern client that lost it.
    Raises:
        UnsupportedVersion: A version that is none of ours; `data` names those to choose from.
        HeaderMismatch: The body is modern, the header is missing.
    """
    header = None if header is None else header.strip(OWS)
    if request.method == "initialize":
        known = ERA_OF_HEADER.get(header)
        if known is not None and known[1] == "modern" and _claims_version(request.params):
            return known
        return LATEST_LEGACY, "legacy"
    if header is None:
        if _META_VERSION_BYTES in body and _claims_version(request.params):
            raise HeaderMismatch("MCP-Protocol-Version", None, "a version in _meta")
        return ASSUMED, "legacy"
    known = ERA_OF_HEADER.get(header)
    if known is None:
        requested = header.decode("latin-1")[:64]
        raise UnsupportedVersion(
            "unsupported protocol version", data={"supported": list(MODERN), "requested": requested}
        )
    return known


def _claims_version(params: RawMap) -> bool:
    refuse_crowd(params.get("_meta", b""))
    try:
        return META_VERSION in decode_map(params["_meta"])
    except (*BAD_JSON, KeyError):
        return False


def read_meta(params: RawMap) -> RawMap:
    """`params._meta` as a map; empty where there is none.

    Raises:
        InvalidParams: It is no object.
        ParseError: It has too many members; or a key stands twice in it: another reader would see another version, or
            other capabilities.
    """
    raw = params.get("_meta")
    if raw is None:
        return {}
    refuse_crowd(raw)
    try:
        meta = decode_map(raw)
    except BAD_JSON:
        raise InvalidParams("params._meta must be an object") from None
    if len(raw) != compact_length(meta):
        refuse_duplicate_keys(bytes(raw), depth=1)
    return meta


def check_modern_meta(meta: RawMap, version: str) -> None:
    """A modern request names its version and the client's capabilities in `_meta`, and the header agrees.

    Raises:
        InvalidParams: One of the two is missing, or capabilities are no object.
        HeaderMismatch: The version in the body is not the one in the header.
    """
    claimed = meta.get(META_VERSION)
    if claimed is None:
        raise InvalidParams(f"params._meta must have {META_VERSION}")
    if bytes(claimed) != _QUOTED[version]:
        raise HeaderMismatch("MCP-Protocol-Version", version, bytes(claimed)[:64])
    capabilities = meta.get(META_CAPABILITIES)
    if capabilities is None or not bytes(capabilities).startswith(b"{"):
        raise InvalidParams(f"params._meta must have {META_CAPABILITIES}, an object")


def check_method(method: str, era: Era) -> None:
    """Raises MethodNotFound for what this era does not know, or this version does not serve."""
    if method not in METHODS[era]:
        raise MethodNotFound(f"method not found: {method[:64]}")
