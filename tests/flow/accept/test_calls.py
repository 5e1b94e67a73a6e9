"""Calls that wait for their clients take places of their server: nobody can take them all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from narthex.errors import Overloaded
from narthex.flow.accept.calls import Calls
from narthex.types import Call, EndpointSpec, Limits, Principal
from tests.flow.accept.asking import (
    ANSWERS,
    MANUAL,
    META_ABLE,
    Asker,
    answer,
    arguments_of,
    ask_modern,
    event,
    held,
    legacy_client,
    nothing_left,
    pushed,
    retry_of,
)
from tests.flow.gateway import Running, run, spec, until

ERAS = ["legacy", "modern"]


def bounded(server: Asker, most: int = 1) -> Running:
    """The same server at two endpoints."""
    servers = {"one": spec("one", server.url, sharing="session")}
    endpoints = {name: EndpointSpec(name, ("one",)) for name in ("default", "other")}
    return Running(servers, endpoints, {"limits": Limits(max_waiting=most)})


def test_a_modern_clients_call_too_many_is_refused_and_its_server_told() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, bounded(upstream) as gateway:
            client, first, got = await held(upstream, gateway)
            late = await gateway.client()
            late.send("tools/call", MANUAL, modern=True, meta=META_ABLE)
            await until(lambda: len(upstream.lives) == 2)
            second = upstream.lives[1]
            question = second.push("roots")
            refused = await late.read()
            assert (refused.status, refused.error["code"]) == (200, -31009)
            assert refused.error["data"]["reason"] == "overloaded"
            assert "wait for its answers" in refused.error["message"]
            await until(lambda: upstream.cancelled == [second.id] and second.answers[question])
            assert second.answers[question][0]["error"]["code"] == -32600
            plain = await late.modern("tools/call", arguments_of(rounds=[]))
            assert plain.result["resultType"] == "complete", "what asks nothing goes on"
            first.finish()
            assert (await ask_modern(client, retry_of(MANUAL, got))).text == "done"
            await until(lambda: nothing_left(gateway))
            assert (await held(upstream, gateway))[2].result["resultType"] == "input_required"

    run(main)


@pytest.mark.parametrize("server", ERAS)
def test_a_legacy_clients_call_too_many_is_refused(server: Any) -> None:
    async def main() -> None:
        async with Asker(eras=server) as upstream, bounded(upstream) as gateway:
            first = await legacy_client(gateway)
            first.send("tools/call", arguments_of(rounds=[["roots"]]))
            await first.read_head()
            asked = await event(first)
            second = await legacy_client(gateway)
            got = await second.legacy("tools/call", arguments_of(rounds=[["roots"]]))
            assert got.messages[-1]["error"]["code"] == -31009, "another session of the same principal"
            await answer(second, asked["id"], result=ANSWERS["roots"])  # not its own
            other = await gateway.client()
            other.session = first.session
            await answer(other, asked["id"], result=ANSWERS["roots"])
            assert "result" in await event(first)
            await until(lambda: nothing_left(gateway))

    run(main)


def test_each_endpoint_has_its_own() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, bounded(upstream) as gateway:
            await held(upstream, gateway)
            await held(upstream, gateway, path="/mcp/other")
            assert len(gateway.front.calls.held) == 2

    run(main)


def test_a_call_that_was_asked_once_can_be_asked_again() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, bounded(upstream) as gateway:
            client, live, got = await held(upstream, gateway)
            client.send("tools/call", retry_of(MANUAL, got), modern=True, meta=META_ABLE)
            await until(lambda: not gateway.front.calls.held)
            refused = await legacy_client(gateway)
            refused.send("tools/call", MANUAL)
            await until(lambda: len(upstream.lives) == 2)
            upstream.lives[1].push("roots")
            assert (await refused.read()).messages[-1]["error"]["code"] == -31009, "its place is kept"
            live.push("form")
            assert (await client.read()).result["resultType"] == "input_required"

    run(main)


@pytest.mark.parametrize("end", ["time", "close"])
def test_places_are_given_back_however_a_call_ends(end: str) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, bounded(upstream) as gateway:
            for _ in range(3):
                if end == "time":
                    await held(upstream, gateway)
                    gateway.pass_time(200)
                else:
                    client, live, _ = await pushed(upstream, gateway)
                    client.close()
                    live.die()
                await until(lambda: nothing_left(gateway))

    run(main)


WHO = [Principal("t", "i", subject) for subject in "ab"]


class Waiting(RuleBasedStateMachine):
    """Against a list of those who wait."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Calls()
        self.calls.most_waiting = 2
        self.model: list[Call] = []

    @rule(who=st.sampled_from(WHO), endpoint=st.sampled_from(["x", "y"]))
    def begin(self, who: Principal, endpoint: str) -> None:
        call = Call("tools/call", {}, {}, b"1", "modern", "2026-07-28", who, endpoint)
        full = sum(one.endpoint == endpoint and one.principal == who for one in self.model) == 2
        try:
            self.calls.wait(call)
        except Overloaded:
            assert full
        else:
            assert not full
            self.model.append(call)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.calls.wait_no_more(self.model.pop(data.draw(st.integers(0, len(self.model) - 1))))

    @invariant()
    def nothing_is_kept_of_who_does_not_wait(self) -> None:
        assert sum(self.calls._waiting.values()) == len(self.model)
        assert all(self.calls._waiting.values())


TestWaiting = Waiting.TestCase
