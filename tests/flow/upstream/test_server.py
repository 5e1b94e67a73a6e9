"""One upstream at run time, over a real server: opened once, listed once, left alone while it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from narthex.errors import Overloaded, UpstreamTimeout, UpstreamUnavailable
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.held import Held
from narthex.flow.upstream import lists
from narthex.flow.upstream import server as module
from narthex.flow.upstream.breaker import IN_A_ROW
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.server import RECHECK_S, SESSION_IDLE_S, Server
from narthex.testing import FakeClock, FakeServer
from narthex.types import Egress
from tests.flow.gateway import run, spec, until
from tests.flow.upstream.test_http import CLOSE, HOLD, Scripted, answer, rpc

TOOLS: list[dict[str, Any]] = [{"name": name, "inputSchema": {}} for name in "abcde"]
SCOPE = ("t", "i", "s", "c")


class Rig:
    def __init__(self, url: str, **settings: Any) -> None:
        self.clock = FakeClock(1000.0)
        self.changes = 0
        self.server = Server(
            spec("one", url, **settings), Dialer(Egress(proxy=None)), Held(1 << 30),
            clock=self.clock, chance=lambda: 0.0, on_change=self._changed,
        )  # fmt: skip

    def _changed(self) -> None:
        self.changes += 1

    async def names(self, scope: Any = SCOPE, **options: Any) -> list[str]:
        return [name for name, _ in (await self.server.fetch(scope, "tools", **options)).items]

    async def sweep(self) -> None:
        await asyncio.gather(*self.server.sweep())


@asynccontextmanager
async def rig(url: str, **settings: Any) -> AsyncIterator[Rig]:
    one = Rig(url, **settings)
    try:
        yield one
    finally:
        await one.server.close()


def url_of(server: Scripted) -> str:
    return f"http://127.0.0.1:{server.port}/mcp"


# --- opened once


def test_many_callers_at_once_open_one_channel() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="legacy") as server, rig(server.url) as one:
            channels = await asyncio.gather(*(one.server.open(SCOPE) for _ in range(20)))
            assert len({id(channel) for channel in channels}) == 1
            assert len(server.requests("initialize")) == 1
            assert one.server.ready(SCOPE) is channels[0]

    run(main)


def test_each_scope_has_a_channel_of_its_own() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="legacy") as server, rig(server.url) as one:
            first, second = await one.server.open(("a",)), await one.server.open(("b",))
            assert first is not second
            assert first.dialect.session_id != second.dialect.session_id
            assert len(server.requests("server/discover")) == 1, "the era is known by then"

    run(main)


def test_a_caller_that_gives_up_does_not_stop_the_opening() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="legacy") as server, rig(server.url) as one:
            first = asyncio.ensure_future(one.server.open(SCOPE))
            second = asyncio.ensure_future(one.server.open(SCOPE))
            await asyncio.sleep(0)
            first.cancel()
            assert (await second).alive
            assert len(server.requests("initialize")) == 1

    run(main)


def test_channels_are_bounded_and_an_idle_one_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CHANNELS", 2)

    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="legacy") as server, rig(server.url) as one:
            first, second = await one.server.open(("a",)), await one.server.open(("b",))
            first.open_calls = second.open_calls = 1
            with pytest.raises(Overloaded):
                await one.server.open(("c",))
            first.open_calls = 0
            await one.server.open(("c",))
            assert set(one.server.channels) == {("b",), ("c",)}

    run(main)


def test_idle_channels_are_closed_and_busy_ones_are_not() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="legacy") as server, rig(server.url) as one:
            idle, busy = await one.server.open(("a",)), await one.server.open(("b",))
            busy.open_calls = 1
            one.clock.advance(SESSION_IDLE_S - 1)
            await one.sweep()
            assert idle.alive
            one.clock.advance(2)
            await one.sweep()
            assert one.server.ready(("a",)) is None
            assert one.server.ready(("b",)) is busy
            assert idle.dialect.session_id not in server.sessions, "the server is told"

    run(main)


def test_a_closed_server_opens_no_more() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="legacy") as server, rig(server.url) as one:
            await one.server.open(SCOPE)
            await one.server.close()
            assert not server.sessions
            with pytest.raises(UpstreamUnavailable, match="gone"):
                await one.server.open(SCOPE)

    run(main)


def test_closing_ends_an_opening_under_way() -> None:
    async def main() -> None:
        async with Scripted((HOLD,)) as server, rig(url_of(server)) as one:
            opening = asyncio.ensure_future(one.server.open(SCOPE))
            await until(lambda: server.requests)
            await one.server.close()
            with pytest.raises(UpstreamUnavailable):
                await opening
            await until(lambda: server.gone == 1)

    run(main)


# --- health


def test_a_server_that_fails_is_left_alone_and_tried_again() -> None:
    async def main() -> None:
        async with Scripted((CLOSE,)) as server, rig(url_of(server)) as one:
            for _ in range(IN_A_ROW):
                with pytest.raises(UpstreamUnavailable):
                    await one.server.open(SCOPE)
            asked = len(server.requests)
            with pytest.raises(UpstreamUnavailable) as caught:
                await one.server.open(SCOPE)
            assert len(server.requests) == asked, "nobody asks while the breaker is open"
            assert (caught.value.data or {})["retryAfterSeconds"] >= 1
            assert not caught.value.sent
            assert one.server.last_error is not None
            one.clock.advance(60)
            server.scripts = ((answer(rpc(1, result={"supportedVersions": ["2026-07-28"], "capabilities": {}})),),)
            assert (await one.server.open(SCOPE)).alive
            assert one.server.breaker.state == "closed"

    run(main)


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    async def main() -> None:
        async with Scripted((HOLD,)) as server, rig(url_of(server), list_timeout_s=0.05) as one:
            with pytest.raises(UpstreamTimeout):
                await one.names()
            with pytest.raises(UpstreamTimeout):
                await one.server.open(SCOPE)
            assert one.server.breaker.failing
            await until(lambda: server.gone == len(server.requests))

    run(main)


# --- lists


def test_many_callers_at_once_fetch_one_list() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, rig(server.url) as one:
            lists = await asyncio.gather(*(one.names() for _ in range(20)))
            assert lists == [list("abcde")] * 20
            assert len(server.requests("tools/list")) == 1
            assert one.changes == 1

    run(main)


@pytest.mark.parametrize("page", [0, 1, 2, 5])
def test_all_pages_are_read(page: int) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, page=page) as server, rig(server.url) as one:
            assert await one.names() == list("abcde")

    run(main)


def test_endless_pages_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MOST_PAGES", 7)

    class Endless(FakeServer):
        def _page(self, member: str, params: dict[str, Any]) -> dict[str, Any]:
            return {member: [{"name": f"t{params.get('cursor', '')}"}], "nextCursor": params.get("cursor", "") + "x"}

    async def main() -> None:
        async with Endless(tools=TOOLS) as server, rig(server.url) as one:
            assert len(await one.names()) == 7

    run(main)


def test_items_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MOST_ITEMS", 3)

    async def main() -> None:
        async with FakeServer(tools=TOOLS, page=2) as server, rig(server.url) as one:
            assert await one.names() == list("abc")

    run(main)


def test_a_list_is_asked_for_again_when_it_is_old() -> None:
    async def main() -> None:
        async with FakeServer(tools=list(TOOLS), eras="legacy") as server, rig(server.url, list_ttl_s=60) as one:
            await one.names()
            one.clock.advance(59)
            await one.names()
            assert len(server.requests("tools/list")) == 1
            one.clock.advance(2)
            server.tools.pop()
            assert await one.names() == list("abcd")
            assert one.changes == 2

    run(main)


def test_a_servers_own_time_to_live_counts_where_it_is_shorter() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, rig(server.url, list_ttl_s=60) as one:  # modern: ttlMs 0
            await one.names()
            one.clock.advance(RECHECK_S / 2)
            await one.names()
            assert len(server.requests("tools/list")) == 1, "but never more often than this"
            one.clock.advance(RECHECK_S)
            await one.names()
            assert len(server.requests("tools/list")) == 2
            assert one.changes == 1, "the same list is no change"

    run(main)


def test_who_misses_a_name_has_the_list_checked_now_and_then() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="legacy") as server, rig(server.url) as one:
            for _ in range(5):
                await one.names(recheck=True)
            assert len(server.requests("tools/list")) == 1
            one.clock.advance(RECHECK_S * 1.5)
            for _ in range(5):
                await one.names(recheck=True)
            assert len(server.requests("tools/list")) == 2

    run(main)


def test_a_lost_session_is_opened_anew_for_a_list() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="legacy") as server, rig(server.url) as one:
            await one.names()
            server.forget_sessions()
            one.clock.advance(100)
            assert await one.names() == list("abcde")
            assert len(server.requests("initialize")) == 2
            assert not one.server.breaker.failing

    run(main)


def test_what_a_server_does_not_have_is_an_empty_list_and_not_asked_for() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, rig(server.url) as one:
            assert (await one.server.fetch(SCOPE, "prompts")).items == ()
            assert not server.requests("prompts/list")

    run(main)


@pytest.mark.parametrize(
    "result",
    [
        pytest.param([], id="no object"),
        pytest.param({"tools": {}}, id="no list"),
    ],
)
def test_a_malformed_list_is_the_servers_failure(result: Any) -> None:
    async def main() -> None:
        opened = rpc(1, result={"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}})
        async with Scripted((answer(opened),), (answer(rpc(2, result=result)),)) as server, rig(url_of(server)) as one:
            with pytest.raises(UpstreamUnavailable):
                await one.names()

    run(main)


def test_a_list_of_another_request_is_refused() -> None:
    async def main() -> None:
        opened = rpc(1, result={"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}})
        forged = rpc(77, result={"tools": [{"name": "forged"}]})
        async with Scripted((answer(opened),), (answer(forged),)) as server, rig(url_of(server)) as one:
            with pytest.raises(UpstreamUnavailable, match="another request"):
                await one.names()

    run(main)


def test_an_error_that_names_no_request_is_the_answer_to_ours() -> None:
    async def main() -> None:
        opened = rpc(1, result={"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}})
        error = b'{"jsonrpc":"2.0","error":{"code":-32603,"message":"no"}}'
        async with Scripted((answer(opened),), (answer(error, "400 X"),)) as server, rig(url_of(server)) as one:
            with pytest.raises(UpstreamUnavailable, match="cannot list"):
                await one.names()

    run(main)


def test_an_item_without_a_usable_name_is_left_out() -> None:
    async def main() -> None:
        tools: list[Any] = [{"name": 7}, {"name": ""}, {}, {"name": "a"}, {"name": "a"}, "x", {"name": "b"}]
        async with FakeServer(tools=tools) as server, rig(server.url) as one:
            assert await one.names() == ["a", "b"]
            items = (await one.server.fetch(SCOPE, "tools")).items
            assert items[0][1] == Raw(b'{"name": "a"}')

    run(main)
