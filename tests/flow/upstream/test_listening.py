"""One server, heard for those who share a channel: asked for what is wanted, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from narthex.flow.codec.subscriptions import Elicited, ListKind, Wanted
from narthex.flow.upstream import links, listening, lists
from narthex.flow.upstream import server as server_module
from narthex.flow.upstream.links import NOTHING
from narthex.flow.upstream.lists import CHANGES_S, RECHECK_S
from narthex.flow.upstream.server import SESSION_IDLE_S
from narthex.testing import FakeServer
from narthex.types import HttpTarget, ServerSpec
from tests.counterparts.ports import Port
from tests.flow.gateway import run, until
from tests.flow.upstream.telling import ACK, Stream, Telling
from tests.flow.upstream.test_era import LEGACY_S
from tests.flow.upstream.test_opening import SCOPE, SESSION, TOOLS, Rig
from tests.flow.upstream.test_sse import Scripted as OldServer
from tests.flow.upstream.test_stdio import DISCOVERED
from tests.flow.upstream.test_stdio import spec as stdio_spec

KINDS: frozenset[ListKind] = frozenset({"tools", "resources"})
ALL = Wanted(KINDS, frozenset({"file:///a", "file:///b"}), frozenset({"t1"}))
UPDATED = "notifications/resources/updated"
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are real, and short; that they double and are spread is asked of the arithmetic alone."""
    monkeypatch.setattr(listening, "FIRST_S", 0.004)
    monkeypatch.setattr(listening, "LONGEST_S", 0.1)


class Hearer:
    """Everything that was told, in order."""

    def __init__(self) -> None:
        self.lists: list[str] = []
        self.uris: list[str] = []
        self.tasks: list[tuple[str, Any]] = []
        self.logs: list[bytes] = []
        self.progress: list[int] = []
        self.opened: list[Hashable] = []

    def on_stale(self, server: str, kind: ListKind, uri: str = "") -> None: ...

    def on_list_changed(self, server: str, kind: ListKind) -> None:
        self.lists.append(kind)

    def on_updated(self, server: str, scope: Hashable, uri: str) -> None:
        assert (server, scope) in (("one", SCOPE), ("one", SESSION), ("old", SCOPE), ("scripted", SCOPE))
        self.uris.append(uri)

    def on_task(self, server: str, scope: Hashable, task_id: str, params: bytes | None) -> None:
        self.tasks.append((task_id, json.loads(params)["status"] if params else None))

    def on_elicited(self, server: str, scope: Hashable, what: Elicited) -> None:
        raise AssertionError("nobody was asked")

    def on_progress(self, server: str, scope: Hashable, token: int, params: bytes) -> None:
        self.progress.append(token)

    def on_log(self, server: str, scope: Hashable, params: bytes) -> None:
        self.logs.append(params)

    def on_opened(self, server: str, scope: Hashable, channel: Any) -> None:
        self.opened.append(scope)

    def clear(self) -> None:
        for one in (self.lists, self.uris, self.tasks):
            one.clear()


class Ears(Rig):
    def __init__(self, target: Any, **options: Any) -> None:
        self.hearer = Hearer()
        super().__init__(target, hears=self.hearer, **options)
        self.scope: Any = SCOPE

    def want(self, wanted: Wanted) -> Any:
        return self.server.listen(self.scope, wanted)

    async def listen(self, wanted: Wanted) -> Wanted:
        agreed: Wanted = await self.want(wanted).settled()
        return agreed


@asynccontextmanager
async def ears(target: Any, **options: Any) -> AsyncIterator[Ears]:
    one = Ears(target, **options)
    try:
        yield one
    finally:
        await one.server.close()
        assert one.server.listenings == {}


def uris(*names: str) -> Wanted:
    return Wanted(uris=frozenset(names))


# --- asked for and heard


@ERAS
def test_what_is_wanted_is_asked_for_and_heard(era: str) -> None:
    async def main() -> None:
        async with Telling(era) as server, ears(server.url) as one:
            assert await one.listen(ALL) == ALL
            assert sorted(one.hearer.lists) == ["resources", "tools"], "nobody listened between the last list and now"
            one.hearer.clear()
            one.clock.advance(RECHECK_S)
            for name in ("tools", "prompts", "resources"):
                server.tell(f"notifications/{name}/list_changed")
            server.tell(UPDATED, uri="file:///b")
            server.tell(UPDATED, uri="file:///b#part")
            server.tell(UPDATED, uri=7)
            server.tell("notifications/tasks" if era == "modern" else "notifications/tasks/status",
                        taskId="t1", status="completed")  # fmt: skip
            await until(lambda: one.hearer.tasks)
            assert one.hearer.uris == ["file:///b", "file:///b#part"]
            assert one.hearer.tasks == [("t1", "completed")]
            assert {"tools", "resources"} <= set(one.hearer.lists)

    run(main)


def test_a_modern_server_is_asked_in_its_dialect() -> None:
    async def main() -> None:
        async with Telling("modern") as server, ears(server.url) as one:
            await one.listen(ALL)
            (params,) = server.params("subscriptions/listen")
            assert params["notifications"]["resourceSubscriptions"] == ["file:///a", "file:///b"]
            meta = params["_meta"]
            assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
            declared = meta["io.modelcontextprotocol/clientCapabilities"]
            assert declared == {"extensions": {"io.modelcontextprotocol/tasks": {}}}, "who asks for tasks must say so"
            assert server.heads[-1]["mcp-method"] == "subscriptions/listen"

    run(main)


@ERAS
def test_another_wish_is_met_without_a_gap(era: str) -> None:
    async def main() -> None:
        async with Telling(era) as server, ears(server.url) as one:
            await one.listen(uris("a", "b"))
            first = server.streams[0]
            assert await one.listen(uris("b", "c")) == uris("b", "c")
            if era == "modern":
                await first.gone.wait()
                assert server.count("subscriptions/listen") == 2
                assert server.streams[0].filter == {"resourceSubscriptions": ["b", "c"]}
            else:
                assert server.subscribed == {"b", "c"}
                assert server.count("GET") == 1
                assert server.count("resources/subscribe") == 3
            assert one.hearer.uris == [], "nothing was missed"

    run(main)


@ERAS
def test_who_wants_nothing_more_is_forgotten(era: str) -> None:
    async def main() -> None:
        async with Telling(era) as server, ears(server.url) as one:
            await one.listen(ALL)
            channel = one.server.ready(SCOPE)
            assert channel is not None
            assert channel.open_calls == 1, "no channel is idle while somebody listens"
            await one.sweep(SESSION_IDLE_S + 1)
            assert channel.alive
            one.want(NOTHING)
            await until(lambda: not server.streams and not one.server.listenings)
            assert server.subscribed == set()
            assert channel.open_calls == 0
            assert await one.listen(NOTHING) == NOTHING
            assert one.server.listenings == {}

    run(main)


@ERAS
def test_who_changes_his_mind_while_it_ends_is_heard(era: str) -> None:
    async def main() -> None:
        async with Telling(era) as server, ears(server.url) as one:
            await one.listen(uris("a"))
            one.want(NOTHING)
            await asyncio.sleep(0)
            assert await one.listen(uris("b")) == uris("b")
            await until(lambda: len(server.streams) == 1)
            server.tell(UPDATED, uri="b")
            await until(lambda: one.hearer.uris)
            assert one.hearer.uris == ["b"]

    run(main)


@ERAS
def test_a_flood_of_changes_is_told_once_and_once_more(era: str) -> None:
    async def main() -> None:
        async with Telling(era) as server, ears(server.url) as one:
            await one.listen(Wanted(kinds=frozenset({"tools"}), uris=frozenset({"a"})))
            one.clock.advance(RECHECK_S)
            one.hearer.clear()
            for _ in range(300):
                server.tell("notifications/tools/list_changed")
            server.tell(UPDATED, uri="a")
            await until(lambda: one.hearer.uris)
            assert one.hearer.lists == ["tools"], "at once"
            await until(lambda: len(one.hearer.lists) == 2)
            assert not one.server._to_tell, "for all the others together, and no sweep had to come for it"
            server.tell(UPDATED, uri="b")
            one.clock.advance(RECHECK_S)
            server.tell("notifications/tools/list_changed")
            await until(lambda: len(one.hearer.lists) == 3)

    run(main)


def test_a_list_is_stale_at_once_however_often_it_changes() -> None:
    async def main() -> None:
        async with (
            FakeServer(tools=list(TOOLS), eras="legacy") as server,
            ears(server.url, settings={"list_ttl_s": 60}) as one,
        ):
            await one.names()
            for gone in range(1, 4):
                server.tools.pop()
                one.server.list_changed("tools")
                assert len(await one.names()) == len(TOOLS) - gone
            assert len(server.requests("tools/list")) == 4

    run(main)


def test_a_server_that_changes_all_the_time_is_asked_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    slept = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await slept(0)

    async def main() -> None:
        async with (
            FakeServer(tools=list(TOOLS), eras="legacy") as server,
            ears(server.url, settings={"list_ttl_s": 60}) as one,
        ):
            await one.names()
            monkeypatch.setattr(lists.asyncio, "sleep", sleep)
            for _ in range(3):
                one.server.list_changed("tools")
                await asyncio.gather(*(one.names() for _ in range(5)))
            monkeypatch.setattr(lists.asyncio, "sleep", slept)
            assert waits == [CHANGES_S] * 3, "one asking for all who wait, and not before its time"
            one.clock.advance(CHANGES_S)
            one.server.list_changed("tools")
            await one.names()
            assert len(server.requests("tools/list")) == 5
            assert len(waits) == 3, "at once where the last is long ago"

    run(main)


@ERAS
def test_a_list_that_changes_while_it_is_fetched_is_fetched_again(era: str) -> None:
    async def main() -> None:
        async with Telling(era, answers={"tools/list": {"tools": TOOLS}}) as server, ears(server.url) as one:
            await one.listen(Wanted(kinds=frozenset({"tools"})))
            one.clock.advance(RECHECK_S)
            plain = server.legacy

            async def late(writer: Any, message: Any) -> None:
                server.tell("notifications/tools/list_changed")
                await until(lambda: one.hearer.lists)
                await plain(writer, message)

            one.hearer.clear()
            server.legacy = late  # type: ignore[method-assign]
            await one.names()
            server.legacy = plain  # type: ignore[method-assign]
            await one.names()
            assert server.count("tools/list") == 2
            await one.names()
            assert server.count("tools/list") == 2

    run(main)


# --- servers that give less


def test_a_modern_server_may_agree_to_less() -> None:
    def less(stream: Stream) -> None:
        stream.send({"method": ACK, "params": {"notifications": {"toolsListChanged": True, "taskIds": ["other"]}}})
        stream.send({"method": "notifications/resources/list_changed"})

    async def main() -> None:
        async with Telling("modern", acknowledge=less) as server, ears(server.url) as one:
            assert await one.listen(ALL) == Wanted(kinds=frozenset({"tools"}))
            assert server.count("subscriptions/listen") == 1

    run(main)


@pytest.mark.parametrize(
    ("capabilities", "agreed"),
    [
        pytest.param({}, NOTHING, id="nothing"),
        pytest.param({"tools": {}, "resources": {"subscribe": False}}, NOTHING, id="lists, and tells nothing"),
        pytest.param({"tools": {"listChanged": True}}, Wanted(kinds=frozenset({"tools"})), id="tools"),
        pytest.param({"resources": {"subscribe": True}}, uris("file:///a", "file:///b"), id="resources"),
        pytest.param({"tools": [], "resources": "all", "prompts": None}, NOTHING, id="without sense"),
    ],
)
def test_a_legacy_server_is_believed_what_it_offers(capabilities: Any, agreed: Wanted) -> None:
    async def main() -> None:
        async with Telling(capabilities=capabilities) as server, ears(server.url) as one:
            assert await one.listen(ALL) == agreed

    run(main)


@pytest.mark.parametrize("status", [405, 404, 400, 501])
def test_a_legacy_server_without_a_stream_is_asked_once_and_for_nothing(status: int) -> None:
    class None_(Telling):
        async def get(self, reader: Any, writer: Any, headers: Any) -> None:
            self.reply(writer, status)

    async def main() -> None:
        async with None_() as server, ears(server.url) as one:
            if status == 404:  # of a session: that it is lost
                one.want(ALL)
                await until(lambda: server.count("initialize") >= 3)
                return
            if status == 501:
                one.want(ALL)
                await until(lambda: server.count("GET") >= 3)
                assert server.count("initialize") == 1
                return
            assert await one.listen(ALL) == NOTHING
            await one.listen(uris("x"))
            assert server.count("GET") == 1
            assert not server.subscribed

    run(main)


@ERAS
def test_one_resource_that_is_refused_costs_no_other(era: str) -> None:
    async def main() -> None:
        async with Telling(era, refuses={"bad:1"}) as server, ears(server.url) as one:
            await one.listen(uris("a"))
            assert await one.listen(uris("a", "bad:1")) == uris("a")
            assert await one.listen(uris("a", "bad:1", "c")) == uris("a", "c")
            server.tell(UPDATED, uri="c")
            await until(lambda: one.hearer.uris)
            server.refuses.clear()
            await one.listen(uris("a"))
            assert await one.listen(uris("a", "bad:1")) == uris("a", "bad:1"), "asked again once nobody had wanted it"

    run(main)


def test_a_modern_server_that_refuses_every_subscription_is_left_alone() -> None:
    async def main() -> None:
        everything = {"toolsListChanged", "resourcesListChanged", "resourceSubscriptions", "taskIds"}
        async with Telling("modern", refuses=everything) as server, ears(server.url) as one:
            assert await one.listen(ALL) == NOTHING
            assert server.count("subscriptions/listen") == 2, "once without single resources and tasks"
            await asyncio.sleep(0.05)
            assert server.count("subscriptions/listen") == 2

    run(main)


# --- faults


def silent(stream: Stream) -> None:
    """Never acknowledges."""


def too_early(stream: Stream) -> None:
    stream.send({"method": UPDATED, "params": {"uri": "a"}})


def nonsense(stream: Stream) -> None:
    stream.send({"method": ACK, "params": {"notifications": ["a"]}})


def garbage(stream: Stream) -> None:
    stream.event("{not json")


def ends(stream: Stream) -> None:
    stream.close()


def ends_politely(stream: Stream) -> None:
    stream.send({"id": stream.id, "result": {"resultType": "complete"}})


@pytest.mark.parametrize("misdeed", [silent, too_early, nonsense, garbage, ends, ends_politely])
def test_a_modern_server_that_does_not_acknowledge_is_asked_again(
    misdeed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "ACKNOWLEDGED_S", 0.03)

    async def main() -> None:
        async with Telling("modern", acknowledge=misdeed) as server, ears(server.url) as one:
            assert await one.listen(uris("a")) == NOTHING
            await until(lambda: server.count("subscriptions/listen") >= 3)
            assert len(server.streams) <= 1, "nobody waits on a stream that was given up"
            del server.acknowledge
            await until(lambda: one.server.listenings[SCOPE].agreed == uris("a"))
            assert one.hearer.uris == []

    run(main)


@ERAS
@pytest.mark.parametrize("how", ["cut", "garbage", "politely"])
def test_after_a_loss_everything_counts_as_changed(era: str, how: str) -> None:
    async def main() -> None:
        async with Telling(era) as server, ears(server.url) as one:
            await one.listen(ALL)
            for _ in range(3):
                await until(lambda: server.streams and one.server.listenings[SCOPE].agreed == ALL)
                one.hearer.clear()
                one.clock.advance(RECHECK_S)
                stream = server.streams[0]
                if how == "cut":
                    stream.close()
                elif how == "garbage":
                    stream.event("x" * 70_000 if era == "legacy" else "{")
                elif era == "modern":
                    stream.send({"id": stream.id, "result": {"resultType": "complete"}})
                else:
                    stream.close()
                await until(lambda: one.hearer.tasks)
                assert sorted(one.hearer.lists) == sorted(KINDS)
                assert sorted(one.hearer.uris) == sorted(ALL.uris)
                assert one.hearer.tasks == [("t1", None)], "its state is to be asked for"

    run(main)


def test_what_a_server_replays_was_not_missed() -> None:
    async def main() -> None:
        async with Telling() as server, ears(server.url) as one:
            await one.listen(ALL)
            one.hearer.clear()
            server.streams[0].event("", id_="e-41", lines="retry: 10\n")
            server.streams[0].send({"method": UPDATED, "params": {"uri": "file:///a"}}, id_="e-42")
            await until(lambda: one.hearer.uris)
            server.streams[0].close()
            await until(lambda: server.seen == 2)
            assert server.streams[0].headers["last-event-id"] == "e-42"
            server.tell(UPDATED, uri="file:///b")
            await until(lambda: len(one.hearer.uris) == 2)
            assert one.hearer.uris == ["file:///a", "file:///b"]
            assert one.hearer.lists == []
            assert server.count("resources/subscribe") == 2

    run(main)


@ERAS
def test_a_server_that_starts_anew_is_asked_anew(era: str) -> None:
    async def main() -> None:
        port = Port()
        async with Telling(era, port=port.number) as first:
            one = Ears(first.url)
            await one.listen(ALL)
        one.hearer.clear()
        async with Telling(era, port=port.number) as second:
            try:
                while not second.streams:
                    one.clock.advance(40)  # the breaker is open for a while
                    await one.sweep()
                    await asyncio.sleep(0.01)
                await until(lambda: one.hearer.tasks)
                assert sorted(one.hearer.uris) == sorted(ALL.uris)
                if era == "legacy":
                    assert second.subscribed == ALL.uris
            finally:
                await one.server.close()

    run(main)


def test_a_session_that_is_lost_is_opened_and_subscribed_anew() -> None:
    async def main() -> None:
        async with Telling() as server, ears(server.url) as one:
            await one.listen(uris("a"))
            server.sessions.clear()
            server.subscribed.clear()
            server.cut()
            await until(lambda: one.hearer.uris)
            assert server.subscribed == {"a"}
            assert server.count("initialize") == 2

    run(main)


def test_a_session_that_another_call_opened_anew_is_subscribed_anew() -> None:
    async def main() -> None:
        async with Telling(answers={"tools/list": {"tools": TOOLS}}) as server, ears(server.url) as one:
            await one.listen(uris("a"))
            server.sessions.clear()
            server.subscribed.clear()
            assert await one.names() == list("abc")
            await until(lambda: server.subscribed == {"a"} and one.hearer.uris)
            assert one.hearer.uris == ["a"]
            channel = one.server.ready(SCOPE)
            assert channel is not None
            await until(lambda: len(server.streams) == 1)
            assert server.streams[0].headers["mcp-session-id"] == channel.dialect.session_id

    run(main)


def test_a_server_that_has_become_modern_is_listened_to_in_its_new_era() -> None:
    async def main() -> None:
        async with Telling() as server, ears(server.url) as one:
            await one.listen(ALL)
            one.hearer.clear()
            server.era = "modern"
            one.clock.advance(LEGACY_S)
            await one.sweep()
            await until(lambda: server.count("subscriptions/listen") == 1 and one.hearer.tasks)
            await until(lambda: len(server.streams) == 1)
            assert sorted(one.hearer.uris) == sorted(ALL.uris)

    run(main)


def test_a_server_that_has_become_a_legacy_one_is_listened_to_in_its_new_era() -> None:
    async def main() -> None:
        async with Telling("modern") as server, ears(server.url) as one:
            await one.listen(ALL)
            one.hearer.clear()
            server.era = "legacy"
            server.cut()
            while not server.subscribed:
                await one.sweep(2)
                await asyncio.sleep(0.005)
            await until(lambda: one.hearer.tasks)
            assert one.spoken == "legacy"
            assert server.subscribed == ALL.uris
            assert sorted(one.hearer.uris) == sorted(ALL.uris)

    run(main)


@ERAS
def test_a_server_that_always_hangs_up_is_called_up_less_and_less(era: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class HangsUp(Telling):
        async def get(self, reader: Any, writer: Any, headers: Any) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            raise ConnectionError

    waits: list[float] = []
    back_off = listening.Listening._back_off

    def kept(self: listening.Listening, *, served: bool) -> float:
        waits.append(back_off(self, served=served))
        return waits[-1]

    monkeypatch.setattr(listening.Listening, "_back_off", kept)

    async def main() -> None:
        async with HangsUp(era, acknowledge=ends) as server, ears(server.url) as one:
            one.want(uris("a"))
            await until(lambda: len(waits) >= 6)
            assert waits[:6] == [0.5 * span for span in (0.004, 0.008, 0.016, 0.032, 0.064, 0.1)]
            assert server.count("GET") + server.count("subscriptions/listen") <= len(waits) + 1

    run(main)


@ERAS
@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_who_is_refused_tries_again_and_later(era: str, status: int) -> None:
    class Refusing(Telling):
        async def get(self, reader: Any, writer: Any, headers: Any) -> None:
            self.reply(writer, status)

        async def listen(self, reader: Any, writer: Any, headers: Any, message: Any) -> None:
            self.reply(writer, status)

    async def main() -> None:
        async with Refusing(era) as server, ears(server.url) as one:
            assert await one.listen(uris("a")) == NOTHING
            await until(lambda: server.count("GET") + server.count("subscriptions/listen") >= 3)
            assert one.spoken == era
            assert server.count("initialize") + server.count("server/discover") <= 2

    run(main)


def test_the_channel_of_who_listens_is_given_back_when_the_server_is_closed() -> None:
    async def main() -> None:
        async with Telling() as server:
            one = Ears(server.url)
            await one.listen(ALL)
            channel = one.server.ready(SCOPE)
            assert channel is not None
            await one.server.close()
            assert channel.open_calls == 0
            await until(lambda: not server.streams)
            assert not server.sessions
            assert await one.listen(ALL) == NOTHING, "nothing is heard of a server that is gone"
            assert one.server.listenings == {}

    run(main)


# --- how long it waits


def test_waits_double_and_are_spread_and_end_with_what_was_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "FIRST_S", 1.0)
    monkeypatch.setattr(listening, "LONGEST_S", 60.0)
    one = Ears("http://127.0.0.1:1/mcp")
    one.server.chance = lambda: 0.25
    ear = listening.Listening(one.server, SCOPE)
    waits = [ear._back_off(served=False) for _ in range(9)]
    assert waits == [0.75 * span for span in (1, 2, 4, 8, 16, 32, 60, 60, 60)]
    assert ear._back_off(served=True) == 0.75
    assert ear._back_off(served=False) == 1.5
    ear._opened_at = one.clock()
    one.clock.advance(listening.STEADY_S)
    assert ear._back_off(served=False) == 0.75


def test_who_finds_no_room_is_heard_when_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MOST_CHANNELS", 1)

    async def main() -> None:
        async with Telling() as server, ears(server.url) as one:
            await one.server.listen(("other",), uris("b")).settled()
            assert await one.listen(uris("a")) == NOTHING, "a channel that is listened on makes no room"
            one.server.listen(("other",), NOTHING)
            await until(lambda: server.subscribed == {"a"})

    run(main)


def test_what_is_asked_for_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MOST_NAMED", 20)

    async def main() -> None:
        async with Telling() as server, ears(server.url) as one:
            agreed = await one.listen(Wanted(uris=frozenset(f"x:{n:03}" for n in range(100))))
            assert agreed.uris == server.subscribed == {f"x:{n:03}" for n in range(20)}

    run(main)


# --- what it says outside of calls


def test_what_is_logged_outside_of_calls_is_heard() -> None:
    async def main() -> None:
        async with Telling() as server, ears(server.url) as one:
            await one.listen(ALL)
            assert len(one.hearer.opened) == 1
            server.tell("notifications/message", level="info", data="x")
            server.streams[0].send({"method": "notifications/message", "params": [1]})
            server.streams[0].send({"method": "notifications/message"})
            server.streams[0].send({"id": 9, "result": {}})
            server.tell("notifications/elicitation/complete", elicitationId="e")
            server.tell("notifications/message", level="error", data="y")
            await until(lambda: len(one.hearer.logs) == 2)
            assert [json.loads(params)["data"] for params in one.hearer.logs] == ["x", "y"]

    run(main)


@pytest.mark.parametrize("sharing", ["tenant", "principal"])
def test_a_log_message_is_nobodys_where_several_principals_share_the_channel(sharing: Any) -> None:
    async def main() -> None:
        async with Telling() as server, ears(server.url, settings={"sharing": sharing}) as one:
            one.server.used_by(SCOPE, "one")
            one.server.used_by(SCOPE, "one")
            await one.listen(ALL)
            server.tell("notifications/message", level="info", data="x")
            await until(lambda: one.hearer.logs)
            one.server.used_by(SCOPE, "another")
            one.server.used_by(SCOPE, "one")
            server.tell("notifications/message", level="info", data="y")
            server.tell(UPDATED, uri="file:///a")
            await until(lambda: one.hearer.uris)
            assert len(one.hearer.logs) == (1 if sharing == "tenant" else 2), "else the scope is one principal's"

    run(main)


# --- pipes


def test_a_modern_pipe_carries_several_subscriptions(tmp_path: Any) -> None:
    script = f"""
import os
while True:
    message = read()
    if message["method"] == "server/discover":
        send(id=message["id"], result={DISCOVERED.replace("true", "True")})
    elif message["method"] == "subscriptions/listen":
        asked, stamp = message["params"]["notifications"], {{"io.modelcontextprotocol/subscriptionId": message["id"]}}
        send(method="{ACK}", params={{"notifications": asked, "_meta": stamp}})
        for uri in asked.get("resourceSubscriptions", ()):
            send(method="{UPDATED}", params={{"uri": uri, "_meta": stamp}})
        if "end" in asked.get("resourceSubscriptions", ()):
            send(method="notifications/cancelled", params={{"requestId": message["id"]}})
        if "die" in asked.get("resourceSubscriptions", ()) and not os.path.exists("died"):
            open("died", "w").close()
            os._exit(1)
    elif message["method"] == "notifications/cancelled":
        send(method="{UPDATED}", params={{"uri": "b", "_meta": {{"io.modelcontextprotocol/subscriptionId": 999}}}})
        send(method="{UPDATED}", params={{"uri": "b"}})
"""

    async def main(folder: str) -> None:
        async with ears(stdio_spec(script, sharing="tenant", cwd=folder)) as one:
            assert await one.listen(uris("a")) == uris("a")
            await until(lambda: one.hearer.uris == ["a"])
            assert await one.listen(uris("a", "b")) == uris("a", "b")
            await until(lambda: one.hearer.uris == ["a", "a", "b", "b"])
            one.hearer.clear()
            one.want(uris("end"))
            await until(lambda: one.hearer.uris.count("end") >= 4)
            one.hearer.clear()
            one.want(uris("die"))
            await until(lambda: one.hearer.uris.count("die") >= 2)
            assert one.server.ready(SCOPE) is not None

    run(lambda: main(str(tmp_path)))


def test_a_legacy_process_that_dies_is_started_and_subscribed_anew() -> None:
    script = f"""
offers, info = {{"resources": {{"subscribe": True}}}}, {{"name": "scripted", "version": "1"}}
while True:
    message = read()
    if message["method"] == "initialize":
        result = {{"protocolVersion": "2025-11-25", "capabilities": offers, "serverInfo": info}}
        send(id=message["id"], result=result)
    elif message["method"] == "resources/subscribe":
        send(id=message["id"], result={{}})
        send(method="{UPDATED}", params={{"uri": message["params"]["uri"]}})
    elif "id" in message:
        fail(message)
"""

    async def main() -> None:
        async with ears(stdio_spec(script, sharing="tenant")) as one:
            assert await one.listen(uris("a")) == uris("a")
            await until(lambda: one.hearer.uris == ["a"])
            channel: Any = one.server.ready(SCOPE)
            os.kill(channel.pid, signal.SIGKILL)
            await until(lambda: not channel.alive)
            await one.sweep()
            await until(lambda: one.hearer.uris == ["a", "a", "a"])  # told by the process, and counted as changed

    run(main)


def test_the_old_transport_tells_on_its_stream() -> None:
    async def main() -> None:
        async with OldServer() as server:

            async def call(message: Any) -> None:
                server.send(id=message["id"], result={})
                server.send(method=UPDATED, params={"uri": message["params"]["uri"]})
                server.send(method="notifications/tools/list_changed")

            async def take(message: Any) -> None:
                if message.get("method") == "initialize":
                    offers = {"resources": {"subscribe": True}, "tools": {"listChanged": True}}
                    info = {"protocolVersion": "2024-11-05", "capabilities": offers, "serverInfo": {"name": "old"}}
                    server.send(id=message["id"], result=info)
                elif "id" in message:
                    await call(message)

            server.take = take  # type: ignore[method-assign]
            target = HttpTarget(f"http://127.0.0.1:{server.port}/sse", "http", "127.0.0.1", server.port, "/sse")
            async with ears(ServerSpec("old", target, "sse")) as one:
                wanted = Wanted(frozenset({"tools"}), frozenset({"a"}))
                assert await one.listen(wanted) == wanted
                await until(lambda: one.hearer.uris == ["a"] and one.hearer.lists)
                channel = one.server.ready(SCOPE)
                assert channel is not None
                server.streams[0].close()
                await until(lambda: not channel.alive)
                await one.sweep()
                await until(lambda: len(server.streams) == 2 and len(one.hearer.uris) == 3)

    run(main)


# --- whatever happens


LISTED: list[ListKind] = ["tools", "prompts"]

NONE: Any = st.just(frozenset())
STEPS = st.one_of(
    st.tuples(st.just("want"), st.frozensets(st.sampled_from("abc")), st.frozensets(st.sampled_from(LISTED))),
    st.tuples(st.sampled_from(["cut", "forget", "garbage", "pause"]), NONE, NONE),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(era=st.sampled_from(["legacy", "modern"]), steps=st.lists(STEPS, max_size=12), last=STEPS)
def test_in_the_end_a_server_is_asked_for_what_is_wanted_and_nothing_else(era: str, steps: Any, last: Any) -> None:
    async def main() -> None:
        async with Telling(era) as server, ears(server.url) as one:
            wanted = NOTHING
            for what, names, kinds in [*steps, last]:
                if what == "want":
                    wanted = Wanted(kinds=kinds, uris=names)
                    one.want(wanted)
                elif what == "cut":
                    server.cut()
                elif what == "forget":
                    server.sessions.clear()
                    server.subscribed.clear()
                    server.cut()
                elif what == "garbage":
                    for stream in server.streams:
                        stream.event("}" * 70_000)
                else:
                    await asyncio.sleep(0.003)
                await asyncio.sleep(0)

            def holds() -> bool:
                if wanted == NOTHING:
                    return not one.server.listenings and not server.streams and not server.subscribed & one_session()
                if len(server.streams) != 1 or one.server.listenings[SCOPE].agreed != wanted:
                    return False
                if era == "legacy":
                    return server.subscribed == wanted.uris
                asked = server.streams[0].filter
                kinds = {kind for kind in ("tools", "prompts") if asked.get(f"{kind}ListChanged")}
                return set(asked.get("resourceSubscriptions", ())) == wanted.uris and kinds == wanted.kinds

            def one_session() -> set[str]:
                return server.subscribed if one.server.ready(SCOPE) is not None else set()

            while not holds():
                await one.sweep(40)
                await asyncio.sleep(0.003)

    run(main)
