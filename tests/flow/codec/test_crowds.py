"""Objects with too many members are refused before one of them is made, in a bounded number of steps."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import ParseError
from narthex.flow.codec.crowds import MOST_MEMBERS, refuse_crowd
from narthex.flow.codec.inputs import read_answers
from narthex.flow.codec.jsonrpc import Raw, Request, decode_request, encode
from narthex.flow.codec.param_headers import param_lines, read_plan
from narthex.flow.codec.revisions import META_VERSION, era_of, read_meta


def members(count: int) -> bytes:
    return b",".join(b'"%x":0' % number for number in range(count))


CROWD = members(MOST_MEMBERS + 1)
ROWS = b"[%b]" % b",".join(b'{"id":%d,"at":"12:30"}' % number for number in range(MOST_MEMBERS))
TEXT = b'"%b"' % (b"12:30 " * MOST_MEMBERS)


def request(params: bytes, extra: bytes = b"") -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{%b}%b}' % (params, extra)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(request(b'"name":"x",' + CROWD), id="of parameters"),
        pytest.param(request(b' "name" : "x",' + CROWD), id="of parameters, with white space"),
        pytest.param(request(b'"name":"x",' + CROWD.replace(b'":', b'" :')), id="white space before each colon"),
        pytest.param(request(b'"name":"x"', b"," + CROWD), id="of the message"),
        pytest.param(request(b'"name":"x"', b',"other":{%b}' % CROWD), id="of an unknown object in it"),
        pytest.param(
            request(b'"name":"x",' + b",".join([b'"a":0'] * (MOST_MEMBERS + 1))), id="one key again and again"
        ),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"result":{%b}}' % CROWD, id="of a response"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"error":{%b}}' % CROWD, id="of an error"),
        pytest.param(request(b'},"params":{%b},"params":{' % CROWD), id="hidden between others of that name"),
        pytest.param(request(rb'},"p\u0061rams":{%b},"params":{' % CROWD), id="hidden behind an escape"),
    ],
)
def test_too_many_members(body: bytes) -> None:
    with pytest.raises(ParseError):
        decode_request(body)


@pytest.mark.parametrize(
    "params",
    [
        pytest.param(b'"name":"x",' + members(MOST_MEMBERS - 1), id="as many as there may be"),
        pytest.param(b'"arguments":{%b}' % CROWD, id="arguments are not looked at"),
        pytest.param(b'"arguments":{"rows":%b}' % ROWS, id="nor what is in them"),
        pytest.param(b'"unknown":{"a":{"rows":%b}}' % ROWS, id="nor is what nobody knows"),
        pytest.param(b' "unknown" : {"a" : {"rows" : %b}}' % ROWS, id="with white space neither"),
        pytest.param(b'"other":%b' % TEXT, id="colons in text are no members"),
        pytest.param(b'"other":[%b]' % b",".join([b"0"] * 100_000), id="items of a list are none either"),
    ],
)
def test_what_is_large_and_no_crowd(params: bytes) -> None:
    assert decode_request(request(params)).params


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[%b]" % ROWS, id="a list"),
        pytest.param(request(CROWD)[:-1], id="cut off"),
        pytest.param(request(b'"a":' + b"[" * 100_000 + b":" * 5000), id="nested without end"),
        pytest.param(request(CROWD.replace(b'"5"', b'"\n"')), id="no JSON"),
    ],
)
def test_what_is_no_message_is_refused_all_the_same(body: bytes) -> None:
    with pytest.raises((ParseError, Exception)) as refused:
        decode_request(body)
    assert getattr(refused.value, "status", None) == 400


def test_arguments_that_go_into_headers_are_looked_at() -> None:
    plan = read_plan(b'{"type":"object","properties":{"a":{"type":"string","x-mcp-header":"A"}}}')
    assert param_lines(plan, Raw(b'{"a":"1",%b}' % members(10)))
    with pytest.raises(ParseError):
        param_lines(plan, Raw(b'{"a":"1",%b}' % CROWD))


def test_answers_of_a_retry_are_looked_at() -> None:
    assert read_answers({"inputResponses": Raw(b'{"a":{"rows":%b}}' % ROWS)})
    with pytest.raises(ParseError):
        read_answers({"inputResponses": Raw(b"{%b}" % CROWD)})


def test_meta_is_looked_at() -> None:
    with pytest.raises(ParseError):
        read_meta({"_meta": Raw(b"{%b}" % CROWD)})
    with pytest.raises(ParseError):
        era_of(None, Request("2.0", params={"_meta": Raw(b"{%b}" % CROWD)}), META_VERSION.encode())


class Steps:
    """What was called meanwhile, C functions included, and how many bytes of new objects there were at one time."""

    def __enter__(self) -> Steps:
        self.calls = 0
        tracemalloc.start()
        gc.disable()  # its callbacks are calls, too
        sys.setprofile(self._event)
        return self

    def _event(self, frame: Any, event: str, what: Any) -> None:
        self.calls += event in ("call", "c_call")

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        gc.enable()
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


@pytest.mark.parametrize("spaced", [False, True], ids=["compact", "with white space"])
def test_a_crowd_costs_a_few_steps_however_large(spaced: bool) -> None:
    cost = []
    for count in (MOST_MEMBERS + 1, 400_000):
        body = request((b" " if spaced else b"") + members(count))
        with Steps() as steps, pytest.raises(ParseError):
            decode_request(body)
        cost.append(steps.calls)
        assert steps.peak < 3 * len(body) + 1024 * 1024  # copies of its bytes; an object for each member would be more
    assert cost[0] == cost[1] < 10 * MOST_MEMBERS


@given(count=st.integers(0, 2 * MOST_MEMBERS), nested=st.booleans(), spaced=st.booleans())
def test_an_object_is_refused_exactly_when_it_has_too_many_members(count: int, nested: bool, spaced: bool) -> None:
    value: Any = {f"key {number}": {"a": 1} if nested else number for number in range(count)}
    raw = encode(value)
    if spaced:
        raw = raw.replace(b":", b" : ")
    refused = False
    try:
        refuse_crowd(raw)
    except ParseError:
        refused = True
    assert refused is (count > MOST_MEMBERS)
