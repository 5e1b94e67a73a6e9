"""An issuer on a socket, for tests: metadata, keys, introspection; it can rotate, lie, hang and die."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

from narthex.authority.fetch import Fetcher
from narthex.types import Egress
from tests.flow.identity.issuer import public


class LiveIssuer:
    """`http://127.0.0.1:<port>/realms/corp`. `broken` is a status to answer with; `hangs` answers nothing."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [public("rsa")]
        self.metadata: dict[str, Any] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.shown: list[tuple[str, str]] = []
        """Paths, and what was shown for them."""
        self.forms: list[dict[str, list[str]]] = []
        self.authorizations: list[str] = []
        self.broken = 0
        self.hangs = False
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/realms/corp"

    def count(self, path: str) -> int:
        return sum(path in one for one in self.asked)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = await reader.readexactly(int(fields.get("Content-Length", 0)))
                self.asked.append(head.split(" ")[1])
                self.shown.append((head.split(" ")[1], fields.get("Authorization", "")))
                while self.hangs:
                    await asyncio.sleep(0.01)
                status, text = self._answer(head.split(" ")[1], body, fields)
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
        finally:
            self._writers.discard(writer)

    def _answer(self, path: str, body: bytes, fields: dict[str, str]) -> tuple[int, str]:
        if self.broken:
            return self.broken, "<html>"
        if path == "/realms/corp/.well-known/openid-configuration":
            said = {
                "issuer": self.url,
                "jwks_uri": self.url + "/keys",
                "introspection_endpoint": self.url + "/introspect",
            }
            return 200, json.dumps(said | self.metadata)
        if path == "/realms/corp/keys":
            return 200, json.dumps({"keys": self.keys})
        if path == "/realms/corp/introspect":
            form = parse_qs(body.decode())
            self.forms.append(form)
            self.authorizations.append(fields.get("Authorization", ""))
            return 200, json.dumps(self.tokens.get(form["token"][0], {"active": False}))
        return 404, ""


@asynccontextmanager
async def issuing() -> AsyncIterator[LiveIssuer]:
    one = LiveIssuer()
    await one.start()
    try:
        yield one
    finally:
        one.hangs = False
        await one.stop()


def fetcher() -> Fetcher:
    return Fetcher(Egress(proxy=None), environ={})
