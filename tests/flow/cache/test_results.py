"""Which answers may be kept, for how long, and what their next asker gets: a row a rule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narthex.flow.cache.results import result_of, terms_of
from narthex.flow.codec.jsonrpc import decode_answer, decode_incoming
from narthex.types import Era

TEXT = {"content": [{"type": "text", "text": "done"}]}
READ = {"contents": [{"uri": "a:b", "text": "x"}], "ttlMs": 60_000, "cacheScope": "public"}
COMPLETE = {"resultType": "complete"}


def said(result: Any) -> Any:
    return decode_incoming(json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode())


@pytest.mark.parametrize(
    ("method", "result", "kept"),
    [
        pytest.param("tools/call", TEXT, True, id="a plain answer"),
        pytest.param("tools/call", {**TEXT, **COMPLETE}, True, id="one that says it is complete"),
        pytest.param("tools/call", {"structuredContent": 1}, True, id="structured content alone"),
        pytest.param("tools/call", {**TEXT, "isError": False}, True, id="no error, in so many words"),
        pytest.param("tools/call", {**TEXT, "isError": True}, False, id="an error of the tool"),
        pytest.param("tools/call", {**TEXT, "isError": "false"}, False, id="isError that is no boolean"),
        pytest.param("tools/call", {**TEXT, "isError": None}, False, id="isError null"),
        pytest.param("tools/call", {"resultType": "input_required", "requestState": "x"}, False, id="a question"),
        pytest.param("tools/call", {**TEXT, "resultType": "input_required"}, False, id="a question with content"),
        pytest.param("tools/call", {**TEXT, "resultType": "task", "taskId": "t"}, False, id="a task"),
        pytest.param("tools/call", {**TEXT, "resultType": "new"}, False, id="a result of a kind nobody knows"),
        pytest.param("tools/call", {"task": {"taskId": "t"}}, False, id="a legacy task"),
        pytest.param("tools/call", {**TEXT, "task": {"taskId": "t"}}, False, id="a legacy task with content"),
        pytest.param("tools/call", {**TEXT, "_meta": {"io.modelcontextprotocol/related-task": {}}}, False,
                     id="the answer of a task"),
        pytest.param("tools/call", {}, False, id="nothing"),
        pytest.param("tools/call", [1], False, id="no object"),
        pytest.param("tools/call", {**TEXT, "_meta": 1}, False, id="_meta that is no object"),
        pytest.param("tools/call", {**TEXT, "ttlMs": 0}, False, id="one that may not be kept"),
        pytest.param("tools/call", {**TEXT, "ttlMs": -5}, False, id="a time below zero"),
        pytest.param("tools/call", {**TEXT, "ttlMs": "60000"}, False, id="a time that is no number"),
        pytest.param("tools/call", {**TEXT, "ttlMs": 1e300}, True, id="a huge time: the rule's counts"),
        pytest.param("resources/read", READ, True, id="a resource"),
        pytest.param("resources/read", {**READ, "ttlMs": 0}, False, id="a resource that may not be kept"),
        pytest.param("resources/read", TEXT, False, id="a resource without contents"),
        pytest.param("prompts/get", {"messages": []}, True, id="a prompt"),
        pytest.param("prompts/get", TEXT, False, id="a prompt without messages"),
    ],
)  # fmt: skip
def test_what_may_be_kept(method: str, result: Any, kept: bool) -> None:
    assert (result_of(method, "modern", said(result)) is not None) is kept


def test_an_error_is_never_kept() -> None:
    error = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "no"}}
    assert result_of("tools/call", "modern", decode_incoming(json.dumps(error).encode())) is None


def given(method: str, server: Era, result: Any, asker: Era, age_s: float = 0.0) -> Any:
    kept = result_of(method, server, said(result))
    assert kept is not None
    message = json.loads(b"".join(kept.parts(b'"mine"', asker, age_s)))
    assert (message["jsonrpc"], message["id"]) == ("2.0", "mine")
    return message["result"]


def test_what_is_given_is_what_was_said() -> None:
    assert given("tools/call", "modern", {**COMPLETE, **TEXT}, "modern") == {**COMPLETE, **TEXT}
    assert given("tools/call", "legacy", TEXT, "legacy") == TEXT


def test_a_modern_asker_gets_what_a_legacy_server_does_not_say() -> None:
    assert given("tools/call", "legacy", TEXT, "modern") == {**COMPLETE, **TEXT}
    read = given("resources/read", "legacy", {"contents": []}, "modern")
    assert read == {**COMPLETE, "ttlMs": 0, "cacheScope": "private", "contents": []}


@pytest.mark.parametrize("asker", ["legacy", "modern"])
def test_what_is_left_of_the_servers_time_is_said(asker: Era) -> None:
    told = given("resources/read", "modern", {**COMPLETE, **READ}, asker, 12.5)
    assert told == {**COMPLETE, **READ, "ttlMs": 47_500}
    assert given("resources/read", "modern", {**COMPLETE, **READ}, asker, 99.0)["ttlMs"] == 0


def test_what_speaks_of_another_request_is_left_out() -> None:
    meta = {"traceparent": "00-1-1-1", "progressToken": 7, "vendor/app": {"x": 1}}
    told = given("tools/call", "modern", {**COMPLETE, **TEXT, "_meta": meta}, "modern")
    assert told == {**COMPLETE, **TEXT, "_meta": {"vendor/app": {"x": 1}}}


def test_other_bytes_are_kept_as_they_came() -> None:
    body = b'{"jsonrpc":"2.0","id":7,"result":{"content" : [{"b":1.50,"a":1e3}],"x":"\\u00e9"}}'
    kept = result_of("tools/call", "legacy", decode_answer(body, 7))
    assert kept is not None
    assert b"".join(kept.parts(b"8", "legacy", 1.0)) == body.replace(b'"id":7', b'"id":8')


@pytest.mark.parametrize(
    ("server_ms", "policy_s", "expected"),
    [
        pytest.param(None, None, (10.0, 30.0), id="the rule"),
        pytest.param(5_000, None, (5.0, 5.0), id="a server that says less is heard, and not given stale"),
        pytest.param(15_000, None, (10.0, 15.0), id="one between both bounds the staleness"),
        pytest.param(99_000, None, (10.0, 30.0), id="one that says more is not heard"),
        pytest.param(None, 4.0, (4.0, 4.0), id="a policy that says less is heard"),
        pytest.param(None, 400.0, (10.0, 30.0), id="one that says more is not"),
        pytest.param(None, 0.0, None, id="a policy that lets nothing be kept"),
        pytest.param(5_000, 4.0, (4.0, 4.0), id="the least of all counts"),
    ],
)
def test_how_long(server_ms: int | None, policy_s: float | None, expected: tuple[float, float] | None) -> None:
    kept = result_of("tools/call", "legacy", said(TEXT if server_ms is None else {**TEXT, "ttlMs": server_ms}))
    assert kept is not None
    terms = terms_of(kept, 10.0, 20.0, 1000.0, policy_s)
    assert (None if terms is None else (terms.fresh_until - 1000.0, terms.ends_at - 1000.0)) == expected


@pytest.mark.parametrize(
    ("scope", "private"), [(None, False), ("public", False), ("private", True), (7, True), ("PUBLIC", True)]
)
def test_what_is_not_for_all_is_private(scope: Any, private: bool) -> None:
    kept = result_of("tools/call", "modern", said(TEXT if scope is None else {**TEXT, "cacheScope": scope}))
    assert kept is not None and kept.private is private
