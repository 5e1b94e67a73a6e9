"""The messages of subscriptions as tables: what is read, what is refused, what each era gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import GatewayError, InvalidParams, MissingCapability
from narthex.flow.codec.jsonrpc import Incoming, Raw, RawMap, decode_incoming, decode_map, decode_request
from narthex.flow.codec.revisions import read_meta
from narthex.flow.codec.subscriptions import (
    LIST_KINDS,
    LONGEST,
    META_SUBSCRIPTION,
    MOST_NAMED,
    Acknowledged,
    Elicited,
    Ended,
    ListChanged,
    Notification,
    TaskChanged,
    Updated,
    Wanted,
    acknowledged,
    encode_notification,
    ended,
    listen_body,
    read_elicited,
    read_event,
    read_listen,
    read_resource,
    subscribe_body,
)

EXAMPLES = Path(__file__).parent / "examples"
CONFIG = "file:///project/config.json"
WITH_TASKS = {"io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}
TASK = {"taskId": "t1", "status": "working", "ttlMs": None, "method": "kept", "subscription": 1, "meta": [1]}


def raw(value: object) -> RawMap:
    return decode_map(json.dumps(value).encode())


def example(name: str) -> Any:
    return json.loads((EXAMPLES / f"{name}.json").read_bytes())


def wanted(kinds: str = "", uris: str = "", tasks: str = "") -> Wanted:
    return Wanted(frozenset(kinds.split()), frozenset(uris.split()), frozenset(tasks.split()))  # type: ignore[arg-type]


# --- what a client asks for


@pytest.mark.parametrize(
    ("notifications", "expected"),
    [
        pytest.param({}, wanted(), id="nothing is asked: the stream carries nothing"),
        pytest.param({"toolsListChanged": True}, wanted("tools"), id="tools"),
        pytest.param({"promptsListChanged": True}, wanted("prompts"), id="prompts"),
        pytest.param({"resourcesListChanged": True}, wanted("resources"), id="resources"),
        pytest.param({"toolsListChanged": False}, wanted(), id="false is not asked"),
        pytest.param({"resourceSubscriptions": ["a:b", "c:d", "a:b"]}, wanted(uris="a:b c:d"), id="each resource once"),
        pytest.param({"resourceSubscriptions": []}, wanted(), id="no resource"),
        pytest.param({"taskIds": ["t1"]}, wanted(tasks="t1"), id="tasks"),
        pytest.param({"taskIds": []}, wanted(), id="no task"),
        pytest.param({"com.example/weather": {"city": "x"}}, wanted(), id="of an extension not ours nothing is agreed"),
        pytest.param({"resourceSubscriptions": ["x" * LONGEST]}, wanted(uris="x" * LONGEST), id="as long as may be"),
    ],
)
def test_a_client_listens(notifications: Any, expected: Wanted) -> None:
    assert read_listen(raw({"notifications": notifications}), raw(WITH_TASKS)) == expected


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({}, id="notifications missing"),
        pytest.param({"notifications": None}, id="null"),
        pytest.param({"notifications": ["toolsListChanged"]}, id="a list"),
        pytest.param({"notifications": {"toolsListChanged": 1}}, id="a number for a flag"),
        pytest.param({"notifications": {"toolsListChanged": "true"}}, id="text for a flag"),
        pytest.param({"notifications": {"toolsListChanged": None}}, id="null for a flag"),
        pytest.param({"notifications": {"resourceSubscriptions": "a:b"}}, id="a URI for a list of them"),
        pytest.param({"notifications": {"resourceSubscriptions": [1]}}, id="a number for a URI"),
        pytest.param({"notifications": {"resourceSubscriptions": [""]}}, id="an empty URI"),
        pytest.param({"notifications": {"resourceSubscriptions": ["x" * (LONGEST + 1)]}}, id="a URI too long"),
        pytest.param({"notifications": {"resourceSubscriptions": ["a:b"] * (MOST_NAMED + 1)}}, id="too many URIs"),
        pytest.param({"notifications": {"taskIds": {"t1": True}}}, id="tasks are no list"),
        pytest.param({"notifications": {"taskIds": [""]}}, id="an empty task id"),
        pytest.param({"notifications": {"taskIds": ["t"] * (MOST_NAMED + 1)}}, id="too many tasks"),
    ],
)
def test_a_client_listens_in_the_wrong_form(params: Any) -> None:
    with pytest.raises(InvalidParams):
        read_listen(raw(params), raw(WITH_TASKS))


@pytest.mark.parametrize(
    "meta",
    [
        pytest.param({}, id="no capabilities"),
        pytest.param({"io.modelcontextprotocol/clientCapabilities": {}}, id="no extensions"),
        pytest.param({"io.modelcontextprotocol/clientCapabilities": {"extensions": {}}}, id="another extension"),
        pytest.param({"io.modelcontextprotocol/clientCapabilities": {"extensions": []}}, id="no object"),
        pytest.param({"io.modelcontextprotocol/clientCapabilities": 1}, id="capabilities of another form"),
    ],
)
def test_tasks_need_their_extension(meta: Any) -> None:
    with pytest.raises(MissingCapability) as refused:
        read_listen(raw({"notifications": {"taskIds": ["t1"]}}), raw(meta))
    assert refused.value.code == -32021
    required = {"requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}
    assert refused.value.data == required
    assert read_listen(raw({"notifications": {"taskIds": []}}), raw(meta)) == wanted()


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=5))
def test_whatever_is_asked_is_read_or_refused(value: Any) -> None:
    for key in ("toolsListChanged", "resourceSubscriptions", "taskIds", "other"):
        try:
            read_listen(raw({"notifications": {key: value}}), raw({}))
        except GatewayError as error:
            assert error.code in (-32602, -32021)


@pytest.mark.parametrize(
    ("params", "uri"),
    [
        pytest.param({"uri": "a:b"}, "a:b", id="a URI"),
        pytest.param({"uri": "a:b", "_meta": {"progressToken": 1}}, "a:b", id="with more beside it"),
        pytest.param({}, None, id="missing"),
        pytest.param({"uri": ["a:b"]}, None, id="a list"),
        pytest.param({"uri": ""}, None, id="empty"),
        pytest.param({"uri": "x" * (LONGEST + 1)}, None, id="too long"),
    ],
)
def test_a_legacy_client_subscribes(params: Any, uri: str | None) -> None:
    if uri is None:
        with pytest.raises(InvalidParams):
            read_resource(raw(params))
    else:
        assert read_resource(raw(params)) == uri


# --- what a client gets

NOTIFICATIONS = [
    pytest.param(ListChanged("tools"), "notifications/tools/list_changed", {}, id="tools"),
    pytest.param(ListChanged("prompts"), "notifications/prompts/list_changed", {}, id="prompts"),
    pytest.param(ListChanged("resources"), "notifications/resources/list_changed", {}, id="resources"),
    pytest.param(Updated("a:b"), "notifications/resources/updated", {"uri": "a:b"}, id="resource"),
]


@pytest.mark.parametrize(("what", "method", "params"), NOTIFICATIONS)
@pytest.mark.parametrize("subscription", ["7", '"listen-1"', '"\\u00e9"'])
def test_a_modern_client_is_told_on_which_subscription(
    what: Notification, method: str, params: Any, subscription: str
) -> None:
    told = json.loads(encode_notification(what, subscription.encode()))
    meta = {META_SUBSCRIPTION: json.loads(subscription)}
    assert told == {"jsonrpc": "2.0", "method": method, "params": {"_meta": meta, **params}}


@pytest.mark.parametrize(("what", "method", "params"), NOTIFICATIONS)
def test_a_legacy_client_is_told_on_its_stream(what: Notification, method: str, params: Any) -> None:
    told = json.loads(encode_notification(what, None))
    assert told == {"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})}


@pytest.mark.parametrize(
    ("subscription", "method", "stamp"),
    [
        pytest.param(b"7", "notifications/tasks", {META_SUBSCRIPTION: 7}, id="modern"),
        pytest.param(None, "notifications/tasks/status", {}, id="legacy"),
    ],
)
def test_a_task_is_told_whole_under_the_id_that_the_client_knows(
    subscription: bytes | None, method: str, stamp: Any
) -> None:
    came = {**TASK, "_meta": {META_SUBSCRIPTION: 99, "com.example/more": {"a": [1]}}, "result": {"content": []}}
    told = json.loads(encode_notification(TaskChanged("sealed", json.dumps(came).encode()), subscription))
    meta = {"com.example/more": {"a": [1]}, **stamp}
    params = {**TASK, "taskId": "sealed", "_meta": meta, "result": {"content": []}}
    assert told == {"jsonrpc": "2.0", "method": method, "params": params}


def test_a_task_without_meta_gets_none_in_the_legacy_era() -> None:
    told = json.loads(encode_notification(TaskChanged("sealed", b'{"taskId":"t1"}'), None))
    assert told["params"] == {"taskId": "sealed"}


@pytest.mark.parametrize(
    ("agreed", "notifications"),
    [
        pytest.param(wanted(), {}, id="nothing"),
        pytest.param(wanted("tools prompts"), {"toolsListChanged": True, "promptsListChanged": True}, id="lists"),
        pytest.param(wanted(uris="c:d a:b"), {"resourceSubscriptions": ["a:b", "c:d"]}, id="resources in order"),
        pytest.param(wanted(tasks="t2 t1"), {"taskIds": ["t1", "t2"]}, id="tasks in order"),
    ],
)
def test_the_agreed_subset_is_acknowledged(agreed: Wanted, notifications: Any) -> None:
    told = json.loads(acknowledged(b"7", agreed))
    assert told["params"] == {"_meta": {META_SUBSCRIPTION: 7}, "notifications": notifications}


def test_the_examples_of_the_specification() -> None:
    request = decode_request(json.dumps(example("SubscriptionsListenRequest")).encode())
    asked = read_listen(request.params, read_meta(request.params))
    assert asked == wanted("tools", CONFIG)
    assert json.loads(acknowledged(b'"listen-1"', asked)) == example("SubscriptionsAcknowledgedNotification")
    told = {name: example(f"{name}Notification") for name in ("ToolListChanged", "ResourceUpdated")}
    id_ = told["ToolListChanged"]["params"]["_meta"][META_SUBSCRIPTION]
    stamp = json.dumps(id_).encode()
    assert json.loads(encode_notification(ListChanged("tools"), stamp)) == told["ToolListChanged"]
    uri = told["ResourceUpdated"]["params"]["uri"]
    assert json.loads(encode_notification(Updated(uri), stamp)) == told["ResourceUpdated"]
    info = {"name": "n", "version": "1"}
    over = json.loads(ended(b'"listen-1"', info))
    assert over["result"]["_meta"].pop("io.modelcontextprotocol/serverInfo") == info
    assert over == example("SubscriptionsListenResultResponse")


# --- what an upstream is asked for


@pytest.mark.parametrize(
    ("asked", "notifications", "capabilities"),
    [
        pytest.param(wanted("resources"), {"resourcesListChanged": True}, {}, id="a list"),
        pytest.param(wanted(uris="a:b"), {"resourceSubscriptions": ["a:b"]}, {}, id="a resource"),
        pytest.param(
            wanted(tasks="t1"),
            {"taskIds": ["t1"]},
            {"extensions": {"io.modelcontextprotocol/tasks": {}}},
            id="a task, with the extension declared",
        ),
    ],
)
def test_an_upstream_is_listened_to(asked: Wanted, notifications: Any, capabilities: Any) -> None:
    request = decode_request(listen_body(5, asked, "2026-07-28"))
    assert (request.id, request.method) == (5, "subscriptions/listen")
    assert json.loads(bytes(request.params["notifications"])) == notifications
    meta = read_meta(request.params)
    said = {key.removeprefix("io.modelcontextprotocol/"): json.loads(bytes(value)) for key, value in meta.items()}
    assert said["clientCapabilities"] == capabilities
    assert (said["protocolVersion"], said["clientInfo"]["name"]) == ("2026-07-28", "narthex")
    assert read_listen(request.params, meta) == asked, "what we ask is what we would understand"


@pytest.mark.parametrize("method", ["resources/subscribe", "resources/unsubscribe"])
def test_a_legacy_upstream_is_asked_for_each_resource(method: Any) -> None:
    request = decode_request(subscribe_body(5, "a:b", method))
    assert (request.id, request.method, read_resource(request.params)) == (5, method, "a:b")


# --- what an upstream sends


def sent(method: str, params: Any = None, stamp: Any = None) -> bytes:
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None or stamp is not None:
        body["params"] = {**(params or {}), **({} if stamp is None else {"_meta": {META_SUBSCRIPTION: stamp}})}
    return json.dumps(body).encode()


STAMPED = [
    *(
        pytest.param(f"notifications/{kind}/list_changed", None, ListChanged(kind), id=f"{kind} changed")
        for kind in LIST_KINDS
    ),
    pytest.param("notifications/resources/updated", {"uri": "a:b"}, Updated("a:b"), id="a resource changed"),
    pytest.param(
        "notifications/subscriptions/acknowledged",
        {"notifications": {"toolsListChanged": True, "taskIds": ["t1"], "more": 1}},
        Acknowledged(wanted("tools", tasks="t1")),
        id="acknowledged",
    ),
]


@pytest.mark.parametrize(("method", "params", "expected"), STAMPED)
def test_an_upstream_tells(method: str, params: Any, expected: Any) -> None:
    for stamp in (None, 5, "other"):
        said = decode_incoming(sent(method, params, stamp))
        assert read_event(said) == expected, "the stream says whose it is"
        assert read_event(said, 5) == (expected if stamp == 5 else None), "the stamp says whose it is"


@pytest.mark.parametrize("method", ["notifications/tasks", "notifications/tasks/status"])
def test_an_upstream_tells_of_a_task(method: str) -> None:
    said = decode_incoming(sent(method, TASK, 5))
    assert read_event(said, 5) == TaskChanged("t1", bytes(said.params))
    assert read_event(said, 6) is None


@pytest.mark.parametrize(
    ("body", "for_all", "for_five"),
    [
        pytest.param({"id": 5, "result": {}}, Ended(), True, id="a result"),
        pytest.param({"id": 6, "result": {}}, Ended(), False, id="another's result"),
        pytest.param({"id": 5, "error": {"code": 1}}, Ended(b'{"code": 1}'), True, id="an error"),
        pytest.param({"method": "notifications/cancelled", "params": {"requestId": 5}}, Ended(), True, id="cancelled"),
        pytest.param(
            {"method": "notifications/cancelled", "params": {"requestId": 6}}, Ended(), False, id="another's cancelled"
        ),
    ],
)
def test_an_upstream_ends_it(body: Any, for_all: Ended, for_five: bool) -> None:
    said = decode_incoming(json.dumps({"jsonrpc": "2.0", **body}).encode())
    assert read_event(said) == for_all
    assert read_event(said, 5) == (for_all if for_five else None)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        pytest.param("notifications/progress", {"progressToken": 5, "progress": 1}, id="progress"),
        pytest.param("notifications/message", {"level": "info", "data": 1}, id="a log message"),
        pytest.param("notifications/roots/list_changed", None, id="a list that is not a server's"),
        pytest.param("notifications/resources/updated", None, id="no parameters"),
        pytest.param("notifications/resources/updated", {}, id="no URI"),
        pytest.param("notifications/resources/updated", {"uri": 1}, id="a URI that is a number"),
        pytest.param("notifications/resources/updated", {"uri": ""}, id="an empty URI"),
        pytest.param("notifications/resources/updated", {"uri": "x" * (LONGEST + 1)}, id="a URI too long"),
        pytest.param("notifications/tasks", {"status": "working"}, id="no task id"),
        pytest.param("notifications/tasks", {"taskId": ""}, id="an empty task id"),
        pytest.param("notifications/tasks", {"taskId": "x" * (LONGEST + 1)}, id="a task id too long"),
        pytest.param("notifications/tasks", {"taskId": "t1", "_meta": []}, id="_meta is no object"),
        pytest.param("notifications/subscriptions/acknowledged", {}, id="nothing acknowledged"),
        pytest.param("notifications/subscriptions/acknowledged", {"notifications": []}, id="an odd acknowledgement"),
        pytest.param(
            "notifications/subscriptions/acknowledged",
            {"notifications": {"taskIds": ["t"] * (MOST_NAMED + 1)}},
            id="too much acknowledged",
        ),
        pytest.param("notifications/cancelled", {}, id="nothing cancelled"),
        pytest.param("notifications/cancelled", {"requestId": 1.5}, id="an odd cancellation"),
    ],
)
def test_of_anything_else_nothing_is_taken(method: str, params: Any) -> None:
    assert read_event(decode_incoming(sent(method, params))) is None


@given(params=st.binary(max_size=20), method=st.sampled_from(["tools/list_changed", "resources/updated", "tasks"]))
def test_no_bytes_of_an_upstream_raise(params: bytes, method: str) -> None:
    body = b'{"jsonrpc":"2.0","method":"notifications/%b","params":%b}' % (method.encode(), params)
    try:
        said = decode_incoming(body)
    except GatewayError:
        return
    for listen_id in (None, 5):
        read_event(said, listen_id)


@given(st.text(max_size=20).filter(bool), st.integers() | st.text(max_size=20))
def test_what_one_gateway_sends_another_reads(name: str, id_: int | str) -> None:
    stamp = json.dumps(id_).encode()
    for what in (Updated(name), ListChanged("prompts"), TaskChanged(name, b'{"taskId":"x"}')):
        read = read_event(decode_incoming(encode_notification(what, stamp)), id_ if isinstance(id_, int) else None)
        if isinstance(read, TaskChanged):
            assert read.id == name
        else:
            assert read == what


@pytest.mark.parametrize(
    ("params", "id_"),
    [
        pytest.param(b'{"elicitationId":"e","_meta":{"x":1.0}}', "e", id="as it came"),
        pytest.param(b'{"elicitationId":7}', None, id="no id is a number"),
        pytest.param(b'{"elicitationId":""}', None, id="nor empty"),
        pytest.param(b'{"elicitationId":"%b"}' % (b"x" * 5000), None, id="nor longer than is kept"),
        pytest.param(b"{}", None, id="none"),
        pytest.param(b"[]", None, id="no object"),
        pytest.param(b"", None, id="no parameters"),
    ],
)
def test_what_was_done_elsewhere(params: bytes, id_: str | None) -> None:
    found = read_elicited(Incoming("2.0", method="notifications/elicitation/complete", params=Raw(params)))
    assert found == (None if id_ is None else Elicited(id_, params))
    if found is not None:
        said = encode_notification(found, None)
        assert json.loads(said)["params"] == json.loads(params)
