"""Clients that wrk cannot be: many connections that idle, sessions that are left behind, calls that are broken off.

In: a port. Out: answers as they stood on the wire; the caller looks at the gateway's memory. Plain asyncio streams
would be the bottleneck, so one small protocol writes requests ready made and looks only at what it must.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Sequence
from typing import Any, cast

from load import CLIENT, LEGACY, META, MODERN


def request(port: int, path: str, body: dict[str, Any], headers: Sequence[str]) -> bytes:
    """One POST, ready to be written."""
    data = json.dumps(body, separators=(",", ":")).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        *headers,
        f"Content-Length: {len(data)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def initialize(port: int, path: str = "/mcp") -> bytes:
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}
    return request(port, path, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}, ())


def initialized(port: int, session: str, path: str = "/mcp") -> bytes:
    headers = (f"MCP-Protocol-Version: {LEGACY}", f"Mcp-Session-Id: {session}")
    return request(port, path, {"jsonrpc": "2.0", "method": "notifications/initialized"}, headers)


def call(
    port: int, tool: str, number: int, session: str | None, path: str = "/mcp", headers: Sequence[str] = ()
) -> bytes:
    """A `tools/call`; modern where there is no session. `headers`: more of them, lines without their ends."""
    params: dict[str, Any] = {"name": tool, "arguments": {"text": f"call {number}", "ms": 1000}}
    if session is None:
        params["_meta"] = META
        own = [f"MCP-Protocol-Version: {MODERN}", "Mcp-Method: tools/call", f"Mcp-Name: {tool}"]
    else:
        own = [f"MCP-Protocol-Version: {LEGACY}", f"Mcp-Session-Id: {session}"]
    lines = (*headers, *own, f"traceparent: 00-{number:032x}-{number:016x}-01")
    return request(port, path, {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}, lines)


class Client(asyncio.Protocol):
    """One connection, one request at a time; `ask` gives the whole answer, head and body, as it stood on the wire."""

    def __init__(self) -> None:
        self.data = b""
        self.waiter: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(ConnectionError("closed before the answer had ended"))

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.waiter is not None and not self.waiter.done() and self._whole():
            self.waiter.set_result(self.data)

    def _whole(self) -> bool:
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return False
        low = head.lower()
        at = low.find(b"content-length:")
        if at < 0:
            return body.endswith(b"0\r\n\r\n") or b" 202" in head[:16]
        return len(body) >= int(low[at + 15 :].split(b"\r\n", 1)[0])

    async def ask(self, data: bytes) -> bytes:
        """Write a request, return its answer. Raises ConnectionError when the other side closes first."""
        self.data = b""
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return await self.waiter


async def connect(port: int, tls: ssl.SSLContext | None = None) -> Client:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(Client, "127.0.0.1", port, ssl=tls)
    return client


def status(answer: bytes) -> int:
    return int(answer[9:12])


def session_id(answer: bytes) -> str:
    """The session id in the head of an answer to `initialize`. Raises ConnectionError where there is none."""
    head = answer.partition(b"\r\n\r\n")[0]
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == b"mcp-session-id":
            return value.strip().decode()
    raise ConnectionError(f"no session in {head[:200]!r}")
