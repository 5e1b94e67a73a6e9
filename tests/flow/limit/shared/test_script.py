"""The script on a real server, beside the limits in memory: what one grants and refuses, the other does, to the unit.

The time is handed in, in place of the server's own; windows are so long that nothing runs out there meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from narthex.errors import RateLimited
from narthex.flow.limit.algorithms import NEVER, TokenBucket
from narthex.flow.limit.limiter import Limiter, Place, Reservation
from narthex.flow.limit.shared import beginning, wire
from narthex.flow.limit.shared.beginning import BEGIN, begin_command, read_begun
from narthex.flow.limit.shared.wire import SCRIPT, Numbers, Remote, Request
from narthex.types import LimitRule, Principal
from tests.conftest import missing
from tests.counterparts import keeper
from tests.counterparts.keeper import Client, Keeper

SECOND = 1_000_000
HOUR = 3600 * SECOND
START = 1_800_000_000 * SECOND
ADA = Principal("acme", "https://idp", "ada", "bot")
HASHES = (b"t:ledgers", b"t:gateways")
RULES = (
    LimitRule("sliding", "calls", 7, window=HOUR),
    LimitRule("bucket", "calls", 7, algorithm="bucket", window=HOUR, burst=5),
    LimitRule("odd", "bytes_in", 7_000_000_000, algorithm="bucket", window=31 * 24 * HOUR, burst=30_000),
    LimitRule("fixed", "bytes_in", 40_000, algorithm="fixed", window=HOUR),
    LimitRule("day", "bytes_out", 90_000, algorithm="calendar", period="day", zone="Europe/Lisbon"),
    LimitRule("open", "concurrent", 4, algorithm="concurrent"),
    LimitRule("soft", "calls", 3, window=HOUR, soft=True, alerts=(50, 100)),
)


@pytest.fixture(scope="module", params=keeper.KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    if keeper.program(request.param) is None:
        missing(request.param, keeper.INSTALLED_BY[request.param])
    with keeper.serving(request.param, tmp_path_factory.mktemp("keeper")) as one:
        yield one


def timed(script: bytes) -> bytes:
    """The same script by a time that is handed in. Its keys outlive the test: the server's own time passes too."""
    found = script.replace(b"call('TIME')", b"{0, ARGV[#ARGV]}").replace(b"redis.{0,", b"{0,")
    assert found != script
    return found.replace(b"'PX', ttl", b"'PX', ttl + 3600000")


SETTINGS = settings(max_examples=60, stateful_step_count=40, phases=(Phase.explicit, Phase.reuse, Phase.generate))
"""Shrinking asks a server so often that it takes minutes."""


class Gateway:
    """What a gateway asks, one request at a time."""

    def __init__(self, client: Client, holder: int, ledger: bytes = b"L") -> None:
        self.client, self.holder, self.ledger, self.number = client, holder, ledger, 0
        self.token = b""
        self.hashes = [str(client("SCRIPT", "LOAD", timed(one)), "ascii").encode() for one in (SCRIPT, BEGIN)]

    def _say(self, said: bytes, now: int) -> Any:
        """Under the hash of the timed script, with the time as the last argument."""
        head, _, rest = said.partition(b"\r\n")
        rest = rest.replace(wire.SHA, self.hashes[0]).replace(beginning.BEGIN_SHA, self.hashes[1])
        return self.client.say(b"*%d\r\n" % (int(head[1:]) + 1) + rest + wire.bulk(b"%d" % now))

    def begin(self, now: int, before: int = 0, restored: bytes = b"") -> wire.Begun:
        said = read_begun(self._say(begin_command(HASHES, self.ledger, self.holder, before, restored), now))
        if said.state == 0:
            self.token = said.token
        return said

    def count(self, now: int) -> None:
        """Begin, with nothing to restore."""
        said = self.begin(now)
        if said.state == 2:
            self.begin(now, restored=said.token)
        assert self.token

    def ask(self, request: Request, now: int, *, token: bytes = b"", chunk: int = 0) -> Numbers:
        self.number += 1
        who = (self.ledger, token or self.token, self.holder, self.number)
        return Numbers(self._say(request.command(HASHES, who, chunk), now))


@dataclass
class Shared:
    """The limits of one gateway on the server, with the calls that it has under way."""

    gateway: Gateway
    places: tuple[Place, ...]
    remotes: list[Remote] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.remotes = [Remote(limit, b"t:") for *_, limit in self.places]

    def request(self, now: int, kind: int, *columns: Any) -> Request:
        request = Request(now)
        request.ops += [kind, len(self.places)]
        for at, (_, _, key, _) in enumerate(self.places):
            request.ops += [request.bucket(self.remotes[at], key), *(column[at] for column in columns)]
        return request

    def take(self, amounts: tuple[int, ...], now: int) -> tuple[tuple[int, int], list[int]]:
        """What stands in the way and for how long, or the receipts."""
        said = self.gateway.ask(self.request(now, 1, amounts), now)
        assert said.begun
        (granted,) = said.take(1)
        pairs = said.take(2 * len(self.places))
        by, wait = (-1, 0) if granted else said.take(2)
        said.end()
        if not granted:
            return (by, wait), []
        return (-1, 0), [now, *pairs[1::2]]

    def correct(self, changes: tuple[int, ...], receipts: list[int], now: int) -> list[int]:
        at, *lacked = receipts
        said = self.gateway.ask(self.request(now, 2, changes, [at] * len(changes), lacked), now)
        (count,) = said.take(1)
        found = said.take(3 * count)
        said.end()
        return found

    def used(self, now: int) -> list[tuple[int, int]]:
        said = self.gateway.ask(self.request(now, 3), now)
        pairs = said.take(2 * len(self.places))
        said.end()
        return [
            (used, wire.until_full(limit, resets) if isinstance(algorithm, TokenBucket) else resets)
            for (algorithm, _, _, limit), used, resets in zip(self.places, pairs[::2], pairs[1::2], strict=True)
        ]


class Beside(RuleBasedStateMachine):
    """Two gateways on one server beside one limiter in memory."""

    client: ClassVar[Client]

    def __init__(self) -> None:
        super().__init__()
        self.client("FLUSHALL")
        self.now = START
        self.limiter = Limiter(RULES, lambda: self.now)
        self.binding = self.limiter.binding(ADA, "default", "tools", "git", "log")
        places = self.binding.places
        self.both = [Shared(Gateway(self.client, number), places) for number in (7, 2**52 + 1)]
        self.open: list[tuple[Shared, Reservation, list[int]]] = []
        for one in self.both:
            one.gateway.count(self.now)

    def _live(self) -> None:
        for one in self.both:
            one.gateway.begin(self.now)  # however much time has passed

    @rule(gap=st.sampled_from((1, 40 * SECOND, 7 * 60 * SECOND + 1, HOUR // 3, HOUR)))
    def time_passes(self, gap: int) -> None:
        self.now += gap
        self._live()

    @rule(which=st.integers(0, 1), calls=st.integers(0, 3), size=st.integers(0, 12_000), answer=st.integers(0, 40_000))
    def take(self, which: int, calls: int, size: int, answer: int) -> None:
        demand = {"calls": calls, "concurrent": min(calls, 1), "bytes_in": size, "bytes_out": answer}
        amounts = tuple(demand[limit.rule.unit] for *_, limit in self.binding.places)
        (by, wait), receipts = self.both[which].take(amounts, self.now)
        try:
            held = self.limiter.take(self.binding, self.binding.places, amounts)
        except RateLimited as refused:
            assert by >= 0 and self.binding.places[by][3].rule.name == refused.limit
            said = (refused.data or {}).get("retryAfterSeconds")
            assert wait == NEVER if said is None else abs(said - wait / SECOND) <= 1
        else:
            assert by == -1
            self.open.append((self.both[which], held, receipts))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), size=st.integers(0, 50_000))
    def settle(self, data: st.DataObject, size: int) -> None:
        shared, held, receipts = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        changes = tuple(
            -amount if limit.rule.unit == "concurrent" else size - amount if limit.rule.unit == "bytes_out" else 0
            for (*_, limit), amount in zip(held.places, held.amounts, strict=True)
        )
        told = shared.correct(changes, receipts, self.now)
        self.limiter.settle(held, {"bytes_out": size})
        ours = [(one.share, one.used) for one in self.limiter.alerts(held)]
        assert [(told[at + 1], told[at + 2]) for at in range(0, len(told), 3)] == ours

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        shared, held, receipts = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        shared.correct(tuple(-amount for amount in held.amounts), receipts, self.now)
        self.limiter.give_back(held)
        self.limiter.alerts(held)

    @invariant()
    def both_say_the_same_of_what_is_used(self) -> None:
        ours = [algorithm.used(shard, key, self.now) for algorithm, shard, key, _ in self.binding.places]
        for (used, resets), (theirs, their_resets), (*_, limit) in zip(
            ours, self.both[0].used(self.now), self.binding.places, strict=True
        ):
            # What is not whole in a double is rounded, so that it never gives too much.
            assert theirs - used in ((0, 1) if limit.rule.name == "odd" else (0,)), limit.rule.name
            assert abs(resets - their_resets) <= 1 + 10 * (limit.rule.name == "odd"), limit.rule.name


def test_it_counts_as_the_limits_in_memory_do(server: Keeper) -> None:
    client = server.client()
    machine = type("Machine", (Beside,), {"client": client})
    run_state_machine_as_test(machine, settings=SETTINGS)
    client.close()
