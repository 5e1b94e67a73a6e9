"""A gateway that asks for tokens, in front of one upstream; who calls it; issuers that lie, and ways that are cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from tests.conftest import StartGateway
from tests.counterparts.keycloak.server import Keycloak
from tests.counterparts.serving import served
from tests.e2e.harness import Client, Era, Gateway, Headers
from tests.e2e.harness import Response as Answer
from tests.flow.identity.issuer import public, token


class Caller(Client):
    """A client with a credential of its own: the value of `Authorization`, none where it is empty."""

    def __init__(self, url: str, bearer: str = "", era: Era = "modern", **options: Any) -> None:
        self.bearer = bearer
        super().__init__(url, era, **options)

    def render(self, body: Mapping[str, Any], *, host: str | None = None, extra: Headers = ()) -> bytes:
        own = [("authorization", f"Bearer {self.bearer}")] if self.bearer else []
        return super().render(body, host=host, extra=[*own, *extra])

    def try_call(self, name: str = "up__echo") -> Answer:
        """The HTTP response to a call, whatever it is."""
        return self.post("tools/call", {"name": name, "arguments": {"text": "hello"}})


@dataclass(frozen=True)
class Protected:
    """An endpoint that asks for tokens of a realm."""

    gateway: Gateway
    realm: Keycloak

    @property
    def url(self) -> str:
        return self.gateway.mcp

    def caller(self, bearer: str = "", era: Era = "modern") -> Caller:
        return Caller(self.url, bearer, era)


def protected(
    start: StartGateway, realm: Keycloak, upstream: str, issuer: Mapping[str, Any] | None = None, **config: Any
) -> Protected:
    """Start a gateway for `realm` with the tools of the HTTP server at `upstream` as `up__…`.

    Args:
        issuer: Settings of the issuer beside its preset and its address.
        config: Further parts of the configuration.
    """
    identity = {"issuers": {"corp": {"preset": "keycloak", "issuer": realm.issuer, **(issuer or {})}}}
    servers = {"up": {"url": upstream}}
    return Protected(start({"version": 1, "servers": servers, "identity": identity, **config}), realm)


# --- an issuer that says what it is told to say


@dataclass
class Issuer:
    """An issuer with the keys of `tests.flow.identity.issuer`. `pages` replaces what it answers, by path."""

    base: str = ""
    keys: list[str] = field(default_factory=lambda: ["rsa", "p256"])
    pages: dict[str, tuple[int, dict[str, str], str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def claims(self, **more: Any) -> dict[str, Any]:
        """Good claims, with others in the place of some; None leaves one out."""
        now = int(time.time())
        said = {
            "iss": self.base,
            "sub": "alice",
            "aud": "gateway",
            "azp": "agent",
            "exp": now + 600,
            "iat": now,
            **more,
        }
        return {name: value for name, value in said.items() if value is not None}

    def token(self, *, by: str = "rsa", alg: str = "RS256", header: Any = None, **claims: Any) -> str:
        return token(self.claims(**claims), by=by, alg=alg, header=header).decode()

    def metadata(self, **more: Any) -> str:
        return json.dumps({"issuer": self.base, "jwks_uri": f"{self.base}/keys", **more})

    def jwks(self) -> str:
        return json.dumps({"keys": [public(name) for name in self.keys]})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        path = request.url.path
        self.asked.append(path)
        page = self.pages.get(path)
        if page is None and path.endswith("/openid-configuration"):
            page = (200, {}, self.metadata())
        if page is None and path == "/keys":
            page = (200, {}, self.jwks())
        status, headers, body = page or (404, {}, "")
        await Response(body, status, headers, "application/json")(scope, receive, send)


@contextlib.contextmanager
def issuing() -> Iterator[Issuer]:
    """An issuer on a port of its own."""
    issuer = Issuer()
    with served(issuer) as issuer.base:
        yield issuer


# --- a way that can be cut


class Relay:
    """Hands bytes to the server at `url` and back, until it is cut: then nobody is there. Use as a context manager."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = parts.hostname, parts.port
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0

    def __enter__(self) -> Relay:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._wait(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def cut(self) -> None:
        """Refuse every connection from now on, and end those that are open."""

        async def end() -> None:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._wait(end())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            there, back = await asyncio.open_connection(*self._target)
            with contextlib.closing(back):
                await asyncio.wait(
                    [asyncio.ensure_future(_pump(reader, back)), asyncio.ensure_future(_pump(there, writer))],
                    return_when=asyncio.FIRST_COMPLETED,
                )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
