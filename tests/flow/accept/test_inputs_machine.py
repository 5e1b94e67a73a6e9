"""Many calls at once whose servers ask: asked, answered, retried, taken back, cancelled, expired, in any order.

Beside the gateway runs a model of what is open. After every step both agree; no question is answered twice; and when
all is over nothing is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from narthex.flow.accept.inputs import HOLD_S, MOST_OPEN, Inputs
from tests.flow.accept.asking import (
    ANSWERS,
    MANUAL,
    META_ABLE,
    QUESTIONS,
    Asker,
    Live,
    answer,
    arguments_of,
    ask_modern,
    beside,
    event,
    kind_of,
    legacy_client,
    nothing_left,
    retry_of,
)
from tests.flow.gateway import Answer, Client, Running, spec, until

T = TypeVar("T")
KINDS = st.sampled_from(sorted(QUESTIONS))
ROUNDS = [["roots", "form"], ["sampling"]]
pick = st.randoms(use_true_random=False)


class Talk:
    """One call, as the model knows it. `open`: questions without an answer, by their server's id for them."""

    def __init__(self, client: Client, *, modern: bool) -> None:
        self.client = client
        self.modern = modern
        self.open: dict[str, str] = {}
        self.told: Answer | None = None
        """What a modern client was asked last; while it is `away` the call is held."""
        self.away = False
        self.over = False
        self.stale: Answer | None = None


class Pushed(Talk):
    """A call to a legacy server. `ids`: what a question is called by the client that was asked."""

    def __init__(self, client: Client, live: Live, *, modern: bool) -> None:
        super().__init__(client, modern=modern)
        self.live = live
        self.ids: dict[str, Any] = {}
        self.answered: set[str] = set()
        self.ended: str | None = None
        """How the server ended while its client was away."""


class Rounds(Talk):
    """A legacy client's call to a modern server, which asks round by round."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, modern=False)
        self.rounds = [list(one) for one in ROUNDS]


class InputsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.talks: list[Talk] = []
        self.all: list[Pushed] = []
        self.blamed = 0
        self.run(self.begin())

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(60):
                return await main

        return self.loop.run_until_complete(bounded())

    async def begin(self) -> None:
        self.legacy, self.modern = Asker(eras="legacy"), Asker(eras="modern")
        await self.legacy.__aenter__()
        await self.modern.__aenter__()
        servers = {
            "one": spec("one", self.legacy.url, sharing="session"),
            "two": spec("two", self.modern.url, sharing="session"),
        }
        self.gateway = Running(servers)
        await self.gateway.__aenter__()

    # --- the model

    def alive(self, suits: Callable[[Any], object] = bool) -> list[Any]:
        return [one for one in self.talks if not one.over and suits(one)]

    def pushed(self, suits: Callable[[Pushed], object]) -> list[Pushed]:
        return [one for one in self.alive() if isinstance(one, Pushed) and suits(one)]

    def idle(self) -> int:
        """Calls that wait for their server."""
        return sum(not (one.open or one.away) for one in self.alive())

    def end(self, talk: Talk) -> None:
        talk.over = True
        talk.open.clear()
        talk.away = False

    @invariant()
    def the_gateway_agrees(self) -> None:
        front, fleet = self.gateway.front, self.gateway.fleet
        alive = self.alive()

        def agrees() -> bool:
            return (
                len(front.calls.active) == len(alive)
                and len(front.calls.held) == sum(one.away for one in alive)
                and len(front.calls.pushes) == sum(len(one.open) for one in alive if not one.modern)
                and sum(one.in_flight for one in fleet.servers.values()) == len(alive)
                and all(
                    [len(found) for found in one.live.answers.values()]
                    == [int(id_ in one.answered) for id_ in one.live.answers]
                    for one in self.all
                )
            )

        self.run(until(agrees))

    # --- calls begin

    @precondition(lambda self: len(self.alive()) < 4)
    @rule(modern=st.booleans())
    def calls_a_legacy_server(self, modern: bool) -> None:
        async def main() -> None:
            client = await (self.gateway.client() if modern else legacy_client(self.gateway))
            before = len(self.legacy.lives)
            client.send("tools/call", MANUAL, modern=modern, meta=META_ABLE if modern else None)
            await until(lambda: len(self.legacy.lives) > before)
            if not modern:
                await client.read_head()
            talk = Pushed(client, self.legacy.lives[before], modern=modern)
            self.talks.append(talk)
            self.all.append(talk)

        self.run(main())

    @precondition(lambda self: len(self.alive()) < 4)
    @rule()
    def calls_a_modern_server(self) -> None:
        async def main() -> None:
            client = await legacy_client(self.gateway)
            client.send("tools/call", {**arguments_of(rounds=ROUNDS), "name": "two__ask"})
            await client.read_head()
            talk = Rounds(client)
            self.talks.append(talk)
            await self.next_round(talk)

        self.run(main())

    async def next_round(self, talk: Rounds) -> None:
        if not talk.rounds:
            assert "result" in await event(talk.client)
            self.end(talk)
            return
        for kind in talk.rounds.pop(0):
            asked = await event(talk.client)
            assert kind_of(asked["method"], asked["params"]) == kind
            talk.open[str(asked["id"])] = kind

    # --- a legacy server asks, takes back, ends

    @precondition(lambda self: self.pushed(lambda one: one.ended is None and len(one.open) < MOST_OPEN))
    @rule(random=pick, kind=KINDS)
    def asks(self, random: Any, kind: str) -> None:
        talk = random.choice(self.pushed(lambda one: one.ended is None and len(one.open) < MOST_OPEN))
        before = len(talk.open)

        async def main() -> None:
            id_ = talk.live.push(kind)
            talk.open[id_] = kind
            if not talk.modern:
                asked = await event(talk.client)
                assert kind_of(asked["method"], asked["params"]) == kind
                talk.ids[id_] = asked["id"]
            elif talk.away:
                await self.known(before + 1)
            else:
                talk.told = await talk.client.read()
                talk.away = True
                self.check_told(talk)

        self.run(main())

    def inputs_of(self, live: Live) -> Inputs:
        held = self.gateway.front.calls.held.values()
        (inputs,) = [one.inputs for one in held if one.out is not None and one.out.id == live.id]
        assert inputs is not None
        return inputs

    async def known(self, count: int) -> None:
        """The gateway has as many open questions for one of its held calls."""
        inputs = [one.inputs for one in self.gateway.front.calls.held.values()]
        await until(lambda: any(one is not None and len(one._open) == count for one in inputs))

    def check_told(self, talk: Talk) -> None:
        assert talk.told is not None
        assert [kind_of(**one) for one in talk.told.result["inputRequests"].values()] == list(talk.open.values())

    @precondition(lambda self: self.pushed(lambda one: one.open and not one.modern))
    @rule(random=pick)
    def takes_back(self, random: Any) -> None:
        talk = random.choice(self.pushed(lambda one: one.open and not one.modern))
        id_ = random.choice(sorted(talk.open))

        async def main() -> None:
            talk.live.send({"method": "notifications/cancelled", "params": {"requestId": id_}})
            told = await event(talk.client)
            assert told["params"]["requestId"] == talk.ids[id_]
            del talk.open[id_]

        self.run(main())

    @precondition(lambda self: self.pushed(lambda one: one.ended is None))
    @rule(random=pick, dies=st.booleans())
    def ends(self, random: Any, dies: bool) -> None:
        dies = dies and self.blamed < 4
        self.blamed += dies
        talk = random.choice(self.pushed(lambda one: one.ended is None))

        async def main() -> None:
            talk.live.die() if dies else talk.live.finish()
            if talk.away:
                talk.ended = "error" if dies else "result"
                inputs = self.inputs_of(talk.live)
                await until(lambda: inputs._ended)
                return
            if talk.modern:
                final = (await talk.client.read()).messages[-1]
            else:
                told = [await event(talk.client) for _ in talk.open]
                assert {one["method"] for one in told} <= {"notifications/cancelled"}
                final = await event(talk.client)
            assert ("error" if dies else "result") in final
            self.end(talk)

        self.run(main())

    # --- clients answer

    @precondition(lambda self: self.alive(lambda one: one.open and not one.modern))
    @rule(random=pick, twice=st.booleans())
    def answers(self, random: Any, twice: bool) -> None:
        talk = random.choice(self.alive(lambda one: one.open and not one.modern))
        id_ = random.choice(sorted(talk.open))

        async def main() -> None:
            other = await beside(self.gateway, talk.client)
            name = talk.ids[id_] if isinstance(talk, Pushed) else int(id_)
            for _ in range(1 + twice):
                assert (await answer(other, name, result=ANSWERS[talk.open[id_]])).status == 202
            del talk.open[id_]
            if isinstance(talk, Pushed):
                talk.answered.add(id_)
            elif not talk.open:
                await self.next_round(talk)

        self.run(main())

    @precondition(lambda self: self.pushed(lambda one: one.away))
    @rule(random=pick, all_of_it=st.booleans())
    def comes_back(self, random: Any, all_of_it: bool) -> None:
        talk = random.choice(self.pushed(lambda one: one.away))
        assert talk.told is not None
        right = retry_of(MANUAL, talk.told)
        keys = sorted(right["inputResponses"])
        chosen = keys if all_of_it else random.sample(keys, random.randrange(len(keys) + 1))
        told = list(talk.open)[: len(keys)]  # in the order in which they were asked

        async def main() -> None:
            params = {**right, "inputResponses": {key: right["inputResponses"][key] for key in chosen}}
            talk.client = await self.gateway.client()
            talk.client.send("tools/call", params, modern=True, meta=META_ABLE)
            talk.stale, talk.away = talk.told, False
            if talk.ended is not None:
                assert talk.ended in (await talk.client.read()).messages[-1]
                self.end(talk)
                return
            order = list(talk.told.result["inputRequests"]) if talk.told else []
            for key, id_ in zip(order, told, strict=True):
                if key in chosen:
                    del talk.open[id_]
                    talk.answered.add(id_)
            if talk.open:
                talk.told, talk.away = await talk.client.read(), True
                self.check_told(talk)

        self.run(main())

    @precondition(lambda self: any(one.stale is not None and not one.away for one in self.talks))
    @rule(random=pick)
    def replays_a_state(self, random: Any) -> None:
        talk = random.choice([one for one in self.talks if one.stale is not None and not one.away])

        async def main() -> None:
            got = await ask_modern(await self.gateway.client(), retry_of(MANUAL, talk.stale))
            assert got.error["code"] == -32602

        self.run(main())

    # --- clients give up

    @precondition(lambda self: self.alive(lambda one: not one.modern))
    @rule(random=pick, delete=st.booleans())
    def gives_up(self, random: Any, delete: bool) -> None:
        talk = random.choice(self.alive(lambda one: not one.modern))

        async def main() -> None:
            other = await beside(self.gateway, talk.client)
            if delete:
                other.http("DELETE", "/mcp", {"Mcp-Session-Id": talk.client.session})
                await other.read()
            else:
                await other.legacy("notifications/cancelled", {"requestId": 2}, id_=None)
            self.end(talk)

        self.run(main())

    @precondition(lambda self: self.alive(lambda one: one.modern and not one.away))
    @rule(random=pick)
    def closes(self, random: Any) -> None:
        talk = random.choice(self.alive(lambda one: one.modern and not one.away))
        talk.client.close()
        self.end(talk)

    @precondition(lambda self: self.alive() and self.blamed + self.idle() < 5)
    @rule()
    def time_passes(self) -> None:
        """Nobody answers, or the server hangs; with its fifth failure its breaker would open."""
        self.blamed += self.idle()

        async def main() -> None:
            self.gateway.pass_time(HOLD_S + 2)

        self.run(main())
        for talk in self.alive():
            self.end(talk)

    def teardown(self) -> None:
        async def main() -> None:
            self.gateway.pass_time(HOLD_S + 2)
            assert nothing_left(self.gateway)
            for one in self.all:
                assert all(len(found) <= 1 for found in one.live.answers.values())
            await self.gateway.__aexit__()
            await self.legacy.__aexit__()
            await self.modern.__aexit__()

        self.run(main())
        self.loop.close()


TestInputs = InputsMachine.TestCase
TestInputs.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
