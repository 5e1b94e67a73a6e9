"""Bytes to messages and back: what is read means what any other JSON reader reads in it, or it is refused.

`examples/` holds the protocol's own messages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import CodecError, GatewayError, InvalidParams, Overloaded, ParseError, UpstreamUnavailable
from narthex.flow.codec.jsonrpc import (
    UNSET,
    Answered,
    Incoming,
    Raw,
    Request,
    decode_answer,
    decode_incoming,
    decode_map,
    decode_request,
    encode,
    encode_error,
    encode_result,
    read_string,
    refuse_duplicate_keys,
)

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.json"))
REQUESTS = [path for path in EXAMPLES if path.stem.endswith("Request")]
RESPONSES = [path for path in EXAMPLES if "Response" in path.stem]
ERRORS = [path for path in EXAMPLES if path.stem.endswith("Error")]
NOTIFICATIONS = [path for path in EXAMPLES if path.stem.endswith("Notification")]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
IDS = st.integers(-(2**63), 2**64 - 1) | TEXT


def dumped(value: Any, *, spaced: bool, ascii_only: bool) -> bytes:
    """One value as two writers would write it: with and without white space, with and without escapes."""
    separators = (" , ", " :\n") if spaced else (",", ":")
    return json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode()


def meant(request: Request) -> dict[str, Any]:
    """A request written again, as another reader reads it."""
    message: dict[str, Any] = {"jsonrpc": request.jsonrpc, "method": request.method}
    if request.id is not UNSET:
        message["id"] = request.id
    if request.params:
        message["params"] = request.params
    found: dict[str, Any] = json.loads(encode(message))
    return found


# --- requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x"}', id="the least"),
        pytest.param(b'{"jsonrpc":"2.0","method":"x"}', id="a notification has no id"),
        pytest.param(b'{"method":"x","params":{"a":[1]},"id":"a","jsonrpc":"2.0"}', id="members in any order"),
        pytest.param(b' {\n"jsonrpc" : "2.0" ,\t"id":1,"method":"x"}\r\n', id="white space"),
        pytest.param(b'{"jsonrpc":"2.0","id":0,"method":"x"}', id="zero is an id"),
        pytest.param(b'{"jsonrpc":"2.0","id":-7,"method":"x"}', id="a negative id"),
        pytest.param(b'{"jsonrpc":"2.0","id":"","method":"x"}', id="an empty id"),
        pytest.param(b'{"jsonrpc":"2.0","id":18446744073709551616,"method":"x"}', id="an id above 64 bits"),
        pytest.param('{"jsonrpc":"2.0","id":"ä\\u00e4\\n","method":"x"}'.encode(), id="an id with escapes"),
        pytest.param(
            b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":{"b":1,"b":2}}}', id="deeper keys are not ours"
        ),
        pytest.param(
            b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1.0e-7,"b":12345678901234567890123}}', id="numbers"
        ),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"x","params":{"é":"\U0001f600"}}'.encode(), id="UTF-8"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"meth\\u006fd":"x"}', id="an escape in a key"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{}}', id="empty params"),
    ],
)
def test_a_request_is_read_as_any_reader_reads_it(body: bytes) -> None:
    expected = json.loads(body)
    if not expected.get("params", True):
        del expected["params"]
    assert meant(decode_request(body)) == expected


def test_unknown_members_are_not_refused() -> None:
    request = decode_request(b'{"jsonrpc":"2.0","id":1,"method":"x","extra":{"a":1},"params":{"b":2}}')
    assert meant(request)["params"] == {"b": 2}


DEEP = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
DEEP_KEYS = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"} }"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"  ", id="white space"),
        pytest.param(b"nul", id="cut off"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x"', id="cut off before its end"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x"}{}', id="two values"),
        pytest.param(b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"x"}', id="a byte order mark"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"x"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b"{'jsonrpc':'2.0','id':1,'method':'x'}", id="single quotes"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x",}', id="a trailing comma"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x"/**/}', id="a comment"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":NaN}}', id="NaN"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":Infinity}}', id="Infinity"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":01}}', id="a leading zero"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\x01"}}', id="a raw control character"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\\x"}}', id="an unknown escape"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\\u12"}}', id="half an escape"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\\ud800"}}', id="half a surrogate pair"),
        pytest.param(
            b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\xff"}}', id="not UTF-8, in a value kept raw"
        ),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"\xc3":1}}', id="not UTF-8, in a key"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\xed\xa0\x80"}}', id="a surrogate in UTF-8"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\xc0\xaf"}}', id="an overlong form"),
        pytest.param(DEEP, id="nested too deeply"),
        pytest.param(DEEP_KEYS, id="nested too deeply, spaced"),
        pytest.param(b"[" * 100_000, id="nothing but brackets"),
    ],
)
def test_what_is_not_json_is_a_parse_error(body: bytes) -> None:
    with pytest.raises(CodecError) as refused:
        decode_request(body)
    # Brackets are a batch as far as they go: either answer is right for what is both.
    assert isinstance(refused.value, ParseError) or body.startswith(b"[")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"[]", -32600, id="an empty batch"),
        pytest.param(b'[{"jsonrpc":"2.0","id":1,"method":"x"}]', -32600, id="a batch"),
        pytest.param(b' \n[{"jsonrpc":"2.0","id":1,"method":"x"}]', -32600, id="a batch behind white space"),
        pytest.param(b'"x"', -32600, id="a string"),
        pytest.param(b"null", -32600, id="null"),
        pytest.param(b"{}", -32600, id="an empty object"),
        pytest.param(b'{"id":1,"method":"x"}', -32600, id="no version"),
        pytest.param(b'{"jsonrpc":"1.0","id":1,"method":"x"}', -32600, id="another version"),
        pytest.param(b'{"jsonrpc":2.0,"id":1,"method":"x"}', -32600, id="a version that is a number"),
        pytest.param(b'{"jsonrpc":"2.0","id":1}', -32600, id="no method"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":""}', -32600, id="an empty method"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":1}', -32600, id="a method that is no string"),
        pytest.param(b'{"jsonrpc":"2.0","id":null,"method":"x"}', -32600, id="null is no id"),
        pytest.param(b'{"jsonrpc":"2.0","id":1.5,"method":"x"}', -32600, id="a fraction is no id"),
        pytest.param(b'{"jsonrpc":"2.0","id":1e3,"method":"x"}', -32600, id="a number with an exponent is no id"),
        pytest.param(b'{"jsonrpc":"2.0","id":true,"method":"x"}', -32600, id="a boolean is no id"),
        pytest.param(b'{"jsonrpc":"2.0","id":[1],"method":"x"}', -32600, id="a list is no id"),
        pytest.param(b'{"jsonrpc":"2.0","id":' + b"1" * 5000 + b',"method":"x"}', -32600, id="an id of 5,000 digits"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","result":null}', -32600, id="a request and a response"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":[1]}', -32602, id="params in a list"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":null}', -32602, id="params null"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":"a"}', -32602, id="params in a string"),
    ],
)
def test_what_is_json_but_no_request(body: bytes, code: int) -> None:
    with pytest.raises(CodecError) as refused:
        decode_request(body)
    assert (refused.value.code, refused.value.status) == (code, 400)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}', id="id"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","method":"y"}', id="method"),
        pytest.param(b'{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"x"}', id="equal values too"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","\\u006dethod":"y"}', id="method, escaped"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{},"params":{"a":1}}', id="params"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1},"params":{}}', id="params, emptied"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":"a","name":"b"}}', id="a parameter"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1,"\\u0061":2}}', id="a parameter, escaped"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"x","params":{"é":1,"é":2}}'.encode(), id="not ASCII"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"":1,"":2}}', id="the empty key"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","other":1,"other":2}', id="an unknown member"),
        pytest.param(b'{"jsonrpc":"2.0","id":"1","method":"x","params":{"a":1} ,"id":"1"}', id="with white space"),
    ],
)
def test_a_key_that_stands_twice_is_a_parse_error(body: bytes) -> None:
    with pytest.raises(ParseError):
        decode_request(body)


@given(
    method=TEXT.filter(bool),
    id_=IDS | st.none(),
    params=st.dictionaries(TEXT, JSON, max_size=5) | st.none(),
    extra=st.dictionaries(TEXT.map("x".__add__), JSON, max_size=2),
    spaced=st.booleans(),
    ascii_only=st.booleans(),
)
def test_what_is_accepted_and_written_again_means_the_same(
    method: str, id_: Any, params: dict[str, Any] | None, extra: dict[str, Any], spaced: bool, ascii_only: bool
) -> None:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    message |= {} if id_ is None else {"id": id_}
    message |= {"params": params} if params else {}
    body = dumped(message | extra, spaced=spaced, ascii_only=ascii_only)
    assert meant(decode_request(body)) == message


@given(body=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_request_or_a_codec_error(body: bytes) -> None:
    try:
        request = decode_request(body)
    except CodecError:
        return
    assert json.loads(body)["method"] == request.method


@given(data=st.data(), spaced=st.booleans(), ascii_only=st.booleans(), in_params=st.booleans())
def test_a_key_twice_is_refused_however_it_is_written(
    data: st.DataObject, spaced: bool, ascii_only: bool, in_params: bool
) -> None:
    """Both writings of a key, equal or escaped, at any two places, among any other members."""

    def written(value: Any) -> str:
        return dumped(value, spaced=spaced, ascii_only=ascii_only).decode()

    params = data.draw(st.dictionaries(TEXT, JSON, min_size=1, max_size=4))
    envelope = {"jsonrpc": '"2.0"', "method": '"tools/call"', "id": written(data.draw(IDS)), "params": written(params)}
    members = {key: written(value) for key, value in params.items()} if in_params else dict(envelope)
    key = data.draw(st.sampled_from(sorted(members)))
    again = written(key)
    if data.draw(st.booleans()):
        again = '"' + "".join(f"\\u{unit:04x}" for unit in utf16(key)) + '"'
    value = data.draw(st.sampled_from([members[key], written(data.draw(JSON))]))
    items = [f"{written(name)}:{text}" for name, text in members.items()]
    items.insert(data.draw(st.integers(0, len(items))), f"{again}:{value}")
    text = "{" + ",".join(items) + "}"
    if in_params:
        text = "{" + ",".join(f'"{k}":{text if k == "params" else v}' for k, v in envelope.items()) + "}"
    with pytest.raises(CodecError):
        decode_request(text.encode())


def utf16(text: str) -> list[int]:
    raw = text.encode("utf-16-be")
    return [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]


@pytest.mark.parametrize(
    ("body", "depth", "refused"),
    [
        pytest.param(b'{"a":1,"a":2}', 1, True, id="outermost"),
        pytest.param(b'{"a":{"b":1,"b":2}}', 1, False, id="deeper than asked"),
        pytest.param(b'{"a":{"b":1,"b":2}}', 2, True, id="as deep as asked"),
        pytest.param(b'{"a":[{"b":1,"b":2}]}', 3, False, id="what a list holds is not looked at"),
        pytest.param(b'{"a":1,"A":2}', 1, False, id="case counts"),
        pytest.param(b'{"a":', 1, True, id="cut off"),
    ],
)
def test_refuse_duplicate_keys(body: bytes, depth: int, refused: bool) -> None:
    if not refused:
        refuse_duplicate_keys(body, depth)
        return
    with pytest.raises(ParseError):
        refuse_duplicate_keys(body, depth)


# --- messages of an upstream --------------------------------------------------------------------------------------


def parts(message: Incoming) -> dict[str, Any]:
    """The members that are there, read by another reader."""
    found: dict[str, Any] = {} if message.id is UNSET else {"id": message.id}
    found |= {"method": message.method} if message.method else {}
    for name in ("params", "result", "error"):
        raw = bytes(getattr(message, name))
        if raw:
            found[name] = json.loads(raw)
    return found


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b'{"jsonrpc":"2.0","id":1,"result":{"a":1}}', {"id": 1, "result": {"a": 1}}, id="a result"),
        pytest.param(b'{"jsonrpc":"2.0","id":"1","result":{}}', {"id": "1", "result": {}}, id="an id that is a string"),
        pytest.param(b'{"id":1,"result":[]}', {"id": 1, "result": []}, id="a result of any kind, no version"),
        pytest.param(
            b'{"jsonrpc":"2.0","id":null,"error":{"code":1}}',
            {"id": None, "error": {"code": 1}},
            id="an error to nobody",
        ),
        pytest.param(b'{"jsonrpc":"2.0","method":"a"}', {"method": "a"}, id="a notification"),
        pytest.param(
            b'{"jsonrpc":"2.0","id":2,"method":"a","params":[1]}',
            {"id": 2, "method": "a", "params": [1]},
            id="a request",
        ),
        pytest.param(b' {"id" : 1 , "result" : {} , "x":[] } ', {"id": 1, "result": {}}, id="spaces, unknown members"),
    ],
)
def test_incoming(data: bytes, expected: dict[str, Any]) -> None:
    assert parts(decode_incoming(data)) == expected
    assert parts(decode_incoming(bytearray(data))) == expected


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"ok", id="text"),
        pytest.param(b"[]", id="an empty batch"),
        pytest.param(b'[{"jsonrpc":"2.0","id":1,"result":{}}]', id="a batch"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"result":{}', id="cut off"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"result":{}}\n{}', id="two values"),
        pytest.param(b'{"jsonrpc":"2.0","id":1.5,"result":{}}', id="an id that is none"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"result":{"a":"\xff"}}', id="not UTF-8 in what is kept raw"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"result":{"a":"\x01"}}', id="a raw control character"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="too deep"),
        pytest.param(b"<html>502 Bad Gateway</html>", id="a page"),
    ],
)
def test_garbage_of_an_upstream_is_a_parse_error(data: bytes) -> None:
    for form in (data, bytearray(data)):
        with pytest.raises(ParseError):
            decode_incoming(form)


@given(result=JSON, id_=IDS, spaced=st.booleans(), ascii_only=st.booleans())
def test_a_result_keeps_its_bytes(result: Any, id_: Any, spaced: bool, ascii_only: bool) -> None:
    raw = dumped(result, spaced=spaced, ascii_only=ascii_only)
    data = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (json.dumps(id_).encode(), raw)
    message = decode_incoming(data)
    assert (message.id, bytes(message.result)) == (id_, raw)


# --- the protocol's own examples ----------------------------------------------------------------------------------


def test_the_examples_are_there() -> None:
    assert len(REQUESTS) >= 9 and len(RESPONSES) >= 9 and len(ERRORS) >= 3 and len(NOTIFICATIONS) >= 7


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: path.stem)
def test_examples_of_requests(path: Path) -> None:
    body = path.read_bytes()
    expected = json.loads(body)
    assert meant(decode_request(body)) == expected
    assert meant(decode_request(json.dumps(expected, separators=(",", ":")).encode())) == expected


@pytest.mark.parametrize("path", [*RESPONSES, *ERRORS, *NOTIFICATIONS], ids=lambda path: path.stem)
def test_examples_of_what_a_server_sends(path: Path) -> None:
    data = path.read_bytes()
    assert {"jsonrpc": "2.0", **parts(decode_incoming(data))} == json.loads(data)


@pytest.mark.parametrize("path", RESPONSES, ids=lambda path: path.stem)
def test_examples_of_responses_have_no_method(path: Path) -> None:
    """A legacy client sends some, to what it was asked."""
    message = decode_request(path.read_bytes())
    assert not message.method
    assert bool(message.result) != bool(message.error)


# --- small parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        pytest.param({"name": b'"add"'}, "add", id="a string"),
        pytest.param({"name": b'""'}, "", id="an empty one"),
        pytest.param({"name": b'"\\u00e4\\n"'}, "ä\n", id="with escapes"),
        pytest.param({}, None, id="missing"),
        pytest.param({"name": b"1"}, None, id="a number"),
        pytest.param({"name": b"null"}, None, id="null"),
        pytest.param({"name": b'["add"]'}, None, id="in a list"),
    ],
)
def test_read_string(params: dict[str, bytes], expected: str | None) -> None:
    raws = {key: Raw(value) for key, value in params.items()}
    if expected is not None:
        assert read_string(raws, "name") == expected
        return
    with pytest.raises(InvalidParams, match=r"params\.name"):
        read_string(raws, "name")


@pytest.mark.parametrize(
    ("id_", "error", "expected"),
    [
        pytest.param(
            7,
            GatewayError("no", detail="secret"),
            {"code": -32603, "message": "no", "data": {"reason": "internal", "decisionId": "d"}},
            id="reason and decision",
        ),
        pytest.param(
            "a",
            UpstreamUnavailable("down", retry_after_s=2, sent=True),
            {
                "code": -31005,
                "message": "down",
                "data": {"reason": "upstream_unavailable", "decisionId": "d", "sent": True, "retryAfterSeconds": 2},
            },
            id="members of its own",
        ),
        pytest.param(
            None,
            Overloaded("full"),
            {
                "code": -31009,
                "message": "full",
                "data": {"reason": "overloaded", "decisionId": "d", "retryAfterSeconds": 1},
            },
            id="before the id is known",
        ),
    ],
)
def test_encode_error(id_: int | str | None, error: GatewayError, expected: dict[str, Any]) -> None:
    assert json.loads(encode_error(id_, error, "d")) == {"jsonrpc": "2.0", "id": id_, "error": expected}


def test_encode_result_keeps_raw_bytes() -> None:
    body = encode_result("a", {"tools": Raw(b'[ {"x":1.50} ]')})
    assert body == b'{"jsonrpc":"2.0","id":"a","result":{"tools":[ {"x":1.50} ]}}'


# --- the answer to a request of ours ------------------------------------------------------------------------------

PLAIN = b'{"jsonrpc":"2.0","id":7,"result":{"a":1}}'


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(PLAIN, id="plain"),
        pytest.param(PLAIN.replace(b'{"a":1}', b"{}"), id="empty"),
        pytest.param(PLAIN.replace(b"1", "\u00e4".encode().join((b'"', b'"'))), id="not ASCII"),
        pytest.param(PLAIN[:-1] + b',"x":1}', id="a member behind it"),
        pytest.param(PLAIN[:-1] + b',"error":{"code":1,"message":""}}', id="an error behind it"),
        pytest.param(PLAIN[:-1] + b',"result":{"b":2}}', id="a second result"),
        pytest.param(PLAIN + b" ", id="white space behind it"),
        pytest.param(PLAIN[:-1] + b" }", id="white space in it"),
        pytest.param(b'{"result":{"a":1},"jsonrpc":"2.0","id":7}', id="in another order"),
        pytest.param(b'{"jsonrpc":"2.0","id":8,"result":{"a":1}}', id="another id"),
        pytest.param(b'{"jsonrpc":"2.0","id":7,"result":[1]}', id="no object"),
        pytest.param(b'{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":""}}', id="an error"),
        pytest.param(PLAIN[:-1] + b',"members":{"a":1}}', id="what we call a member of ours"),
    ],
)
def test_an_answer_is_read_as_any_message(data: bytes) -> None:
    answer, message = decode_answer(data, 7), decode_incoming(data)
    assert (answer.id, answer.method, answer.error) == (message.id, message.method, message.error)
    assert bytes(answer.result).strip() == bytes(message.result)
    if isinstance(answer, Answered):
        assert answer.members == decode_map(message.result)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(PLAIN[:-1], id="cut off"),
        pytest.param(PLAIN[:-1] + b"]", id="closed otherwise"),
        pytest.param(PLAIN + b"}", id="closed twice"),
        pytest.param(PLAIN.replace(b'{"a":1}', b""), id="nothing"),
        pytest.param(PLAIN.replace(b'{"a":1}', b'{"a":1}{}'), id="two objects"),
        pytest.param(PLAIN.replace(b"1}", b'"\xff"}'), id="not UTF-8"),
    ],
)
def test_an_answer_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError):
        decode_answer(data, 7)
