"""What a server asks a client on a stream of its own: that is open while the client's channel is, and no longer."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from narthex.flow.upstream import listening
from narthex.flow.upstream.links import NOTHING
from narthex.flow.upstream.port import Outgoing
from narthex.flow.upstream.server import SESSION_IDLE_S
from tests.flow.gateway import run, until
from tests.flow.upstream.telling import Telling
from tests.flow.upstream.test_http import Heard
from tests.flow.upstream.test_listening import Ears, ears, uris
from tests.flow.upstream.test_opening import SCOPE, SESSION, is_alive


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has ended is opened again at once."""
    monkeypatch.setattr(listening, "FIRST_S", 0.004)


ABLE: dict[str, Any] = {"elicitation": {}}


def asked(server: Telling, able: dict[str, Any] = ABLE, **settings: Any) -> AbstractAsyncContextManager[Ears]:
    """Ears for a server of which one session's client can be asked."""
    return ears(server.url, settings={"sharing": "session", **settings}, declares=lambda _: able)


def test_a_stream_for_questions_is_open_before_the_first_call_and_ends_with_the_idle_channel() -> None:
    async def main() -> None:
        async with Telling() as server, asked(server) as one:
            channel = await one.server.open(SESSION)
            assert len(server.streams) == 1
            assert channel.open_calls == 0, "it keeps no channel from being idle"
            assert await one.server.open(SESSION) is channel
            await one.sweep(SESSION_IDLE_S + 1)
            await until(lambda: not server.streams and not one.server.listenings)
            assert (server.sessions, server.count("GET")) == (set(), 1)
            assert await one.server.open(SESSION) is not channel
            assert len(server.streams) == 1

    run(main)


def test_a_stream_for_questions_stays_when_changes_are_wanted_no_more() -> None:
    async def main() -> None:
        async with Telling() as server, asked(server) as one:
            one.scope = SESSION
            assert await one.listen(uris("a")) == uris("a")
            channel = one.server.ready(SESSION)
            assert channel is not None
            assert channel.open_calls == 1
            assert await one.listen(NOTHING) == NOTHING
            assert (channel.open_calls, server.subscribed, server.count("GET")) == (0, set(), 1)
            assert len(server.streams) == 1

    run(main)


def test_a_stream_for_questions_that_has_ended_is_opened_again() -> None:
    async def main() -> None:
        async with Telling() as server, asked(server) as one:
            await one.server.open(SESSION)
            server.cut()
            await until(lambda: server.count("GET") == 2 and server.streams)

    run(main)


def test_with_a_lost_session_its_stream_for_questions_is_another() -> None:
    async def main() -> None:
        async with Telling() as server, asked(server) as one:
            before = await one.server.open(SESSION)
            server.sessions.clear()
            server.cut()
            await until(lambda: not is_alive(before))
            await one.sweep()
            await until(lambda: not one.server.listenings)
            assert await one.server.open(SESSION) is not before
            assert [one.headers["mcp-session-id"] for one in server.streams] == list(server.sessions)

    run(main)


@pytest.mark.parametrize(
    ("scope", "able", "settings"),
    [
        pytest.param(SESSION, {}, {}, id="a client that can be asked nothing"),
        pytest.param(SESSION, {"tasks": {}}, {}, id="a client that can be asked nothing, and does something else"),
        pytest.param(SCOPE, ABLE, {"sharing": "principal"}, id="a session that calls of several clients share"),
    ],
)
def test_no_stream_is_opened_for_nobody(scope: Any, able: dict[str, Any], settings: dict[str, Any]) -> None:
    async def main() -> None:
        async with Telling() as server, asked(server, able, **settings) as one:
            await one.server.open(scope)
            assert one.server.listenings == {}
            assert server.count("GET") == 0

    run(main)


def test_a_modern_server_is_asked_for_no_stream_of_questions() -> None:
    async def main() -> None:
        async with Telling("modern") as server, asked(server) as one:
            await one.server.open(SESSION)
            assert one.server.listenings == {}

    run(main)


def test_a_server_without_a_stream_of_its_own_is_not_waited_for() -> None:
    class None_(Telling):
        async def get(self, reader: Any, writer: Any, headers: Any) -> None:
            self.reply(writer, 405)

    async def main() -> None:
        async with None_() as server, asked(server) as one:
            await one.server.open(SESSION)
            assert server.count("GET") == 1
            assert not one.server.may_be_missed(SESSION)

    run(main)


def test_a_stream_that_is_slow_to_open_is_waited_for_once_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Telling):
        async def get(self, reader: Any, writer: Any, headers: Any) -> None:
            await reader.read()

    async def main() -> None:
        async with Slow() as server, asked(server) as one:
            monkeypatch.setattr(listening, "PATIENCE_S", 0.05)
            await one.server.open(SESSION)
            assert one.server.may_be_missed(SESSION), "the clock that is handed in stands still"
            one.clock.advance(1.0)
            assert not one.server.may_be_missed(SESSION)

    run(main)


def test_what_a_server_asks_on_its_stream_reaches_the_only_call() -> None:
    class Slow(Telling):
        async def legacy(self, writer: Any, message: Any) -> None:
            if message["method"] != "tools/call":
                await super().legacy(writer, message)

    async def main() -> None:
        async with Slow() as server, asked(server) as one:
            channel = await one.server.open(SESSION)
            stream = server.streams[0]

            def ask(id_: int, method: str = "elicitation/create") -> None:
                stream.send({"id": id_, "method": method, "params": {"message": "?"}})

            async def answer_to(id_: int) -> Any:
                await until(lambda: any(one.get("id") == id_ for one in server.params("response")))
                return next(one for one in server.params("response") if one.get("id") == id_)

            ask(1)
            assert "no call" in (await answer_to(1))["error"]["message"]
            first, second = Heard(), Heard()
            flights = [_call(channel, first)]
            ask(2)
            stream.send({"method": "notifications/message", "params": {"level": "info", "data": "x"}})
            await until(lambda: len(first.messages) == 2)
            assert [one.method for one in first.messages] == ["elicitation/create", "notifications/message"]
            assert (first.messages[0].id, server.count("response")) == (2, 1), "the call answers it"
            flights.append(_call(channel, second))
            ask(3)
            assert "several calls" in (await answer_to(3))["error"]["message"]
            ask(4, "sampling/createMessage")
            assert (await answer_to(4))["error"]["code"] == -32601
            ask(5, "ping")
            assert (await answer_to(5))["result"] == {}
            for flight in flights:
                flight.cancel("over")

    run(main)


def _call(channel: Any, heard: Heard) -> Any:
    id_ = channel.next_id()
    body = json.dumps({"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": {}}).encode()
    return channel.request(Outgoing(id_, "tools/call", body), heard)
