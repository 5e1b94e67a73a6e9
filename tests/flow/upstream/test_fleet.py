"""All upstreams together: what an endpoint shows of them, in which order, and what a reload keeps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from narthex.errors import UpstreamUnavailable
from narthex.flow.held import Held
from narthex.flow.upstream.fleet import MISSING_TTL_S, Fleet, Viewer
from narthex.testing import FakeClock, FakeServer
from narthex.types import LOCAL, Egress, EndpointSpec, Principal, ServerSpec, Session
from tests.flow.gateway import run, snapshot, spec, until
from tests.flow.upstream.test_http import HOLD, Scripted

SESSION = Session("s1", "2025-11-25", 10**10)
OTHER = Principal("other", "issuer", "somebody")


def tools(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "inputSchema": {}} for name in names]


class Rig:
    def __init__(self, servers: dict[str, ServerSpec], endpoints: dict[str, EndpointSpec] | None) -> None:
        self.clock = FakeClock(1000.0)
        self.snapshot = snapshot(servers, endpoints)
        self.fleet = Fleet(self.snapshot, Held(1 << 30), clock=self.clock, chance=lambda: 0.0)

    def viewer(self, endpoint: str = "default", principal: Principal = LOCAL, session: Session | None = None) -> Viewer:
        return self.fleet.viewer(self.snapshot.endpoints[endpoint], principal, session)

    async def names(self, viewer: Viewer | None = None) -> list[str]:
        view = await self.fleet.listing(viewer or self.viewer(), "tools")
        return [tool["name"] for tool in json.loads(b"{" + view.page()[0])["tools"]]

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.fleet.sweep()


@asynccontextmanager
async def rig(
    *fakes: tuple[str, FakeServer], dead: tuple[str, ...] = (), endpoints: dict[str, EndpointSpec] | None = None,
    **settings: Any,
) -> AsyncIterator[Rig]:  # fmt: skip
    async with AsyncExitStack() as stack:
        urls = {name: (await stack.enter_async_context(fake)).url for name, fake in fakes}
        for name in dead:
            async with FakeServer() as gone:
                urls[name] = gone.url
        servers = {name: spec(name, url, **settings) for name, url in urls.items()}
        one = Rig(servers, endpoints)
        stack.push_async_callback(one.fleet.close)
        yield one


# --- merging


def test_servers_stand_in_the_endpoints_order_whoever_answers_first() -> None:
    async def main() -> None:
        class Slow(FakeServer):
            async def _answer(self, asked: Any, extra: dict[str, str]) -> dict[str, Any]:
                if asked.method == "tools/list":
                    await until(lambda: second.requests("tools/list"))
                return await super()._answer(asked, extra)

        first, second = Slow(tools=tools("x", "a")), FakeServer(tools=tools("b", "a"))
        endpoints = {
            "default": EndpointSpec("default", ("z", "a")),
            "turned": EndpointSpec("turned", ("a", "z")),
        }
        async with rig(("z", first), ("a", second), endpoints=endpoints) as one:
            assert await one.names() == ["z__x", "z__a", "a__b", "a__a"]
            assert await one.names(one.viewer("turned")) == ["a__b", "a__a", "z__x", "z__a"]

    run(main)


def test_a_name_that_is_taken_hides_the_newcomer() -> None:
    async def main() -> None:
        endpoints = {"default": EndpointSpec("default", ("a", "b"), naming="none")}
        fakes = ("a", FakeServer(tools=tools("x"))), ("b", FakeServer(tools=tools("x", "y")))
        async with rig(*fakes, endpoints=endpoints) as one:
            assert await one.names() == ["x", "y"]
            target = one.fleet.find_now(one.viewer(), "tools", "x")
            assert target is not None
            assert (target.server, target.name) == ("a", "x")

    run(main)


def test_what_is_listed_is_what_is_found() -> None:
    async def main() -> None:
        async with rig(("a", FakeServer(tools=tools("x", "y")))) as one:
            viewer = one.viewer()
            assert one.fleet.find_now(viewer, "tools", "a__x") is None, "nothing is known yet"
            found = await one.fleet.find(viewer, "tools", "a__x")
            assert found is not None
            assert found.name == "x"
            assert one.fleet.find_now(viewer, "tools", "a__x") == found
            assert await one.fleet.find(viewer, "tools", "a__none") is None

    run(main)


# --- a server that is not well


def test_a_list_goes_on_without_a_dead_server_and_names_it() -> None:
    async def main() -> None:
        async with rig(("a", FakeServer(tools=tools("x"))), dead=("dead",)) as one:
            view = await one.fleet.listing(one.viewer(), "tools")
            assert list(view.index.targets) == ["a__x"]
            assert [lost.server for lost in view.index.missing] == ["dead"]

    run(main)


def test_a_list_waits_for_the_slowest_no_longer_than_its_deadline() -> None:
    async def main() -> None:
        async with Scripted((HOLD,)) as hanging, rig(("a", FakeServer(tools=tools("x")))) as one:
            servers = dict(one.snapshot.servers)
            servers["slow"] = spec("slow", f"http://127.0.0.1:{hanging.port}/mcp", list_timeout_s=0.1)
            both = snapshot(servers)
            one.snapshot = both
            one.fleet.apply(both)
            assert await one.names() == ["a__x"]

    run(main)


def test_a_server_that_comes_back_is_listed_again() -> None:
    async def main() -> None:
        fake = FakeServer(tools=tools("x"), eras="modern")
        async with rig(("a", fake), ("b", FakeServer(tools=tools("y")))) as one:
            fake.eras = "legacy"
            good, fake._initialize = fake._initialize, None  # type: ignore[method-assign,assignment]
            assert await one.names() == ["b__y"]
            fake._initialize = good  # type: ignore[method-assign]
            one.advance(MISSING_TTL_S + 0.5)
            assert await one.names() == ["a__x", "b__y"]

    run(main)


def test_a_dead_servers_tools_stay_callable_names_while_they_are_known() -> None:
    async def main() -> None:
        fake = FakeServer(tools=tools("x"), eras="legacy")
        async with rig(("a", fake)) as one:
            await one.names()
            fake._server.close()
            fake.sessions.clear()
            one.advance(100)
            assert one.fleet.find_now(one.viewer(), "tools", "a__x") is not None

    run(main)


@pytest.mark.parametrize(
    ("name", "raised"),
    [
        pytest.param("dead__x", True, id="a dead server's own name"),
        pytest.param("a__none", False, id="another server's: the dead one has nothing to do with it"),
        pytest.param("none__x", False, id="no server of this name"),
        pytest.param("x", False, id="no name of ours"),
    ],
)
def test_a_missing_name_is_blamed_on_a_dead_server_only_if_it_may_have_it(name: str, raised: bool) -> None:
    async def main() -> None:
        async with rig(("a", FakeServer(tools=tools("x"))), dead=("dead",)) as one:
            if raised:
                with pytest.raises(UpstreamUnavailable, match="dead"):
                    await one.fleet.find(one.viewer(), "tools", name)
            else:
                assert await one.fleet.find(one.viewer(), "tools", name) is None

    run(main)


def test_without_prefixes_any_dead_server_may_have_had_it() -> None:
    async def main() -> None:
        endpoints = {"default": EndpointSpec("default", ("a", "dead"), naming="none")}
        async with rig(("a", FakeServer(tools=tools("x"))), dead=("dead",), endpoints=endpoints) as one:
            with pytest.raises(UpstreamUnavailable, match="dead"):
                await one.fleet.find(one.viewer(), "tools", "y")
            assert await one.fleet.find(one.viewer(), "tools", "x") is not None

    run(main)


def test_finding_a_name_asks_only_the_server_that_may_have_it() -> None:
    async def main() -> None:
        a, b = FakeServer(tools=tools("x")), FakeServer(tools=tools("y"))
        async with rig(("a", a), ("b", b)) as one:
            assert await one.fleet.find(one.viewer(), "tools", "a__x") is not None
            assert not b.asked
            assert await one.names() == ["a__x", "b__y"], "and the next list is whole"

    run(main)


# --- freshness


def test_a_fresh_list_comes_from_memory_and_an_old_one_does_not() -> None:
    async def main() -> None:
        fake = FakeServer(tools=tools("x"), eras="legacy")
        async with rig(("a", fake)) as one:
            viewer = one.viewer()
            assert one.fleet.fresh(viewer, "tools") is None
            await one.names()
            assert one.fleet.fresh(viewer, "tools") is not None
            one.advance(61)
            assert one.fleet.fresh(viewer, "tools") is None
            assert one.fleet.find_now(viewer, "tools", "a__x") is not None, "a call does not wait for a list"
            await until(lambda: one.fleet.fresh(viewer, "tools"))

    run(main)


def test_many_callers_at_once_make_one_list() -> None:
    async def main() -> None:
        fake = FakeServer(tools=tools("x"), eras="legacy")
        async with rig(("a", fake)) as one:
            views = await asyncio.gather(*(one.fleet.listing(one.viewer(), "tools") for _ in range(10)))
            assert len({id(view) for view in views}) == 1
            assert len(fake.requests("tools/list")) == 1

    run(main)


# --- reloads


def test_a_reload_keeps_what_is_the_same_and_ends_what_is_not() -> None:
    async def main() -> None:
        a, b = FakeServer(tools=tools("x"), eras="legacy"), FakeServer(tools=tools("y"), eras="legacy")
        async with rig(("a", a), ("b", b)) as one:
            await one.names()
            kept, gone = one.fleet.servers["a"], one.fleet.servers["b"]
            new = msgspec.structs.replace(one.snapshot.servers["b"], call_timeout_s=7.0)
            one.snapshot = snapshot({"a": one.snapshot.servers["a"], "b": new})
            one.fleet.apply(one.snapshot)
            assert one.fleet.servers["a"] is kept
            assert one.fleet.servers["b"] is not gone
            await until(gone.gone)
            assert await one.names() == ["a__x", "b__y"]
            assert len(a.requests("initialize")) == 1
            assert len(b.requests("initialize")) == 2

    run(main)


def test_a_server_that_is_removed_finishes_its_calls_first() -> None:
    async def main() -> None:
        async with rig(("a", FakeServer(tools=tools("x"), eras="legacy"))) as one:
            await one.names()
            server = one.fleet.servers["a"]
            server.in_flight = 1
            one.fleet.apply(snapshot({}, {"default": EndpointSpec("default", ())}))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not server.gone()
            server.in_flight = 0
            await until(server.gone)

    run(main)


def test_another_way_out_retires_every_server() -> None:
    async def main() -> None:
        async with rig(("a", FakeServer(tools=tools("x")))) as one:
            before = one.fleet.servers["a"]
            one.fleet.apply(snapshot(one.snapshot.servers, egress=Egress(proxy=None, no_proxy=("x",))))
            assert one.fleet.servers["a"] is not before

    run(main)
