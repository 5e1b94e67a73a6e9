"""The client's side of HTTP/1.1 on a transport in memory: what it takes, what it refuses, and in what time.

However a network cuts the bytes, the outcome is one: every row comes whole, byte by byte, and cut once at each point.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex.flow.accept.listener import LINGER_S, PIPELINED, Connection, Shared
from narthex.flow.held import LARGE, Held
from narthex.flow.outbox import Outbox
from narthex.flow.whole import MOST_HEADERS, HttpRequest
from narthex.testing import FakeClock
from narthex.types import Limits

HELD = 1024 * 1024


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.protocol: Connection
        self.closed = self.aborted = self.eof = False
        self.reading = True

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += data

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 4242) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()


class Rig:
    """One listener with its connections. `handle` answers every request at once unless told to `hold`."""

    def __init__(self, limits: Limits | None = None, *, hold: bool = False, held: int = HELD) -> None:
        self.clock = FakeClock(100.0)
        self.held = Held(held)
        self.requests: list[HttpRequest] = []
        self.waiting: list[Connection] = []
        self.hold = hold
        self.shared = Shared(
            limits or Limits(), self.held, self.handle, clock=self.clock, now=self.clock.wall, new_id=lambda: "id-1",
            outbox=Outbox(lambda flush: flush()),
        )  # fmt: skip
        self.connection, self.wire = self.connect()

    def connect(self) -> tuple[Connection, Wire]:
        wire, connection = Wire(), Connection(self.shared)
        wire.protocol = connection
        connection.connection_made(wire)
        return connection, wire

    def handle(self, connection: Connection, request: HttpRequest) -> None:
        self.requests.append(request)
        self.waiting.append(connection)
        if not self.hold:
            self.answer()

    def answer(self, body: bytes = b"done") -> None:
        self.waiting.pop(0).respond(200, b"text/plain", (body,), len(body))

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            if not self.wire.closed:
                self.connection.data_received(piece)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.shared.sweep()

    @property
    def answers(self) -> list[tuple[int, str, bytes]]:
        """Status, our reason for it (empty without one) and body of each answer on the first connection."""
        return list(answers_in(bytes(self.wire.written)))


def answers_in(data: bytes) -> Iterator[tuple[int, str, bytes]]:
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, head
        lines = head.split(b"\r\n")
        length = next((int(line[16:]) for line in lines if line.startswith(b"Content-Length: ")), 0)
        body, data = data[:length], data[length:]
        reason = json.loads(body)["error"]["data"]["reason"] if body.startswith(b'{"jsonrpc"') else ""
        yield int(lines[0].split()[1]), reason, body


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


async def settle() -> None:
    """Let everything that is due on the loop happen."""
    for _ in range(10):
        await asyncio.sleep(0)


def seen(request: HttpRequest) -> tuple[Any, ...]:
    return (
        request.method,
        request.path,
        request.query,
        sorted(request.headers.items()),
        request.repeated,
        request.body,
    )


def post(body: bytes = b"{}", *lines: bytes, target: bytes = b"/mcp", version: bytes = b"1.1") -> bytes:
    head = [b"POST %b HTTP/%b" % (target, version), b"Host: localhost", *lines, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*head, b"", body])


def with_head(*lines: bytes, body: bytes = b"", start: bytes = b"POST /mcp HTTP/1.1") -> bytes:
    return b"\r\n".join([start, b"Host: localhost", *lines, b"", body])


def chunked(*chunks: bytes, trailer: bytes = b"", head: tuple[bytes, ...] = ()) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (*chunks, b"") if one) + b"0\r\n" + trailer + b"\r\n"
    return with_head(b"Transfer-Encoding: chunked", *head, body=body)


def cuts(data: bytes) -> Iterator[list[bytes]]:
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


SMALL = Limits(max_header=2048, max_body=4096)
TE = b"Transfer-Encoding: "
CL = b"Content-Length: "
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"

ACCEPTED: list[Any] = [
    pytest.param(post(b"hello"), [b"hello"], id="a length"),
    pytest.param(post(b""), [b""], id="an empty body"),
    pytest.param(chunked(b"hel", b"lo"), [b"hello"], id="chunks"),
    pytest.param(chunked(b"hel", trailer=b"X-Sum: 1\r\n"), [b"hel"], id="trailers are read over"),
    pytest.param(chunked(b"hel", trailer=b"Host: evil\r\nHost: evil\r\n"), [b"hel"], id="a trailer is no header"),
    pytest.param(with_head(TE + b"Chunked", body=b"2;a=b\r\nhi\r\n0\r\n\r\n"), [b"hi"], id="an extension is skipped"),
    pytest.param(b"\r\n" + post(b"hi"), [b"hi"], id="an empty line before the request line"),
    pytest.param(post(b"a") + post(b"b") + chunked(b"c") + post(b"d"), [b"a", b"b", b"c", b"d"], id="pipelined"),
    pytest.param(post(b"hi", b"X-Any: \xff\xe9"), [b"hi"], id="a value that is not ASCII"),
    pytest.param(post(b"hi", b"X-A: 1", b"X-A: 2"), [b"hi"], id="a header that may come twice"),
    pytest.param(post(b"hi", b"Connection: Upgrade", b"Upgrade: h2c") + post(b"next"), [b"hi", b"next"],
                 id="an upgrade is ignored and the body belongs to its own request"),
    pytest.param(chunked(b"a", SMUGGLED, head=(b"Connection: Upgrade", b"Upgrade: websocket")) + post(b"next"),
                 [b"a" + SMUGGLED, b"next"], id="an upgrade with chunks hides no second request"),
    pytest.param(post(SMUGGLED, b"Connection: Upgrade", b"Upgrade: websocket"), [SMUGGLED],
                 id="an upgrade with a length hides no second request"),
    pytest.param(with_head(b"Connection: Upgrade", b"Upgrade: x", start=b"GET / HTTP/1.1") + post(b"n"), [b"", b"n"],
                 id="an upgrade without a body"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "bodies"), ACCEPTED)
def test_taken_however_it_is_cut(data: bytes, bodies: list[bytes]) -> None:
    async def main() -> None:
        first: Any = None
        for pieces in cuts(data):
            rig = Rig(SMALL)
            rig.feed(*pieces)
            await settle()
            got = [seen(one) for one in rig.requests]
            first = first or got
            assert got == first, pieces
            assert [one.body for one in rig.requests] == bodies, pieces
            assert [status for status, _, _ in rig.answers] == [200] * len(bodies), pieces
            assert not rig.wire.closed
            assert rig.held.used == 0

    run(main)


REFUSED: list[Any] = [
    # Framing that two parsers could read differently (RFC 9112 §6.1, §6.3).
    pytest.param(with_head(CL + b"5", TE + b"chunked", body=b"0\r\n\r\n" + SMUGGLED), 400, id="length, then chunks"),
    pytest.param(with_head(TE + b"chunked", CL + b"5", body=b"0\r\n\r\n" + SMUGGLED), 400, id="chunks, then length"),
    pytest.param(with_head(CL + b"5", CL + b"6", body=b"hello!"), 400, id="two lengths"),
    pytest.param(with_head(CL + b"5", CL + b"5", body=b"hello"), 400, id="two lengths, even when equal"),
    pytest.param(with_head(CL + b"5, 5", body=b"hello"), 400, id="a list of lengths"),
    pytest.param(with_head(CL + b"+5", body=b"hello"), 400, id="a length with a sign"),
    pytest.param(with_head(CL + b"0x5", body=b"hello"), 400, id="a length in hexadecimal"),
    pytest.param(with_head(CL + b"-1"), 400, id="a negative length"),
    pytest.param(with_head(CL), 400, id="an empty length"),
    pytest.param(with_head(CL + b"99999999999999999999999"), 400, id="a length beyond 64 bits"),
    pytest.param(with_head(TE + b"chunked", TE + b"chunked", body=b"0\r\n\r\n"), 400, id="two codings"),
    pytest.param(with_head(TE + b"chunked, chunked", body=b"0\r\n\r\n"), 400, id="chunked twice"),
    pytest.param(with_head(TE + b"gzip, chunked", body=b"0\r\n\r\n"), 400, id="another coding below chunked"),
    pytest.param(with_head(TE + b"chunked, gzip", body=b"0\r\n\r\n"), 400, id="another coding above chunked"),
    pytest.param(with_head(TE + b"identity", body=b"hello"), 400, id="identity"),
    pytest.param(with_head(TE + b"xchunked", body=b"0\r\n\r\n"), 400, id="nearly chunked"),
    pytest.param(with_head(TE + b"\x0bchunked", body=b"0\r\n\r\n"), 400, id="a control character before chunked"),
    pytest.param(with_head(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"), 400, id="a blank before the colon"),
    pytest.param(with_head(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"), 400, id="a folded coding"),
    pytest.param(with_head(b"X-Fold: a\r\n b", CL + b"0"), 400, id="a folded header"),
    pytest.param(with_head(TE + b"chunked", start=b"POST /mcp HTTP/1.0", body=b"0\r\n\r\n"), 400, id="chunks in 1.0"),
    pytest.param(post(b"hi").replace(b"\r\n", b"\n"), 400, id="bare line feeds"),
    pytest.param(with_head(b"X-A: 1\nTransfer-Encoding: chunked", CL + b"0"), 400, id="one bare line feed"),
    pytest.param(with_head(b"X-A: 1\rX-B: 2", CL + b"0"), 400, id="a bare carriage return"),
    pytest.param(with_head(b"X-A: \x001", CL + b"0"), 400, id="a zero byte in a value"),
    pytest.param(with_head(b"X A: 1", CL + b"0"), 400, id="a blank in a name"),
    pytest.param(with_head(b": 1", CL + b"0"), 400, id="no name"),
    pytest.param(b"POST /mcp HTTP/1.1\r\n Host: localhost\r\n\r\n", 400, id="a blank before the first header"),
    pytest.param(with_head(b"Host: evil", CL + b"0"), 400, id="two hosts"),
    pytest.param(post(b"{}", b"Authorization: a", b"authorization: b"), 400, id="two authorizations"),
    pytest.param(post(b"{}", b"Mcp-Session-Id: a", b"Mcp-Session-Id: a"), 400, id="two session ids"),
    pytest.param(post(b"{}", b"Origin: a", b"Origin: b"), 400, id="two origins"),
    # Chunks.
    pytest.param(with_head(TE + b"chunked", body=b"5\nhello\r\n0\r\n\r\n"), 400, id="a chunk size ends in a line feed"),
    pytest.param(with_head(TE + b"chunked", body=b"1\r\nhello\r\n0\r\n\r\n"), 400, id="a chunk longer than it says"),
    pytest.param(with_head(TE + b"chunked", body=b"-1\r\nhello\r\n0\r\n\r\n"), 400, id="a negative chunk"),
    pytest.param(with_head(TE + b"chunked", body=b"0x1\r\nh\r\n0\r\n\r\n"), 400, id="a chunk size with a prefix"),
    pytest.param(with_head(TE + b"chunked", body=b"1 \r\nh\r\n0\r\n\r\n"), 400, id="a blank behind a chunk size"),
    pytest.param(with_head(TE + b"chunked", body=b"fffffffffffffffff\r\n"), 400, id="a chunk size beyond 64 bits"),
    # Request lines.
    pytest.param(b"\x16\x03\x01\x02\x00\x01", 400, id="TLS on a plain port"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="the preface of HTTP/2"),
    pytest.param(with_head(CL + b"0", start=b"POST /mcp HTTP/2.0"), 505, id="a version we do not speak"),
    pytest.param(b"GET / HTTP/0.9\r\n\r\n", 505, id="0.9"),
    pytest.param(b"BREW /mcp HTTP/1.1\r\n\r\n", 400, id="an unknown method"),
    pytest.param(b"POST /m\xc3\xa9 HTTP/1.1\r\n\r\n", 400, id="a target that is not ASCII"),
    pytest.param(with_head(CL + b"%d" % len(SMUGGLED), body=SMUGGLED, start=b"CONNECT localhost:1 HTTP/1.1"), 405,
                 id="CONNECT hides no second request"),
    # Bounds.
    pytest.param(with_head(CL + b"4097"), 413, id="a length above the bound"),
    pytest.param(chunked(b"x" * 4000, b"y" * 97), 413, id="chunks above the bound"),
    pytest.param(with_head(*(b"X-%d: %b" % (n, b"v" * 100) for n in range(30)), CL + b"0"), 431, id="a large head"),
    pytest.param(with_head(b"X-Long: " + b"v" * 4000), 431, id="a long header"),
    pytest.param(with_head(*(b"X%d: " % n for n in range(MOST_HEADERS)), CL + b"0"), 431, id="many headers"),
    pytest.param(with_head(b"Expect: 200-maybe", CL + b"2", body=b"hi"), 417, id="an unknown expectation"),
    pytest.param(with_head(b"Expect: 100-continue", CL + b"4097"), 413, id="too large, and nobody is told to continue"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "status"), REFUSED)
def test_refused_however_it_is_cut(data: bytes, status: int) -> None:
    async def main() -> None:
        first: Any = None
        for pieces in cuts(data):
            rig = Rig(SMALL)
            rig.feed(*pieces)
            await settle()
            assert rig.requests == [], pieces
            (answer,) = rig.answers
            first = first or answer
            assert answer[0] == status, pieces
            assert answer == first, pieces
            assert rig.wire.eof, "the client learns that no more is taken"
            assert b"\r\nConnection: close\r\n" in rig.wire.written
            assert rig.held.used == 0

    run(main)


def test_a_refusal_has_the_form_of_a_message() -> None:
    async def main() -> None:
        rig = Rig(SMALL)
        rig.feed(with_head(CL + b"4097"))
        ((_, reason, body),) = rig.answers
        assert json.loads(body)["id"] is None
        assert json.loads(body)["error"]["data"]["decisionId"] == "id-1"
        assert reason == "body_too_large"

    run(main)


def test_what_came_before_a_bad_request_is_still_answered() -> None:
    async def main() -> None:
        rig = Rig(hold=True)
        rig.feed(post(b"good") + b"nonsense\r\n\r\n")
        assert [one.body for one in rig.requests] == [b"good"]
        rig.answer()
        await settle()
        assert rig.answers[0][0] == 200
        assert rig.wire.eof

    run(main)


# --- the target and the headers


def test_a_request_is_taken_apart() -> None:
    async def main() -> None:
        rig = Rig()
        rig.feed(post(b"{}", b"X-A: 1", b"x-a: 2", b"Accept: */*", target=b"/mcp?a=b?c"))
        (one,) = rig.requests
        assert (one.method, one.path, one.query) == (b"POST", b"/mcp", b"a=b?c")
        assert one.headers[b"x-a"] == b"1"
        assert one.headers[b"accept"] == b"*/*"
        assert one.repeated == {b"x-a"}

    run(main)


def test_a_trailer_is_not_the_next_requests_header() -> None:
    async def main() -> None:
        rig = Rig()
        rig.feed(chunked(b"a", trailer=b"X-Trailer: 1\r\n") + post(b"b"))
        await settle()
        assert [b"x-trailer" in one.headers for one in rig.requests] == [False, False]

    run(main)


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param((with_head(TE + b"chunked", body=b"1\r\na\r\n0\r\n"), b"X-%d: 1\r\n"), id="trailers"),
        pytest.param((with_head(TE + b"chunked", body=b"1\r\na\r\n0\r\nX: "), b"%08d"), id="one trailer"),
        pytest.param((with_head(TE + b"chunked", body=b"1;"), b"a=%d;"), id="chunk extensions"),
    ],
)
def test_what_is_no_body_is_bounded_behind_the_head_too(endless: tuple[bytes, bytes]) -> None:
    async def main() -> None:
        rig = Rig(SMALL)
        rig.feed(endless[0])
        for number in range(2000):
            rig.feed(endless[1] % number)
            if rig.answers:
                break
        assert [status for status, _, _ in rig.answers] == [431]
        assert rig.requests == []

    run(main)


# --- persistence


@pytest.mark.parametrize(
    ("lines", "version", "kept", "said"),
    [
        pytest.param((), b"1.1", True, b"", id="1.1 is kept"),
        pytest.param((b"Connection: close",), b"1.1", False, b"Connection: close", id="1.1 that closes"),
        pytest.param((), b"1.0", False, b"Connection: close", id="1.0 is closed"),
        pytest.param((b"Connection: keep-alive",), b"1.0", True, b"Connection: keep-alive", id="1.0 that asks is kept"),
    ],
)
def test_connections_are_kept_as_agreed(lines: tuple[bytes, ...], version: bytes, kept: bool, said: bytes) -> None:
    async def main() -> None:
        rig = Rig()
        rig.feed(post(b"{}", *lines, version=version))
        await settle()
        assert rig.answers == [(200, "", b"done")]
        assert said in rig.wire.written
        assert rig.wire.closed is not kept
        assert len(rig.shared.connections) == int(kept)

    run(main)


def test_a_stream_to_1_0_ends_with_its_connection() -> None:
    async def main() -> None:
        rig = Rig(hold=True)
        rig.feed(post(b"{}", b"Connection: keep-alive", version=b"1.0"))
        connection = rig.connection
        head = connection.begin_body(200, b"text/event-stream", None)
        connection.end_body(head + connection.frame(b"data: 1\n\n"))
        await settle()
        assert b"chunked" not in rig.wire.written
        assert rig.wire.written.endswith(b"\r\n\r\ndata: 1\n\n")
        assert rig.wire.closed

    run(main)


def test_a_stream_to_1_1_is_chunked_and_the_connection_goes_on() -> None:
    async def main() -> None:
        rig = Rig(hold=True)
        rig.feed(post(b"a"))
        connection = rig.connection
        rig.wire.write(connection.begin_body(200, b"text/event-stream", None) + connection.frame(b""))
        connection.end_body(connection.frame(b"data: 1\n\n"))
        assert rig.wire.written.endswith(b"\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n")
        rig.feed(post(b"b"))
        assert [one.body for one in rig.requests] == [b"a", b"b"]

    run(main)


@pytest.mark.parametrize(("status", "length"), [(202, True), (204, False)])
def test_answers_without_a_body(status: int, length: bool) -> None:
    async def main() -> None:
        rig = Rig(hold=True)
        rig.feed(post(b"a"))
        rig.connection.respond_empty(status)
        assert (b"Content-Length: 0\r\n" in rig.wire.written) is length
        assert rig.wire.written.endswith(b"\r\n\r\n")

    run(main)


def test_while_draining_a_connection_is_closed_behind_its_answer() -> None:
    async def main() -> None:
        rig = Rig()
        rig.shared.draining = True
        rig.feed(post(b"a") + post(b"b"))
        await settle()
        assert [one.body for one in rig.requests] == [b"a"], "behind Connection: close nothing is processed"
        assert b"Connection: close" in rig.wire.written
        assert rig.wire.closed

    run(main)


# --- one request at a time


def test_pipelined_requests_wait_for_their_turn() -> None:
    async def main() -> None:
        rig = Rig(hold=True)
        rig.feed(post(b"a") + post(b"b"), post(b"c"))
        for number, body in enumerate([b"a", b"b", b"c"]):
            assert [one.body for one in rig.requests][number:] == [body]
            rig.answer(body)
            await settle()
        assert [body for _, _, body in rig.answers] == [b"a", b"b", b"c"]
        assert not rig.wire.closed

    run(main)


def test_what_comes_behind_a_request_changes_nothing_of_its_answer() -> None:
    async def main() -> None:
        rig = Rig(hold=True)
        rig.feed(post(b"a") + post(b"b").replace(b"HTTP/1.1", b"HTTP/1.0"))
        first = rig.waiting.pop(0)
        first.write(first.begin_body(200, b"text/plain", None) + first.frame(b"x"))
        first.end_body()
        await settle()
        assert b"Transfer-Encoding: chunked" in rig.wire.written, "the first speaks HTTP/1.1"
        assert [one.body for one in rig.requests] == [b"a", b"b"]

    run(main)


def test_pipelining_is_bounded() -> None:
    async def main() -> None:
        rig = Rig(hold=True)
        rig.feed(post(b"x") * (PIPELINED + 2))
        assert len(rig.requests) == 1
        rig.answer()
        await settle()
        assert len(rig.requests) == 1, "who overdoes it gets the one answer"
        assert rig.wire.eof

    run(main)


def test_while_a_call_runs_little_is_kept_and_then_reading_stops() -> None:
    async def main() -> None:
        rig = Rig(hold=True)
        rig.feed(post(b"a"))
        body = b"y" * (200 * 1024)
        for start in range(0, len(data := post(body)), 16 * 1024):
            if rig.wire.reading:
                start_at = start + 16 * 1024
                rig.feed(data[start:start_at])
        assert not rig.wire.reading
        assert start_at <= 96 * 1024, "about 64 KiB"
        rig.answer()
        await settle()
        assert rig.wire.reading
        rig.feed(data[start_at:])
        assert rig.requests[1].body == body

    run(main)


def test_a_client_that_goes_is_told_to_its_call_at_once() -> None:
    class Told:
        gone = 0

        def client_gone(self) -> None:
            self.gone += 1

        def pause(self) -> None: ...

        def resume(self) -> None: ...

    async def main() -> None:
        rig, told = Rig(hold=True), Told()
        rig.feed(post(b"a") + post(b"b"))
        rig.connection.exchange = told
        rig.wire.abort()
        await settle()
        assert told.gone == 1
        assert [one.body for one in rig.requests] == [b"a"], "what waited is forgotten"
        assert not rig.shared.connections

    run(main)


def test_a_slow_reader_is_told_to_its_call() -> None:
    class Told:
        said: list[str] = []

        def client_gone(self) -> None: ...

        def pause(self) -> None:
            self.said.append("pause")

        def resume(self) -> None:
            self.said.append("resume")

    async def main() -> None:
        rig = Rig(hold=True)
        rig.feed(post(b"a"))
        rig.connection.exchange = told = Told()
        rig.connection.pause_writing()
        drained = rig.connection.drain()
        assert not drained.done()
        rig.connection.resume_writing()
        assert drained.done()
        assert told.said == ["pause", "resume"]
        assert rig.connection.drain().done()

    run(main)


# --- Expect


def test_who_expects_it_is_told_to_continue_once() -> None:
    async def main() -> None:
        for pieces in cuts(with_head(b"Expect: 100-Continue", CL + b"2")):
            rig = Rig()
            rig.feed(*pieces)
            assert bytes(rig.wire.written) == b"HTTP/1.1 100 Continue\r\n\r\n", pieces
            rig.feed(b"hi")
            assert rig.requests[0].body == b"hi"
            assert [status for status, _, _ in rig.answers] == [100, 200]

    run(main)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(with_head(b"Expect: 100-continue", start=b"GET / HTTP/1.1"), id="without a body"),
        pytest.param(post(b"hi", b"Expect: 100-continue", version=b"1.0"), id="from 1.0"),
    ],
)
def test_nobody_else_is_told_to_continue(data: bytes) -> None:
    async def main() -> None:
        rig = Rig()
        rig.feed(data)
        assert [status for status, _, _ in rig.answers] == [200]

    run(main)


# --- bounds of time, by a clock that is handed in


def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    async def main() -> None:
        rig = Rig(Limits(header_timeout_s=10))
        rig.pass_time(9)
        assert not rig.wire.closed
        rig.pass_time(3)
        assert rig.wire.closed
        assert rig.answers == []

    run(main)


@pytest.mark.parametrize(
    ("begun", "limit_s"),
    [
        pytest.param(post(b"hello")[:20], 10, id="a head"),
        pytest.param(post(b"hello")[:-2], 60, id="a body"),
        pytest.param(with_head(TE + b"chunked", body=b"5\r\nhel"), 60, id="a chunk"),
        pytest.param(post(b"hello", b"Connection: upgrade", b"Upgrade: h2c")[:-2], 60, id="the body of an upgrade"),
    ],
)
@pytest.mark.parametrize("before", [b"", post(b"first")], ids=["first request", "behind another in one read"])
def test_a_request_that_stalls_gets_408(before: bytes, begun: bytes, limit_s: float) -> None:
    async def main() -> None:
        rig = Rig(Limits(header_timeout_s=10, body_timeout_s=60, keep_alive_s=500))
        rig.feed(before + begun)
        assert not rig.connection.idle()
        rig.pass_time(limit_s - 1)
        assert len(rig.answers) == bool(before)
        rig.pass_time(3)
        assert rig.answers[-1][:2] == (408, "request_timeout")
        assert len(rig.requests) == bool(before)

    run(main)


def test_a_head_that_trickles_gains_no_time() -> None:
    async def main() -> None:
        rig = Rig(Limits(header_timeout_s=10))
        for byte in post(b"hello")[:15]:
            rig.feed(bytes([byte]))
            rig.pass_time(1)
        assert rig.answers[0][0] == 408

    run(main)


def test_a_body_that_trickles_gains_no_time() -> None:
    async def main() -> None:
        rig = Rig(Limits(body_timeout_s=60))
        rig.feed(with_head(CL + b"4000"))
        for _ in range(70):
            rig.feed(b"x")
            rig.pass_time(1)
        assert rig.answers[0][0] == 408

    run(main)


def test_a_head_behind_another_request_in_one_read_is_bounded_all_the_same() -> None:
    async def main() -> None:
        rig = Rig(SMALL)
        rig.feed(post(b"a") + b"POST /mcp HTTP/1.1\r\nX-A: " + b"v" * 3000 + b"\r\nX-B: 1\r\n")
        assert [status for status, _, _ in rig.answers] == [200, 431]

    run(main)


def test_an_idle_connection_is_kept_for_its_time() -> None:
    async def main() -> None:
        rig = Rig(Limits(keep_alive_s=75))
        rig.feed(post(b"a"))
        assert rig.connection.idle()
        rig.pass_time(74)
        assert not rig.wire.closed
        rig.pass_time(3)
        assert rig.wire.closed
        assert len(rig.answers) == 1

    run(main)


def test_a_running_call_has_no_bound_here() -> None:
    async def main() -> None:
        rig = Rig(hold=True)
        rig.feed(post(b"a"))
        rig.pass_time(100_000)
        assert not rig.wire.closed

    run(main)


def test_a_refused_client_may_read_its_refusal_before_the_connection_goes() -> None:
    async def main() -> None:
        rig = Rig(SMALL)
        rig.feed(with_head(CL + b"999999"))
        for _ in range(100):
            rig.feed(b"x" * 10_000)
        assert len(rig.answers) == 1
        assert rig.wire.reading
        assert not rig.wire.closed
        rig.pass_time(LINGER_S + 1)
        assert rig.wire.closed
        await settle()
        assert not rig.shared.connections

    run(main)


# --- bounds of number and size


def test_too_many_connections_get_503() -> None:
    async def main() -> None:
        rig = Rig(Limits(max_connections=1))
        connection, wire = rig.connect()
        connection.data_received(post(b"a"))
        ((status, reason, _),) = answers_in(bytes(wire.written))
        assert (status, reason) == (503, "too_many_connections")
        assert b"Retry-After: 1\r\n" in wire.written
        rig.feed(post(b"b"))
        assert [one.body for one in rig.requests] == [b"b"]

    run(main)


@pytest.mark.parametrize("end", ["complete", "refused", "gone", "timeout"])
def test_bytes_held_for_a_large_body_are_given_back(end: str) -> None:
    async def main() -> None:
        rig = Rig()
        rig.feed(with_head(TE + b"chunked"))
        for _ in range(10):
            rig.feed(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        assert rig.held.used == 10 * 0x4000
        if end == "complete":
            rig.feed(b"0\r\n\r\n")
            assert len(rig.requests[0].body) == 10 * 0x4000
        elif end == "refused":
            rig.feed(b"nonsense\r\n")
        elif end == "gone":
            rig.wire.abort()
        else:
            rig.pass_time(1000)
        await settle()
        assert rig.held.used == 0

    run(main)


def test_a_small_body_counts_not() -> None:
    async def main() -> None:
        rig = Rig(held=0)
        rig.feed(post(b"x" * LARGE))
        assert len(rig.requests[0].body) == LARGE

    run(main)


def test_when_too_much_is_held_a_large_body_gets_503() -> None:
    async def main() -> None:
        rig = Rig(held=200_000)
        rig.held.take(150_000)
        rig.feed(post(b"x" * 100_000))
        assert rig.answers[0][:2] == (503, "overloaded")
        assert b"Retry-After: 1\r\n" in rig.wire.written
        assert rig.held.used == 150_000
        assert rig.requests == []

    run(main)


def test_what_is_behind_an_upgrade_does_not_overtake_it() -> None:
    """Three requests in one read, the first answered at once: answers go to whom they are for."""
    asks = [b"X-A: %d" % number for number in range(3)]
    wire = chunked(head=(asks[0],)) + post(b"", asks[1], b"Connection: Upgrade", b"Upgrade: h2c") + post(b"", asks[2])

    async def main() -> None:
        rig = Rig()
        rig.feed(wire)
        await settle()
        assert [one.headers[b"x-a"] for one in rig.requests] == [b"0", b"1", b"2"]

    run(main)


# --- the property

names = st.sampled_from([b"X-A", b"X-B", b"Mcp-Name", b"Accept-Language"])
values = st.binary(max_size=20).map(lambda raw: bytes(33 + byte % 94 for byte in raw))
bodies = st.binary(max_size=300)


@st.composite
def one_request(draw: st.DrawFn) -> bytes:
    lines = [b"%b: %b" % pair for pair in draw(st.lists(st.tuples(names, values), max_size=4))]
    if draw(st.booleans()):
        lines += draw(st.sampled_from([[], [b"Connection: Upgrade", b"Upgrade: h2c"], [b"Connection: keep-alive"]]))
    body = draw(bodies)
    if draw(st.booleans()):
        return post(body, *lines)
    at = draw(st.integers(0, len(body)))
    return chunked(body[:at], body[at:], head=tuple(lines))


@settings(max_examples=150, deadline=None)
@given(stream=st.lists(one_request(), min_size=1, max_size=5), data=st.data(), hold=st.booleans())
def test_any_cut_of_a_stream_of_requests_gives_the_same_requests(
    stream: list[bytes], data: st.DataObject, hold: bool
) -> None:
    wire = b"".join(stream)
    points = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=12)))
    pieces = [wire[start:end] for start, end in zip([0, *points], [*points, len(wire)], strict=True)]

    async def outcome(pieces: list[bytes], hold: bool) -> tuple[list[Any], list[Any]]:
        rig = Rig(hold=hold)
        for piece in pieces:
            rig.feed(piece)
            await settle()
        while rig.waiting:
            rig.answer()
            await settle()
        return [seen(one) for one in rig.requests], rig.answers

    async def main() -> None:
        expected, answers = await outcome(stream, False)
        assert len(expected) == len(answers) == len(stream)
        assert await outcome(pieces, hold) == (expected, answers)

    run(main)


@settings(max_examples=150, deadline=None)
@given(noise=st.binary(max_size=400), after=st.sampled_from([b"", post(b"x")[:-1], chunked(b"x")[:-4]]))
def test_no_bytes_break_it(noise: bytes, after: bytes) -> None:
    async def main() -> None:
        rig = Rig(SMALL)
        rig.feed(after + noise, noise)
        rig.pass_time(10_000)
        rig.pass_time(10_000)
        await settle()
        assert not rig.shared.connections
        assert rig.held.used == 0

    run(main)
