"""One call taken apart: what each step costs, in microseconds, with no kernel, no network and no event loop in it.

`python bench/steps.py [--era modern|legacy] [--repeats N] [--out FILE]` (`make bench-steps`). The real functions on a
real gateway's objects (`rooms.py`). Two tables. *In its place*: the call is cut off after each step in turn, and what
the next cut adds is the step's cost; these sum to the call. *Alone*: a function by itself, over and over, with the
arguments of that call. The processor then has all of it at hand, so it costs far less than in its place; good for
judging a change. Each figure is the least of many repeats in turn: the machine can only add. Writes
`bench/results/steps.json`.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import identity
import uvloop
from canned import answer
from granted import granted
from kept import looked_up, recorded
from report import RESULTS, facts_line, steps_table, write_results
from rig import MEASURED, BenchError, facts
from rooms import Rooms, quick_reply, rooms, zero_first
from traced import traced
from watched import watched

from narthex.authority.accounts import Means
from narthex.authority.credentials import StaticAccount
from narthex.flow import walk
from narthex.flow.accept import front, hearing, posting
from narthex.flow.accept.exchange import Exchange
from narthex.flow.accept.front import Front
from narthex.flow.accept.listener import Connection
from narthex.flow.accept.sessions import Sessions
from narthex.flow.upstream import http
from narthex.flow.upstream.connection import HttpConnection
from narthex.flow.upstream.fleet import Fleet
from narthex.flow.upstream.http import HttpCall, HttpChannel
from narthex.flow.upstream.port import NOTHING_SHOWN
from narthex.flow.whole import AnswerReader, RequestReader
from narthex.telemetry.accounts import Counter
from narthex.types import HeaderCredential, SecretName, SecretText

Line = dict[str, Any]


@dataclass(frozen=True)
class Timed:
    """Something to time. `cut` names functions (owner, name) that do nothing meanwhile, or what a third says."""

    room: str
    step: str
    run: Callable[[], Any]
    cut: tuple[tuple[Any, ...], ...] = ()


def _nothing(*_: Any, **__: Any) -> None: ...


def least(timed: Sequence[Timed], repeats: int, number: int = 100) -> list[float]:
    """Microseconds of each: the least of `repeats` times `number` runs, the loop's own cost taken off.

    They take turns, so that all have had the machine at its fastest.
    """
    everything = (Timed("", "", _nothing), *timed)
    best = [float("inf")] * len(everything)
    for _ in range(repeats):
        for index, one in enumerate(everything):
            kept = [(owner, name, getattr(owner, name)) for owner, name, *_ in one.cut]
            for owner, name, *other in one.cut:
                setattr(owner, name, other[0] if other else _nothing)
            best[index] = min(best[index], _run(one.run, number))
            for owner, name, was in kept:
                setattr(owner, name, was)
    return [max(0.0, one - best[0]) / number / 1000 for one in best[1:]]


def _run(run: Callable[[], Any], number: int) -> int:
    began = time.perf_counter_ns()
    for _ in range(number):
        run()
    return time.perf_counter_ns() - began


def in_place(r: Rooms, repeats: int) -> list[Line]:
    """The call cut off after each step in turn; each line is what its step adds to the one before."""
    gateway, server = r.gateway, r.gateway.fleet.servers["server"]
    upstream = cast(HttpConnection, r.server.protocol)
    channel = next(iter(server.channels.values()))

    def whole() -> None:
        r.connection.data_received(r.request)
        reset()

    def silent() -> None:
        r.server.silent = True
        r.connection.data_received(r.request)
        r.server.silent = False
        reset()

    def reset() -> None:
        """What a call that was cut off has left behind, in every case alike."""
        r.connection.busy, r.connection.fresh, r.connection.exchange = False, True, None
        gateway.front.calls.active.clear()
        server.in_flight = channel.open_calls = 0
        upstream._receiver, upstream._begun = None, False
        r.pool.idle[:] = [upstream]

    over = ((Exchange, "finished"), (Exchange, "message"))
    cuts = [
        Timed("", "", reset),
        Timed("accept", "read the request: llhttp, bounds", whole, ((gateway.shared, "handle"),)),
        Timed("accept", "Host and Origin, path", whole, ((front, "post"),)),
        Timed(
            "codec", "decode, era, session, parameters, routing headers; the exchange", whole, ((Exchange, "start"),)
        ),
        Timed("walk", "find the tool and the channel, re-encode", whole, ((HttpChannel, "request"),)),
        Timed("upstream", "take a connection, write the request", silent),
        Timed("upstream", "read the answer: llhttp, pool", whole, ((HttpCall, "whole"),)),
        Timed("codec", "decode the answer", whole, over),
        Timed("codec", "the answer with the client's id", whole, ((Exchange, "finished"), (Exchange, "respond"))),
        Timed("accept", "write the answer", whole, ((Exchange, "finished"), (Front, "account"))),
        Timed("telemetry", "account", whole, ((Exchange, "finished"),)),
        Timed("walk", "end the walk and the exchange", whole),
    ]
    sent = bytes(r.server.last)
    *costs, harness = least([*cuts, Timed("", "", lambda: quick_reply(r.server.quick, sent))], repeats)
    lines = []
    for index, cut in enumerate(cuts[1:], 1):
        added = costs[index] - costs[index - 1] - (harness if cut.step.startswith("read the answer") else 0.0)
        lines.append({"room": cut.room, "step": cut.step, "us": max(0.0, added)})
    return lines


ALONE: tuple[tuple[str, Any, str], ...] = (
    ("codec", RequestReader, "read"),
    ("codec", posting, "decode_request"),
    ("codec", posting, "read_params"),
    ("accept", Sessions, "find"),
    ("route", Fleet, "viewer"),
    ("route", Fleet, "find_now"),
    ("walk", walk, "outgoing_body"),
    ("codec", AnswerReader, "read"),
    ("codec", http, "decode_incoming"),
    ("codec", hearing, "response_parts"),
    ("accept", Connection, "respond"),
    ("telemetry", Counter, "add"),
)
"""Functions that a call passes, and where they are looked up."""


def alone(r: Rooms, repeats: int) -> list[Line]:
    """Functions that a call passes, each by itself, with the arguments that this very call gives it."""
    given: dict[int, Callable[[], Any]] = {}

    def listen(index: int, real: Callable[..., Any]) -> Callable[..., Any]:
        def listening(*arguments: Any, **named: Any) -> Any:
            given[index] = functools.partial(real, *arguments, **named)
            return real(*arguments, **named)

        return listening

    kept = [(owner, name, getattr(owner, name)) for _, owner, name in ALONE]
    for index, (owner, name, real) in enumerate(kept):
        setattr(owner, name, listen(index, real))
    r.connection.data_received(r.request)
    for owner, name, real in kept:
        setattr(owner, name, real)
    timed = [Timed(ALONE[index][0], _named(index), step) for index, step in sorted(given.items())]
    return [
        {"room": one.room, "step": one.step, "us": us} for one, us in zip(timed, least(timed, repeats), strict=True)
    ]


def _named(index: int) -> str:
    _, owner, name = ALONE[index]
    return f"`{owner.__name__}.{name}`" if isinstance(owner, type) else f"`{name}`"


class Held:
    """One secret. See `authority.port.Secrets`."""

    version = 0

    def get(self, name: str) -> str:
        return "k" * 1000


def injected(r: Rooms, repeats: int) -> Line:
    """What a call costs more when the server is shown a credential of a thousand characters."""
    channel = cast(HttpChannel, next(iter(r.gateway.fleet.servers["server"].channels.values())))
    means = Means(Held(), cast(Any, None), time.monotonic, time.time, lambda: 0.5, str)
    account = StaticAccount(HeaderCredential("key", "X-Key", SecretText((SecretName("key"),))), means)

    def showing(shown: Any) -> Callable[[], None]:
        def call() -> None:
            channel.shown = shown
            r.connection.data_received(r.request)

        return call

    without, with_it = least(
        [Timed("", "", showing(NOTHING_SHOWN)), Timed("", "", showing(account))], max(repeats, 100), number=200
    )
    channel.shown = NOTHING_SHOWN
    return {"room": "upstream", "step": "a credential shown to the server", "us": max(0.0, with_it - without)}


def identified(repeats: int) -> list[Line]:
    """What it costs to know who calls, beside a call without an identity."""
    timed = [Timed("identity", step, run) for step, run in identity.steps()]
    costs = least(timed, repeats, number=20)
    return [{"room": one.room, "step": one.step, "us": us} for one, us in zip(timed, costs, strict=True)]


async def taken_apart(era: str, repeats: int) -> tuple[list[Line], list[Line]]:
    """In place, and alone."""
    with tempfile.TemporaryDirectory(prefix="narthex-steps-") as folder:
        r = await rooms(Path(folder), era)
        try:
            r.server.quick = zero_first(answer(bytes(r.server.last).partition(b"\r\n\r\n")[2], era, 10).messages[0])
            r.connection.data_received(r.request)
            if b"call 7" not in r.client.last:
                raise BenchError(f"not an answer: {r.client.last!r}")
            placed, by_itself = in_place(r, repeats), alone(r, repeats)

            def plain(runs: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
                return least([Timed("", "", run) for run in runs], repeats)

            records = recorded(r, plain, repeats, Path(folder) / "audit")
            return placed, [
                *by_itself,
                looked_up(plain, repeats),
                injected(r, repeats),
                *records,
                *identified(repeats),
                *granted(r, plain, repeats),
                *watched(r, plain, repeats),
                *traced(r, plain, repeats),
            ]
        finally:
            r.server.silent = True
            await r.gateway.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--era", choices=("modern", "legacy"), default="modern")
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {MEASURED})
    try:
        placed, by_itself = uvloop.run(taken_apart(given.era, given.repeats))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    results = {"kind": "steps", "facts": facts(), "era": given.era, "steps": placed, "alone": by_itself}
    print(f"{facts_line(results)}\n\n{steps_table(results)}")
    if given.out or given.era == "modern":
        write_results(results, given.out or RESULTS / "steps.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
