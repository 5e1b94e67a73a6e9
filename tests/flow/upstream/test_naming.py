"""A server that an engine hides does not exist: no greeting, no list, no error and no log names it, and no clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from narthex.flow.notify.beside import Beside
from narthex.testing import FakeServer
from narthex.types import Grant
from tests.flow.accept.test_greeting import EACH_ERA, greet, speaking
from tests.flow.gateway import Client, Running, run, spec, until
from tests.flow.notify.hearing import WATCHED, Hearing, Teller, listen, resources
from tests.flow.notify.test_beside import heard, hearing, log, logged
from tests.flow.notify.test_hub import subscribe
from tests.flow.policy.judge import Judge
from tests.flow.upstream.test_fleet import tools

ORDINARY, SECRET = "Ask first.", "The vault of project X."


def without(server: str) -> Callable[[dict[str, Any]], bool]:
    return lambda asked: asked["resource"]["server"] != server


async def call(client: Client, name: str) -> Any:
    return (await client.modern("tools/call", {"name": name, "arguments": {}})).messages[-1]


async def listed(client: Client, modern: bool) -> Any:
    ask = client.modern if modern else client.legacy
    return (await ask("tools/list")).result


def gone(error: dict[str, Any], name: str) -> bool:
    """Is it the answer about what is not there?"""
    return error["code"] == -32602 and error["message"] == f"unknown tool: {name}"


@EACH_ERA
def test_what_a_hidden_server_says_of_itself_is_not_passed_on(modern: bool) -> None:
    async def main() -> None:
        seen, hidden = speaking({"tools": {}}, ORDINARY), speaking({"tools": {}}, SECRET)
        engine = Judge(without("vault"), slow=True)
        async with (
            seen,
            hidden,
            Running({"crm": spec("crm", seen.url), "vault": spec("vault", hidden.url)}, engine=engine) as gateway,
        ):
            for _ in range(2):  # the first client to come, and one for whom all is known
                result = await greet(await gateway.client(), modern)
                assert result["instructions"] == ORDINARY and "vault" not in json.dumps(result)

    run(main)


@EACH_ERA
def test_nobody_misses_a_hidden_server(modern: bool) -> None:
    async def main() -> None:
        async with FakeServer() as none:
            dead = spec("vault", none.url)
        engine = Judge(without("vault"), slow=True)
        async with (
            FakeServer(tools=tools("x")) as one,
            Running({"crm": spec("crm", one.url), "vault": dead}, engine=engine) as gateway,
        ):
            client = await gateway.client(session=not modern)
            result = await listed(client, modern)
            assert [tool["name"] for tool in result["tools"]] == ["crm__x"] and "vault" not in json.dumps(result)
            for name in ("vault__x", "nowhere__x"):
                assert gone((await call(client, name))["error"], name)

    run(main)


def test_who_sees_something_of_a_server_hears_that_it_is_away() -> None:
    async def main() -> None:
        engine = Judge(lambda asked: asked["resource"]["upstream_name"] != "y", slow=True)
        crm = FakeServer(tools=tools("x", "y"))
        async with FakeServer(tools=tools("z")) as one:
            servers = {"one": spec("one", one.url)}
            async with crm:
                servers["crm"] = spec("crm", crm.url)
                running = Running(servers, engine=engine)
                gateway = await running.__aenter__()
                client = await gateway.client()
                assert len((await listed(client, True))["tools"]) == 2
            try:
                gateway.pass_time(400.0)
                client = await gateway.client()
                missing = (await listed(client, True))["_meta"].get("narthex/missing", [])
                assert [lost["server"] for lost in missing] == ["crm"]
                assert (await call(client, "crm__new"))["error"]["code"] == -31005
            finally:
                await running.__aexit__()

    run(main)


@pytest.mark.parametrize("naming", ["crm", "vault"], ids=["of a server that is seen", "of one that is hidden"])
@pytest.mark.parametrize("granted", [True, False], ids=["by the engine", "by a grant beside it"])
def test_the_engine_is_asked_of_what_is_missing_as_of_what_is_hidden(naming: str, granted: bool) -> None:
    """No clock tells them apart: each takes the same questions, the first time and later."""

    async def main() -> None:
        hides = ("crm__secret",) if granted else ()

        def rule(asked: dict[str, Any]) -> bool:
            return asked["resource"]["server"] not in ("vault", "") and asked["resource"]["name"] not in hides

        grants = () if granted else (
            Grant("all", "allow", tools=("*",)), Grant("not this", "deny", tools=("crm__secret",)),
        )  # fmt: skip
        engine = Judge(rule, slow=True)
        async with (
            FakeServer(tools=tools("x", "secret")) as one,
            FakeServer(tools=tools("secret")) as two,
            Running(
                {"crm": spec("crm", one.url), "vault": spec("vault", two.url)},
                settings={"grants": grants},
                engine=engine,
            ) as gateway,
        ):
            client = await gateway.client()
            await listed(client, True)
            counts = []
            for name in (f"{naming}__secret", f"{naming}__missing", "nowhere__missing"):
                asked = []
                for _ in range(3):
                    before = len(engine.asked)
                    assert gone((await call(client, name))["error"], name)
                    asked.append(len(engine.asked) - before)
                counts.append(asked)
            hidden, *missing = counts
            assert missing[0] == missing[1] == [1, 0, 0]
            # The list has decided of it before: that is no more than being remembered.
            assert hidden in ([1, 0, 0], [0, 0, 0])

    run(main)


def test_a_hidden_server_logs_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    decided: list[tuple[str, bool]] = []
    may_hear = Beside._may_hear

    async def spied(self: Beside, listener: Any, server: str) -> bool:
        found = await may_hear(self, listener, server)
        decided.append((server, found))
        return found

    monkeypatch.setattr(Beside, "_may_hear", spied)

    async def main() -> None:
        engine = Judge(without("vault"), slow=True)
        async with (
            Teller() as crm,
            Teller() as vault,
            Running({"crm": spec("crm", crm.url), "vault": spec("vault", vault.url)}, engine=engine) as gateway,
        ):
            client, stream = await hearing(gateway, "debug")
            await heard(crm)
            await heard(vault)
            await listed(client, False)
            log(vault, "error", SECRET)
            await until(lambda: decided)
            log(crm, "error", "x")
            assert await logged(stream) == "x"
            assert decided == [("vault", False), ("crm", True)]

    run(main)


async def updated(stream: Hearing) -> Any:
    """The next resource that is told of: lists may have changed meanwhile, too."""
    while (told := await stream.told())[0] != "resources/updated":
        pass
    return told[1]


@EACH_ERA
@pytest.mark.parametrize("seen", [True, False], ids=["visible", "hidden by now"])
def test_who_subscribed_hears_on_when_the_engine_has_to_be_asked_again(modern: bool, seen: bool) -> None:
    """What an engine shows stays decided for a while; then news wait for it, and are not lost."""

    async def main() -> None:
        now, shows, other = [1000.0], [True], "test://other"
        engine = Judge(lambda asked: shows[0], slow=True, seen_s=10.0)
        answers = {"resources/list": resources(WATCHED, other)}
        async with (
            Teller(answers=answers) as one,
            Running({"one": spec("one", one.url)}, engine=engine, wall=lambda: now[0]) as gateway,
        ):
            if modern:
                stream = await listen(await gateway.client(), resourceSubscriptions=[WATCHED, other])
                await stream.message()
            else:
                client, stream = await hearing(gateway)
                for uri in (WATCHED, other):
                    assert (await subscribe(client, uri)).result == {}
            await heard(one)
            one.tell("notifications/resources/updated", uri=WATCHED)
            assert await updated(stream) == WATCHED
            now[0] += 15.0
            shows[0], asked = seen, len(engine.asked)
            one.tell("notifications/resources/updated", uri=WATCHED)
            await until(lambda: len(engine.asked) > asked and not gateway.front.hub._background)
            if seen:
                assert await updated(stream) == WATCHED
            shows[0], now[0] = True, now[0] + 10.0
            one.tell("notifications/resources/updated", uri=other)
            assert await updated(stream) == other, "what was hidden is not told later"

    run(main)
