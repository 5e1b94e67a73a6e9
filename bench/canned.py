"""What the canned server says: the same answers over HTTP (`upstream.py`) and over a pipe (`stdio_server.py`).

In: one JSON-RPC message of either era as bytes. Out: an `Answer`. Made to be cheap and exact, not to be an example of
an MCP server: it checks only what tells the eras apart. Proof: `tests/bench/test_tools.py`.
Tools: `echo` (answers with the text it was given), `sse` (the same, as one event), `progress` (three progress events
and the answer), `big` (32 KiB of text), `slow` (waits `ms`, default 1000). Every other listed name is an echo too.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
BIG = "0123456789abcdef" * 2048  # 32 KiB
SPECIAL = ("echo", "sse", "progress", "big", "slow")
INFO = {"name": "canned", "version": "1"}


class Arguments(msgspec.Struct):
    text: str = ""
    ms: int = 1000


class Meta(msgspec.Struct, rename={"version": "io.modelcontextprotocol/protocolVersion", "token": "progressToken"}):
    version: str = ""
    token: int | str = 0


class Params(msgspec.Struct):
    name: str = ""
    arguments: Arguments = msgspec.field(default_factory=Arguments)
    _meta: Meta = msgspec.field(default_factory=Meta)
    protocolVersion: str = ""


class Message(msgspec.Struct):
    method: str
    id: int | str | None = None
    params: Params = msgspec.field(default_factory=Params)


class Answer(msgspec.Struct):
    """`messages` in order, the response last; none for a notification. `delay_ms` before the first."""

    messages: list[bytes]
    stream: bool = False
    status: int = 200
    delay_ms: int = 0
    opens_session: bool = False


decode = msgspec.json.Decoder(Message).decode
encode = msgspec.json.encode
_BIG_TAIL = b',"text":' + encode(BIG) + b'}],"isError":false}}'


def tool_names(count: int) -> list[str]:
    """The `count` names that are listed; the special ones come first."""
    return [SPECIAL[i] if i < len(SPECIAL) else f"tool_{i:05d}" for i in range(count)]


@lru_cache(maxsize=64)
def tool_list(count: int, modern: bool) -> bytes:
    """The encoded result of `tools/list`: one page, about 300 bytes a tool."""
    schema = {
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "What to say."},
            "ms": {"type": "integer", "minimum": 0},
        },
        "required": ["text"],
    }
    tools = [
        {
            "name": name,
            "title": f"Canned {name}",
            "description": f"Answers with the text it is given ({name}).",
            "inputSchema": schema,
        }
        for name in tool_names(count)
    ]
    result: dict[str, Any] = {"tools": tools}
    if modern:
        result |= {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"}
    return encode(result)


def _result(id_: int | str, result: Any) -> list[bytes]:
    return [encode({"jsonrpc": "2.0", "id": id_, "result": result})]


def _refusal(id_: int | str | None, code: int, text: str, **data: Any) -> bytes:
    error = {"code": code, "message": text, **({"data": data} if data else {})}
    return encode({"jsonrpc": "2.0", "id": id_, "error": error})


def _call(message: Message, modern: bool) -> Answer:
    id_, params = message.id, message.params
    name = params.name
    head = b'{"jsonrpc":"2.0","id":%b,"result":{%b"content":[{"type":"text"' % (
        encode(id_),
        b'"resultType":"complete",' if modern else b"",
    )
    if name == "big":
        return Answer([head + _BIG_TAIL])
    response = b'%b,"text":%b}],"isError":false}}' % (head, encode(params.arguments.text))
    if name == "progress":
        token = encode(params._meta.token)
        events = [
            b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%b,"progress":%d,"total":3}}'
            % (token, step)
            for step in (1, 2, 3)
        ]
        return Answer([*events, response], stream=True)
    return Answer([response], stream=name == "sse", delay_ms=params.arguments.ms if name == "slow" else 0)


def answer(body: bytes, era: str, tools: int) -> Answer:
    """What a server of `era` (`modern`, `legacy`, `dual`) with `tools` tools says to `body`.

    Raises:
        msgspec.DecodeError: Not a JSON-RPC message that this server could read.
    """
    message = decode(body)
    id_, method = message.id, message.method
    if id_ is None:
        return Answer([], status=202)
    modern = message.params._meta.version == MODERN
    if modern and era == "legacy":
        return Answer([_refusal(id_, -32000, "Bad Request: Server not initialized")], status=400)
    if not modern and era == "modern":
        return Answer(
            [_refusal(id_, -32022, "Unsupported protocol version", supported=[MODERN], requested=LEGACY)], status=400
        )
    if method == "tools/call":
        return _call(message, modern)
    if method == "tools/list":
        return Answer([b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (encode(id_), tool_list(tools, modern))])
    if method == "server/discover" and modern:
        result = {
            "supportedVersions": [MODERN],
            "capabilities": {"tools": {}},
            "_meta": {"io.modelcontextprotocol/serverInfo": INFO},
        }
        return Answer(_result(id_, result | {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"}))
    if method == "initialize" and not modern:
        version = min(message.params.protocolVersion or LEGACY, LEGACY)
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": INFO}
        return Answer(_result(id_, result), opens_session=True)
    if method == "ping" and not modern:
        return Answer(_result(id_, {}))
    return Answer([_refusal(id_, -32601, "Method not found")], status=404 if modern else 200)
