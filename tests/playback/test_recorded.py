"""What a record says of a call is what can be given again, and what it does not say is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.playback.arguments import digest
from narthex.playback.catalogue import derived
from narthex.playback.recorded import Recorded, recorded_in
from narthex.playback.staging import Naming, sound
from narthex.telemetry.payloads.lines import Note
from narthex.telemetry.payloads.reading import Payload, State

RESULT = b'{"content":[]}'


def record(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": f"r{number}", "time": f"2026-11-27T09:00:{number:02d}.000000Z", "event": "call", "endpoint": "default",
        "method": "tools/call", "server": "one", "name": "find", "outcome": "ok", "request": str(number),
    } | more  # fmt: skip


def payload(part: str, body: bytes = RESULT, state: State = "here", *redacted: str) -> Payload:
    return Payload(part, state, Note("none" if state == "none" else "full", redacted=redacted), body)


def read(*records: dict[str, Any], kept: list[Payload] | None = None) -> list[Recorded]:
    return recorded_in(records, lambda one: [payload("result")] if kept is None else kept, Naming({}).shows)


@pytest.mark.parametrize(
    ("members", "place"),
    [
        pytest.param({}, ("one", "find"), id="sent: the server's own name"),
        pytest.param({"name": "one__find"}, ("one", "one__find"), id="sent: whatever that looks like"),
        pytest.param({"outcome": "upstream_unavailable", "name": "one__find"}, ("one", "find"), id="not sent"),
        pytest.param(
            {"outcome": "upstream_timeout", "server_seconds": 60.0}, ("one", "find"), id="sent, and not answered"
        ),
        pytest.param({"policy": {"resource": "one__a__b"}}, ("one", "a__b"), id="as policy names it"),
        pytest.param(
            {"policy": {"resource": "one__dear"}, "instead_of": "one__dear", "server": "two", "name": "cheap"},
            ("one", "dear"), id="another tool has answered",
        ),
        pytest.param({"server": "", "name": "one__find", "outcome": "rate_limited"}, ("", ""), id="nobody knows"),
        pytest.param({"policy": ["one__x"], "server": {}, "name": 3}, ("", ""), id="of other types"),
    ],
)  # fmt: skip
def test_where_a_call_went(members: dict[str, Any], place: tuple[str, str]) -> None:
    (found,) = read(record(**members))
    assert (found.server, found.name) == place


def test_a_call_that_was_refused_early_is_found_by_the_shown_name_of_another() -> None:
    early = record(2, server="", name="one__find", outcome="rate_limited", code=-31002, reason="rate_limited")
    first, second = read(record(), early)
    assert (second.server, second.name) == ("one", "find")
    assert json.loads(second.answer) == {
        "code": -31002, "message": "as recorded: rate_limited", "data": {"reason": "rate_limited"},
    }  # fmt: skip
    assert second.is_error and not first.is_error


@pytest.mark.parametrize(
    ("members", "kept", "why"),
    [
        pytest.param({}, [], "its result was not kept", id="nothing kept"),
        pytest.param({}, [payload("result", b"", "none")], "its result was not kept", id="too large, say"),
        pytest.param({}, [payload("result", b"", "erased")], "its result was erased", id="erased"),
        pytest.param({}, [payload("result", b"", "missing")], "its result is not in the files of payloads", id="gone"),
        pytest.param({}, [payload("result", b"", "changed")], "its result is not what was recorded", id="changed"),
        pytest.param(
            {}, [payload("result", b"", "sealed")], "its result is sealed, and its key is not here", id="sealed"
        ),
        pytest.param({"event": "begin"}, [payload("result")], "its end is not recorded", id="no end"),
        pytest.param({"outcome": "cancelled"}, [], "it was given up", id="cancelled"),
        pytest.param({}, [payload("result", b"[1]")], "its result is no object", id="no object"),
        pytest.param({}, [payload("result", b'{"resultType":"task"}')], "it went on as a task", id="a modern task"),
        pytest.param({}, [payload("result", b'{"task":{"taskId":"t"}}')], "it went on as a task", id="a legacy task"),
        pytest.param({}, [payload("result")], "", id="kept"),
        pytest.param({"outcome": "tool_error"}, [payload("result")], "", id="an error of the tool"),
        pytest.param({"code": -32000, "outcome": "rpc_error"}, [], "", id="an error whose text was not kept"),
    ],
)
def test_why_there_is_no_answer(members: dict[str, Any], kept: list[Payload], why: str) -> None:
    (found,) = read(record(**members), kept=kept)
    assert found.why == why and bool(found.answer) == (not why)


def test_a_server_s_error_is_as_it_was_kept() -> None:
    kept = payload("error", b'{"code":-32050,"message":"out"}')
    (found,) = read(record(code=-32050, outcome="rpc_error"), kept=[kept])
    assert (found.answer, found.is_error) == (kept.body, True)


def test_a_refusal_has_the_decision_that_it_had() -> None:
    held = record(code=-31004, reason="approval_required", decision_id="d-1", outcome="approval_required")
    (found,) = read(held, kept=[])
    assert json.loads(found.answer)["data"] == {"reason": "approval_required", "decisionId": "d-1"}


@pytest.mark.parametrize("approval", ["a-2", "a-1 a-2"])
def test_a_call_that_waited_names_what_it_waited_for(approval: str) -> None:
    more = {"reason": "approval_required", "outcome": "approval_required", "approval": approval}
    (waits,) = read(record(code=-31004, **more), kept=[])
    assert json.loads(waits.answer)["data"] == {"reason": "approval_required", "approvalId": "a-2"}
    (other,) = read(record(code=-31005, reason="upstream_timeout", approval=approval), kept=[])
    assert "approvalId" not in json.loads(other.answer)["data"], "it has passed by that, and failed"


def test_arguments_are_found_by_what_the_record_has_of_them() -> None:
    said = digest(b'{"b":1, "a":2}')
    (by_digest,) = read(record(arguments_digest=said))
    assert by_digest.keys == {said}
    (by_both,) = read(record(arguments_digest=said), kept=[payload("arguments", b'{"b":1, "a":2}')])
    assert by_both.keys == {said, digest(b'{"a":2,"b":1}')}
    masked = payload("arguments", b'{"card":"[redacted: cards]"}', "here", "cards")
    (by_rest,) = read(record(arguments_digest=said), kept=[masked])
    assert by_rest.keys == {said} and by_rest.loose
    (none,) = read(record())
    assert digest(b"{}") in none.keys


def test_a_beginning_that_has_ended_is_no_call_of_its_own() -> None:
    begin = record(1, event="begin", seq=7, request="1")
    assert [one.id for one in read(begin, record(2, begin=7, request="1"))] == ["r2"]


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
members = st.sampled_from(
    ["id", "time", "event", "endpoint", "server", "name", "outcome", "request", "code", "seq", "begin", "policy",
     "instead_of", "reason", "decision_id", "approval", "arguments_digest", "version", "method", "server_seconds"]
)  # fmt: skip


@given(st.lists(st.dictionaries(members, hostile, max_size=8), max_size=6), st.binary(max_size=40))
def test_records_of_any_shape_are_read(changes: list[dict[str, Any]], body: bytes) -> None:
    records = [{**record(at), **change} for at, change in enumerate(changes)]
    calls = sound(
        recorded_in(records, lambda one: [payload("result", body), payload("arguments", body)], Naming({}).shows)
    )
    assert len(calls) <= len(records)
    for server, kinds in derived(calls).items():
        assert server and all(json.loads(item) for items in kinds.values() for item in items.values())
