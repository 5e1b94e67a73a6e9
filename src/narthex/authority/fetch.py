"""HTTP to those whom we ask: documents, keys, tokens, introspection. Bounded in time and size, and guarded.

In: a URL, and whether the operator wrote it or somebody else did (`learnt`). Out: a whole answer, or
`AuthorityUnavailable`. Every address that a name has is checked and only a checked one is connected to, so a name that
says another address the second time gains nothing; a redirect is a new URL that somebody else supplied. Through an
egress proxy the name is looked up twice: here, to refuse what it says, and by the proxy, whose own rules then decide.
Does I/O on the client of `flow.upstream`. Cases: `tests/authority/test_fetch.py`.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import SplitResult, urljoin

import msgspec

from narthex.authority.addresses import Allowed, Refused, check_address, check_learnt, split
from narthex.authority.peer import Peer, Peers
from narthex.errors import AuthorityUnavailable, UpstreamUnavailable
from narthex.flow.upstream.connection import TOO_LARGE, Answer, HttpPool, ask
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.dns import Address, Lookup, system_lookup
from narthex.flow.upstream.proxy import is_loopback
from narthex.types import Egress, HttpTarget, PeerTls, ServerSpec

TIMEOUT_S = 10.0
MAX_BYTES = 1024 * 1024
MOST_REDIRECTS = 3
MOST_ORIGINS = 256
"""Origins whose idle connections are kept."""
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e]*")

Headers = tuple[tuple[str, str], ...]
Origin = tuple[str, str, int, bool, Peer | None]


class Fetched(msgspec.Struct, frozen=True):
    """A whole answer. Header names are lower-case; `url` is where it came from after redirects."""

    status: int
    headers: dict[str, str]
    body: bytes
    url: str


class Fetch(Protocol):
    """What `Fetcher.fetch` is to those who use it."""

    async def __call__(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Headers = (),
        body: bytes = b"",
        max_bytes: int = MAX_BYTES,
        timeout_s: float = TIMEOUT_S,
        learnt: bool = True,
        tls: PeerTls | None = None,
    ) -> Fetched: ...


class Fetcher:
    """Fetches, the way one `egress` setting says. One lives as long as the setting does.

    Args:
        egress: Proxy, authorities, and what learnt addresses may lead to.
        environ, lookup, clock: As for `Dialer`.
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
    ) -> None:
        self.egress = egress
        self.allowed = Allowed(egress.allow_private, egress.allow_http)
        self._clock = clock
        environ = os.environ if environ is None else environ
        self._dialer = Dialer(egress, environ=environ, lookup=lookup, clock=clock)
        self._peers = Peers(egress, environ=environ, lookup=lookup, clock=clock)
        self._pools: dict[Origin, HttpPool] = {}

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Headers = (),
        body: bytes = b"",
        max_bytes: int = MAX_BYTES,
        timeout_s: float = TIMEOUT_S,
        learnt: bool = True,
        tls: PeerTls | None = None,
    ) -> Fetched:
        """Ask, and read the whole answer, whatever its status.

        Args:
            url: http or https; without TLS only to loopback, or to a host that `egress.allow_http` names.
            method: A GET follows redirects, at most three; to another origin neither `headers` nor `tls` go along.
            headers: Beside those of HTTP itself; they may hold secrets.
            max_bytes, timeout_s: For the body of an answer; for all of it, redirects included.
            learnt: False only for an address that the operator wrote, which may be private.
            tls: What we show there, and whom to trust.
        Raises:
            AuthorityUnavailable: No answer, too large, too late; `refused` where the address is one to stay away from.
        """
        where, answered = "", False
        try:
            async with asyncio.timeout(timeout_s):
                for _ in range(MOST_REDIRECTS + 1):
                    parts, host, port = split(url)
                    where = f"{parts.scheme}://{parts.netloc}"
                    self._check(parts, host, port, learnt)
                    peer = await self._peers.of(tls) if tls is not None else None
                    answer = await self._ask(
                        parts, host, port, method, headers, body, max_bytes, timeout_s, learnt, peer
                    )
                    location = answer.headers.get(b"location")
                    if method != "GET" or answer.status not in (301, 302, 303, 307, 308) or location is None:
                        return _fetched(answer, url)
                    url, old = urljoin(url, location.decode("latin-1").strip()), (parts.scheme, host, port)
                    parts, host, port = split(url)
                    if (parts.scheme, host, port) != old:
                        learnt, headers, tls = True, (), None
                reason, refused = "it redirects without end", False
        except TimeoutError:
            reason, refused = f"no answer within {timeout_s:g} s", False
        except UpstreamUnavailable as error:
            reason, refused = error.detail or error.public, False
            answered = reason == TOO_LARGE
        except Refused as error:
            reason, refused = f"refused: {error}", True
        detail = reason if not where or reason.startswith(where) else f"{where}: {reason}"
        raise AuthorityUnavailable(detail=detail, refused=refused, answered=answered)

    def _check(self, parts: SplitResult, host: str, port: int, learnt: bool) -> None:
        if learnt:
            check_learnt(parts, host, port, self.allowed)
        elif parts.scheme == "http" and not is_loopback(host) and not self.allowed.http(host, port):
            raise Refused("not https; `egress.allow_http` names hosts that may be asked without it")

    async def _ask(
        self,
        parts: SplitResult,
        host: str,
        port: int,
        method: str,
        headers: Headers,
        body: bytes,
        max_bytes: int,
        timeout_s: float,
        learnt: bool,
        peer: Peer | None,
    ) -> Answer:
        target = HttpTarget(
            url="",
            scheme="https" if parts.scheme == "https" else "http",
            host=host,
            port=port,
            path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        )
        if learnt:
            await self._dialer.check_proxied(target, self._address_check(host, port))
        pool = self._pool(target, learnt, timeout_s, peer)
        data = request_bytes(target, pool.dialer, method, headers, body)
        return await ask(pool, data, max_answer=max_bytes, events=False)

    def _pool(self, target: HttpTarget, learnt: bool, timeout_s: float, peer: Peer | None) -> HttpPool:
        """The connections of an origin. Those that were checked are kept apart from those that were not, and so are
        those on which we have shown something."""
        origin = (target.scheme, target.host, target.port, learnt, peer)
        pool = self._pools.pop(origin, None)
        if pool is None:
            spec = ServerSpec(target.host, target, "http", connect_timeout_s=timeout_s)
            check = self._address_check(target.host, target.port) if learnt else None
            dialer, certificate = (self._dialer, None) if peer is None else (peer.dialer, peer.certificate)
            pool = HttpPool(spec, target, dialer, self._clock, check=check, certificate=certificate)
        self._pools[origin] = pool
        if len(self._pools) > MOST_ORIGINS:
            self._pools.pop(next(iter(self._pools))).close()
        return pool

    def _address_check(self, host: str, port: int) -> Callable[[Address], None]:
        return lambda address: check_address(address.ip, host, port, self.allowed)

    def sweep(self) -> None:
        """Once a second: drop connections that have been idle."""
        for pool in self._pools.values():
            pool.sweep()

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()


def request_bytes(target: HttpTarget, dialer: Dialer, method: str, headers: Headers, body: bytes) -> bytes:
    """One request as it goes out. Raises Refused for a header that would be read as two."""
    default = {"http": 80, "https": 443}[target.scheme]
    host = f"[{target.host}]" if ":" in target.host else target.host
    lines = [f"Host: {host}" if target.port == default else f"Host: {host}:{target.port}"]
    lines += ["Accept-Encoding: identity", "User-Agent: narthex"]
    lines += [f"{name}: {value}" for name, value in (*dialer.proxy_headers(target), *headers)]
    if body or method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    for line in lines:
        if not _FIELD.fullmatch(line):
            raise Refused("a header with characters that it may not have")
    head = "\r\n".join((f"{method} {dialer.request_target(target)} HTTP/1.1", *lines))
    return f"{head}\r\n\r\n".encode("ascii") + body


def _fetched(answer: Answer, url: str) -> Fetched:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers.items()}
    return Fetched(answer.status, headers, answer.data, url)
