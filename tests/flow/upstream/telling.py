"""A server over Streamable HTTP, of either era, that tells of changes as a test wants it. Real sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

LEGACY, MODERN = "2025-11-25", "2026-07-28"
STAMP = "io.modelcontextprotocol/subscriptionId"
ACK = "notifications/subscriptions/acknowledged"
OFFERS = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "tasks": {},
}


@dataclass
class Stream:
    """One open event stream: a GET, or the answer to `subscriptions/listen`."""

    headers: dict[str, str]
    writer: asyncio.StreamWriter
    id: Any = None
    filter: dict[str, Any] = field(default_factory=dict)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, message: dict[str, Any], *, id_: str | None = None, lines: str = "") -> None:
        if self.id is not None and "method" in message:
            message = {**message, "params": {**message.get("params", {}), "_meta": {STAMP: self.id}}}
        self.event(json.dumps({"jsonrpc": "2.0", **message}), id_=id_, lines=lines)

    def event(self, data: str, *, id_: str | None = None, lines: str = "") -> None:
        head = f"id: {id_}\n" if id_ is not None else ""
        self.writer.write(f"{lines}{head}data: {data}\n\n".encode())

    def close(self) -> None:
        self.writer.close()


class Telling:
    """`eras` says what it serves; what it does at a GET and at a listen may be replaced."""

    def __init__(self, era: str = "legacy", **replaced: Any) -> None:
        self.era = era
        self.streams: list[Stream] = []
        self.seen = 0
        self.asked: list[tuple[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.subscribed: set[str] = set()
        self.sessions: set[str] = set()
        self.capabilities: dict[str, Any] = OFFERS
        self.refuses: set[str] = set()
        self.answers: dict[str, Any] = {}
        self._ids = itertools.count(1)
        self._tasks: set[asyncio.Task[Any]] = set()
        for name, value in replaced.items():
            setattr(self, name, value)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", getattr(self, "port", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def count(self, method: str) -> int:
        return sum(one == method for one, _ in self.asked)

    def params(self, method: str) -> list[Any]:
        return [params for one, params in self.asked if one == method]

    def tell(self, method: str, **params: Any) -> None:
        """Say it on every open stream."""
        for stream in self.streams:
            stream.send({"method": method, **({"params": params} if params else {})})

    def cut(self) -> None:
        """End every open stream."""
        for stream in list(self.streams):
            stream.close()

    # --- HTTP

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.heads.append(headers)
                if head[0].startswith("GET"):
                    self.asked.append(("GET", headers))
                    await self.get(reader, writer, headers)
                elif head[0].startswith("DELETE"):
                    self.sessions.discard(headers.get("mcp-session-id", ""))
                    self.reply(writer, 200)
                else:
                    message = json.loads(body)
                    self.asked.append((message.get("method", "response"), message.get("params", message)))
                    await self.post(reader, writer, headers, message)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    @staticmethod
    def reply(writer: asyncio.StreamWriter, status: int, message: Any = None, extra: str = "") -> None:
        body = b"" if message is None else json.dumps({"jsonrpc": "2.0", **message}).encode()
        kind = "Content-Type: application/json\r\n" if body else ""
        writer.write(f"HTTP/1.1 {status} X\r\n{kind}{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Stream, first: Callable[[], None]
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        self.streams.append(stream)
        self.seen += 1
        try:
            first()
            await reader.read()
        finally:
            self.streams.remove(stream)
            stream.gone.set()
        raise ConnectionError

    # --- MCP

    async def get(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str]) -> None:
        if self.era == "modern":
            self.reply(writer, 405)
        elif headers.get("mcp-session-id") not in self.sessions:
            self.reply(writer, 404)
        else:
            await self.stream(reader, writer, Stream(headers, writer), lambda: None)

    async def post(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str], message: Any
    ) -> None:
        method, id_ = message.get("method"), message.get("id")
        modern = headers.get("mcp-protocol-version") == MODERN
        if id_ is None or method is None:
            self.reply(writer, 202)
        elif method == "initialize" and self.era == "legacy":
            session = f"s{next(self._ids)}"
            self.sessions.add(session)
            result = {"protocolVersion": LEGACY, "capabilities": self.capabilities, "serverInfo": {"name": "t"}}
            self.reply(writer, 200, {"id": id_, "result": result}, f"Mcp-Session-Id: {session}\r\n")
        elif modern != (self.era == "modern"):
            self.reply(writer, 400, {"id": id_, "error": {"code": -32000, "message": "no"}})
        elif modern:
            await self.modern(reader, writer, headers, message)
        elif headers.get("mcp-session-id") not in self.sessions:
            self.reply(writer, 404)
        else:
            await self.legacy(writer, message)

    async def modern(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str], message: Any
    ) -> None:
        id_ = message["id"]
        if message["method"] == "server/discover":
            result = {"supportedVersions": [MODERN], "capabilities": self.capabilities}
            self.reply(writer, 200, {"id": id_, "result": result})
        elif message["method"] == "subscriptions/listen":
            await self.listen(reader, writer, headers, message)
        else:
            await self.legacy(writer, message)

    async def listen(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str], message: Any
    ) -> None:
        asked = message["params"]["notifications"]
        if self.refuses & {*asked, *asked.get("resourceSubscriptions", ())}:
            self.reply(writer, 400, {"id": message["id"], "error": {"code": -32602, "message": "no such thing"}})
            return
        stream = Stream(headers, writer, message["id"], asked)
        await self.stream(reader, writer, stream, lambda: self.acknowledge(stream))

    def acknowledge(self, stream: Stream) -> None:
        stream.send({"method": ACK, "params": {"notifications": stream.filter}})

    async def legacy(self, writer: asyncio.StreamWriter, message: Any) -> None:
        method, params, id_ = message["method"], message.get("params", {}), message["id"]
        if params.get("uri") in self.refuses:
            self.reply(writer, 200, {"id": id_, "error": {"code": -32002, "message": "no such thing"}})
            return
        if method == "resources/subscribe":
            self.subscribed.add(params["uri"])
        elif method == "resources/unsubscribe":
            self.subscribed.discard(params["uri"])
        self.reply(writer, 200, {"id": id_, "result": self.answers.get(method, {})})
