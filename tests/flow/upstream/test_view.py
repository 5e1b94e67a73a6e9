"""Merged lists over time: merged again only when an item has changed, and their pages made once."""

from __future__ import annotations

import json

from narthex.flow.upstream.fleet import MISSING_TTL_S
from narthex.testing import FakeServer
from tests.flow.gateway import run
from tests.flow.upstream.test_fleet import OTHER, rig, tools


def test_an_unchanged_list_is_not_merged_again() -> None:
    async def main() -> None:
        fake = FakeServer(tools=tools("x"), eras="legacy")
        async with rig(("a", fake), ("b", FakeServer(tools=tools("y")))) as one:
            before = await one.fleet.listing(one.viewer(), "tools")
            one.advance(61)
            same = await one.fleet.listing(one.viewer(), "tools")
            assert same is not before
            assert same.index is before.index
            assert one.fleet.fresh(one.viewer(), "tools") is same
            fake.tools = tools("x", "z")
            one.advance(61)
            changed = await one.fleet.listing(one.viewer(), "tools")
            assert list(changed.index.targets) == ["a__x", "a__z", "b__y"]
            assert changed.index.fragments.digest() != before.index.fragments.digest()
            assert changed.index.fragments.digest(0b101) == before.index.fragments.digest(), "to whom z is hidden"

    run(main)


def test_a_server_that_is_lost_makes_another_list() -> None:
    async def main() -> None:
        fake = FakeServer(tools=tools("x"), eras="legacy")
        async with rig(("a", fake)) as one:
            before = await one.fleet.listing(one.viewer(), "tools")
            fake._server.close()
            fake.sessions.clear()
            one.advance(61)
            after = await one.fleet.listing(one.viewer(), "tools")
            assert [lost.server for lost in after.index.missing] == ["a"]
            assert after.index is not before.index
            one.advance(MISSING_TTL_S + 0.5)
            assert (await one.fleet.listing(one.viewer(), "tools")).index is after.index, "still lost: the same"

    run(main)


def test_a_page_is_made_once() -> None:
    async def main() -> None:
        async with rig(("a", FakeServer(tools=tools("x", "y")))) as one:
            view = await one.fleet.listing(one.viewer(), "tools")
            body, last = view.page()
            assert last is None
            assert [tool["name"] for tool in json.loads(b"{" + body)["tools"]] == ["a__x", "a__y"]
            assert view.page()[0] is body
            assert [tool["name"] for tool in json.loads(b"{" + view.page(0b10)[0])["tools"]] == ["a__y"]

    run(main)


def test_pages_are_kept_apart_by_tenant() -> None:
    async def main() -> None:
        async with rig(("a", FakeServer(tools=tools("x")))) as one:
            mine = await one.fleet.listing(one.viewer(), "tools")
            other = await one.fleet.listing(one.viewer(principal=OTHER), "tools")
            assert mine.page()[0] == other.page()[0]
            assert mine.page()[0] is not other.page()[0]

    run(main)
