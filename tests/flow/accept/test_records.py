"""Records are made at the end of a turn, of what was so when the call ended; some are made at once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.flow.accept.records import Records
from narthex.kept import PayloadRule, PayloadSpec
from narthex.telemetry.frames import Frames
from narthex.telemetry.record import Entry
from narthex.testing import FakeServer
from narthex.types import CacheRule, CacheSpec, LimitRule
from tests.flow.gateway import Client, Running, run, spec

TOOLS: list[dict[str, Any]] = [{"name": "echo", "inputSchema": {"type": "object"}}]
MINUTE = 60_000_000


class Turns:
    """A gateway whose turns end when a test says so; `found` are its records, those of frames as None."""

    def __init__(self, gateway: Running) -> None:
        self.found: list[Entry | None] = []
        self.scheduled: list[Callable[[], None]] = []
        self.front = gateway.front
        ticks = itertools.count()
        self.front.clock = lambda: gateway.clock() + next(ticks) * 1e-6  # what takes no time has no frame
        self.front.record = self.found.append
        self.front.frames = Frames(os.urandom, lambda _: self.found.append(None))
        self.front.records = Records(self.scheduled.append)

    def end(self) -> None:
        scheduled, self.scheduled[:] = list(self.scheduled), []
        for flush in scheduled:
            flush()


async def ask(client: Client, name: str = "one__echo", **arguments: Any) -> None:
    await client.modern("tools/call", {"name": name, "arguments": arguments})


def test_they_are_made_in_order_at_the_end_of_the_turn() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            turns = Turns(gateway)
            for number in range(3):
                await client.modern("tools/call", {"name": "one__echo", "arguments": {}}, id_=number)
            assert not turns.found and len(turns.scheduled) == 1
            turns.end()
            assert [one.request for one in turns.found if one is not None] == [b"0", b"1", b"2"]
            for _ in range(2):
                await ask(client)
            turns.end()
            assert turns.found[3:] == [None, None], "they have a frame by now"
            turns.end()
            assert len(turns.found) == 5

    run(main)


def test_what_they_say_was_so_when_the_call_ended() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            turns = Turns(gateway)
            await ask(client)
            turns.front.apply(replace(turns.front.snapshot, revision="r2"))
            await ask(client)
            gateway.pass_time(5)
            turns.end()
            assert [one.config for one in turns.found if one is not None] == ["r1", "r2"]
            assert all(one.seconds < 5 for one in turns.found if one is not None)

    run(main)


def test_what_has_ended_when_the_configuration_changes_is_recorded_by_what_was_in_force() -> None:
    """Nothing that begins to be kept then is of a call that was before, and what was to be kept is."""

    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            turns = Turns(gateway)
            await ask(client)
            keeps = PayloadSpec((PayloadRule("full"),))
            turns.front.apply(replace(turns.front.snapshot, audit_dir="x", audit_payloads=keeps))
            await ask(client)
            turns.end()
            kept = [one.keep is not None for one in turns.found if one is not None]
            assert kept == [False, True]
            await ask(client)
            turns.front.apply(replace(turns.front.snapshot, audit_dir="", audit_payloads=PayloadSpec()))
            turns.end()
            assert turns.found[2] is not None and turns.found[2].keep is not None

    run(main)


def test_one_that_cannot_be_made_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            turns = Turns(gateway)
            taken = []

            def take(entry: Entry) -> None:
                if entry.request == b"0":
                    raise ValueError("no")
                taken.append(entry.request)

            turns.front.record = take
            for number in range(2):
                await client.modern("tools/call", {"name": "one__echo", "arguments": {}}, id_=number)
            turns.end()
            assert taken == [b"1"] and "could not be recorded" in caplog.text

    run(main)


def test_where_nobody_takes_them_any_more_none_is_made() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            turns = Turns(gateway)
            await ask(client)
            turns.front.record = turns.front.frames = None
            turns.end()
            assert not turns.found

    run(main)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        pytest.param({}, "one__missing", id="an error"),
        pytest.param({"cache": CacheSpec((CacheRule("r", 60.0, tools=("*",)),), ())}, "one__echo", id="it is cached"),
        pytest.param({"quotas": (LimitRule("t", "tokens", 1 << 30, window=MINUTE),)}, "one__echo", id="of its tokens"),
    ],
)
def test_what_is_made_at_once(settings: dict[str, Any], name: str) -> None:
    async def main() -> None:
        async with (
            FakeServer(tools=TOOLS) as server,
            Running({"one": spec("one", server.url)}, settings=settings) as gateway,
        ):
            client = await gateway.client()
            turns = Turns(gateway)
            await ask(client, name)
            assert len(turns.found) == 1 and not turns.scheduled

    run(main)
