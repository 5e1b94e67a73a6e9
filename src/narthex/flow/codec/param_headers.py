"""Arguments that a tool wants repeated in headers: which ones, what they say upstream, and whether a client's agree.

In: a tool's input schema, the raw arguments of a call, headers. Out: a plan, header lines, or the error to answer with.
A tool without `x-mcp-header` has the empty plan, and costs one look for these bytes when it is listed.

`Mcp-Param-*` headers that no plan has ("servers that do not recognize an `Mcp-Param-{Name}` header MUST forward it and
otherwise ignore it") go on to the server as they came, of every request of a modern client to a modern server over
HTTP; others have no such headers. Nothing is forwarded in part: where such a header came twice, says what a header may
not say, or there are too many, the request is refused. What a plan has is never forwarded, but made anew from the
arguments that are sent.
Cases: `tests/flow/codec/test_param_headers.py`, one row a rule. Source: MCP 2026-07-28, Streamable HTTP transport
("Custom Headers from Tool Parameters", "Server Validation"), server/tools ("x-mcp-header"); RFC 9110 §5.6.2 (token).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from narthex.errors import CodecError, HeaderMismatch, InvalidParams, ParseError
from narthex.flow.codec.crowds import refuse_crowd
from narthex.flow.codec.headers import OWS, decode_value, encode_value
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap, compact_length, decode_map, refuse_duplicate_keys

KEY = "x-mcp-header"
PREFIX = b"mcp-param-"
MOST_SCHEMA = 64 * 1024
"""Bytes of a schema that has the annotation: it is looked through on the loop, when its tool is listed."""
MOST_POSITIONS = 4096
"""Schemas within it."""
MOST_PARAMS = 32
MOST_DEPTH = 8
"""Steps of a property's path. Each is a look through the arguments, which may be as large as a body."""
MOST_NAME = 128
MOST_LINES = 16 * 1024
"""Bytes of all lines of a call: what servers take of a head, with room for the rest of it."""
SAFE = 2**53 - 1

_KEY_BYTES = KEY.encode()
_ESCAPED_KEY = re.compile(b"".join(rb"(?:%b|\\u00(?i:%02x))" % (re.escape(b"%c" % c), c) for c in _KEY_BYTES))
_CLEAN = re.compile(rb"[\t -~]*")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_INTEGER = re.compile(r"(-?[0-9]{1,16})(?:\.0+)?")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LONGEST_NUMBER = 40
_LONGEST_STRING = 6 * MOST_LINES
"""Bytes as JSON, with each character an escape: what is longer would be too long for a header, whatever it says."""
_TYPES = ("string", "integer", "boolean")
_decode = msgspec.json.Decoder().decode
_decode_string = msgspec.json.Decoder(str).decode

# Where a schema has further schemas (JSON Schema 2020-12, and what drafts 7 and 2019-09 had beside). Everything else is
# data: a `default` or an `enum` that has the key annotates nothing.
_ONE = frozenset(
    {
        *("additionalProperties", "propertyNames", "unevaluatedProperties", "items", "contains", "unevaluatedItems"),
        *("not", "if", "then", "else", "contentSchema", "additionalItems"),
    }
)
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_MAPS = frozenset({"patternProperties", "dependentSchemas", "$defs", "definitions", "dependencies"})


class BadAnnotation(CodecError):
    """A tool's annotation breaks a rule: over HTTP the tool is left out of lists. `detail` is for the log."""

    reason = "bad_annotation"

    def __init__(self, detail: str) -> None:
        super().__init__("the tool's x-mcp-header annotation is not valid", detail=detail)


class Param(msgspec.Struct, frozen=True):
    """One header: its name as sent (`Mcp-Param-Region`), its name as looked up, and where its value stands."""

    header: str
    key: bytes
    path: tuple[str, ...]


Plan = tuple[Param, ...]


class Said(msgspec.Struct, frozen=True):
    """Headers of a client's request, by lower-case name; of a repeated one the first value."""

    headers: Mapping[bytes, bytes]
    repeated: frozenset[bytes]
    params: tuple[bytes, ...]
    """The names among them that begin with `Mcp-Param-`."""


def is_annotated(raw: bytes) -> bool:
    """May this tool or schema have the annotation? By its bytes; a key written with escapes is one too."""
    return _KEY_BYTES in raw or (b"\\u00" in raw and _ESCAPED_KEY.search(raw) is not None)


def read_plan(schema: bytes | Raw) -> Plan:
    """Which arguments of a tool go into headers, from its `inputSchema`.

    Raises:
        BadAnnotation: An annotation that the specification forbids, or one beyond our bounds.
    """
    raw = bytes(schema)
    if not is_annotated(raw):
        return ()
    if len(raw) > MOST_SCHEMA:
        raise BadAnnotation(f"a schema of {len(raw)} bytes is not looked through")
    try:
        root = _decode(raw)
    except BAD_JSON as error:
        raise BadAnnotation(f"the schema is not JSON: {error}") from None
    found: dict[bytes, Param] = {}
    for count, (path, node) in enumerate(_positions(root)):
        if count == MOST_POSITIONS:
            raise BadAnnotation(f"a schema of more than {MOST_POSITIONS} schemas is not looked through")
        if KEY in node:
            param = _read_annotation(path, node)
            if param.key in found:
                raise BadAnnotation(f"{param.header} stands twice")
            found[param.key] = param
    if len(found) > MOST_PARAMS:
        raise BadAnnotation(f"{len(found)} headers, at most {MOST_PARAMS} are sent")
    return tuple(found.values())


def _positions(root: Any) -> Iterator[tuple[tuple[str, ...] | None, dict[str, Any]]]:
    """Every schema in a schema, the outer ones first, with the property it describes.

    None for one that is not reached by `properties` alone, or too deep. `$ref` is not followed.
    """
    waiting: deque[tuple[tuple[str, ...] | None, Any]] = deque([((), root)])
    while waiting:
        path, node = waiting.popleft()
        if not isinstance(node, dict):
            continue
        yield path, node
        for keyword, value in node.items():
            if isinstance(value, list) and keyword in _LISTS:
                waiting.extend((None, one) for one in value)
            elif not isinstance(value, dict):
                continue
            elif keyword == "properties":
                inner = path if path is not None and len(path) < MOST_DEPTH else None
                waiting.extend((None if inner is None else (*inner, name), one) for name, one in value.items())
            elif keyword in _MAPS:
                waiting.extend((None, one) for one in value.values())
            elif keyword in _ONE:
                waiting.append((None, value))


def _read_annotation(path: tuple[str, ...] | None, node: dict[str, Any]) -> Param:
    if not path:
        raise BadAnnotation("it does not stand on a property, or on one that `properties` alone do not lead to")
    name = node[KEY]
    if not isinstance(name, str) or len(name) > MOST_NAME or not _TOKEN.fullmatch(name):
        raise BadAnnotation(f"{str(name)[:64]!r} is not the name of a header")
    if node.get("type") not in _TYPES:
        raise BadAnnotation(f"{name} is for a type that is not one of {', '.join(_TYPES)}")
    header = f"Mcp-Param-{name}"
    return Param(header, header.lower().encode(), path)


def param_lines(plan: Plan, arguments: Raw | None) -> bytes:
    """The headers of a call that we send, as lines with CRLF.

    Args:
        arguments: `params.arguments` as it is sent, None where there are none.
    Raises:
        InvalidParams: An argument that no header can say: a number beyond the safe integers, text of kilobytes.
        ParseError: A key stands twice on the way to an argument: the server might read the other value.
    """
    if not plan:
        return b""
    values = ((param, text) for param, text, _ in _texts(plan, arguments) if text is not None)
    lines = b"".join(b"%b: %b\r\n" % (param.header.encode(), encode_value(text)) for param, text in values)
    if len(lines) > MOST_LINES:
        raise InvalidParams("the arguments are too long for the headers that repeat them")
    return lines


def check_param_headers(
    plan: Plan, headers: Mapping[bytes, bytes], repeated: frozenset[bytes], arguments: Raw | None
) -> None:
    """Refuse a modern call whose `Mcp-Param-*` headers and arguments disagree. Headers not in the plan are let pass.

    Args:
        headers: Lower-case name to value; of a repeated header the first.
        repeated: Names that came more than once; none of the plan may, even when equal.
        arguments: `params.arguments` as received, None where there are none.
    Raises:
        HeaderMismatch: A header is missing, repeated, malformed, says something else, or there is nothing to say.
        InvalidParams, ParseError: as `param_lines`.
    """
    if not plan:
        return
    for param, text, is_number in _texts(plan, arguments):
        got = headers.get(param.key)
        got = None if got is None else got.strip(OWS)
        if text is None:
            if got is not None:
                raise HeaderMismatch(param.header, "a value", "nothing")
        elif got is None:
            raise HeaderMismatch(param.header, "nothing", "a value")
        elif param.key in repeated or not _agrees(got, text, is_number):
            raise HeaderMismatch(param.header, "another value", "a value")  # neither is for a log: they are content


def forwarded_lines(plan: Plan, said: Said) -> bytes:
    """The `Mcp-Param-*` headers of a request that its tool's plan does not have, as lines with CRLF.

    Raises:
        HeaderMismatch: One came twice, or its value is not visible ASCII.
        InvalidParams: There are more than are forwarded.
    """
    planned = {param.key for param in plan}
    lines = b""
    for count, name in enumerate(name for name in said.params if name not in planned):
        value = said.headers[name].strip(OWS)
        if name in said.repeated or not _CLEAN.fullmatch(value) or not _TOKEN.fullmatch(name.decode("latin-1")):
            raise HeaderMismatch(name.decode("latin-1")[:MOST_NAME], "what is not forwarded", "one plain value")
        lines += b"%b: %b\r\n" % (name, value)
        if count == MOST_PARAMS or len(lines) > MOST_LINES:
            raise InvalidParams("too many Mcp-Param headers, or too long ones, to be forwarded")
    return lines


def _agrees(got: bytes, text: str, is_number: bool) -> bool:
    if got == encode_value(text):
        return True
    said = decode_value(got) if got else ""
    if said is None:
        return False
    return said == text or (is_number and _number(said) == text)


def _texts(plan: Plan, arguments: Raw | None) -> Iterator[tuple[Param, str | None, bool]]:
    """Each header with what it must say, None for nothing, and whether that is a number."""
    objects: dict[tuple[str, ...], RawMap] = {(): _members(arguments)}
    for param in plan:
        for depth in range(1, len(param.path)):
            inner = param.path[:depth]
            if inner not in objects:
                objects[inner] = _members(objects[inner[:-1]].get(inner[-1]))
        raw = objects[param.path[:-1]].get(param.path[-1])
        first = b"" if raw is None else bytes(memoryview(raw)[:1])
        if raw is None or first in (b"n", b"{", b"["):  # null, and what no header has a form for: the server refuses it
            yield param, None, False
        elif first == b'"':
            yield param, _string(param, raw), False
        elif first in (b"t", b"f"):
            yield param, bytes(raw).decode(), False
        else:
            text = _number(bytes(memoryview(raw)[: _LONGEST_NUMBER + 1]).decode())
            if text is None:
                raise InvalidParams(f"the argument for {param.header} is beyond the integers that a header may say")
            yield param, text, True


def _members(raw: Raw | None) -> RawMap:
    """An object's members; none where there is no object. Raises ParseError for too many."""
    if raw is None:
        return {}
    refuse_crowd(raw)
    try:
        members = decode_map(raw)
    except msgspec.ValidationError:
        return {}
    except BAD_JSON as error:
        raise ParseError("the body is not JSON", detail=str(error)) from None
    if len(raw) != compact_length(members):
        refuse_duplicate_keys(bytes(raw), depth=1)
    return members


def _string(param: Param, raw: Raw) -> str:
    if len(raw) > _LONGEST_STRING:
        raise InvalidParams(f"the argument for {param.header} is too long for a header")
    try:
        return _decode_string(raw)
    except BAD_JSON as error:
        raise ParseError("the body is not JSON", detail=str(error)) from None


def _number(text: str) -> str | None:
    """A number in the form that its equals share: integers in decimal, others as written. None where it is none, too.

    None for what lies beyond the integers that a double holds: readers would differ about which one it is.
    """
    if (match := _INTEGER.fullmatch(text)) is not None:
        value = int(match[1])
        return str(value) if abs(value) <= SAFE else None
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return None
    return text if abs(float(text)) <= SAFE else None
