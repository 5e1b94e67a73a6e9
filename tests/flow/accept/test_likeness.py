"""Calls that are alike share a frame, those that are not do not: each record says what the one of its entry would."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.kept import PayloadRule, PayloadSpec
from narthex.telemetry.frames import OPEN, Frames, Short
from narthex.telemetry.record import LONGEST, Entry, line_of
from narthex.testing import FakeServer, JsonRpcError
from narthex.types import CacheRule, CacheSpec, EndpointSpec, Grant, LimitRule, PriceRule
from tests.flow.gateway import Answer, Client, Running, run, spec

DIFFERS = {
    "id", "time", "request", "bytes_in", "bytes_out", "seconds", "server_seconds", "arguments_digest", "result_digest",
    "trace", "parent", "span", "decision_id",
}  # fmt: skip
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
TOOLS: list[dict[str, Any]] = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "other", "kept")]
GRANTS = (
    Grant("small", "allow", tools=("*",), when="!has(args.amount) || args.amount <= 100", line=7),
    Grant("large", "allow", tools=("*",), when="has(args.amount) && args.amount > 100", line=8),
)
QUOTAS = (LimitRule("calls", "calls", 1000, window=60_000_000),)
BYTES = (LimitRule("size", "bytes", 1 << 30, window=60_000_000),)
KEPT = {"audit_dir": "x", "audit_payloads": PayloadSpec((PayloadRule("full"),))}
PRICES = (PriceRule("USD", per_call=5, tools=("*__echo",)), PriceRule("USD", per_call=7))


def answered(params: dict[str, Any]) -> dict[str, Any]:
    match params.get("arguments", {}).get("want"):
        case "a tool error":
            return {"content": [], "isError": True}
        case "an error":
            raise JsonRpcError(-32050, "no")
        case "much":
            return {"content": [{"type": "text", "text": "x" * 200_000}]}
    return {"content": [{"type": "text", "text": "yes"}]}


class Recorded:
    """What a gateway records: each record, and whether it was found a frame."""

    def __init__(self, gateway: Running) -> None:
        self.found: list[tuple[dict[str, Any], bool]] = []
        self.problem = ""
        ticks = itertools.count()
        gateway.front.clock = lambda: gateway.clock() + next(ticks) * 1e-6  # what takes no time has no frame
        gateway.front.record = self.take
        gateway.front.frames = Frames(os.urandom, self.take_short)

    def take(self, entry: Entry) -> None:
        entry.at, entry.seq = 1.7e9, len(self.found) + 1
        self.found.append((json.loads(line_of(entry, "id")), False))
        self._tell(entry.done)

    def take_short(self, short: Short) -> None:
        short.at, short.seq = 1.7e9, len(self.found) + 1
        record = json.loads(short.sealed("id", 1) + b"}")
        assert record.pop("seq") == 1
        self.found.append((record, True))
        self._tell(short.done)

    def _tell(self, done: Callable[[str], None] | None) -> None:
        if done is not None:
            asyncio.get_running_loop().call_soon(done, self.problem)


def common(record: dict[str, Any]) -> dict[str, Any]:
    """What it says beside what each says for itself, of which only that it is there."""
    return {key: sorted(value) if key == "latency" else key in DIFFERS or value for key, value in record.items()}


async def ask(client: Client, name: str = "one__echo", *, modern: bool = True, **more: Any) -> Answer:
    arguments = more.pop("arguments", {"amount": 1})
    params = {"name": name} if arguments is None else {"name": name, "arguments": arguments}
    return await (client.modern if modern else client.legacy)("tools/call", params, **more)


SETTINGS: dict[str, Any] = {
    "trusted_proxies": (ip_network("127.0.0.0/8"),), "grants": GRANTS, "quotas": QUOTAS, "prices": PRICES,
}  # fmt: skip


@pytest.mark.parametrize(
    ("varied", "shares"),
    [
        pytest.param({}, True, id="nothing"),
        pytest.param({"id_": 'a"b\\c\u00e9'}, True, id="its id"),
        pytest.param({"id_": "x" * LONGEST}, False, id="an id that is left out"),
        pytest.param({"arguments": {"amount": 2, "more": "x" * 3000}}, True, id="its arguments"),
        pytest.param({"arguments": None}, True, id="it has no arguments"),
        pytest.param({"arguments": {"amount": 1000}}, True, id="another rule decides"),
        pytest.param({"arguments": {"want": "a tool error"}}, True, id="the tool fails"),
        pytest.param({"arguments": {"want": "an error"}}, True, id="the server answers with an error"),
        pytest.param({"arguments": {"want": "much"}}, True, id="an answer that is handed on as it comes"),
        pytest.param({"name": "one__other"}, True, id="another tool, at another price"),
        pytest.param({"name": "one__missing"}, False, id="there is no such tool"),
        pytest.param({"path": "/mcp/side"}, True, id="another endpoint"),
        pytest.param({"headers": {"X-Forwarded-For": "203.0.113.7"}}, True, id="another address"),
        pytest.param({"meta": {"gen_ai.request.model": "m"}}, True, id="a model"),
        pytest.param({"meta": {"gen_ai.prompt.name": "p"}}, True, id="a prompt"),
        pytest.param({"meta": TRACE}, True, id="a trace"),
        pytest.param({"modern": False}, True, id="a client without a session"),
    ],
)
def test_what_is_not_the_same_has_another_frame(varied: dict[str, Any], shares: bool) -> None:
    async def main() -> None:
        endpoints = {name: EndpointSpec(name, ("one",)) for name in ("default", "side")}
        fake = FakeServer(tools=TOOLS, answers=dict.fromkeys(("echo", "other"), answered))
        async with fake as server, Running({"one": spec("one", server.url)}, endpoints, SETTINGS) as gateway:
            client = await gateway.client()
            recorded = Recorded(gateway)
            for _ in range(4):
                await ask(client)
            assert [short for _, short in recorded.found] == [False] * 3 + [True], "the first has to wait"
            recorded.found.clear()
            for _ in range(4):
                await ask(client, **varied)
            gateway.front.frames = None
            await ask(client, **varied)
            *found, (entry, _) = recorded.found
            for record, _ in found[1:]:  # the first may have to wait
                assert common(record) == common(entry)
            assert found[-1][1] == shares

    run(main)


DURABLE: dict[str, Any] = {**SETTINGS, "audit_dir": "x", "audit_durable": "all", "audit_blocks": False}


@pytest.mark.parametrize(
    "varied",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"arguments": None}, id="it has no arguments"),
        pytest.param({"arguments": {"amount": 1000}}, id="another rule decides"),
        pytest.param({"arguments": {"want": "a tool error"}}, id="the tool fails"),
        pytest.param({"arguments": {"want": "an error"}}, id="the server answers with an error"),
        pytest.param({"arguments": {"want": "much"}}, id="an answer that is handed on as it comes"),
        pytest.param({"name": "one__other"}, id="another tool, at another price"),
        pytest.param({"meta": TRACE}, id="a trace"),
        pytest.param({"modern": False}, id="a client without a session"),
    ],
)
def test_both_records_of_a_call_that_waits_for_the_disk_have_frames(varied: dict[str, Any]) -> None:
    async def main() -> None:
        fake = FakeServer(tools=TOOLS, answers=dict.fromkeys(("echo", "other"), answered))
        async with fake as server, Running({"one": spec("one", server.url)}, settings=DURABLE) as gateway:
            client = await gateway.client()
            recorded = Recorded(gateway)
            for _ in range(4):
                await ask(client, **varied)
            *_, (begin, begin_is_short), (end, end_is_short) = recorded.found
            assert begin_is_short and end_is_short
            assert (begin["event"], end["event"], end["begin"]) == ("begin", "call", len(recorded.found) - 1)
            assert list(end["latency"]) == ["admission", "disk", "upstream", "answer"]
            gateway.front.frames = None
            await ask(client, **varied)
            for short, (entry, _) in zip((begin, end), recorded.found[-2:], strict=True):
                assert common({**short, "begin": 0}) == common({**entry, "begin": 0}) and short.keys() == entry.keys()

    run(main)


def test_a_call_that_went_on_without_its_first_record_has_a_record_of_its_own() -> None:
    """Which number the first one has, if any, nobody knows yet."""

    async def main() -> None:
        async with (
            FakeServer(tools=TOOLS) as server,
            Running({"one": spec("one", server.url)}, None, DURABLE) as gateway,
        ):
            client = await gateway.client()
            recorded = Recorded(gateway)
            for _ in range(4):
                await ask(client)
            recorded.problem = "no space"
            await ask(client)
            assert [short for _, short in recorded.found[-4:]] == [True, True, True, False]

    run(main)


def test_another_session_has_another_frame() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            clients = [await gateway.client(session=True) for _ in range(2)]
            recorded = Recorded(gateway)
            for client in [*clients, *clients, *clients, *clients]:
                await ask(client, modern=False)
            assert [short for _, short in recorded.found][-2:] == [True, True]
            sessions = [record["session"] for record, _ in recorded.found]
            assert sessions == sessions[:2] * 4 and sessions[0] != sessions[1]

    run(main)


def test_another_configuration_has_other_frames() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            recorded = Recorded(gateway)
            for revision in ("r2", "r3"):
                gateway.front.apply(replace(gateway.front.snapshot, revision=revision))
                for _ in range(4):
                    await ask(client)
            assert [record["config"] for record, _ in recorded.found] == ["r2"] * 4 + ["r3"] * 4
            assert [short for _, short in recorded.found] == [False, False, False, True, False, False, True, True]

    run(main)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"audit_inputs": "digest"}, id="what it was decided on is recorded"),
        pytest.param({"grants": GRANTS, "trial": (*GRANTS, Grant("no", "deny", shadow=True))}, id="a rule on trial"),
        pytest.param(KEPT, id="what it says is kept"),
        pytest.param({"quotas": (LimitRule("t", "tokens", 1 << 30, window=60_000_000),)}, id="tokens are counted"),
    ],
)
def test_what_has_a_record_of_its_own(settings: dict[str, Any]) -> None:
    async def main() -> None:
        async with (
            FakeServer(tools=TOOLS) as server,
            Running({"one": spec("one", server.url)}, settings=settings) as gateway,
        ):
            client = await gateway.client()
            recorded = Recorded(gateway)
            for _ in range(5):
                await ask(client)
            assert not any(short for _, short in recorded.found)

    run(main)


def test_who_takes_as_much_of_limits_as_the_one_before_shares_its_frame() -> None:
    async def main() -> None:
        async with (
            FakeServer(tools=TOOLS) as server,
            Running({"one": spec("one", server.url)}, settings={"quotas": BYTES}) as gateway,
        ):
            client = await gateway.client()
            recorded = Recorded(gateway)
            sizes = (1, 1, 1, 1, 1, 2, 1, 1, 3, 3, 3, 3)
            for size in sizes:
                await ask(client, arguments={"text": "x" * size}, id_=7)
            for record, _ in recorded.found:
                assert record["taken"] == {"size": record["bytes_in"] + record["bytes_out"]}
            assert recorded.found[4][1] and not recorded.found[5][1]

    run(main)


def test_an_answer_from_memory_has_a_record_of_its_own_by_its_age() -> None:
    async def main() -> None:
        settings = {"cache": CacheSpec((CacheRule("kept", 60.0, tools=("one__kept",)),), ())}
        async with (
            FakeServer(tools=TOOLS) as server,
            Running({"one": spec("one", server.url)}, settings=settings) as gateway,
        ):
            client = await gateway.client()
            recorded = Recorded(gateway)
            for _ in range(4):
                await ask(client, "one__kept")
                gateway.pass_time(1)
            assert [record["cache"] for record, _ in recorded.found] == ["miss", "hit", "hit", "hit"]
            ages = [record.get("age") for record, _ in recorded.found[1:]]
            assert ages == [pytest.approx(age, abs=0.5) for age in (1, 2, 3)]

    run(main)


FOUND_BY = {
    "principal", "source", "session", "endpoint", "server", "method", "name", "version", "outcome", "code", "account",
    "config", "check", "stood_in", "cost", "cache", "run", "model", "prompt", "definition", "dialect",
    "upstream_status", "taken",
}  # fmt: skip
NEVER = {
    "reason", "decision_id", "event", "call", "inputs", "trial", "limit", "instead_of", "approval", "age", "begun",
    "asked", "keep", "arguments", "answer", "task", "is_error", "query", "did", "waits", "tokens", "held", "notes",
    "done",
}  # fmt: skip
"""Members that are empty, or say nothing in the record, where a call may have a frame."""


def test_each_member_of_an_entry_is_open_or_found_by_or_not_there() -> None:
    """One that is new belongs into `likeness_of`, or calls that have it are none that are alike; and then here."""
    assert set(Entry.__struct_fields__) == OPEN | FOUND_BY | NEVER
