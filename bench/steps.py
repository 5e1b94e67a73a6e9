"""One call taken apart: what each step costs by itself, in microseconds, with no kernel and no network in it.

`python bench/steps.py [--era modern|legacy] [--repeats N] [--out FILE]` (`make bench-steps`). The real functions on a
real gateway's objects; the two sockets are replaced by transports that write into nothing, and the server answers at
once. Each figure is the least of many repeats: the machine can only add. "glue" is what a call in one piece costs
beyond the sum of the steps. What `make bench` shows beyond all of it is the kernel's and the event loop's. Writes
`bench/results/steps.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvloop
from canned import answer
from clients import call as wire_call
from report import RESULTS, facts_line, steps_table, write_results
from rig import MEASURED, ROOT, BenchError, facts
from subjects import gateway_config, http_servers

sys.path.insert(0, str(ROOT / "src"))

from narthex.app import Gateway
from narthex.config.compile import load_snapshot
from narthex.flow.accept.exchange import JSON, Exchange
from narthex.flow.accept.listener import Connection, HttpRequest
from narthex.flow.codec.bridge import response_parts
from narthex.flow.codec.headers import check_routing_headers
from narthex.flow.codec.jsonrpc import decode_incoming, decode_request, read_params
from narthex.flow.codec.revisions import check_method, check_modern_meta, era_of, read_meta
from narthex.flow.upstream.http import HttpChannel, HttpConnection, HttpPool
from narthex.flow.upstream.port import Outgoing
from narthex.flow.walk import exchange
from narthex.telemetry.accounts import OUTCOME
from narthex.types import LOCAL, Call, Session

TOOL = "server__echo"
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


class Nowhere(asyncio.Transport):
    """A transport that keeps the last thing written, and does nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Any = b""

    def write(self, data: Any) -> None:
        self.last = data

    def writelines(self, list_of_data: Any) -> None:
        self.last = b"".join(list_of_data)

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 4711) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Server(Nowhere):
    """The server's end: `quick` answers within `write`, with a body made ready; else it reads, and answers properly."""

    def __init__(self, era: str) -> None:
        super().__init__()
        self.era = era
        self.quick = b""
        self.silent = False
        self.protocol: asyncio.Protocol

    def write(self, data: Any) -> None:
        self.last = data
        if self.silent:
            return
        if self.quick:
            at = data.index(b'"id":', data.index(b"\r\n\r\n")) + 5
            body = self.quick.replace(b"0", data[at : data.index(b",", at)], 1)
            self.protocol.data_received(REPLY % (len(body), body))
            return
        said = answer(data.partition(b"\r\n\r\n")[2], self.era, 10)
        body = said.messages[0] if said.messages else b""
        session = b"Mcp-Session-Id: abc\r\n" if said.opens_session else b""
        reply = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
        whole = reply % (said.status, session, len(body), body)
        asyncio.get_running_loop().call_soon(self.protocol.data_received, whole)


@dataclass
class Rooms:
    """A gateway whose sockets lead nowhere, and what a call of it looks like at each step."""

    gateway: Gateway
    connection: Connection
    client: Nowhere
    server: Server
    pool: HttpPool
    request: bytes
    session: bytes | None


class _Replaced:
    """Stands in for the pool's dialer: connects to `Server` instead of dialling, and passes everything else on."""

    def __init__(self, real: Any, era: str) -> None:
        self._real = real
        self._era = era
        self.server: Server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def dial(self, scheme: str, host: str, port: int, factory: Callable[[], Any], **_: Any) -> tuple[Any, Any]:
        protocol, self.server = factory(), Server(self._era)
        self.server.protocol = protocol
        protocol.connection_made(self.server)
        return self.server, protocol


async def rooms(folder: Path, era: str) -> Rooms:
    """Start a gateway on loopback ports, give it a client connection and a server that lead nowhere, make one call."""
    config, port, _ = gateway_config(folder, http_servers(9, {"server": f"/{era}/10"}))
    gateway = Gateway(load_snapshot(config))
    await gateway.start()
    pool = gateway.fleet.servers["server"].pool
    assert pool is not None
    dialer = _Replaced(pool.dialer, era)
    pool.dialer = cast(Any, dialer)
    client = Nowhere()
    connection = Connection(gateway.shared)
    connection.connection_made(client)
    handle = gateway.sessions.create(LOCAL, "default", "2025-11-25") if era == "legacy" else None
    request = wire_call(port, TOOL, 7, handle)
    connection.data_received(request)
    for _ in range(200):
        if b"call 7" in client.last:
            break
        await asyncio.sleep(0.01)
    else:
        raise BenchError(f"the gateway does not answer: {client.last!r}")
    return Rooms(gateway, connection, client, dialer.server, pool, request, handle.encode() if handle else None)


def least(steps: Sequence[Callable[[], Any]], repeats: int, number: int = 100) -> list[float]:
    """Microseconds of each step: the least of `repeats` times `number` runs, the loop's own cost taken off.

    The steps take turns, so that all have had the machine at its fastest.
    """
    best = [float("inf")] * (len(steps) + 1)
    runs = range(number)
    for _ in range(repeats):
        for index, step in enumerate((_nothing, *steps)):
            began = time.perf_counter_ns()
            for _ in runs:
                step()
            best[index] = min(best[index], time.perf_counter_ns() - began)
    return [max(0.0, one - best[0]) / number / 1000 for one in best[1:]]


def _nothing() -> None: ...


class _Receiver:
    """Takes the parts of an answer and drops them."""

    def head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None: ...

    def body(self, data: bytes) -> None: ...

    def end(self) -> None: ...

    def lost(self, detail: str, *, sent: bool, begun: bool) -> None: ...


class _Sink:
    """Takes an answer as MCP and drops it."""

    def started(self, streaming: bool) -> None: ...

    def message(self, message: Any) -> None: ...

    def splice(self, head: bytes, total: int) -> bool:
        return False

    def chunk(self, data: bytes) -> None: ...

    def finished(self) -> None: ...

    def failed(self, error: Any) -> None: ...


def measure(r: Rooms, era: str, repeats: int) -> list[dict[str, Any]]:
    """The steps in the order in which a call passes them."""
    front, fleet, shared = r.gateway.front, r.gateway.fleet, r.gateway.shared
    seen: list[HttpRequest] = []

    def at_once(connection: Connection, request: HttpRequest) -> None:
        seen[:] = [request]
        connection.done()

    # accept: a connection of its own, whose requests are whole and answered with nothing
    answering = copy.copy(shared)
    answering.handle = at_once
    bare = Connection(answering)
    bare.connection_made(Nowhere())
    bare.data_received(r.request)
    request = seen[0]
    headers = request.headers
    message = decode_request(request.body)
    version, said_era = era_of(headers.get(b"mcp-protocol-version"), message, request.body)
    params = read_params(message.params)
    meta = read_meta(params)
    session: Session | None = front.sessions.find(r.session, LOCAL, "default") if r.session else None
    call = Call(message.method, params, meta, b"7", said_era, version, LOCAL, "default", session)
    endpoint = r.gateway.snapshot.endpoints["default"]
    viewer = fleet.viewer(endpoint, LOCAL, session)
    target = fleet.find_now(viewer, "tools", TOOL)
    server = fleet.servers["server"]
    channel = cast(HttpChannel, server.ready(viewer.scopes["server"]))
    assert target is not None and channel is not None
    dialect = channel.dialect

    def meta_and_headers() -> None:
        found = read_meta(read_params(message.params))
        if said_era == "modern":
            check_modern_meta(found, version)
            check_routing_headers(headers, request.repeated, "tools/call", TOOL)
        check_method("tools/call", said_era)

    def find() -> None:
        fleet.find_now(fleet.viewer(endpoint, LOCAL, session), "tools", TOOL)

    def walk() -> None:
        steps = exchange(call)
        next(steps)
        steps.send(target)
        steps.send(channel)
        steps.close()

    def make_exchange() -> None:
        connection = r.connection
        one = Exchange(front, connection, call, viewer, takes_events=True)
        front.active.add(one)
        front.forget(one)

    body = bytes(r.server.last).partition(b"\r\n\r\n")[2]  # of the call that `rooms` made
    reply_body = answer(body, era, 10).messages[0]
    reply = REPLY % (len(reply_body), reply_body)
    upstream = cast(HttpConnection, r.server.protocol)
    sink, nobody, out = _Sink(), _Receiver(), Outgoing(7, "tools/call", body, target.name)

    def send() -> None:
        r.server.silent = True
        channel.request(out, cast(Any, sink))
        r.server.silent = False
        upstream._receiver = None
        r.pool.idle.append(upstream)

    def read() -> None:
        r.pool.take()
        upstream._receiver = nobody
        upstream.data_received(reply)

    def respond() -> None:
        bare.busy = True
        bare.respond(200, JSON, parts, size)

    def account() -> None:
        seconds = front.clock() - 1.0
        counter = front.accounts.counter("default", "server", "tools/call", "echo")
        counter.add(OUTCOME["ok"], seconds * 0 + 0.001, 0, size)

    def whole() -> None:
        r.connection.data_received(r.request)

    incoming = decode_incoming(reply_body)
    result = bytes(incoming.result)
    parts = response_parts(call, dialect.era, incoming, result)
    size = sum(map(len, parts))
    handle = r.session
    table: list[tuple[str, str, Callable[[], Any]]] = [
        ("accept", "read the request: llhttp, bounds, deadline", lambda: bare.data_received(r.request)),
        ("accept", "Host and Origin", lambda: front._hosts.check("127.0.0.1", request)),
        ("codec", "decode the envelope", lambda: decode_request(request.body)),
        ("codec", "era", lambda: era_of(headers.get(b"mcp-protocol-version"), message, request.body)),
        ("codec", "parameters, _meta, routing headers", meta_and_headers),
        ("accept", "session", lambda: handle and front.sessions.find(handle, LOCAL, "default")),
        ("route", "view and name", find),
        ("accept", "the exchange, made and forgotten", make_exchange),
        ("walk", "its steps, re-encoding for the server among them", walk),
        ("upstream", "take a connection, write the request", send),
        ("upstream", "read the answer: llhttp, pool", read),
        ("codec", "decode the answer", lambda: decode_incoming(reply_body)),
        ("codec", "the answer with the client's id", lambda: response_parts(call, dialect.era, incoming, result)),
        ("accept", "write the answer", respond),
        ("telemetry", "account", account),
    ]
    r.server.quick = _zero_first(reply_body)
    whole()
    if b"call 7" not in r.client.last:
        raise BenchError(f"not an answer: {r.client.last!r}")
    sent = bytes(r.server.last)
    extra = [whole, lambda: _answering(r.server.quick, sent)]
    *alone, all_of_it, harness = least([step for _, _, step in table] + extra, repeats)
    lines = [{"room": room, "step": step, "us": us} for (room, step, _), us in zip(table, alone, strict=True)]
    glue = max(0.0, all_of_it - harness - sum(alone))
    return [*lines, {"room": "all", "step": "glue: what one piece costs beyond the sum", "us": glue}]


def _zero_first(body: bytes) -> bytes:
    """`Server` puts the id where the first 0 stands: so `id` comes before `"jsonrpc":"2.0"`."""
    return re.sub(rb'^{"jsonrpc":"2.0","id":[0-9]+', b'{"id":0,"jsonrpc":"2.0"', body)


def _answering(quick: bytes, data: bytes) -> bytes:
    """What `Server.write` does by itself, to be taken off."""
    at = data.index(b'"id":', data.index(b"\r\n\r\n")) + 5
    body = quick.replace(b"0", data[at : data.index(b",", at)], 1)
    return REPLY % (len(body), body)


async def taken_apart(era: str, repeats: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="narthex-steps-") as folder:
        r = await rooms(Path(folder), era)
        try:
            return measure(r, era, repeats)
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
        lines = uvloop.run(taken_apart(given.era, given.repeats))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    results = {"kind": "steps", "facts": facts(), "era": given.era, "steps": lines}
    print(f"{facts_line(results)} A call of the {given.era} era.\n\n{steps_table(results)}")
    if given.out or given.era == "modern":
        write_results(results, given.out or RESULTS / "steps.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
