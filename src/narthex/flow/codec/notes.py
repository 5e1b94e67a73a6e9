"""A note of ours in the `_meta` of a result, beside what the server says there.

In: a JSON-RPC response, a key, a value. Out: its result with the note, None where it is none.
Cases: `tests/flow/codec/test_notes.py`. Source: MCP 2026-07-28, basic ("_meta").
"""

from __future__ import annotations

from typing import Any

from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, decode_map, encode


def noted(body: bytes, key: str, value: Any) -> bytes | None:
    """All other members keep their bytes."""
    try:
        message = decode_map(body)
        if "result" not in message:
            return None
        result = decode_map(message["result"])
        meta = decode_map(result["_meta"]) if "_meta" in result else {}
    except BAD_JSON:
        return None
    return encode({**result, "_meta": Raw(encode({**meta, key: value}))})
