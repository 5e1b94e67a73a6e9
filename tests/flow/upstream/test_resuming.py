"""A call whose stream breaks off, on real sockets: it is gone on with by GET, and never sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from narthex.errors import UpstreamUnavailable
from narthex.flow.upstream import resuming
from narthex.flow.upstream.resuming import MOST_IN_VAIN, LegacyChannel, ResumableCall
from tests.flow.upstream.test_http import (
    CLOSE,
    HOLD,
    LEGACY,
    MODERN,
    PLAIN,
    RESET,
    Heard,
    Rig,
    Scripted,
    Step,
    answer,
    result,
    rpc,
    run,
    until,
)

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
PRIMED = STREAM + b"id: e1\nretry: 50\ndata:\n\n"
ANSWER = b"id: e9\ndata: %b\n\n" % rpc(2, result={"value": "ok"})
NOTE = b"data: %b\n\n" % json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}).encode()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "FIRST_S", 0.001)
    monkeypatch.setattr(resuming, "LEAST_S", 0.001)


class Legacy(Rig):
    def __init__(self, server: Scripted, dialect: Any = LEGACY, **spec: Any) -> None:
        super().__init__(server, dialect, **spec)
        self.channel = LegacyChannel(self.spec, self.pool, dialect, self.held)


def lines(server: Scripted) -> list[str]:
    return [one[0].split()[0] for one in server.requests]


@pytest.mark.parametrize("ends", [CLOSE, RESET])
@pytest.mark.parametrize(
    ("scripts", "asked_from"),
    [
        pytest.param([(PRIMED, ...), (STREAM, ANSWER)], ["e1"], id="behind the first event"),
        pytest.param([(PRIMED, b"id: e2\n" + NOTE, ...), (STREAM, ANSWER)], ["e2"], id="behind the last event"),
        pytest.param([(PRIMED, NOTE, ...), (STREAM, ANSWER)], ["e1"], id="an event without id has none of its own"),
        pytest.param([(PRIMED, b"id: e2\ndata: {", ...), (STREAM, ANSWER)], ["e1"], id="half an event has not come"),
        pytest.param(
            [(PRIMED, ...), (STREAM, b"id: e2\ndata:\n\n", ...), (STREAM, NOTE, ...), (STREAM, ANSWER)],
            ["e1", "e2", "e2"],
            id="again and again",
        ),
        pytest.param([(STREAM, b"id: e1\ndata:\n\n", ...), (STREAM, ANSWER)], ["e1"], id="no retry is said"),
        pytest.param(
            [(PRIMED, ...), (answer(b"", "503 No", kind=None),), (STREAM, ANSWER)], ["e1", "e1"], id="it is not well"
        ),
        pytest.param([(PRIMED, ...), (...,), (STREAM, ANSWER)], ["e1", "e1"], id="nothing comes the first time"),
    ],
)
def test_the_rest_of_a_stream_is_asked_for(scripts: list[tuple[Any, ...]], asked_from: list[str], ends: str) -> None:
    async def main() -> None:
        steps = [tuple(ends if step is ... else step for step in script) for script in scripts]
        async with Scripted(*[(*script, CLOSE) for script in steps]) as server:
            heard = await Legacy(server).ask()
            assert (heard.values, heard.error) == (["ok"], None)
            assert lines(server) == ["POST"] + ["GET"] * len(asked_from)
            for (_, headers, _, _), last_id in zip(server.requests[1:], asked_from, strict=True):
                assert headers["last-event-id"] == last_id
                assert (headers["mcp-session-id"], headers["accept"]) == ("s1", "text/event-stream")

    run(main)


def test_what_came_before_and_behind_the_break_comes_once_and_in_order() -> None:
    def note(n: int) -> bytes:
        text = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": n}})
        return f"id: {n}\ndata: {text}\n\n".encode()

    async def main() -> None:
        scripts = [(PRIMED, note(1), note(2), CLOSE), (STREAM, note(3), CLOSE), (STREAM, note(4) + ANSWER, CLOSE)]
        async with Scripted(*scripts) as server:
            heard = await Legacy(server).ask()
            assert [json.loads(bytes(one.params))["progress"] for one in heard.messages[:-1]] == [1, 2, 3, 4]
            assert heard.values == ["ok"]

    run(main)


def test_a_server_is_stayed_away_from_as_long_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    slept = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await slept(0)

    async def main() -> None:
        async with Scripted((STREAM, b"id: 1\nretry: 5400\ndata:\n\n", CLOSE), (STREAM, ANSWER, CLOSE)) as server:
            rig = Legacy(server)
            monkeypatch.setattr(resuming.asyncio, "sleep", sleep)
            assert (await rig.ask()).values == ["ok"]
            monkeypatch.setattr(resuming.asyncio, "sleep", slept)

    run(main)
    assert waits == [5.4]


@pytest.mark.parametrize(
    ("script", "public"),
    [
        pytest.param((STREAM, NOTE, CLOSE), None, id="a stream without an id cannot be gone on with"),
        pytest.param((STREAM, b"id: \x01\ndata:\n\n", CLOSE), None, id="nor one whose id is no header"),
        pytest.param((PRIMED, ANSWER, CLOSE), "answered", id="nor is one that has been answered"),
        pytest.param((STREAM, RESET), "server one broke off", id="nor one that has not begun"),
    ],
)
def test_a_stream_that_ends_as_any_other(script: tuple[Step, ...], public: str | None) -> None:
    async def main() -> None:
        async with Scripted(script) as server:
            heard = await Legacy(server).ask()
            assert lines(server) == ["POST"]
            if public == "answered":
                assert heard.values == ["ok"]
            elif public is None:
                assert heard.error is None
                assert heard.values == [], "whoever waits says that the answer did not come"
            else:
                assert heard.error is not None
                assert heard.error.public == public

    run(main)


def test_a_modern_stream_is_not_gone_on_with() -> None:
    async def main() -> None:
        async with Scripted((PRIMED, CLOSE)) as server:
            assert (await Rig(server, MODERN).ask()).values == []
            assert lines(server) == ["POST"]

    run(main)


@pytest.mark.parametrize(
    ("status", "public"),
    [
        pytest.param("404 Gone", "server one ended our session", id="the session is lost: no call is made again"),
        pytest.param("405 No", "server one broke off its answer", id="no GET is offered"),
        pytest.param("400 No", "server one broke off its answer", id="the id is not known any more"),
        pytest.param("401 No", "server one refused the gateway's credential", id="the credential"),
        pytest.param("302 No", "server one broke off its answer", id="a redirect"),
        pytest.param("200 OK", "server one broke off its answer", id="no event stream"),
    ],
)
def test_a_stream_that_is_there_no_more(status: str, public: str) -> None:
    async def main() -> None:
        async with Scripted((PRIMED, CLOSE), (answer(b"<html>", status, kind="text/html"),)) as server:
            rig = Legacy(server)
            heard = await rig.ask(resend=True)
            assert isinstance(heard.error, UpstreamUnavailable), "not SessionLost, upon which the call is sent again"
            assert heard.error.public == public
            assert heard.error.data is not None
            assert heard.error.data["sent"] is True
            assert lines(server) == ["POST", "GET"]
            assert rig.channel.alive is ("404" not in status)

    run(main)


@pytest.mark.parametrize("resend", [False, True])
@pytest.mark.parametrize("vain", [(CLOSE,), (answer(b"", "503 No", kind=None),), (STREAM, CLOSE)])
def test_tries_in_vain_are_bounded_and_the_call_is_never_sent_again(vain: tuple[Step, ...], resend: bool) -> None:
    async def main() -> None:
        async with Scripted((PRIMED.replace(b"50", b"0"), CLOSE), vain) as server:
            heard = await Legacy(server).ask(resend=resend)
            assert lines(server) == ["POST"] + ["GET"] * MOST_IN_VAIN
            assert not heard.values

    run(main)


def test_a_server_that_cannot_be_reached_any_more_is_given_up() -> None:
    async def main() -> None:
        server = Scripted((PRIMED.replace(b"50", b"0"), HOLD))
        async with server:
            rig = Legacy(server)
            heard = rig.send(resend=True)
            await until(lambda: server.requests)
        await heard.over.wait()
        assert heard.error is not None
        assert heard.error.data == {"sent": True}
        assert lines(server) == ["POST"]

    run(main)


async def held(server: Scripted) -> None:
    await server.go.wait()


@pytest.mark.parametrize("when", ["while it waits", "while it asks", "while it reads"])
def test_a_call_that_is_given_up_is_cancelled_at_the_server(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        if when == "while it waits":
            monkeypatch.setattr(resuming, "LEAST_S", 3600.0)
        second: tuple[Step, ...] = (held,) if when == "while it asks" else (STREAM, NOTE, HOLD)
        async with Scripted((PRIMED, CLOSE), second, (answer(b"", "202 Accepted", kind=None),)) as server:
            rig = Legacy(server)
            heard = rig.send()
            flight = rig.flight
            assert isinstance(flight, ResumableCall)
            there: dict[str, Callable[[], object]] = {
                "while it waits": lambda: flight._asking,
                "while it asks": lambda: len(server.requests) == 2,
                "while it reads": lambda: heard.messages,
            }
            await until(there[when])
            flight.cancel("nobody waits")
            await until(lambda: server.requests[-1][2])
            await until(lambda: b"notifications/cancelled" in server.requests[-1][2])
            assert json.loads(server.requests[-1][2])["params"]["requestId"] == 2
            assert heard.ends == 0
            server.go.set()

    run(main)


def test_a_pause_holds_for_the_next_connection_too() -> None:
    async def main() -> None:
        async with Scripted((PRIMED, CLOSE), (STREAM, ANSWER, CLOSE)) as server:
            rig = Legacy(server)
            heard: Heard = rig.send()
            flight = rig.flight
            assert isinstance(flight, ResumableCall)
            await until(lambda: flight._asking)
            flight.pause()
            await until(lambda: len(server.requests) == 2 and server.gone == 2)
            assert heard.values == []
            flight.resume()
            await heard.over.wait()
            assert heard.values == ["ok"]

    run(main)


def test_an_answer_as_json_is_read_as_ever() -> None:
    async def main() -> None:
        async with Scripted((result(2),)) as server:
            assert (await Legacy(server, PLAIN).ask()).values == ["ok"]

    run(main)
