"""The two connections, fed with any bytes: the client's side of the listener, and the server's side of an upstream.

In: bytes that a peer sends. Promises: nothing is raised; each ends in an answer or a close; cuts change nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools

from narthex.errors import GatewayError
from narthex.flow.accept.listener import Connection, Shared
from narthex.flow.codec.jsonrpc import Incoming
from narthex.flow.held import Held
from narthex.flow.upstream.connection import HttpConnection, HttpPool
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.http import HttpChannel
from narthex.flow.upstream.port import Dialect, Outgoing
from narthex.flow.whole import PARAM, AnswerReader, HttpRequest, RequestReader, line_of
from narthex.types import Egress, HttpTarget, Limits, ServerSpec

LIMITS = Limits(max_body=2000, max_held=1_000_000)
TARGET = HttpTarget("http://s.test/", "http", "s.test", 80, "/")
SPEC = ServerSpec("s", TARGET, "http", max_answer=1000)
DIALECT = Dialect("legacy", "2025-11-25", session_id="x")
_loop: list[asyncio.AbstractEventLoop] = []


def loop() -> asyncio.AbstractEventLoop:
    """One loop for all inputs, made at the first."""
    if not _loop:
        _loop.append(asyncio.new_event_loop())
    return _loop[0]


class Wire(asyncio.Transport):
    """A transport in memory: keeps what is written, and says `connection_lost` as a real one does, later and once."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = b""
        self.closed = False
        self.reading = True
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close


async def feed(wire: Wire, data: bytes, step: int) -> None:
    for at in range(0, len(data), step):
        if wire.closed:
            break
        wire.protocol.data_received(data[at : at + step])
        await asyncio.sleep(0)


Seen = list[tuple[bytes, bytes, bytes, dict[bytes, bytes], bytes]]


async def listen(data: bytes, step: int) -> tuple[Seen, bytes]:
    """Feed one client's bytes; returns the requests that were handled, and what was written."""
    seen: Seen = []
    clock = [0.0]

    def handle(connection: Connection, request: HttpRequest) -> None:
        seen.append((request.method, request.path, request.query, request.headers, request.body))
        connection.respond(200, b"text/plain", (b"ok",), 2)

    shared = Shared(LIMITS, Held(LIMITS.max_held), handle, clock=lambda: clock[0], now=lambda: 0.0, new_id=str)
    wire = Wire(Connection(shared))
    await feed(wire, data, step)
    for _ in range(100):
        await asyncio.sleep(0)
    for _ in range(3):
        clock[0] += 1000.0
        shared.sweep()
        await asyncio.sleep(0)
    assert wire.closed, "a silent client was kept"
    await asyncio.sleep(0)
    assert not shared.connections
    assert shared.held.used == 0
    if seen or wire.written:
        assert wire.written.startswith(b"HTTP/1.1 ")
    assert wire.written.count(b"HTTP/1.1 200 ") == len(seen), "each request has its answer"
    return seen, wire.written


def fuzz_listener(data: bytes) -> None:
    """Every input ends in answers and a close, and is the same requests whole and byte by byte."""

    async def both() -> None:
        whole, _ = await listen(data, len(data) or 1)
        pieces, _ = await listen(data, 1)
        if len(whole) < 30:  # more in one read than may wait are refused, which is the one difference there may be
            assert whole == pieces

    loop().run_until_complete(both())


class Messages:
    """What llhttp reports with functions as callbacks: each whole message, and whether it stops in the middle."""

    def __init__(self, parser: Any, data: bytes) -> None:
        self.whole: list[tuple[bytes, list[tuple[bytes, bytes]], bytes]] = []
        self.clean = True
        self._target, self._body = b"", b""
        self._headers: list[tuple[bytes, bytes]] = []
        try:
            parser(self).feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.clean = False

    def on_message_begin(self) -> None:
        self.clean = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.clean = True
        self.whole.append((self._target, self._headers, self._body))
        self._target, self._body, self._headers = b"", b"", []


def fuzz_whole(data: bytes) -> None:
    """What is read in one piece is exactly what llhttp reads with ordinary callbacks, or it is left to those."""
    request = RequestReader().read(data)
    if request is not None:
        read = Messages(httptools.HttpRequestParser, data)
        assert read.clean
        assert read.whole == [(request.path, list(request.headers.items()), request.body)]
        for name, value in request.headers.items():
            line = line_of(data, name, value)
            if line is not None and not name.startswith(PARAM):
                beside = RequestReader().read_beside(data, line)
                assert beside is not None, "what was read is read beside a line that is known, too"
                assert (beside.path, beside.headers, beside.body) == (request.path, request.headers, request.body)
    answer = AnswerReader().read(data)
    if answer is not None:
        read = Messages(httptools.HttpResponseParser, data)
        assert read.clean
        assert read.whole == [(b"", list(answer[0].items()), answer[1])]


class Record:
    """A sink that checks the contract: nothing comes after the end."""

    def __init__(self, splices: bool) -> None:
        self.splices = splices
        self.ended = 0
        self.spliced = 0

    def _open(self) -> None:
        assert not self.ended, "something came after the end"

    def started(self, streaming: bool) -> None:
        self._open()

    def message(self, message: Incoming) -> None:
        self._open()

    def splice(self, head: bytes, total: int) -> bool:
        self._open()
        return self.splices

    def chunk(self, data: bytes) -> None:
        self._open()
        self.spliced += len(data)

    def finished(self) -> None:
        self._open()
        self.ended += 1

    def failed(self, error: GatewayError) -> None:
        self._open()
        self.ended += 1


async def answer(data: bytes, step: int, splices: bool) -> None:
    """Feed one server's answer to a request, then close: the sink hears of exactly one end."""
    pool = HttpPool(SPEC, TARGET, Dialer(Egress(proxy=None)), lambda: 0.0)
    held = Held(1_000_000)
    connection = HttpConnection(pool)
    wire = Wire(connection)
    pool.release(connection)
    sink = Record(splices)
    channel = HttpChannel(SPEC, pool, DIALECT, held)
    channel.request(Outgoing(2, "tools/call", b"{}"), sink)
    await asyncio.sleep(0)
    assert wire.written.startswith(b"POST / HTTP/1.1\r\n")
    await feed(wire, data, step)
    if not wire.closed:
        connection.eof_received()
        wire.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sink.ended == 1, "a call that never ends"
    assert held.used == 0
    assert not connection.alive
    assert pool.take() is None, "a closed connection stays in the pool"


def fuzz_upstream(data: bytes) -> None:
    """Whatever a server answers, the call ends once, and bytes held are given back."""

    async def all_ways() -> None:
        for step in (len(data) or 1, 1):
            for splices in (True, False):
                await answer(data, step, splices)

    loop().run_until_complete(all_ways())
