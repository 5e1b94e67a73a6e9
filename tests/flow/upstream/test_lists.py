"""How long, and for whom, a server's list is kept: by what it says of its pages."""

from __future__ import annotations

import math
from typing import Any

import pytest

from narthex.flow.upstream.lists import RECHECK_S
from narthex.flow.upstream.viewers import scope_of
from narthex.testing import Asked, FakeServer
from narthex.types import LOCAL
from tests.flow.gateway import run
from tests.flow.upstream.test_fleet import Rig, rig, tools

PUBLIC = {"ttlMs": 5000, "cacheScope": "public"}


class Hinting(FakeServer):
    """A modern server of two pages, each with hints of its own."""

    hints: Any = ({}, {})

    async def _answer(self, asked: Asked, extra: dict[str, str]) -> dict[str, Any]:
        result = await super()._answer(asked, extra)
        if asked.method == "tools/list":
            result = {key: value for key, value in result.items() if key not in ("ttlMs", "cacheScope")}
            result |= self.hints[1 if "cursor" in asked.params else 0]
        return result


def hinting(*hints: Any) -> Hinting:
    server = Hinting(tools=tools("x", "y"), page=1, eras="modern")
    server.hints = hints
    return server


def left(one: Rig) -> list[float]:
    """For how many seconds others may keep the list, and how long we do."""
    listed = one.fleet.servers["a"].listed(scope_of("principal", LOCAL, None), "tools")
    assert listed is not None
    now = one.clock()
    return [listed.expires_at - now, listed.fresh_until - now]


@pytest.mark.parametrize(
    ("hints", "expires_s", "fresh_s", "public"),
    [
        pytest.param(({}, {}), 60, 60, False, id="nothing said: ours"),
        pytest.param((PUBLIC, PUBLIC), 5, 5, True, id="both pages say the same"),
        pytest.param((PUBLIC, {**PUBLIC, "ttlMs": 2000}), 2, 2, True, id="the shortest time"),
        pytest.param((PUBLIC, {"ttlMs": 5000, "cacheScope": "private"}), 5, 5, False, id="one page is private"),
        pytest.param((PUBLIC, {"ttlMs": 5000}), 5, 5, False, id="one page does not say"),
        pytest.param((PUBLIC, {**PUBLIC, "ttlMs": 0}), 0, RECHECK_S, True, id="none: not asked again at once"),
        pytest.param((PUBLIC, {**PUBLIC, "ttlMs": None}), 0, RECHECK_S, True, id="null loses no list"),
        pytest.param((PUBLIC, {**PUBLIC, "ttlMs": 10**9}), 5, 5, True, id="a long one does not lengthen"),
        pytest.param(({"ttlMs": 10**9}, {"ttlMs": 10**9}), 60, 60, False, id="nor beyond ours"),
    ],
)
def test_hints(hints: Any, expires_s: float, fresh_s: float, public: bool) -> None:
    async def main() -> None:
        async with rig(("a", hinting(*hints))) as one:
            view = await one.fleet.listing(one.viewer(), "tools")
            assert list(view.index.targets) == ["a__x", "a__y"]
            assert left(one) == pytest.approx([expires_s, fresh_s])
            assert view.index.public is public
            assert view.expires_at == pytest.approx(one.clock() + expires_s)
            assert view.fresh_until == pytest.approx(one.clock() + fresh_s)

    run(main)


def test_what_was_said_to_have_changed_may_not_be_kept() -> None:
    async def main() -> None:
        async with rig(("a", hinting(PUBLIC, PUBLIC))) as one:
            await one.fleet.listing(one.viewer(), "tools")
            one.fleet.servers["a"].list_changed("tools")
            assert max(left(one)) < 0
            assert one.fleet.fresh(one.viewer(), "tools") is None

    run(main)


def test_a_merged_list_may_be_kept_as_long_as_each_part_of_it() -> None:
    async def main() -> None:
        short = hinting({**PUBLIC, "ttlMs": 3000}, PUBLIC)
        async with rig(("a", hinting(PUBLIC, PUBLIC)), ("b", short)) as one:
            view = await one.fleet.listing(one.viewer(), "tools")
            assert view.expires_at == pytest.approx(one.clock() + 3)
            assert view.index.public

    run(main)


def test_a_list_of_no_servers_never_ends() -> None:
    async def main() -> None:
        async with rig() as one:
            view = await one.fleet.listing(one.viewer(), "tools")
            assert (view.expires_at, view.fresh_until) == (math.inf, math.inf)
            assert one.fleet.fresh(one.viewer(), "tools") is view

    run(main)
