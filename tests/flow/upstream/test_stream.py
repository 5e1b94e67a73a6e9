"""The GET stream of legacy Streamable HTTP: how it is asked for, what ends it, whose are the requests on it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from narthex.errors import GatewayError, UpstreamUnavailable
from narthex.flow.held import Held
from narthex.flow.upstream.connection import HttpPool
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.port import Behalf, Dialect, Outgoing
from narthex.flow.upstream.session import SessionChannel
from narthex.flow.upstream.stream import MOST_RETRY_S, EventStream, get_head
from narthex.testing import FakeClock
from narthex.types import Egress, HttpTarget
from tests.flow.gateway import run, spec, until
from tests.flow.upstream.test_http import CLOSE, HOLD, Heard, Scripted, Step, answer, rpc

LEGACY = Dialect(era="legacy", version="2025-11-25", session_id="s1")
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"


class Rig:
    def __init__(self, server: Scripted, **settings: Any) -> None:
        self.spec = spec("one", f"http://127.0.0.1:{server.port}/mcp", **settings)
        assert isinstance(self.spec.target, HttpTarget)
        self.pool = HttpPool(self.spec, self.spec.target, Dialer(Egress(proxy=None)), FakeClock())
        self.taken: list[bytes] = []
        self.ends: list[str] = []
        self.stream = EventStream(self.spec, self.taken.append, lambda _, detail: self.ends.append(detail))

    async def open(self, last_id: str = "") -> int:
        return await self.stream.open(self.pool, get_head(self.spec, self.pool, LEGACY, last_id))


def test_a_get_says_what_the_transport_asks_for() -> None:
    async def main() -> None:
        async with Scripted((STREAM, HOLD)) as server:
            rig = Rig(server)
            assert await rig.open("e-7") == 200
            line, headers, body, _ = server.requests[0]
            assert (line, body) == ("GET /mcp HTTP/1.1", b"")
            assert headers["accept"] == "text/event-stream"
            assert headers["mcp-session-id"] == "s1"
            assert headers["mcp-protocol-version"] == "2025-11-25"
            assert headers["last-event-id"] == "e-7"
            assert "content-type" not in headers
            rig.stream.close()

    run(main)


@pytest.mark.parametrize("last_id", ["", "\x01", "x" * 2000, "a\tb"])
def test_an_id_that_is_no_header_value_is_not_sent(last_id: str) -> None:
    async def main() -> None:
        async with Scripted((STREAM, HOLD)) as server:
            rig = Rig(server)
            await rig.open(last_id)
            assert "last-event-id" not in server.requests[0][1]
            rig.stream.close()

    run(main)


def test_events_arrive_in_order_and_the_last_one_is_remembered() -> None:
    events = (
        b': hello\n\nid: 0\nretry: 250\ndata:\n\nid: 1\ndata: {"a":1}\n\nevent: other\ndata: x\n\nid: 2\ndata: {}\n\n'
    )

    async def main() -> None:
        async with Scripted((STREAM, events, CLOSE)) as server:
            rig = Rig(server)
            await rig.open()
            await until(lambda: rig.ends)
            assert rig.taken == [b'{"a":1}', b"{}"]
            assert (rig.stream.last_id, rig.stream.retry_s, rig.stream.delivered) == ("2", 0.25, True)

    run(main)


def test_nobody_is_kept_away_for_ever() -> None:
    async def main() -> None:
        async with Scripted((STREAM, b"retry: 999999999\nid: 1\ndata:\n\n", CLOSE)) as server:
            rig = Rig(server)
            await rig.open()
            await until(lambda: rig.ends)
            assert rig.stream.retry_s == MOST_RETRY_S

    run(main)


@pytest.mark.parametrize("status", [202, 400, 401, 404, 405, 500])
def test_another_status_opens_nothing(status: int) -> None:
    async def main() -> None:
        async with Scripted((answer(b"", f"{status} X", kind=None),)) as server:
            rig = Rig(server)
            assert await rig.open() == status
            assert rig.ends == []

    run(main)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param((answer(b"{}"),), id="no stream"),
        pytest.param((CLOSE,), id="closes"),
        pytest.param((b"SSH-2.0\r\n", CLOSE), id="no HTTP"),
    ],
)
def test_what_is_no_stream_is_an_error(script: tuple[Step, ...]) -> None:
    async def main() -> None:
        async with Scripted(script) as server:
            rig = Rig(server)
            with pytest.raises(UpstreamUnavailable):
                await rig.open()
            assert rig.ends == []

    run(main)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        pytest.param((CLOSE,), "", id="the server closes"),
        pytest.param((b"data: " + b"x" * 200_000, HOLD), "too large", id="an event beyond measure"),
    ],
)
def test_the_end_is_told_once(end: tuple[Step, ...], said: str) -> None:
    async def main() -> None:
        async with Scripted((STREAM, *end)) as server:
            rig = Rig(server, max_answer=100_000)
            await rig.open()
            await until(lambda: rig.ends)
            await until(lambda: server.gone)
            assert len(rig.ends) == 1
            assert said in rig.ends[0]

    run(main)


def test_who_closes_is_told_nothing_and_the_server_is() -> None:
    async def main() -> None:
        async with Scripted((STREAM, HOLD)) as server:
            rig = Rig(server)
            await rig.open()
            rig.stream.close()
            await until(lambda: server.gone)
            assert rig.ends == []

    run(main)


def test_who_gives_up_while_it_is_opened_leaves_no_connection() -> None:
    async def main() -> None:
        async with Scripted((HOLD,)) as server:
            rig = Rig(server)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await rig.open()
            await until(lambda: server.gone == server.connections)

    run(main)


# --- a channel that knows its calls


class Alone(Rig):
    def __init__(self, server: Scripted) -> None:
        super().__init__(server)
        self.channel = SessionChannel(self.spec, self.pool, LEGACY, Held(1 << 30), Behalf({}, True))

    def send(self) -> tuple[Heard, Any]:
        id_, heard = self.channel.next_id(), Heard()
        return heard, self.channel.request(Outgoing(id_, "tools/call", rpc(id_, method="tools/call")), heard)


def streamed(*messages: bytes) -> bytes:
    return STREAM + b"".join(b"data: %b\n\n" % one for one in messages)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        pytest.param((answer(rpc(2, result={"value": 1})),), None, id="answered"),
        pytest.param((answer(rpc(2, error={"code": 1, "message": ""})),), None, id="refused"),
        pytest.param((streamed(rpc(None, method="x"), rpc(2, result={"value": 1})), CLOSE), None, id="streamed"),
        pytest.param((CLOSE,), UpstreamUnavailable, id="failed"),
        pytest.param((answer(b"", "404 X"),), GatewayError, id="session lost"),
    ],
)
def test_a_call_is_known_until_it_is_over(script: tuple[Step, ...], error: Any) -> None:
    async def main() -> None:
        async with Scripted(script) as server:
            alone = Alone(server)
            heard, _ = alone.send()
            assert list(alone.channel.calls) == [2]
            await heard.over.wait()
            assert alone.channel.calls == {}
            assert heard.ends == 1
            assert isinstance(heard.error, error) if error else heard.error is None

    run(main)


def test_what_comes_behind_an_answer_asks_nobody() -> None:
    async def main() -> None:
        async with Scripted((streamed(rpc(2, result={"value": 1})), HOLD)) as server:
            alone = Alone(server)
            heard, flight = alone.send()
            await until(lambda: heard.values)
            assert alone.channel.calls == {}
            flight.cancel("over")

    run(main)


def test_a_call_that_is_given_up_is_known_no_more() -> None:
    async def main() -> None:
        async with Scripted((HOLD,), (answer(b"", "202 X", kind=None),)) as server:
            alone = Alone(server)
            heard, flight = alone.send()
            await until(lambda: server.requests)
            flight.pause()
            flight.resume()
            flight.cancel("no longer needed")
            assert alone.channel.calls == {}
            await until(lambda: len(server.requests) == 2)
            assert json.loads(server.requests[1][2])["params"]["requestId"] == 2
            assert heard.ends == 0

    run(main)
