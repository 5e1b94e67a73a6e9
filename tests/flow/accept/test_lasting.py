"""A durable call: recorded before its server hears of it, and before its client hears the last of it."""

from __future__ import annotations

import gc
import json
from collections import deque
from typing import Any

import pytest

from narthex.flow.accept.exchange import Exchange
from narthex.telemetry.record import Entry, line_of
from narthex.testing import FakeServer
from narthex.types import EndpointSpec, Grant
from tests.flow.accept.test_exchange import CALL, ERAS, TOOLS, Mcp
from tests.flow.gateway import Client, Running, run, spec, until
from tests.flow.upstream.test_http import HOLD, answer, rpc

BLOCK = {"audit_dir": "x", "audit_durable": "writes", "audit_blocks": True}
DEGRADE = {**BLOCK, "audit_blocks": False}


class Disk:
    """In the place of the journal: it says that a record is on the disk when the test does."""

    def __init__(self, gateway: Running) -> None:
        self.entries: list[Entry] = []
        self.waiting: deque[Entry] = deque()
        self.full = False
        gateway.front.record = self.take
        gateway.front.is_full = lambda: self.full

    def take(self, entry: Entry) -> None:
        self.entries.append(entry)
        entry.seq = len(self.entries)
        if entry.done is not None:
            self.waiting.append(entry)

    async def says(self, problem: str = "") -> None:
        """The oldest that is waited for."""
        await until(lambda: self.waiting)
        done = self.waiting.popleft().done
        assert done is not None
        done(problem)

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line_of(one, "id")) for one in self.entries]


def over(server: FakeServer, settings: dict[str, Any] = BLOCK, **more: Any) -> Running:
    return Running({"one": spec("one", server.url)}, settings={**settings, **more})


def scripted(server: Mcp) -> Running:
    return Running(server.gateway().servers, settings=BLOCK)


async def nothing_yet(client: Client) -> None:
    """Whoever answers must not have; a second client has had its answer meanwhile."""
    assert not client.reader._buffer  # type: ignore[attr-defined]


@ERAS
@pytest.mark.parametrize("stream", [False, True], ids=["as JSON", "as a stream"])
def test_the_server_hears_of_it_after_the_first_record_and_the_client_after_the_second(
    modern: bool, stream: bool
) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, stream=stream) as server, over(server) as gateway:
            disk, client = Disk(gateway), await gateway.client(session=not modern)
            await (client.modern if modern else client.legacy)("tools/list")
            client.send("tools/call", CALL, modern=modern)
            await until(lambda: disk.waiting)
            assert not server.requests("tools/call")
            assert [one["event"] for one in disk.records] == ["begin"]
            await disk.says()
            await until(lambda: disk.waiting)
            assert len(server.requests("tools/call")) == 1
            assert not any(b'"result"' in bytes(part) for part in [client.reader._buffer])  # type: ignore[attr-defined]
            await disk.says()
            assert json.loads((await client.read()).text) == {"a": 1}
            begin, end = disk.records
            assert (end["event"], end["outcome"], end["begin"]) == ("call", "ok", 1) and "outcome" not in begin
            assert begin["arguments_digest"] == end["arguments_digest"] and begin["decision"] == "allow"
            assert gateway.counted("tools/call", "echo") == {"ok": 1}
            await until(gateway.settled)
            client.send("tools/call", CALL, modern=modern)
            await disk.says()
            await disk.says()
            assert (await client.read()).result, "the connection goes on"

    run(main)


@ERAS
def test_what_cannot_be_recorded_is_not_begun(modern: bool) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, over(server) as gateway:
            disk, client = Disk(gateway), await gateway.client(session=not modern)
            client.send("tools/call", CALL, modern=modern)
            await disk.says("No space left on device")
            await disk.says("No space left on device")
            got = await client.read()
            assert got.error["code"] == -31009 and "space" not in got.error["message"]
            data = got.error["data"]
            assert (data["reason"], data["sent"]) == ("audit_unavailable", False)
            assert not server.requests("tools/call")
            await until(gateway.settled)

    run(main)


def test_what_was_done_and_cannot_be_recorded_is_withheld() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, over(server) as gateway:
            disk, client = Disk(gateway), await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await disk.says()
            await disk.says("Input/output error")
            error = (await client.read()).error
            assert (error["data"]["reason"], error["data"]["sent"]) == ("audit_unavailable", True)
            assert len(server.requests("tools/call")) == 1
            await until(gateway.settled)

    run(main)


def test_degraded_calls_go_on() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, over(server, DEGRADE) as gateway:
            disk, client = Disk(gateway), await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await disk.says("No space left on device")
            await disk.says("No space left on device")
            assert json.loads((await client.read()).text) == {"a": 1}

    run(main)


@pytest.mark.parametrize("settings", [BLOCK, DEGRADE], ids=["block", "degrade"])
def test_a_disk_that_says_nothing_is_not_waited_for_for_long(settings: dict[str, Any]) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, over(server, settings) as gateway:
            disk, client = Disk(gateway), await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await until(lambda: disk.waiting)
            gateway.pass_time(6)
            await until(lambda: len(disk.waiting) == 2)
            gateway.pass_time(6)
            got = await client.read()
            if settings is BLOCK:
                assert got.error["data"]["reason"] == "audit_unavailable" and not server.requests("tools/call")
            else:
                assert got.result
            await disk.says()
            await disk.says()
            await until(gateway.settled)
            assert len(server.requests("tools/call")) == (settings is DEGRADE), "late word changes nothing"

    run(main)


def test_the_disk_has_its_whole_time_for_the_second_record_too() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, over(server) as gateway:
            disk, client = Disk(gateway), await gateway.client()
            client.send("tools/call", CALL, modern=True)
            for _ in range(2):
                await until(lambda: disk.waiting)
                gateway.pass_time(4)
                await disk.says()
            assert (await client.read()).result

    run(main)


def test_the_error_of_a_call_that_came_too_late_waits_for_its_record_as_well() -> None:
    async def main() -> None:
        async with Mcp(HOLD) as server, scripted(server) as gateway:
            disk, client = Disk(gateway), await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await disk.says()
            await until(lambda: server.calls)
            gateway.pass_time(100)
            await until(lambda: disk.waiting)
            gateway.pass_time(3)
            await disk.says()
            assert (await client.read()).error["code"] == -31006

    run(main)


def test_a_slow_disk_may_be_waited_for_longer() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, over(server, {**BLOCK, "audit_wait_s": 30.0}) as gateway:
            disk, client = Disk(gateway), await gateway.client()
            client.send("tools/call", CALL, modern=True)
            for _ in range(2):
                await until(lambda: disk.waiting)
                gateway.pass_time(20)
                await disk.says()
            assert (await client.read()).result

    run(main)


def test_who_only_reads_waits_for_nothing() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, over(server, audit_reads=("one__ec*",)) as gateway:
            disk, client = Disk(gateway), await gateway.client()
            await client.modern("tools/list")  # before, nobody knows where a name leads
            assert (await client.modern("tools/call", CALL)).result
            assert not disk.waiting and [one["event"] for one in disk.records] == ["call"]
            disk.full = True
            got = await client.modern("tools/call", CALL)
            assert got.error["data"]["reason"] == "audit_unavailable", "there is no room for its record"

    run(main)


def test_a_refusal_waits_for_its_record_and_has_no_beginning() -> None:
    async def main() -> None:
        no = (Grant("all", "allow", tools=("*",)), Grant("no", "deny", tools=("*",), when="args.a == 1"))
        async with FakeServer(tools=TOOLS) as server, over(server, grants=no) as gateway:
            disk, client = Disk(gateway), await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await disk.says()
            assert (await client.read()).error["data"]["reason"] == "denied_by_rule"
            assert [(one["event"], one["decision"]) for one in disk.records] == [("call", "deny")]
            assert not server.requests("tools/call")

    run(main)


@pytest.mark.parametrize("when", ["before it was sent", "before it was answered"])
def test_a_client_that_goes_away_meanwhile(when: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, over(server) as gateway:
            disk, client = Disk(gateway), await gateway.client()
            client.send("tools/call", CALL, modern=True)
            if when == "before it was answered":
                await disk.says()
            await until(lambda: disk.waiting)
            client.close()
            await until(lambda: not gateway.shared.connections)
            await disk.says()
            await until(gateway.settled)
            outcome = disk.records[-1]["outcome"]
            assert outcome == ("ok" if when == "before it was answered" else "cancelled")
            assert len(server.requests("tools/call")) == (when == "before it was answered")

    run(main)


def test_a_call_that_fails_is_told_when_that_is_recorded() -> None:
    async def main() -> None:
        async with Mcp(HOLD) as server, Running(server.gateway().servers, settings=BLOCK) as gateway:
            disk, client = Disk(gateway), await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await disk.says()
            await until(lambda: server.calls == 1)
            gateway.pass_time(61)
            await until(lambda: disk.waiting)
            assert disk.records[-1]["outcome"] == "upstream_timeout"
            await disk.says()
            assert (await client.read()).error["code"] == -31006
            await until(gateway.settled)

    run(main)


def test_what_comes_on_the_stream_is_not_held_up() -> None:
    async def main() -> None:
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "p", "progress": 1}}
        async with FakeServer(tools=TOOLS, stream=True, events=[note]) as server, over(server) as gateway:
            disk, client = Disk(gateway), await gateway.client()
            client.send("tools/call", CALL, modern=True, meta={"progressToken": "mine"})
            await disk.says()
            await client.read_head()
            assert b"notifications/progress" in await client.read_chunk()
            await disk.says()
            assert b'"result"' in await client.read_chunk()

    run(main)


def test_a_large_answer_is_held_whole() -> None:
    async def main() -> None:
        text = "x" * 400_000
        result = {"resultType": "complete", "content": [{"type": "text", "text": text}]}
        async with Mcp(answer(rpc(3, result=result))) as server, scripted(server) as gateway:
            disk, client = Disk(gateway), await gateway.client()
            client.send("tools/call", CALL, modern=True)
            await disk.says()
            await until(lambda: disk.waiting)
            await nothing_yet(client)
            await disk.says()
            assert (await client.read()).text == text

    run(main)


def test_each_endpoint_has_it_its_own_way() -> None:
    async def main() -> None:
        endpoints = {
            "default": EndpointSpec("default", ("one",), durable="none", blocks=False),
            "pay": EndpointSpec("pay", ("one",)),
            "look": EndpointSpec("look", ("one",), blocks=False),
        }
        async with FakeServer(tools=TOOLS) as server:
            one = Running({"one": spec("one", server.url)}, endpoints, settings=BLOCK)
            async with one as gateway:
                disk, client = Disk(gateway), await gateway.client()
                assert (await client.modern("tools/call", CALL)).result and not disk.waiting, "nobody waits here"
                client.send("tools/call", CALL, modern=True, path="/mcp/pay")
                await disk.says("No space left on device")
                await disk.says("No space left on device")
                assert (await client.read()).error["data"]["reason"] == "audit_unavailable"
                client.send("tools/call", CALL, modern=True, path="/mcp/look")
                await disk.says("No space left on device")
                await disk.says("No space left on device")
                assert (await client.read()).result
                disk.full = True
                assert (await client.modern("tools/call", CALL)).result, "nor minds what is not recorded"
                got = await client.modern("tools/call", CALL, path="/mcp/pay")
                assert got.error["data"]["reason"] == "audit_unavailable"
                assert len(server.requests("tools/call")) == 3

    run(main)


def test_what_is_over_is_gone_at_once() -> None:
    """Thousands a second that wait for the collector of garbage would be most of its work."""

    def there() -> list[Exchange]:
        return [one for one in gc.get_objects() if isinstance(one, Exchange)]

    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, over(server) as gateway:
            disk, client = Disk(gateway), await gateway.client()
            gc.collect()
            gc.disable()
            try:
                for _ in range(3):
                    client.send("tools/call", CALL)
                    await disk.says()
                    await disk.says()
                    assert (await client.read()).result
                    for one in disk.entries:  # as the journal does
                        one.done = None
                    disk.entries.clear()
                await until(lambda: not there())
            finally:
                gc.enable()

    run(main)
