"""A whole gateway in this process whose two sockets lead nowhere: what `steps.py` takes apart.

In: the client's era and the server's. Out: `Rooms`, with a client connection that bytes can be given to, and a server
that answers at once or not at all. Everything between is what `narthex serve` runs. Proof: `tests/bench/test_tools.py`.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from canned import answer
from clients import call as wire_call
from rig import BENCH, ROOT, BenchError
from subjects import gateway_config, http_servers

sys.path.insert(0, str(ROOT / "src"))

from narthex.app import Gateway
from narthex.config.compile import load_snapshot
from narthex.flow.accept.listener import Connection
from narthex.flow.outbox import Outbox
from narthex.flow.upstream.connection import HttpPool
from narthex.flow.upstream.stdio import StdioChannel
from narthex.types import LOCAL

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
            self.protocol.data_received(quick_reply(self.quick, data))
            return
        said = answer(data.partition(b"\r\n\r\n")[2], self.era, 10)
        body = said.messages[0] if said.messages else b""
        session = b"Mcp-Session-Id: abc\r\n" if said.opens_session else b""
        reply = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
        whole = reply % (said.status, session, len(body), body)
        asyncio.get_running_loop().call_soon(self.protocol.data_received, whole)


class Pipe:
    """A stdio server's process, as its channel sees it: answers within `write`, with a line made ready."""

    def __init__(self, channel: StdioChannel, quick: bytes) -> None:
        self._channel = channel
        self._quick = quick

    def write(self, data: bytes) -> None:
        self._channel._received(quick_body(self._quick, data, 0) + b"\n")

    def unwritten(self) -> int:
        return 0


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


@dataclass
class Call:
    """A gateway in front of one server, a client's connection that leads nowhere, and a call that it makes."""

    gateway: Gateway
    connection: Connection
    client: Nowhere
    request: bytes
    session: bytes | None


class _Replaced:
    """Stands in for the pool's dialer: connects to `Server` instead of dialling, and passes everything else on."""

    def __init__(self, real: Any, era: str) -> None:
        self._real = real
        self._era = era
        self.server = Server(era)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def dial(self, scheme: str, host: str, port: int, factory: Callable[[], Any], **_: Any) -> tuple[Any, Any]:
        protocol, quick = factory(), self.server.quick
        self.server = Server(self._era)
        self.server.quick, self.server.protocol = quick, protocol
        protocol.connection_made(self.server)
        return self.server, protocol


async def rooms(
    folder: Path, era: str, server_era: str | None = None, *, token: str = "", name: str = "server", **more: Any
) -> Rooms:
    """Start a gateway on loopback ports, give it a client connection and a server that lead nowhere, make one call.

    `token`: what the client shows. `more`: what stands in the configuration beside the one server, which is `name`.
    """
    server_era = server_era or era
    config, port, _ = gateway_config(folder, http_servers(9, {name: f"/{server_era}/10"}), **more)
    gateway = Gateway(load_snapshot(config))
    await gateway.start()
    pool = gateway.fleet.servers[name].pool
    assert pool is not None
    dialer = _Replaced(pool.dialer, server_era)
    pool.dialer = cast(Any, dialer)
    gateway.shared.outbox = pool.outbox = Outbox(lambda flush: flush())
    made = await first_call(gateway, port, era, f"{name}__echo", (f"Authorization: Bearer {token}",) if token else ())
    return Rooms(gateway, made.connection, made.client, dialer.server, pool, made.request, made.session)


async def piped(folder: Path, era: str, server_era: str) -> Call:
    """The same over a stdio server of an era, whose process answers the first call alone."""
    command = {"command": sys.executable, "args": [str(BENCH / "stdio_server.py"), "10"], "era": server_era}
    config, port, _ = gateway_config(folder, {"server": command})
    gateway = Gateway(load_snapshot(config))
    await gateway.start()
    gateway.shared.outbox = Outbox(lambda flush: flush())
    return await first_call(gateway, port, era)


async def first_call(gateway: Gateway, port: int, era: str, tool: str = TOOL, headers: Sequence[str] = ()) -> Call:
    """A client's connection, and a call on it that was answered."""
    client = Nowhere()
    connection = Connection(gateway.shared)
    connection.connection_made(client)
    handle = gateway.sessions.create(LOCAL, "default", "2025-11-25") if era == "legacy" else None
    request = wire_call(port, tool, 7, handle, headers=headers)
    connection.data_received(request)
    for _ in range(500):
        if b"call 7" in client.last:
            return Call(gateway, connection, client, request, handle.encode() if handle else None)
        await asyncio.sleep(0.01)
    raise BenchError(f"the gateway does not answer: {client.last!r}")


def zero_first(body: bytes) -> bytes:
    """`quick_reply` puts the id where the first 0 stands: so `id` comes before `"jsonrpc":"2.0"`."""
    return re.sub(rb'^{"jsonrpc":"2.0","id":[0-9]+', b'{"id":0,"jsonrpc":"2.0"', body)


def quick_reply(quick: bytes, data: bytes) -> bytes:
    """The answer to the request in `data`: `quick` with its id."""
    body = quick_body(quick, data, data.index(b"\r\n\r\n"))
    return REPLY % (len(body), body)


def quick_body(quick: bytes, data: bytes, start: int) -> bytes:
    """Its body alone; the request's own begins at `start`."""
    at = data.index(b'"id":', start) + 5
    return quick.replace(b"0", data[at : data.index(b",", at)], 1)
