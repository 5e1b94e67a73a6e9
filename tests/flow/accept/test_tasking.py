"""Tasks over real sockets: made, asked about, ended and listed through the gateway, in each era's own protocol; and
nobody asks about a task that is not his."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from narthex.flow.codec.handles import Task, owner_of
from narthex.testing.server import Asked, FakeServer, JsonRpcError
from narthex.types import LOCAL, CacheRule, CacheSpec, ClearRule, EndpointSpec
from tests.flow.gateway import LEGACY, Answer, Client, Running, run, spec, until
from tests.flow.notify.hearing import Hearing, Teller

EXTENSION = "io.modelcontextprotocol/tasks"
META: dict[str, Any] = {"io.modelcontextprotocol/clientCapabilities": {"extensions": {EXTENSION: {}}}}
RELATED = "io.modelcontextprotocol/related-task"
TIMES = {"createdAt": "2026-07-28T10:30:00Z", "lastUpdatedAt": "2026-07-28T10:30:00Z"}
TASK: dict[str, Any] = {"ttl": 60000}
LONG = {"name": "one__long", "arguments": {}}
OLD: dict[str, Any] = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}


@dataclass
class Tasker(FakeServer):
    """Its tool `long` is a task wherever it may be. Tasks are in one state until they are ended."""

    tools: list[dict[str, Any]] = field(
        default_factory=lambda: [{"name": name, "inputSchema": {"type": "object"}} for name in ("long", "plain")]
    )
    tasks: dict[str, str] = field(default_factory=dict)
    text: str = "done"
    asks: bool = False
    """Ask the client before a result is told, on the stream of that."""
    replies: list[Any] = field(default_factory=list)
    always: bool = False
    """Make a task whatever the client has declared."""

    async def __aenter__(self) -> Tasker:
        await super().__aenter__()
        return self

    async def _serve(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        message = asked.message or {}
        if message and "method" not in message:
            self.replies.append(message)
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        elif self.asks and asked.method == "tasks/result":
            about = {RELATED: {"taskId": asked.params["taskId"]}}
            question = {"mode": "form", "message": "?", "requestedSchema": {"type": "object", "properties": {}}}
            pushed = {"id": "q", "method": "elicitation/create", "params": {**question, "_meta": about}}
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + event(pushed))
            await until(lambda: self.replies)
            writer.write(event({"id": message["id"], "result": {"content": [], "_meta": about}}))
            raise ConnectionError
        else:
            await super()._serve(asked, writer)

    def _capabilities(self) -> dict[str, Any]:
        return {"tools": {}, "tasks": OLD, "extensions": {EXTENSION: {}}}

    async def _result(self, asked: Asked, *, modern: bool) -> dict[str, Any]:
        method, params = asked.method, asked.params
        if method == "tools/call" and params["name"] == "long":
            declared = params.get("_meta", {}).get("io.modelcontextprotocol/clientCapabilities", {})
            if modern and (self.always or EXTENSION in declared.get("extensions", {})):
                return {"resultType": "task", **self._made(modern)}
            if modern:
                required: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
                raise JsonRpcError(-32021, "tasks are required", status=400, data=required)
            if "task" not in params:
                raise JsonRpcError(-32601, "this tool runs as a task")
            made = self._made(modern)
            return {"task": made, "_meta": {RELATED: {"taskId": made["taskId"]}}}
        if method.startswith("tasks/"):
            return self._about(method, params, modern)
        return await super()._result(asked, modern=modern)

    def _made(self, modern: bool) -> dict[str, Any]:
        id_ = f"task-{len(self.tasks)}"
        self.tasks[id_] = "working"
        return self._state(id_, modern)

    def _state(self, id_: str, modern: bool) -> dict[str, Any]:
        return {"taskId": id_, "status": self.tasks[id_], **TIMES, "ttlMs" if modern else "ttl": None}

    def _about(self, method: str, params: dict[str, Any], modern: bool) -> dict[str, Any]:
        if method == "tasks/list":
            start = int(params.get("cursor", 0))
            more = {"nextCursor": str(start + 2)} if start + 2 < len(self.tasks) else {}
            return {"tasks": [self._state(one, modern) for one in list(self.tasks)[start : start + 2]], **more}
        id_ = params["taskId"]
        if id_ not in self.tasks:
            raise JsonRpcError(-32602, "no such task")
        if method == "tasks/cancel":
            self.tasks[id_] = "cancelled"
        if method == "tasks/result":
            return {"content": [{"type": "text", "text": self.text}], "_meta": {RELATED: {"taskId": id_}}}
        if modern and method != "tasks/get":
            return {}
        result = {"result": {"content": [{"type": "text", "text": self.text}]}} if modern else {}
        return {**self._state(id_, modern), **result}

    def about(self) -> list[Asked]:
        return [one for one in self.asked if one.method.startswith("tasks/")]


def event(message: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps({"jsonrpc": "2.0", **message}).encode()


def over(*servers: Tasker, sharing: str = "session", **settings: Any) -> Running:
    named = zip(("one", "two"), servers, strict=False)
    return Running({name: spec(name, one.url, sharing=sharing) for name, one in named}, **settings)


async def ask(client: Client, method: str, id_: str, meta: Any = META, path: str = "/mcp", **more: Any) -> Answer:
    params = {"taskId": id_, **more}
    return await client.modern(method, params, meta=meta, path=path, headers={"Mcp-Name": id_})


def refusal(answer: Answer) -> Any:
    """An error without what is new each time."""
    return answer.status, {**answer.error, "data": {**answer.error["data"], "decisionId": ""}}


# --- the extension of 2026-07-28 --------------------------------------------------------------------------------------


def test_a_modern_task_from_its_making_to_its_end() -> None:
    async def main() -> None:
        async with Tasker(eras="modern") as server, over(server) as gateway:
            client = await gateway.client()
            offered = (await client.modern("server/discover")).result["capabilities"]
            assert offered["extensions"] == {EXTENSION: {}}
            assert "tasks" not in offered
            made = (await client.modern("tools/call", LONG, meta=META)).result
            id_ = made["taskId"]
            expected = {"status": "working", **TIMES, "ttlMs": None}
            assert made == {"resultType": "task", "taskId": id_, **expected}
            assert "task-0" not in id_
            got = (await ask(client, "tasks/get", id_)).result
            inner = {"content": [{"type": "text", "text": "done"}]}
            assert got == {"resultType": "complete", "taskId": id_, **expected, "result": inner}
            assert (await ask(client, "tasks/update", id_, inputResponses={"a": {}})).result == {
                "resultType": "complete"
            }
            assert (await ask(client, "tasks/cancel", id_)).result == {"resultType": "complete"}
            assert (await ask(client, "tasks/get", id_)).result["status"] == "cancelled"
            assert {one.params["taskId"] for one in server.about()} == {"task-0"}
            assert {one.headers["mcp-name"] for one in server.about()} == {"task-0"}
            assert server.requests("tasks/update")[0].params["inputResponses"] == {"a": {}}
            assert gateway.counted("tasks/get") == {"ok": 2}, "counted by no task's name"
            await until(gateway.settled)

    run(main)


def test_a_task_is_known_by_its_owner_alone_and_everywhere_else_it_never_existed() -> None:
    async def main() -> None:
        endpoints = {name: EndpointSpec(name, ("one",)) for name in ("default", "other")}
        async with Tasker(eras="modern") as server, over(server, endpoints=endpoints) as gateway:
            client = await gateway.client()
            id_ = (await client.modern("tools/call", LONG, meta=META)).result["taskId"]
            flipped = id_[:-5] + ("A" if id_[-5] != "A" else "B") + id_[-4:]
            never = refusal(await ask(client, "tasks/get", "task-0"))
            assert (never[0], never[1]["code"]) == (200, -32602)
            for method in ("tasks/get", "tasks/update", "tasks/cancel"):
                assert refusal(await ask(client, method, flipped)) == never
                assert refusal(await ask(client, method, "")) == never
                assert refusal(await ask(client, method, id_, path="/mcp/other")) == never
            old = await gateway.client(session=True)
            assert (await old.legacy("tasks/get", {"taskId": id_})).error["code"] == -32602, "of the other era"
            assert server.about() == []
            assert (await ask(client, "tasks/get", id_)).result["taskId"] == id_

    run(main)


def test_a_client_without_the_extension_neither_gets_tasks_nor_asks_about_them() -> None:
    async def main() -> None:
        async with Tasker(eras="modern") as server, over(server) as gateway:
            client = await gateway.client()
            required: dict[str, Any] = {"extensions": {EXTENSION: {}}}
            answers = [await client.modern("tools/call", LONG)]
            answers += [await ask(client, f"tasks/{verb}", "x", meta=None) for verb in ("get", "update", "cancel")]
            for answer in answers:
                assert (answer.status, answer.error["code"]) == (400, -32021)
                assert answer.error["data"]["requiredCapabilities"] == required
            server.always = True
            assert (await client.modern("tools/call", LONG)).error["code"] == -31005
            old = await gateway.client(session=True)
            assert (await old.legacy("tools/call", {**LONG, "task": TASK})).error["code"] == -31005
            for method in ("tasks/result", "tasks/list"):
                answer = await client.modern(method, {"taskId": "x"}, meta=META)
                assert (answer.status, answer.error["code"]) == (404, -32601), "of the other era"

    run(main)


def test_the_header_must_name_the_task() -> None:
    async def main() -> None:
        async with Tasker(eras="modern") as server, over(server) as gateway:
            client = await gateway.client()
            id_ = (await client.modern("tools/call", LONG, meta=META)).result["taskId"]
            for name in ("task-0", None):
                answer = await client.modern("tasks/get", {"taskId": id_}, meta=META, headers={"Mcp-Name": name})
                assert (answer.status, answer.error["code"]) == (400, -32020)
            assert server.about() == []

    run(main)


def test_a_second_process_with_the_same_keys_knows_the_task() -> None:
    async def main() -> None:
        async with Tasker(eras="modern") as server, over(server) as first, over(server, key=first.key) as second:
            made = await (await first.client()).modern("tools/call", LONG, meta=META)
            id_ = made.result["taskId"]
            assert (await ask(await second.client(), "tasks/get", id_)).result["taskId"] == id_

    run(main)


def test_a_large_result_of_a_task_is_seen_whole() -> None:
    async def main() -> None:
        async with Tasker(eras="modern", text="x" * 2_000_000) as server, over(server) as gateway:
            client = await gateway.client()
            id_ = (await client.modern("tools/call", LONG, meta=META)).result["taskId"]
            got = (await ask(client, "tasks/get", id_)).result
            assert (got["taskId"], len(got["result"]["content"][0]["text"])) == (id_, 2_000_000)

    run(main)


def test_a_client_is_told_of_its_own_tasks_by_the_ids_that_it_knows() -> None:
    async def main() -> None:
        async with Teller("modern") as server, server.over() as gateway:
            handles, owner = gateway.front.handles, owner_of(LOCAL, "default")
            ours = handles.task(owner, Task("one", "t1", "modern"), ttl_s=60)
            of_others = handles.task(owner_of(LOCAL, "other"), Task("one", "t2", "modern"), ttl_s=60)
            client = await gateway.client()
            wanted = {"notifications": {"taskIds": [ours, of_others, "t3"]}}
            client.send("subscriptions/listen", wanted, modern=True, meta=META)
            hearing = Hearing(client, *(await client.read_head()))
            assert (await hearing.message())["params"]["notifications"] == {"taskIds": [ours]}
            listened = server.params("subscriptions/listen")[-1]
            assert listened["notifications"] == {"taskIds": ["t1"]}
            assert EXTENSION in listened["_meta"]["io.modelcontextprotocol/clientCapabilities"]["extensions"]
            for id_ in ("t2", "t3", "t1"):
                server.tell("notifications/tasks", taskId=id_, status="completed")
            told = await hearing.message()
            assert (told["method"], told["params"]["taskId"]) == ("notifications/tasks", ours)

    run(main)


# --- the tasks of 2025-11-25 ------------------------------------------------------------------------------------------


def test_a_legacy_task_from_its_making_to_its_end() -> None:
    async def main() -> None:
        async with Tasker(eras="legacy") as server, over(server) as gateway:
            client = await gateway.client()
            assert (await client.initialize()).result["capabilities"]["tasks"] == OLD
            made = (await client.legacy("tools/call", {**LONG, "task": TASK})).result
            id_ = made["task"]["taskId"]
            assert made["_meta"][RELATED]["taskId"] != "task-0"
            assert server.requests("tools/call")[0].params["task"] == TASK
            state = {"taskId": id_, "status": "working", **TIMES, "ttl": None}
            assert (await client.legacy("tasks/get", {"taskId": id_})).result == state
            result = (await client.legacy("tasks/result", {"taskId": id_})).result
            assert result == {"content": [{"type": "text", "text": "done"}], "_meta": {RELATED: {"taskId": id_}}}
            assert (await client.legacy("tasks/cancel", {"taskId": id_})).result == {**state, "status": "cancelled"}
            assert {one.params["taskId"] for one in server.about()} == {"task-0"}
            assert (await client.legacy("tasks/get", {"taskId": "task-0"})).error["code"] == -32602
            assert (await client.legacy("tasks/update", {"taskId": id_})).error["code"] == -32601
            await until(gateway.settled)

    run(main)


def test_what_a_task_asks_names_it_and_so_does_the_answer() -> None:
    async def main() -> None:
        async with Tasker(eras="legacy", asks=True) as server, over(server) as gateway:
            client, other = await gateway.client(), await gateway.client()
            info = {"name": "t", "version": "1"}
            params = {"protocolVersion": LEGACY, "capabilities": {"elicitation": {}}, "clientInfo": info}
            client.session = (await client.legacy("initialize", params)).headers["mcp-session-id"]
            id_ = (await client.legacy("tools/call", {**LONG, "task": TASK})).result["task"]["taskId"]
            client.send("tasks/result", {"taskId": id_})
            hearing = Hearing(client, *(await client.read_head()))
            asked = await hearing.message()
            about = {RELATED: {"taskId": id_}}
            assert (asked["method"], asked["params"]["_meta"]) == ("elicitation/create", about)
            answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "_meta": about}}
            lines = {"MCP-Protocol-Version": LEGACY, "Mcp-Session-Id": client.session}
            other.http("POST", "/mcp", lines, json.dumps(answer).encode())
            assert (await hearing.message())["result"]["_meta"] == about
            assert server.replies[0]["result"]["_meta"] == {RELATED: {"taskId": "task-0"}}

    run(main)


def test_a_list_of_tasks_goes_through_every_server() -> None:
    async def main() -> None:
        async with Tasker(eras="legacy") as one, Tasker(eras="legacy") as two, over(one, two) as gateway:
            client = await gateway.client(session=True)
            for number in range(4):
                name = "one__long" if number < 3 else "two__long"
                await client.legacy("tools/call", {"name": name, "task": TASK})
            pages: list[list[str]] = []
            params: dict[str, Any] = {}
            while True:
                page = (await client.legacy("tasks/list", params)).result
                pages.append([task["taskId"] for task in page["tasks"]])
                if "nextCursor" not in page:
                    break
                params = {"cursor": page["nextCursor"]}
            assert [len(page) for page in pages] == [2, 1, 1]
            for id_ in sum(pages, []):
                assert (await client.legacy("tasks/get", {"taskId": id_})).result["taskId"] == id_
            assert [len(server.requests("tasks/get")) for server in (one, two)] == [3, 1]
            for cursor in ("x", params["cursor"][:-2]):
                assert (await client.legacy("tasks/list", {"cursor": cursor})).error["code"] == -32602

    run(main)


def test_where_sessions_are_shared_there_are_no_legacy_tasks() -> None:
    async def main() -> None:
        async with Tasker(eras="legacy") as server, over(server, sharing="principal") as gateway:
            client = await gateway.client()
            assert "tasks" not in (await client.initialize()).result["capabilities"]
            plain = await client.legacy("tools/call", {"name": "one__plain", "task": TASK})
            assert plain.text == "{}", "not declared: processed normally"
            assert "task" not in server.requests("tools/call")[0].params
            assert (await client.legacy("tools/call", {**LONG, "task": TASK})).error["code"] == -32601
            assert (await client.legacy("tasks/list")).error["code"] == -32601
            assert (await client.legacy("tasks/result", {"taskId": "task-0"})).error["code"] == -32602
            assert server.about() == []

    run(main)


@pytest.mark.parametrize("eras", ["legacy", "modern"])
def test_a_modern_client_makes_no_legacy_task(eras: Any) -> None:
    async def main() -> None:
        async with Tasker(eras=eras) as server, over(server) as gateway:
            client = await gateway.client()
            plain = {"name": "one__plain", "arguments": {}, "task": TASK}
            assert (await client.modern("tools/call", plain, meta=META)).text == "{}"
            assert ("task" in server.requests("tools/call")[0].params) is (eras == "modern"), "unknown keys pass"
            if eras == "legacy":
                answer = await client.modern("tools/call", {**LONG, "task": TASK}, meta=META)
                assert answer.error["code"] == -32601
                discovered = (await client.modern("server/discover")).result["capabilities"]
                assert EXTENSION not in discovered.get("extensions", {})

    run(main)


def test_a_tool_that_runs_as_no_task_says_so_where_tasks_are_offered() -> None:
    async def main() -> None:
        async with Tasker(eras="legacy") as one, Tasker(eras="modern") as two, over(one, two) as gateway:
            client = await gateway.client(session=True)
            answer = await client.legacy("tools/call", {"name": "two__plain", "task": TASK})
            assert (answer.status, answer.error["code"]) == (200, -32601)
            assert two.requests("tools/call") == []
            assert (await client.legacy("tools/call", {"name": "one__nothing", "task": TASK})).error["code"] == -32602

    run(main)


def test_a_revision_before_tasks_knows_none() -> None:
    async def main() -> None:
        async with Tasker(eras="legacy") as server, over(server) as gateway:
            client = await gateway.client()
            before = {"MCP-Protocol-Version": "2025-06-18"}
            called = await client.legacy("tools/call", {"name": "one__plain", "task": TASK}, headers=before)
            assert json.loads(called.text) == {}
            assert "task" not in server.requests("tools/call")[0].params
            for method in ("tasks/get", "tasks/list"):
                assert (await client.legacy(method, {"taskId": "x"}, headers=before)).error["code"] == -32601

    run(main)


def test_a_server_that_lists_what_is_no_task() -> None:
    async def main() -> None:
        async with Tasker(eras="legacy") as server, over(server) as gateway:
            client = await gateway.client(session=True)
            server.tasks[""] = "working"
            assert (await client.legacy("tasks/list")).error["code"] == -31005

    run(main)


def test_a_task_ends_what_its_tool_may_change_when_it_is_heard_of() -> None:
    cache = CacheSpec(
        (CacheRule("read", 60.0, tools=("one__plain",)),), (ClearRule(("one__long",), tools=("one__plain",)),)
    )

    async def main() -> None:
        async with Tasker() as server, Running({"one": spec("one", server.url)}, settings={"cache": cache}) as gateway:
            client = await gateway.client()
            handle = (await client.modern("tools/call", LONG, meta=META)).result["taskId"]
            plain = {"name": "one__plain", "arguments": {}}
            for calls in (1, 1):
                await client.modern("tools/call", plain)
                assert len(server.requests("tools/call")) == 1 + calls
            await client.modern("tasks/get", {"taskId": handle}, meta=META, headers={"Mcp-Name": handle})
            await client.modern("tools/call", plain)
            assert len(server.requests("tools/call")) == 3

    run(main)
