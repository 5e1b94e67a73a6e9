"""Clients that listen, and a server that tells: for tests of subscriptions. Real sockets on both sides."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from narthex.types import EndpointSpec
from tests.flow.gateway import LEGACY, Client, Running, spec
from tests.flow.upstream.telling import Stream, Telling

STAMP = "io.modelcontextprotocol/subscriptionId"
WATCHED = "test://watched"
SCHEMA = {"type": "object"}


def tools(*names: str) -> dict[str, Any]:
    return {"tools": [{"name": name, "inputSchema": SCHEMA} for name in names]}


def resources(*uris: str) -> dict[str, Any]:
    return {"resources": [{"uri": uri, "name": uri} for uri in uris]}


class Teller(Telling):
    """A server with a tool and a watched resource. A `tools/call` is answered on a stream that the test writes."""

    def __init__(self, era: str = "legacy", **replaced: Any) -> None:
        super().__init__(era, **replaced)
        self.capabilities = {**self.capabilities, "logging": {}}
        self.calls: list[tuple[Any, Stream]] = []
        self.answers = {
            "tools/list": tools("a"),
            "prompts/list": {"prompts": []},
            "resources/list": resources(WATCHED),
            "resources/templates/list": {"resourceTemplates": []},
        } | self.answers
        if era == "modern":
            self.answers = {
                method: {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "private", **result}
                for method, result in self.answers.items()
            }

    def has(self, *names: str) -> None:
        """Its tools are these now, and it says so."""
        self.answers["tools/list"] = {**self.answers["tools/list"], **tools(*names)}
        self.tell("notifications/tools/list_changed")

    async def post(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str], message: Any
    ) -> None:
        if message.get("method") != "tools/call":
            await super().post(reader, writer, headers, message)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        stream = Stream(headers, writer)
        self.calls.append((message, stream))
        try:
            await reader.read()
        finally:
            stream.gone.set()
        raise ConnectionError

    def over(self, **settings: Any) -> Running:
        """A gateway in front of it alone, without prefixes."""
        endpoint = EndpointSpec("default", ("one",), naming="none")
        return Running({"one": spec("one", self.url, **settings)}, {"default": endpoint}, goes=True)


class Hearing:
    """One open event stream, as its client reads it."""

    def __init__(self, client: Client, status: int, headers: Mapping[str, str]) -> None:
        self.client = client
        self.status = status
        self.headers = headers
        self.events: list[dict[str, str]] = []
        self._rest = ""

    async def event(self) -> dict[str, str] | None:
        """The next event, by its fields; None at the end. Comments are none."""
        while True:
            while "\n\n" in self._rest:
                text, _, self._rest = self._rest.partition("\n\n")
                fields = dict(line.partition(": ")[::2] for line in text.split("\n") if not line.startswith(":"))
                if fields:
                    self.events.append(fields)
                    return fields
            chunk = await self.client.read_chunk()
            if not chunk:
                return None
            self._rest += chunk.decode()

    async def message(self) -> Any:
        """The next message; None at the end."""
        while (event := await self.event()) is not None:
            if event.get("data"):
                return json.loads(event["data"])
        return None

    async def told(self) -> tuple[str, Any]:
        """The next notification: its method, and the URI it names, if any."""
        message = await self.message()
        return message["method"].removeprefix("notifications/"), message.get("params", {}).get("uri")

    @property
    def last_id(self) -> str:
        return next(event["id"] for event in reversed(self.events) if "id" in event)


async def listen(client: Client, **wanted: Any) -> Hearing:
    """A modern client listens; its acknowledgement is yet to be read."""
    client.send("subscriptions/listen", {"notifications": wanted}, modern=True)
    return Hearing(client, *(await client.read_head()))


async def get(gateway: Running, session: str | None, path: str = "/mcp", **headers: str | None) -> Hearing:
    """A GET of a legacy client on a connection of its own. Header names have `_` for `-`."""
    client = await gateway.client()
    lines: dict[str, str | None] = {"Accept": "text/event-stream", "MCP-Protocol-Version": LEGACY}
    lines |= {"Mcp-Session-Id": session} | {name.replace("_", "-"): value for name, value in headers.items()}
    client.http("GET", path, lines)
    return Hearing(client, *(await client.read_head()))


def waiting(gateway: Running) -> int:
    """News that nobody has taken yet."""
    return sum(len(queue.news) for queue in gateway.front.hub.interests._news._queues.values())


def nobody_listens(gateway: Running) -> bool:
    """Nothing is left of any listener, here and at the servers."""
    hub = gateway.front.hub
    return not (hub.streams or len(hub.interests) or hub.resumable) and not any(
        server.listenings for server in gateway.fleet.servers.values()
    )
