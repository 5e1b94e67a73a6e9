"""What a server asks of a client, in both eras' forms: who may be asked what, a question's way and its answer's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import GatewayError, InvalidParams, MissingCapability, UpstreamUnavailable
from narthex.flow.codec.capabilities import ClientCaps
from narthex.flow.codec.inputs import (
    MAX_ASKED,
    MAX_CANONICAL,
    MOST_ASKED,
    Asked,
    InputRequired,
    asks_for_input,
    canonical,
    check_asked,
    for_modern,
    input_required,
    needed,
    push_body,
    pushed,
    read_answer,
    read_answers,
    read_state,
    refusal,
    reply_body,
    with_round,
    withdrawn_id,
)
from narthex.flow.codec.jsonrpc import Raw, RawMap, decode_incoming, decode_map
from narthex.types import LOCAL, Call

EXAMPLES = Path(__file__).parent / "examples"
C = ClientCaps
ELICIT, SAMPLE, ROOTS = "elicitation/create", "sampling/createMessage", "roots/list"
EVERYTHING = int(~0)


def raw(value: object) -> Raw:
    return Raw(json.dumps(value).encode())


def raws(**members: Any) -> RawMap:
    return {key: raw(value) for key, value in members.items()}


def asked(method: str = ELICIT, params: object = None, *, key: str = "k", id_: int | str | None = None) -> Asked:
    return Asked(key, method, raw({} if params is None else params), id_)


def call(method: str = "tools/call") -> Call:
    return Call(method, {}, {}, b"1", "modern", "2026-07-28", LOCAL, "default")


# --- who may be asked what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params", "bits"),
    [
        pytest.param(ELICIT, b"{}", C.ELICITATION_FORM, id="no mode is a form"),
        pytest.param(ELICIT, b'{"mode":"form"}', C.ELICITATION_FORM, id="a form"),
        pytest.param(ELICIT, b'{"mode":"url"}', C.ELICITATION_URL, id="a URL"),
        pytest.param(ELICIT, b'{ "mode" : "url" }', C.ELICITATION_URL, id="a URL, with white space"),
        pytest.param(ELICIT, b'{"mode":"\\u0075rl"}', C.ELICITATION_URL, id="a URL, written with an escape"),
        pytest.param(ELICIT, b'{"m\\u006fde":"url"}', C.ELICITATION_URL, id="the key written with an escape"),
        pytest.param(ELICIT, b'{"x":{"mode":"url"}}', C.ELICITATION_FORM, id="a mode deeper is none"),
        pytest.param(SAMPLE, b"{}", C.SAMPLING, id="sampling"),
        pytest.param(SAMPLE, b'{"tools":[]}', C.SAMPLING | C.SAMPLING_TOOLS, id="sampling with tools"),
        pytest.param(SAMPLE, b'{"toolChoice":{}}', C.SAMPLING | C.SAMPLING_TOOLS, id="sampling with a choice"),
        pytest.param(SAMPLE, b'{"includeContext":"none"}', C.SAMPLING, id="context is a SHOULD"),
        pytest.param(ROOTS, b"{}", C.ROOTS, id="roots"),
    ],
)
def test_what_a_question_needs(method: str, params: bytes, bits: int) -> None:
    assert needed(method, Raw(params)) == bits


@pytest.mark.parametrize(
    ("method", "params"),
    [
        pytest.param(ELICIT, b'{"mode":"voice"}', id="a mode that nobody knows"),
        pytest.param(ELICIT, b'{"mode":null}', id="a mode that is null"),
        pytest.param(ELICIT, b'{"mode":1}', id="a mode that is a number"),
        pytest.param(ELICIT, b"null", id="no parameters"),
        pytest.param(ELICIT, b"[1]", id="a list"),
        pytest.param(SAMPLE, b'"x"', id="a string"),
        pytest.param("ping", b"{}", id="a ping"),
        pytest.param("tools/call", b"{}", id="what a client asks"),
        pytest.param("Elicitation/create", b"{}", id="another case"),
        pytest.param("", b"{}", id="nothing"),
        pytest.param("x" * 100_000, b"{}", id="a long name"),
    ],
)
def test_what_no_client_is_asked(method: str, params: bytes) -> None:
    with pytest.raises(UpstreamUnavailable) as refused:
        needed(method, Raw(params))
    assert refused.value.sent
    assert len(refused.value.public) < 200


@pytest.mark.parametrize(
    ("questions", "bits", "lacking"),
    [
        pytest.param([asked(ROOTS)], 0, {"roots": {}}, id="roots"),
        pytest.param([asked(ELICIT)], C.ELICITATION_URL, {"elicitation": {"form": {}}}, id="the other mode"),
        pytest.param([asked(ELICIT, {"mode": "url"})], C.ELICITATION_FORM, {"elicitation": {"url": {}}}, id="a URL"),
        pytest.param([asked(SAMPLE, {"tools": []})], C.SAMPLING, {"sampling": {"tools": {}}}, id="only its tools"),
        pytest.param(
            [asked(ROOTS), asked(SAMPLE), asked(ELICIT)],
            C.SAMPLING,
            {"roots": {}, "elicitation": {"form": {}}},
            id="all that is lacking at once, and no more",
        ),
    ],
)
def test_who_lacks_a_capability_is_told_which(questions: list[Asked], bits: int, lacking: dict[str, Any]) -> None:
    with pytest.raises(MissingCapability) as refused:
        check_asked(questions, bits)
    assert (refused.value.code, refused.value.data) == (-32021, {"requiredCapabilities": lacking})


@pytest.mark.parametrize(
    ("questions", "accepted"),
    [
        pytest.param([], True, id="nothing"),
        pytest.param([asked()] * MOST_ASKED, True, id="as many as there may be"),
        pytest.param([asked()] * (MOST_ASKED + 1), False, id="one more"),
        pytest.param([asked(ROOTS, {"x": "y" * (MAX_ASKED - 10)})], True, id="as large as it may be"),
        pytest.param([asked(ROOTS, {"x": "y" * MAX_ASKED})], False, id="larger"),
        pytest.param([asked(ROOTS, {"x": "y" * (MAX_ASKED // 2)})] * 2, False, id="larger together"),
        pytest.param([asked(ROOTS, key="k" * MAX_ASKED)], False, id="a huge key"),
    ],
)
def test_bounds(questions: list[Asked], accepted: bool) -> None:
    if accepted:
        check_asked(questions, EVERYTHING)
        return
    with pytest.raises(UpstreamUnavailable):
        check_asked(questions, EVERYTHING)


# --- a modern server's result -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        pytest.param('{"resultType":"complete"}', None, id="complete"),
        pytest.param('{"resultType":"com.example/x","inputRequests":1}', None, id="another type is not ours to read"),
        pytest.param(
            '{"resultType":"input_required","requestState":"s"}', InputRequired((), Raw(b'"s"')), id="a state alone"
        ),
        pytest.param(
            '{"resultType":"input_required","inputRequests":{"a":{"method":"roots/list"}}}',
            InputRequired((Asked("a", ROOTS, Raw(b"{}")),), None),
            id="no state, no parameters",
        ),
        pytest.param(
            '{"resultType":"input\\u005frequired","requestState":"\\u00e4","inputRequests":{}}',
            InputRequired((), Raw(b'"\\u00e4"')),
            id="escapes; a state keeps its bytes",
        ),
        pytest.param(
            '{"resultType":"input_required","inputRequests":{"b":{"method":"x","params":{"n":1.50}},"a":{"method":"y"}}}',
            InputRequired((Asked("b", "x", Raw(b'{"n":1.50}')), Asked("a", "y", Raw(b"{}"))), None),
            id="in their order, parameters as they came",
        ),
    ],
)
def test_what_a_result_asks(result: str, expected: InputRequired | None) -> None:
    assert asks_for_input(call(), decode_map(result)) == expected


@pytest.mark.parametrize(
    "result",
    [
        pytest.param('{"resultType":"input_required"}', id="neither questions nor a state"),
        pytest.param('{"resultType":"input_required","inputRequests":{}}', id="no question and no state"),
        pytest.param('{"resultType":"input_required","requestState":1}', id="a state that is no string"),
        pytest.param('{"resultType":"input_required","requestState":null}', id="a state that is null"),
        pytest.param('{"resultType":"input_required","inputRequests":[]}', id="questions in a list"),
        pytest.param('{"resultType":"input_required","inputRequests":{"a":1}}', id="a question that is no object"),
        pytest.param('{"resultType":"input_required","inputRequests":{"a":{}}}', id="a question without a method"),
        pytest.param('{"resultType":"input_required","inputRequests":{"a":{"method":1}}}', id="a method that is none"),
        pytest.param('{"resultType":7}', id="a type that is no string"),
    ],
)
def test_a_malformed_question_is_the_servers_fault(result: str) -> None:
    with pytest.raises(UpstreamUnavailable) as refused:
        asks_for_input(call(), decode_map(result))
    assert refused.value.sent


@pytest.mark.parametrize(
    ("method", "allowed"),
    [("tools/call", True), ("prompts/get", True), ("resources/read", True), ("completion/complete", False)],
)
def test_input_may_be_asked_for_on_three_methods(method: str, allowed: bool) -> None:
    members = decode_map(b'{"resultType":"input_required","requestState":"s"}')
    if allowed:
        assert asks_for_input(call(method), members) is not None
        return
    with pytest.raises(UpstreamUnavailable):
        asks_for_input(call(method), members)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("InputRequiredResult-*.json")), ids=lambda path: path.stem)
def test_examples_of_the_specification(path: Path) -> None:
    example = json.loads(path.read_bytes())
    required = asks_for_input(call(), decode_map(path.read_bytes()))
    assert required is not None
    check_asked(required.asked, EVERYTHING)
    assert {one.key: {"method": one.method, "params": json.loads(bytes(one.params))} for one in required.asked} == (
        example.get("inputRequests", {})
    )
    sealed = {"requestState": "ours"} if "requestState" in example else {}
    relayed = for_modern(decode_map(path.read_bytes()), required.state, lambda state: "ours")
    assert json.loads(relayed) == {**example, **sealed}


# --- one question, for each kind of client ------------------------------------------------------------------------

FORM = {"mode": "form", "message": "m", "requestedSchema": {"type": "object"}}
URL = {"mode": "url", "message": "m", "url": "https://example.com/"}
WITH_ID = {**URL, "elicitationId": "theirs"}
OURS = {**URL, "elicitationId": "elicitation-7"}
TASK = {"task": {"ttl": 1}}


@pytest.mark.parametrize(
    ("one", "version", "expected"),
    [
        pytest.param(asked(ELICIT, FORM), "2025-11-25", FORM, id="a form as it is"),
        pytest.param(asked(ELICIT, URL), "2025-11-25", OURS, id="a modern server's URL gets an id"),
        pytest.param(asked(ELICIT, WITH_ID), "2025-11-25", WITH_ID, id="one that has an id keeps it"),
        pytest.param(asked(ELICIT, URL), "2025-06-18", URL, id="no id before 2025-11-25"),
        pytest.param(asked(ELICIT, WITH_ID, id_=3), "2025-11-25", WITH_ID, id="a legacy server's is its own"),
        pytest.param(asked(ELICIT, URL, id_=3), "2025-11-25", URL, id="a legacy server that gave none: not made up"),
        pytest.param(asked(SAMPLE, {"mode": "url"}), "2025-11-25", {"mode": "url"}, id="sampling has no such id"),
        pytest.param(asked(ROOTS), "2025-11-25", {}, id="roots"),
        pytest.param(asked(ELICIT, {**FORM, **TASK}, id_=3), "2025-11-25", FORM, id="a form as a task is none"),
        pytest.param(asked(SAMPLE, {"a": 1, **TASK}, id_=3), "2025-11-25", {"a": 1}, id="sampling as a task is none"),
        pytest.param(asked(ELICIT, {**URL, **TASK}), "2025-11-25", OURS, id="nor is a modern server's"),
    ],
)
def test_a_legacy_client_is_asked(one: Asked, version: str, expected: dict[str, Any]) -> None:
    assert json.loads(push_body(7, one, version)) == {
        "jsonrpc": "2.0", "id": 7, "method": one.method, "params": expected,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        pytest.param(asked(ELICIT, FORM, id_=3), FORM, id="a form as it is"),
        pytest.param(asked(ELICIT, WITH_ID, id_=3), URL, id="2026-07-28 knows no elicitationId"),
        pytest.param(asked(ELICIT, {**FORM, **TASK}, id_=3), FORM, id="no task"),
        pytest.param(asked(SAMPLE, {"a": 1, **TASK}, id_=3), {"a": 1}, id="no sampling as a task"),
        pytest.param(asked(SAMPLE, {"elicitationId": 1}, id_=3), {"elicitationId": 1}, id="unknown keys pass"),
        pytest.param(asked(ROOTS, {"_meta": {"x": 1}}, id_=3), {"_meta": {"x": 1}}, id="_meta passes"),
    ],
)
def test_a_modern_client_is_asked(one: Asked, expected: dict[str, Any]) -> None:
    assert json.loads(input_required([one], "sealed")) == {
        "resultType": "input_required",
        "inputRequests": {"k": {"method": one.method, "params": expected}},
        "requestState": "sealed",
    }


@pytest.mark.parametrize("params", [b'{ "message":"\\u00e4","n":1.50 }', b'{"n":1e400}'])
def test_parameters_keep_their_bytes(params: bytes) -> None:
    one = Asked("k", ELICIT, Raw(params), 1)
    assert params in push_body(1, one, "2025-11-25")
    assert params in input_required([one], "s")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b'{"id":3,"method":"roots/list"}', Asked("k", ROOTS, Raw(b"{}"), 3), id="no parameters"),
        pytest.param(
            b'{"id":"a","method":"x","params":{"n":1.50}}', Asked("k", "x", Raw(b'{"n":1.50}'), "a"), id="a string id"
        ),
    ],
)
def test_what_a_legacy_server_pushes(data: bytes, expected: Asked) -> None:
    assert pushed(decode_incoming(data), "k") == expected


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        pytest.param(b'{"requestId":3,"reason":"x"}', 3, id="a number"),
        pytest.param(b'{"requestId":"a"}', "a", id="a string"),
        pytest.param(b"{}", None, id="none"),
        pytest.param(b'{"requestId":[1]}', None, id="another type"),
        pytest.param(b"[1]", None, id="a list"),
        pytest.param(b"null", None, id="null"),
    ],
)
def test_what_a_legacy_server_takes_back(params: bytes, expected: int | str | None) -> None:
    assert withdrawn_id(decode_incoming(b'{"method":"notifications/cancelled","params":%b}' % params)) == expected
    assert withdrawn_id(decode_incoming(b'{"method":"notifications/cancelled"}')) is None


# --- answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id_", [3, "a", 'a"\\\n', 2**70])
def test_a_server_gets_its_answer_under_its_own_id(id_: int | str) -> None:
    assert json.loads(reply_body(id_, result=Raw(b'{"a":1}'))) == {"jsonrpc": "2.0", "id": id_, "result": {"a": 1}}
    error = {"code": -1, "message": "no"}
    assert json.loads(reply_body(id_, error=raw(error))) == {"jsonrpc": "2.0", "id": id_, "error": error}


@pytest.mark.parametrize(
    ("result", "error", "kept"),
    [
        pytest.param(b'{"action":"accept"}', None, b'{"action":"accept"}', id="a result as it came"),
        pytest.param(None, b'{"code":-1,"message":"no"}', b'{"code":-1,"message":"no"}', id="an error as it came"),
        pytest.param(b"[1]", None, None, id="a result that is a list"),
        pytest.param(b"null", None, None, id="a result that is null"),
        pytest.param(b'"x"', None, None, id="a result that is a string"),
        pytest.param(None, b"{}", None, id="an error without a code"),
        pytest.param(None, b'{"code":1}', None, id="an error without a message"),
        pytest.param(None, b'{"code":"1","message":"m"}', None, id="a code that is a string"),
        pytest.param(None, b"5", None, id="an error that is a number"),
        pytest.param(None, None, None, id="neither"),
    ],
)
def test_only_a_proper_answer_is_handed_on(result: bytes | None, error: bytes | None, kept: bytes | None) -> None:
    answer, failure = read_answer(
        None if result is None else Raw(result), None if error is None else Raw(error)
    )  # fmt: skip
    assert (answer is None) is not (failure is None)
    said = bytes(answer or failure or b"")
    if kept is not None:
        assert said == kept and (answer is None) is (result is None)
    else:
        assert answer is None and json.loads(said)["code"] == -32603


def test_a_modern_server_can_be_told_of_one_refusal_alone() -> None:
    assert refusal(asked(ELICIT)) == Raw(b'{"action":"cancel"}')
    assert refusal(asked(SAMPLE)) is None
    assert refusal(asked(ROOTS)) is None


ONE = (asked(ROOTS, key="a"),)


@pytest.mark.parametrize(
    ("params", "required", "answers", "expected"),
    [
        pytest.param({"name": "x"}, None, None, {"name": "x"}, id="nothing to do"),
        pytest.param(
            {"name": "x", "requestState": "s", "inputResponses": {}},
            None,
            None,
            {"name": "x"},
            id="not the client's",
        ),
        pytest.param(
            {"name": "x"},
            InputRequired(ONE, Raw(b'"s"')),
            {"a": Raw(b'{"roots":[]}')},
            {"name": "x", "inputResponses": {"a": {"roots": []}}, "requestState": "s"},
            id="answers and a state",
        ),
        pytest.param(
            {"name": "x"},
            InputRequired(ONE, None),
            {"a": Raw(b"{}")},
            {"name": "x", "inputResponses": {"a": {}}},
            id="no state came: none goes back",
        ),
        pytest.param(
            {"name": "x"}, InputRequired((), Raw(b'"s"')), {}, {"name": "x", "requestState": "s"}, id="a state alone"
        ),
        pytest.param(
            {"requestState": "forged", "inputResponses": {"b": 1}},
            InputRequired(ONE, None),
            {"a": Raw(b"{}")},
            {"inputResponses": {"a": {}}},
            id="a state of the client's is never taken for the server's",
        ),
    ],
)
def test_the_parameters_of_the_next_round(
    params: dict[str, Any], required: InputRequired | None, answers: RawMap | None, expected: dict[str, Any]
) -> None:
    told = with_round(raws(**params), required, answers)
    assert {key: json.loads(bytes(value)) for key, value in told.items()} == expected


def test_a_state_goes_back_byte_for_byte() -> None:
    state = Raw(b'"\\u00e4\\/"')
    assert with_round({}, InputRequired((), state), {})["requestState"] == state


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        pytest.param(b"{}", {}, id="none"),
        pytest.param(b'{"inputResponses":{}}', {}, id="an empty object"),
        pytest.param(b'{"inputResponses":{"a":{ "x":1 },"b":{}}}', {"a": b'{ "x":1 }', "b": b"{}"}, id="as written"),
        pytest.param(b'{"inputResponses" : { "a" :  {} } }', {"a": b"{}"}, id="white space"),
    ],
)
def test_answers_of_a_retry(params: bytes, expected: dict[str, bytes]) -> None:
    assert {key: bytes(value) for key, value in read_answers(decode_map(params)).items()} == expected


@pytest.mark.parametrize("answers", ["null", "[]", '"x"', "1", '{"a":null}', '{"a":[]}', '{"a":"x"}', '{"a":{},"b":1}'])
def test_answers_that_are_none(answers: str) -> None:
    with pytest.raises(InvalidParams):
        read_answers(decode_map(f'{{"inputResponses":{answers}}}'))


@pytest.mark.parametrize(("state", "expected"), [('"a"', "a"), ('""', ""), ('"\\u0061"', "a")])
def test_the_state_of_a_retry(state: str, expected: str) -> None:
    assert read_state({"requestState": Raw(state.encode())}) == expected


@pytest.mark.parametrize("state", ["null", "1", "{}", '["a"]', "true"])
def test_a_state_that_is_no_string(state: str) -> None:
    with pytest.raises(InvalidParams):
        read_state({"requestState": Raw(state.encode())})


# --- is it the same request? --------------------------------------------------------------------------------------


def form(arguments: bytes | None) -> bytes:
    return canonical({} if arguments is None else {"arguments": Raw(arguments)})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(b'{"a":1,"b":2}', b'{ "b": 2, "a": 1 }', True, id="order and white space"),
        pytest.param(b'{"a":{"x":1,"y":[{"p":1,"q":2}]}}', b'{"a":{"y":[{"q":2,"p":1}],"x":1}}', True, id="deeper too"),
        pytest.param(b'{"a":"\\u0061\\/"}', b'{"a":"a/"}', True, id="escapes"),
        pytest.param(b'{"a":1}', b'{"a":2}', False, id="another value"),
        pytest.param(b'{"a":1}', b'{"a":"1"}', False, id="another type"),
        pytest.param(b'{"a":1}', b'{"a":true}', False, id="true is not one"),
        pytest.param(b'{"a":null}', b"{}", False, id="null is not absent"),
        pytest.param(b'{"a":[1,2]}', b'{"a":[2,1]}', False, id="a list has an order"),
        pytest.param(b"{}", None, False, id="empty is not absent"),
        pytest.param(b'{"a":99999999999999999999999}', b'{"a":99999999999999999999998}', False, id="large numbers"),
    ],
)
def test_arguments_are_the_same(one: bytes, other: bytes | None, same: bool) -> None:
    assert (form(one) == form(other)) is same


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(b'{"a":1e400}', id="a number without end"),
        pytest.param(b'"\\ud800"', id="half a character"),
        pytest.param(b"[" * 5000 + b"]" * 5000, id="deep"),
        pytest.param(b'{"b":1, "a":"' + b"x" * MAX_CANONICAL + b'"}', id="large"),
    ],
)
def test_arguments_that_are_not_brought_into_a_form_stand_as_they_are(arguments: bytes) -> None:
    assert form(arguments) == arguments


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(value=JSON)
def test_what_another_encoder_writes_is_the_same(value: Any) -> None:
    written = json.dumps(value, indent=2).encode()
    again = json.dumps(json.loads(written), sort_keys=True, ensure_ascii=False).encode()
    assert form(written) == form(again)


@given(params=JSON, method=st.sampled_from([ELICIT, SAMPLE, ROOTS, "x"]), bits=st.integers(0, 63))
def test_whatever_is_asked_is_asked_or_refused(params: Any, method: str, bits: int) -> None:
    one = Asked("k", method, raw(params), 1)
    try:
        check_asked([one], bits)
    except GatewayError:
        return
    assert json.loads(push_body(1, one, "2025-11-25"))["method"] == method
    assert json.loads(input_required([one], "s"))["inputRequests"]["k"]["method"] == method
