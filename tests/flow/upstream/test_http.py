"""A server over Streamable HTTP, scripted on real sockets: what is reused, what is refused, what is sent again."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self

import pytest

from narthex.errors import ContentBlocked, GatewayError, Overloaded, UpstreamUnavailable
from narthex.flow.codec.jsonrpc import Incoming
from narthex.flow.held import LARGE, Held
from narthex.flow.upstream.connection import IDLE_S, HttpPool
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.http import HttpChannel
from narthex.flow.upstream.port import Dialect, Outgoing, SessionLost
from narthex.testing import FakeClock
from narthex.types import Egress, HttpTarget, ServerSpec

LEGACY = Dialect(era="legacy", version="2025-11-25", session_id="s1")
PLAIN = Dialect(era="legacy", version="2025-11-25")
MODERN = Dialect(era="modern", version="2026-07-28")
CLOSE, RESET, HOLD = "close", "reset", "hold"
"""What a script does behind its bytes; without one of these the connection stays open for the next request."""
Step = bytes | str | Callable[["Scripted"], Awaitable[None]]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await main()

    asyncio.run(bounded())


async def until(true: Callable[[], object]) -> None:
    while not true():
        await asyncio.sleep(0.001)


def rpc(id_: Any, **members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id_, **members}).encode()


def answer(body: bytes, status: str = "200 OK", *lines: str, kind: str | None = "application/json") -> bytes:
    kinds = [f"Content-Type: {kind}"] if kind else []
    return "\r\n".join([f"HTTP/1.1 {status}", *kinds, f"Content-Length: {len(body)}", *lines, "", ""]).encode() + body


def result(id_: int, value: Any = "ok") -> bytes:
    return answer(rpc(id_, result={"value": value}))


class Scripted:
    """A server that answers its n-th request by its n-th script: bytes to send, then perhaps an end."""

    def __init__(self, *scripts: tuple[Step, ...]) -> None:
        self.scripts = scripts
        self.requests: list[tuple[str, dict[str, str], bytes, int]] = []
        self.connections = 0
        self.gone = 0
        self.go = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append((head[0], headers, body, number))
                script = self.scripts[min(len(self.requests), len(self.scripts)) - 1]
                for step in script:
                    if step == HOLD:
                        await reader.read()
                        return
                    if step in (CLOSE, RESET):
                        if step == RESET:
                            sock = writer.get_extra_info("socket")
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                            writer.transport.abort()
                        return
                    if isinstance(step, bytes):
                        writer.write(step)
                        await writer.drain()
                    elif callable(step):
                        await step(self)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self.gone += 1
            writer.close()


class Heard:
    """A sink that keeps what it hears."""

    def __init__(self, *, splices: bool = False) -> None:
        self.messages: list[Incoming] = []
        self.error: GatewayError | None = None
        self.streaming: bool | None = None
        self.offered: list[int] = []
        self.bytes = bytearray()
        self.ends = 0
        self.splices = splices
        self.over = asyncio.Event()

    def started(self, streaming: bool) -> None:
        self.streaming = streaming

    def message(self, message: Incoming) -> None:
        assert not self.ends
        self.messages.append(message)

    def splice(self, head: bytes, total: int) -> bool:
        self.offered.append(total)
        return self.splices

    def chunk(self, data: bytes) -> None:
        self.bytes += data

    def finished(self) -> None:
        self.ends += 1
        self.over.set()

    def failed(self, error: GatewayError) -> None:
        self.error = error
        self.ends += 1
        self.over.set()

    @property
    def values(self) -> list[Any]:
        return [json.loads(bytes(one.result))["value"] for one in self.messages if one.result]


class Rig:
    """A channel to a scripted server."""

    def __init__(self, server: Scripted, dialect: Dialect = PLAIN, *, held: int = 1 << 30, **spec: Any) -> None:
        target = HttpTarget(f"http://127.0.0.1:{server.port}/mcp", "http", "127.0.0.1", server.port, "/mcp")
        self.spec = ServerSpec("one", spec.pop("target", target), "http", **spec)
        self.clock = FakeClock(50.0)
        self.held = Held(held)
        self.pool = HttpPool(self.spec, target, Dialer(Egress(proxy=None)), self.clock)
        self.channel = HttpChannel(self.spec, self.pool, dialect, self.held)

    def send(self, *, resend: bool = False, splices: bool = False, name: str | None = None) -> Heard:
        id_ = self.channel.next_id()
        heard = Heard(splices=splices)
        self.flight = self.channel.request(
            Outgoing(id_, "tools/call", rpc(id_, method="tools/call"), name, resend), heard
        )
        return heard

    async def ask(self, **options: Any) -> Heard:
        heard = self.send(**options)
        await heard.over.wait()
        assert heard.ends == 1
        assert self.held.used == 0
        return heard


# --- what is sent


def test_a_request_says_what_its_era_asks_for() -> None:
    async def main() -> None:
        async with Scripted((result(2),), (result(2),)) as server:
            await Rig(server, MODERN).ask(name="größe")
            await Rig(server, LEGACY).ask()
        (line, modern, _, _), (_, legacy, _, _) = server.requests
        assert line == "POST /mcp HTTP/1.1"
        assert modern["mcp-protocol-version"] == "2026-07-28"
        assert modern["mcp-method"] == "tools/call"
        assert modern["mcp-name"] == "=?base64?Z3LDtsOfZQ==?="
        assert "mcp-session-id" not in modern
        assert legacy["mcp-session-id"] == "s1"
        assert "mcp-method" not in legacy
        for headers in (modern, legacy):
            assert headers["host"] == f"127.0.0.1:{server.port}"
            assert headers["accept"] == "application/json, text/event-stream"
            assert headers["accept-encoding"] == "identity"

    run(main)


def test_what_the_operator_wrote_is_sent_with_each_request() -> None:
    async def main() -> None:
        async with Scripted((result(2),)) as server:
            target = HttpTarget("", "http", "127.0.0.1", server.port, "/mcp?a=1", (("Authorization", "Bearer x"),))
            rig = Rig(server)
            rig.pool.target = target
            rig.channel = HttpChannel(rig.spec, rig.pool, PLAIN, rig.held)
            await rig.ask()
        assert server.requests[0][0] == "POST /mcp?a=1 HTTP/1.1"
        assert server.requests[0][1]["authorization"] == "Bearer x"

    run(main)


# --- answers of every framing

BODY = rpc(2, result={"value": "ok"})
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "reused"),
    [
        pytest.param((result(2),), True, id="a length"),
        pytest.param((CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),), True, id="chunks"),
        pytest.param((CHUNKED + b"%x\r\n%b\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(BODY), BODY),), True, id="a trailer"),
        pytest.param((HEAD + b"\r\n", BODY, CLOSE), False, id="until it closes"),
        pytest.param((HEAD.replace(b"1.1", b"1.0") + b"\r\n", BODY, CLOSE), False, id="1.0 until it closes"),
        pytest.param((answer(BODY, "200 OK", "Connection: close"),), False, id="a length, then it closes"),
        pytest.param((b"HTTP/1.1 100 Continue\r\n\r\n", result(2)), True, id="100 first"),
        pytest.param((b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3 + result(2),), True, id="103 thrice first"),
        pytest.param((answer(BODY, kind="application/json; charset=utf-8"),), True, id="a charset"),
    ],
)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
def test_an_answer_is_read_and_its_connection_reused(script: tuple[Step, ...], reused: bool, split: bool) -> None:
    async def main() -> None:
        steps: list[Step] = []
        for step in script:
            if split and isinstance(step, bytes):
                for at in range(len(step)):
                    steps += [step[at : at + 1], breathe]
            else:
                steps.append(step)
        async with Scripted(tuple(steps), (result(3, "second"),)) as server:
            rig = Rig(server)
            assert (await rig.ask()).values == ["ok"]
            assert (await rig.ask()).values == ["second"]
            assert server.connections == (1 if reused else 2)

    async def breathe(_: Scripted) -> None:
        await asyncio.sleep(0)

    run(main)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param((HEAD + b"Content-Length: 999\r\n\r\n" + BODY, CLOSE), id="shorter than its length"),
        pytest.param((CHUNKED + b"ff\r\n" + BODY, CLOSE), id="a chunk that breaks off"),
        pytest.param((CHUNKED + b"%x\r\n%b\r\n" % (len(BODY), BODY), CLOSE), id="no last chunk"),
        pytest.param((HEAD + b"\r\n" + BODY, RESET), id="a reset instead of an end"),
        pytest.param((HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", HOLD), id="length and chunks"),
        pytest.param((HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", HOLD), id="another coding"),
        pytest.param((HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", HOLD), id="two lengths"),
        pytest.param((HEAD + b"Content-Length: x\r\n\r\n", HOLD), id="a length that is no number"),
        pytest.param((CHUNKED + b"xyz\r\n", HOLD), id="a chunk size that is no number"),
        pytest.param((answer(BODY, "200 OK", "Content-Encoding: gzip"), HOLD), id="a content coding"),
        pytest.param(
            (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", HOLD), id="101"
        ),
        pytest.param((b"SSH-2.0-OpenSSH_9\r\n", HOLD), id="another protocol"),
        pytest.param((HEAD + b"X: " + b"x" * 200_000, HOLD), id="an endless header"),
        pytest.param(
            (CHUNKED + b"2\r\n{}\r\n0\r\nX: " + b"x" * 200_000, *[b"x" * 100_000] * 8, HOLD), id="an endless trailer"
        ),
        pytest.param((CHUNKED + b"2\r\n{}\r\n0\r\n", *[b"Xy: 1\r\n" * 9000] * 8, HOLD), id="endless trailers"),
        pytest.param((answer(b"{nonsense"),), id="no JSON"),
        pytest.param((answer(b'"\xff"'),), id="no UTF-8"),
        pytest.param((answer(b"[" + BODY + b"]"),), id="a batch"),
        pytest.param((answer(b"<html>", kind="text/html"),), id="another media type"),
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",), id="nothing"),
        pytest.param((b"HTTP/1.1 204 No Content\r\n\r\n",), id="204"),
        pytest.param((b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",), id="202"),
        pytest.param((CLOSE,), id="a close"),
    ],
)
def test_what_is_no_answer_fails_the_call_alone(script: tuple[Step, ...]) -> None:
    async def main() -> None:
        async with Scripted(script, (result(3),)) as server:
            rig = Rig(server)
            heard = await rig.ask()
            assert isinstance(heard.error, UpstreamUnavailable)
            assert heard.error.sent
            assert heard.messages == []
            assert (await rig.ask()).values == ["ok"], "the next call is none the worse"

    run(main)


# --- one caller never reads another's bytes


@pytest.mark.parametrize("at_once", [True, False], ids=["in the same read", "later"])
@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(result(3, "forged"), id="a whole answer"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", id="half a head"),
    ],
)
def test_bytes_behind_an_answer_never_reach_the_next_caller(extra: bytes, at_once: bool) -> None:
    async def main() -> None:
        async def wait(server: Scripted) -> None:
            await server.go.wait()

        script: tuple[Step, ...] = (result(2, "mine") + extra,) if at_once else (result(2, "mine"), wait, extra)
        async with Scripted((*script, HOLD), (result(3, "true"),)) as server:
            rig = Rig(server)
            first = await rig.ask()
            assert first.values in (["mine"], [])
            server.go.set()
            if not at_once:
                await until(lambda: server.gone)
            assert (await rig.ask()).values == ["true"]
            assert server.connections == 2

    run(main)


def test_an_answer_that_comes_before_its_question_is_nobodys() -> None:
    async def main() -> None:
        async with Scripted((result(2), HOLD)) as server:
            rig = Rig(server)
            connection = await rig.pool.dial()
            rig.pool.release(connection)
            assert (await rig.ask()).values == ["ok"]

    run(main)


def test_callers_at_once_have_connections_of_their_own() -> None:
    async def main() -> None:
        async def together(server: Scripted) -> None:
            await until(lambda: len(server.requests) == 3)

        scripts = [(together, result(id_)) for id_ in (2, 3, 4)]
        async with Scripted(*scripts) as server:
            rig = Rig(server)
            heard = [rig.send() for _ in range(3)]
            for one in heard:
                await one.over.wait()
            assert server.connections == 3
            assert len(rig.pool.idle) == 3

    run(main)


# --- idle connections


def test_idle_connections_are_dropped_before_they_are_stale() -> None:
    async def main() -> None:
        async with Scripted((result(2),), (result(3),)) as server:
            rig = Rig(server)
            await rig.ask()
            rig.clock.advance(IDLE_S + 1)
            rig.pool.sweep()
            assert rig.pool.take() is None
            await until(lambda: server.gone == 1)
            assert (await rig.ask()).values == ["ok"]

    run(main)


def test_a_server_that_keeps_connections_shorter_is_believed() -> None:
    async def main() -> None:
        async with Scripted((answer(rpc(2, result={}), "200 OK", "Keep-Alive: timeout=2, max=9"),)) as server:
            rig = Rig(server)
            await rig.ask()
            rig.clock.advance(1.5)
            rig.pool.sweep()
            assert rig.pool.take() is None

    run(main)


def test_an_idle_connection_that_the_server_closed_is_not_used() -> None:
    async def main() -> None:
        async with Scripted((result(2), CLOSE), (result(3),)) as server:
            rig = Rig(server)
            await rig.ask()
            await until(lambda: not rig.pool.idle)
            assert (await rig.ask()).values == ["ok"]
            assert server.connections == 2

    run(main)


@pytest.mark.parametrize(
    ("resend", "first", "again"),
    [
        pytest.param(False, (CLOSE,), False, id="not what may have acted"),
        pytest.param(True, (CLOSE,), True, id="what is idempotent"),
        pytest.param(True, (HEAD, CLOSE), None, id="an answer begun, if only its head in part"),
        pytest.param(True, (HEAD + b"Content-Length: 99\r\n\r\n{", CLOSE), False, id="not once an answer has begun"),
    ],
)
def test_a_call_is_sent_again_only_where_that_is_allowed(
    resend: bool, first: tuple[Step, ...], again: bool | None
) -> None:
    async def main() -> None:
        async with Scripted((result(2),), first, (result(3, "again"),)) as server:
            rig = Rig(server)
            await rig.ask()
            heard = await rig.ask(resend=resend)
            if again is not None:
                assert heard.values == (["again"] if again else [])
                assert len(server.requests) == (3 if again else 2)
            if not again and heard.error is not None:
                assert isinstance(heard.error, UpstreamUnavailable)
                assert heard.error.sent

    run(main)


def test_a_call_is_sent_again_once_and_no_more() -> None:
    async def main() -> None:
        async with Scripted((CLOSE,)) as server:
            heard = await Rig(server).ask(resend=True)
            assert isinstance(heard.error, UpstreamUnavailable)
            assert len(server.requests) == 2

    run(main)


def test_a_server_that_is_not_there_was_sent_nothing() -> None:
    async def main() -> None:
        async with Scripted((CLOSE,)) as server:
            rig = Rig(server)
        heard = await rig.ask()
        assert isinstance(heard.error, UpstreamUnavailable)
        assert not heard.error.sent

    run(main)


# --- statuses


def test_a_404_on_a_session_means_that_it_is_lost() -> None:
    async def main() -> None:
        async with Scripted((answer(b"gone", "404 Not Found", kind="text/plain"),)) as server:
            rig = Rig(server, LEGACY)
            heard = await rig.ask()
            assert isinstance(heard.error, SessionLost)
            assert not rig.channel.alive

    run(main)


def test_a_404_without_a_session_is_only_an_error() -> None:
    async def main() -> None:
        async with Scripted((answer(b"gone", "404 Not Found", kind="text/plain"),)) as server:
            rig = Rig(server, PLAIN)
            heard = await rig.ask()
            assert type(heard.error) is UpstreamUnavailable
            assert rig.channel.alive

    run(main)


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "405 Method Not Allowed", "422 Unprocessable"])
def test_a_json_rpc_error_counts_whatever_its_status(status: str) -> None:
    async def main() -> None:
        body = rpc(2, error={"code": -32602, "message": "no"})
        async with Scripted((answer(body, status),), (result(3),)) as server:
            rig = Rig(server, MODERN)
            heard = await rig.ask()
            assert json.loads(bytes(heard.messages[0].error))["code"] == -32602
            assert heard.error is None
            await rig.ask()
            assert server.connections == 1

    run(main)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        pytest.param("401 Unauthorized", "credential", id="401"),
        pytest.param("403 Forbidden", "credential", id="403"),
        pytest.param("429 Too Many", "overloaded", id="429"),
        pytest.param("500 Oops", "HTTP 500", id="500"),
        pytest.param("503 Busy", "overloaded", id="503"),
        pytest.param("302 Found", "redirect", id="a redirect"),
        pytest.param("307 Temporary Redirect", "redirect", id="a redirect that keeps the method"),
    ],
)
def test_what_refuses_us_is_said_in_our_words(status: str, said: str) -> None:
    async def main() -> None:
        body = rpc(2, error={"code": -1, "message": "secret words"})
        elsewhere = "Location: http://127.0.0.1:1/"
        async with Scripted((answer(body, status, elsewhere, "Retry-After: 7"),)) as server:
            heard = await Rig(server).ask()
            assert isinstance(heard.error, UpstreamUnavailable)
            assert said in heard.error.public
            assert "secret" not in heard.error.public
            assert (heard.error.data or {})["retryAfterSeconds"] == 7
            assert len(server.requests) == 1, "no redirect is followed"

    run(main)


@pytest.mark.parametrize(
    ("value", "seconds"), [("99999999", 3600), ("soon", None), ("-5", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)]
)
def test_retry_after_is_bounded(value: str, seconds: int | None) -> None:
    async def main() -> None:
        async with Scripted((answer(b"", "503 Busy", f"Retry-After: {value}"),)) as server:
            heard = await Rig(server).ask()
            assert heard.error is not None
            assert (heard.error.data or {}).get("retryAfterSeconds") == seconds

    run(main)


# --- size


@pytest.mark.parametrize(
    "script",
    [
        pytest.param((HEAD + b"Content-Length: 5001\r\n\r\n", HOLD), id="by its length, before a byte of it"),
        pytest.param((CHUNKED + b"1389\r\n" + b" " * 5001, HOLD), id="in chunks"),
        pytest.param((HEAD + b"\r\n" + b" " * 5001, HOLD), id="until it closes"),
    ],
)
def test_an_answer_that_is_too_large_is_given_up(script: tuple[Step, ...]) -> None:
    async def main() -> None:
        async with Scripted(script) as server:
            heard = await Rig(server, max_answer=5000).ask()
            assert isinstance(heard.error, ContentBlocked)
            await until(lambda: server.gone == 1)

    run(main)


def test_an_event_that_is_too_large_is_given_up() -> None:
    async def main() -> None:
        stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: "
        async with Scripted((stream, b"x" * 300_000, HOLD)) as server:
            heard = await Rig(server, max_answer=5000).ask()
            assert heard.error is not None
            await until(lambda: server.gone == 1)

    run(main)


def large(id_: int) -> bytes:
    return rpc(id_, result={"value": "x" * 300_000})


def test_a_large_answer_counts_while_it_is_held() -> None:
    async def main() -> None:
        async def wait(server: Scripted) -> None:
            await server.go.wait()

        body = large(2)
        async with Scripted(
            (HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b" % (len(body), body), wait, b"\r\n0\r\n\r\n")
        ) as server:
            rig = Rig(server)
            heard = rig.send()
            await until(lambda: rig.held.used == len(body))
            server.go.set()
            await heard.over.wait()
            assert len(heard.values[0]) == 300_000
            assert rig.held.used == 0

    run(main)


@pytest.mark.parametrize("end", ["cancelled", "lost", "overdrawn"])
def test_bytes_held_are_given_back(end: str) -> None:
    async def main() -> None:
        async def wait(server: Scripted) -> None:
            await server.go.wait()

        script: tuple[Step, ...] = (CHUNKED + b"fffff\r\n" + b" " * 200_000, wait, RESET)
        async with Scripted(script) as server:
            rig = Rig(server, held=100_000 if end == "overdrawn" else 1 << 30)
            heard = rig.send()
            if end == "overdrawn":
                await heard.over.wait()
                assert isinstance(heard.error, Overloaded)
            else:
                await until(lambda: rig.held.used >= 200_000)
            if end == "cancelled":
                rig.flight.cancel("enough")
            server.go.set()
            if end == "lost":
                await heard.over.wait()
                assert isinstance(heard.error, UpstreamUnavailable)
            assert rig.held.used == 0

    run(main)


@pytest.mark.parametrize("taken", [True, False])
def test_a_large_answer_is_offered_as_it_arrives(taken: bool) -> None:
    async def main() -> None:
        body = large(2)
        async with Scripted((answer(body),), (result(3),)) as server:
            rig = Rig(server)
            heard = await rig.ask(splices=taken)
            assert heard.offered == [len(body)]
            assert bytes(heard.bytes) == (body if taken else b"")
            assert len(heard.messages) == (0 if taken else 1)
            assert (await rig.ask()).values == ["ok"]
            assert server.connections == 1

    run(main)


def test_a_spliced_answer_that_breaks_off_fails() -> None:
    async def main() -> None:
        async with Scripted((answer(large(2))[:-1], CLOSE)) as server:
            heard = await Rig(server).ask(splices=True)
            assert isinstance(heard.error, UpstreamUnavailable)

    run(main)


def test_what_an_earlier_answer_was_framed_by_does_not_count_for_the_next() -> None:
    async def main() -> None:
        cut = answer(large(2))[:-1]
        async with Scripted((b"HTTP/1.1 204 No Content\r\n\r\n",), (cut, CLOSE)) as server:
            rig = Rig(server)
            rig.channel.notify(b'{"jsonrpc":"2.0","method":"a"}')
            await until(lambda: rig.pool.idle)
            heard = await rig.ask(splices=True)
            assert isinstance(heard.error, UpstreamUnavailable), "204 ends without a length; this one was cut off"
            assert server.connections == 1

    run(main)


def test_a_small_answer_is_not_offered() -> None:
    async def main() -> None:
        async with Scripted((answer(rpc(2, result={"value": "x" * (LARGE // 2)})),)) as server:
            assert (await Rig(server).ask(splices=True)).offered == []

    run(main)


# --- event streams

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(data: bytes) -> bytes:
    text = b"event: message\ndata: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(text), text)


def test_events_are_handed_on_as_they_arrive() -> None:
    async def main() -> None:
        async def wait(server: Scripted) -> None:
            await server.go.wait()

        progress = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}).encode()
        async with Scripted((STREAM + event(progress), wait, event(BODY) + b"0\r\n\r\n"), (result(3),)) as server:
            rig = Rig(server)
            heard = rig.send()
            await until(lambda: heard.messages)
            assert heard.streaming
            server.go.set()
            await heard.over.wait()
            assert [one.method for one in heard.messages] == ["notifications/progress", ""]
            assert (await rig.ask()).values == ["ok"]
            assert server.connections == 1

    run(main)


def test_garbage_in_a_stream_fails_its_call() -> None:
    async def main() -> None:
        async with Scripted((STREAM + event(b"{nonsense"), HOLD)) as server:
            heard = await Rig(server).ask()
            assert isinstance(heard.error, UpstreamUnavailable)
            await until(lambda: server.gone == 1)

    run(main)


# --- giving up


@pytest.mark.parametrize(("dialect", "told"), [(LEGACY, True), (MODERN, False)], ids=["legacy", "modern"])
def test_who_gives_up_closes_the_connection_and_a_legacy_server_is_told(dialect: Dialect, told: bool) -> None:
    async def main() -> None:
        async with Scripted((HOLD,), (answer(b"", "202 Accepted"),)) as server:
            rig = Rig(server, dialect)
            heard = rig.send()
            await until(lambda: server.requests)
            rig.flight.cancel("enough")
            rig.flight.cancel("twice")
            await until(lambda: server.gone >= 1)
            if told:
                await until(lambda: len(server.requests) == 2)
                message = json.loads(server.requests[1][2])
                assert message["method"] == "notifications/cancelled"
                assert message["params"]["requestId"] == 2
            assert not heard.over.is_set(), "after a cancel nothing is heard"

    run(main)


def test_who_gives_up_before_it_is_sent_leaves_nothing() -> None:
    async def main() -> None:
        async with Scripted((result(2),)) as server:
            rig = Rig(server)
            heard = rig.send()
            rig.flight.cancel("at once")
            assert (await rig.ask()).ends == 1
            assert not heard.over.is_set()
            assert len(server.requests) == 1

    run(main)


def test_a_paused_answer_is_not_read_on() -> None:
    async def main() -> None:
        flood = [event(json.dumps({"jsonrpc": "2.0", "method": "n", "params": {"x": "y" * 60_000}}).encode())] * 400
        async with Scripted((STREAM, *flood, event(BODY) + b"0\r\n\r\n")) as server:
            rig = Rig(server)
            heard = rig.send()
            await until(lambda: heard.messages)
            rig.flight.pause()
            seen = len(heard.messages)
            for _ in range(500):  # turns of the loop, each of which would have read on
                await asyncio.sleep(0)
            assert len(heard.messages) == seen
            rig.flight.resume()
            await heard.over.wait()
            assert len(heard.messages) == 401

    run(main)


def test_who_pauses_when_all_is_read_pauses_nobody_else() -> None:
    async def main() -> None:
        async with Scripted((result(2),), (result(3),)) as server:
            rig = Rig(server)
            heard = Heard()
            heard.message = lambda message: rig.flight.pause()  # type: ignore[method-assign]
            id_ = rig.channel.next_id()
            rig.flight = rig.channel.request(Outgoing(id_, "tools/call", rpc(id_, method="tools/call")), heard)
            await heard.over.wait()
            rig.flight.pause()
            assert (await rig.ask()).values == ["ok"]
            assert server.connections == 1

    run(main)


# --- notifications and the end


def test_notifications_are_sent_and_their_answers_are_nobodys() -> None:
    async def main() -> None:
        async with Scripted((answer(b"", "202 Accepted"),), (answer(b"", "202 Accepted"),), (result(2),)) as server:
            rig = Rig(server)
            rig.channel.notify(b'{"jsonrpc":"2.0","method":"a"}')
            await until(lambda: rig.pool.idle)
            rig.channel.notify(b'{"jsonrpc":"2.0","method":"b"}')
            await until(lambda: len(server.requests) == 2 and rig.pool.idle)
            assert (await rig.ask()).values == ["ok"]
            assert server.connections == 1

    run(main)


@pytest.mark.parametrize("script", [(answer(b""),), (answer(b"", "405 No"),), (CLOSE,)], ids=["200", "405", "closed"])
def test_a_session_is_ended_politely(script: tuple[Step, ...]) -> None:
    async def main() -> None:
        async with Scripted(script) as server:
            rig = Rig(server, LEGACY)
            await rig.channel.close()
            await rig.channel.close()
            assert not rig.channel.alive
        assert {line for line, *_ in server.requests} == {"DELETE /mcp HTTP/1.1"}
        assert server.requests[0][1]["mcp-session-id"] == "s1"

    run(main)


def test_a_server_that_does_not_let_go_is_left_within_two_seconds() -> None:
    async def main() -> None:
        async with Scripted((HOLD,)) as server:
            began = time.monotonic()
            await Rig(server, LEGACY).channel.close()
            assert time.monotonic() - began < 30

    run(main)
