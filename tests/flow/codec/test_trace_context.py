"""A trace goes on where it can be read, and what cannot be read counts as not said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.codec.jsonrpc import Raw, decode_map
from narthex.flow.codec.trace_context import Context, in_headers, in_meta, read_context, trace_id_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("parent", "readable"),
    [
        pytest.param(PARENT, True, id="version 00"),
        pytest.param(PARENT[:-2] + "00", True, id="not sampled"),
        pytest.param(PARENT[:-2] + "ff", True, id="flags that are not known yet"),
        pytest.param("01" + PARENT[2:] + "-what-comes-later", True, id="a later version may say more"),
        pytest.param(PARENT + "-more", False, id="version 00 says no more"),
        pytest.param("ff" + PARENT[2:], False, id="version ff is none"),
        pytest.param(PARENT.upper(), False, id="upper case"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", False, id="no trace"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", False, id="no span"),
        pytest.param(PARENT[:-1], False, id="too short"),
        pytest.param(PARENT + "\r\nx: y", False, id="a second header in it"),
        pytest.param("", False, id="empty"),
        pytest.param("x" * 100_000, False, id="long"),
    ],
)
def test_traceparent(parent: str, readable: bool) -> None:
    assert (read_context(parent.encode()) is not None) == readable


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        pytest.param("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", True, id="members"),
        pytest.param("a@b=1, , c=2", True, id="blanks and empty members"),
        pytest.param("a=" + "x" * 256, True, id="a value of 256"),
        pytest.param("a=1\r\nx: y", False, id="a line end"),
        pytest.param("A=1", False, id="an upper-case key"),
        pytest.param("a", False, id="no value"),
        pytest.param(",".join(f"k{n}=1" for n in range(33)), False, id="33 members"),
        pytest.param("a=" + "x" * 600, False, id="longer than what must be passed on"),
    ],
)
def test_tracestate_is_dropped_alone(state: str, kept: bool) -> None:
    found = read_context(PARENT.encode(), state.encode())
    assert found is not None
    assert found.state == (state if kept else "")


@pytest.mark.parametrize("state", ['a="quoted"', "a=back\\slash", "a=" + '"' * 256])
def test_a_tracestate_with_what_json_escapes_is_the_same_in_meta(state: str) -> None:
    meta = decode_map(json.dumps({"traceparent": PARENT, "tracestate": state}).encode())
    found = in_meta(meta)
    assert found is not None and found.state == state
    told = in_meta(found.into(meta))
    assert told is not None and told.state == state


@given(st.binary(), st.binary())
def test_what_is_read_can_be_sent_on(parent: bytes, state: bytes) -> None:
    found = read_context(parent, state)
    if found is not None:
        assert read_context(found.parent.encode(), found.state.encode()) is not None
        assert found.lines.count(b"\r\n") == 1 + bool(found.state)


def test_meta_and_headers_say_the_same() -> None:
    meta = decode_map(json.dumps({"traceparent": PARENT, "tracestate": "a=1"}).encode())
    headers = {b"traceparent": f" {PARENT}".encode(), b"tracestate": b"a=1"}
    for found in (in_meta(meta), in_headers(headers)):
        assert found is not None
        assert (found.trace_id, found.span_id, found.flags, found.state) == (TRACE, SPAN, 1, "a=1")
    assert in_meta({}) is None
    assert in_headers({}) is None


def test_what_a_later_version_says_behind_need_be_no_text_of_ours() -> None:
    """Latin-1 in a header, which is no UTF-8: read as far as is known, and nothing is raised."""
    found = in_headers({b"traceparent": b"01" + PARENT[2:].encode() + b"-\xe9"})
    assert found is not None and found.parent == PARENT


@pytest.mark.parametrize("raw", [b"1", b"null", b'"', b"{}", b'["x"]', b'"\\u0030"'])
def test_what_is_no_string_counts_as_not_said(raw: bytes) -> None:
    assert in_meta({"traceparent": Raw(raw)}) is None


def test_what_the_server_is_told_stands_in_the_place_of_what_the_client_has_said() -> None:
    ours = Context(TRACE, "1" * 16, 1)
    meta = ours.into(decode_map(b'{"traceparent":"x","tracestate":"of=another","baggage":"k=v","mine":[1]}'))
    assert json.loads(bytes(meta["traceparent"])) == f"00-{TRACE}-{'1' * 16}-01"
    assert set(meta) == {"traceparent", "baggage", "mine"}
    assert ours.lines == f"traceparent: {ours.parent}\r\n".encode()
    assert b"tracestate: a=1\r\n" in Context(TRACE, SPAN, 0, "a=1").lines


@pytest.mark.parametrize(
    ("params", "trace"),
    [({"_meta": Raw(json.dumps({"traceparent": PARENT}).encode())}, TRACE), ({}, ""), ({"_meta": Raw(b"[]")}, "")],
)
def test_the_trace_of_parameters(params: dict[str, Raw], trace: str) -> None:
    assert trace_id_of(params) == trace
