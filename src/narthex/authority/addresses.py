"""Where an address that somebody else supplied may lead: not to this machine, its network or its cloud's metadata.

In: URLs and IP addresses, all hostile. Out: nothing, or the reason to refuse. Nothing is looked up here: `fetch` shows
every DNS answer to `check_address`. Cases: `tests/authority/test_addresses.py`.
Source: the IANA special-purpose address registries (RFC 6890 and its updates); RFC 6052 (NAT64); MCP 2026-07-28,
Security Best Practices (SSRF). IP addresses are read by `ipaddress` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from narthex.flow.upstream.proxy import Bypass, bypass, is_loopback

REFUSED_V4 = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared with the provider",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local, where clouds keep their metadata",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved",
    "192.0.2.0/24": "for documentation",
    "192.31.196.0/24": "reserved",
    "192.52.193.0/24": "reserved",
    "192.88.99.0/24": "6to4",
    "192.168.0.0/16": "private",
    "192.175.48.0/24": "reserved",
    "198.18.0.0/15": "for benchmarks",
    "198.51.100.0/24": "for documentation",
    "203.0.113.0/24": "for documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
GLOBAL_V6 = ip_network("2000::/3")
"""All that is handed out of IPv6 (RFC 4291 §2.4): whatever lies outside is private, link-local, mapped or reserved."""
REFUSED_V6 = {
    "2001::/23": "reserved (Teredo, ORCHID, benchmarks)",
    "2001:db8::/32": "for documentation",
    "2002::/16": "6to4",
    "3fff::/20": "for documentation",
    "2620:4f:8000::/48": "reserved",
}
NAT64 = ip_network("64:ff9b::/96")
METADATA = {
    ip_address(address)
    for address in (
        "169.254.169.254",
        "169.254.170.2",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
    )
}
"""Of the large clouds; 168.63.129.16 lies amid public addresses. Refused even where their network is allowed."""
_V4 = {ip_network(network): reason for network, reason in REFUSED_V4.items()}
_V6 = {ip_network(network): reason for network, reason in REFUSED_V6.items()}
_HOST = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?"
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
LOCAL_NAMES = ("localhost", "local", "internal", "localdomain", "home.arpa")
MAX_URL = 2048


class Refused(Exception):
    """An address to stay away from. Its text is for the operator."""


class Allowed:
    """Hosts, domains (`.example.com`) and networks that an address of others may lead to all the same.

    Args:
        private: Whose addresses may be private. Metadata addresses never are.
        http: Which may be spoken to without TLS.
    """

    def __init__(self, private: Iterable[str] = (), http: Iterable[str] = ()) -> None:
        self._private = [bypass(entry.lower()) for entry in private]
        self._http = [bypass(entry.lower()) for entry in http]

    def private(self, host: str, port: int) -> bool:
        return _covered(self._private, host, port)

    def http(self, host: str, port: int) -> bool:
        return _covered(self._http, host, port)


def _covered(entries: list[Bypass], host: str, port: int) -> bool:
    name = host.rstrip(".")
    return any(one.covers(name, port) for one in entries)


def refused(address: str) -> str | None:
    """Why an IP address may not be connected to on somebody else's word, None where it may.

    An IPv4 address inside an IPv6 one (mapped, NAT64) is judged as that IPv4 address; other embeddings are refused.
    Raises ValueError for what is no address.
    """
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or (IPv4Address(int(found) & 0xFFFFFFFF) if found in NAT64 else None)
        if inner is None:
            if found not in GLOBAL_V6:
                return "not global unicast: loopback, private, link-local or reserved"
            return next((reason for network, reason in _V6.items() if found in network), None)
        found = inner
    return next((reason for network, reason in _V4.items() if found in network), None)


def is_metadata(address: str) -> bool:
    """Is this where a cloud keeps the credentials of its machines?"""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or (IPv4Address(int(found) & 0xFFFFFFFF) if found in NAT64 else found)
    return found in METADATA


def split(url: str) -> tuple[SplitResult, str, int]:
    """A URL in its parts, its host in lower case, its port. The URL is never quoted: it may hold a secret.

    Raises:
        Refused: Not an http or https URL that every reader reads alike.
    """
    if len(url) > MAX_URL or not re.fullmatch(r"[\x21-\x7e]+", url) or re.search(r'[\\<>"^`{|}]', url):
        raise Refused("the URL is too long, or has characters that must be encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Refused("not a URL") from None
    if parts.scheme not in ("http", "https"):
        raise Refused("the URL is neither https nor http")
    if "@" in parts.netloc or "%" in parts.netloc:
        raise Refused("the URL holds a user name, or an encoded host")
    if port == 0 or not parts.hostname:
        raise Refused("the URL names no host")
    return (
        parts,
        read_host(parts.hostname, bracketed="[" in parts.netloc),
        port or (443 if parts.scheme == "https" else 80),
    )


def read_host(host: str, *, bracketed: bool) -> str:
    """A host name, or an IP address in its usual form, short and lower-case.

    `127.1`, `0x7f000001`, `017700000001` and `2130706433` are loopback to a resolver, and names to whoever compares
    texts: a host that ends in a number is an address in dotted form, or refused (as browsers do, WHATWG URL §3.5).
    """
    host = host.lower()
    if bracketed:
        try:
            return str(IPv6Address(host))
        except ValueError:
            raise Refused("not an IPv6 address") from None
    if not _HOST.fullmatch(host):
        raise Refused("not a host name")
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise Refused("an IPv4 address in a form that is not the usual one") from None
    return host


def check_learnt(parts: SplitResult, host: str, port: int, allowed: Allowed) -> None:
    """May we go where somebody else sends us, as far as the URL itself says? Raises Refused."""
    named = allowed.private(host, port)
    if parts.scheme == "http" and not (named and is_loopback(host)) and not allowed.http(host, port):
        raise Refused("not https")
    bare = host.rstrip(".")
    if named:
        if _is_address(host) and is_metadata(host):
            raise Refused("the host is a metadata address")
    elif _is_address(host):
        if reason := refused(host):
            raise Refused(f"the host is an address that is refused: {reason}")
    elif "." not in bare or any(bare == name or bare.endswith("." + name) for name in LOCAL_NAMES):
        raise Refused("the host is a name of this machine or its network")


def check_address(address: str, host: str, port: int, allowed: Allowed) -> None:
    """May this answer of the DNS for `host` be connected to? Raises Refused."""
    if is_metadata(address):
        raise Refused("the name leads to a metadata address")
    if (reason := refused(address)) and not allowed.private(host, port) and not allowed.private(address, port):
        raise Refused(f"the name leads to an address that is refused: {reason}")


def same_origin(one: str, other: str) -> bool:
    """Do two URLs lead to the same server? What is no URL leads nowhere."""
    try:
        (parts, host, port), (others, its_host, its_port) = split(one), split(other)
    except Refused:
        return False
    return (parts.scheme, host, port) == (others.scheme, its_host, its_port)


def _is_address(host: str) -> bool:
    return ":" in host or _NUMBER.fullmatch(host.rpartition(".")[2]) is not None
