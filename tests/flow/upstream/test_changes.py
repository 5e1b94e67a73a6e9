"""What a server says has changed, of either era: what is read, what concerns anybody, what was agreed to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, decode_incoming
from narthex.flow.upstream.changes import (
    LONGEST,
    Change,
    concerns,
    listen_params,
    read_acknowledged,
    read_change,
    subscription_of,
)
from narthex.flow.upstream.port import NOTHING, Wanted

STAMP = "io.modelcontextprotocol/subscriptionId"
UPDATED = "notifications/resources/updated"
WANTED = Wanted(frozenset({"tools", "resources"}), frozenset({"file:///a", "x://b"}), frozenset({"t1"}))


def message(method: str, params: Any = None) -> Any:
    body = {"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})}
    return decode_incoming(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("method", "params", "change"),
    [
        ("notifications/tools/list_changed", None, Change(kind="tools")),
        ("notifications/prompts/list_changed", {}, Change(kind="prompts")),
        ("notifications/resources/list_changed", {"_meta": {STAMP: 3}}, Change(kind="resources")),
        (UPDATED, {"uri": "file:///a", "_meta": {STAMP: "x"}}, Change(uri="file:///a")),
        pytest.param(UPDATED, None, None, id="no parameters"),
        pytest.param(UPDATED, [], None, id="no object"),
        pytest.param(UPDATED, {}, None, id="no uri"),
        pytest.param(UPDATED, {"uri": 7}, None, id="a uri that is no text"),
        pytest.param(UPDATED, {"uri": "x" * (LONGEST + 1)}, None, id="a uri beyond measure"),
        pytest.param("notifications/tasks", {"status": "working"}, None, id="a task without a name"),
        pytest.param("notifications/message", {"uri": "file:///a"}, None, id="something else"),
    ],
)
def test_a_change_is_read(method: str, params: Any, change: Change | None) -> None:
    assert read_change(message(method, params)) == change


@pytest.mark.parametrize("method", ["notifications/tasks", "notifications/tasks/status"])
def test_a_task_is_handed_on_as_it_came(method: str) -> None:
    params = {"taskId": "t1", "status": "completed", "result": {"content": []}, "x": 1}
    change = read_change(message(method, params))
    assert change is not None
    assert (change.task_id, json.loads(bytes(change.params))) == ("t1", params)


@pytest.mark.parametrize(
    ("change", "concerned"),
    [
        (Change(kind="tools"), True),
        (Change(kind="prompts"), False),
        (Change(uri="file:///a"), True),
        pytest.param(Change(uri="file:///a/below"), True, id="a resource below one that is wanted"),
        pytest.param(Change(uri="file:///"), False, id="one above it"),
        (Change(task_id="t1"), True),
        (Change(task_id="t2"), False),
    ],
)
def test_only_what_is_wanted_concerns_anybody(change: Change, concerned: bool) -> None:
    assert concerns(WANTED, change) is concerned
    assert not concerns(NOTHING, change)


@pytest.mark.parametrize(
    ("params", "stamp"),
    [
        ({"_meta": {STAMP: 3}}, 3),
        ({"_meta": {STAMP: "3"}}, None),
        ({"_meta": {STAMP: True}}, None),
        ({"_meta": {}}, None),
        ({"_meta": []}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_stamp_of_a_subscription_is_an_id_of_ours(params: Any, stamp: int | None) -> None:
    assert subscription_of(message(UPDATED, params)) == stamp


def test_only_what_is_wanted_is_asked_for() -> None:
    assert listen_params(WANTED) == {
        "notifications": {
            "toolsListChanged": True,
            "resourcesListChanged": True,
            "resourceSubscriptions": ["file:///a", "x://b"],
            "taskIds": ["t1"],
        }
    }
    assert listen_params(NOTHING) == {"notifications": {}}


@pytest.mark.parametrize(
    ("said", "agreed"),
    [
        ({}, NOTHING),
        ({"toolsListChanged": True, "promptsListChanged": True}, Wanted(kinds=frozenset({"tools"}))),
        ({"toolsListChanged": False}, NOTHING),
        ({"resourceSubscriptions": ["x://b", "x://never-asked"]}, Wanted(uris=frozenset({"x://b"}))),
        ({"taskIds": ["t1", "t9"], "later": 1}, Wanted(task_ids=frozenset({"t1"}))),
    ],
)
def test_a_server_agrees_to_less_but_never_to_more(said: Any, agreed: Wanted) -> None:
    assert read_acknowledged(Raw(json.dumps({"notifications": said}).encode()), WANTED) == agreed


@pytest.mark.parametrize("params", [{}, [], {"notifications": []}, {"notifications": {"toolsListChanged": "yes"}}])
def test_an_acknowledgement_without_sense_is_none(params: Any) -> None:
    with pytest.raises(BAD_JSON):
        read_acknowledged(Raw(json.dumps(params).encode()), WANTED)


@given(st.binary(max_size=60) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_no_parameters_do_harm(params: Any) -> None:
    raw = Raw(params.encode() if isinstance(params, str) else params)
    for method in (UPDATED, "notifications/tasks", "notifications/tools/list_changed"):
        one = message(method)
        one.params = raw
        change = read_change(one)
        assert change is None or change.kind == "tools"
        assert subscription_of(one) is None
