"""Our own resolver: what it remembers, and that a slow or failing name costs nobody else anything."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
import uvloop

from narthex.flow.upstream import dns
from narthex.flow.upstream.dns import TTL_S, Address, Resolver, system_lookup

HERE = (Address(socket.AF_INET, "127.0.0.1"),)
Run = Callable[[Awaitable[None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:

        async def bounded(work: Awaitable[None]) -> None:
            await asyncio.wait_for(work, 60)

        yield lambda work: runner.run(bounded(work))


class Names:
    """A resolver whose answers the test decides. `hold` names are answered when their gate opens."""

    def __init__(self, *hold: str) -> None:
        self.asked: list[str] = []
        self.fails = False
        self.gates = {name: threading.Event() for name in hold}
        self.now = 0.0

    def lookup(self, host: str) -> tuple[Address, ...]:
        self.asked.append(host)
        if host in self.gates:
            assert self.gates[host].wait(60)
        if self.fails:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return HERE

    def resolver(self) -> Resolver:
        return Resolver(self.lookup, lambda: self.now)


def test_an_answer_is_kept_for_thirty_seconds(run: Run) -> None:
    names = Names()

    async def work() -> None:
        resolver = names.resolver()
        for now in (0.0, TTL_S - 0.1, TTL_S, TTL_S + 1):
            names.now = now
            assert await resolver.addresses("a.test") == HERE
        assert names.asked == ["a.test", "a.test"]

    run(work())


def test_many_waiting_for_one_name_ask_once_and_one_giving_up_stops_nobody(run: Run) -> None:
    names = Names("a.test")

    async def work() -> None:
        resolver = names.resolver()
        tasks = [asyncio.ensure_future(resolver.addresses("a.test")) for _ in range(10)]
        while not names.asked:
            await asyncio.sleep(0.001)
        tasks[0].cancel()
        names.gates["a.test"].set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert found[1:] == [HERE] * 9
        assert names.asked == ["a.test"]

    run(work())


def test_a_name_that_hangs_stalls_no_other(run: Run) -> None:
    hanging = [f"slow{number}.test" for number in range(dns.THREADS - 1)]
    names = Names(*hanging)

    async def work() -> None:
        resolver = names.resolver()
        tasks = [asyncio.ensure_future(resolver.addresses(name)) for name in hanging]
        assert await resolver.addresses("quick.test") == HERE
        assert not any(task.done() for task in tasks)
        for gate in names.gates.values():
            gate.set()
        assert await asyncio.gather(*tasks) == [HERE] * len(hanging)

    run(work())


def test_a_stale_answer_is_better_than_an_error(run: Run) -> None:
    names = Names()

    async def work() -> None:
        resolver = names.resolver()
        await resolver.addresses("a.test")
        names.now, names.fails = TTL_S + 1, True
        assert await resolver.addresses("a.test") == HERE
        with pytest.raises(OSError):
            await resolver.addresses("never-known.test")
        names.fails = False
        assert await resolver.addresses("never-known.test") == HERE, "a failure is not remembered"

    run(work())


def test_a_stale_answer_is_better_than_a_long_wait(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "PATIENCE_S", 0.01)
    names = Names()

    async def work() -> None:
        resolver = names.resolver()
        await resolver.addresses("a.test")
        names.now = TTL_S + 1
        names.gates["a.test"] = threading.Event()
        assert await resolver.addresses("a.test") == HERE
        names.gates["a.test"].set()
        while len(names.asked) < 2 or resolver._asking:
            await asyncio.sleep(0.001)
        names.asked.clear()
        assert await resolver.addresses("a.test") == HERE
        assert names.asked == [], "the slow answer is fresh for those who come later"

    run(work())


@pytest.mark.parametrize("host", ["no-such-name.invalid", "a" * 64 + ".test", "a..b", "\ud800.test"])
def test_what_has_no_address_is_an_oserror(run: Run, host: str) -> None:
    async def work() -> None:
        with pytest.raises(OSError):
            await Resolver(system_lookup, lambda: 0.0).addresses(host)

    run(work())


def test_the_machines_own_resolver_knows_localhost() -> None:
    found = system_lookup("localhost")
    assert {address.ip for address in found} <= {"127.0.0.1", "::1"}
    assert found


def test_what_is_remembered_is_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "MOST_HOSTS", 4)
    names = Names()

    async def work() -> None:
        resolver = names.resolver()
        for number in range(20):
            await resolver.addresses(f"{number}.test")
        assert len(resolver._known) == 4

    run(work())
