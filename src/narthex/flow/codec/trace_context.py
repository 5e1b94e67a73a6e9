"""Which trace a call belongs to: read of its `_meta` or its headers, and told to the server that it goes to.

In: `_meta` decoded one level, header fields. Out: a `Context`, or None where nothing that can be read was said: what is
malformed counts as not said. Cases: `tests/flow/codec/test_trace_context.py`.
Source: W3C Trace Context, "traceparent Header" and "tracestate Header"; MCP SEP-414 (`traceparent`, `tracestate`,
`baggage` in `_meta`, without a prefix); OpenTelemetry GenAI conventions, MCP: what `_meta` says is the parent, what the
headers say beside it a link.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap
from narthex.trace import PARENT as PARENT
from narthex.trace import STATE as STATE
from narthex.trace import Context as Context

SAMPLED: Final = 1
_FORM: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_LENGTH: Final = 55
_KNOWN_FLAGS: Final = 3
"""`sampled`, and that the trace's id is random (W3C, level 2)."""
_MEMBER: Final = rb"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_STATE_FORM: Final = re.compile(rb"[ \t]*(?:%b)?(?:[ \t]*,[ \t]*(?:%b)?){0,31}[ \t]*" % (_MEMBER, _MEMBER))
_LONGEST: Final = 512
"""Characters of a `tracestate` that have to be passed on (W3C, "tracestate Limits"); of `traceparent` there are 55."""
_decode_map: Final = msgspec.json.Decoder(RawMap).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


def read_context(parent: bytes, state: bytes = b"", *, by_header: bool = False) -> Context | None:
    """What the two fields say; None where the first cannot be read. A `state` that cannot be read is dropped alone."""
    if _FORM.match(parent) is None or (len(parent) > _LENGTH and (parent[:2] == b"00" or not _is_later(parent))):
        return None
    text = parent[:_LENGTH].decode()
    if state and (len(state) > _LONGEST or _STATE_FORM.fullmatch(state) is None):
        state = b""
    flags = int(text[53:55], 16) & _KNOWN_FLAGS
    return Context(text[3:35], text[36:52], flags, state.strip().decode() if state else "", by_header=by_header)


def _is_later(parent: bytes) -> bool:
    """Has a version that is to come written more behind what this one knows?"""
    return len(parent) <= _LONGEST and parent[_LENGTH:].startswith(b"-") and parent.decode("latin-1").isprintable()


def in_meta(meta: RawMap) -> Context | None:
    """What a request's `_meta` says."""
    parent = meta.get(PARENT)
    return read_context(_text(parent), _text(meta.get(STATE))) if parent is not None else None


def in_headers(headers: Mapping[bytes, bytes]) -> Context | None:
    """What the headers say."""
    parent = headers.get(b"traceparent")
    if parent is None:
        return None
    return read_context(parent.strip(), headers.get(b"tracestate", b""), by_header=True)


def trace_id_of(params: RawMap) -> str:
    """The trace that a request's `_meta` names; empty where it names none, or cannot be read."""
    try:
        context = in_meta(_decode_map(params["_meta"]))
    except (*BAD_JSON, KeyError):
        return ""
    return context.trace_id if context is not None else ""


def _text(raw: Raw | None) -> bytes:
    """A string of JSON; empty where it is none. Hardly one has an escape: a quotation mark in a `tracestate` has."""
    text = bytes(raw) if raw is not None else b""
    if len(text) < 2 or not text.startswith(b'"') or len(text) > 2 * _LONGEST + 2:
        return b""
    if b"\\" not in text:
        return text[1:-1]
    try:
        return _decode_text(text).encode()
    except (*BAD_JSON, UnicodeEncodeError):
        return b""
