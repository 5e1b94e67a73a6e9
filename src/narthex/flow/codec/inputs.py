"""What a server asks of a client while it works on a call, in both eras' forms.

A legacy server pushes requests (`elicitation/create`, `sampling/createMessage`, `roots/list`) and waits; a modern one
ends its answer with a result that lists them, and is called again with the answers. In: either form. Out: the other,
or the error to answer with. Cases: `tests/flow/codec/test_inputs.py`.
Source: MCP 2026-07-28, basic/patterns/mrtr; MCP 2025-11-25, client features (elicitation, sampling, roots).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from narthex.errors import InvalidParams, MissingCapability, UpstreamUnavailable
from narthex.flow.codec.capabilities import ClientCaps, capabilities_of
from narthex.flow.codec.crowds import refuse_crowd
from narthex.flow.codec.handles import Origin
from narthex.flow.codec.jsonrpc import BAD_JSON, Id, Incoming, Raw, RawMap, decode_map, encode
from narthex.types import Call

INPUT_REQUIRED = Raw(b'"input_required"')
MOST_ASKED = 64
"""Requests that one answer may make of a client."""
MAX_ASKED = 1024 * 1024
"""Bytes of all that a client is asked at a time: what is held for it is a whole message (design §3)."""
MAX_CANONICAL = 64 * 1024
"""Bytes of arguments that are brought into one form: to do so with larger ones would hold up the loop."""
MAY_ASK = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Requests whose result may ask for input (2026-07-28, mrtr)."""
_BAD_ANSWER = Raw(b'{"code":-32603,"message":"the answer of the client cannot be read"}')
_decode_string = msgspec.json.Decoder(str).decode


class Asked(msgspec.Struct, frozen=True):
    """One request of a server to the client. `upstream_id` is the id of a pushed one, None in a modern result."""

    key: str
    method: str
    params: Raw
    upstream_id: Id | None = None


class InputRequired(msgspec.Struct, frozen=True):
    """A modern server's result that asks for input. `state` is its `requestState`, JSON as it came."""

    asked: tuple[Asked, ...]
    state: Raw | None


class Ask:
    """Needs the client's answers to what a modern server asks, or the gateway itself. Answer: a `RawMap` of them, by
    the keys of what is asked; of a modern client none, for it makes the call again with them.

    `about` is what the gateway itself asks about; None where a server asks.
    """

    __slots__ = ("about", "required")

    def __init__(self, required: InputRequired, about: Any = None) -> None:
        self.required = required
        self.about = about


class _Request(msgspec.Struct):
    method: str
    params: Raw = Raw(b"{}")


class _Error(msgspec.Struct):
    code: int
    message: str


_decode_error = msgspec.json.Decoder(_Error).decode
_decode_requests = msgspec.json.Decoder(dict[str, _Request]).decode


def needed(method: str, params: Raw) -> int:
    """The bits that a client must have declared to be asked this.

    Raises:
        UpstreamUnavailable: Nothing that a server may ask, or parameters that are no object.
    """
    try:
        members = decode_map(params)
    except BAD_JSON:
        raise UpstreamUnavailable("the server's question cannot be read", sent=True) from None
    if method == "elicitation/create":
        return _needed_by_mode(members.get("mode"))
    if method == "sampling/createMessage":
        tools = ClientCaps.SAMPLING_TOOLS if "tools" in members or "toolChoice" in members else 0
        return int(ClientCaps.SAMPLING | tools)
    if method == "roots/list":
        return int(ClientCaps.ROOTS)
    raise UpstreamUnavailable(f"the server asks for {method[:64]!r}, which is no request to a client", sent=True)


def _needed_by_mode(mode: Raw | None) -> int:
    """No mode means form. One that we do not know no client has declared."""
    try:
        text = "form" if mode is None else _decode_string(mode)
        return int({"form": ClientCaps.ELICITATION_FORM, "url": ClientCaps.ELICITATION_URL}[text])
    except (*BAD_JSON, KeyError):
        raise UpstreamUnavailable("the server elicits in a mode that nobody knows", sent=True) from None


def check_asked(asked: Sequence[Asked], bits: int) -> None:
    """May this client be asked all of it?

    Raises:
        Undeclared: It did not declare what one of them needs (2026-07-28, mrtr: a server MUST NOT then ask).
        UpstreamUnavailable: Too many, too large, or nothing that a server may ask.
    """
    if len(asked) > MOST_ASKED or sum(len(one.key) + len(one.params) for one in asked) > MAX_ASKED:
        raise UpstreamUnavailable("the server asks too much", sent=True)
    lacking = 0
    for one in asked:
        lacking |= needed(one.method, one.params) & ~bits
    if lacking:
        raise Undeclared(lacking)


class Undeclared(MissingCapability):
    """The error that names the capabilities which a client lacks. `partly`: of one that it did declare, a part."""

    def __init__(self, lacking: int) -> None:
        super().__init__(
            "the server needs input that this client cannot give",
            data={"requiredCapabilities": capabilities_of(lacking)},
        )
        self.partly = lacking == ClientCaps.SAMPLING_TOOLS


# --- from a server


def asks_for_input(call: Call, members: RawMap) -> InputRequired | None:
    """What a modern server's result asks for; None when it is complete, or of another type.

    Raises:
        UpstreamUnavailable: An answer to a method that allows none of it, or of another form.
    """
    kind = members["resultType"]
    try:
        if kind != INPUT_REQUIRED and _decode_string(kind) != "input_required":
            return None
        requests = _decode_requests(members["inputRequests"]) if "inputRequests" in members else {}
        state = members.get("requestState")
        if state is not None:
            _decode_string(state)
    except BAD_JSON as error:
        raise UpstreamUnavailable("the server's question cannot be read", detail=str(error), sent=True) from None
    if call.method not in MAY_ASK:
        raise UpstreamUnavailable(f"the server asks for input on {call.method}", sent=True)
    if not requests and state is None:
        raise UpstreamUnavailable("the server asks for input and does not say which", sent=True)
    return InputRequired(tuple(Asked(key, one.method, one.params) for key, one in requests.items()), state)


class _Elicitations(msgspec.Struct):
    elicitations: list[Raw]


class _UrlRequired(msgspec.Struct):
    code: int
    data: _Elicitations


_decode_url_required = msgspec.json.Decoder(_UrlRequired).decode


def url_required(call: Call, error: Raw) -> InputRequired:
    """What a legacy server's -32042 asks before the call can be made again: URLs to be opened (2025-11-25,
    elicitation). A modern client that makes it again with its answers says nothing that this server must hear.

    Raises:
        UpstreamUnavailable: It names none, or something else than a URL; or the method allows no such thing.
    """
    try:
        urls = _decode_url_required(error).data.elicitations
    except BAD_JSON as bad:
        raise UpstreamUnavailable("the server's question cannot be read", detail=str(bad), sent=True) from None
    asked = tuple(Asked(str(number), "elicitation/create", one, number) for number, one in enumerate(urls, 1))
    if call.method not in MAY_ASK or not asked:
        raise UpstreamUnavailable(f"the server asks for input on {call.method}", sent=True)
    if any(needed(one.method, one.params) != ClientCaps.ELICITATION_URL for one in asked):
        raise UpstreamUnavailable("the server asks for something else than a URL", sent=True)
    return InputRequired(asked, None)


class _Cancelled(msgspec.Struct):
    id: Id | None = msgspec.field(name="requestId", default=None)


_decode_cancelled = msgspec.json.Decoder(_Cancelled).decode


def withdrawn_id(message: Incoming) -> Id | None:
    """Which of its requests a legacy server does not wait for any more; None where that cannot be read."""
    try:
        return _decode_cancelled(message.params).id
    except BAD_JSON:
        return None


def pushed(message: Incoming, key: str) -> Asked:
    """A legacy server's request, to be known as `key`. Its id goes back to that server alone."""
    assert isinstance(message.id, (int, str))
    return Asked(key, message.method, message.params or Raw(b"{}"), message.id)


# --- to a client


def input_required(asked: Sequence[Asked], state: str) -> bytes:
    """The result that asks a modern client. `state` is ours, sealed."""
    return encode({**input_members(asked), "requestState": state})


def input_members(asked: Sequence[Asked]) -> RawMap:
    """The members of a result that asks a modern client what a legacy server asks."""
    requests = {one.key: {"method": one.method, "params": _modern(one)} for one in asked}
    return {"resultType": INPUT_REQUIRED, "inputRequests": Raw(encode(requests))}


def for_modern(members: RawMap, state: Raw | None, relayed: Callable[[bytes], str]) -> bytes:
    """A modern server's own result for a modern client: byte for byte, but for our seal (`relayed`) around its state,
    which only a retry of this call opens."""
    return encode(members if state is None else {**members, "requestState": relayed(bytes(state))})


def push_body(id_: int, asked: Asked, version: str) -> bytes:
    """The request that a legacy client gets on the stream of its call.

    Args:
        id_: Ours; the client's answer carries it.
        version: The client's revision.
    """
    return b'{"jsonrpc":"2.0","id":%d,"method":%b,"params":%b}' % (
        id_, encode(asked.method), encode(_legacy(id_, asked, version)),
    )  # fmt: skip


def _legacy(id_: int, asked: Asked, version: str) -> Raw:
    """Elicitation by URL has an id in 2025-11-25, which 2026-07-28 has given up. Who wants to hear of the client's
    progress gave a token, in whose place the client gets the id: it is unique among all servers."""
    params = _with_token(asked, _kept(asked, "task"), None if asked.upstream_id is None else Raw(b"%d" % id_))
    if asked.method != "elicitation/create" or asked.upstream_id is not None or version < "2025-11-25":
        return params
    members = decode_map(params)
    if "elicitationId" in members or _needed_by_mode(members.get("mode")) != ClientCaps.ELICITATION_URL:
        return params
    return Raw(encode({**members, "elicitationId": f"elicitation-{id_}"}))


def _modern(asked: Asked) -> Raw:
    """What only 2025-11-25 knows is left out: `task`, the id of an elicitation, and a token to tell progress with."""
    params = _kept(asked, "task", *(["elicitationId"] if asked.method == "elicitation/create" else []))
    return _with_token(asked, params, None)


def _progress_token(asked: Asked) -> Raw | None:
    try:
        params = decode_map(asked.params)
        return decode_map(params["_meta"]).get("progressToken") if "_meta" in params else None
    except BAD_JSON:
        return None


def _with_token(asked: Asked, params: Raw, token: Raw | None) -> Raw:
    """`params` with this token in the place of one that the server gave; None: a client could use it nowhere."""
    if _progress_token(asked) is None:
        return params
    members = decode_map(params)
    meta = {key: value for key, value in decode_map(members["_meta"]).items() if key != "progressToken"}
    if token is not None:
        meta["progressToken"] = token
    return Raw(encode({**members, "_meta": meta}))


def progress_body(asked: Asked, params: RawMap) -> bytes | None:
    """A legacy client's progress with `asked`, with the token that the server gave; None where it gave none."""
    token = _progress_token(asked) if asked.upstream_id is not None else None
    if token is None:
        return None
    told = encode({**params, "progressToken": token})
    return b'{"jsonrpc":"2.0","method":"notifications/progress","params":%b}' % told


def _kept(asked: Asked, *dropped: str) -> Raw:
    """The parameters but for some. Tasks of a client are declared to no server, so that `task` means nothing
    (2025-11-25, tasks: then it is ignored); a client that was shown it could take it at its word."""
    params = decode_map(asked.params)
    kept = {key: value for key, value in params.items() if key not in dropped}
    return asked.params if len(kept) == len(params) else Raw(encode(kept))


# --- back to the server


def reply_body(upstream_id: Id, *, result: Raw | None = None, error: Raw | None = None) -> bytes:
    """The answer to a pushed request, under the id that its server gave it."""
    member = b'"result":%b' % bytes(result) if result is not None else b'"error":%b' % bytes(error or b"{}")
    return b'{"jsonrpc":"2.0","id":%b,%b}' % (encode(upstream_id), member)


def with_round(params: RawMap, asked: InputRequired | None = None, answers: Mapping[str, Raw] | None = None) -> RawMap:
    """A call's parameters for a server of the other era: the client's own words on rounds are not for it, and of a
    legacy client they would be a state that nobody has sealed.

    Args:
        asked: What a modern server asked last, to be told the `answers` now.
    """
    if asked is None and "requestState" not in params and "inputResponses" not in params:
        return params
    told = {key: value for key, value in params.items() if key not in ("inputResponses", "requestState")}
    if asked is not None and asked.asked:
        told["inputResponses"] = Raw(encode(answers))
    if asked is not None and asked.state is not None:
        told["requestState"] = asked.state
    return told


def refusal(asked: Asked) -> Raw | None:
    """What a modern server is told when a legacy client answered its question with an error. None: nothing can be."""
    return Raw(b'{"action":"cancel"}') if asked.method == "elicitation/create" else None


def read_answer(result: Raw | None, error: Raw | None) -> tuple[Raw | None, Raw | None]:
    """A legacy client's answer, fit to be handed on: a result that is an object, or an error with its code."""
    if result is not None and bytes(result).startswith(b"{"):
        return result, None
    try:
        if error is not None:
            _decode_error(error)
            return None, error
    except BAD_JSON:
        pass
    return None, _BAD_ANSWER


def read_answers(params: RawMap) -> RawMap:
    """`params.inputResponses` of a modern client's retry; empty where there are none.

    Raises:
        InvalidParams: No object. ParseError: One with too many members.
    """
    raw = params.get("inputResponses")
    if raw is None:
        return {}
    refuse_crowd(raw)
    try:
        answers = decode_map(raw)
    except BAD_JSON:
        raise InvalidParams("params.inputResponses must be an object") from None
    for answer in answers.values():
        if not bytes(answer).startswith(b"{"):
            raise InvalidParams("each of params.inputResponses must be an object")
    return answers


def read_state(params: RawMap) -> str:
    """`params.requestState` of a modern client's retry.

    Raises:
        InvalidParams: No string.
    """
    try:
        return _decode_string(params["requestState"])
    except BAD_JSON:
        raise InvalidParams("params.requestState must be a string") from None


def canonical(params: RawMap) -> bytes:
    """What makes a request the same request beside its name: its arguments, whatever their order and spacing.

    Large ones as they stand: a client that asks again with them must write them as before.
    """
    raw = bytes(params.get("arguments", b""))
    if not 0 < len(raw) <= MAX_CANONICAL:
        return raw
    try:
        return msgspec.json.encode(msgspec.json.decode(raw), order="deterministic")
    except BAD_JSON:
        return raw


def origin_of(call: Call) -> Origin:
    """What a `requestState` of this call is bound to."""
    return Origin(call.method, call.name, canonical(call.params))
