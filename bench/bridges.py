"""What a call costs in each pair of eras, in microseconds, and what bridging adds where there is nothing to bridge.

`python bench/bridges.py [--repeats N] [--out FILE]` (`make bench-steps`). The whole call on a real gateway's objects,
with no kernel, no network and no event loop in it (`rooms.py`): in each pair of eras, over HTTP and over a pipe, less
what the server in this process costs. A call within one era is then run once more with the two functions that
translate replaced by such as a gateway of that one era would have: what it costs less is what bridging adds to it. Each
figure is the least of many in turn. On the sources (`NARTHEX_COMPILE=0`): what is compiled cannot be replaced. Writes
`bench/results/bridges.json`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import uvloop
from canned import answer
from report import RESULTS, bridges_table, facts_line, write_results
from rig import MEASURED, BenchError, facts
from rooms import Call, Pipe, piped, quick_body, quick_reply, rooms, zero_first
from steps import Timed, least

from narthex.flow import walk
from narthex.flow.accept import hearing
from narthex.flow.codec.jsonrpc import Answered, Raw, decode_map, encode
from narthex.flow.upstream.stdio import StdioChannel

Line = dict[str, Any]
ERAS = ("modern", "legacy")
TARGET_US = 0.5
"""The most that bridging may add to a call within one era (issue: both eras, in full)."""
_TRUE = Raw(b"true")


def own_era_body(call: Any, params: Any, id_: int, dialect: Any) -> bytes:
    """The request, where client and server are of one era: our id, and the server's name for the tool."""
    served.add(call.era)
    return b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":%b}' % (id_, call.method.encode(), encode(params))


def own_era_parts(call: Any, era: Any, message: Any) -> tuple[Sequence[Any], bool]:
    """The answer, where client and server are of one era: the client's id. An `isError` is counted all the same."""
    result = message.result
    members = message.members if message.__class__ is Answered else decode_map(result)
    failed = "isError" in members and members["isError"] == _TRUE
    return (b'{"jsonrpc":"2.0","id":', call.id_json, b',"result":', result, b"}"), failed


served: set[str] = set()
"""The eras of calls that the replaced functions have served."""


OF_ONE_ERA = ((walk, "outgoing_body", own_era_body), (hearing, "response_parts", own_era_parts))


def measured(one: Call, harness: Callable[[], Any], repeats: int, *, plain: bool) -> tuple[float, float | None]:
    """A call, less what the server costs; and within one era what bridging adds to it."""

    def call() -> None:
        one.connection.data_received(one.request)

    timed = [Timed("", "", call), Timed("", "", harness)]
    whole, server, *rest = least([*timed, Timed("", "", call, OF_ONE_ERA)] if plain else timed, repeats)
    if rest and not served:
        raise BenchError("the functions that translate are compiled: NARTHEX_COMPILE=0")
    return whole - server, max(0.0, whole - rest[0]) if rest else None


async def over_http(folder: Path, client: str, server: str, repeats: int) -> tuple[float, float | None]:
    r = await rooms(folder, client, server)
    try:
        sent = bytes(r.server.last)
        r.server.quick = zero_first(answer(sent.partition(b"\r\n\r\n")[2], server, 10).messages[0])
        one = Call(r.gateway, r.connection, r.client, r.request, r.session)
        check(one)
        return measured(one, lambda: quick_reply(r.server.quick, sent), repeats, plain=client == server)
    finally:
        r.server.silent = True
        await r.gateway.stop()


async def over_a_pipe(folder: Path, client: str, server: str, repeats: int) -> tuple[float, float | None]:
    one = await piped(folder, client, server)
    channel = cast(StdioChannel, next(iter(one.gateway.fleet.servers["server"].channels.values())))
    child, heard = channel._child, []
    try:
        channel._child = cast(Any, Tap(heard))
        one.connection.data_received(one.request)  # is never answered: only what is sent for it is wanted
        sent = heard[0]
        quick = zero_first(answer(sent, server, 10).messages[0])
        channel._child = cast(Any, Pipe(channel, quick))
        channel._received(quick_body(quick, sent, 0) + b"\n")
        check(one)
        return measured(one, lambda: quick_body(quick, sent, 0) + b"\n", repeats, plain=client == server)
    finally:
        channel._child = child
        await one.gateway.stop()


class Tap:
    """Keeps what is written."""

    def __init__(self, heard: list[bytes]) -> None:
        self._heard = heard

    def write(self, data: bytes) -> None:
        self._heard.append(data)

    def unwritten(self) -> int:
        return 0


def check(one: Call) -> None:
    one.client.last = b""
    one.connection.data_received(one.request)
    if b"call 7" not in one.client.last:
        raise BenchError(f"not an answer: {one.client.last!r}")


async def everything(repeats: int) -> list[Line]:
    lines = []
    for transport, run in (("HTTP", over_http), ("stdio", over_a_pipe)):
        for client in ERAS:
            for server in ERAS:
                with tempfile.TemporaryDirectory(prefix="narthex-bridges-") as folder:
                    us, added = await run(Path(folder), client, server, repeats)
                line = {"client": client, "server": server, "transport": transport, "us": us}
                lines.append(line if added is None else {**line, "added": added, "target": TARGET_US})
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {MEASURED})
    try:
        lines = uvloop.run(everything(given.repeats))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    results = {"kind": "bridges", "facts": facts(), "lines": lines}
    print(f"{facts_line(results)}\n\n{bridges_table(results)}")
    write_results(results, given.out or RESULTS / "bridges.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
