"""Routing headers and bodies that agree or do not, one row a rule; values that survive the way through a header."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import HeaderMismatch
from narthex.flow.codec.headers import (
    NAMED_BY,
    check_routing_headers,
    decode_value,
    encode_value,
    is_plain,
    routing_headers,
    with_missing,
)

Headers = Sequence[tuple[bytes, bytes]]
METHOD, NAME = (b"mcp-method", b"tools/call"), (b"mcp-name", b"add")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def agrees(headers: Headers, method: str, name: str | None) -> bool:
    """As `accept` hands them over: the first value of each, and the names that came again."""
    names = [key for key, _ in headers]
    first = dict(reversed(headers))
    again = frozenset(key for key in names if names.count(key) > 1)
    try:
        check_routing_headers(first, again, method, name)
    except HeaderMismatch:
        return False
    return True


def sealed(text: str | bytes) -> bytes:
    return b"=?base64?" + base64.b64encode(text.encode() if isinstance(text, str) else text) + b"?="


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        pytest.param([METHOD, NAME], True, id="both agree"),
        pytest.param([NAME, METHOD, (b"accept", b"*/*")], True, id="in any order, among others"),
        pytest.param([METHOD], False, id="name missing"),
        pytest.param([NAME], False, id="method missing"),
        pytest.param([], False, id="both missing"),
        pytest.param([METHOD, (b"mcp-name", b"ADD")], False, id="values are case-sensitive"),
        pytest.param([(b"mcp-method", b"TOOLS/CALL"), NAME], False, id="methods are case-sensitive"),
        pytest.param([(b"mcp-method", b"tools/list"), NAME], False, id="another method"),
        pytest.param([METHOD, (b"mcp-name", b"sub")], False, id="another name"),
        pytest.param([METHOD, (b"mcp-name", b"")], False, id="an empty name"),
        pytest.param([METHOD, (b"mcp-name", b"add, sub")], False, id="a list of names"),
        pytest.param([METHOD, NAME, NAME], False, id="repeated, even when equal"),
        pytest.param([METHOD, METHOD, NAME], False, id="a repeated method"),
        pytest.param([METHOD, NAME, *[(b"mcp-protocol-version", b"2026-07-28")] * 2], False, id="a repeated version"),
        pytest.param([METHOD, NAME, (b"accept", b"a"), (b"accept", b"b")], True, id="others may come again"),
        pytest.param([METHOD, (b"mcp-name", sealed("add"))], True, id="encoded without need"),
        pytest.param([METHOD, (b"mcp-name", sealed("sub"))], False, id="another name, encoded"),
        pytest.param([METHOD, (b"mcp-name", b"=?base64?!!!!?=")], False, id="encoded badly"),
    ],
)
def test_tools_call(headers: Headers, accepted: bool) -> None:
    assert agrees(headers, "tools/call", "add") is accepted


@pytest.mark.parametrize(
    ("name", "header", "accepted"),
    [
        pytest.param("größe", sealed("größe"), True, id="not ASCII, encoded"),
        pytest.param(" add ", sealed(" add "), True, id="edge spaces, encoded"),
        pytest.param(" add ", b"add", False, id="edge spaces are part of the name"),
        pytest.param("add ", b"add ", False, id="edge spaces are not part of the value"),
        pytest.param("add", b" \tadd \t", True, id="spaces around the value do not count"),
        pytest.param("größe", b" " + sealed("größe") + b" ", True, id="spaces around an encoded value"),
        pytest.param("add", sealed("add "), False, id="spaces inside an encoded value count"),
        pytest.param("add", b"\xa0add", False, id="no other space is one"),
        pytest.param("größe", "größe".encode(), False, id="not ASCII, plain"),
        pytest.param("u:" + "a" * 9000, b"u:" + b"a" * 9000, True, id="a long one"),
        pytest.param("a b", b"a b", True, id="inner spaces are plain"),
        pytest.param("=?base64?YQ==?=", sealed("=?base64?YQ==?="), True, id="a name like the sentinel, encoded"),
        pytest.param("=?base64?YQ==?=", b"=?base64?YQ==?=", False, id="a name like the sentinel, plain"),
        pytest.param("a", b"=?base64?YQ==?=", True, id="the sentinel says what it holds"),
        pytest.param("a", b"=?BASE64?YQ==?=", False, id="the sentinel is case-sensitive"),
        pytest.param("=?BASE64?YQ==?=", b"=?BASE64?YQ==?=", True, id="in capitals it is a name like another"),
        pytest.param("=?x", b"=?x", True, id="only the beginning of a sentinel"),
        pytest.param("a\r\nX: y", sealed("a\r\nX: y"), True, id="a line end, encoded"),
        pytest.param("", sealed(""), True, id="an empty name, encoded"),
        pytest.param("\ufffd", sealed(b"\xff"), False, id="encoded, but not UTF-8"),
    ],
)
def test_names_that_need_encoding(name: str, header: bytes, accepted: bool) -> None:
    assert agrees([METHOD, (b"mcp-name", header)], "tools/call", name) is accepted


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        pytest.param([(b"mcp-method", b"tools/list")], True, id="the method alone"),
        pytest.param([], False, id="nothing"),
        pytest.param([(b"mcp-method", b"tools/call")], False, id="another method"),
        pytest.param([(b"mcp-method", b" tools/list ")], True, id="spaces around the value do not count"),
        pytest.param([(b"mcp-method", b"tools/ list")], False, id="spaces inside it do"),
        pytest.param([(b"mcp-method", b"tools/list"), NAME, NAME], False, id="repeated, even where not asked for"),
    ],
)
def test_a_method_without_a_name(headers: Headers, accepted: bool) -> None:
    assert agrees(headers, "tools/list", None) is accepted


@pytest.mark.parametrize(
    ("headers", "name", "missing"),
    [
        pytest.param([METHOD, NAME], "add", (), id="nothing"),
        pytest.param([NAME], "add", ("Mcp-Method",), id="the method"),
        pytest.param([METHOD], "add", ("Mcp-Name",), id="the name"),
        pytest.param([], "größe ", ("Mcp-Method", "Mcp-Name"), id="both"),
        pytest.param([], None, ("Mcp-Method",), id="the method of what is not named"),
        pytest.param(
            [(b"mcp-method", b""), (b"mcp-name", b"sub")], "add", (), id="what is there stays, right or wrong"
        ),
    ],
)
def test_what_is_missing_is_put_in_and_what_is_there_stays(
    headers: Headers, name: str | None, missing: tuple[str, ...]
) -> None:
    filled, lacked = with_missing(dict(headers), "tools/call", name)
    assert lacked == missing
    assert filled.items() >= dict(headers).items()
    assert agrees(list(filled.items()), "tools/call", name) is all(
        value == dict([METHOD, NAME]).get(key) for key, value in headers
    )


@given(name=TEXT)
def test_a_plain_name_is_its_own_header(name: str) -> None:
    if is_plain(name):
        assert encode_value(name) == name.encode()
        assert agrees([METHOD, (b"mcp-name", name.encode())], "tools/call", name)


def test_what_is_named_and_by_which_parameter() -> None:
    assert NAMED_BY == {
        "tools/call": "name",
        "prompts/get": "name",
        "resources/read": "uri",
        "tasks/get": "taskId",
        "tasks/update": "taskId",
        "tasks/cancel": "taskId",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(b"plain", "plain", id="plain"),
        pytest.param(b"a b!~", "a b!~", id="all of visible ASCII"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b" a", None, id="a space before"),
        pytest.param(b"a\t", None, id="a tab behind"),
        pytest.param(b"a\x00b", None, id="a control character"),
        pytest.param("ö".encode(), None, id="not ASCII"),
        pytest.param(sealed("ö"), "ö", id="encoded"),
        pytest.param(b"=?base64?YQ?=", None, id="padding is part of it"),
        pytest.param(b"=?base64?Y Q==?=", None, id="no space inside"),
        pytest.param(b"=?base64?-_8=?=", None, id="not the URL alphabet"),
        pytest.param(sealed(b"\xff\xfe"), None, id="encoded, but not UTF-8"),
        pytest.param(b"a" * 8192, "a" * 8192, id="8 KiB"),
        pytest.param(b"a" * 8193, None, id="more than 8 KiB"),
    ],
)
def test_decode_value(value: bytes, text: str | None) -> None:
    assert decode_value(value) == text


@given(text=TEXT)
def test_what_is_encoded_is_read_back_and_is_visible_ascii(text: str) -> None:
    value = encode_value(text)
    assert decode_value(value) == text
    assert value and all(0x20 <= byte <= 0x7E for byte in value) and value == value.strip()


@given(value=st.binary(max_size=60) | st.binary(max_size=40).map(sealed))
def test_any_value_is_read_or_refused(value: bytes) -> None:
    text = decode_value(value)
    assert text is None or decode_value(encode_value(text)) == text


@given(name=TEXT)
def test_our_own_headers_agree_with_our_body(name: str) -> None:
    lines = routing_headers("tools/call", name)
    assert lines.endswith(b"\r\n") and lines.count(b"\r\n") == 2
    pairs = [(key.lower(), value.lstrip()) for key, _, value in (one.partition(b":") for one in lines.splitlines())]
    assert agrees(pairs, "tools/call", name)


@given(name=TEXT, other=TEXT)
def test_headers_of_one_name_are_refused_for_another(name: str, other: str) -> None:
    assert agrees([METHOD, (b"mcp-name", encode_value(name))], "tools/call", other) is (name == other)


def test_a_method_without_a_name_sends_none() -> None:
    assert routing_headers("tools/list", None) == b"Mcp-Method: tools/list\r\n"
