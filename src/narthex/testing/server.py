"""A real MCP server over Streamable HTTP whose tools, prompts and resources are data. For tests, on loopback.

    async with FakeServer(tools=[{"name": "echo", "inputSchema": {"type": "object"}}]) as server:
        ...                              # server.url; server.asked holds every request that came

In a test without a loop, `with FakeServer(...) as server` runs it in a thread of its own. Cases: `tests/testing/`.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.parser import BytesParser
from typing import Any, Literal

LEGACY, MODERN = "2025-11-25", "2026-07-28"
Eras = Literal["dual", "modern", "legacy"]
Answer = Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]
LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One HTTP request as it came. Header names are lower-case; `message` is the decoded body, None without one."""

    verb: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    message: dict[str, Any] | None

    @property
    def method(self) -> str:
        """The JSON-RPC method, empty without one."""
        return str((self.message or {}).get("method", ""))

    @property
    def params(self) -> dict[str, Any]:
        params: dict[str, Any] = (self.message or {}).get("params") or {}
        return params


class JsonRpcError(Exception):
    """Raise it in an answer to send a JSON-RPC error."""

    def __init__(self, code: int, message: str, *, status: int = 200, data: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"code": code, "message": message, **({} if data is None else {"data": data})}


@dataclass
class FakeServer:
    """An MCP server made of data; the lists may be changed while it runs.

    Args:
        tools, prompts, resources, templates: What the lists say.
        answers: Result by tool name, prompt name or resource URI: a value, or a function of the parameters. Without one
            a listed tool answers with its arguments as JSON text.
        eras: Which eras it serves.
        stream: Answer calls as event streams, `events` first.
        events: Messages (notifications) that precede the answer on a stream.
        page: Items on a page of a list; 0 for all.
    """

    tools: list[dict[str, Any]] = field(default_factory=list)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    templates: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    eras: Eras = "dual"
    stream: bool = False
    events: Sequence[Mapping[str, Any]] = ()
    page: int = 0
    asked: list[Asked] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)
    guard: Callable[[Asked], tuple[int, Mapping[str, str]] | None] | None = None
    """Looks at each POST first: a status and headers refuse it."""
    pages: dict[str, Any] = field(default_factory=dict)
    """JSON documents by path, for a GET: such as the metadata of a protected resource."""
    held: asyncio.Event | None = None
    """Set it (on the server's loop) to keep calls waiting until it is set."""
    url: str = ""

    # --- life

    async def __aenter__(self) -> FakeServer:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/mcp"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __enter__(self) -> FakeServer:
        started = threading.Event()

        async def live() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            async with self:
                started.set()
                await self._stop.wait()

        self._thread = threading.Thread(target=asyncio.run, args=(live(),), name="fake-server", daemon=True)
        self._thread.start()
        if not started.wait(10):
            raise RuntimeError("the fake server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def requests(self, method: str) -> list[Asked]:
        """What was asked by `method`, in order."""
        return [one for one in list(self.asked) if one.method == method]

    def forget_sessions(self) -> None:
        """Lose every session, as a restart would: their next request gets 404."""
        self.sessions.clear()

    # --- HTTP

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                await self._serve(asked, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        message = asked.message
        if asked.verb == "DELETE":
            known = asked.headers.get("mcp-session-id", "") in self.sessions
            self.sessions.discard(asked.headers.get("mcp-session-id", ""))
            await _write(writer, 200 if known else 404)
            return
        if asked.verb == "GET" and asked.path in self.pages:
            await _write(writer, 200, json.dumps(self.pages[asked.path]).encode())
            return
        if asked.verb == "POST" and self.guard is not None and (refusal := self.guard(asked)) is not None:
            await _write(writer, refusal[0], extra=refusal[1])
            return
        if asked.verb != "POST" or message is None:
            await _write(writer, 405 if asked.verb != "POST" else 400)
            return
        if "id" not in message:
            await _write(writer, 202)
            return
        extra: dict[str, str] = {}
        try:
            result = await self._answer(asked, extra)
            answer, status = {"jsonrpc": "2.0", "id": message["id"], "result": result}, 200
        except JsonRpcError as error:
            answer, status = {"jsonrpc": "2.0", "id": message["id"], "error": error.error}, error.status
        if self.stream and asked.method in NAMED_BY and status == 200:
            await _write_stream(writer, [*self.events, answer])
        else:
            await _write(writer, status, json.dumps(answer).encode(), extra)

    # --- MCP

    async def _answer(self, asked: Asked, extra: dict[str, str]) -> dict[str, Any]:
        method, version = asked.method, asked.headers.get("mcp-protocol-version")
        if method == "initialize" and self.eras != "modern":
            return self._initialize(extra)
        if version == MODERN and self.eras != "legacy":
            return {"resultType": "complete", **await self._result(asked, modern=True)}
        if self.eras == "modern":
            raise JsonRpcError(-32022, "unsupported version", status=400, data={"supported": [MODERN]})
        if asked.headers.get("mcp-session-id") not in self.sessions:
            missing = "mcp-session-id" not in asked.headers
            raise JsonRpcError(-32000 if missing else -32001, "no session", status=400 if missing else 404)
        return await self._result(asked, modern=False)

    def _capabilities(self) -> dict[str, Any]:
        found = {"tools": self.tools, "prompts": self.prompts, "resources": self.resources or self.templates}
        return {name: {} for name, items in found.items() if items} or {"tools": {}}

    def _initialize(self, extra: dict[str, str]) -> dict[str, Any]:
        session = f"session-{len(self.asked)}"
        self.sessions.add(session)
        extra["Mcp-Session-Id"] = session
        info = {"name": "fake", "version": "1"}
        return {"protocolVersion": LEGACY, "capabilities": self._capabilities(), "serverInfo": info}

    async def _result(self, asked: Asked, *, modern: bool) -> dict[str, Any]:
        method, params = asked.method, asked.params
        cached: dict[str, Any] = {"ttlMs": 0, "cacheScope": "private"} if modern else {}
        if method == "server/discover" and modern:
            return {"supportedVersions": [MODERN], "capabilities": self._capabilities(), **cached}
        if method == "ping" and not modern:
            return {}
        if method in LISTS:
            return {**self._page(LISTS[method], params), **cached}
        if method in NAMED_BY:
            if self.held is not None:
                await self.held.wait()
            return {**self._named(method, params), **(cached if method == "resources/read" else {})}
        raise JsonRpcError(-32601, "method not found", status=404 if modern else 200)

    def _page(self, member: str, params: dict[str, Any]) -> dict[str, Any]:
        items = {"resourceTemplates": self.templates}.get(member) or getattr(self, member, [])
        start = int(params.get("cursor", 0))
        end = start + self.page if self.page else len(items)
        more = {"nextCursor": str(end)} if end < len(items) else {}
        return {member: items[start:end], **more}

    def _named(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        name = params.get(NAMED_BY[method])
        answer = self.answers.get(str(name))
        if callable(answer):
            return dict(answer(params))
        if answer is not None:
            return dict(answer)
        if method == "tools/call" and any(tool["name"] == name for tool in self.tools):
            return {"content": [{"type": "text", "text": json.dumps(params.get("arguments") or {}, sort_keys=True)}]}
        raise JsonRpcError(-32602, f"unknown: {name}")


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    """One request with a Content-Length; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    line, _, lines = head.partition(b"\r\n")
    verb, path, _ = line.decode("latin-1").split(" ", 2)
    headers = {name.lower(): str(value) for name, value in BytesParser().parsebytes(lines).items()}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    try:
        message = json.loads(body) if body else None
    except ValueError:
        message = None
    return Asked(verb, path, headers, body, message if isinstance(message, dict) else None)


async def _write(
    writer: asyncio.StreamWriter, status: int, body: bytes = b"", extra: Mapping[str, str] | None = None
) -> None:
    lines = [f"HTTP/1.1 {status} Answer", f"Content-Length: {len(body)}"]
    if body:
        lines.append("Content-Type: application/json")
    lines += [f"{name}: {value}" for name, value in (extra or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()


async def _write_stream(writer: asyncio.StreamWriter, messages: Sequence[Mapping[str, Any]]) -> None:
    """An event stream in chunks, one event each."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for message in messages:
        event = b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n"
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
