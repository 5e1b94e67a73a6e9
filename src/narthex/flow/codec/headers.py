"""Do the routing headers of a request say what its body says? And what do ours say upstream?

In: headers as `accept` read them, one decoded request. Out: nothing, or the error to answer with.
Cases: `tests/flow/codec/test_headers.py`, one row a rule.
Source: MCP 2026-07-28, Streamable HTTP transport (required headers, value encoding, code -32020).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from narthex.errors import HeaderMismatch

NAMED_BY: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""Which parameter `Mcp-Name` repeats; of tasks by their extension ("Routing Headers")."""

OWS: Final = b" \t"
"""What may stand around a header's value without being part of it (RFC 9110 §5.5). llhttp leaves what is behind it."""
_PLAIN: Final = re.compile(rb"[!-~](?:[ -~]*[!-~])?")
_SENTINEL: Final = re.compile(rb"=\?base64\?.*\?=")
_MOST: Final = 8192
_MOST_KEPT: Final = 256


def check_routing_headers(
    headers: Mapping[bytes, bytes], repeated: frozenset[bytes], method: str, name: str | None
) -> None:
    """Refuse a modern request whose routing headers and body disagree.

    A proxy in front of us may have routed on these headers. If the body says something else, that proxy was deceived,
    so we stop before anything else runs.

    Args:
        headers: Lower-case name to value; of a repeated header the first.
        repeated: Names that came more than once; a routing header may not, even when equal.
        method: `method` of the body.
        name: What `Mcp-Name` must say, or None for a method that is not named.
    Raises:
        HeaderMismatch: A required header is missing, repeated, malformed, or differs from the body.
    """
    got = headers.get(b"mcp-method")
    if got is None or got.strip(OWS) != method.encode():
        raise HeaderMismatch("Mcp-Method", got, method)
    if name is not None:
        got = headers.get(b"mcp-name")
        if got is None or not _says(got.strip(OWS), name):
            raise HeaderMismatch("Mcp-Name", got, name)
    if repeated and repeated & {b"mcp-method", b"mcp-name", b"mcp-protocol-version"}:
        raise HeaderMismatch("Mcp-*", "repeated", "once")


def _says(value: bytes, name: str) -> bool:
    if _SENTINEL.fullmatch(value) or not name.isascii():
        return decode_value(value) == name
    return value == name.encode()


def is_plain(name: str) -> bool:
    """Is this name its own header value, and the only one that says it unencoded?"""
    return _PLAIN.fullmatch(name.encode()) is not None and not name.startswith("=?")


def with_missing(
    headers: Mapping[bytes, bytes], method: str, name: str | None
) -> tuple[dict[bytes, bytes], tuple[str, ...]]:
    """`headers` as they would be had the client sent the routing headers that are missing, and which those are."""
    wanted = {"Mcp-Method": method.encode()} | ({} if name is None else {"Mcp-Name": encode_value(name)})
    missing = {one: value for one, value in wanted.items() if one.lower().encode() not in headers}
    return {**headers, **{one.lower().encode(): value for one, value in missing.items()}}, tuple(missing)


def decode_value(value: bytes) -> str | None:
    """A header value as text: plain visible ASCII, or the `=?base64?…?=` form. None when it is neither."""
    if len(value) > _MOST:
        return None
    if _SENTINEL.fullmatch(value):
        try:
            return base64.b64decode(value[9:-2], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
    return value.decode() if _PLAIN.fullmatch(value) else None


def encode_value(text: str) -> bytes:
    """Text as a header value: plain where it is visible ASCII without edge spaces, else `=?base64?…?=`."""
    raw = text.encode()
    if _PLAIN.fullmatch(raw) and not _SENTINEL.fullmatch(raw):
        return raw
    return b"=?base64?" + base64.b64encode(raw) + b"?="


def routing_headers(method: str, name: str | None) -> bytes:
    """The routing headers of a request that we send, as lines with CRLF. Short ones are kept: a client invents URIs."""
    return _kept_lines(method, name) if name is None or len(name) <= _MOST_KEPT else _lines(method, name)


def _lines(method: str, name: str | None) -> bytes:
    lines = b"Mcp-Method: %b\r\n" % method.encode()
    return lines if name is None else lines + b"Mcp-Name: %b\r\n" % encode_value(name)


_kept_lines: Final = lru_cache(maxsize=4096)(_lines)
