"""One connection to Valkey or Redis: commands go out as they come, answers are handed to whoever asked, in order.

In: commands as bytes (`wire.py`), and who takes each answer. Out: answers, as hiredis reads them; errors of the server
are answers, too. `greet` says who we are and looks at whom we talk to. Whatever comes is bounded, and what nobody asked
for ends the connection. Nothing here waits: deadlines are whoever asks'.
Cases: `tests/store/shared/test_connection.py`. Source: RESP2; HELLO, SELECT, SCRIPT LOAD of redis.io/commands.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

import hiredis
import msgspec

from narthex.flow.limit.shared.beginning import BEGIN
from narthex.flow.limit.shared.wire import SCRIPT, command

LARGEST = 8 << 20
"""Bytes of an answer that has not ended yet."""
Take = Callable[[object], None]
_KNOWN = {
    "WRONGPASS": "it does not know this username and password",
    "NOAUTH": "it wants a password",
    "LOADING": "it is still reading its data",
    "NOPERM": "this user may not do what it takes (docs/guides/shared-limits.md has the list)",
    "OOM": "it has no memory left",
    "READONLY": "it is a replica now",
    "MISCONF": "it cannot save its data, and takes no writes",
    "BUSY": "it is busy with somebody's script",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "NOREPLICAS": "it has too few replicas, and takes no writes",
}


class Refused(Exception):
    """The server is there, and cannot be used as it is; the text says why, and holds no secret."""


class Login(msgspec.Struct, frozen=True):
    """Who we are there."""

    username: str = ""
    password: str = ""
    database: int = 0


class Connection(asyncio.Protocol):
    """Raises nothing; `closed` is told once why it is over."""

    def __init__(self, closed: Callable[[str], None]) -> None:
        self._closed: Callable[[str], None] | None = closed
        self._takers: deque[Take] = deque()
        self.awaited: set[asyncio.Future[object]] = set()
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self._unread = 0
        self._transport: asyncio.Transport | None = None

    @property
    def alive(self) -> bool:
        return self._transport is not None

    def send(self, said: bytes, take: Take) -> None:
        """Send a command. Its answer is for `take`; none comes once the connection is closed."""
        if self._transport is not None:
            self._takers.append(take)
            self._transport.write(said)

    def close(self, why: str = "") -> None:
        """Over: whoever waits for an answer gets none. Idempotent."""
        transport, closed = self._transport, self._closed
        self._transport = self._closed = None
        self._takers.clear()
        for one in self.awaited:
            if not one.done():
                one.set_exception(Refused(why))
        if transport is not None:
            transport.abort()
        if closed is not None:
            closed(why)

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        self._reader.feed(data)
        while (answer := self._next()) is not Ellipsis:
            self._unread = 0
            if not self._takers:
                self.close("it said something that nobody asked")
                return
            self._takers.popleft()(answer)
        if self._unread > LARGEST:
            self.close("its answer is too large")

    def _next(self) -> object:
        """The next answer; `...` where there is none yet, and after bytes that are none: then it is over."""
        try:
            return self._reader.gets()
        except (hiredis.HiredisError, ValueError, TypeError, MemoryError) as error:  # TypeError: a map with odd keys
            self.close(f"it does not speak RESP: {str(error)[:80]}")
            return ...

    def connection_lost(self, error: Exception | None) -> None:
        self.close(f"the connection broke: {error}" if error is not None else "it closed the connection")


async def ask(connection: Connection, said: bytes, timeout_s: float) -> object:
    """One command and its answer, an error of the server among them.

    Raises:
        TimeoutError: None came in time. Refused: The connection is over.
    """
    answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    if not connection.alive:
        raise Refused("the connection is over")
    connection.awaited.add(answer)
    connection.send(said, lambda got: None if answer.done() else answer.set_result(got))
    try:
        async with asyncio.timeout(timeout_s):
            return await answer
    finally:
        connection.awaited.discard(answer)


async def greet(connection: Connection, login: Login, timeout_s: float) -> None:
    """Say who we are, and bring our scripts.

    Raises:
        Refused: It does not let us in, or is none that can count for us. TimeoutError.
    """
    who = (b"AUTH", (login.username or "default").encode(), login.password.encode()) if login.password else ()
    hello = await ask(connection, command(b"HELLO", b"2", *who), timeout_s)
    if isinstance(hello, hiredis.ReplyError):
        raise Refused(explain(hello))
    about = dict(zip(hello[::2], hello[1::2], strict=False)) if isinstance(hello, list) else {}
    if about.get(b"mode") == b"cluster":
        raise Refused("it is part of a cluster; a call needs all its counters in one place: name a single primary")
    if about.get(b"mode") == b"sentinel":
        raise Refused("it is a sentinel; name the primary itself")
    if about.get(b"role") not in (b"master", b"primary"):
        raise Refused("it is a replica; name the primary" if b"role" in about else "it is no Valkey and no Redis")
    for one in (
        command(b"CLIENT", b"SETNAME", b"narthex"),
        *([command(b"SELECT", b"%d" % login.database)] if login.database else []),
        *(command(b"SCRIPT", b"LOAD", script) for script in (SCRIPT, BEGIN)),
    ):
        said = await ask(connection, one, timeout_s)
        if isinstance(said, hiredis.ReplyError):
            raise Refused(explain(said))


def explain(error: hiredis.ReplyError) -> str:
    """An error of the server, for the operator. It may repeat what it was sent, so the rest of it is not passed on."""
    kind = str(error).partition(" ")[0]
    return _KNOWN.get(kind) or (
        f"it answers {kind}" if kind.isascii() and kind.isupper() and len(kind) < 24 else "error"
    )


def client_context(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """How it is spoken to over TLS; empty for the authorities of the system, and for no certificate.

    Raises:
        OSError, ssl.SSLError: A file cannot be read.
    """
    context = ssl.create_default_context(cafile=ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        context.load_cert_chain(certificate, key or None)
    return context
