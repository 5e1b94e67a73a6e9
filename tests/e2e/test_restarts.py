"""The gateway, or its server, is started again in the middle of a question, a stream, a task, a subscription.

In: a gateway process that is killed and started in the same folder, so with the same keys; the fixture, killed and
started on the same port. Clients and servers of both eras. Out: what design §4 and §5 promise. A second process opens
every handle; what lived in the first one is answered like something that never was, with 404 where a session had more
than its handle; a server that went takes along what it was about, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance import suites
from tests.conformance.fixture.call import TASKS
from tests.conformance.matrix import ABLE, Refused, Talker, answer_to, until
from tests.conftest import StartGateway
from tests.counterparts.ports import Port
from tests.e2e.harness import LEGACY, ROOT, Closed, Era, Gateway, Wire, check_error, render, text, wait_for

pytestmark = pytest.mark.e2e
ERAS: tuple[Era, Era] = ("modern", "legacy")
WATCHED = "test://watched-resource"
WITH_TASKS = {**ABLE, "extensions": {TASKS: {}}}
each_client = pytest.mark.parametrize("client", ERAS, ids=lambda era: f"{era} client")
each_server = pytest.mark.parametrize("server", ERAS, ids=lambda era: f"{era} server")
each_sharing = pytest.mark.parametrize("sharing", ["session", "principal"])


class Upstream:
    """The fixture on a port of its own, in both eras, to be killed and started again."""

    def __init__(self) -> None:
        self.port = Port()
        self.url = f"http://127.0.0.1:{self.port.number}/mcp"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.conformance.fixture", "--port", str(self.port.number)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=suites.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout and self.process.stdout.readline().startswith("ready")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()

    def restart(self) -> None:
        self.kill()
        self.start()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    one = Upstream()
    yield one
    one.kill()


@pytest.fixture
def gateway(upstream: Upstream, start_gateway: StartGateway) -> Gateway:
    """An endpoint for each era of the server and each way to share its sessions."""
    servers: dict[str, Any] = {}
    for era in ERAS:
        for sharing in ("session", "principal"):
            servers[f"{era}-{sharing}"] = {"url": upstream.url, "era": era, "sharing": sharing}
    endpoints = {name: {"servers": [name], "naming": "none"} for name in servers}
    return start_gateway({"version": 1, "servers": servers, "endpoints": endpoints})


def restart(gateway: Gateway, *clients: Talker) -> None:
    """End it at once, start another one in its folder, and send the clients there."""
    before = gateway.mcp
    os.kill(gateway.process.pid, signal.SIGKILL)
    gateway.process.wait()
    gateway.lines.clear()
    gateway.start()
    for one in clients:
        one.url = one.url.replace(before, gateway.mcp)


@contextlib.contextmanager
def begun(one: Talker, name: str, **params: Any) -> Iterator[tuple[int, Iterator[Any]]]:
    """A tool is called on a stream; its id, and the messages as they come."""
    body = one.message("tools/call", {"name": name, "arguments": {"message": "Who?"}, **params}, ABLE)
    with Wire(one.url) as wire:
        wire.send(one._post(body))
        yield body["id"], wire.events(wire.read_head())


def asked_of(one: Talker, name: str = "test_elicitation") -> dict[str, Any]:
    """A modern client's call that asks: the result, which wants an answer."""
    body = one.message("tools/call", {"name": name, "arguments": {"message": "Who?"}}, ABLE)
    with Wire(one.url) as wire:
        wire.send(one._post(body))
        result: dict[str, Any] = wire.read().answer["result"]
    assert result["resultType"] == "input_required"
    return result


def retried(one: Talker, asked: dict[str, Any], name: str = "test_elicitation") -> dict[str, Any]:
    """The retry with the answers. Raises Refused."""
    answers = {key: answer_to(each, True) for key, each in asked["inputRequests"].items()}
    state = {"requestState": asked["requestState"]} if "requestState" in asked else {}
    return one.tool(name, {"message": "Who?"}, inputResponses=answers, **state)


def status_of_session(one: Talker) -> int:
    """The HTTP status that a legacy client gets for a call in its session."""
    with Wire(one.url) as wire:
        wire.send(one._post(one.message("tools/call", {"name": "test_simple_text", "arguments": {}}, ABLE)))
        return wire.read().status


# --- in the middle of a question


def test_a_modern_servers_question_outlives_the_gateway(gateway: Gateway) -> None:
    """All that is known of it stands in the state, which any process with the keys opens."""
    one = Talker(gateway.url("modern-session"), "modern")
    tool = "test_input_required_result_request_state"
    asked = asked_of(one, tool)
    restart(gateway, one)
    assert text(retried(one, asked, tool)) == "state-ok"


def test_a_legacy_servers_question_ends_with_the_gateway(gateway: Gateway) -> None:
    """The call lived in the process; its retry is answered like one that never was, and a new call is asked anew."""
    one = Talker(gateway.url("legacy-session"), "modern")
    asked = asked_of(one)
    restart(gateway, one)
    with pytest.raises(Refused) as refused:
        retried(one, asked)
    check_error(refused.value.error, -32602, "invalid_handle")
    assert "ada@example.com" in text(retried(one, asked_of(one)))


@each_server
def test_a_legacy_client_that_was_asked_begins_anew(gateway: Gateway, server: Era) -> None:
    one = Talker(gateway.url(f"{server}-session"), "legacy")
    with begun(one, "test_elicitation") as (_, messages):
        assert next(messages)["method"] == "elicitation/create"
        restart(gateway, one)
        with pytest.raises(Closed):
            next(messages)
    assert status_of_session(one) == 404, "its session had more than its handle"
    again = Talker(one.url, "legacy")
    assert "ada@example.com" in text(again.tool("test_elicitation", {"message": "Who?"}))


@pytest.mark.parametrize("tool", ["test_elicitation", "test_input_required_result_request_state"])
def test_the_server_of_a_modern_question_starts_again(gateway: Gateway, upstream: Upstream, tool: str) -> None:
    """The new one takes the answers to a question without a state; a state that only the old one read, it refuses."""
    one = Talker(gateway.url("modern-session"), "modern")
    asked = asked_of(one, tool)
    upstream.restart()
    if "requestState" not in asked:
        assert "ada@example.com" in text(retried(one, asked, tool))
    else:
        with pytest.raises(Refused) as refused:
            retried(one, asked, tool)
        assert refused.value.error["data"] == {"reason": "invalid_request_state"}, "in the server's words"
    assert "ada@example.com" in text(retried(one, asked_of(one)))


def test_the_server_of_a_held_call_starts_again(gateway: Gateway, upstream: Upstream) -> None:
    one = Talker(gateway.url("legacy-session"), "modern")
    asked = asked_of(one)
    upstream.restart()
    with pytest.raises(Refused) as refused:
        retried(one, asked)
    assert refused.value.code in (-31005, -32602), refused.value.error
    assert "ada@example.com" in text(retried(one, asked_of(one)))


def test_the_server_that_asks_a_legacy_client_starts_again(gateway: Gateway, upstream: Upstream) -> None:
    one = Talker(gateway.url("legacy-session"), "legacy")
    with begun(one, "test_elicitation") as (id_, messages):
        assert next(messages)["method"] == "elicitation/create"
        upstream.restart()
        broken = next(message for message in messages if message.get("id") == id_)
    assert check_error(broken["error"], -31005)["sent"] is True
    begins_anew(one)


def begins_anew(one: Talker) -> None:
    """What a server kept for this session alone is gone: the client is told so by 404 at most once, and goes on."""
    if status_of_session(one) == 404:
        one = Talker(one.url, "legacy")
    assert "ada@example.com" in text(one.tool("test_elicitation", {"message": "Who?"}))


# --- in the middle of a stream


@each_client
@each_server
def test_a_stream_breaks_off_with_its_server_and_says_so(
    gateway: Gateway, upstream: Upstream, client: Era, server: Era
) -> None:
    one = Talker(gateway.url(f"{server}-principal"), client)
    with begun(one, "test_tool_with_progress", _meta={"progressToken": "p"}) as (id_, messages):
        assert next(messages)["params"]["progress"] == 0
        upstream.restart()
        broken = next(message for message in messages if message.get("id") == id_)
    assert check_error(broken["error"], -31005)["sent"] is True
    assert one.hear_tool("test_tool_with_progress", _meta={"progressToken": "q"}).told("notifications/progress")


@each_server
@each_sharing
def test_a_stream_of_a_legacy_client_breaks_off_with_the_gateway(gateway: Gateway, server: Era, sharing: str) -> None:
    """Where the session was no more than its handle, it goes on with the next process; its stream cannot be resumed."""
    one = Talker(gateway.url(f"{server}-{sharing}"), "legacy")
    with begun(one, "test_tool_with_progress", _meta={"progressToken": "p"}) as (_, messages):
        assert next(messages)["params"]["progress"] == 0
        restart(gateway, one)
        with pytest.raises(Closed):
            list(messages)
    assert status_of_session(one) == (404 if sharing == "session" else 200)
    host, _, path = one.url.removeprefix("http://").partition("/")
    headers = [("host", host), ("accept", "text/event-stream"), ("mcp-session-id", str(one.session))]
    with Wire(one.url) as wire:
        wire.send(render("GET", f"/{path}", [*headers, ("mcp-protocol-version", LEGACY), ("last-event-id", "1-1")]))
        assert wire.read_head().status == (404 if sharing == "session" else 400)


@each_server
def test_a_modern_client_whose_stream_broke_asks_again(gateway: Gateway, server: Era) -> None:
    one = Talker(gateway.url(f"{server}-session"), "modern")
    with begun(one, "test_tool_with_progress", _meta={"progressToken": "p"}) as (_, messages):
        assert next(messages)["params"]["progress"] == 0
        restart(gateway, one)
        with pytest.raises(Closed):
            list(messages)
    assert text(one.tool("test_tool_with_progress")) == "progressed"


# --- in the middle of a task


def test_a_modern_task_is_found_by_the_next_process(gateway: Gateway) -> None:
    one = Talker(gateway.url("modern-session"), "modern")
    params = {"name": "slow_compute", "arguments": {"seconds": 0.5, "label": "x"}}
    id_ = {"taskId": one.call("tools/call", params, able=WITH_TASKS)["taskId"]}
    restart(gateway, one)
    wait_for(lambda: one.call("tasks/get", id_, able=WITH_TASKS)["status"] == "completed", "the end of the task")
    assert text(one.call("tasks/get", id_, able=WITH_TASKS)["result"]) == "computed x"


def test_a_legacy_task_is_found_by_the_next_session_where_its_server_lets_it(gateway: Gateway) -> None:
    """The session is over, its handle opens still: a new one asks the server, and this one knows tasks of others."""
    one = Talker(gateway.url("legacy-session"), "legacy")
    params = {"name": "slow_compute", "arguments": {"seconds": 60}, "task": {}}
    id_ = {"taskId": one.call("tools/call", params)["task"]["taskId"]}
    restart(gateway, one)
    assert status_of_session(one) == 404
    assert Talker(one.url, "legacy").call("tasks/get", id_)["status"] == "working"


def test_a_task_of_a_server_that_started_again_is_unknown_to_it(gateway: Gateway, upstream: Upstream) -> None:
    one = Talker(gateway.url("modern-session"), "modern")
    params = {"name": "slow_compute", "arguments": {"seconds": 60}}
    id_ = {"taskId": one.call("tools/call", params, able=WITH_TASKS)["taskId"]}
    upstream.restart()
    with pytest.raises(Refused) as refused:
        one.call("tasks/get", id_, able=WITH_TASKS)
    assert (refused.value.code, refused.value.error["message"]) == (-32602, "unknown task")


def test_a_legacy_task_goes_with_its_server(gateway: Gateway, upstream: Upstream) -> None:
    one = Talker(gateway.url("legacy-session"), "legacy")
    params = {"name": "slow_compute", "arguments": {"seconds": 60}, "task": {}}
    id_ = {"taskId": one.call("tools/call", params)["task"]["taskId"]}
    upstream.restart()
    with Wire(one.url) as wire:
        wire.send(one._post(one.message("tasks/get", id_, ABLE)))
        answered = wire.read()
    assert answered.status == 404 or answered.answer["error"]["code"] == -32602, answered
    begins_anew(one)


# --- in the middle of a subscription


def told(one: Talker, notes: Iterator[Any]) -> None:
    """The resource changes, and whoever listens is told of it. The first change may come before it is listened for."""
    one.tool("test_trigger_resource_update")
    assert until(notes, "notifications/resources/updated")["params"]["uri"] == WATCHED


@each_client
@each_server
def test_who_listens_at_the_next_process_is_told(gateway: Gateway, client: Era, server: Era) -> None:
    one = Talker(gateway.url(f"{server}-principal"), client)
    with one.listening(uri=WATCHED) as notes:
        told(one, notes)
        restart(gateway, one)
        with pytest.raises((Closed, StopIteration)):
            next(notes)
        with one.listening(uri=WATCHED) as again:
            told(one, again)


@each_client
@each_server
def test_who_listens_goes_on_when_the_server_starts_again(
    gateway: Gateway, upstream: Upstream, client: Era, server: Era
) -> None:
    """The stream to the client stays; the gateway listens to the server anew."""
    one = Talker(gateway.url(f"{server}-principal"), client)
    with one.listening(uri=WATCHED) as notes:
        told(one, notes)
        upstream.restart()
        stop = []

        def change() -> bool:
            with contextlib.suppress(Refused):
                one.tool("test_trigger_resource_update")
            return bool(stop)

        changing = threading.Thread(target=lambda: wait_for(change, "the end of the test"))
        changing.start()
        try:
            assert until(notes, "notifications/resources/updated")["params"]["uri"] == WATCHED
        finally:
            stop.append(True)
            changing.join()


# --- two processes at a time


def test_a_second_process_with_the_same_key_opens_every_handle(upstream: Upstream, start_gateway: StartGateway) -> None:
    """A session's handle, a question's state, a task's id and a cursor go from one to the other."""
    server = {"url": upstream.url, "era": "modern"}
    config = {
        "version": 1,
        "servers": {"one": server},
        "endpoints": {"default": {"servers": ["one"], "naming": "none"}},
    }
    key = {"NARTHEX_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}
    first, second = start_gateway(config, env=key), start_gateway(config, env=key)
    modern, legacy = Talker(first.mcp, "modern"), Talker(first.mcp, "legacy")
    tool = "test_input_required_result_request_state"
    asked = asked_of(modern, tool)
    params = {"name": "slow_compute", "arguments": {"seconds": 60}}
    id_ = {"taskId": modern.call("tools/call", params, able=WITH_TASKS)["taskId"]}
    modern.url = legacy.url = second.mcp
    assert status_of_session(legacy) == 200
    assert text(retried(modern, asked, tool)) == "state-ok"
    assert modern.call("tasks/get", id_, able=WITH_TASKS)["status"] == "working"
