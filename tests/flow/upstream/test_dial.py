"""Dialling, on real sockets: addresses, TLS with a throw-away authority, a real CONNECT proxy, and every failure."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from narthex.errors import UpstreamUnavailable
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.dns import Address
from narthex.types import Egress, HttpTarget
from tests.counterparts.ports import Port

Run = Callable[[Awaitable[None]], None]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
NAME = "server.test"
V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:

        async def bounded(work: Awaitable[None]) -> None:
            await asyncio.wait_for(work, 60)

        yield lambda work: runner.run(bounded(work))


class Authority(NamedTuple):
    """A certificate authority of this test run: its PEM file, and a server context for `NAME` and 127.0.0.1."""

    ca: str
    server: ssl.SSLContext


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("ca"))


def make_authority(folder: Path) -> Authority:
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])

    def certificate(name: x509.Name, public: ec.EllipticCurvePublicKey, *extensions: x509.ExtensionType) -> bytes:
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    ca = certificate(
        issuer,
        ca_key.public_key(),
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()),
        x509.KeyUsage(False, False, False, False, False, True, True, False, False),
    )
    names: list[x509.GeneralName] = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    leaf = certificate(subject, key.public_key(), x509.SubjectAlternativeName(names))
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "ca.pem").write_bytes(ca)
    (folder / "server.pem").write_bytes(key.private_bytes(*encoding) + leaf)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    context.set_alpn_protocols(["h2", "http/1.1"])
    return Authority(str(folder / "ca.pem"), context)


class Client(asyncio.Protocol):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.received = b""
        self.changed = asyncio.Event()
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.changed.set()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass
    writer.close()


@asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def dialer(egress: Egress, *addresses: Address) -> Dialer:
    found = addresses or (Address(V4, "127.0.0.1"),)
    return Dialer(egress, environ={}, lookup=lambda host: found)


async def talk(dial: Dialer, scheme: str, host: str, port: int) -> asyncio.Transport:
    """Connect, send four bytes, see them come back."""
    transport, client = await dial.dial(scheme, host, port, Client, connect_timeout_s=50)
    assert isinstance(client, Client)
    transport.write(b"ping")
    while client.received != b"ping":
        client.changed.clear()
        await client.changed.wait()
    return transport


async def refused(dial: Dialer, scheme: str, host: str, port: int, timeout_s: float = 50) -> str:
    """Connect, which must fail; returns the operator's detail."""
    with pytest.raises(UpstreamUnavailable) as caught:
        await dial.dial(scheme, host, port, Client, connect_timeout_s=timeout_s)
    assert caught.value.sent is False
    assert caught.value.public == "the server cannot be reached"
    return caught.value.detail


def test_plain_with_nodelay_and_keepalive(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as port:
            for host in (NAME, "127.0.0.1"):
                transport = await talk(dialer(Egress()), "http", host, port)
                sock = transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                transport.close()

    run(work())


def test_an_address_is_not_looked_up(run: Run) -> None:
    def never(host: str) -> tuple[Address, ...]:
        raise AssertionError(host)

    async def work() -> None:
        async with serving(echo) as port:
            (await talk(Dialer(Egress(), environ={}, lookup=never), "http", "127.0.0.1", port)).close()

    run(work())


def test_the_next_address_is_tried_when_one_fails(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as port:
            # Nothing listens on 127.0.0.2 and ::1 at this port: they refuse at once.
            dead = [Address(V4, "127.0.0.2"), Address(V6, "::1"), Address(V4, "127.0.0.3")]
            (await talk(dialer(Egress(), *dead, Address(V4, "127.0.0.1")), "http", NAME, port)).close()
            assert "refused" in (await refused(dialer(Egress(), Address(V4, "127.0.0.2")), "http", NAME, port)).lower()

    run(work())


def test_an_address_that_hangs_costs_only_its_head_start(run: Run) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as full, socket.socket() as filler, socket.socket() as second:
            # A listener that never accepts, its queue filled: further connections hang.
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            full.bind(("127.0.0.2", port))
            full.listen(0)
            for sock in (filler, second):
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.2", port))
            began = loop.time()
            hanging = [Address(V4, "127.0.0.2"), Address(V4, "127.0.0.1")]
            (await talk(dialer(Egress(), *hanging), "http", NAME, port)).close()
            assert loop.time() - began < 25, "it takes until its time is over"
            server.close()

    run(work())


def test_tls_checks_name_and_authority_and_says_http_1_1(run: Run, authority: Authority) -> None:
    async def work() -> None:
        async with serving(echo, authority.server) as port:
            dial = dialer(Egress(ca=authority.ca))
            for host in (NAME, "127.0.0.1"):
                transport = await talk(dial, "https", host, port)
                assert transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
                transport.close()
            assert "certificate" in await refused(dial, "https", "other.test", port)
            assert "certificate" in await refused(dialer(Egress()), "https", NAME, port), "the system does not know it"

    run(work())


def test_the_context_is_made_once(run: Run, authority: Authority) -> None:
    async def work() -> None:
        async with serving(echo, authority.server) as port:
            dial = dialer(Egress(ca=authority.ca))
            transports = await asyncio.gather(*[talk(dial, "https", NAME, port) for _ in range(5)])
            assert len({id(one.get_extra_info("ssl_object").context) for one in transports}) == 1
            for transport in transports:
                transport.close()

    run(work())


def test_a_ca_file_that_cannot_be_used_is_named_and_tried_again(run: Run, authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"

    async def work() -> None:
        async with serving(echo, authority.server) as port:
            dial = dialer(Egress(ca=str(path)))
            assert str(path) in await refused(dial, "https", NAME, port)
            path.write_text("nonsense")
            assert str(path) in await refused(dial, "https", NAME, port)
            path.write_bytes(Path(authority.ca).read_bytes())
            (await talk(dial, "https", NAME, port)).close()

    run(work())


def test_every_failure_is_unavailable_and_says_where(run: Run, authority: Authority) -> None:
    async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def work() -> None:
        dial, closed = dialer(Egress(ca=authority.ca)), Port()
        port = closed.number
        assert f"http://{NAME}:{port}: " in await refused(dial, "http", NAME, port)
        async with serving(hang) as port:
            assert "within 0.1 s" in await refused(dial, "https", NAME, port, 0.1), "a handshake that never ends"
        async with serving(echo) as port:
            assert "SSL" in await refused(dial, "https", NAME, port), "TLS to a server that speaks none"
        async with serving(close_at_once) as port:
            assert len(await refused(dial, "https", NAME, port)) > len(f"https://{NAME}:{port}: ")

        def fail(host: str) -> tuple[Address, ...]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        assert "not known" in await refused(Dialer(Egress(), environ={}, lookup=fail), "http", NAME, 80)
        assert "no address" in await refused(Dialer(Egress(), environ={}, lookup=lambda host: ()), "http", NAME, 80)

    run(work())


def test_a_dial_that_nobody_waits_for_leaves_no_connection(run: Run) -> None:
    async def work() -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            began.set()
            try:
                while await reader.read(1000):
                    pass
            finally:
                writer.close()
                ended.set()

        async with serving(watch) as port:
            client = asyncio.ensure_future(dialer(Egress()).dial("https", NAME, port, Client, connect_timeout_s=50))
            await began.wait()
            client.cancel()
            with pytest.raises(asyncio.CancelledError):
                await client
            await ended.wait()

    run(work())


class ConnectProxy:
    """A proxy that tunnels CONNECT and answers all else itself. Names lead to 127.0.0.1; `answer` replaces the 200."""

    def __init__(self, answer: bytes | None = None) -> None:
        self.heads: list[bytes] = []
        self.answer = answer

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if self.answer is not None:
                writer.write(self.answer)
                await hang(reader, writer)
                return
            port = int(head.split(b" ")[1].rpartition(b":")[2])
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            for byte in b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n":
                writer.write(bytes([byte]))  # in small pieces
                await writer.drain()
            await asyncio.gather(self.pump(reader, far_writer), self.pump(far_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


def test_https_goes_through_a_tunnel(run: Run, authority: Authority) -> None:
    async def work() -> None:
        proxy = ConnectProxy()
        async with serving(echo, authority.server) as port, serving(proxy.handle) as proxy_port:
            url = f"http://me:s%20ecret@127.0.0.1:{proxy_port}"
            for egress, environ in (
                (Egress(proxy=url, ca=authority.ca), {}),
                (Egress(ca=authority.ca), {"https_proxy": url}),
            ):
                dial = Dialer(egress, environ=environ)
                (await talk(dial, "https", NAME, port)).close()
                head = proxy.heads.pop()
                assert head.startswith(f"CONNECT {NAME}:{port} HTTP/1.1\r\nHost: {NAME}:{port}\r\n".encode())
                assert b"\r\nProxy-Authorization: Basic bWU6cyBlY3JldA==\r\n" in head
                assert dial.proxy_headers(HttpTarget("", "https", NAME, port, "/mcp")) == ()
                assert "certificate" in await refused(dial, "https", "other.test", port), (
                    "checked through the tunnel too"
                )
                proxy.heads.clear()
                (await talk(dial, "https", "127.0.0.1", port)).close()
                assert proxy.heads == [], "this machine is reached directly"

    run(work())


def test_a_proxy_is_spoken_to_over_tls(run: Run, authority: Authority) -> None:
    async def work() -> None:
        proxy = ConnectProxy()
        async with serving(echo, authority.server) as port, serving(proxy.handle, authority.server) as proxy_port:
            dial = Dialer(Egress(proxy=f"https://me:x@127.0.0.1:{proxy_port}", ca=authority.ca), environ={})
            transport = await talk(dial, "https", NAME, port)
            assert proxy.heads.pop().startswith(f"CONNECT {NAME}:{port} HTTP/1.1\r\n".encode())
            assert transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            transport.close()
            assert "certificate" in await refused(dial, "https", "other.test", port), "inside the tunnel too"
            strangers = Dialer(Egress(proxy=f"https://127.0.0.1:{proxy_port}"), environ={})
            assert "certificate" in await refused(strangers, "https", NAME, port), "of the proxy itself"
        async with serving(echo, authority.server) as proxy_port:
            dial = Dialer(Egress(proxy=f"https://127.0.0.1:{proxy_port}", ca=authority.ca), environ={})
            (await talk(dial, "http", NAME, 8000)).close()  # plain HTTP reaches the proxy itself, inside its TLS
            assert dial.request_target(HttpTarget("", "http", NAME, 8000, "/mcp")) == f"http://{NAME}:8000/mcp"

    run(work())


def test_a_large_message_goes_through_both_layers_of_tls(run: Run, authority: Authority) -> None:
    async def work() -> None:
        proxy = ConnectProxy()
        async with serving(echo, authority.server) as port, serving(proxy.handle, authority.server) as proxy_port:
            dial = Dialer(Egress(proxy=f"https://127.0.0.1:{proxy_port}", ca=authority.ca), environ={})
            transport, client = await dial.dial("https", NAME, port, Client, connect_timeout_s=50)
            assert isinstance(client, Client)
            sent = bytes(range(256)) * 4096
            transport.write(sent)
            while len(client.received) < len(sent):
                client.changed.clear()
                await client.changed.wait()
            assert client.received == sent
            transport.abort()
            while not client.lost:
                client.changed.clear()
                await client.changed.wait()

    run(work())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "over TLS"])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(b"HTTP/1.1 407 No\r\n\r\n", "407", id="wrong password"),
        pytest.param(b"HTTP/1.1 502 No\r\n\r\n", "502", id="it cannot reach the server"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nearly", "before the tunnel", id="early bytes"),
        pytest.param(b"220 mail ready\r\n\r\n", "does not speak", id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", "within 0.2 s", id="an answer that never ends"),
    ],
)
def test_a_proxy_that_does_not_tunnel(run: Run, authority: Authority, answer: bytes, said: str, tls: bool) -> None:
    async def work() -> None:
        async with serving(ConnectProxy(answer).handle, authority.server if tls else None) as port:
            url = f"{'https' if tls else 'http'}://u:hunter2@127.0.0.1:{port}"
            dial = Dialer(Egress(proxy=url, ca=authority.ca), environ={})
            detail = await refused(dial, "https", NAME, 443, 0.2 if "within" in said else 5)
            assert said in detail
            assert f"through the proxy 127.0.0.1:{port}" in detail
            assert "hunter2" not in detail

    run(work())


def test_plain_http_is_forwarded_in_absolute_form(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as port:
            dial = Dialer(Egress(proxy=f"http://me:x@127.0.0.1:{port}", no_proxy=(".direct.test",)), environ={})
            (await talk(dial, "http", NAME, 8000)).close()  # the bytes reach the proxy itself
            target = HttpTarget("", "http", NAME, 8000, "/mcp?a=b")
            assert dial.request_target(target) == f"http://{NAME}:8000/mcp?a=b"
            assert dial.proxy_headers(target) == (("Proxy-Authorization", "Basic bWU6eA=="),)
            assert dial.request_target(HttpTarget("", "http", "2001:db8::1", 80, "/")) == "http://[2001:db8::1]/"
            for direct in (
                HttpTarget("", "https", NAME, 443, "/mcp"),
                HttpTarget("", "http", "a.direct.test", 80, "/mcp"),
                HttpTarget("", "http", "localhost", 80, "/mcp"),
            ):
                assert dial.request_target(direct) == "/mcp"
                assert dial.proxy_headers(direct) == ()

    run(work())
