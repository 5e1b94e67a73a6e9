"""One call in two dialects: what goes upstream for a client's request, and what its answer becomes for the client.

In: a `Call`, where it goes, and what was negotiated there. Out: bytes. Unknown keys pass; nothing is read that need
not be. Cases: `tests/flow/codec/test_bridge.py`, client era x upstream era.
Source: MCP 2026-07-28 (changes from 2025-11-25; `resultType`, cacheable results, error codes).
"""

from __future__ import annotations

import msgspec

from narthex.errors import MissingCapability, UpstreamUnavailable
from narthex.flow.codec.handshake import CLIENT_INFO
from narthex.flow.codec.jsonrpc import BAD_JSON, Id, Incoming, Raw, RawMap, decode_map, encode
from narthex.flow.codec.revisions import (
    META_CAPABILITIES,
    META_CLIENT,
    META_LOG_LEVEL,
    META_PREFIX,
    META_VERSION,
    MODERN,
)
from narthex.types import Call, Era

COMPLETE = b'"resultType":"complete"'
UNCACHED = b'"ttlMs":0,"cacheScope":"private"'
_QUOTED = {version: Raw(encode(version)) for version in MODERN}
_NO_CAPABILITIES = Raw(b"{}")
_COMPLETE = Raw(b'"complete"')
_CLIENT_INFO = Raw(encode(CLIENT_INFO))
_decode_any = msgspec.json.Decoder().decode


def outgoing_body(call: Call, params: RawMap, id_: int, era: Era, version: str) -> bytes:
    """The request as the upstream gets it: our id, `params` (with the upstream's own name), `_meta` in its era.

    A progress token becomes our id, so that a shared pipe can tell whose progress it is; client capabilities are
    declared empty: what a server would ask of the client is not carried in this version.
    """
    meta = call.meta
    if era == "modern" and call.era == "modern" and call.version == version and _passes(meta):
        return b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":%b}' % (id_, call.method.encode(), encode(params))
    if era == "modern":
        meta = {**meta} if call.era == "modern" else {k: v for k, v in meta.items() if not k.startswith(META_PREFIX)}
        meta[META_VERSION] = _QUOTED[version]
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


def _passes(meta: RawMap) -> bool:
    """Is a modern client's `_meta` already what goes upstream?"""
    return META_CLIENT in meta and "progressToken" not in meta and meta[META_CAPABILITIES] == _NO_CAPABILITIES


def read_result(message: Incoming) -> RawMap:
    """The members of a result, one level deep; empty for an error. One look serves every question about it.

    Raises:
        UpstreamUnavailable: Neither a result nor an error, or a result that is no object.
    """
    if message.error:
        return {}
    if not message.result:
        raise UpstreamUnavailable("the server answered neither result nor error", sent=True)
    try:
        return decode_map(message.result)
    except BAD_JSON:
        raise UpstreamUnavailable("the server's result is not an object", sent=True) from None


def response_parts(call: Call, era: Era, message: Incoming, members: RawMap) -> list[bytes | Raw | memoryview]:
    """The answer to `call` as the client gets it, in pieces to write: its id, and the result's bytes as they came.

    Args:
        era: The server's.
        members: What `read_result` read.
    Raises:
        UpstreamUnavailable: A malformed error.
        MissingCapability: The server asks for input, which this version does not carry.
    """
    if message.error:
        return [b'{"jsonrpc":"2.0","id":', call.id_json, b',"error":', translate_error(call.era, message.error), b"}"]
    result = message.result
    if "resultType" in members and "modern" in (era, call.era):
        refuse_input_required(members["resultType"])
    if call.era == "modern":
        extra = missing_members(call.method, era, members)
        if extra:
            rest = memoryview(result)[1:]
            return [
                b'{"jsonrpc":"2.0","id":',
                call.id_json,
                b',"result":{',
                extra,
                b"," if members else b"",
                rest,
                b"}",
            ]
    return [b'{"jsonrpc":"2.0","id":', call.id_json, b',"result":', result, b"}"]


def missing_members(method: str, era: Era, members: RawMap) -> bytes:
    """Members of a modern result that a legacy server did not give: `resultType`; for a read `ttlMs`, `cacheScope`."""
    if era == "modern":
        return b""
    extra = b"" if "resultType" in members else COMPLETE
    if method == "resources/read" and "ttlMs" not in members:
        extra = extra + b"," + UNCACHED if extra else UNCACHED
    return extra


def refuse_input_required(result_type: Raw) -> None:
    """Raise for a multi-round-trip result. A legacy server has no right to it, and a modern client would obey."""
    if result_type != _COMPLETE and _decode_any(result_type) == "input_required":
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


def id_json(id_: Id) -> bytes:
    """A request id as JSON."""
    return b"%d" % id_ if id_.__class__ is int else encode(id_)
