"""Batches of 2025-03-26: what one may hold, a row a rule; and what is split is what was joined."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import CodecError, ParseError
from narthex.flow.codec.batch import MOST, MOST_BYTES, is_batch, join_batch, split_batch
from narthex.flow.codec.jsonrpc import decode_request

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
NOTE = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}'
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{}}'
FAULT = b'{"jsonrpc":"2.0","id":2,"error":{"code":-1,"message":"no"}}'
INITIALIZE = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}'


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        pytest.param(b"[" + PING + b"]", [PING], id="one request"),
        pytest.param(b"[" + PING + b"," + NOTE + b"]", [PING, NOTE], id="a request and a notification, in their order"),
        pytest.param(b"[" + NOTE + b"]", [NOTE], id="notifications alone"),
        pytest.param(b"[" + ANSWER + b"," + FAULT + b"]", [ANSWER, FAULT], id="responses"),
        pytest.param(b"\r\n [ " + PING + b" ,\t" + PING + b"\n] ", [PING, PING], id="with white space"),
        pytest.param(b'[{ "method" : "x" }]', [b'{ "method" : "x" }'], id="bytes are preserved"),
        pytest.param(b"[1," + PING + b',{"foo":"boo"}]', [b"1", PING, b'{"foo":"boo"}'], id="answered one by one"),
        pytest.param(b'[{"method":7},"x",null]', [b'{"method":7}', b'"x"', b"null"], id="none of them good"),
        pytest.param(b"[%b]" % b",".join([PING] * MOST), [PING] * MOST, id="as many as may be"),
    ],
)
def test_what_a_batch_holds(body: bytes, messages: list[bytes]) -> None:
    assert is_batch(body)
    assert split_batch(body) == messages


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[]", id="empty"),
        pytest.param(b"[ \n]", id="empty, with white space"),
        pytest.param(b"[[" + PING + b"]]", id="a batch in a batch"),
        pytest.param(b"[" + PING + b", []]", id="an empty one in a batch"),
        pytest.param(b"[" + INITIALIZE + b"]", id="initialize"),
        pytest.param(b"[" + PING + b"," + INITIALIZE + b"]", id="initialize among others"),
        pytest.param(b'[{"method":"initi\\u0061lize"}]', id="initialize, written with escapes"),
        pytest.param(b'[{"method":"ping","method":"initialize"}]', id="initialize as the second of two methods"),
        pytest.param(b"[" + PING + b"," + ANSWER + b"]", id="a response beside a request"),
        pytest.param(b"[" + FAULT + b"," + NOTE + b"]", id="an error beside a notification"),
        pytest.param(b"[%b]" % b",".join([PING] * (MOST + 1)), id="too many"),
        pytest.param(b"[%b]" % b",".join([b"1"] * 400_000), id="far too many"),
        pytest.param(b'["%b"]' % (b"x" * MOST_BYTES), id="too large"),
        pytest.param(PING, id="no array"),
        pytest.param(b"7", id="a number"),
        pytest.param(b"null", id="null"),
    ],
)
def test_what_is_refused_whole(body: bytes) -> None:
    with pytest.raises(CodecError) as caught:
        split_batch(body)
    assert (caught.value.code, caught.value.status) == (-32600, 400)


@pytest.mark.parametrize("body", [b"", b"[", b"[1,]", b"[1}", b"\xef\xbb\xbf[1]", b"[" * 100_000, b"[1] 2", b'["\n"]'])
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(ParseError):
        split_batch(body)


def test_a_message_that_is_none_is_refused_when_it_is_read() -> None:
    for message in split_batch(b'[1,{"foo":"boo"},{"method":7},{"jsonrpc":"2.0","id":null,"result":1}]'):
        with pytest.raises(CodecError):
            decode_request(message)


@pytest.mark.parametrize("body", [b"", PING, b'"[1]"', b" " * 100 + b"[1]", b"\x0b[1]"])
def test_what_does_not_begin_as_one(body: bytes) -> None:
    assert not is_batch(body)


def test_only_notifications_have_no_answer() -> None:
    assert join_batch([]) == b""


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.dictionaries(st.text(), inner)
)


@given(st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=3), min_size=1, max_size=MOST))
def test_what_is_joined_is_split_again(results: list[dict[str, Any]]) -> None:
    responses = [json.dumps({"jsonrpc": "2.0", "id": n, "result": result}).encode() for n, result in enumerate(results)]
    joined = join_batch(responses)
    assert split_batch(joined) == responses
    assert json.loads(joined) == [json.loads(response) for response in responses]


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda inner: b"[" + inner + b"]"))
def test_any_body_is_split_or_refused(body: bytes) -> None:
    try:
        messages = split_batch(body)
    except CodecError:
        return
    assert is_batch(body)
    assert split_batch(join_batch(messages)) == messages
