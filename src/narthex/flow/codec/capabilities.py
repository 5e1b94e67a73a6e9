"""What a client can do, as a set of bits: small enough for a sealed handle, and a key of upstream conversations.

In: a client's capabilities as JSON. Out: bits, and capabilities to declare upstream. Whatever is not in the table
(experimental ones, extensions unknown to us, settings) has no bit, so it is never promised in the client's name.
Cases: `tests/flow/codec/test_capabilities.py`. Source: MCP 2026-07-28 and 2025-11-25, schema (`ClientCapabilities`);
2025-11-25, elicitation (an empty object means form mode); the extensions `tasks` and `ui` (SEP-2663, SEP-1865).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from functools import lru_cache
from typing import Any

import msgspec

from narthex.errors import InvalidParams
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap, encode
from narthex.types import Era

_MOST = 64 * 1024
_MOST_KEPT = 1024
APPS_EXTENSION = "io.modelcontextprotocol/ui"
SKILLS_EXTENSION = "io.modelcontextprotocol/skills"
TASKS_EXTENSION = "io.modelcontextprotocol/tasks"
EXTENSIONS = frozenset({APPS_EXTENSION, SKILLS_EXTENSION, TASKS_EXTENSION})
"""Those that are carried whole. Another's own methods would lead nowhere: so it is declared in neither direction."""
_NONE = Raw(b"{}")
_CARRIED = frozenset({"elicitation", "sampling", "roots", "extensions"})
_APP = "text/html;profile=mcp-app"
_decode_map = msgspec.json.Decoder(RawMap).decode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class ClientCaps(IntFlag):
    """A bit stands in handles that clients keep: one that is given up is not given to another capability."""

    ELICITATION_FORM = 1
    ELICITATION_URL = 2
    SAMPLING = 4
    SAMPLING_TOOLS = 8
    SAMPLING_CONTEXT = 16
    ROOTS = 32
    ROOTS_CHANGED = 64
    TASKS = 128
    TASKS_LIST = 256
    TASKS_CANCEL = 512
    TASKS_SAMPLING = 1024
    TASKS_ELICITATION = 2048
    TASKS_EXTENSION = 4096
    APPS = 8192


_ONLY_LEGACY = (
    ClientCaps.ROOTS_CHANGED
    | ClientCaps.TASKS
    | ClientCaps.TASKS_LIST
    | ClientCaps.TASKS_CANCEL
    | ClientCaps.TASKS_SAMPLING
    | ClientCaps.TASKS_ELICITATION
)
IN_ERA: Mapping[Era, int] = {"legacy": int(~ClientCaps.TASKS_EXTENSION), "modern": int(~_ONLY_LEGACY)}
"""What an era knows: `bits & IN_ERA[era]` may be declared there."""

_TABLE: tuple[tuple[ClientCaps, tuple[str, ...], Any], ...] = (
    (ClientCaps.ELICITATION_FORM, ("elicitation", "form"), {}),
    (ClientCaps.ELICITATION_URL, ("elicitation", "url"), {}),
    (ClientCaps.SAMPLING, ("sampling",), {}),
    (ClientCaps.SAMPLING_TOOLS, ("sampling", "tools"), {}),
    (ClientCaps.SAMPLING_CONTEXT, ("sampling", "context"), {}),
    (ClientCaps.ROOTS, ("roots",), {}),
    (ClientCaps.ROOTS_CHANGED, ("roots", "listChanged"), True),
    (ClientCaps.TASKS, ("tasks",), {}),
    (ClientCaps.TASKS_LIST, ("tasks", "list"), {}),
    (ClientCaps.TASKS_CANCEL, ("tasks", "cancel"), {}),
    (ClientCaps.TASKS_SAMPLING, ("tasks", "requests", "sampling", "createMessage"), {}),
    (ClientCaps.TASKS_ELICITATION, ("tasks", "requests", "elicitation", "create"), {}),
    (ClientCaps.TASKS_EXTENSION, ("extensions", TASKS_EXTENSION), {}),
    (ClientCaps.APPS, ("extensions", APPS_EXTENSION, "mimeTypes"), [_APP]),
)
"""Bit, where it stands in a client's capabilities, and what stands there."""


def bits_of(raw: bytes | Raw) -> int:
    """The bits of a client's capabilities.

    Raises:
        InvalidParams: No object, or a huge one.
    """
    if len(raw) <= _MOST_KEPT:
        return _kept_bits(bytes(raw))
    if len(raw) > _MOST:
        raise InvalidParams("the client's capabilities are too large")
    return _bits(bytes(raw))


def _bits(raw: bytes) -> int:
    try:
        declared = _decode(raw)
    except BAD_JSON:
        raise InvalidParams("the client's capabilities must be an object") from None
    bits = 0
    for bit, path, leaf in _TABLE:
        if _holds(_at(declared, path), leaf):
            bits |= int(bit)
    elicitation = declared.get("elicitation")
    if isinstance(elicitation, dict) and not {"form", "url"} & elicitation.keys():
        bits |= int(ClientCaps.ELICITATION_FORM)
    return bits


_kept_bits = lru_cache(maxsize=1024)(_bits)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    """What stands at `path`; None where there is no such place."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _holds(value: Any, leaf: Any) -> bool:
    """Is this how a capability is declared: an object where the table has one, a list with its items, or its value?"""
    if isinstance(leaf, list):
        return isinstance(value, list) and all(one in value for one in leaf)
    return isinstance(value, dict) if isinstance(leaf, dict) else value is leaf


def capabilities_of(bits: int) -> dict[str, Any]:
    """Capabilities that say just these bits. A new object each time."""
    capabilities: dict[str, Any] = {}
    for bit, path, leaf in _TABLE:
        if bits & bit:
            inner = capabilities
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner.setdefault(path[-1], leaf.copy() if isinstance(leaf, (dict, list)) else leaf)
    return capabilities


def carried(raw: Raw) -> Raw:
    """A modern client's capabilities as its servers are told them: those of its revision, with the extensions that we
    carry, each as it came. The same object where that is all of them.

    Raises:
        InvalidParams: No object, or a huge one.
    """
    if raw == _NONE:
        return raw
    size = len(raw)
    if size > _MOST:
        raise InvalidParams("the client's capabilities are too large")
    less = (_kept_less if size <= _MOST_KEPT else _less)(bytes(raw))
    return raw if less is None else less


def _less(raw: bytes) -> Raw | None:
    """What is left of capabilities, None where nothing has to go."""
    try:
        members = _decode_map(raw)
        extensions = _decode_map(members.get("extensions", b"{}"))
    except BAD_JSON:
        raise InvalidParams("the client's capabilities must be an object, and so must its extensions") from None
    if members.keys() <= _CARRIED and extensions.keys() <= EXTENSIONS:
        return None
    kept: dict[str, Any] = {name: value for name, value in members.items() if name in _CARRIED}
    if "extensions" in kept:
        kept["extensions"] = {name: value for name, value in extensions.items() if name in EXTENSIONS}
    return Raw(encode(kept))


_kept_less = lru_cache(maxsize=1024)(_less)
