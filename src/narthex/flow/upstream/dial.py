"""New connections to upstreams: names, addresses, proxies, TLS.

In: a target that the operator wrote. Out: a connected transport and its protocol, or `UpstreamUnavailable(sent=False)`.
Does I/O, on asyncio and uvloop. Cases: `tests/flow/upstream/test_dial.py`. Source: RFC 8305 (several addresses),
RFC 9112 §3.2.2 and RFC 9110 §9.3.6 (proxies). One `Dialer` lives as long as its `egress` setting.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import IO, Any

from narthex.errors import UpstreamUnavailable
from narthex.flow.outbox import Outbox
from narthex.flow.upstream.dns import Address, Lookup, Resolver, system_lookup
from narthex.flow.upstream.port import Certificate
from narthex.flow.upstream.proxy import (
    Proxies,
    Proxy,
    authority,
    connect_request,
    literal,
    read_connect_answer,
)
from narthex.types import Egress, HttpTarget

NEXT_ADDRESS_S = 0.25
"""An address that has not answered by then gets company from the next one (RFC 8305 §5)."""
MOST_ADDRESSES = 8
MOST_CONTEXTS = 64
"""TLS contexts that are kept, one for each client certificate of ours; the one used longest ago goes first."""
SHUTDOWN_S = 2.0
"""How long a TLS peer may take to say goodbye."""
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""A peer that vanished is noticed within a minute. Each system knows some of these (seconds; the last one a count)."""

_CLOSED = "the proxy closed the connection"

Factory = Callable[[], asyncio.BaseProtocol]
Dialled = tuple[asyncio.Transport, asyncio.BaseProtocol]
Check = Callable[[Address], None]


class Dialer:
    """Makes connections the way one `egress` setting says.

    Args:
        egress: Proxy, exceptions, certificate authorities. The file of the latter is read at the first TLS connection.
        environ: Where the setting says "env"; the process's own by default.
        lookup: Names to addresses, called in a thread; the machine's resolver by default.
        clock: Seconds, monotonic.
        outbox: Where what is sent on its connections waits for the end of the loop's turn.
    Raises:
        ConfigError: A proxy that cannot be used.
    """

    def __init__(
        self,
        egress: Egress,
        *,
        environ: Mapping[str, str] | None = None,
        lookup: Lookup = system_lookup,
        clock: Callable[[], float] = time.monotonic,
        outbox: Outbox | None = None,
    ) -> None:
        self.outbox = outbox or Outbox()
        self._ca = egress.ca
        self._proxies = Proxies(egress, os.environ if environ is None else environ)
        self._resolver = Resolver(lookup, clock)
        self._contexts: dict[Certificate | None, asyncio.Task[ssl.SSLContext]] = {}

    async def dial(
        self,
        scheme: str,
        host: str,
        port: int,
        protocol_factory: Factory,
        *,
        connect_timeout_s: float,
        check: Check | None = None,
        certificate: Certificate | None = None,
    ) -> Dialled:
        """Connect, directly or through a proxy, and for https finish the TLS handshake.

        Args:
            scheme: "http" or "https".
            connect_timeout_s: For all of it together.
            check: Sees every address that `host` has, before one of them is connected to: the same ones, not looked up
                again. It raises what the caller is to get. A proxy looks the name up by itself.
            certificate: What we show a TLS server that asks for one.
        Raises:
            UpstreamUnavailable: Not connected; `detail` says what failed. Nothing was sent to the server.
        """
        where = f"{scheme}://{authority(host, port)}"
        proxy = self._proxies.choose(scheme, host, port)
        if proxy is not None:
            where += f" through the proxy {authority(proxy.host, proxy.port)}"
        try:
            async with asyncio.timeout(connect_timeout_s):
                tls = await self._tls_to(host, connect_timeout_s, certificate) if scheme == "https" else {}
                return await self._dial(host, port, tls, proxy, protocol_factory, connect_timeout_s, check)
        except TimeoutError:
            reason = f"no connection within {connect_timeout_s:g} s"
        except ssl.SSLCertVerificationError as error:
            reason = f"its certificate is not trusted: {error.verify_message}"
        except (OSError, ValueError) as error:
            reason = _reason(error)
        raise UpstreamUnavailable("the server cannot be reached", detail=f"{where}: {reason}")

    def request_target(self, target: HttpTarget) -> str:
        """What stands in the request line: the path, or the whole URL for a proxy that is to forward plain HTTP."""
        if self._forwarding(target) is None:
            return target.path
        host = f"[{target.host}]" if ":" in target.host else target.host
        return f"http://{host}{'' if target.port == 80 else f':{target.port}'}{target.path}"

    def proxy_headers(self, target: HttpTarget) -> tuple[tuple[str, str], ...]:
        """Headers for a proxy that is to forward plain HTTP. Empty for https: there the tunnel has had them."""
        proxy = self._forwarding(target)
        return (("Proxy-Authorization", proxy.authorization),) if proxy and proxy.authorization else ()

    async def check_proxied(self, target: HttpTarget, check: Check) -> None:
        """Show `check` the addresses of a host that a proxy is to reach, as far as this machine can look it up."""
        if self._proxies.choose(target.scheme, target.host, target.port) is None or literal(target.host) is not None:
            return
        try:
            addresses = await self._resolver.addresses(target.host)
        except OSError:
            return  # where only the proxy reaches the outside, often only the proxy can look it up
        for address in addresses:
            check(address)

    def _forwarding(self, target: HttpTarget) -> Proxy | None:
        return self._proxies.choose("http", target.host, target.port) if target.scheme == "http" else None

    async def _dial(
        self,
        host: str,
        port: int,
        tls: dict[str, Any],
        proxy: Proxy | None,
        factory: Factory,
        timeout_s: float,
        check: Check | None,
    ) -> Dialled:
        loop = asyncio.get_running_loop()
        first = tls  # what the socket itself speaks
        if proxy is None:
            sock = await self._connect(host, port, check)
        else:
            first = await self._tls_to(proxy.host, timeout_s) if proxy.tls else {}
            sock = await self._connect(proxy.host, proxy.port, None)
        try:
            if proxy is not None and tls and first:
                return await _through_tls(sock, first, factory, tls, connect_request(host, port, proxy))
            if proxy is not None and tls:
                await _tunnel(sock, connect_request(host, port, proxy))
                first = tls
            return await loop.create_connection(factory, sock=sock, **first)
        except BaseException:
            sock.close()
            raise

    async def _tls_to(self, host: str, timeout_s: float, certificate: Certificate | None = None) -> dict[str, Any]:
        """What makes a connection one over TLS to `host`."""
        return {
            "ssl": await self._tls(certificate),
            "server_hostname": host,
            "ssl_handshake_timeout": timeout_s,
            "ssl_shutdown_timeout": SHUTDOWN_S,
        }

    async def _connect(self, host: str, port: int, check: Check | None) -> socket.socket:
        if literal(host) is not None:
            addresses = [Address(socket.AF_INET6 if ":" in host else socket.AF_INET, host)]
        else:
            addresses = _interleave(await self._resolver.addresses(host))
        if check is not None:
            for address in addresses:
                check(address)
        return await (_connect_any(addresses, port) if len(addresses) > 1 else _connect_one(addresses[0], port))

    async def _tls(self, certificate: Certificate | None) -> ssl.SSLContext:
        """The context for a certificate of ours, made once in a thread (some ten milliseconds); after a failure the
        next call tries again."""
        context = self._contexts.pop(certificate, None)
        if context is None or (context.done() and context.exception() is not None):
            context = asyncio.ensure_future(asyncio.to_thread(tls_context, self._ca, certificate))
        self._contexts[certificate] = context
        if len(self._contexts) > MOST_CONTEXTS:
            del self._contexts[next(iter(self._contexts))]
        return await asyncio.shield(context)


def _reason(error: OSError | ValueError) -> str:
    """The operator's words. asyncio puts words of its own into an `OSError`; its number says more."""
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError | socket.gaierror) and error.errno:
        return os.strerror(error.errno)
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def tls_context(ca: str, certificate: Certificate | None = None) -> ssl.SSLContext:
    """Verifies certificates and host names, TLS 1.2 or newer, HTTP/1.1 alone.

    Args:
        ca: "system", or a PEM file whose certificates are the only ones trusted.
        certificate: What we show a server that asks for one.
    Raises:
        OSError: The file cannot be read, or holds no certificate; or the certificate of ours is none, or not its key's.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca == "system" else ca)
    except OSError as error:
        raise OSError(f"the file of egress.ca, {ca}: {error.strerror or error}") from None
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        _load(context, certificate)
    return context


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    """OpenSSL's Python face takes files alone: an anonymous one in memory, or where there is none, one that is gone at
    once and that only this user could read."""
    with _nameless() as held:
        held.write(f"{certificate.chain}\n{certificate.key}\n".encode())
        held.flush()
        try:
            context.load_cert_chain(held.name if isinstance(held.name, str) else f"/proc/self/fd/{held.fileno()}")
        except (OSError, ValueError) as error:
            # The file's name says nothing, and OpenSSL's reason names no content.
            reason = getattr(error, "reason", None) or "no PEM without a password"
            raise OSError(f"the client certificate and its key cannot be used: {reason}") from None


def _nameless() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("narthex-certificate"), "wb")
    return tempfile.NamedTemporaryFile("wb")


def _interleave(addresses: Sequence[Address]) -> list[Address]:
    """Families in turn, the first one's first (RFC 8305 §4): one family that leads nowhere costs one wait."""
    first = [one for one in addresses if one.family == addresses[0].family]
    other = [one for one in addresses if one.family != addresses[0].family]
    turns = chain.from_iterable(zip_longest(first, other))
    return [one for one in turns if one is not None][:MOST_ADDRESSES]


async def _connect_one(address: Address, port: int) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        await asyncio.get_running_loop().sock_connect(sock, address.sockaddr(port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect_any(addresses: Sequence[Address], port: int) -> socket.socket:
    """The first connection that stands. Each address gets a head start on the next, which a failure ends."""
    left = list(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    failure: BaseException = OSError("the name has no address")
    try:
        while left or running:
            if left:
                running.add(asyncio.ensure_future(_connect_one(left.pop(0), port)))
            done, _ = await asyncio.wait(
                running, timeout=NEXT_ADDRESS_S if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if task.exception() is None:
                    running.remove(task)
                    return task.result()
                running.remove(task)
                failure = task.exception() or failure
        raise failure
    finally:
        for task in running:
            task.add_done_callback(_close_late)
            task.cancel()


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _tunnel(sock: socket.socket, request: bytes) -> None:
    """Ask a proxy for a tunnel. Raises OSError or ValueError where there is none."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, request)
    answer = b""
    while (status := read_connect_answer(answer)) is None:
        data = await loop.sock_recv(sock, 4096)
        if not data:
            raise OSError(_CLOSED)
        answer += data
    _check_tunnel(status)


def _check_tunnel(status: int) -> None:
    if status == 407:
        raise OSError("the proxy asks for another user name or password (407)")
    if status >= 300:
        raise OSError(f"the proxy answered {status}")


async def _through_tls(
    sock: socket.socket, outer: dict[str, Any], factory: Factory, inner: dict[str, Any], request: bytes
) -> Dialled:
    """The same to a proxy that is spoken to over TLS, and then TLS to the server inside of it."""
    loop = asyncio.get_running_loop()
    transport, asking = await loop.create_connection(_Asking, sock=sock, **outer)
    try:
        transport.write(request)
        await asking.opened
        context = inner.pop("ssl")
        inside = await _start_tls(transport, asking, context, inner)
        protocol = factory()
        inside.set_protocol(protocol)
        protocol.connection_made(inside)
    except BaseException:
        transport.abort()
        raise
    return inside, protocol


async def _start_tls(
    transport: asyncio.Transport, asking: _Asking, context: ssl.SSLContext, inner: dict[str, Any]
) -> asyncio.Transport:
    try:
        inside = await asyncio.get_running_loop().start_tls(transport, asking, context, **inner)
    except TypeError as error:  # asyncio of 3.11 stumbles over a handshake that fails inside of another TLS connection
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    if inside is None or asking.failed:
        raise OSError(_CLOSED)
    return inside


class _Asking(asyncio.Protocol):
    """A connection to a proxy until its tunnel stands. Nobody may speak in it before we do."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failed = False
        self._answer = b""

    def data_received(self, data: bytes) -> None:
        self._answer += data
        try:
            status = read_connect_answer(self._answer)
            if status is None:
                return
            _check_tunnel(status)
        except (OSError, ValueError) as error:
            self._fail(error)
        else:
            if not self.opened.done():
                self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or OSError(_CLOSED))

    def _fail(self, error: Exception) -> None:
        self.failed = True
        if not self.opened.done():
            self.opened.set_exception(error)
