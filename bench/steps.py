"""One call taken apart: what each step costs, in microseconds, with no kernel, no network and no event loop in it.

`python bench/steps.py [--era modern|legacy] [--repeats N] [--out FILE]` (`make bench-steps`). The real functions on a
real gateway's objects (`rooms.py`). Two tables. *In its place*: the call is cut off after each step in turn, and a
step's cost is what the next cut adds; these sum to the call. *Alone*: a function by itself, over and over: the processor
then has all of it at hand, so it costs half of what it costs in its place; good for judging a change to it. Each figure
is the least of many repeats in turn: the machine can only add. Writes `bench/results/steps.json`.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvloop
from canned import answer
from report import RESULTS, facts_line, steps_table, write_results
from rig import MEASURED, BenchError, facts
from rooms import REPLY, TOOL, Nowhere, Rooms, quick_reply, rooms, zero_first

from narthex.flow.accept.exchange import JSON, Exchange
from narthex.flow.accept.front import Front
from narthex.flow.accept.listener import Connection, HttpRequest
from narthex.flow.codec.bridge import response_parts
from narthex.flow.codec.headers import check_routing_headers
from narthex.flow.codec.jsonrpc import decode_incoming, decode_request, read_params
from narthex.flow.codec.revisions import check_method, check_modern_meta, era_of, read_meta
from narthex.flow.upstream.http import HttpCall, HttpChannel, HttpConnection
from narthex.flow.upstream.port import Outgoing
from narthex.flow.walk import exchange
from narthex.telemetry.accounts import OUTCOME
from narthex.types import LOCAL, Call, Session

Line = dict[str, Any]


@dataclass(frozen=True)
class Timed:
    """Something to time. `cut` names functions (owner, name) that do nothing meanwhile."""

    room: str
    step: str
    run: Callable[[], Any]
    cut: tuple[tuple[Any, str], ...] = ()


def _nothing(*_: Any, **__: Any) -> None: ...


def least(timed: Sequence[Timed], repeats: int, number: int = 100) -> list[float]:
    """Microseconds of each: the least of `repeats` times `number` runs, the loop's own cost taken off.

    They take turns, so that all have had the machine at its fastest.
    """
    everything = (Timed("", "", _nothing), *timed)
    best = [float("inf")] * len(everything)
    for _ in range(repeats):
        for index, one in enumerate(everything):
            kept = [(owner, name, getattr(owner, name)) for owner, name in one.cut]
            for owner, name in one.cut:
                setattr(owner, name, _nothing)
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
        r.connection.busy, r.connection.exchange = False, None
        gateway.front.active.clear()
        server.in_flight = channel.open_calls = 0
        upstream._receiver, upstream._begun = None, False
        r.pool.idle[:] = [upstream]

    over = ((Exchange, "finished"), (Exchange, "message"))
    cuts = [
        Timed("", "", reset),
        Timed("accept", "read the request: llhttp, bounds", whole, ((gateway.shared, "handle"),)),
        Timed("accept", "Host and Origin, path", whole, ((Front, "_post"),)),
        Timed("codec", "decode, era, session, parameters, routing headers", whole, ((Front, "_dispatch"),)),
        Timed("accept", "make the exchange", whole, ((Exchange, "start"),)),
        Timed("walk", "find the tool and the channel, re-encode", whole, ((HttpChannel, "request"),)),
        Timed("upstream", "take a connection, write the request", silent),
        Timed("upstream", "read the answer: llhttp, pool", whole, ((HttpCall, "end"),)),
        Timed("codec", "decode the answer", whole, over),
        Timed("codec", "the answer with the client's id", whole, ((Exchange, "finished"), (Exchange, "_respond"))),
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


class _Receiver:
    """Takes the parts of an answer and drops them."""

    head = body = end = lost = staticmethod(_nothing)


class _Sink:
    """Takes an answer as MCP and drops it."""

    started = message = splice = chunk = finished = failed = staticmethod(_nothing)


def alone(r: Rooms, era: str, repeats: int) -> list[Line]:
    """The functions that a call passes, each by itself, on what this very call gives it."""
    front, fleet = r.gateway.front, r.gateway.fleet
    seen: list[HttpRequest] = []

    def at_once(connection: Connection, request: HttpRequest) -> None:
        seen[:] = [request]
        connection.done()

    answering = copy.copy(r.gateway.shared)
    answering.handle = at_once
    bare = Connection(answering)  # its requests are read, and answered with nothing
    bare.connection_made(Nowhere())
    bare.data_received(r.request)
    request = seen[0]
    headers = request.headers
    message = decode_request(request.body)
    version, said_era = era_of(headers.get(b"mcp-protocol-version"), message, request.body)
    params = read_params(message.params)
    session: Session | None = front.sessions.find(r.session, LOCAL, "default") if r.session else None
    call = Call(message.method, params, read_meta(params), b"7", said_era, version, LOCAL, "default", session)
    endpoint = r.gateway.snapshot.endpoints["default"]
    viewer = fleet.viewer(endpoint, LOCAL, session)
    target = fleet.find_now(viewer, "tools", TOOL)
    channel = cast(HttpChannel, fleet.servers["server"].ready(viewer.scopes["server"]))
    assert target is not None and channel is not None
    body = bytes(r.server.last).partition(b"\r\n\r\n")[2]
    reply_body = answer(body, era, 10).messages[0]
    reply = REPLY % (len(reply_body), reply_body)
    upstream = cast(HttpConnection, r.server.protocol)
    sink, nobody, out = _Sink(), _Receiver(), Outgoing(7, "tools/call", body, target.name)
    incoming = decode_incoming(reply_body)
    result = bytes(incoming.result)
    parts = response_parts(call, channel.dialect.era, incoming, result)
    size = sum(map(len, parts))

    def meta_and_headers() -> None:
        found = read_meta(read_params(message.params))
        if said_era == "modern":
            check_modern_meta(found, version)
            check_routing_headers(headers, request.repeated, "tools/call", TOOL)
        check_method("tools/call", said_era)

    def walk() -> None:
        steps = exchange(call)
        next(steps)
        steps.send(target)
        steps.send(channel)
        steps.close()

    def make_exchange() -> None:
        one = Exchange(front, r.connection, call, viewer, takes_events=True)
        front.active.add(one)
        front.forget(one)

    def send() -> None:
        r.server.silent = True
        channel.request(out, cast(Any, sink))
        r.server.silent = False
        upstream._receiver = None
        r.pool.idle.append(upstream)

    def read() -> None:
        r.pool.take()
        upstream._receiver = cast(Any, nobody)
        upstream.data_received(reply)

    def respond() -> None:
        bare.busy = True
        bare.respond(200, JSON, parts, size)

    def account() -> None:
        front.accounts.counter("default", "server", "tools/call", "echo").add(OUTCOME["ok"], 0.001, 0, size)

    timed = [
        Timed("accept", "read the request: llhttp, bounds", lambda: bare.data_received(r.request)),
        Timed("accept", "Host and Origin", lambda: front._hosts.check("127.0.0.1", request)),
        Timed("codec", "decode the envelope", lambda: decode_request(request.body)),
        Timed("codec", "era", lambda: era_of(headers.get(b"mcp-protocol-version"), message, request.body)),
        Timed("codec", "parameters, _meta, routing headers", meta_and_headers),
        Timed("route", "view", lambda: fleet.viewer(endpoint, LOCAL, session)),
        Timed("route", "name", lambda: fleet.find_now(viewer, "tools", TOOL)),
        Timed("accept", "the exchange, made and forgotten", make_exchange),
        Timed("walk", "its steps, re-encoding for the server among them", walk),
        Timed("upstream", "take a connection, write the request", send),
        Timed("upstream", "read the answer: llhttp, pool", read),
        Timed("codec", "decode the answer", lambda: decode_incoming(reply_body)),
        Timed(
            "codec",
            "the answer with the client's id",
            lambda: response_parts(call, channel.dialect.era, incoming, result),
        ),
        Timed("accept", "write the answer", respond),
        Timed("telemetry", "account", account),
    ]
    if (handle := r.session) is not None:
        timed.insert(5, Timed("accept", "session", lambda: front.sessions.find(handle, LOCAL, "default")))
    costs = least(timed, repeats)
    return [{"room": one.room, "step": one.step, "us": us} for one, us in zip(timed, costs, strict=True)]


async def taken_apart(era: str, repeats: int) -> tuple[list[Line], list[Line]]:
    """In place, and alone."""
    with tempfile.TemporaryDirectory(prefix="narthex-steps-") as folder:
        r = await rooms(Path(folder), era)
        try:
            by_itself = alone(r, era, repeats)
            r.server.quick = zero_first(answer(bytes(r.server.last).partition(b"\r\n\r\n")[2], era, 10).messages[0])
            r.connection.data_received(r.request)
            if b"call 7" not in r.client.last:
                raise BenchError(f"not an answer: {r.client.last!r}")
            return in_place(r, repeats), by_itself
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
