"""May this request come to us at all? Host against DNS rebinding, Origin against foreign pages, proxies we trust.

Cases: `tests/flow/accept/test_hosts.py`, one row a rule.
Source: MCP 2026-07-28, transports (Origin MUST be validated, 403); RFC 9112 §3.2 (Host, absolute-form).
"""

from __future__ import annotations

from collections.abc import Set
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from narthex.errors import HttpRefusal
from narthex.flow.whole import HttpRequest
from narthex.types import Network, Snapshot

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_KEPT = 1024


class HostCheck:
    """The checks of one snapshot. What has passed is remembered, so that a call pays one look-up."""

    def __init__(self, snapshot: Snapshot) -> None:
        host = snapshot.listen[0]
        names = {*_LOOPBACK, *snapshot.allowed_hosts}
        if host not in ("0.0.0.0", "::"):
            names.add(f"[{host}]" if ":" in host else host)
        if snapshot.public_url is not None:
            names.add(urlsplit(snapshot.public_url).netloc)
        self._names = frozenset(name.lower() for name in names)
        self._trusted = snapshot.trusted_proxies
        self._public_url = snapshot.public_url
        self._scheme = "https" if snapshot.tls is not None else "http"
        self._hosts: set[bytes] = set()
        self.passed: Set[bytes] = frozenset() if self._trusted else self._hosts
        """Host values that need no further look; none where a proxy's word could count instead."""
        self._origins: set[bytes] = set()

    def check(self, peer: str, request: HttpRequest) -> bytes:
        """The path of a request that may come in.

        Raises:
            HttpRefusal: 400 without a usable Host or target; 403 for a Host or Origin that is not ours.
        """
        headers, path = request.headers, request.path
        host = headers.get(b"host")
        if path[:1] != b"/":
            host, path = _absolute(request)
        if self._trusted and is_trusted(peer, self._trusted):
            host = headers.get(b"x-forwarded-host", host)
            if host is not None and b"," in host:
                host = host.partition(b",")[0].strip()
        if host is None:
            raise HttpRefusal(400, "host_missing", "the Host header is missing")
        if host not in self._hosts and not self._is_ours(host):
            raise HttpRefusal(403, "host_not_allowed", "this Host is not served here", detail=repr(host[:200]))
        origin = headers.get(b"origin")
        if origin is not None and origin not in self._origins and not self._is_origin(origin):
            raise HttpRefusal(403, "origin_not_allowed", "this Origin may not call here", detail=repr(origin[:200]))
        return path

    def base_url(self, peer: str, request: HttpRequest) -> str:
        """What stands before the paths of this gateway, as the client of a request that passed `check` sees it."""
        if self._public_url is not None:
            return self._public_url
        headers, scheme = request.headers, self._scheme
        host = headers.get(b"host", b"")
        if request.path[:1] != b"/":
            host = _absolute(request)[0] or b""
        if self._trusted and is_trusted(peer, self._trusted):
            host = headers.get(b"x-forwarded-host", host).partition(b",")[0].strip()
            said = headers.get(b"x-forwarded-proto", b"").partition(b",")[0].strip().lower()
            scheme = said.decode() if said in (b"http", b"https") else scheme
        return f"{scheme}://{host.decode('ascii').lower()}"

    def client(self, peer: str, request: HttpRequest) -> str:
        """The client's address: the peer's, or the last one that a trusted proxy tells and that is none itself."""
        if not self._trusted or not is_trusted(peer, self._trusted):
            return peer
        for said in reversed(request.headers.get(b"x-forwarded-for", b"").split(b",")):
            address = said.strip().decode("ascii", "replace")
            if not address:
                break
            if not is_trusted(address, self._trusted):
                return address if _is_address(address) else ""
            peer = address
        return peer

    def _is_ours(self, host: bytes) -> bool:
        try:
            text = host.decode("ascii").lower()
        except UnicodeDecodeError:
            return False
        name, port = text, ""
        if not text.endswith("]"):
            before, colon, after = text.rpartition(":")
            if colon:
                name, port = before, after
        if (port and not port.isdigit()) or (name not in self._names and text not in self._names):
            return False
        _remember(self._hosts, host)
        return True

    def _is_origin(self, origin: bytes) -> bool:
        scheme, separator, host = origin.partition(b"://")
        if scheme not in (b"http", b"https") or not separator or not self._is_ours(host):
            return False
        _remember(self._origins, origin)
        return True


def _remember(passed: set[bytes], value: bytes) -> None:
    if len(passed) < _KEPT:
        passed.add(value)


def _absolute(request: HttpRequest) -> tuple[bytes | None, bytes]:
    """Host and path of an absolute-form target (RFC 9112 §3.2.2: it replaces Host)."""
    scheme, separator, rest = request.path.partition(b"://")
    if scheme.lower() not in (b"http", b"https") or not separator:
        raise HttpRefusal(400, "bad_target", "malformed request target")
    host, slash, path = rest.partition(b"/")
    return host, slash + path if slash else b"/"


def is_trusted(peer: str, networks: tuple[Network, ...]) -> bool:
    """Is the peer one of the proxies that the operator trusts? An address that cannot be read is not."""
    return _trusted(peer, networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1024)
def _trusted(peer: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in networks)
