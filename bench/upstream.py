"""The canned MCP server over HTTP: cheap enough that the thing in front of it is what is measured.

`python bench/upstream.py PORT [CORE]`. The path says who answers: `/<era>/<tools>/<anything>`, era `modern`, `legacy`
or `dual`, so one process is as many servers as a configuration names. Prints `ready` once it listens. What it says:
`canned.py`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from functools import lru_cache
from typing import cast

import httptools
import msgspec
import uvloop
from canned import Answer, answer

JSON_HEAD = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
REASON = {200: b"OK", 202: b"Accepted", 400: b"Bad Request", 404: b"Not Found", 405: b"Method Not Allowed"}


@lru_cache(maxsize=4096)
def place(path: bytes) -> tuple[str, int]:
    """Era and number of tools that a path stands for."""
    parts = path.decode("latin-1").strip("/").split("/")
    if parts[0] == "stream":  # the same server, reached through nginx's unbuffered location
        parts = parts[1:]
    try:
        return parts[0], int(parts[1])
    except (IndexError, ValueError):
        return "dual", 10


def chunk(message: bytes) -> bytes:
    event = b"event: message\ndata: " + message + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


class Connection(asyncio.Protocol):
    """One client connection; requests are answered in turn, as no client of ours pipelines."""

    __slots__ = ("body", "loop", "parser", "path", "transport")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.parser = httptools.HttpRequestParser(self)
        self.body = self.path = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, msgspec.DecodeError, UnicodeDecodeError):
            self.transport.abort()

    def on_url(self, url: bytes) -> None:
        self.path = url
        self.body = b""

    def on_body(self, data: bytes) -> None:
        self.body = self.body + data if self.body else data

    def on_message_complete(self) -> None:
        if self.parser.get_method() != b"POST":
            status = 200 if self.parser.get_method() == b"DELETE" else 405
            self.plain(status, b"", b"")
            return
        said = answer(self.body, *place(self.path))
        if said.delay_ms:
            self.loop.call_later(said.delay_ms / 1000, self.say, said)
        else:
            self.say(said)

    def say(self, said: Answer) -> None:
        if self.transport.is_closing():
            return
        if not said.stream:
            session = b"Mcp-Session-Id: %b\r\n" % os.urandom(16).hex().encode() if said.opens_session else b""
            self.plain(said.status, session, said.messages[0] if said.messages else b"")
        elif len(said.messages) == 1:
            self.transport.write(SSE_HEAD + chunk(said.messages[0]) + b"0\r\n\r\n")
        else:
            self.transport.write(SSE_HEAD + chunk(said.messages[0]))
            self.loop.call_soon(self.go_on, said.messages, 1)

    def go_on(self, messages: list[bytes], index: int) -> None:
        """One event per turn of the loop, as a working server sends them: not all in one segment."""
        if self.transport.is_closing():
            return
        if index + 1 == len(messages):
            self.transport.write(chunk(messages[index]) + b"0\r\n\r\n")
            return
        self.transport.write(chunk(messages[index]))
        self.loop.call_soon(self.go_on, messages, index + 1)

    def plain(self, status: int, headers: bytes, body: bytes) -> None:
        self.transport.write(JSON_HEAD % (status, REASON[status], headers, len(body), body))


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Connection(loop), "127.0.0.1", port, backlog=4096)
    print("ready", flush=True)
    await loop.create_future()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.sched_setaffinity(0, {int(sys.argv[2])})
    uvloop.run(serve(int(sys.argv[1])))
