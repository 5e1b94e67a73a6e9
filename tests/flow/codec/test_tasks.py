"""Tasks of both eras: who may ask, what is made of a server's words about a task, and where a list of them goes on."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import GatewayError, MethodNotFound, MissingCapability, UpstreamUnavailable
from narthex.flow.codec.jsonrpc import Raw, RawMap, decode_map
from narthex.flow.codec.tasks import (
    MOST_LISTED,
    check_speaks,
    created,
    following,
    is_answer,
    is_task,
    known_as,
    lists_tasks,
    may_run_as_task,
    place,
    read_page,
    read_place,
    related,
    runs_tasks,
    shown,
    unknown,
    without_task,
)
from narthex.flow.upstream.port import Dialect
from narthex.types import LOCAL, Call, Era

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
TASKS = "io.modelcontextprotocol/tasks"
RELATED = "io.modelcontextprotocol/related-task"
EXTENSION: dict[str, Any] = {"extensions": {TASKS: {}}}
OLD: dict[str, Any] = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
STATE = {"taskId": "t1", "status": "working", "createdAt": "2026-07-28T10:30:00Z", "ttlMs": None, "x": [1.50]}
ABOUT = {RELATED: {"taskId": "t1", "x": 1}, "y": {"taskId": "t1"}}


def call(method: str, era: Era = "modern", declared: Any = EXTENSION, version: str = "") -> Call:
    version = version or {"modern": "2026-07-28", "legacy": "2025-11-25"}[era]
    meta = {CAPABILITIES: Raw(json.dumps(declared).encode())} if era == "modern" else {}
    return Call(method, {}, meta, b"1", era, version, LOCAL, "default")


def rename(id_: str) -> str:
    return f"ours-{id_}"


def raw(value: Any) -> Raw:
    return Raw(json.dumps(value).encode())


def members(value: Any) -> RawMap:
    return decode_map(json.dumps(value).encode())


# --- what a client asks


@pytest.mark.parametrize(
    ("one", "error"),
    [
        pytest.param(call("tasks/get"), None, id="declared"),
        pytest.param(call("tasks/get", declared={}), MissingCapability, id="not declared"),
        pytest.param(call("tasks/cancel", declared={"tasks": {}}), MissingCapability, id="the other era's"),
        pytest.param(call("tasks/result", "legacy"), None, id="legacy: in its revision"),
        pytest.param(call("tasks/get", "legacy", version="2025-06-18"), MethodNotFound, id="legacy: in one before"),
    ],
)
def test_who_may_ask_about_tasks(one: Call, error: type[GatewayError] | None) -> None:
    if error is None:
        check_speaks(one)
        return
    with pytest.raises(error) as caught:
        check_speaks(one)
    if error is MissingCapability:
        assert (caught.value.code, caught.value.data) == (-32021, {"requiredCapabilities": EXTENSION})


def test_a_task_that_is_not_there_is_invalid_params() -> None:
    assert (unknown().code, unknown().status) == (-32602, 200)


@pytest.mark.parametrize(
    ("era", "capabilities", "runs", "lists"),
    [
        pytest.param("legacy", {"tasks": OLD}, True, True, id="all of it"),
        pytest.param("legacy", {"tasks": {"list": {}}}, False, True, id="a list alone"),
        pytest.param("legacy", {"tasks": {"requests": {"tools": {}}}}, False, False, id="no calls"),
        pytest.param("legacy", {"tasks": {"list": True, "requests": []}}, False, False, id="no objects"),
        pytest.param("legacy", {"tasks": 7}, False, False, id="nothing of the kind"),
        pytest.param("legacy", {}, False, False, id="none"),
        pytest.param("modern", {"tasks": OLD}, False, False, id="a modern server"),
    ],
)
def test_what_a_server_says_it_does(era: Era, capabilities: Any, runs: bool, lists: bool) -> None:
    dialect = Dialect(era, "x", capabilities)
    assert (runs_tasks(dialect), lists_tasks(dialect)) == (runs, lists)


@pytest.mark.parametrize(
    ("one", "alone", "may"),
    [
        pytest.param(call("tools/call", "legacy"), True, True, id="its own session"),
        pytest.param(call("tools/call", "legacy"), False, False, id="a shared session"),
        pytest.param(call("tools/call", "legacy", version="2025-06-18"), True, False, id="a revision without tasks"),
        pytest.param(call("tools/call"), True, False, id="a modern client"),
    ],
)
def test_which_calls_run_as_a_legacy_task(one: Call, alone: bool, may: bool) -> None:
    assert may_run_as_task(one, Dialect("legacy", "2025-11-25", {"tasks": OLD}), alone=alone) is may


def test_a_plain_call_has_no_task() -> None:
    assert without_task(members({"name": "x", "task": {"ttl": 1}})) == members({"name": "x"})


# --- what a server answers


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        pytest.param(b'"task"', True, id="a task"),
        pytest.param(b'"t\\u0061sk"', True, id="written with an escape"),
        pytest.param(b'"complete"', False, id="something else"),
        pytest.param(b'{"task":1}', False, id="no string"),
    ],
)
def test_the_type_of_a_task(kind: bytes, task: bool) -> None:
    assert is_task(Raw(kind)) is task


def test_a_new_task_is_as_it_came_but_for_its_id() -> None:
    result = {"resultType": "task", **STATE, "_meta": {"y": 1}}
    assert json.loads(created(call("tools/call"), members(result), rename)) == {**result, "taskId": "ours-t1"}


@pytest.mark.parametrize(
    ("one", "result"),
    [
        pytest.param(call("tools/call", declared={}), STATE, id="to a client that did not declare it"),
        pytest.param(call("tools/call", "legacy"), STATE, id="to a legacy client"),
        pytest.param(call("prompts/get"), STATE, id="for another request than a call"),
        pytest.param(call("tools/call"), {"status": "working"}, id="without an id"),
        pytest.param(call("tools/call"), {**STATE, "taskId": 7}, id="with an id that is no string"),
        pytest.param(call("tools/call"), {**STATE, "taskId": ""}, id="with an empty id"),
    ],
)
def test_a_task_that_a_server_must_not_make(one: Call, result: Any) -> None:
    with pytest.raises(UpstreamUnavailable) as caught:
        created(one, members({"resultType": "task", **result}), rename)
    assert caught.value.sent


@pytest.mark.parametrize(
    ("one", "result", "expected"),
    [
        pytest.param(
            call("tasks/get"), {**STATE, "result": {"taskId": "t1"}}, {**STATE, "result": {"taskId": "t1"},
            "taskId": "ours-t1"}, id="a state: its own id alone",
        ),
        pytest.param(call("tasks/update"), {"resultType": "complete"}, {"resultType": "complete"}, id="nothing"),
        pytest.param(call("tasks/cancel", "legacy"), STATE, {**STATE, "taskId": "ours-t1"}, id="a legacy end"),
        pytest.param(
            call("tasks/result", "legacy"), {"content": [], "taskId": "t1", "_meta": ABOUT},
            {"content": [], "taskId": "t1", "_meta": {**ABOUT, RELATED: {"taskId": "ours-t1", "x": 1}}},
            id="a result: what it belongs to, and nothing of the tool's",
        ),
        pytest.param(
            call("tools/call", "legacy"), {"task": STATE, "_meta": ABOUT},
            {"task": {**STATE, "taskId": "ours-t1"}, "_meta": {**ABOUT, RELATED: {"taskId": "ours-t1", "x": 1}}},
            id="a new legacy task",
        ),
        pytest.param(
            call("tools/call", "legacy"), {"content": [], "_meta": ABOUT}, {"content": [], "_meta": ABOUT},
            id="a call that ran plainly",
        ),
    ],
)  # fmt: skip
def test_where_ids_of_tasks_stand(one: Call, result: Any, expected: Any) -> None:
    assert json.loads(bytes(shown(one, json.dumps(result).encode(), rename))) == expected


@pytest.mark.parametrize(
    ("one", "result"),
    [
        pytest.param(call("tasks/get"), b"[]", id="no object"),
        pytest.param(call("tasks/get"), b'{"taskId":1}', id="an id that is no string"),
        pytest.param(call("tools/call", "legacy"), b'{"task":[]}', id="a task that is no object"),
        pytest.param(call("tools/call", "legacy"), b'{"task":{}}', id="a task without an id"),
        pytest.param(call("tasks/result", "legacy"), b'{"_meta":1}', id="meta that is no object"),
        pytest.param(call("tasks/result", "legacy"), b'{"_meta":{"%b":3}}' % RELATED.encode(), id="related to nothing"),
    ],
)
def test_answers_that_cannot_be_read(one: Call, result: bytes) -> None:
    with pytest.raises(UpstreamUnavailable):
        shown(one, result, rename)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        pytest.param({"_meta": ABOUT}, {"_meta": {**ABOUT, RELATED: {"taskId": "ours-t1", "x": 1}}}, id="the task"),
        pytest.param({"_meta": {"y": 1}}, {"_meta": {"y": 1}}, id="meta of others"),
        pytest.param({"m": 1}, {"m": 1}, id="no meta"),
        pytest.param([1], [1], id="no parameters at all: others refuse it"),
    ],
)  # fmt: skip
def test_a_message_says_which_task_it_belongs_to(params: Any, expected: Any) -> None:
    assert json.loads(bytes(related(raw(params), rename))) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("taskId"), inner),
    max_leaves=8,
)
ASKED = [call("tasks/get"), call("tasks/update"), call("tasks/result", "legacy"), call("tools/call", "legacy")]


@given(
    one=st.sampled_from(ASKED),
    result=st.dictionaries(st.sampled_from(["taskId", "task", "_meta", "result", "content"]), JSON),
)
def test_whatever_a_server_says_is_relayed_but_for_ids_or_is_its_own_fault(one: Call, result: Any) -> None:
    try:
        said = json.loads(bytes(shown(one, json.dumps(result).encode(), rename)))
    except UpstreamUnavailable:
        return
    assert said.keys() == result.keys()
    assert all(said[key] == result[key] for key in ("result", "content") if key in result)


@given(junk=st.binary(max_size=60))
def test_bytes_that_are_no_result(junk: bytes) -> None:
    for one in ASKED:
        try:
            shown(one, junk, rename)
            related(Raw(junk), rename)
            read_page(junk)
        except UpstreamUnavailable:
            pass


# --- lists


def test_a_page_of_tasks() -> None:
    tasks, cursor = read_page(json.dumps({"tasks": [STATE, {"taskId": "t2"}], "nextCursor": "c"}).encode())
    assert cursor == "c"
    assert [json.loads(msgspec.json.encode(known_as(one, rename)))["taskId"] for one in tasks] == ["ours-t1", "ours-t2"]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param({"tasks": {}}, id="no list"),
        pytest.param({"tasks": [1]}, id="no tasks"),
        pytest.param({}, id="nothing"),
        pytest.param({"tasks": [], "nextCursor": 7}, id="a cursor that is no string"),
        pytest.param({"tasks": [{"taskId": "t"}] * (MOST_LISTED + 1)}, id="too many"),
    ],
)
def test_a_page_that_cannot_be_read(page: Any) -> None:
    with pytest.raises(UpstreamUnavailable):
        read_page(json.dumps(page).encode())


@pytest.mark.parametrize(
    ("server", "cursor", "expected"),
    [
        pytest.param("a", "next", ("a", "next"), id="the same server, its next page"),
        pytest.param("a", None, ("b", None), id="the next server"),
        pytest.param("b", None, None, id="the end"),
    ],
)
def test_where_a_list_goes_on(server: str, cursor: str | None, expected: Any) -> None:
    found = following(server, cursor, ["a", "b"])
    assert (None if found is None else read_place(found)) == expected


@given(server=st.text(max_size=24), cursor=st.none() | st.text(max_size=50))
def test_a_place_comes_back_as_it_was(server: str, cursor: str | None) -> None:
    assert read_place(place(server, cursor)) == (server, cursor)


@pytest.mark.parametrize(
    ("method", "result", "is_it"),
    [
        pytest.param("tools/call", {"content": []}, True, id="a call that ran plainly"),
        pytest.param("tools/call", {"task": {"taskId": "t1"}}, False, id="a call that became a task"),
        pytest.param("tools/call", {"content": [], "isError": True}, False, id="a call that failed"),
        pytest.param("tasks/result", {"content": []}, True, id="result"),
        pytest.param("tasks/result", {"content": [], "isError": True}, False, id="result of one that failed"),
        pytest.param("tasks/get", {**STATE, "status": "completed", "result": {"content": []}}, True, id="completed"),
        pytest.param("tasks/get", {**STATE, "result": {"content": []}}, False, id="under way"),
        pytest.param("tasks/get", {**STATE, "status": "completed"}, False, id="without a result (2025-11-25)"),
        pytest.param(
            "tasks/get", {**STATE, "status": "completed", "result": {"isError": True}}, False, id="completed, an error"
        ),
        pytest.param("tasks/get", {**STATE, "status": 7, "result": {}}, False, id="no status"),
        pytest.param("tasks/update", {}, False, id="update"),
        pytest.param("tasks/cancel", {**STATE, "status": "completed", "result": {}}, False, id="cancel"),
        pytest.param("tasks/result", [], False, id="no object"),
    ],
)
def test_an_answer_of_the_tool(method: str, result: Any, is_it: bool) -> None:
    assert is_answer(method, raw(result)) is is_it
