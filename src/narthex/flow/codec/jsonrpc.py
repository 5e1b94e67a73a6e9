"""Bytes <-> JSON-RPC messages. Parameters stay a map of name to raw JSON; a result stays raw.

In: a body of bytes from anybody. Out: a `Request` or `Incoming`, or the error to answer with.
Cases: `tests/flow/codec/test_jsonrpc.py`. Source: JSON-RPC 2.0; MCP 2026-07-28, basic/index (ids: strings or integers).
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from narthex.errors import CodecError, GatewayError, InvalidParams, ParseError
from narthex.flow.codec.crowds import ROOMY, refuse_crowd, refuse_crowds
from narthex.flow.codec.messages import UNSET as UNSET
from narthex.flow.codec.messages import Answered as Answered
from narthex.flow.codec.messages import Id as Id
from narthex.flow.codec.messages import Incoming as Incoming
from narthex.flow.codec.messages import Raw as Raw
from narthex.flow.codec.messages import RawMap as RawMap
from narthex.flow.codec.messages import Request as Request
from narthex.flow.codec.messages import UnsetType as UnsetType

decode_map: Final = msgspec.json.Decoder(RawMap).decode
_decode_request: Final = msgspec.json.Decoder(Request).decode
_decode_incoming: Final = msgspec.json.Decoder(Incoming).decode
_decode_string: Final = msgspec.json.Decoder(str).decode
encode: Final = msgspec.json.Encoder().encode
_KEY: Final = re.compile(rb'("(?:[^"\\]++|\\.)*+"):')
_NOTHING: Final = Raw()
BAD_JSON: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def decode_request(body: bytes) -> Request:
    """Read one JSON-RPC request or notification, or the response of a legacy client (then `method` is empty).

    Raises:
        ParseError: Not JSON, not UTF-8, nested too deeply, too many members, or a key twice in envelope or parameters.
        CodecError: JSON, but not one message: a batch, a wrong `jsonrpc`, an id of another type.
    """
    try:
        if not body.isascii():
            body.decode()
        if len(body) > ROOMY:
            refuse_crowds(body)
        request = _decode_request(body)
    except msgspec.ValidationError as error:
        raise _no_request(body, str(error)) from None
    except BAD_JSON as error:
        raise ParseError("the body is not JSON", detail=str(error)) from None
    id_, params = request.id, request.params
    if request.jsonrpc != "2.0":
        raise CodecError('"jsonrpc" must be "2.0"')
    if not request.method or id_ is None or request.result or request.error:
        _check_response(request)
        refuse_duplicate_keys(body, depth=2)
        return request
    # The length of the shortest form: a longer body has white space, unknown keys, or a key twice.
    length = 29 + len(request.method)  # {"jsonrpc":"2.0","method":""}
    if params:  # ,"params":
        length += 10 + compact_length(params)
    if id_ is not UNSET:
        length += 6 + len(encode(id_))  # ,"id":
    if len(body) != length:
        refuse_duplicate_keys(body, depth=2)
    return request


def _check_response(request: Request) -> None:
    """Raises CodecError for what is neither a request nor a response."""
    if request.method or request.id in (None, UNSET) or bool(request.result) == bool(request.error):
        raise CodecError("not a JSON-RPC request")


def _no_request(body: bytes, detail: str) -> CodecError:
    """Why a body that is JSON is no request."""
    if body.lstrip()[:1] == b"[":
        return CodecError("batches are not part of this revision")
    if "$.params" in detail:
        return InvalidParams("params must be an object", detail=detail)
    return CodecError("not a JSON-RPC request", detail=detail)


def compact_length(members: RawMap) -> int:
    """The length of an object in its shortest form: what has white space, or a key twice, is longer."""
    length = 1 + (not members)  # {} less the comma that the last member does not have
    for key, value in members.items():
        length += 4 + len(key) + len(value)  # "": and a comma
    return length


def refuse_duplicate_keys(body: bytes, depth: int) -> None:
    """Raise `ParseError` when an object on one of the outer `depth` levels has a key twice.

    For bodies that are not in the shortest form; `depth` counts from the outermost object. What lies deeper is stepped
    over, so that its size costs next to nothing.
    """
    try:
        _refuse_duplicates(msgspec.json.format(body, indent=-1), depth)
    except BAD_JSON as error:
        raise ParseError("the body is not JSON", detail=str(error)) from None


def _refuse_duplicates(compact: bytes, depth: int) -> None:
    refuse_crowd(compact)
    members = decode_map(compact)  # of a key that stands twice the last value
    at = 1
    for _ in range(len(members)):
        key = _KEY.match(compact, at)
        assert key is not None
        value = bytes(members.pop(_decode_string(key[1]), b"?"))
        at = key.end()
        if not compact.startswith(value, at):
            raise ParseError("a key stands twice")
        at += len(value)
        if compact[at : at + 1] not in (b",", b"}"):
            raise ParseError("a key stands twice")
        at += 1
        if depth > 1 and value.startswith(b"{"):
            _refuse_duplicates(value, depth - 1)
    if compact[at - 1 : at] == b",":  # more members than names
        raise ParseError("a key stands twice")


def decode_incoming(data: bytes | bytearray) -> Incoming:
    """Read one message of an upstream.

    Raises:
        ParseError: Not one JSON-RPC object in UTF-8. An upstream's batch is refused too.
    """
    try:
        if not data.isascii():
            str(data, "utf-8")  # what is kept raw is not looked at otherwise
        return _decode_incoming(data)
    except BAD_JSON as error:
        raise ParseError("the server's answer is not JSON-RPC", detail=str(error)) from None


def decode_answer(data: bytes, id_: int) -> Incoming:
    """Read what should be the response to our request `id_`.

    In the plain form, `{"jsonrpc":"2.0","id":1,"result":{…}}` and no member more, one reading of the result is all:
    it is an object, the rest is known. Everything else is read as any message.

    Raises:
        ParseError: as `decode_incoming`.
    """
    start = b'{"jsonrpc":"2.0","id":%d,"result":' % id_
    if data.startswith(start) and data.isascii():
        result = data[len(start) : -1]
        try:
            members = decode_map(result)
        except BAD_JSON:
            return decode_incoming(data)
        if data.endswith(b"}"):
            return Answered("2.0", id_, "", _NOTHING, Raw(result), _NOTHING, members)
    return decode_incoming(data)


def is_request(message: Incoming) -> bool:
    """Does it want an answer?"""
    return bool(message.method) and message.id is not UNSET and message.id is not None


def read_string(params: RawMap, key: str) -> str:
    """The string at `key`. Raises InvalidParams where it is missing or no string."""
    try:
        return _decode_string(params[key])
    except KeyError:
        raise InvalidParams(f"params.{key} is missing") from None
    except BAD_JSON:
        raise InvalidParams(f"params.{key} must be a string") from None


def error_data(error: GatewayError, decision_id: str) -> dict[str, Any]:
    """`data` of an error of ours: `{reason, decisionId, …}` (design §5)."""
    data: dict[str, Any] = {"reason": error.reason, "decisionId": decision_id}
    if error.data:
        data.update(error.data)
    return data


def encode_error(id_: Id | None, error: GatewayError, decision_id: str) -> bytes:
    """A JSON-RPC error response. `id_` None where the request's id is not known."""
    body = {"code": error.code, "message": error.public, "data": error_data(error, decision_id)}
    return encode({"jsonrpc": "2.0", "id": id_, "error": body})


def encode_result(id_: Id, result: Any) -> bytes:
    """A JSON-RPC success response; `result` is anything msgspec encodes, `Raw` included."""
    return encode({"jsonrpc": "2.0", "id": id_, "result": result})
