"""One call in two dialects: client era x upstream era, for requests, results, errors and notifications."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import GatewayError, UpstreamUnavailable
from narthex.flow.codec.bridge import (
    NeedsInput,
    client_bits,
    client_capabilities,
    error_code,
    outgoing_body,
    progress_for,
    response_parts,
    translate_error,
)
from narthex.flow.codec.capabilities import TASKS_EXTENSION, ClientCaps, bits_of
from narthex.flow.codec.failures import code_for
from narthex.flow.codec.handshake import CLIENT_INFO
from narthex.flow.codec.inputs import check_asked
from narthex.flow.codec.jsonrpc import Raw, RawMap, decode_incoming
from narthex.flow.codec.revisions import META_CAPABILITIES, META_CLIENT, META_LOG_LEVEL, META_TASK, META_VERSION
from narthex.flow.upstream.port import Dialect
from narthex.types import LOCAL, Call, Era, Session

EXAMPLES = Path(__file__).parent / "examples"
VERSIONS: dict[Era, str] = {"legacy": "2025-11-25", "modern": "2026-07-28"}
AGENT = {"name": "agent", "version": "1"}
MODERN = {META_VERSION: "2026-07-28", META_CAPABILITIES: {}, META_CLIENT: AGENT}
OURS = {META_VERSION: "2026-07-28", META_CAPABILITIES: {}, META_CLIENT: CLIENT_INFO}
TRACE = {"traceparent": "00-1-2-01"}
ERAS: list[Era] = ["legacy", "modern"]
each_pair = pytest.mark.parametrize(
    ("client", "server"),
    [pytest.param(client, server, id=f"{client} client, {server} server") for client in ERAS for server in ERAS],
)


def raws(members: dict[str, Any]) -> RawMap:
    return {key: Raw(json.dumps(value).encode()) for key, value in members.items()}


def call(
    era: Era, meta: dict[str, Any] | None = None, *, method: str = "tools/call", id_json: bytes = b"1", **params: Any
) -> Call:
    """A call as the front makes it: `_meta` stands in the parameters, and one level decoded beside them."""
    members = params if meta is None else {**params, "_meta": meta}
    return Call(method, raws(members), raws(meta or {}), id_json, era, VERSIONS[era], LOCAL, "default")


def sent(call: Call, server: Era, id_: int = 42) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(outgoing_body(call, call.params, id_, Dialect(server, VERSIONS[server])))
    return found


def answered(call: Call, server: Era, members: bytes) -> dict[str, Any]:
    """What the client gets when the server's message holds `members`; no key may stand twice in it."""
    message = decode_incoming(b'{"jsonrpc":"2.0","id":42,%b}' % members)
    body = b"".join(response_parts(call, server, message)[0])
    found: dict[str, Any] = json.loads(body, object_pairs_hook=once)
    return found


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), f"a key stands twice: {pairs}"
    return dict(pairs)


# --- requests -----------------------------------------------------------------------------------------------------


@each_pair
def test_what_the_agent_was_asked_to_do_is_told_to_no_server(client: Era, server: Era) -> None:
    own = MODERN if client == "modern" else {}
    with_task = call(client, {**own, "x": 1, META_TASK: "book a trip for ada"}, name="t")
    assert sent(with_task, server) == sent(call(client, {**own, "x": 1}, name="t"), server)
    assert META_TASK in with_task.meta, "it is for the record"


@pytest.mark.parametrize(
    ("client", "server", "meta", "expected"),
    [
        pytest.param("legacy", "legacy", None, None, id="legacy to legacy: no _meta stays none"),
        pytest.param("legacy", "legacy", {}, {}, id="legacy to legacy: an empty one stays as it is"),
        pytest.param("legacy", "legacy", TRACE, TRACE, id="legacy to legacy: unknown keys pass"),
        pytest.param(
            "legacy", "legacy", {"progressToken": "t"}, {"progressToken": 42}, id="legacy to legacy: our progress token"
        ),
        pytest.param("legacy", "modern", None, OURS, id="legacy to modern: our version, capabilities, name"),
        pytest.param("legacy", "modern", TRACE, {**TRACE, **OURS}, id="legacy to modern: unknown keys pass"),
        pytest.param(
            "legacy", "modern", {"progressToken": 1}, {"progressToken": 42, **OURS}, id="legacy to modern: progress"
        ),
        pytest.param(
            "legacy",
            "modern",
            {META_VERSION: "1999-01-01", META_CAPABILITIES: {"sampling": {}}, META_LOG_LEVEL: "debug"},
            OURS,
            id="legacy to modern: what a legacy client may not say is dropped",
        ),
        pytest.param("modern", "legacy", MODERN, None, id="modern to legacy: the protocol's own keys are dropped"),
        pytest.param("modern", "legacy", {**MODERN, **TRACE}, TRACE, id="modern to legacy: unknown keys pass"),
        pytest.param(
            "modern",
            "legacy",
            {**MODERN, META_LOG_LEVEL: "debug", "progressToken": [1]},
            {"progressToken": 42},
            id="modern to legacy: our progress token, no log level",
        ),
        pytest.param("modern", "modern", MODERN, MODERN, id="modern to modern: the client keeps its name"),
        pytest.param("modern", "modern", {**MODERN, **TRACE}, {**MODERN, **TRACE}, id="modern to modern: unknown keys"),
        pytest.param(
            "modern",
            "modern",
            {META_VERSION: "2026-07-28", META_CAPABILITIES: {}},
            OURS,
            id="modern to modern: without a name, ours",
        ),
        pytest.param(
            "modern",
            "modern",
            {**MODERN, META_CAPABILITIES: {"elicitation": {}, "sampling": {}}},
            {**MODERN, META_CAPABILITIES: {"elicitation": {}, "sampling": {}}},
            id="modern to modern: what the client can be asked",
        ),
        pytest.param(
            "modern",
            "modern",
            {**MODERN, META_LOG_LEVEL: "debug", "progressToken": "t"},
            {**MODERN, META_LOG_LEVEL: "debug", "progressToken": 42},
            id="modern to modern: our progress token, its log level",
        ),
    ],
)
def test_meta_upstream(client: Era, server: Era, meta: dict[str, Any] | None, expected: dict[str, Any] | None) -> None:
    body = sent(call(client, meta, name="add", arguments={"a": 1}), server)
    assert body["params"].pop("_meta", None) == expected
    assert body == {
        "jsonrpc": "2.0",
        "id": 42,
        "method": "tools/call",
        "params": {"name": "add", "arguments": {"a": 1}},
    }


@each_pair
def test_arguments_keep_their_bytes(client: Era, server: Era) -> None:
    arguments = b'{ "a":1.50,"b":"\\u00e4","c":1e400,"a":2 }'
    one = call(client, MODERN if client == "modern" else None)
    params = {**one.params, "name": Raw(b'"add"'), "arguments": Raw(arguments)}
    assert arguments in outgoing_body(one, params, 1, Dialect(server, VERSIONS[server]))


@each_pair
def test_the_call_itself_is_not_changed(client: Era, server: Era) -> None:
    one = call(client, {**MODERN, "progressToken": 1, **TRACE}, name="add")
    params, meta = dict(one.params), dict(one.meta)
    sent(one, server)
    assert (one.params, one.meta) == (params, meta)


@given(
    meta=st.dictionaries(st.text("ab/.", min_size=1, max_size=6), st.integers() | st.text("x", max_size=3), max_size=4),
    token=st.none() | st.integers() | st.text(max_size=5),
    client=st.sampled_from(ERAS),
    server=st.sampled_from(ERAS),
    id_=st.integers(1, 2**53),
)
def test_unknown_keys_pass_and_a_progress_token_is_our_id(
    meta: dict[str, Any], token: Any, client: Era, server: Era, id_: int
) -> None:
    whole = meta | ({} if token is None else {"progressToken": token}) | (MODERN if client == "modern" else {})
    body = sent(call(client, whole, name="x"), server, id_)
    found = body["params"].get("_meta", {})
    assert {key: value for key, value in found.items() if key in meta} == meta
    assert found.get("progressToken") == (None if token is None else id_)
    assert (META_VERSION in found) is (server == "modern")
    assert body["id"] == id_


# --- results ------------------------------------------------------------------------------------------------------

COMPLETE = {"resultType": "complete"}
UNCACHED = {"ttlMs": 0, "cacheScope": "private"}


@pytest.mark.parametrize(
    ("client", "server", "method", "result", "added"),
    [
        pytest.param("legacy", "legacy", "tools/call", '{"content":[]}', {}, id="legacy to legacy: as it came"),
        pytest.param("legacy", "legacy", "resources/read", '{"contents":[]}', {}, id="a read too"),
        pytest.param("legacy", "modern", "tools/call", '{"resultType":"complete","content":[]}', {}, id="unknown keys"),
        pytest.param("modern", "modern", "tools/call", '{"resultType":"complete","content":[]}', {}, id="modern: same"),
        pytest.param(
            "modern", "modern", "resources/read", '{"resultType":"complete","ttlMs":5}', {}, id="its lifetime"
        ),
        pytest.param(
            "modern", "modern", "tools/call", '{"resultType":"com.example/x"}', {}, id="a type we do not know"
        ),
        pytest.param("modern", "legacy", "tools/call", '{"content":[]}', COMPLETE, id="modern of legacy: resultType"),
        pytest.param("modern", "legacy", "prompts/get", '{"messages":[]}', COMPLETE, id="a prompt too"),
        pytest.param("modern", "legacy", "completion/complete", '{"completion":{}}', COMPLETE, id="a completion too"),
        pytest.param("modern", "legacy", "tools/call", "{}", COMPLETE, id="an empty object"),
        pytest.param("modern", "legacy", "tools/call", "{ \n}", COMPLETE, id="an empty object with white space"),
        pytest.param("modern", "legacy", "tools/call", '{ "a":1}', COMPLETE, id="white space before the first key"),
        pytest.param(
            "modern",
            "legacy",
            "resources/read",
            '{"contents":[]}',
            {**COMPLETE, **UNCACHED},
            id="a read may not be cached",
        ),
        pytest.param("modern", "legacy", "resources/read", "{}", {**COMPLETE, **UNCACHED}, id="an empty read"),
        pytest.param(
            "modern", "legacy", "tools/call", '{"resultType":"complete"}', {}, id="it knew resultType already"
        ),
        pytest.param(
            "modern", "legacy", "resources/read", '{"ttlMs":5,"cacheScope":"public"}', COMPLETE, id="and a lifetime"
        ),
        pytest.param(
            "modern", "legacy", "resources/read", '{"resultType":"complete"}', UNCACHED, id="but not a lifetime"
        ),
        pytest.param(
            "modern",
            "legacy",
            "tools/call",
            '{"structuredContent":{"resultType":"x","ttlMs":1}}',
            COMPLETE,
            id="the names deeper in the result count for nothing",
        ),
        pytest.param(
            "modern", "legacy", "tools/call", '{"content":[{"text":"\\"resultType\\""}]}', COMPLETE, id="nor in a text"
        ),
        pytest.param("modern", "legacy", "tools/call", '{"com.example/x":[1.0]}', COMPLETE, id="unknown keys pass"),
    ],
)
def test_results(client: Era, server: Era, method: str, result: str, added: dict[str, Any]) -> None:
    body = answered(call(client, method=method), server, f'"result":{result}'.encode())
    assert body == {"jsonrpc": "2.0", "id": 1, "result": {**json.loads(result), **added}}


@each_pair
def test_a_result_passes_byte_for_byte(client: Era, server: Era) -> None:
    inner = b'"content" : [ {"text":"\\u00e4\\/ \xc3\xa4"} ], "x":1.50e0 }'
    message = decode_incoming(b'{"id":42,"result":{"resultType":"complete",%b}' % inner)
    body = b"".join(response_parts(call(client), server, message)[0])
    assert body.endswith(inner + b"}")


@each_pair
@pytest.mark.parametrize("result", [None, "null", "[]", '"x"', "1", "true"])
def test_a_result_that_is_no_object_is_the_servers_fault(client: Era, server: Era, result: str | None) -> None:
    with pytest.raises(UpstreamUnavailable) as refused:
        answered(call(client), server, b'"x":1' if result is None else f'"result":{result}'.encode())
    assert refused.value.sent, "it may have acted"


INPUT_REQUIRED = [
    pytest.param(json.dumps(json.loads(path.read_bytes())), id=path.stem)
    for path in sorted(EXAMPLES.glob("InputRequiredResult-*.json"))
] + [
    pytest.param('{"requestState":"s", "resultType" :\n"input_required" }', id="white space, not the first member"),
    pytest.param('{"requestState":"s","resultType":"input\\u005frequired"}', id="written with an escape"),
    pytest.param('{"requestState":"s","result\\u0054ype":"input\\u005Frequired"}', id="both written with an escape"),
]


@pytest.mark.parametrize("result", INPUT_REQUIRED)
@pytest.mark.parametrize("client", ERAS)
def test_a_modern_server_that_asks_for_input_has_not_answered_yet(client: Era, result: str) -> None:
    with pytest.raises(NeedsInput) as need:
        answered(call(client), "modern", f'"result":{result}'.encode())
    members = json.loads(result)
    assert [one.key for one in need.value.required.asked] == list(members.get("inputRequests", {}))
    state = need.value.required.state
    assert (None if state is None else json.loads(bytes(state))) == members.get("requestState")
    assert {key: json.loads(bytes(value)) for key, value in need.value.members.items()} == members


@pytest.mark.parametrize("result", INPUT_REQUIRED)
def test_a_legacy_server_has_no_right_to_ask_a_modern_client_so(result: str) -> None:
    with pytest.raises(UpstreamUnavailable) as refused:
        answered(call("modern"), "legacy", f'"result":{result}'.encode())
    assert refused.value.sent


@pytest.mark.parametrize("method", ["completion/complete", "tools/list"])
def test_input_is_asked_for_on_no_other_method(method: str) -> None:
    asks = b'"result":{"resultType":"input_required","requestState":"s"}'
    with pytest.raises(UpstreamUnavailable):
        answered(call("modern", method=method), "modern", asks)


# --- what a client can be asked -----------------------------------------------------------------------------------

SESSION = Session("s", "2025-11-25", 2**40, int(ClientCaps.ELICITATION_FORM | ClientCaps.ROOTS | ClientCaps.TASKS))


@pytest.mark.parametrize(
    "declared",
    [
        pytest.param("{}", id="nothing"),
        pytest.param('{ "elicitation":{"com.example/x":1.50} }', id="unknown keys of what we carry"),
        pytest.param(json.dumps({"roots": {}, "extensions": {TASKS_EXTENSION: {}}}), id="tasks"),
    ],
)
def test_a_modern_client_can_be_asked_what_it_says(declared: str) -> None:
    one = call("modern")
    one.meta[META_CAPABILITIES] = Raw(declared.encode())
    assert bytes(client_capabilities(one)) == declared.encode(), "in its own words"
    assert client_bits(one) == bits_of(declared.encode()) & ~ClientCaps.TASKS_EXTENSION


def test_a_legacy_client_can_be_asked_what_it_said_when_its_session_began() -> None:
    one = call("legacy").but(session=SESSION)
    assert json.loads(bytes(client_capabilities(one))) == {"elicitation": {"form": {}}, "roots": {}}
    assert client_bits(one) == SESSION.capabilities
    assert sent(one, "modern")["params"]["_meta"][META_CAPABILITIES] == {"elicitation": {"form": {}}, "roots": {}}


def test_a_client_without_a_session_can_be_asked_nothing() -> None:
    assert (bytes(client_capabilities(call("legacy"))), client_bits(call("legacy"))) == (b"{}", 0)


URLS = [{"mode": "url", "elicitationId": "e", "url": "https://example.com/", "message": "m"}] * 2


def test_a_modern_client_gets_url_elicitation_as_a_question() -> None:
    error = {"code": -32042, "message": "m", "data": {"elicitations": URLS}}
    with pytest.raises(NeedsInput) as need:
        answered(call("modern"), "legacy", b'"error":%b' % json.dumps(error).encode())
    check_asked(need.value.required.asked, int(ClientCaps.ELICITATION_URL))
    asks = {"method": "elicitation/create", "params": {"mode": "url", "url": "https://example.com/", "message": "m"}}
    assert need.value.required.state is None
    assert {key: json.loads(bytes(value)) for key, value in need.value.members.items()} == {
        "resultType": "input_required",
        "inputRequests": {"1": asks, "2": asks},
    }


@pytest.mark.parametrize(
    ("method", "error"),
    [
        pytest.param("tools/call", {"code": -32042, "message": "m"}, id="no data"),
        pytest.param("tools/call", {"code": -32042, "message": "m", "data": {"elicitations": []}}, id="none"),
        pytest.param("tools/call", {"code": -32042, "message": "m", "data": {"elicitations": [1]}}, id="no objects"),
        pytest.param("tools/call", {"code": -32042, "message": "m", "data": {"elicitations": [{}]}}, id="a form"),
        pytest.param(
            "completion/complete", {"code": -32042, "message": "m", "data": {"elicitations": URLS}}, id="a completion"
        ),
    ],
)
def test_url_elicitation_that_cannot_be_asked_is_the_servers_fault(method: str, error: dict[str, Any]) -> None:
    with pytest.raises(UpstreamUnavailable) as refused:
        answered(call("modern", method=method), "legacy", b'"error":%b' % json.dumps(error).encode())
    assert refused.value.sent


@pytest.mark.parametrize(
    "result",
    [
        pytest.param('{"resultType":"complete","structuredContent":{"resultType":"input_required"}}', id="deeper"),
        pytest.param('{"resultType":"complete","content":[{"text":"\\"input_required\\""}]}', id="in a text"),
        pytest.param('{"resultType":"complete","state":"input_required"}', id="under another key"),
        pytest.param('{"resultType":"complete","content":[{"text":"\\u00e4"}]}', id="an escape alone"),
    ],
)
@each_pair
def test_what_only_mentions_input_required_passes(client: Era, server: Era, result: str) -> None:
    assert answered(call(client), server, f'"result":{result}'.encode())["result"] == json.loads(result)


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
@pytest.mark.parametrize("client", ERAS)
def test_missing_members_of_a_modern_server_are_not_made_up(client: Era, method: str) -> None:
    assert answered(call(client, method=method), "modern", b'"result":{}')["result"] == {}


@each_pair
@pytest.mark.parametrize(
    ("members", "said"),
    [
        pytest.param(b'"result":{"isError":true}', True, id="true"),
        pytest.param(b'"result":{"isError":false}', False, id="false"),
        pytest.param(b'"result":{}', False, id="not said"),
        pytest.param(b'"result":{"structuredContent":{"isError":true}}', False, id="deeper"),
        pytest.param(b'"error":{"code":1,"message":"isError"}', False, id="an error is none of the tool"),
    ],
)
def test_whether_the_tool_says_that_it_failed(client: Era, server: Era, members: bytes, said: bool) -> None:
    message = decode_incoming(b'{"jsonrpc":"2.0","id":42,%b}' % members)
    assert response_parts(call(client), server, message)[1] is said


# --- ids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id_", "written"),
    [
        pytest.param(1, b"1", id="a number"),
        pytest.param(0, b"0", id="zero"),
        pytest.param(-1, b"-1", id="a negative number"),
        pytest.param(2**70, b"%d" % 2**70, id="more than 64 bits"),
        pytest.param("1", b'"1"', id="a string stays a string"),
        pytest.param("", b'""', id="an empty string"),
        pytest.param('a"\\\n', b'"a\\"\\\\\\n"', id="what needs escapes"),
        pytest.param("ä\u2028", '"ä\u2028"'.encode(), id="not ASCII"),
    ],
)
@each_pair
def test_the_client_gets_its_own_id(client: Era, server: Era, id_: int | str, written: bytes) -> None:
    one = call(client, MODERN if client == "modern" else None, id_json=written)
    assert answered(one, server, b'"result":{"resultType":"complete"}')["id"] == id_
    assert answered(one, server, b'"error":{"code":1,"message":"x"}')["id"] == id_
    assert sent(one, server, 42)["id"] == 42


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "error", "expected"),
    [
        pytest.param("legacy", {"code": -32002, "message": "m"}, None, id="legacy: -32002 is known"),
        pytest.param("legacy", {"code": -32042, "message": "m", "data": {"x": 1}}, None, id="legacy: -32042 is known"),
        pytest.param("legacy", {"code": -32602, "message": "m", "com.example/x": 1}, None, id="legacy: unknown keys"),
        pytest.param("modern", {"code": -32602, "message": "m", "com.example/x": 1}, None, id="modern: unknown keys"),
        pytest.param(
            "modern", {"code": -1, "message": "m", "data": [1, None]}, None, id="modern: a code of the server"
        ),
        pytest.param("modern", {"code": -31001, "message": "m"}, None, id="modern: one like ours"),
        pytest.param("modern", {"code": 5}, None, id="modern: without a message"),
        pytest.param(
            "modern", {"code": -32002, "message": "m"}, {"code": -32602, "message": "m"}, id="modern: -32002 is -32602"
        ),
        pytest.param(
            "modern",
            {"code": -32002, "message": "m", "data": {"uri": "a:b"}},
            {"code": -32602, "message": "m", "data": {"uri": "a:b"}},
            id="modern: -32002 keeps its data",
        ),
    ],
)
@pytest.mark.parametrize("server", ERAS)
def test_errors(client: Era, server: Era, error: dict[str, Any], expected: dict[str, Any] | None) -> None:
    body = answered(call(client), server, b'"error":%b' % json.dumps(error).encode())
    assert body == {"jsonrpc": "2.0", "id": 1, "error": expected or error}


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(b"null", id="null"),
        pytest.param(b'"x"', id="a string"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no code"),
        pytest.param(b'{"code":"-32002"}', id="a code that is a string"),
        pytest.param(b'{"code":1.5,"message":""}', id="a code that is a fraction"),
        pytest.param(b'{"code":1,"message":{}}', id="a message that is no string"),
    ],
)
@each_pair
def test_a_malformed_error_is_the_servers_fault(client: Era, server: Era, error: bytes) -> None:
    with pytest.raises(UpstreamUnavailable) as refused:
        answered(call(client), server, b'"error":' + error)
    assert refused.value.sent
    assert error_code(Raw(error)) == -32603


@given(code=st.integers(-(2**63), 2**63 - 1), client=st.sampled_from(ERAS), server=st.sampled_from(ERAS))
def test_a_code_is_what_it_was_but_for_those_of_the_table(code: int, client: Era, server: Era) -> None:
    error = Raw(b'{"code":%d,"message":"m"}' % code)
    assert error_code(error) == code
    if code_for(client, server, code) == code and (client, code) != ("modern", -32042):
        assert translate_error(client, server, error) == bytes(error)


@pytest.mark.parametrize("name", ["HeaderMismatchError", "MissingRequiredClientCapabilityError"])
@each_pair
def test_examples_of_errors_pass_with_all_that_they_say(client: Era, server: Era, name: str) -> None:
    example = json.loads((EXAMPLES / f"{name}.json").read_bytes())
    code = example["error"]["code"] = code_for(client, server, example["error"]["code"])
    asked = json.loads((EXAMPLES / f"{name}.json").read_bytes())["error"]
    assert answered(call(client), server, b'"error":%b' % json.dumps(asked).encode()) == example | {"id": 1}
    assert (code == asked["code"]) is (client == server)


# --- notifications ------------------------------------------------------------------------------------------------

PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":42,"progress":1.0,"x":[1]}}'
LOG = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"\\u00e4"}}'
ELICITED = b'{"jsonrpc":"2.0","method":"notifications/elicitation/complete","params":{"elicitationId":"e"}}'
LOGGED = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "ä"}}


def told(call: Call, data: bytes, server: Era | None = None) -> dict[str, Any] | None:
    body = progress_for(call, decode_incoming(data), server or call.era)
    return None if body is None else json.loads(body)


@pytest.mark.parametrize("token", ["t", 0, 7, "42", 2**60], ids=repr)
@pytest.mark.parametrize("era", ERAS)
def test_progress_carries_the_clients_own_token(era: Era, token: int | str) -> None:
    assert told(call(era, {"progressToken": token}), PROGRESS) == {
        "jsonrpc": "2.0",
        "method": "notifications/progress",
        "params": {"progressToken": token, "progress": 1.0, "x": [1]},
    }


@pytest.mark.parametrize(
    ("era", "meta", "data", "expected"),
    [
        pytest.param("legacy", {}, PROGRESS, None, id="progress that nobody asked for"),
        pytest.param("modern", MODERN, PROGRESS, None, id="progress that no modern client asked for"),
        pytest.param("legacy", {}, LOG, LOGGED, id="a log line, legacy"),
        pytest.param("modern", MODERN, LOG, None, id="a log line, modern: only when asked"),
        pytest.param("modern", {**MODERN, META_LOG_LEVEL: "info"}, LOG, LOGGED, id="a log line, modern, asked"),
        pytest.param("legacy", {}, b'{"method":"notifications/tools/list_changed"}', None, id="a list has changed"),
        pytest.param("legacy", {}, b'{"method":"notifications/cancelled","params":{}}', None, id="cancelled"),
        pytest.param("legacy", {}, ELICITED, json.loads(ELICITED), id="a URL was opened"),
        pytest.param("modern", MODERN, ELICITED, None, id="a URL was opened: 2026-07-28 knows no such notification"),
        pytest.param("legacy", {}, b'{"method":"notifications/resources/updated","params":{}}', None, id="updated"),
        pytest.param("legacy", {}, b'{"method":"notifications/x","params":[]}', None, id="unknown, and no object"),
        pytest.param("legacy", {}, b'{"method":"tools/call","params":{}}', None, id="a request without an id"),
    ],
)
def test_notifications(era: Era, meta: dict[str, Any], data: bytes, expected: dict[str, Any] | None) -> None:
    assert told(call(era, meta), data) == expected


@pytest.mark.parametrize("line", ['{"method":"notifications/com.example.x","params":{"ä":[1.0]}}', '{"method":"x/y"}'])
@each_pair
def test_an_extensions_notification_passes_whole_within_an_era(client: Era, server: Era, line: str) -> None:
    passed = told(call(client, MODERN if client == "modern" else {}), line.encode(), server)
    assert passed == ({"jsonrpc": "2.0", **json.loads(line)} if client == server else None)


@pytest.mark.parametrize(
    "method", ["notifications/progress", "notifications/message", "notifications/elicitation/complete"]
)
@pytest.mark.parametrize("params", ["", ',"params":null', ',"params":[1]', ',"params":"x"', ',"params":1'])
@pytest.mark.parametrize("era", ERAS)
def test_a_notification_without_an_object_is_for_nobody(era: Era, method: str, params: str) -> None:
    one = call(era, {META_LOG_LEVEL: "debug", "progressToken": 1})
    assert told(one, f'{{"jsonrpc":"2.0","method":"{method}"{params}}}'.encode()) is None


@pytest.mark.parametrize("name", ["ProgressNotification", "LoggingMessageNotification"])
def test_examples_of_notifications_pass(name: str) -> None:
    example = json.loads((EXAMPLES / f"{name}.json").read_bytes())
    token = example["params"].get("progressToken", "t")
    one = call("modern", {META_LOG_LEVEL: "debug", "progressToken": token})
    assert told(one, (EXAMPLES / f"{name}.json").read_bytes()) == example


# --- whatever comes -----------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["input_required", "complete", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["resultType", "ttlMs", "code", "message", "a"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(
    members=st.dictionaries(st.sampled_from(["result", "error"]), JSON),
    client=st.sampled_from(ERAS),
    server=st.sampled_from(ERAS),
    method=st.sampled_from(["tools/call", "resources/read"]),
)
def test_every_answer_is_relayed_or_refused(members: dict[str, Any], client: Era, server: Era, method: str) -> None:
    data = json.dumps({"x": 1, **members})[1:-1].encode()
    try:
        body = answered(call(client, method=method), server, data)
    except GatewayError:
        return
    assert body["id"] == 1
    assert ("result" in body) is not ("error" in body)
    if client == "modern" and server == "legacy" and "result" in body:
        assert body["result"]["resultType"] != "input_required"
        assert method != "resources/read" or "ttlMs" in body["result"]
