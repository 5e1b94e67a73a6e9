"""A legacy server over HTTP that does exactly what one test tells it to, whatever that is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Self

TOOLS = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}


class Upstream:
    """`answer` writes what it likes for each request; `requests` are their bodies, `open` its connections now."""

    def __init__(
        self,
        answer: Callable[[Upstream, asyncio.StreamWriter, Any], Awaitable[None]],
        capabilities: dict[str, Any] | None = None,
    ) -> None:
        self._answer = answer
        self._capabilities = capabilities or {"tools": {}}
        self._writers: set[asyncio.StreamWriter] = set()
        self.requests: list[Any] = []
        self.most_open = 0

    @property
    def open(self) -> int:
        return len(self._writers)

    def asked(self, method: str) -> int:
        return sum(one.get("method") == method for one in self.requests)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/mcp"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.most_open = max(self.most_open, self.open)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
                body = json.loads(await reader.readexactly(size) or b"{}")
                self.requests.append(body)
                if not self._handshake(writer, body):
                    await self._answer(self, writer, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    def _handshake(self, writer: asyncio.StreamWriter, body: Any) -> bool:
        match body.get("method"):
            case "server/discover":
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            case "initialize":
                info = {"name": "u", "version": "1"}
                result = {"protocolVersion": "2025-11-25", "capabilities": self._capabilities, "serverInfo": info}
                reply(writer, body, result)
            case "notifications/initialized":
                accept(writer)
            case _:
                return False
        return True


def encoded(body: Any, result: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": body["id"], "result": result}).encode()


def reply(writer: asyncio.StreamWriter, body: Any, result: Any) -> None:
    data = encoded(body, result)
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)
    )


def accept(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
