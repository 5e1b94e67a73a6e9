"""Which MCP a server over HTTP speaks, asked of scripted servers: one row a kind of server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narthex.errors import UpstreamUnavailable
from narthex.flow.held import Held
from narthex.flow.upstream.connection import HttpPool
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.http import HttpChannel
from narthex.flow.upstream.negotiate import OldTransport, open_http
from narthex.flow.upstream.port import NOBODY, Behalf
from narthex.flow.upstream.session import SessionChannel
from narthex.testing import FakeClock, FakeServer
from narthex.types import Egress, Era, HttpTarget
from tests.flow.gateway import run, spec
from tests.flow.upstream.test_http import CLOSE, RESET, STREAM, Scripted, Step, answer, event, rpc

DISCOVERED = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
INITIALIZED = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "x"}}
OLD = ["2025-11-25", "2025-06-18"]
ONLY_OLD = {"code": -32022, "message": "x", "data": {"supported": OLD, "requested": "2026-07-28"}}
NO_METHOD = rpc(1, error={"code": -32601, "message": "no"})
ACCEPTED = (answer(b"", "202 Accepted", kind=None),)
SESSION = "Mcp-Session-Id: s-1"
LEGACY_ANSWER = answer(rpc(1, result=INITIALIZED), "200 OK", SESSION)


async def open_to(url: str, known: Era | None = None, *, behalf: Behalf = NOBODY, **settings: Any) -> HttpChannel:
    one = spec("one", url, **settings)
    assert isinstance(one.target, HttpTarget)
    pool = HttpPool(one, one.target, Dialer(Egress(proxy=None)), FakeClock())
    return await open_http(one, pool, Held(1 << 20), known, behalf)


def url_of(server: Scripted) -> str:
    return f"http://127.0.0.1:{server.port}/mcp"


DISCOVER, INITIALIZE = ["server/discover"], ["initialize", "notifications/initialized"]


@pytest.mark.parametrize(
    ("eras", "known", "era", "found", "asked"),
    [
        pytest.param("modern", None, "auto", "modern", DISCOVER, id="modern"),
        pytest.param("dual", None, "auto", "modern", DISCOVER, id="both: modern"),
        pytest.param("dual", "modern", "auto", "modern", DISCOVER, id="both, known as modern"),
        pytest.param("dual", "legacy", "auto", "legacy", INITIALIZE, id="both, known as legacy"),
        pytest.param("dual", "modern", "legacy", "legacy", INITIALIZE, id="both, legacy is configured"),
        pytest.param("dual", "legacy", "modern", "modern", DISCOVER, id="both, modern is configured"),
        pytest.param("legacy", None, "auto", "legacy", [*DISCOVER, *INITIALIZE], id="legacy"),
        pytest.param("legacy", "legacy", "auto", "legacy", INITIALIZE, id="known as legacy"),
        pytest.param("legacy", "modern", "auto", "legacy", [*DISCOVER, *INITIALIZE], id="modern no more"),
        pytest.param("modern", "legacy", "auto", "modern", ["initialize", *DISCOVER], id="legacy no more"),
    ],
)
def test_the_era_is_found(eras: Any, known: Era | None, era: Any, found: Era, asked: list[str]) -> None:
    async def main() -> None:
        async with FakeServer(eras=eras) as server:
            channel = await open_to(server.url, known, era=era)
            assert channel.dialect.era == found
            assert (channel.dialect.session_id is not None) == (found == "legacy")
            assert [one.method for one in server.asked] == asked
            await channel.close()

    run(main)


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(answer(NO_METHOD), id="method not found"),
        pytest.param(answer(NO_METHOD, "404 Not Found"), id="method not found with its status"),
        pytest.param(
            answer(rpc(1, error={"code": -32000, "message": "no session"}), "400 Bad Request"), id="no session"
        ),
        pytest.param(answer(b"Bad Request", "400 Bad Request", kind="text/plain"), id="a bare 400"),
        pytest.param(answer(b"", "404 Not Found"), id="a bare 404"),
        pytest.param(answer(b"<html>", kind="text/html"), id="a page"),
        pytest.param(answer(b"", "202 Accepted", kind=None), id="accepted, and no answer"),
        pytest.param(answer(rpc(1, result={**DISCOVERED, "supportedVersions": OLD})), id="it discovers old versions"),
        pytest.param(
            STREAM + event(rpc(1, result={**DISCOVERED, "supportedVersions": OLD})) + b"0\r\n\r\n",
            id="it discovers old versions in a stream",
        ),
        pytest.param(answer(rpc(1, error=ONLY_OLD), "400 Bad Request"), id="-32022 that names old versions"),
        pytest.param(STREAM + event(NO_METHOD) + b"0\r\n\r\n", id="an error in a stream"),
        pytest.param(answer(rpc(1, result={})), id="a result that is none of discovery: it answers whatever is asked"),
    ],
)
def test_what_is_no_modern_answer_is_asked_to_initialize(refusal: bytes) -> None:
    async def main() -> None:
        async with Scripted((refusal,), (LEGACY_ANSWER,), ACCEPTED) as server:
            channel = await open_to(url_of(server))
            assert (channel.dialect.era, channel.dialect.session_id) == ("legacy", "s-1")
            first, second, third = server.requests
            assert "mcp-protocol-version" not in second[1], "no version before one is agreed on"
            assert json.loads(third[2])["method"] == "notifications/initialized"
            assert third[1]["mcp-session-id"] == "s-1"
            assert third[1]["mcp-protocol-version"] == "2025-11-25"
            assert first[1]["mcp-method"] == "server/discover"

    run(main)


@pytest.mark.parametrize("how", ["json", "stream"])
def test_answers_are_taken_in_either_form(how: str) -> None:
    async def main() -> None:
        note = rpc(None, method="notifications/message", params={})
        body = rpc(1, result=DISCOVERED)
        stream = STREAM + event(note) + event(body) + b"0\r\n\r\n"
        async with Scripted((stream if how == "stream" else answer(body),)) as server:
            assert (await open_to(url_of(server))).dialect.capabilities == {"tools": {}}

    run(main)


@pytest.mark.parametrize(
    ("scripts", "era", "said"),
    [
        pytest.param([(answer(b"", "401 Unauthorized"),)], None, "credential", id="401 says nothing of the era"),
        pytest.param([(answer(b"", "403 Forbidden"),)], None, "credential", id="403 neither"),
        pytest.param([(answer(b"", "429 Too Many"),)], None, "overloaded", id="429 neither"),
        pytest.param([(answer(b"", "500 Oops"),)], None, "HTTP 500", id="a failing server neither"),
        pytest.param([(answer(b"", "302 Found", "Location: /x"),)], None, "redirect", id="a redirect is not followed"),
        pytest.param([(CLOSE,)], None, "broke off", id="closes"),
        pytest.param([(RESET,)], None, "broke off", id="resets"),
        pytest.param([(answer(NO_METHOD),)], "modern", "does not speak", id="modern is wished and is not there"),
        pytest.param([(answer(rpc(1, error={"code": -32022, "message": "x"}), "400 Bad Request"),)], None, "version",
                     id="modern, of another version"),
        pytest.param([(answer(rpc(1, result={**DISCOVERED, "supportedVersions": ["2031-01-01"]})),)], None, "version",
                     id="modern, none of ours"),
        pytest.param([(answer(rpc(1, error={**ONLY_OLD, "data": {"supported": ["2031-01-01"]}})),)], None, "version",
                     id="modern by -32022, none of ours"),
        pytest.param([(answer(rpc(1, result={**DISCOVERED, "supportedVersions": OLD})),)], "modern", "version",
                     id="modern is wished and old versions are there"),
        pytest.param([(answer(NO_METHOD),), (answer(NO_METHOD),)], None, "refused to initialize", id="refuses to"),
        pytest.param([(answer(NO_METHOD),), (answer(b"", "500 Oops"),)], None, "HTTP 500", id="fails to"),
        pytest.param([(answer(NO_METHOD),), (answer(rpc(1, result={"protocolVersion": "1999"})),)], None, "version",
                     id="an unknown version"),
        pytest.param([(answer(NO_METHOD),), (answer(rpc(1, result=INITIALIZED), "200 OK", "Mcp-Session-Id: a b"),)],
                     None, "session id", id="a session id that is no token"),
        pytest.param([(answer(NO_METHOD),), (answer(rpc(1, result=INITIALIZED), "200 OK", f"{SESSION}{'x' * 2000}"),)],
                     None, "session id", id="a session id that is too long"),
        pytest.param([(answer(b" " * (2 << 20)),)], None, "", id="an answer beyond measure"),
    ],
)  # fmt: skip
def test_failures_are_told_apart(scripts: list[tuple[Step, ...]], era: Era | None, said: str) -> None:
    async def main() -> None:
        async with Scripted(*scripts) as server:
            with pytest.raises(UpstreamUnavailable) as caught:
                await open_to(url_of(server), era=era or "auto")
            assert said in caught.value.public
            assert len(server.requests) <= len(scripts)

    run(main)


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "405 Method Not Allowed"])
def test_who_takes_no_post_may_speak_the_old_transport(status: str) -> None:
    async def main() -> None:
        async with Scripted((answer(b"", status),)) as server:
            with pytest.raises(OldTransport):
                await open_to(url_of(server))

    run(main)


def test_a_session_is_not_needed() -> None:
    async def main() -> None:
        async with Scripted((answer(rpc(1, result=INITIALIZED)),), ACCEPTED) as server:
            channel = await open_to(url_of(server), "legacy")
            assert channel.dialect.session_id is None
            assert "mcp-session-id" not in server.requests[1][1]

    run(main)


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "500 Oops", "429 Too Many"])
def test_a_refusal_that_says_nothing_of_the_era_is_not_followed_by_another_question(status: str) -> None:
    async def main() -> None:
        async with Scripted((answer(b"", status),)) as server:
            with pytest.raises(UpstreamUnavailable):
                await open_to(url_of(server), "legacy")
            assert len(server.requests) == 1

    run(main)


def test_what_the_client_can_do_is_declared_in_either_era() -> None:
    behalf = Behalf({"roots": {"listChanged": True}}, one_session=True)

    async def main() -> None:
        async with FakeServer(eras="legacy") as legacy, FakeServer(eras="modern") as modern:
            channel = await open_to(legacy.url, behalf=behalf)
            assert isinstance(channel, SessionChannel)
            assert channel.behalf is behalf
            await open_to(modern.url, behalf=behalf)
            (initialize,), (discover,) = legacy.requests("initialize"), modern.requests("server/discover")
            declared = discover.params["_meta"]["io.modelcontextprotocol/clientCapabilities"]
            assert initialize.params["capabilities"] == declared == behalf.capabilities

    run(main)
