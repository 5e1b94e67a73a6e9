"""Which log messages of a server a client wants to hear.

In: what a client asks for, in either era, and what a server sends. Out: whether it is to be passed on.
Cases: `tests/flow/codec/test_log_levels.py`.
Source: MCP 2025-11-25, server/utilities/logging (levels of RFC 5424); MCP 2026-07-28, `logLevel` in `_meta`.
"""

from __future__ import annotations

import msgspec

from narthex.errors import InvalidParams
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap, read_string
from narthex.flow.codec.revisions import META_LOG_LEVEL

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""From the most to the least verbose."""
RANK = {level: rank for rank, level in enumerate(LEVELS)}


class _Message(msgspec.Struct):
    level: str = ""


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_string = msgspec.json.Decoder(str).decode


def read_level(params: RawMap) -> str:
    """The level of a legacy `logging/setLevel`. Raises InvalidParams for what is none (2025-11-25, logging)."""
    level = read_string(params, "level")
    if level not in RANK:
        raise InvalidParams(f"params.level must be one of {', '.join(LEVELS)}")
    return level


def asked_level(meta: RawMap) -> str:
    """The level that a modern request asks for; empty for none, or for one that nobody knows."""
    if META_LOG_LEVEL not in meta:
        return ""
    try:
        level = _decode_string(meta[META_LOG_LEVEL])
    except BAD_JSON:
        return ""
    return level if level in RANK else ""


def passes(params: Raw, least: str) -> bool:
    """Is a `notifications/message` with these parameters severe enough for `least`? What cannot be ranked passes: the
    receiver knows its own levels best."""
    try:
        level = _decode_message(params).level
    except BAD_JSON:
        return True
    return level not in RANK or least not in RANK or RANK[level] >= RANK[least]


def most_verbose(one: str, other: str) -> str:
    """Of two levels, either of which may be empty, the one that hears more."""
    if not one or not other:
        return one or other
    return min(one, other, key=RANK.__getitem__)
