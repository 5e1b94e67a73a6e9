"""One call in two dialects: what goes upstream for a client's request, and what its answer becomes for the client.

In: a `Call`, where it goes, and what was negotiated there. Out: bytes. Unknown keys pass; nothing is read that need
not be. Cases: `tests/flow/codec/test_bridge.py`, client era x upstream era.
Source: MCP 2026-07-28 (changes from 2025-11-25; `resultType`, cacheable results, error codes).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from narthex.errors import UpstreamUnavailable
from narthex.flow.codec.capabilities import IN_ERA, ClientCaps, bits_of, capabilities_of, carried
from narthex.flow.codec.failures import code_for
from narthex.flow.codec.handshake import CLIENT_INFO
from narthex.flow.codec.inputs import InputRequired, asks_for_input, input_members, url_required
from narthex.flow.codec.jsonrpc import BAD_JSON, Answered, Incoming, Raw, RawMap, decode_map, encode
from narthex.flow.codec.messages import ErrorObject
from narthex.flow.codec.revisions import (
    META_CAPABILITIES,
    META_CLIENT,
    META_LOG_LEVEL,
    META_PREFIX,
    META_TASK,
    META_VERSION,
    METHODS,
    MODERN,
)
from narthex.flow.codec.tasks import is_task
from narthex.flow.upstream.port import Dialect
from narthex.types import Call, Era

COMPLETE: Final = b'"resultType":"complete"'
UNCACHED: Final = b'"ttlMs":0,"cacheScope":"private"'
_QUOTED: Final = {version: Raw(encode(version)) for version in MODERN}
_NO_CAPABILITIES: Final = Raw(b"{}")
_COMPLETE: Final = Raw(b'"complete"')
_TRUE: Final = Raw(b"true")
_CLIENT_INFO: Final = Raw(encode(CLIENT_INFO))
_KEPT: Final = frozenset({"resources/read", "skills/get", "resources/directory/read"})
_URL_REQUIRED: Final = -32042
_KNOWN: Final = (
    METHODS["legacy"]
    | METHODS["modern"]
    | {
        f"notifications/{name}"
        for name in (
            *("progress", "message", "elicitation/complete", "cancelled", "initialized", "tasks", "tasks/status"),
            *("tools/list_changed", "prompts/list_changed", "resources/list_changed", "roots/list_changed"),
            *("resources/updated", "subscriptions/acknowledged"),
        )
    }
)
"""What the specification has a rule of its own for, or no place among the notifications of a call."""


def outgoing_body(call: Call, params: RawMap, id_: int, dialect: Dialect) -> bytes:
    """The request as the upstream gets it: our id, `params` (with the upstream's own name), `_meta` in its era.

    A progress token becomes our id, so that a shared pipe can tell whose progress it is. What the client can be asked
    goes with each request to a modern server; to a legacy one it was said when the conversation began.
    """
    meta, context = call.meta, call.context
    told = META_TASK not in meta
    if not told:
        meta = {k: v for k, v in meta.items() if k != META_TASK}
    traced = context is not None and not context.by_header
    passes = told and call.era == dialect.era and "progressToken" not in meta and not traced
    if passes and (call.era == "legacy" or _passes(call, dialect)):
        return b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":%b}' % (id_, call.method.encode(), encode(params))
    if dialect.era == "modern":
        meta = {**meta} if call.era == "modern" else {k: v for k, v in meta.items() if not k.startswith(META_PREFIX)}
        meta[META_VERSION] = _QUOTED[dialect.version]
        meta[META_CAPABILITIES] = client_capabilities(call)
        meta.setdefault(META_CLIENT, _CLIENT_INFO)
        if call.log_level and call.era == "legacy":
            meta[META_LOG_LEVEL] = Raw(encode(call.log_level))
    elif call.era == "modern":
        meta = {k: v for k, v in meta.items() if not k.startswith(META_PREFIX)}
    if context is not None and traced:
        meta = context.into(meta)
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
    declared = meta[META_CAPABILITIES]
    if call.version != dialect.version or META_CLIENT not in meta:
        return False
    return declared == _NO_CAPABILITIES or carried(declared) is declared


def client_capabilities(call: Call) -> Raw:
    """What a modern server may know of the client: its own words as far as we carry what they say, or of a legacy
    client's session what its bits say."""
    if call.era == "modern":
        return carried(call.meta[META_CAPABILITIES])
    session = call.session
    return _of_bits(session.capabilities) if session is not None and session.capabilities else _NO_CAPABILITIES


def client_bits(call: Call) -> int:
    """What it can be asked, as bits (`ClientCaps`). Tasks of the extension are nothing that it is asked."""
    if call.era == "modern":
        return bits_of(call.meta[META_CAPABILITIES]) & ~int(ClientCaps.TASKS_EXTENSION)
    return call.session.capabilities if call.session is not None else 0


@lru_cache(maxsize=256)
def _of_bits(bits: int) -> Raw:
    return Raw(encode(capabilities_of(bits & IN_ERA["modern"] & ~ClientCaps.TASKS_EXTENSION)))


def response_parts(call: Call, era: Era, message: Incoming) -> tuple[Sequence[bytes | Raw | memoryview], bool]:
    """The answer to `call` as the client gets it, in pieces to write (its id, and the result's bytes as they came),
    and whether it is a result that says `isError`.

    Args:
        era: The server's.
    Raises:
        UpstreamUnavailable: Neither a result nor an error, a result that is no object, or a malformed error.
        NeedsInput: The server asks for input first. GoesOn: It goes on in a task.
    """
    result = message.result
    if message.error or not result:
        return (b'{"jsonrpc":"2.0","id":', call.id_json, b',"error":', _error(call, era, message), b"}"), False
    if message.__class__ is Answered:
        members = message.members
    else:
        try:
            members = decode_map(result)
        except BAD_JSON:
            raise UpstreamUnavailable("the server's result is not an object", sent=True) from None
    tool_error = "isError" in members and members["isError"] == _TRUE
    if "resultType" in members and members["resultType"] != _COMPLETE and "modern" in (era, call.era):
        _read_type(call, era, members)
    if call.era == "modern" and era == "legacy" and (extra := missing_members(call.method, members)):
        comma = b"," if members else b""
        rest = memoryview(result)[1:]
        return (b'{"jsonrpc":"2.0","id":', call.id_json, b',"result":{', extra, comma, rest, b"}"), tool_error
    return (b'{"jsonrpc":"2.0","id":', call.id_json, b',"result":', result, b"}"), tool_error


def _error(call: Call, era: Era, message: Incoming) -> bytes:
    if not message.error:
        raise UpstreamUnavailable("the server answered neither result nor error", sent=True)
    if call.era == "modern" and error_code(message.error) == _URL_REQUIRED:
        required = url_required(call, message.error)
        raise NeedsInput(required, input_members(required.asked))
    return translate_error(call.era, era, message.error)


def missing_members(method: str, members: RawMap) -> bytes:
    """Members of a modern result that a legacy server did not give: `resultType`; of what may be kept `ttlMs`,
    `cacheScope`."""
    extra = b"" if "resultType" in members else COMPLETE
    if method in _KEPT and "ttlMs" not in members:
        extra = extra + b"," + UNCACHED if extra else UNCACHED
    return extra


class NeedsInput(Exception):
    """A server's answer is none yet: what it asks, and the members of the result that asks a modern client."""

    def __init__(self, required: InputRequired, members: RawMap) -> None:
        super().__init__()
        self.required = required
        self.members = members


class GoesOn(Exception):
    """A modern server answers with a task: the members of its result."""

    def __init__(self, members: RawMap) -> None:
        super().__init__()
        self.members = members


def _read_type(call: Call, era: Era, members: RawMap) -> None:
    """A result that does not plainly say that it is complete. A legacy server has no right to ask this way."""
    required = asks_for_input(call, members)
    if required is not None:
        if era == "legacy":
            raise UpstreamUnavailable("a legacy server asks as only a modern one may", sent=True)
        raise NeedsInput(required, members)
    if is_task(members["resultType"]):
        if era == "legacy":
            raise UpstreamUnavailable("a legacy server answers as only a modern one may", sent=True)
        raise GoesOn(members)


_decode_error: Final = msgspec.json.Decoder(ErrorObject).decode


def error_code(error: Raw) -> int:
    """The code of a JSON-RPC error object; -32603 where it has none."""
    try:
        return _decode_error(error).code
    except BAD_JSON:
        return -32603


def translate_error(era: Era, server: Era, error: Raw) -> bytes:
    """A server's error in the client's era (`failures`): a modern client never sees -32002.

    Raises:
        UpstreamUnavailable: It is no JSON-RPC error object.
    """
    try:
        decoded = _decode_error(error)
    except BAD_JSON:
        raise UpstreamUnavailable("the server answered a malformed error", sent=True) from None
    code = code_for(era, server, decoded.code)
    if code == decoded.code:
        return bytes(error)
    decoded.code = code
    return encode(decoded)


def progress_for(call: Call, message: Incoming, era: Era) -> bytes | None:
    """A notification that belongs to `call`, with the client's own progress token; None where the client gets none.

    One that we do not know, an extension's, passes as it is within an era (`era`: the server's). The other era's
    extensions are not offered, so nobody there waits for theirs.
    """
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
    if message.method == "notifications/elicitation/complete" and call.era == "legacy" and _params(message) is not None:
        return b'{"jsonrpc":"2.0","method":"notifications/elicitation/complete","params":%b}' % bytes(message.params)
    if call.era == era and message.method not in _KNOWN:
        method = encode(message.method)
        if not message.params:
            return b'{"jsonrpc":"2.0","method":%b}' % method
        if _params(message) is not None:
            return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (method, bytes(message.params))
    return None


def _params(message: Incoming) -> RawMap | None:
    """A notification's parameters; None where they are no object: such a one is dropped."""
    try:
        return decode_map(message.params)
    except BAD_JSON:
        return None
