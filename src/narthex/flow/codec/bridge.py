"""One call in two dialects: what goes upstream for a client's request, and what its answer becomes for the client.

In: a `Call`, where it goes, and what was negotiated there. Out: bytes. Unknown keys pass; nothing is read that need
not be. Cases: `tests/flow/codec/test_bridge.py`, client era x upstream era.
Source: MCP 2026-07-28 (changes from 2025-11-25; `resultType`, cacheable results, error codes).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from narthex.errors import MissingCapability, UpstreamUnavailable
from narthex.flow.codec.handshake import CLIENT_INFO
from narthex.flow.codec.jsonrpc import BAD_JSON, Incoming, Raw, RawMap, decode_map, encode
from narthex.flow.codec.revisions import (
    META_CAPABILITIES,
    META_CLIENT,
    META_LOG_LEVEL,
    META_PREFIX,
    META_VERSION,
    MODERN,
)
from narthex.flow.upstream.port import Dialect
from narthex.types import Call, Era

COMPLETE = b'"resultType":"complete"'
UNCACHED = b'"ttlMs":0,"cacheScope":"private"'
_QUOTED = {version: Raw(encode(version)) for version in MODERN}
_NO_CAPABILITIES = Raw(b"{}")
_COMPLETE = Raw(b'"complete"')
_TRUE = Raw(b"true")
_CLIENT_INFO = Raw(encode(CLIENT_INFO))
_decode_any = msgspec.json.Decoder().decode


def outgoing_body(call: Call, params: RawMap, id_: int, dialect: Dialect) -> bytes:
    """The request as the upstream gets it: our id, `params` (with the upstream's own name), `_meta` in its era.

    A progress token becomes our id, so that a shared pipe can tell whose progress it is; client capabilities are
    declared empty: what a server would ask of the client is not carried in this version.
    """
    meta = call.meta
    if call.era == dialect.era and "progressToken" not in meta and (call.era == "legacy" or _passes(call, dialect)):
        return b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":%b}' % (id_, call.method.encode(), encode(params))
    if dialect.era == "modern":
        meta = {**meta} if call.era == "modern" else {k: v for k, v in meta.items() if not k.startswith(META_PREFIX)}
        meta[META_VERSION] = _QUOTED[dialect.version]
        meta[META_CAPABILITIES] = _NO_CAPABILITIES
        meta.setdefault(META_CLIENT, _CLIENT_INFO)
    elif call.era == "modern":
        meta = {k: v for k, v in meta.items() if not k.startswith(META_PREFIX)}
    if meta:
        if "progressToken" in meta:
            meta = {**meta, "progressToken": Raw(b"%d" % id_)}
        params = {**params, "_meta": Raw(encode(meta))}
    elif "_meta" in params:
        params = {k: v for k, v in params.items() if k != "_meta"}
    return b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":%b}' % (id_, call.method.encode(), encode(params))


def _passes(call: Call, dialect: Dialect) -> bool:
    """Is a modern client's `_meta` already what goes upstream?"""
    meta = call.meta
    return call.version == dialect.version and META_CLIENT in meta and meta[META_CAPABILITIES] == _NO_CAPABILITIES


def response_parts(call: Call, era: Era, message: Incoming) -> tuple[Sequence[bytes | Raw | memoryview], bool]:
    """The answer to `call` as the client gets it, in pieces to write (its id, and the result's bytes as they came),
    and whether it is a result that says `isError`.

    Args:
        era: The server's.
    Raises:
        UpstreamUnavailable: Neither a result nor an error, a result that is no object, or a malformed error.
        MissingCapability: The server asks for input, which this version does not carry.
    """
    result = message.result
    if message.error or not result:
        return (b'{"jsonrpc":"2.0","id":', call.id_json, b',"error":', _error(call, message), b"}"), False
    try:
        members = decode_map(result)
    except BAD_JSON:
        raise UpstreamUnavailable("the server's result is not an object", sent=True) from None
    tool_error = "isError" in members and members["isError"] == _TRUE
    if "resultType" in members and members["resultType"] != _COMPLETE and "modern" in (era, call.era):
        refuse_input_required(members["resultType"])
    if call.era == "modern" and era == "legacy" and (extra := missing_members(call.method, members)):
        comma = b"," if members else b""
        rest = memoryview(result)[1:]
        return (b'{"jsonrpc":"2.0","id":', call.id_json, b',"result":{', extra, comma, rest, b"}"), tool_error
    return (b'{"jsonrpc":"2.0","id":', call.id_json, b',"result":', result, b"}"), tool_error


def _error(call: Call, message: Incoming) -> bytes:
    if not message.error:
        raise UpstreamUnavailable("the server answered neither result nor error", sent=True)
    return translate_error(call.era, message.error)


def missing_members(method: str, members: RawMap) -> bytes:
    """Members of a modern result that a legacy server did not give: `resultType`; for a read `ttlMs`, `cacheScope`."""
    extra = b"" if "resultType" in members else COMPLETE
    if method == "resources/read" and "ttlMs" not in members:
        extra = extra + b"," + UNCACHED if extra else UNCACHED
    return extra


def refuse_input_required(result_type: Raw) -> None:
    """Raise for a multi-round-trip result. A legacy server has no right to it, and a modern client would obey."""
    if _decode_any(result_type) == "input_required":
        raise MissingCapability("the server asks for input that this gateway does not carry yet")


class _Error(msgspec.Struct):
    code: int
    message: str = ""
    data: Raw | msgspec.UnsetType = msgspec.UNSET


_decode_error = msgspec.json.Decoder(_Error).decode


def error_code(error: Raw) -> int:
    """The code of a JSON-RPC error object; -32603 where it has none."""
    try:
        return _decode_error(error).code
    except BAD_JSON:
        return -32603


def translate_error(era: Era, error: Raw) -> bytes:
    """A server's error in the client's era: a modern client never sees -32002 or -32042.

    Raises:
        UpstreamUnavailable: It is no JSON-RPC error object.
        MissingCapability: -32042 (URL elicitation) to a modern client.
    """
    try:
        decoded = _decode_error(error)
    except BAD_JSON:
        raise UpstreamUnavailable("the server answered a malformed error", sent=True) from None
    if era == "modern":
        if decoded.code == -32002:
            decoded.code = -32602
            return encode(decoded)
        if decoded.code == -32042:
            raise MissingCapability("the server asks for input that this gateway does not carry yet")
    return bytes(error)


def progress_for(call: Call, message: Incoming) -> bytes | None:
    """A notification that belongs to `call`, with the client's own progress token; None where the client gets none."""
    if message.method == "notifications/progress":
        token = call.meta.get("progressToken")
        if token is None:
            return None
        params = _params(message)
        if params is None:
            return None
        params["progressToken"] = token
        return b'{"jsonrpc":"2.0","method":"notifications/progress","params":%b}' % encode(params)
    if message.method == "notifications/message" and (call.era == "legacy" or META_LOG_LEVEL in call.meta):
        if _params(message) is None:
            return None
        return b'{"jsonrpc":"2.0","method":"notifications/message","params":%b}' % bytes(message.params)
    return None


def _params(message: Incoming) -> RawMap | None:
    """A notification's parameters; None where they are no object: such a one is dropped."""
    try:
        return decode_map(message.params)
    except BAD_JSON:
        return None
