"""What one client can hold of the admin side. Real sockets; the time that is borne is short."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from narthex.admin import patience
from narthex.admin.patience import PatientProtocol
from tests.flow.gateway import run, until

from .gateway import TOKEN, Gateway, admin, fetch

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
BODY = (
    f"POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\r\nabc"
)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HEAD, id="half a head"),
        pytest.param(HEAD + b"\r\n" + HEAD, id="half a second head"),
        pytest.param(BODY.encode(), id="half a body"),
    ],
)
def test_a_connection_that_goes_nowhere_ends(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.05)

    async def main() -> None:
        async with admin(Gateway()) as server:
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(sent)
            with suppress(ConnectionError):
                while await reader.read(1000):
                    pass
            writer.close()

    run(main)


def test_who_only_opens_connections_keeps_nobody_out_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.2)

    async def main() -> None:
        async with admin(Gateway()) as server:
            opened = [await asyncio.open_connection(*server.address) for _ in range(300)]
            status = 0
            while status != 200:
                with suppress(OSError):  # who asks may be as slow as those, and is not waited for either
                    status, _, _ = await asyncio.to_thread(fetch, server.address[1], "GET", "/healthz")
            for _, writer in opened:
                writer.close()

    run(main)


def test_one_far_address_has_so_many_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "MOST_EACH", 3)
    monkeypatch.setattr(patience, "is_near", lambda address: False)

    async def main() -> None:
        async with admin(Gateway()) as server:
            opened = [await asyncio.open_connection(*server.address) for _ in range(3)]
            await until(lambda: PatientProtocol.held["127.0.0.1"] == 3)
            reader, writer = await asyncio.open_connection(*server.address)
            with suppress(ConnectionError):
                assert await reader.read(1) == b""
            for _, one in [*opened, (reader, writer)]:
                one.close()
            await until(lambda: not PatientProtocol.held)
            assert (await asyncio.to_thread(fetch, server.address[1], "GET", "/healthz"))[0] == 200

    run(main)
