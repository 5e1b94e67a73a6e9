"""Peers over TLS with files of the operator's: who is shown what, whom is trusted, and renewed files are taken up."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from narthex.authority.fetch import Fetcher
from narthex.errors import AuthorityUnavailable
from narthex.types import Egress, PeerTls
from tests.e2e.certificates import Authority, Pair
from tests.flow.upstream.test_dial import serving


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Site:
    """A server that asks for a certificate, and answers with the name in it; `places` are redirects by path."""

    def __init__(self, authority: Authority, clients: Authority | None) -> None:
        self.context = authority.server_context(authority.issue("server"))
        if clients is not None:
            self.context.verify_mode = ssl.CERT_OPTIONAL
            self.context.load_verify_locations(clients.file)
        self.places: dict[str, str] = {}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
                shown: Any = writer.get_extra_info("peercert") or {}
                name = dict(one[0] for one in shown.get("subject", ())).get("commonName", "nobody")
                where = self.places.get(path)
                head = f"302 Found\r\nLocation: {where}" if where else "200 OK"
                writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(name)}\r\n\r\n{name}".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


Ask = Callable[[str], Awaitable[str]]


def with_site(
    site: Site, tls: PeerTls | None, case: Callable[[Ask, int, Clock], Awaitable[None]], **egress: Any
) -> None:
    async def main() -> None:
        clock = Clock()
        fetcher = Fetcher(Egress(proxy=None, **egress), environ={}, clock=clock)

        async def ask(url: str) -> str:
            return (await fetcher.fetch(url, learnt=False, tls=tls)).body.decode()

        async with serving(site.handle, site.context) as port:
            try:
                await asyncio.wait_for(case(ask, port, clock), 60)
            finally:
                fetcher.close()

    asyncio.run(main())


@pytest.fixture
def servers(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "servers")


@pytest.fixture
def clients(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "clients")


def test_it_is_shown_our_certificate_and_verified_by_its_own_authority(servers: Authority, clients: Authority) -> None:
    mine = clients.issue("gateway")

    async def case(ask: Ask, port: int, clock: Clock) -> None:
        assert await ask(f"https://127.0.0.1:{port}/") == "gateway"

    with_site(Site(servers, clients), PeerTls(servers.file, mine.cert, mine.key), case)


@pytest.mark.parametrize("trusts", ["the system", "another authority"])
def test_whom_its_authority_has_not_signed_is_not_asked(servers: Authority, clients: Authority, trusts: str) -> None:
    async def case(ask: Ask, port: int, clock: Clock) -> None:
        with pytest.raises(AuthorityUnavailable) as refused:
            await ask(f"https://127.0.0.1:{port}/")
        assert "certificate is not trusted" in refused.value.detail

    tls = PeerTls("" if trusts == "the system" else clients.file)
    # What `egress` trusts says nothing where the peer has authorities of its own.
    with_site(Site(servers, None), tls, case, ca="system" if trusts == "the system" else servers.file)


def test_another_place_that_it_sends_us_to_is_shown_nothing(servers: Authority, clients: Authority) -> None:
    mine, site = clients.issue("gateway"), Site(servers, clients)

    async def case(ask: Ask, port: int, clock: Clock) -> None:
        site.places = {"/here": "/there", "/away": f"https://localhost:{port}/"}
        assert await ask(f"https://127.0.0.1:{port}/here") == "gateway"
        # The name is one that others may lead us to only where `allow_private` says so.
        assert await ask(f"https://127.0.0.1:{port}/away") == "nobody"

    allowed = ("localhost", "127.0.0.0/8", "::1")
    with_site(site, PeerTls(servers.file, mine.cert, mine.key), case, ca=servers.file, allow_private=allowed)


def test_renewed_files_are_taken_up(servers: Authority, clients: Authority, tmp_path: Path) -> None:
    old, new = clients.issue("old"), clients.issue("new")
    ours = Pair(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))

    def put(cert: Pair, key: Pair) -> None:
        for source, target in ((cert.cert, ours.cert), (key.key, ours.key)):
            shutil.copy(source, f"{target}.new")
            Path(f"{target}.new").replace(target)

    async def case(ask: Ask, port: int, clock: Clock) -> None:
        async def later(name: str) -> None:
            clock.now += 2.0  # from here on another look is due, which nobody waits for
            async with asyncio.timeout(60):
                while await ask(f"https://127.0.0.1:{port}/") != name:
                    clock.now += 2.0
                    await asyncio.sleep(0.005)

        put(old, old)
        await later("old")
        put(new, old)  # half of it is written
        for _ in range(10):
            await later("old")
        put(new, new)
        await later("new")

    with_site(Site(servers, clients), PeerTls(servers.file, ours.cert, ours.key), case)


@pytest.mark.parametrize("lacks", ["ca", "cert", "key"])
def test_files_that_are_not_there(servers: Authority, clients: Authority, tmp_path: Path, lacks: str) -> None:
    mine = clients.issue("gateway")
    files = {"ca": servers.file, "cert": mine.cert, "key": mine.key} | {lacks: str(tmp_path / "none.pem")}

    async def case(ask: Ask, port: int, clock: Clock) -> None:
        with pytest.raises(AuthorityUnavailable) as refused:
            await ask(f"https://127.0.0.1:{port}/")
        assert "none.pem" in refused.value.detail and "egress" not in refused.value.detail
        (tmp_path / "none.pem").write_text(
            Path({"ca": servers.file, "cert": mine.cert, "key": mine.key}[lacks]).read_text()
        )
        clock.now += 2.0
        assert await ask(f"https://127.0.0.1:{port}/") == "gateway"

    with_site(Site(servers, clients), PeerTls(**files), case)
