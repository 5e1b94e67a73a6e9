"""An MCP server over HTTP that misbehaves on request: raw sockets, so that it can say what no library would.

The path chooses what goes wrong and when: `/<era>/<moment>/<fault>`, with `era` legacy or modern, `moment` one of
`call`, `list`, `open` (initialize, server/discover), `any`, and `fault` a name in `FAULTS`. Until that moment it is a
good server with the tools `echo` (returns its `text`) and `slow` (answers when `release` is set). `good` never does.

What it saw stands in `seen`, for tests to wait on. It runs on a thread with an event loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

LEGACY, MODERN = "2025-11-25", "2026-07-28"
MOMENTS = {
    "call": ("tools/call",),
    "list": ("tools/list",),
    "open": ("initialize", "server/discover"),
    "any": ("initialize", "server/discover", "tools/list", "tools/call"),
}
HUGE = 200 * 1024 * 1024
BIG = 28 * 1024 * 1024
TOOLS = [
    {
        "name": name,
        "description": f"{name}s",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
    }
    for name in ("echo", "slow")
]


@dataclass(slots=True)
class Seen:
    """One request as it arrived. `gone` is set when the gateway closed the connection before it was answered."""

    verb: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: int
    gone: bool = False
    sent: int = 0
    """Bytes of the answer that went into the socket so far."""

    @property
    def method(self) -> str:
        return str(self.body.get("method", "")) if isinstance(self.body, dict) else ""

    @property
    def id(self) -> Any:
        return self.body.get("id")

    @property
    def params(self) -> Any:
        return self.body.get("params", {})


@dataclass(slots=True)
class Peer:
    """One connection from the gateway, as a fault sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: FaultyServer
    seen: Seen

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        self.seen.sent += len(data)

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def hold(self) -> None:
        """Say nothing more until the gateway closes, and note that."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        self.seen.gone = True

    def result(self, value: Mapping[str, Any] | None = None, **extra: Any) -> bytes:
        """The right response to this request, as JSON."""
        if value is None:
            arguments = self.seen.params.get("arguments") or {}
            value = {"content": [{"type": "text", "text": arguments.get("text", "")}]}
        result = {"resultType": "complete", **value} if self.seen.path.startswith("/modern") else dict(value)
        return rpc(**{"id": self.seen.id, "result": result, **extra})


def head(status: str = "200 OK", *headers: str, kind: str = "application/json", version: str = "1.1") -> bytes:
    return "\r\n".join([f"HTTP/{version} {status}", f"Content-Type: {kind}", *headers, "", ""]).encode()


def whole(body: bytes, status: str = "200 OK", *headers: str, kind: str = "application/json") -> bytes:
    """A complete response with a right Content-Length."""
    return head(status, f"Content-Length: {len(body)}", *headers, kind=kind) + body


def stream(*headers: str) -> bytes:
    """The head of an event stream that ends with its connection."""
    return head("200 OK", "Connection: close", *headers, kind="text/event-stream")


def event(body: bytes) -> bytes:
    return b"event: message\ndata: " + body + b"\n\n"


def rpc(**members: Any) -> bytes:
    """A JSON-RPC message as bytes."""
    return json.dumps({"jsonrpc": "2.0", **members}).encode()


def notification(text: str) -> bytes:
    params = {"level": "info", "data": text}
    return rpc(method="notifications/message", params=params)


Fault = Callable[[Peer], Awaitable[bool | None]]
"""Answers one request wrongly. True keeps the connection for the next request; else it is closed."""
FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__.replace("_", "-")] = function
    return function


# --- the connection breaks ----------------------------------------------------------------------------------------


@fault
async def closes(peer: Peer) -> None:
    """Closes without a byte."""


@fault
async def resets(peer: Peer) -> None:
    peer.reset()


@fault
async def dies_mid_answer(peer: Peer) -> None:
    body = peer.result()
    await peer.send(whole(body)[: -len(body) // 2])


@fault
async def resets_mid_answer(peer: Peer) -> None:
    await dies_mid_answer(peer)
    peer.reset()


@fault
async def dies_mid_headers(peer: Peer) -> None:
    await peer.send(head("200 OK", "Content-Length: 100")[:30])


@fault
async def dies_mid_stream(peer: Peer) -> None:
    await peer.send(stream() + event(notification("so far so good")) + b'event: message\ndata: {"jsonrpc": "2.0", ')


@fault
async def half_chunk(peer: Peer) -> None:
    body = peer.result()
    await peer.send(head("200 OK", "Transfer-Encoding: chunked") + f"{len(body):x}\r\n".encode() + body[:-5])


@fault
async def no_last_chunk(peer: Peer) -> None:
    body = peer.result()
    await peer.send(
        head("200 OK", "Transfer-Encoding: chunked") + f"{len(body) - 1:x}\r\n".encode() + body[:-1] + b"\r\n"
    )


@fault
async def dies_once(peer: Peer) -> bool | None:
    """Resets the first connection that calls; afterwards good."""
    if not peer.server.first(peer.seen.path):
        return await good(peer)
    peer.reset()
    return False


@fault
async def closes_idle(peer: Peer) -> bool:
    """Answers well on keep-alive, and closes the idle connection: no later request can come before the end of it."""
    peer.writer.write(whole(peer.result()))
    if peer.writer.can_write_eof():
        peer.writer.write_eof()
    await peer.writer.drain()
    return False


@fault
async def closes_at_next(peer: Peer) -> None:
    """Answers the first request on a connection, and resets when the next one arrives on it."""
    await peer.send(whole(peer.result()))
    if await peer.reader.read(1):
        peer.reset()


# --- silence ------------------------------------------------------------------------------------------------------


@fault
async def stalls(peer: Peer) -> None:
    await peer.hold()


@fault
async def stalls_mid_headers(peer: Peer) -> None:
    await peer.send(head()[:25])
    await peer.hold()


@fault
async def stalls_mid_answer(peer: Peer) -> None:
    body = peer.result()
    await peer.send(whole(body)[: -len(body) // 2])
    await peer.hold()


@fault
async def stalls_mid_stream(peer: Peer) -> None:
    await peer.send(stream() + event(notification("one")))
    await peer.hold()


@fault
async def endless_stream(peer: Peer) -> None:
    await peer.send(stream())
    with contextlib.suppress(ConnectionError):
        for count in itertools.count():
            await peer.send(event(notification(f"number {count}")))
            await asyncio.sleep(0.01)
    peer.seen.gone = True


@fault
async def endless_comments(peer: Peer) -> None:
    await peer.send(stream())
    with contextlib.suppress(ConnectionError):
        while True:
            await peer.send(b": still here\n\n")
            await asyncio.sleep(0.01)
    peer.seen.gone = True


@fault
async def endless_interim(peer: Peer) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.001)
    peer.seen.gone = True


@fault
async def drips(peer: Peer) -> bool:
    """A right answer, one byte at a time."""
    for byte in whole(peer.result()):
        await peer.send(bytes([byte]))
        await asyncio.sleep(0.0005)
    return True


# --- wrong framing ------------------------------------------------------------------------------------------------


@fault
async def length_too_short(peer: Peer) -> bool:
    """Says fewer bytes than it sends: the rest would be read as the next response."""
    body = peer.result()
    await peer.send(head("200 OK", f"Content-Length: {len(body) - 7}") + body)
    return True


@fault
async def length_too_long(peer: Peer) -> None:
    body = peer.result()
    await peer.send(head("200 OK", f"Content-Length: {len(body) + 7}") + body)


@fault
async def length_twice(peer: Peer) -> bool:
    body = peer.result()
    await peer.send(head("200 OK", f"Content-Length: {len(body)}", "Content-Length: 5") + body)
    return True


@fault
async def length_and_chunked(peer: Peer) -> bool:
    body = peer.result()
    await peer.send(
        head("200 OK", f"Content-Length: {len(body)}", "Transfer-Encoding: chunked")
        + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    )  # fmt: skip
    return True


@fault
async def bad_chunk_size(peer: Peer) -> bool:
    await peer.send(head("200 OK", "Transfer-Encoding: chunked") + b"-5\r\nhello\r\n0\r\n\r\n")
    return True


@fault
async def huge_chunk_size(peer: Peer) -> bool:
    await peer.send(head("200 OK", "Transfer-Encoding: chunked") + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n")
    return True


def planted(peer: Peer) -> bytes:
    """An answer to the request that will come next."""
    return rpc(id=peer.seen.id + 1, result={"content": [{"type": "text", "text": "planted"}]})


@fault
async def second_response(peer: Peer) -> bool:
    """A right answer, and behind it one that nobody asked for: the next caller must not get it."""
    await peer.send(whole(peer.result()) + whole(planted(peer)))
    return True


@fault
async def late_second_response(peer: Peer) -> None:
    """The same, sent when the connection is idle again: once `release` is set."""
    await peer.send(whole(peer.result()))
    await peer.server.until(peer.server.release.is_set)
    await peer.send(whole(planted(peer)))
    await peer.hold()


@fault
async def garbage(peer: Peer) -> None:
    await peer.send(b"SSH-2.0-OpenSSH_9.9\r\n" * 10)


@fault
async def header_flood(peer: Peer) -> None:
    with contextlib.suppress(ConnectionError):
        await peer.send(b"HTTP/1.1 200 OK\r\n")
        for count in range(200_000):
            await peer.send(f"X-Flood-{count}: {'y' * 100}\r\n".encode())
    peer.seen.gone = True


@fault
async def long_header(peer: Peer) -> None:
    with contextlib.suppress(ConnectionError):
        await peer.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
        for _ in range(1000):
            await peer.send(b"y" * 65536)
    peer.seen.gone = True


# --- right framing, wrong content ---------------------------------------------------------------------------------


@fault
async def bad_json(peer: Peer) -> bool:
    await peer.send(whole(peer.result()[:-1]))
    return True


@fault
async def bad_utf8(peer: Peer) -> bool:
    await peer.send(whole(peer.result({"content": [{"type": "text", "text": "XX"}]}).replace(b"XX", b"\xff\xfe")))
    return True


@fault
async def deep_json(peer: Peer) -> bool:
    deep = b"[" * 100_000 + b"]" * 100_000
    await peer.send(whole(peer.result({"content": [], "structuredContent": {"deep": "XX"}}).replace(b'"XX"', deep)))
    return True


@fault
async def wrong_id(peer: Peer) -> bool:
    await peer.send(whole(peer.result(id=987654321)))
    return True


@fault
async def null_id(peer: Peer) -> bool:
    await peer.send(whole(peer.result(id=None)))
    return True


@fault
async def text_id(peer: Peer) -> bool:
    """The id as text: a different id."""
    await peer.send(whole(peer.result(id=str(peer.seen.id))))
    return True


@fault
async def result_and_error(peer: Peer) -> bool:
    await peer.send(whole(peer.result(error={"code": -1, "message": "both"})))
    return True


@fault
async def neither(peer: Peer) -> bool:
    await peer.send(whole(json.dumps({"jsonrpc": "2.0", "id": peer.seen.id}).encode()))
    return True


@fault
async def bad_error(peer: Peer) -> bool:
    await peer.send(whole(json.dumps({"jsonrpc": "2.0", "id": peer.seen.id, "error": "a string"}).encode()))
    return True


@fault
async def batch(peer: Peer) -> bool:
    await peer.send(whole(b"[" + peer.result() + b"]"))
    return True


@fault
async def html(peer: Peer) -> bool:
    await peer.send(whole(b"<html>Welcome to your new server</html>", kind="text/html"))
    return True


@fault
async def gzip(peer: Peer) -> bool:
    import gzip as compression

    await peer.send(whole(compression.compress(peer.result()), "200 OK", "Content-Encoding: gzip"))
    return True


@fault
async def no_content(peer: Peer) -> bool:
    await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    return True


@fault
async def empty(peer: Peer) -> bool:
    await peer.send(whole(b""))
    return True


@fault
async def accepted(peer: Peer) -> bool:
    await peer.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
    return True


@fault
async def stream_without_answer(peer: Peer) -> None:
    await peer.send(stream() + event(notification("that was all")))


@fault
async def stream_of_garbage(peer: Peer) -> None:
    await peer.send(stream() + event(b"not json"))
    await peer.hold()


@fault
async def tool_error(peer: Peer) -> bool:
    """Not a fault of transport: a JSON-RPC error, to be relayed as it is."""
    error = {"code": -32050, "message": "the tool says no", "data": {"why": ["because"]}}
    await peer.send(whole(rpc(id=peer.seen.id, error=error)))
    return True


# --- too much -----------------------------------------------------------------------------------------------------


async def _flood(peer: Peer, first: bytes, last: bytes, size: int = HUGE, *, chunked: bool = False) -> None:
    """`first`, then filler up to `size`, then `last`; notes when the gateway gives up."""
    block = b"x" * 262_144
    frame = f"{len(block):x}\r\n".encode() + block + b"\r\n" if chunked else block
    try:
        await peer.send(first)
        for _ in range(size // len(block)):
            await peer.send(frame)
        await peer.send(last)
    except ConnectionError:
        peer.seen.gone = True


@fault
async def huge(peer: Peer) -> None:
    body = peer.result({"content": [{"type": "text", "text": "XX"}]})
    before, _, after = body.partition(b"XX")
    size = HUGE // 262_144 * 262_144
    await _flood(peer, head("200 OK", f"Content-Length: {len(before) + size + len(after)}") + before, after)


@fault
async def huge_chunked(peer: Peer) -> None:
    before, _, after = peer.result({"content": [{"type": "text", "text": "XX"}]}).partition(b"XX")
    first = head("200 OK", "Transfer-Encoding: chunked") + f"{len(before):x}\r\n".encode() + before + b"\r\n"
    await _flood(peer, first, f"{len(after):x}\r\n".encode() + after + b"\r\n0\r\n\r\n", chunked=True)


@fault
async def huge_event(peer: Peer) -> None:
    before, _, after = peer.result({"content": [{"type": "text", "text": "XX"}]}).partition(b"XX")
    await _flood(peer, stream() + b"data: " + before, after + b"\n\n")


@fault
async def huge_events(peer: Peer) -> None:
    """200 MB in small events, as fast as it can."""
    block = event(notification("x" * 60_000))
    try:
        await peer.send(stream())
        for _ in range(HUGE // len(block)):
            await peer.send(block)
        await peer.send(event(peer.result()))
    except ConnectionError:
        peer.seen.gone = True


@fault
async def big(peer: Peer) -> bool:
    """Not a fault: 28 MiB, inside the default bound; sent as it is taken."""
    return await _big(peer, (",", ":"))


@fault
async def big_with_blanks(peer: Peer) -> bool:
    """The same, not in the shortest form of JSON."""
    return await _big(peer, (", ", ": "))


async def _big(peer: Peer, separators: tuple[str, str]) -> bool:
    message = json.loads(peer.result({"content": [{"type": "text", "text": ""}]}))
    message["result"]["content"][0]["text"] = "y" * BIG
    body = whole(json.dumps(message, separators=separators).encode())
    for start in range(0, len(body), 65536):
        await peer.send(body[start : start + 65536])
    return True


# --- statuses -----------------------------------------------------------------------------------------------------


def _refuses(name: str, status: str, *headers: str, body: bytes = b"<h1>no</h1>") -> None:
    async def answer(peer: Peer) -> bool:
        await peer.send(whole(body, status, *headers, kind="text/html"))
        return True

    FAULTS[name] = answer


_refuses("status-400", "400 Bad Request")
_refuses("status-401", "401 Unauthorized", 'WWW-Authenticate: Bearer realm="secret-realm"')
_refuses("status-403", "403 Forbidden")
_refuses("status-405", "405 Method Not Allowed")
_refuses("status-429", "429 Too Many Requests", "Retry-After: 7")
_refuses("status-500", "500 Internal Server Error")
_refuses("status-502", "502 Bad Gateway")
_refuses("status-503", "503 Service Unavailable", "Retry-After: 3")
_refuses("status-999", "999 Who Knows")


@fault
async def redirects(peer: Peer) -> bool:
    """To itself, for ever."""
    await peer.send(whole(b"", "307 Temporary Redirect", f"Location: {peer.seen.path}"))
    return True


@fault
async def redirects_away(peer: Peer) -> bool:
    """To another server: headers with secrets must not follow."""
    await peer.send(whole(b"", "308 Permanent Redirect", "Location: http://localhost:1/elsewhere"))
    return True


@fault
async def error_with_json(peer: Peer) -> bool:
    """A JSON-RPC error under HTTP 400."""
    error = {"code": -32602, "message": "bad arguments"}
    await peer.send(whole(rpc(id=peer.seen.id, error=error), "400 Bad Request"))
    return True


@fault
async def loses_session(peer: Peer) -> bool:
    """Forgets the session at the first call, as after a restart; the next session works."""
    if peer.server.first(peer.seen.path):
        peer.server.sessions.clear()
    return await good(peer)


@fault
async def never_a_session(peer: Peer) -> bool:
    """Forgets every session as soon as it is used."""
    await peer.send(whole(b"", "404 Not Found"))
    return True


# --- unusual, and right -------------------------------------------------------------------------------------------


@fault
async def good(peer: Peer) -> bool:
    await peer.server.answer(peer)
    return True


@fault
async def good_stream(peer: Peer) -> bool:
    body = event(peer.result())
    await peer.send(
        head("200 OK", "Transfer-Encoding: chunked", kind="text/event-stream")
        + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    )  # fmt: skip
    return True


@fault
async def interim(peer: Peer) -> bool:
    await peer.send(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"
        + whole(peer.result())
    )
    return True


@fault
async def close_delimited(peer: Peer) -> None:
    await peer.send(head("200 OK", "Connection: close") + peer.result())


@fault
async def http10(peer: Peer) -> None:
    await peer.send(head(version="1.0") + peer.result())


@fault
async def chunk_by_byte(peer: Peer) -> bool:
    chunks = b"".join(b"1;ext=1\r\n" + bytes([byte]) + b"\r\n" for byte in peer.result())
    await peer.send(head("200 OK", "Transfer-Encoding: chunked") + chunks + b"0\r\nX-Trailer: 1\r\n\r\n")
    return True


@fault
async def odd_stream(peer: Peer) -> None:
    """All that an event stream may be: a mark, comments, CRLF and CR, an empty event, ids, data over several lines."""
    parts = peer.result().split(b", ")
    data = b"".join(b"data:" + part + b",\r\n" for part in parts[:-1]) + b"data: " + parts[-1] + b"\r\n\r\n"
    await peer.send(stream() + b"\xef\xbb\xbf: hello\r\nid: 1\r\ndata:\r\n\r\nretry: 100\rfoo: bar\r\r" + data)


@fault
async def twice(peer: Peer) -> None:
    """The response two times; the second must vanish."""
    await peer.send(stream() + event(peer.result()) + event(peer.result()))


@fault
async def asks_back(peer: Peer) -> None:
    """Server requests before the response: each must be answered, so that the server need not wait for ever."""
    await peer.send(stream())
    asked = {"a": "elicitation/create", "b": "sampling/createMessage", "c": "roots/list", "d": "ping"}
    for id_, method in asked.items():
        params = {"message": "?", "requestedSchema": {"type": "object", "properties": {}}}
        await peer.send(event(rpc(id=id_, method=method, params=params)))
    await peer.server.until(lambda: asked.keys() <= peer.server.replies.keys())
    await peer.send(event(peer.result()))


@fault
async def progresses(peer: Peer) -> None:
    """Three progress notifications with the caller's token, then the response."""
    token = peer.seen.params.get("_meta", {}).get("progressToken")
    await peer.send(stream())
    for step in range(3):
        params = {"progressToken": token, "progress": step, "total": 3}
        await peer.send(event(rpc(method="notifications/progress", params=params)))
    await peer.send(event(peer.result()))


@fault
async def progresses_slowly(peer: Peer) -> None:
    """One progress notification at once, the response only when `release` is set."""
    token = peer.seen.params.get("_meta", {}).get("progressToken")
    params = {"progressToken": token, "progress": 1}
    await peer.send(stream() + event(rpc(method="notifications/progress", params=params)))
    await peer.server.until(peer.server.release.is_set)
    await peer.send(event(peer.result()))


# --- the server ---------------------------------------------------------------------------------------------------


@dataclass
class FaultyServer:
    """Use as a context manager. `port` is known inside; `seen` grows while it runs."""

    port: int = 0
    tls: ssl.SSLContext | None = None
    seen: list[Seen] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)
    replies: dict[Any, Any] = field(default_factory=dict)
    """JSON-RPC responses that the gateway sent to requests of this server, by id."""
    release: threading.Event = field(default_factory=threading.Event)
    connections: int = 0
    _firsts: set[str] = field(default_factory=set)
    _peers: set[asyncio.StreamWriter] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()

        async def run() -> None:
            server = await asyncio.start_server(
                self._serve, "127.0.0.1", self.port, limit=1 << 22, backlog=512, ssl=self.tls
            )
            self.port = server.sockets[0].getsockname()[1]
            self._stop = asyncio.Event()
            started.set()
            await self._stop.wait()
            server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(run()), daemon=True)
        self._thread.start()
        assert started.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    def url(self, fault: str = "good", moment: str = "call", era: str = "legacy") -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/{era}/{moment}/{fault}"

    def forget(self) -> None:
        """Lose every session, as a restart would."""
        self.sessions.clear()

    def drop_connections(self) -> None:
        """Close every open connection."""
        for writer in list(self._peers):
            self._loop.call_soon_threadsafe(writer.close)

    def requests(self, method: str, part: str = "") -> list[Seen]:
        """What came with this JSON-RPC method, on paths that end with `part`."""
        return [seen for seen in list(self.seen) if seen.method == method and seen.path.endswith(part)]

    def first(self, key: str) -> bool:
        """True at the first call with this key."""
        new = key not in self._firsts
        self._firsts.add(key)
        return new

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        end = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < end:
            await asyncio.sleep(0.005)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._peers.add(writer)
        try:
            async for verb, path, headers, body in self._requests(reader):
                seen = Seen(verb, path, headers, body, number)
                self.seen.append(seen)
                if not await self._react(Peer(reader, writer, self, seen)):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._peers.discard(writer)
            writer.close()

    async def _requests(self, reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, str, dict[str, str], Any]]:
        while line := await reader.readline():
            verb, path, _ = line.decode().split(" ", 2)
            headers = {}
            while (header := (await reader.readline()).decode("latin-1").strip()) != "":
                name, _, value = header.partition(":")
                headers[name.strip().lower()] = value.strip()
            body = b""
            if headers.get("transfer-encoding", "") == "chunked":
                while size := int(await reader.readline(), 16):
                    body += (await reader.readexactly(size + 2))[:-2]
                await reader.readline()
            else:
                body = await reader.readexactly(int(headers.get("content-length", 0)))
            path = re.sub(r"^http://[^/]*", "", path)  # absolute form, from behind a proxy
            yield verb, path, headers, json.loads(body) if body else None

    async def _react(self, peer: Peer) -> bool:
        seen = peer.seen
        if seen.verb != "POST":
            if seen.verb == "DELETE":
                self.sessions.discard(seen.headers.get("mcp-session-id", ""))
            await peer.send(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return True
        _, era, moment, name = seen.path.split("/")[:4]
        if (
            era == "legacy"
            and seen.headers.get("mcp-protocol-version", LEGACY) == MODERN
            and moment not in ("open", "any")
        ):
            error = {"code": -32000, "message": "Bad Request: Server not initialized"}
            await peer.send(whole(rpc(id=None, error=error), "400 Bad Request"))
            return True
        if seen.method in MOMENTS[moment] and name != "good":
            return bool(await FAULTS[name](peer))
        await self.answer(peer)
        return True

    async def answer(self, peer: Peer) -> None:
        """Answer one request well."""
        seen, modern = peer.seen, peer.seen.path.startswith("/modern")
        if not isinstance(seen.body, dict) or "method" not in seen.body or "id" not in seen.body:
            if isinstance(seen.body, dict) and "method" not in seen.body:
                self.replies[seen.body.get("id")] = seen.body
            await peer.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            return
        cache = {"ttlMs": 0, "cacheScope": "private"} if modern else {}
        capabilities: dict[str, Any] = {"tools": {}}
        info = {"name": "faulty", "version": "1"}
        extra: tuple[str, ...] = ()
        if seen.method == "initialize" and not modern:
            session = f"s{len(self._firsts)}-{time.monotonic_ns()}"
            self.sessions.add(session)
            extra = (f"Mcp-Session-Id: {session}",)
            value: dict[str, Any] = {"protocolVersion": LEGACY, "capabilities": capabilities, "serverInfo": info}
        elif not modern and seen.headers.get("mcp-session-id") not in self.sessions:
            await peer.send(whole(b"", "404 Not Found"))
            return
        elif seen.method == "server/discover" and modern:
            value = {"supportedVersions": [MODERN], "capabilities": capabilities, **cache}
        elif seen.method == "tools/list":
            value = {"tools": TOOLS, **cache}
        elif seen.method == "tools/call":
            if seen.params.get("name") == "slow" and not await self._released(peer):
                return
            await peer.send(whole(peer.result()))
            return
        elif seen.method == "ping":
            value = {}
        else:
            error = {"code": -32601, "message": "Method not found"}
            await peer.send(whole(rpc(id=seen.id, error=error), "404 Not Found" if modern else "200 OK"))
            return
        await peer.send(whole(peer.result(value), "200 OK", *extra))

    async def _released(self, peer: Peer) -> bool:
        """Wait for `release`; False (and `gone`) when the gateway closes the connection first."""
        closed = asyncio.ensure_future(peer.reader.read(1))
        try:
            while not self.release.is_set():
                if closed.done():
                    peer.seen.gone = True
                    return False
                await asyncio.sleep(0.005)
        finally:
            closed.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await closed
        return True
