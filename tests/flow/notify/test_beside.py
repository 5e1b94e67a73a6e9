"""What legacy sessions are told beside their calls: logs at their level, and the states of their own tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from narthex.flow.codec.handles import Task, owner_of
from narthex.flow.codec.subscriptions import Logged
from narthex.flow.notify import beside
from narthex.flow.notify.log_lines import MOST_BYTES, MOST_LINES
from narthex.types import LOCAL
from tests.flow.gateway import LEGACY, Client, Running, run, until
from tests.flow.notify.hearing import Hearing, Teller, get, listen
from tests.flow.notify.test_levels import asked, set_level

SHARING = pytest.mark.parametrize("sharing", ["tenant", "principal", "session"])
RELATED = "io.modelcontextprotocol/related-task"


async def hearing(gateway: Running, level: str = "") -> tuple[Client, Hearing]:
    """A legacy session with a GET stream, which wants to hear this and listens."""
    listeners = gateway.front.hub._listeners
    before = len(listeners)
    client = await gateway.client(session=True)
    if level:
        await set_level(client, level)
    stream = await get(gateway, client.session)
    await stream.event()
    await until(lambda: len(listeners) > before)
    return client, stream


async def heard(server: Teller, count: int = 1) -> None:
    """The gateway listens to so many streams of the server."""
    await until(lambda: len(server.streams) == count)


def log(server: Teller, level: str, data: Any, **more: Any) -> None:
    server.tell("notifications/message", level=level, data=data, **more)


async def logged(stream: Hearing) -> Any:
    message = await stream.message()
    assert message["method"] == "notifications/message"
    return message["params"]["data"]


@SHARING
def test_a_log_message_outside_of_calls_reaches_who_asked_for_it_at_its_level(sharing: Any) -> None:
    async def main() -> None:
        async with Teller() as server, server.over(sharing=sharing) as gateway:
            _, careful = await hearing(gateway, "warning")
            _, curious = await hearing(gateway, "debug")
            await heard(server, 2 if sharing == "session" else 1)
            for level in ("debug", "warning", "error"):
                log(server, level, level)
            assert [await logged(curious) for _ in range(3)] == ["debug", "warning", "error"]
            assert [await logged(careful) for _ in range(2)] == ["warning", "error"]

    run(main)


@SHARING
def test_who_has_not_asked_hears_nothing(sharing: Any) -> None:
    async def main() -> None:
        async with Teller() as server, server.over(sharing=sharing) as gateway:
            _, silent = await hearing(gateway)
            modern = await listen(await gateway.client(), toolsListChanged=True)
            await modern.message()
            await until(lambda: all(s.agreed.kinds for s in gateway.fleet.servers["one"].listenings.values()))
            log(server, "emergency", "x")
            server.has("b")
            for one in (silent, modern):
                assert (await one.told())[0] == "tools/list_changed", "the first that comes is what came behind it"

    run(main)


def test_a_message_is_passed_on_as_it_came() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            _, stream = await hearing(gateway, "debug")
            await heard(server)
            log(server, "info", {"a": [1.50, None]}, logger="db", _meta={"x": 1}, other="kept")
            message = await stream.message()
            assert message["params"] == {
                "level": "info", "data": {"a": [1.50, None]}, "logger": "db", "_meta": {"x": 1}, "other": "kept",
            }  # fmt: skip

    run(main)


def test_several_principals_of_one_channel_hear_none_of_it() -> None:
    async def main() -> None:
        async with Teller() as server, server.over(sharing="tenant") as gateway:
            _, stream = await hearing(gateway, "debug")
            await heard(server)
            other = msgspec.structs.replace(LOCAL, subject="somebody else")
            gateway.fleet.viewer(gateway.front.snapshot.endpoints["default"], other, None)
            log(server, "error", "a secret of somebody else")
            server.has("b")
            assert (await stream.told())[0] == "tools/list_changed"

    run(main)


@SHARING
def test_a_server_is_told_the_level_before_any_call_and_again_after_a_loss(sharing: Any) -> None:
    async def main() -> None:
        async with Teller() as server, server.over(sharing=sharing) as gateway:
            await hearing(gateway, "notice")
            await until(lambda: asked(server) == ["notice"])
            server.sessions.clear()
            server.cut()
            await until(lambda: asked(server) == ["notice", "notice"])

    run(main)


def test_a_flood_is_bounded_and_says_what_it_left_out() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            _, stream = await hearing(gateway, "debug")
            await heard(server)
            for number in range(3 * MOST_LINES):
                log(server, "info", number)
            said = []
            while len(said) < MOST_LINES or not isinstance(said[-1], str):
                said.append(await logged(stream))
            numbers = [one for one in said if isinstance(one, int)]
            lost = sum(int(one.split()[0]) for one in said if isinstance(one, str))
            assert numbers == sorted(set(numbers))
            assert numbers[-1] + 1 <= len(numbers) + lost <= 3 * MOST_LINES

    run(main)


def test_who_does_not_read_loses_logs_and_not_its_stream() -> None:
    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            _, stream = await hearing(gateway, "debug")
            await heard(server)
            hub = gateway.front.hub
            (listener,) = hub._listeners.values()
            subscriber, telling = listener.subscriber, listener.stream
            assert subscriber is not None
            assert telling is not None
            assert telling._connection is not None
            telling._connection.paused = True  # its client does not read
            for _ in range(9):
                log(server, "info", "x" * (MOST_BYTES // 4 - 100))
            server.has("b")
            queues = hub.interests._news._queues
            await until(lambda: subscriber in queues and ("list", "tools") in queues[subscriber].news)
            news = queues[subscriber].news  # the list may be found changed before any of the logs is read
            await until(
                lambda: spoken_of(json.loads(one.params) for one in news.values() if isinstance(one, Logged)) == 9
            )
            assert queues[subscriber].size < 2 * MOST_BYTES
            waiting = len(news)
            telling._connection.paused = False
            telling.resume()
            told = [await stream.message() for _ in range(waiting)]
            assert [one["method"] for one in told].count("notifications/tools/list_changed") == 1
            logs = [one["params"] for one in told if one["method"] == "notifications/message"]
            assert sum(one["data"].startswith("x") for one in logs) <= 4
            assert spoken_of(logs) == 9

    run(main)


def spoken_of(logs: Iterable[Any]) -> int:
    """How many messages stand in these, with those that are only counted."""
    return sum(1 if one["data"].startswith("x") else int(one["data"].split()[0]) for one in logs)


# --- tasks


async def made(client: Client, server: Teller, id_: str, **meta: Any) -> str:
    """The client calls the tool as a task; what it knows that as."""
    calls = len(server.calls)
    client.send("tools/call", {"name": "a", "arguments": {}, "task": {"ttl": 1000}}, meta=meta)
    await until(lambda: len(server.calls) > calls)
    message, stream = server.calls[-1]
    stream.send({"id": message["id"], "result": {"task": {"taskId": id_, "status": "working"}}})
    stream.close()
    return str((await client.read()).result["task"]["taskId"])


class Tasking(Teller):
    def __init__(self) -> None:
        super().__init__()
        self.capabilities = {**self.capabilities, "tasks": {"list": {}, "requests": {"tools": {"call": {}}}}}
        self.answers["tasks/list"] = {"tasks": [{"taskId": "t-1", "status": "working"}]}
        self.answers["tasks/get"] = {"taskId": "t-1", "status": "working"}


def test_a_legacy_client_is_told_of_its_task_by_the_name_that_it_knows() -> None:
    async def main() -> None:
        async with Tasking() as server, server.over(sharing="session") as gateway:
            client, stream = await hearing(gateway)
            await heard(server)
            name = await made(client, server, "t-1")
            assert gateway.front.handles.open_task(name, owner_of(LOCAL, "default")) == Task(
                "one", "t-1", "legacy", "a"
            )
            server.tell("notifications/tasks/status", taskId="t-1", status="completed", ttl=None, _meta={"x": 1})
            message = await stream.message()
            assert message["method"] == "notifications/tasks/status"
            assert message["params"] == {"_meta": {"x": 1}, "taskId": name, "status": "completed", "ttl": None}
            assert (await client.legacy("tasks/list")).result["tasks"][0]["taskId"] == name
            assert (await client.legacy("tasks/get", {"taskId": name})).result["taskId"] == name

    run(main)


def test_a_client_is_told_how_far_its_task_is_by_the_token_of_the_call_that_began_it() -> None:
    async def main() -> None:
        async with Tasking() as server, server.over(sharing="session") as gateway:
            client, stream = await hearing(gateway)
            _, other = await hearing(gateway)
            await heard(server, 2)
            name = await made(client, server, "t-1", progressToken="mine")
            token = server.calls[0][0]["params"]["_meta"]["progressToken"]
            mine = next(
                one for one in server.streams if one.headers["mcp-session-id"] in server.calls[0][1].headers.values()
            )
            related = {RELATED: {"taskId": "t-1"}}
            told = {"progress": 1, "total": 2, "_meta": related}
            for params in ({"progress": 9, "progressToken": token + 1}, {"progress": 9, "progressToken": "x"},
                           {**told, "progressToken": token}):  # fmt: skip
                mine.send({"method": "notifications/progress", "params": params})
            message = await stream.message()
            assert message["method"] == "notifications/progress"
            assert message["params"] == {**told, "progressToken": "mine", "_meta": {RELATED: {"taskId": name}}}
            server.has("b")
            assert (await other.told())[0] == "tools/list_changed", "another is told nothing of it"

    run(main)


class Waiting(Tasking):
    """It answers `tasks/result` on a stream, too."""

    async def post(self, reader: Any, writer: Any, headers: Any, message: Any) -> None:
        streams = {**message, "method": "tools/call"} if message.get("method") == "tasks/result" else message
        await super().post(reader, writer, headers, streams)


def test_progress_of_a_task_may_come_while_its_end_is_awaited() -> None:
    async def main() -> None:
        async with Waiting() as server, server.over(sharing="session") as gateway:
            client, stream = await hearing(gateway)
            await heard(server)
            name = await made(client, server, "t-1", progressToken=7)
            token = server.calls[0][0]["params"]["_meta"]["progressToken"]
            waits = await gateway.client()
            waits.session = client.session
            waits.send("tasks/result", {"taskId": name}, meta={"progressToken": 8})
            await until(lambda: len(server.calls) == 2)
            message, open_ = server.calls[1]
            for of, progress in ((token, 1), (message["params"]["_meta"]["progressToken"], 2)):
                open_.send({"method": "notifications/progress", "params": {"progressToken": of, "progress": progress}})
            open_.send({"id": message["id"], "result": {"content": []}})
            open_.close()
            told = (await stream.message())["params"]
            assert told == {"progressToken": 7, "progress": 1}, "of the call that began it"
            here = [one["params"] for one in (await waits.read()).messages if "method" in one]
            assert here == [{"progressToken": 8, "progress": 2}], "of the one that waits"

    run(main)


def test_a_task_whose_call_wanted_no_progress_tells_of_none() -> None:
    async def main() -> None:
        async with Tasking() as server, server.over(sharing="session") as gateway:
            client, stream = await hearing(gateway)
            await heard(server)
            await made(client, server, "t-1")
            for token in range(10):
                server.tell("notifications/progress", progressToken=token, progress=1)
            server.has("b")
            assert (await stream.told())[0] == "tools/list_changed"

    run(main)


def test_nobody_else_is_told_of_it() -> None:
    async def main() -> None:
        async with Tasking() as server, server.over(sharing="session") as gateway:
            client, stream = await hearing(gateway)
            _, other = await hearing(gateway)
            await heard(server, 2)
            await made(client, server, "t-1")
            mine = next(
                one for one in server.streams if one.headers["mcp-session-id"] in server.calls[0][1].headers.values()
            )
            mine.send({"method": "notifications/tasks/status", "params": {"taskId": "t-1", "status": "completed"}})
            assert (await stream.message())["params"]["status"] == "completed"
            server.has("b")
            assert (await other.told())[0] == "tools/list_changed"

    run(main)


def test_a_task_of_a_shared_channel_is_nobodys() -> None:
    async def main() -> None:
        async with Tasking() as server, server.over(sharing="principal") as gateway:
            _, stream = await hearing(gateway)
            await heard(server)
            server.tell("notifications/tasks/status", taskId="t-1", status="completed")
            server.has("b")
            assert (await stream.told())[0] == "tools/list_changed"

    run(main)


def test_what_a_task_logs_names_it_as_its_client_does() -> None:
    async def main() -> None:
        async with Tasking() as server, server.over(sharing="session") as gateway:
            client, stream = await hearing(gateway, "debug")
            await heard(server)
            name = await made(client, server, "t-1")
            log(server, "info", "half way", _meta={RELATED: {"taskId": "t-1"}})
            assert (await stream.message())["params"]["_meta"] == {RELATED: {"taskId": name}}
            log(server, "info", "odd", _meta={RELATED: {"taskId": 7}})
            assert json.loads(json.dumps(await stream.message()))["params"]["_meta"] == {RELATED: {"taskId": 7}}

    run(main)


# --- elicitations


async def with_a_browser(gateway: Running, capabilities: Any) -> tuple[Client, Hearing]:
    """A legacy session that can be sent to a URL, and listens."""
    client = await gateway.client()
    params = {"protocolVersion": LEGACY, "capabilities": capabilities, "clientInfo": {"name": "t", "version": "1"}}
    client.session = (await client.legacy("initialize", params)).headers["mcp-session-id"]
    listeners = gateway.front.hub._listeners
    before = len(listeners)
    stream = await get(gateway, client.session)
    await stream.event()
    await until(lambda: len(listeners) > before)
    return client, stream


@pytest.mark.parametrize(
    ("capabilities", "sharing", "told"),
    [
        pytest.param({"elicitation": {"form": {}, "url": {}}}, "session", True, id="who can be sent there"),
        pytest.param({"elicitation": {}}, "session", False, id="not who cannot"),
        pytest.param({"elicitation": {"url": {}}}, "principal", False, id="nor on a shared channel: whose is it?"),
    ],
)
def test_what_was_to_be_done_elsewhere_is_done(capabilities: Any, sharing: Any, told: bool) -> None:
    async def main() -> None:
        async with Teller() as server, server.over(sharing=sharing) as gateway:
            _, stream = await with_a_browser(gateway, capabilities)
            await heard(server)
            said = {"elicitationId": "e-1", "_meta": {"x": 1.0}}
            server.tell("notifications/elicitation/complete", elicitationId=7)
            server.tell("notifications/elicitation/complete", **said)
            if told:
                message = await stream.message()
                assert (message["method"], message["params"]) == ("notifications/elicitation/complete", said)
            server.has("b")
            assert (await stream.told())[0] == "tools/list_changed"

    run(main)


def test_the_batch_of_many_listeners_is_told_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "SLICE", 1)

    async def main() -> None:
        async with Teller() as server, server.over() as gateway:
            streams = [(await hearing(gateway, "info"))[1] for _ in range(3)]
            await heard(server)
            log(server, "info", "x")
            assert [await logged(one) for one in streams] == ["x"] * 3

    run(main)
