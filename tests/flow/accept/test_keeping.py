"""What a policy demands for a call to be let through, kept at the gateway: or the call does not go on."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from narthex.flow.policy.decision import Decision
from narthex.flow.policy.engines.obligations import Obligation
from narthex.testing import FakeServer
from narthex.types import EndpointSpec, RegoSpec
from tests.flow.accept import test_holding as holding
from tests.flow.accept.asking import Asker, arguments_of, ask_modern
from tests.flow.gateway import Answer, Client, Running, run, spec, until
from tests.flow.policy.judge import Judge, allow, sees_all
from tests.flow.upstream.test_fleet import tools

EACH_ERA = pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
EACH_SERVER = pytest.mark.parametrize("eras", ["legacy", "modern"])
RESULT = {
    "content": [{"type": "text", "text": '{"name":"a","ssn":"1"}'}],
    "structuredContent": {"name": "a", "ssn": "1"},
}
NO_SSN = ("redact", ("/structuredContent/ssn",))


def over(one: FakeServer, *obligations: tuple[str, Any], **more: Any) -> Running:
    endpoints = {"default": EndpointSpec("default", ("one",), naming="none")}
    engine = Judge(sees_all(lambda asked: allow(*obligations)))
    return Running({"one": spec("one", one.url, **more)}, endpoints, engine=engine)


async def call(client: Client, modern: bool, method: str = "tools/call", **params: Any) -> Answer:
    params = params or {"name": "a", "arguments": {"limit": 100, "x": 1}}
    return await (client.modern if modern else client.legacy)(method, params)


@EACH_ERA
@EACH_SERVER
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_results_are_redacted_and_nothing_else_of_the_server_is_passed_on(
    eras: Any, modern: bool, stream: bool
) -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": "ssn 1"}}
    more: dict[str, Any] = {"stream": True, "events": [note]} if stream else {}

    async def main() -> None:
        server = FakeServer(tools=tools("a"), answers={"a": RESULT}, eras=eras, **more)
        async with server as one, over(one, NO_SSN) as gateway:
            client = await gateway.client(session=not modern)
            got = await call(client, modern)
            assert got.result["structuredContent"] == {"name": "a", "ssn": "[redacted]"}
            assert json.loads(got.result["content"][0]["text"]) == got.result["structuredContent"]
            assert len(got.messages) == 1
            await until(gateway.settled)

    run(main)


@EACH_ERA
def test_results_that_are_too_large_to_be_worked_on_are_blocked(modern: bool) -> None:
    async def main() -> None:
        large = {"content": [{"type": "text", "text": "x" * 2_000_000}]}
        async with FakeServer(tools=tools("a"), answers={"a": large}) as one, over(one, NO_SSN) as gateway:
            got = await call(await gateway.client(session=not modern), modern)
            assert (got.error["code"], got.error["data"]["reason"]) == (-31007, "content_blocked")
            await until(gateway.settled)

    run(main)


@EACH_SERVER
def test_a_server_that_asks_its_client_something_is_not_heard(eras: Any) -> None:
    async def main() -> None:
        async with Asker(eras=eras) as upstream:
            endpoints = {"default": EndpointSpec("default", ("one",))}
            engine = Judge(sees_all(lambda asked: allow(NO_SSN)))
            servers = {"one": spec("one", upstream.url, sharing="session")}
            async with Running(servers, endpoints, engine=engine) as gateway:
                got = await ask_modern(await gateway.client(), arguments_of(rounds=[["roots"]]))
                assert got.error["code"] == -31007
                await until(gateway.settled)

    run(main)


@EACH_ERA
def test_lists_in_results_are_capped(modern: bool) -> None:
    async def main() -> None:
        answers = {"a": {"content": [{"type": "text", "text": str(n)} for n in range(5)]}}
        async with FakeServer(tools=tools("a"), answers=answers) as one, over(one, ("max_results", 2)) as gateway:
            got = await call(await gateway.client(session=not modern), modern)
            assert [block["text"] for block in got.result["content"]] == ["0", "1"]

    run(main)


@EACH_ERA
def test_arguments_are_rewritten(modern: bool) -> None:
    async def main() -> None:
        patch = ("rewrite", {"limit": 10, "x": None, "dry_run": True})
        async with FakeServer(tools=tools("a")) as one, over(one, patch) as gateway:
            got = await call(await gateway.client(session=not modern), modern)
            assert json.loads(got.text) == {"limit": 10, "dry_run": True}

    run(main)


@pytest.mark.parametrize(
    ("obligation", "method", "params"),
    [
        pytest.param(("rewrite", {"a": 1}), "resources/read", {"uri": "docs:a"}, id="nothing to rewrite"),
        pytest.param(NO_SSN, "tools/call", {"name": "a", "arguments": {}, "task": {}}, id="the result comes later"),
        pytest.param(("step_up_scope", ("x",)), "tools/call", {"name": "a", "arguments": {}}, id="nobody to ask"),
    ],
)
def test_what_cannot_be_kept_denies(obligation: tuple[str, Any], method: str, params: Any) -> None:
    async def main() -> None:
        resources = [{"uri": "docs:a", "name": "a"}]
        async with FakeServer(tools=tools("a"), resources=resources) as one, over(one, obligation) as gateway:
            got = await call(await gateway.client(session=True), False, method, **params)
            assert (got.error["code"], got.error["data"]["reason"]) == (-31001, "unknown_obligation")
            assert not [asked for asked in one.asked if asked.method == method]

    run(main)


def test_what_a_person_approves_is_what_is_sent_and_the_result_is_redacted_then() -> None:
    async def main() -> None:
        answers = {"refund": {"content": [], "structuredContent": {"ssn": "1"}}}
        server = FakeServer(tools=holding.TOOLS, answers=answers)
        async with server as one, holding.gateway(one) as gateway:
            policy = RegoSpec("/policy", "narthex/decision")
            held = Decision("hold", "approval_required", obligations=(
                Obligation("rewrite", {"amount": 5}), Obligation("redact", ("/structuredContent/ssn",)),
            ), engine="judge")  # fmt: skip
            snapshot = msgspec.structs.replace(gateway.front.snapshot, policy=policy)
            gateway.front.apply(snapshot, engine=Judge(sees_all(lambda asked: held)))
            client = await gateway.client()
            id_ = holding.waits(await holding.call(client, "modern"))
            await gateway.keeper.decide(id_, "bob", yes=True)
            got = await holding.call(client, "modern")
            assert got.result["structuredContent"] == {"ssn": "[redacted]"}
            assert holding.sent(one) == [{"amount": 5, "to": "ann"}]

    run(main)
