"""One request in one look: what it says is what the single checks say, whichever of the two ways it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import GatewayError, HeaderMismatch, InvalidParams, MethodNotFound, ParseError
from narthex.flow.codec.headers import NAMED_BY, check_routing_headers, encode_value
from narthex.flow.codec.inbound import _MOST_KEPT, _plain, read_params
from narthex.flow.codec.jsonrpc import RawMap, Request, decode_request, read_string
from narthex.flow.codec.revisions import (
    META_CAPABILITIES,
    META_VERSION,
    MODERN,
    check_method,
    check_modern_meta,
    read_meta,
)
from narthex.types import Era

NOW = MODERN[0]
META: dict[str, Any] = {META_VERSION: NOW, META_CAPABILITIES: {}}
CALL: dict[str, Any] = {"name": "add", "arguments": {}, "_meta": META}
SAID: dict[bytes, bytes] = {b"mcp-method": b"tools/call", b"mcp-name": b"add"}
NONE: frozenset[bytes] = frozenset()


def request(method: str, params: object = None) -> Request:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, **({} if params is None else {"params": params})}
    return decode_request(json.dumps(message).encode())


def one_by_one(
    asked: Request, version: str, era: Era, headers: Mapping[bytes, bytes], repeated: frozenset[bytes]
) -> tuple[RawMap, str]:
    """The same, by the functions that know the rules, each asked always."""
    meta = read_meta(asked.params)
    name = read_string(asked.params, NAMED_BY[asked.method]) if asked.method in NAMED_BY else ""
    if era == "modern":
        check_modern_meta(meta, version)
        check_routing_headers(headers, repeated, asked.method, name if asked.method in NAMED_BY else None)
    check_method(asked.method, era)
    return meta, name


def outcome(
    read: Any, asked: Request, version: str, era: Era, headers: Mapping[bytes, bytes], repeated: frozenset[bytes]
) -> Any:
    try:
        return read(asked, version, era, headers, repeated)
    except GatewayError as error:
        return type(error), error.public, error.detail


@pytest.mark.parametrize(
    ("method", "params", "headers", "expected"),
    [
        pytest.param("tools/call", CALL, SAID, "add", id="a call"),
        pytest.param(
            "tools/call", CALL, {**SAID, b"mcp-name": b"=?base64?YWRk?="}, "add", id="an encoded name that need not be"
        ),
        pytest.param("tools/call", {**CALL, "name": "ö"}, {**SAID, b"mcp-name": encode_value("ö")}, "ö", id="encoded"),
        pytest.param("tools/call", CALL, {**SAID, b"mcp-name": b" add "}, "add", id="spaces around the header"),
        pytest.param("tools/list", {"_meta": META}, {b"mcp-method": b"tools/list"}, "", id="a method without a name"),
        pytest.param(
            "resources/read", {"uri": "a:b", "_meta": META}, {b"mcp-method": b"resources/read", b"mcp-name": b"a:b"},
            "a:b", id="a URI",
        ),
        pytest.param("tools/call", {"name": "add"}, SAID, InvalidParams, id="no _meta"),
        pytest.param("tools/call", {**CALL, "_meta": 1}, SAID, InvalidParams, id="_meta is no object"),
        pytest.param("tools/call", {**CALL, "_meta": {META_VERSION: NOW}}, SAID, InvalidParams, id="no capabilities"),
        pytest.param("tools/call", {"_meta": META}, SAID, InvalidParams, id="no name"),
        pytest.param("tools/call", {**CALL, "name": 1}, SAID, InvalidParams, id="the name is a number"),
        pytest.param(
            "tools/call", {**CALL, "_meta": {**META, META_VERSION: "2025-11-25"}}, SAID, HeaderMismatch,
            id="another version in the body",
        ),
        pytest.param("tools/call", CALL, {b"mcp-method": b"tools/call"}, HeaderMismatch, id="no Mcp-Name"),
        pytest.param("tools/call", CALL, {b"mcp-name": b"add"}, HeaderMismatch, id="no Mcp-Method"),
        pytest.param("tools/call", {**CALL, "name": "new"}, {**SAID, b"mcp-name": b""}, HeaderMismatch, id="empty"),
        pytest.param("tools/call", {**CALL, "name": "sub"}, SAID, HeaderMismatch, id="another name"),
        pytest.param("initialize", {"_meta": META}, {b"mcp-method": b"initialize"}, MethodNotFound, id="removed"),
        pytest.param("ping", {"_meta": META}, {b"mcp-method": b"ping"}, MethodNotFound, id="ping is removed"),
        pytest.param("x/y", {"_meta": META}, {b"mcp-method": b"x/z"}, HeaderMismatch, id="headers before the method"),
    ],
)  # fmt: skip
def test_a_modern_request(
    method: str, params: dict[str, Any], headers: dict[bytes, bytes], expected: str | type[GatewayError]
) -> None:
    for _ in range(2):  # what was read once takes the short way
        found = outcome(read_params, request(method, params), NOW, "modern", headers, NONE)
        assert found[1 if isinstance(expected, str) else 0] == expected


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        pytest.param("tools/call", {"name": "add"}, "add", id="a call, without any header"),
        pytest.param("initialize", {"protocolVersion": "x"}, "", id="initialize"),
        pytest.param("server/discover", {"_meta": META}, MethodNotFound, id="a method of the other era"),
        pytest.param("tools/call", {"name": None}, InvalidParams, id="no name"),
    ],
)
def test_a_legacy_request(method: str, params: dict[str, Any], expected: str | type[GatewayError]) -> None:
    found = outcome(read_params, request(method, params), "2025-11-25", "legacy", {b"mcp-name": b"other"}, NONE)
    assert found[1 if isinstance(expected, str) else 0] == expected


def test_a_key_twice_in_meta_is_refused() -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}).encode()
    twice = body.replace(b'"_meta": {', b'"_meta": {"' + META_VERSION.encode() + b'": "2025-11-25", ')
    with pytest.raises(ParseError):
        read_params(decode_request(twice), NOW, "modern", SAID, NONE)


def test_names_that_clients_invent_are_kept_in_bounds() -> None:
    for number in range(_MOST_KEPT + 10):
        uri = f"made:{number}"
        asked = request("resources/read", {"uri": uri, "_meta": META})
        read_params(asked, NOW, "modern", {b"mcp-method": b"resources/read", b"mcp-name": uri.encode()}, NONE)
    asked = request("resources/read", {"uri": "l:" + "o" * 5000, "_meta": META})
    read_params(asked, NOW, "modern", {b"mcp-method": b"resources/read", b"mcp-name": b"l:" + b"o" * 5000}, NONE)
    assert len(_plain) <= _MOST_KEPT
    assert max(map(len, _plain)) <= 256


# --- both ways say the same ---------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["add", "sub", "", "ö", " add", "add ", "a\tb", "=?x", "=?base64?YWRk?=", "=?BASE64?x?=", "\ufffd"]
)
METHODS = st.sampled_from([*NAMED_BY, "tools/list", "server/discover", "initialize", "ping", "nothing/at-all"])
VALUES = NAMES.map(lambda name: name.encode()) | NAMES.map(encode_value) | st.binary(max_size=12)
PADDING = st.sampled_from([b"", b"", b" ", b"\t", b"  "])
METAS = st.sampled_from(
    [
        META, {**META, "progressToken": 1}, {META_VERSION: NOW}, {META_CAPABILITIES: {}}, {}, None, 7,
        {**META, META_VERSION: "2025-11-25"}, {**META, META_CAPABILITIES: {"roots": {}}},
        {**META, META_CAPABILITIES: []},
    ]
)  # fmt: skip


@given(data=st.data(), method=METHODS, name=NAMES | st.text(max_size=20), era=st.sampled_from(["modern", "legacy"]))
def test_it_raises_exactly_when_the_single_checks_raise(data: st.DataObject, method: str, name: str, era: Era) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        name = "a"
    params: dict[str, Any] = {"_meta": data.draw(METAS)}
    if data.draw(st.integers(0, 9)):
        params[NAMED_BY.get(method, "name")] = name
    own = st.sampled_from([name.encode(), encode_value(name)])
    headers = {}
    if data.draw(st.integers(0, 9)):
        said = data.draw(st.just(method.encode()) | METHODS.map(lambda other: other.encode()))
        headers[b"mcp-method"] = data.draw(PADDING) + said + data.draw(PADDING)
    if data.draw(st.integers(0, 9)):
        headers[b"mcp-name"] = data.draw(PADDING) + data.draw(own | VALUES) + data.draw(PADDING)
    repeated = frozenset(data.draw(st.sets(st.sampled_from([b"mcp-name", b"accept"]), max_size=1)))
    version = NOW if era == "modern" else "2025-11-25"
    asked = request(method, params)
    expected = outcome(one_by_one, asked, version, era, headers, repeated)
    for _ in range(2):
        assert outcome(read_params, asked, version, era, headers, repeated) == expected
