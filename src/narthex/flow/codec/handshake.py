"""What we say to a server of our own accord: the handshake, requests that no client made, answers to what it asks.

In: results of `server/discover` and `initialize`, pushes of a server. Out: bodies to send, a `Dialect`, or the reason
why there is none. Cases: `tests/flow/codec/test_handshake.py`, one row a rule.
Source: MCP 2026-07-28, basic/versioning and server/discover; MCP 2025-11-25, basic/lifecycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from narthex import __version__
from narthex.errors import UnsupportedVersion, UpstreamUnavailable
from narthex.flow.codec.jsonrpc import BAD_JSON, UNSET, Id, Incoming, Raw, encode
from narthex.flow.codec.revisions import (
    LATEST_LEGACY,
    LEGACY,
    META_CAPABILITIES,
    META_CLIENT,
    META_SERVER,
    META_VERSION,
    MODERN,
)
from narthex.flow.upstream.port import Dialect

CLIENT_INFO = {"name": "narthex", "version": __version__}
INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
NONE: Mapping[str, Any] = {}
MODERN_ERRORS = frozenset({-32020, -32021, -32022})


class NoDiscovery(UpstreamUnavailable):
    """The answer to `server/discover` is a result, but none of that method: some servers answer whatever is asked."""


class _Discovered(msgspec.Struct):
    supported: list[str] = msgspec.field(name="supportedVersions")
    capabilities: dict[str, Any] = {}
    instructions: str | None = None
    meta: dict[str, Any] = msgspec.field(name="_meta", default_factory=dict)


class _Supported(msgspec.Struct):
    supported: list[str]


class _Refused(msgspec.Struct):
    code: int
    data: _Supported


class _Initialized(msgspec.Struct):
    version: str = msgspec.field(name="protocolVersion")
    capabilities: dict[str, Any] = {}
    server_info: dict[str, Any] = msgspec.field(name="serverInfo", default_factory=dict)
    instructions: str | None = None


_decode_discovered = msgspec.json.Decoder(_Discovered).decode
_decode_refused = msgspec.json.Decoder(_Refused).decode
_decode_initialized = msgspec.json.Decoder(_Initialized).decode


def _modern_meta(version: str, capabilities: Mapping[str, Any]) -> dict[str, Any]:
    return {META_VERSION: version, META_CAPABILITIES: capabilities, META_CLIENT: CLIENT_INFO}


def discover_body(id: int, capabilities: Mapping[str, Any] = NONE) -> bytes:
    """`server/discover`: the first request to a server whose era is not known, or is modern."""
    params = {"_meta": _modern_meta(MODERN[0], capabilities)}
    return encode({"jsonrpc": "2.0", "id": id, "method": "server/discover", "params": params})


def initialize_body(id: int, version: str = LATEST_LEGACY, capabilities: Mapping[str, Any] = NONE) -> bytes:
    """`initialize`: begins a legacy conversation. What is not declared in `capabilities` no server may ask of us."""
    params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": CLIENT_INFO}
    return encode({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": params})


def request_body(
    id: int, method: str, params: Mapping[str, Any], dialect: Dialect, capabilities: Mapping[str, Any] = NONE,
    meta: Mapping[str, Any] = NONE,
) -> bytes:  # fmt: skip
    """A request of ours, in the dialect of its server. `params` are anything msgspec encodes; `meta` is of `_meta`."""
    if dialect.era == "modern":
        params = {**params, "_meta": {**_modern_meta(dialect.version, capabilities), **meta}}
    elif meta:
        params = {**params, "_meta": meta}
    return encode({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def cancelled_body(id: int, reason: str) -> bytes:
    """`notifications/cancelled` for our request `id`, where closing a stream does not say it (stdio, legacy HTTP)."""
    params = {"requestId": id, "reason": reason}
    return encode({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})


def dialect_from_discover(result: Raw) -> Dialect:
    """What a modern server offers, at the highest version that both sides speak.

    Raises:
        UpstreamUnavailable: No version in common; nothing but the probe was sent. NoDiscovery: Another form.
    """
    try:
        found = _decode_discovered(result)
    except BAD_JSON as error:
        raise NoDiscovery("the server's discovery cannot be read", detail=str(error)) from None
    mutual = [version for version in MODERN if version in found.supported]
    if not mutual:
        raise _no_version(found.supported)
    info = found.meta.get(META_SERVER)
    return Dialect(
        era="modern",
        version=max(mutual),
        capabilities=found.capabilities,
        server_info=info if isinstance(info, dict) else {},
        instructions=found.instructions,
    )


def wants_handshake(answer: Incoming) -> bool:
    """Does this answer to discovery offer versions that need `initialize`, and no modern one of ours?

    A server that has sessions may know `server/discover` all the same, and name there what it speaks, or name it in the
    -32022 with which it refuses (versioning, "Protocol Version Negotiation"): it is modern by neither.
    """
    try:
        if answer.result:
            offered = _decode_discovered(answer.result).supported
        else:
            refused = _decode_refused(answer.error)
            offered = refused.data.supported if refused.code == UnsupportedVersion.code else []
    except BAD_JSON:
        return False
    return any(version in LEGACY for version in offered) and not any(version in MODERN for version in offered)


def dialect_from_initialize(result: Raw, session_id: str | None) -> Dialect:
    """What a legacy server answered to `initialize`. `session_id` is its `Mcp-Session-Id`, None where it has none.

    Raises:
        UpstreamUnavailable: It chose a version that we do not speak (2025-11-25, lifecycle: then disconnect), or a
            result of another form.
    """
    try:
        found = _decode_initialized(result)
    except BAD_JSON as error:
        raise UpstreamUnavailable("the server's answer to initialize cannot be read", detail=str(error)) from None
    if found.version not in LEGACY:
        raise _no_version([found.version])
    return Dialect(
        era="legacy",
        version=found.version,
        capabilities=found.capabilities,
        server_info=found.server_info,
        instructions=found.instructions,
        session_id=session_id,
    )


def _no_version(offered: list[str]) -> UpstreamUnavailable:
    shown = ", ".join(repr(version[:32]) for version in offered[:16]) or "none"
    return UpstreamUnavailable("the server speaks no protocol version of ours", detail=f"it offers {shown}")


def is_modern_error(code: int) -> bool:
    """Does this code prove a modern server? The three that 2026-07-28 defines; any other error may be a legacy one."""
    return code in MODERN_ERRORS


def answer_push(message: Incoming) -> bytes | None:
    """Our reply to what a server sends unasked: None for a notification or a response, which get none.

    `ping` gets its empty result. Everything else needs a capability that we did not declare.
    """
    if not message.method or message.id is UNSET or message.id is None:
        return None
    if message.method == "ping":
        return encode({"jsonrpc": "2.0", "id": message.id, "result": {}})
    return refuse_undeclared(message.id, message.method)


def refuse_undeclared(id: Id, method: str, *, partly: bool = False) -> bytes:
    """Our refusal of a request that needs a capability which was not declared.

    It does not exist for its server: -32601 (2025-11-25, roots, "Error Handling"). For elicitation, whose modes are
    declared one by one, the specification says -32602 (elicitation, "Error Handling"), and so do we where only a part
    of what is asked was not declared (`partly`): sampling is there, but not with tools.
    """
    code = -32602 if partly or method == "elicitation/create" else -32601
    error = {"code": code, "message": f"{method[:64]} needs a capability that the client did not declare"}
    return encode({"jsonrpc": "2.0", "id": id, "error": error})


def refuse_push(id: Id, message: str) -> bytes:
    """Our refusal of a request that was allowed, but cannot be carried now."""
    return encode({"jsonrpc": "2.0", "id": id, "error": {"code": -32600, "message": message}})
