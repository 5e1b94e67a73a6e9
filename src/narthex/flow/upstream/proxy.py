"""Which proxy a connection leaves through, if any, and what is said to it.

In: the `egress` setting, the environment, a target; a proxy's answer to CONNECT, which is hostile. Out: the proxy.
Cases: `tests/flow/upstream/test_proxy.py`. Source: RFC 9110 §9.3.6 (CONNECT), RFC 9112 §3.2.2 (absolute form).
The variables are those of curl and most programs: HTTPS_PROXY and HTTP_PROXY, else ALL_PROXY, and NO_PROXY; each in
lower case first.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

from narthex.errors import ConfigError
from narthex.types import Egress, Network

MAX_ANSWER = 16 * 1024
_DEFAULT_PORT = {"http": 80, "https": 443}
_WRITE = "write http://host:port or https://host:port, or set egress.proxy in the configuration"
_host = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+").fullmatch
_status = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?").fullmatch


class Proxy(msgspec.Struct, frozen=True):
    """An HTTP proxy; `tls` where it is itself spoken to over TLS. `authorization` is the value of
    `Proxy-Authorization`, a secret."""

    host: str
    port: int
    authorization: str | None = None
    tls: bool = False


class Bypass(msgspec.Struct, frozen=True):
    """One entry of NO_PROXY: a network, or a domain with all that is under it; `port` None means every port."""

    network: Network | None = None
    domain: str = ""
    port: int | None = None

    def covers(self, host: str, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            address = literal(host)
            return address is not None and address in self.network
        return host == self.domain or host.endswith("." + self.domain)


class Proxies:
    """The proxies of an `egress` setting.

    Args:
        environ: The environment; read where the setting says "env".
    Raises:
        ConfigError: A proxy that is no http:// or https:// URL.
    """

    def __init__(self, egress: Egress, environ: Mapping[str, str]) -> None:
        entries = list(egress.no_proxy)
        self._by_scheme: dict[str, Proxy | None]
        if egress.proxy == "env":
            self._by_scheme = {scheme: _from_environment(scheme, environ) for scheme in ("http", "https")}
            entries += re.split(r"[\s,]+", environ.get("no_proxy") or environ.get("NO_PROXY") or "")
        else:
            proxy = read_proxy(egress.proxy, "egress.proxy") if egress.proxy else None
            self._by_scheme = {"http": proxy, "https": proxy}
        self._all = "*" in entries
        self._bypasses = [bypass(entry.lower()) for entry in entries if entry.strip(".*")]

    def choose(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy for this target; None connects to it directly, as always to this machine itself."""
        proxy = self._by_scheme[scheme]
        if proxy is None or self._all:
            return None
        host = host.lower().rstrip(".")
        if is_loopback(host) or any(one.covers(host, port) for one in self._bypasses):
            return None
        return proxy


def _from_environment(scheme: str, environ: Mapping[str, str]) -> Proxy | None:
    for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"):
        if environ.get(name):
            return read_proxy(environ[name], name)
    return None


def read_proxy(text: str, source: str) -> Proxy:
    """A proxy from its URL; `host:port` alone is taken as http. The URL may hold a password, so no error quotes it.

    Raises:
        ConfigError: Another scheme, no host, or a port that is none.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname or "", parts.port or _DEFAULT_PORT.get(parts.scheme, 0)
    except ValueError:
        raise ConfigError([f"{source}: not a URL; {_WRITE}"]) from None
    if parts.scheme not in _DEFAULT_PORT:
        raise ConfigError([f"{source}: only http:// and https:// proxies are known, no SOCKS; {_WRITE}"])
    if not _host(host):
        raise ConfigError([f"{source}: names no host; {_WRITE}"])
    tls = parts.scheme == "https"
    if parts.username is None:
        return Proxy(host, port, tls=tls)
    user, password = unquote_to_bytes(parts.username), unquote_to_bytes(parts.password or "")
    return Proxy(host, port, "Basic " + b64encode(user + b":" + password).decode("ascii"), tls)


def bypass(entry: str) -> Bypass:
    """One entry: `10.0.0.0/8`, `[::1]:80`, `example.com`, `.example.com`, `*.example.com`, each with a port or not."""
    try:
        return Bypass(network=ip_network(entry, strict=False))
    except ValueError:
        pass
    match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*))(?::([0-9]{1,5}))?", entry)
    if match is None:
        return Bypass(domain=entry)
    port = int(match[3]) if match[3] else None
    name = match[1] or match[2] or ""
    try:
        return Bypass(network=ip_network(name, strict=False), port=port)
    except ValueError:
        return Bypass(domain=name.removeprefix("*").strip("."), port=port)


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that `host` is, None for a name. An IPv4 address inside IPv6 is that IPv4 address."""
    try:
        found = ip_address(host)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def is_loopback(host: str) -> bool:
    """Does `host` reach this machine alone? Names are not looked up."""
    address = literal(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback


def authority(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connect_request(host: str, port: int, proxy: Proxy) -> bytes:
    """The request that opens a tunnel. Raises ValueError for a host that cannot stand in a request."""
    if not _host(host):
        raise ValueError("not a host that a proxy can be asked for")
    target = authority(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def read_connect_answer(data: bytes) -> int | None:
    """The status of a proxy's answer to CONNECT, None while its head is not all there. Interim answers are skipped.

    Raises:
        ValueError: Not an HTTP/1 answer, a head without end, or bytes behind it, where nobody may speak yet.
    """
    at = 0
    while (end := data.find(b"\r\n\r\n", at)) >= 0:
        match = _status(data[at : data.index(b"\r\n", at)])
        if match is None:
            raise ValueError("the proxy does not speak HTTP/1")
        status = int(match[1])
        at = end + 4
        if status >= 200:
            if status < 300 and at != len(data):
                raise ValueError("the proxy sent bytes before the tunnel was in use")
            return status
    if len(data) > MAX_ANSWER:
        raise ValueError("the proxy's answer has no end")
    if not data.startswith(b"HTTP/1."[: len(data)]):
        raise ValueError("the proxy does not speak HTTP/1")
    return None
