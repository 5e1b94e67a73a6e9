"""What the fixture does beyond the suite: legacy tasks, changes, resumption. Tests of the gateway may rely on it.

In: requests to the fixture itself, without a gateway.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance import suites
from tests.conformance.fixture.call import TASKS
from tests.conformance.fixture.legacy import RELATED
from tests.e2e.harness import CAPABILITIES, LEGACY, Client, Era, Headers, Wire, message, routing_headers, wait_for

pytestmark = pytest.mark.e2e
WATCHED = "test://watched-resource"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with suites.fixture("dual") as found:
        yield found


def able_session(url: str) -> Client:
    """A legacy session whose client can be asked."""
    client = Client(url, "legacy")
    info = {"name": "able", "version": "1"}
    params = {"protocolVersion": LEGACY, "capabilities": {"elicitation": {}}, "clientInfo": info}
    client.session = client.post("initialize", params).header("mcp-session-id")
    return client


def say(client: Client, body: dict[str, Any]) -> int:
    """POST something that has no answer; the status."""
    with Wire(client.url) as wire:
        headers = routing_headers(body, era="legacy", session=client.session)
        return wire.request("POST", headers=headers, body=json.dumps(body).encode()).status


def listening(wire: Wire, client: Client, extra: Headers = ()) -> Iterator[Any]:
    """The messages of the stream that GET opens."""
    wire.send(
        (
            f"GET {wire.path} HTTP/1.1\r\nhost: {wire.host}\r\naccept: text/event-stream\r\n"
            f"mcp-session-id: {client.session}\r\n" + "".join(f"{key}: {value}\r\n" for key, value in extra) + "\r\n"
        ).encode()
    )
    return wire.events(wire.read_head())


def test_a_legacy_task_is_made_read_listed_and_ended(url: str) -> None:
    client = Client(url, "legacy")
    call = {"name": "slow_compute", "arguments": {"seconds": 0, "label": "x"}, "task": {"ttl": 60_000}}
    task = client.result("tools/call", call)["task"]
    assert task["status"] == "working" and task["pollInterval"]
    result = client.result("tasks/result", {"taskId": task["taskId"]})
    assert result["content"][0]["text"] == "computed x" and result["_meta"][RELATED] == {"taskId": task["taskId"]}
    assert client.result("tasks/get", {"taskId": task["taskId"]})["status"] == "completed"
    assert task["taskId"] in [one["taskId"] for one in client.result("tasks/list")["tasks"]]
    assert client.error("tasks/cancel", {"taskId": task["taskId"]})["code"] == -32602


def test_a_legacy_task_asks_on_the_stream_of_its_result(url: str) -> None:
    client = able_session(url)
    call = {"name": "confirm_delete", "arguments": {"filename": "a"}, "task": {}}
    task = client.result("tools/call", call)["task"]
    wait_for(lambda: client.result("tasks/get", {"taskId": task["taskId"]})["status"] == "input_required")
    with client.start("tasks/result", {"taskId": task["taskId"]}).wire as wire:
        stream = wire.events(wire.read_head())
        asked = next(stream)
        assert (asked["method"], asked["params"]["_meta"]) == (
            "elicitation/create",
            {RELATED: {"taskId": task["taskId"]}},
        )
        assert say(client, {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}}) == 202
        assert "action=decline" in next(stream)["result"]["content"][0]["text"]


def test_a_legacy_client_hears_of_changes_and_takes_its_stream_up_again(url: str) -> None:
    client = Client(url, "legacy")
    client.result("resources/subscribe", {"uri": WATCHED})
    with Wire(url) as wire:
        heard = listening(wire, client)
        for tool in ("test_trigger_tool_change", "test_trigger_tool_change", "test_trigger_resource_update"):
            client.call(tool)
        first = [next(heard)["method"] for _ in range(3)]
    assert first == [*["notifications/tools/list_changed"] * 2, "notifications/resources/updated"]
    client.call("test_trigger_resource_update")
    with Wire(url) as wire:
        again = listening(wire, client, [("last-event-id", "0-2")])
        assert [next(again)["params"]["uri"] for _ in range(2)] == [WATCHED] * 2


def test_a_cut_stream_goes_on_where_the_client_left_it(url: str) -> None:
    client = Client(url, "legacy")
    with client.start("tools/call", {"name": "test_reconnection", "arguments": {}}).wire as wire:
        raw = wire.read().body.decode()
    assert "retry: 100\n" in raw and "result" not in raw
    last = raw.rpartition("id: ")[2].partition("\n")[0]
    with Wire(url) as wire:
        assert next(listening(wire, client, [("last-event-id", last)]))["result"]["content"]


def test_a_modern_client_hears_what_it_listens_to(url: str) -> None:
    client = Client(url)
    able: dict[str, Any] = {"_meta": {CAPABILITIES: {"extensions": {TASKS: {}}}}}
    call = {"name": "slow_compute", "arguments": {"seconds": 60}}
    task = client.result("tools/call", {**call, **able})["taskId"]
    wanted = {"notifications": {"resourceSubscriptions": [WATCHED], "taskIds": [task]}, **able}
    running = client.start("subscriptions/listen", wanted)
    with running.wire as wire:
        heard = wire.events(wire.read_head())
        assert next(heard)["params"]["notifications"] == wanted["notifications"]
        client.call("test_trigger_tool_change")
        client.call("test_trigger_tool_change")
        client.call("test_trigger_resource_update")
        body = message("tasks/cancel", {"taskId": task, **able}, client.next_id())
        with Wire(url) as other:
            other.send(client.render(body, extra=[("mcp-name", task)]))
            assert other.read().answer["result"]["resultType"] == "complete"
        told = [next(heard) for _ in range(2)]
    assert [one["method"] for one in told] == ["notifications/resources/updated", "notifications/tasks"]
    assert told[1]["params"]["status"] == "cancelled"
    assert {one["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] for one in told} == {running.id}


@pytest.mark.parametrize(("era", "other", "code"), [("modern", "legacy", -32020), ("legacy", "modern", -32000)])
def test_a_fixture_of_one_era_refuses_the_other_as_that_era_does(era: Era, other: Era, code: int) -> None:
    with suites.fixture(era) as url, Wire(url) as wire:
        method, params = ("initialize", {"protocolVersion": LEGACY}) if other == "legacy" else ("server/discover", {})
        body = message(method, params, era=other)
        response = wire.request("POST", headers=routing_headers(body, era=other), body=json.dumps(body).encode())
        assert (response.status, response.json["error"]["code"]) == (400, code)
        assert wire.request("GET").status == (405 if era == "modern" else 400)
