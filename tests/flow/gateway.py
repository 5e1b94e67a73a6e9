"""A gateway without its process: the real listener, front and fleet on loopback, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from narthex.flow.accept.asgi import AsgiBridge
from narthex.flow.accept.front import Front
from narthex.flow.accept.listener import Connection, Shared
from narthex.flow.accept.public import public_app
from narthex.flow.accept.sessions import Sessions
from narthex.flow.codec.handles import Handles
from narthex.flow.codec.seal import KeyRing
from narthex.flow.held import Held
from narthex.flow.policy.engines.engine import Engine
from narthex.flow.upstream.fleet import Fleet
from narthex.flow.upstream.port import Accounts as Holdings
from narthex.telemetry.accounts import OUTCOMES, Accounts
from narthex.types import Egress, EndpointSpec, HttpTarget, Limits, RegoSpec, ServerSpec, Snapshot

LEGACY, MODERN = "2025-11-25", "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def run(main: Callable[[], Coroutine[Any, Any, None]], patience_s: float = 60.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(patience_s):
            await main()

    asyncio.run(bounded())


async def until(true: Callable[[], object]) -> None:
    while not true():
        await asyncio.sleep(0.001)


def spec(name: str, url: str, **settings: Any) -> ServerSpec:
    """A server at `http://127.0.0.1:<port>/<path>`."""
    port, _, path = url.removeprefix("http://127.0.0.1:").partition("/")
    return ServerSpec(name, HttpTarget(url, "http", "127.0.0.1", int(port), f"/{path}"), "auto", **settings)


def snapshot(
    servers: Mapping[str, ServerSpec], endpoints: Mapping[str, EndpointSpec] | None = None, **settings: Any
) -> Snapshot:
    base: dict[str, Any] = {
        "revision": "r1", "source": "narthex.yaml", "state_dir": ".", "listen": ("127.0.0.1", 0),
        "admin_listen": ("127.0.0.1", 0), "tls": None, "admin_tls": None, "public_url": None, "allowed_hosts": (),
        "trusted_proxies": (), "egress": Egress(proxy=None), "limits": Limits(), "log_calls": False,
        "log_format": "text", "servers": servers,
        "endpoints": endpoints or {"default": EndpointSpec("default", tuple(servers))},
    }  # fmt: skip
    return Snapshot(**(base | settings))


@dataclass
class Answer:
    """An HTTP answer. `messages` are the JSON-RPC messages in it, of either form."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def messages(self) -> list[Any]:
        if self.headers.get("content-type") != "text/event-stream":
            return [json.loads(self.body)]
        data = [event.partition("data: ")[2].strip() for event in self.body.decode().split("\n\n")]
        return [json.loads(one) for one in data if one]  # an empty event is no message: it only names a place

    @property
    def result(self) -> Any:
        return self.messages[-1]["result"]

    @property
    def error(self) -> Any:
        return self.messages[-1]["error"]

    @property
    def text(self) -> str:
        return str(self.result["content"][0]["text"])


class Client:
    """One client connection; what it reads is what the gateway wrote."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.session: str | None = None
        self.events: list[Any] = []
        """Messages of a stream that were read and not taken yet."""
        self._ids = itertools.count(1)

    async def initialize(self, path: str = "/mcp") -> Answer:
        """Become a legacy client with a session."""
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        answer = await self.legacy("initialize", params, path=path)
        self.session = answer.headers["mcp-session-id"]
        return answer

    async def legacy(self, method: str, params: Any = None, **options: Any) -> Answer:
        self.send(method, params, **options)
        return await self.read()

    async def modern(self, method: str, params: Any = None, **options: Any) -> Answer:
        self.send(method, params, modern=True, **options)
        return await self.read()

    def send(
        self, method: str, params: Any = None, *, modern: bool = False, path: str = "/mcp", id_: Any = "auto",
        meta: Mapping[str, Any] | None = None, headers: Mapping[str, str | None] | None = None,
    ) -> Any:  # fmt: skip
        """Send one message; `id_` None makes it a notification. Returns its id. A header of None is left out."""
        id_ = next(self._ids) if id_ == "auto" else id_
        params = dict(params or {})
        lines: dict[str, str | None] = {}
        if modern:
            params["_meta"] = {**META, **(meta or {})}
            lines = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
            if method in NAMED_BY:
                lines["Mcp-Name"] = str(params.get(NAMED_BY[method], ""))
        else:
            if meta:
                params["_meta"] = dict(meta)
            if self.session is not None:
                lines = {"MCP-Protocol-Version": LEGACY, "Mcp-Session-Id": self.session}
        message = {"jsonrpc": "2.0", "method": method, "params": params, **({} if id_ is None else {"id": id_})}
        self.http("POST", path, {**lines, **(headers or {})}, json.dumps(message).encode())
        return id_

    def http(self, verb: str, path: str, headers: Mapping[str, str | None] | None = None, body: bytes = b"") -> None:
        lines: dict[str, str | None] = {"Host": "localhost", "Content-Length": str(len(body))}
        if verb == "POST":
            lines |= {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        lines |= headers or {}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
        self.writer.write(f"{verb} {path} HTTP/1.1\r\n{text}\r\n".encode() + body)

    async def read(self) -> Answer:
        status, headers = await self.read_head()
        body = bytearray()
        if headers.get("transfer-encoding") == "chunked":
            while chunk := await self.read_chunk():
                body += chunk
        else:
            body += await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(status, headers, bytes(body))

    async def read_head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:-2])}
        return int(lines[0].split()[1]), headers

    async def read_chunk(self) -> bytes:
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    def close(self) -> None:
        self.writer.close()


@dataclass
class Running:
    """A gateway over `servers`, for an `async with`.

    Its clocks stand at the moment at which it was made, and go on by `pass_time` alone: however long a busy machine
    takes between two calls, no window of a limit and no time to live ends meanwhile, and no day turns over. With `goes`
    they go on by themselves, too: what is told a moment later needs that.
    """

    servers: Mapping[str, ServerSpec]
    endpoints: Mapping[str, EndpointSpec] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    holdings: Holdings | None = None
    """What servers are shown."""
    identify: Callable[[Snapshot], Any] | None = None
    """Makes the identity of a snapshot that has one."""
    engine: Engine | None = None
    """Who decides beside the grants."""
    wall: Callable[[], float] | None = None
    """The wall clock of its front, where that is another than `now`."""
    late_s: float = 0.0
    goes: bool = False
    key: bytes = field(default_factory=lambda: os.urandom(32))
    """Of its handles: a second gateway with the same one opens them."""
    began: tuple[float, float] = field(default_factory=lambda: (time.monotonic(), time.time()))

    def clock(self) -> float:
        return (time.monotonic() if self.goes else self.began[0]) + self.late_s

    def now(self) -> float:
        return (time.time() if self.goes else self.began[1]) + self.late_s

    async def __aenter__(self) -> Running:
        policy = RegoSpec("/policy", "narthex/decision") if self.engine is not None else None
        taken = snapshot(self.servers, self.endpoints, **{"policy": policy, **self.settings})
        self.accounts = Accounts()
        self.held = Held(taken.limits.max_held)
        ring = KeyRing((self.key,))
        self.sessions = Sessions(ring, now=self.now, random=os.urandom, ttl_s=86_400)
        handles = Handles(ring, now=self.now, random=os.urandom)
        self.fleet = Fleet(taken, self.held, clock=self.clock, chance=lambda: 0.5, accounts=self.holdings)
        ids = (f"00000000-0000-4000-8000-{number:012}" for number in itertools.count())
        bridge = AsgiBridge(public_app(lambda: taken, dict))
        self.front = Front(
            taken, self.fleet, self.sessions, self.accounts, None, bridge,
            handles=handles, clock=self.clock, new_id=lambda: next(ids), now=self.wall or self.now,
            identity=self.identify(taken) if self.identify is not None else None, engine=self.engine,
        )  # fmt: skip
        self.shared = Shared(
            taken.limits, self.held, self.front.handle, clock=self.clock, now=self.now, new_id=lambda: next(ids)
        )
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self.shared), "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._bridge = bridge
        self._clients: list[Client] = []
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for client in self._clients:
            client.close()
        for connection in list(self.shared.connections):
            connection.abort()
        await self._bridge.close()
        await self.fleet.close()

    async def client(self, *, session: bool = False) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24))
        self._clients.append(client)
        if session:
            await client.initialize()
        return client

    def leave(self, client: Client) -> None:
        """Forget a client that has gone."""
        self._clients.remove(client)

    def pass_time(self, seconds: float) -> None:
        self.late_s += seconds
        self.shared.sweep()
        self.front.sweep()
        self.fleet.sweep()

    def counted(self, method: str, name: str = "", *, server: str = "one", endpoint: str = "default") -> dict[str, int]:
        """Outcomes counted so far, those that are not 0."""
        counters = [self.accounts.counter(endpoint, server, method, name, era) for era in ("", "legacy", "modern")]
        sums = [sum(counts) for counts in zip(*(one.outcomes for one in counters), strict=True)]
        return {OUTCOMES[index]: count for index, count in enumerate(sums) if count}

    def settled(self) -> bool:
        """Nothing under way, nothing held, nothing counted as under way."""
        servers = self.fleet.servers.values()
        channels = [channel for server in servers for channel in server.channels.values()]
        return not (
            self.front.calls.active or self.front.calls.streams or self.held.used
            or any(server.in_flight for server in servers) or any(channel.open_calls for channel in channels)
        )  # fmt: skip
