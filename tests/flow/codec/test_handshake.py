"""The handshake as tables: what is sent, which answers make a dialect, which do not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import UpstreamUnavailable
from narthex.flow.codec import handshake
from narthex.flow.codec.jsonrpc import Incoming, Raw, decode_incoming
from narthex.flow.upstream.port import Dialect

INFO = "io.modelcontextprotocol/serverInfo"


def raw(value: Any) -> Raw:
    return Raw(json.dumps(value).encode())


def test_discover_names_version_capabilities_and_client() -> None:
    body = json.loads(handshake.discover_body(7))
    assert body == {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "server/discover",
        "params": {
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": handshake.CLIENT_INFO,
            }
        },
    }


def test_initialize_declares_no_capability() -> None:
    body = json.loads(handshake.initialize_body(3))
    assert body["method"] == "initialize"
    assert body["id"] == 3
    assert body["params"] == {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": handshake.CLIENT_INFO,
    }
    assert json.loads(handshake.initialize_body(3, "2024-11-05"))["params"]["protocolVersion"] == "2024-11-05"


def test_cancelled_names_the_request_and_is_no_request() -> None:
    body = json.loads(handshake.cancelled_body(9, 'the "client" left\n'))
    assert body["params"] == {"requestId": 9, "reason": 'the "client" left\n'}
    assert "id" not in body
    assert b"\n" not in handshake.cancelled_body(9, "a\nb"), "one message, one line"


def test_initialized_is_a_notification() -> None:
    assert json.loads(handshake.INITIALIZED) == {"jsonrpc": "2.0", "method": "notifications/initialized"}


def test_discover_gives_the_highest_mutual_version() -> None:
    dialect = handshake.dialect_from_discover(
        raw(
            {
                "resultType": "complete",
                "supportedVersions": ["2099-01-01", "2026-07-28", "2025-11-25"],
                "capabilities": {"tools": {"listChanged": True}},
                "instructions": "be kind",
                "ttlMs": 0,
                "cacheScope": "public",
                "_meta": {INFO: {"name": "x", "version": "1"}},
            }
        )
    )
    assert (dialect.era, dialect.version, dialect.session_id) == ("modern", "2026-07-28", None)
    assert dialect.capabilities == {"tools": {"listChanged": True}}
    assert dialect.server_info == {"name": "x", "version": "1"}
    assert dialect.instructions == "be kind"


@pytest.mark.parametrize(
    "result",
    [
        pytest.param({"supportedVersions": ["2025-11-25"]}, id="only legacy versions"),
        pytest.param({"supportedVersions": ["2099-01-01"]}, id="only a later version"),
        pytest.param({"supportedVersions": []}, id="no version"),
        pytest.param({}, id="versions missing"),
        pytest.param({"supportedVersions": "2026-07-28"}, id="versions are no list"),
        pytest.param({"supportedVersions": ["2026-07-28"], "capabilities": []}, id="capabilities are no object"),
        pytest.param({"supportedVersions": ["2026-07-28"], "instructions": 1}, id="instructions are no text"),
        pytest.param({"supportedVersions": ["2026-07-28"], "_meta": "x"}, id="_meta is no object"),
        pytest.param([], id="no object"),
    ],
)
def test_discover_refuses(result: Any) -> None:
    with pytest.raises(UpstreamUnavailable) as caught:
        handshake.dialect_from_discover(raw(result))
    assert not caught.value.sent


@pytest.mark.parametrize(
    ("offered", "wanted"),
    [
        pytest.param(["2025-11-25"], True, id="an old version"),
        pytest.param(["2024-11-05", "2099-01-01"], True, id="an old one and one we do not know"),
        pytest.param(["2025-11-25", "2026-07-28"], False, id="both eras"),
        pytest.param(["2026-07-28"], False, id="modern"),
        pytest.param(["2099-01-01"], False, id="none that we know"),
        pytest.param([], False, id="none"),
        pytest.param("2025-11-25", False, id="no list"),
        pytest.param(None, False, id="nothing said"),
    ],
)
def test_what_offers_old_versions_alone_wants_the_handshake(offered: Any, wanted: bool) -> None:
    def answer(**member: Any) -> Incoming:
        return decode_incoming(json.dumps({"jsonrpc": "2.0", "id": 1, **member}).encode())

    error = {"code": -32022, "message": "x", "data": {"supported": offered, "requested": "2026-07-28"}}
    assert handshake.wants_handshake(answer(result={"supportedVersions": offered})) == wanted
    assert handshake.wants_handshake(answer(error=error)) == wanted
    assert not handshake.wants_handshake(answer(error={**error, "code": -32021})), "not what the code is for"


@pytest.mark.parametrize("info", [None, "x", 3, []])
def test_server_info_of_another_form_is_ignored(info: Any) -> None:
    dialect = handshake.dialect_from_discover(raw({"supportedVersions": ["2026-07-28"], "_meta": {INFO: info}}))
    assert dialect.server_info == {}


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_initialize_accepts_every_legacy_version(version: str) -> None:
    dialect = handshake.dialect_from_initialize(
        raw({"protocolVersion": version, "capabilities": {"prompts": {}}, "serverInfo": {"name": "n"}}), "s-1"
    )
    assert (dialect.era, dialect.version, dialect.session_id) == ("legacy", version, "s-1")
    assert dialect.capabilities == {"prompts": {}}
    assert dialect.server_info == {"name": "n"}


@pytest.mark.parametrize(
    "result",
    [
        pytest.param({"protocolVersion": "2026-07-28"}, id="a modern version has no handshake"),
        pytest.param({"protocolVersion": "2023-01-01"}, id="an unknown version"),
        pytest.param({"protocolVersion": 1}, id="version is no text"),
        pytest.param({}, id="version missing"),
        pytest.param("ok", id="no object"),
    ],
)
def test_initialize_refuses(result: Any) -> None:
    with pytest.raises(UpstreamUnavailable):
        handshake.dialect_from_initialize(raw(result), None)


def test_a_missing_result_is_refused() -> None:
    for read in (handshake.dialect_from_discover, lambda result: handshake.dialect_from_initialize(result, None)):
        with pytest.raises(UpstreamUnavailable):
            read(Raw())


def test_a_servers_words_stay_out_of_the_clients_text() -> None:
    with pytest.raises(UpstreamUnavailable) as caught:
        handshake.dialect_from_initialize(raw({"protocolVersion": "secret-" + "x" * 5000}), None)
    assert "secret" not in caught.value.public
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize(
    ("code", "modern"),
    [(-32020, True), (-32021, True), (-32022, True), (-32023, False), (-32019, False), (-32601, False), (0, False)],
)
def test_only_the_three_codes_of_the_revision_prove_it(code: int, modern: bool) -> None:
    assert handshake.is_modern_error(code) is modern


CAPABILITIES = {"roots": {"listChanged": True}, "elicitation": {}}


def test_what_is_declared_is_said_in_either_era() -> None:
    params = json.loads(handshake.initialize_body(1, capabilities=CAPABILITIES))["params"]
    assert params["capabilities"] == CAPABILITIES
    meta = json.loads(handshake.discover_body(1, CAPABILITIES))["params"]["_meta"]
    assert meta["io.modelcontextprotocol/clientCapabilities"] == CAPABILITIES


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_request_of_ours_is_in_the_servers_dialect(era: Any) -> None:
    dialect = Dialect(era=era, version="2026-07-28" if era == "modern" else "2025-11-25")
    body = handshake.request_body(7, "tools/list", {"cursor": Raw(b'"a b"')}, dialect, CAPABILITIES)
    message = json.loads(body)
    meta = message["params"].pop("_meta", None)
    assert message == {"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {"cursor": "a b"}}
    if era == "legacy":
        assert meta is None
        return
    assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert meta["io.modelcontextprotocol/clientCapabilities"] == CAPABILITIES
    assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "narthex"


@pytest.mark.parametrize("id_", [0, "a"])
def test_a_request_that_cannot_be_carried_is_refused(id_: int | str) -> None:
    said = json.loads(handshake.refuse_push(id_, "no call is open"))
    assert said == {"jsonrpc": "2.0", "id": id_, "error": {"code": -32600, "message": "no call is open"}}


@pytest.mark.parametrize(
    ("method", "partly", "code"),
    [
        pytest.param("roots/list", False, -32601, id="there is no such method for its server"),
        pytest.param("elicitation/create", False, -32602, id="a mode that was not declared"),
        pytest.param("sampling/createMessage", False, -32601, id="sampling"),
        pytest.param("sampling/createMessage", True, -32602, id="sampling is there, but not with tools"),
        pytest.param("x" * 100_000, False, -32601, id="a long name is not repeated in full"),
    ],
)
def test_what_was_not_declared_is_refused(method: str, partly: bool, code: int) -> None:
    said = handshake.refuse_undeclared(7, method, partly=partly)
    assert json.loads(said)["error"]["code"] == code
    assert len(said) < 256


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        pytest.param({"id": 1, "method": "ping"}, {"id": 1, "result": {}}, id="ping gets an empty result"),
        pytest.param({"id": "a\n", "method": "ping"}, {"id": "a\n", "result": {}}, id="a string id comes back"),
        pytest.param({"id": 2, "method": "roots/list"}, {"id": 2, "code": -32601}, id="roots were not declared"),
        pytest.param({"id": 0, "method": "sampling/createMessage"}, {"id": 0, "code": -32601}, id="nor sampling"),
        pytest.param({"id": 3, "method": "elicitation/create"}, {"id": 3, "code": -32602}, id="nor any elicitation"),
        pytest.param({"method": "notifications/message"}, None, id="a notification gets none"),
        pytest.param({"method": "ping"}, None, id="ping without an id is a notification"),
        pytest.param({"id": None, "method": "ping"}, None, id="null is no id"),
        pytest.param({"id": 4, "result": {}}, None, id="a response gets none"),
        pytest.param({"id": 4, "error": {"code": 1, "message": ""}}, None, id="an error gets none"),
    ],
)
def test_answer_to_a_push(line: dict[str, Any], answer: dict[str, Any] | None) -> None:
    reply = handshake.answer_push(decode_incoming(json.dumps({"jsonrpc": "2.0", **line}).encode()))
    if answer is None:
        assert reply is None
        return
    assert reply is not None
    assert b"\n" not in reply
    got = json.loads(reply)
    assert got.pop("jsonrpc") == "2.0"
    if "code" in answer:
        assert (got["id"], got["error"]["code"]) == (answer["id"], answer["code"])
    else:
        assert got == answer


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["supportedVersions", "protocolVersion", "capabilities", "instructions", "_meta", "serverInfo", INFO]
)


@given(st.dictionaries(KEYS, JSON | st.just(["2026-07-28"]) | st.just("2025-11-25")) | JSON)
def test_any_result_gives_a_dialect_or_upstream_unavailable(value: Any) -> None:
    for read in (handshake.dialect_from_discover, lambda result: handshake.dialect_from_initialize(result, "s")):
        try:
            dialect = read(raw(value))
        except UpstreamUnavailable:
            continue
        assert dialect.version in ("2026-07-28", "2025-11-25")
