"""An authorization server on loopback that does what a test says, well or badly; and secrets that a test may change."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from narthex.authority.accounts import Means
from narthex.authority.credentials import Credentials
from narthex.authority.fetch import Fetcher
from narthex.authority.subjects import Subjects
from narthex.errors import SecretMissing
from narthex.testing import FakeClock
from narthex.types import Authority, Credential, Egress, SecretName, SecretText, TokenCredential, Use, Who

Form = dict[str, str]
Reply = tuple[int, Mapping[str, Any]] | bytes | None
"""A status and a JSON object, an answer's bytes, or None: silence."""


def secret(name: str) -> SecretText:
    return SecretText((SecretName(name),))


@dataclass
class Issuer:
    """For an `async with`. `forms` are the token requests that came, `heads` the whole heads of all requests.

    `reply` may be put in the place of the usual answer, a new token an hour long.
    """

    lasts_s: float = 3600.0
    reply: Callable[[Form], Reply] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    forms: list[Form] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    held: asyncio.Event | None = None
    url: str = ""

    async def __aenter__(self) -> Issuer:
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.origin = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.url = self.origin + self.path
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def authority(self) -> Authority:
        return Authority("gateway", issuer=self.url, client_secret=secret("client"))

    def grant(self, **members: Any) -> tuple[int, dict[str, Any]]:
        token = f"token-{next(self._numbers)}"
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": self.lasts_s, **members}

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("Content-Length:")), 0)
                body = (await reader.readexactly(length)).decode()
                self.heads.append(head)
                if self.held is not None:
                    await self.held.wait()
                reply = self._answer(head.split(" ")[0], head.split(" ")[1], body)
                if reply is None:
                    await asyncio.Event().wait()
                elif isinstance(reply, bytes):
                    writer.write(reply)
                    writer.close()
                    return
                else:
                    writer.write(answer(reply[0], json.dumps(reply[1]).encode()))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def _answer(self, verb: str, path: str, body: str) -> Reply:
        if verb == "GET":
            known = path == f"/.well-known/oauth-authorization-server{self.path}"
            document = {"issuer": self.url, "token_endpoint": f"{self.origin}/token", **self.metadata}
            return (200, document) if known else (404, {})
        form = {key: values[0] for key, values in parse_qs(body).items()}
        self.forms.append(form)
        return self.reply(form) if self.reply is not None else self.grant()


def answer(status: int, body: bytes, kind: str = "application/json", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more, "", ""]
    return "\r\n".join(lines).encode() + body


class Known:
    """Secrets in a dictionary. See `authority.port.Secrets`."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.version = 0

    def get(self, name: str) -> str:
        if name not in self.values:
            raise SecretMissing(name, f"set it: narthex secrets set {name}")
        return self.values[name]

    def set(self, name: str, value: str | None) -> None:
        self.version += 1
        if value is None:
            del self.values[name]
        else:
            self.values[name] = value


class Holdings:
    """Credentials over real sockets, with a clock that a test moves."""

    def __init__(self, secrets: Known | None = None, *, clock: Callable[[], float] | None = None) -> None:
        self.clock = FakeClock(1000.0)
        self.secrets = secrets or Known(client="PLANTED-client-secret")
        self.fetcher = Fetcher(Egress(proxy=None, allow_private=("127.0.0.1",)), environ={})
        ids = itertools.count()
        clock = clock or self.clock
        self.subjects = Subjects(now=time.time)
        self.means = Means(self.secrets, self.fetcher.fetch, clock, time.time, lambda: 0.5, lambda: f"id-{next(ids)}")
        self.credentials = Credentials(self.means, self.subjects)

    async def __aenter__(self) -> Holdings:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.credentials.close()
        self.fetcher.close()

    def later(self, seconds: float) -> None:
        """Time passes, and somebody looks once a second, as the gateway does."""
        self.clock.advance(seconds)
        self.credentials.sweep()


def everybody(credential: Credential | None) -> tuple[Use, ...]:
    return (Use(Who(), credential),)


def service(authority: Authority, **more: Any) -> TokenCredential:
    return TokenCredential("api", "client_credentials", authority, **more)


@contextlib.contextmanager
def in_thread(issuer: Issuer) -> Iterator[Issuer]:
    """An issuer on a loop of its own, for a test without one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="issuer", daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(issuer.__aenter__(), loop).result(60)
    try:
        yield issuer
    finally:
        asyncio.run_coroutine_threadsafe(issuer.__aexit__(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
