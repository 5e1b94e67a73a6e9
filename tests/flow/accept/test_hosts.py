"""Who may come in: Host against DNS rebinding, Origin against foreign pages, the proxies we trust; one row a rule."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import HttpRefusal
from narthex.flow.accept.hosts import HostCheck, is_trusted
from narthex.flow.whole import HttpRequest
from narthex.types import Egress, Limits, Snapshot

PEER = "127.0.0.1"
PROXY = ip_network("10.0.0.0/8")


def snapshot(listen: str = "127.0.0.1", **members: Any) -> Snapshot:
    made: dict[str, Any] = {
        "revision": "r",
        "source": "narthex.yaml",
        "state_dir": ".narthex",
        "listen": (listen, 8080),
        "admin_listen": ("127.0.0.1", 8081),
        "tls": None,
        "admin_tls": None,
        "public_url": None,
        "allowed_hosts": (),
        "trusted_proxies": (),
        "egress": Egress(),
        "limits": Limits(),
        "log_calls": False,
        "log_format": "text",
        "servers": {},
        "endpoints": {},
    }
    return Snapshot(**made | members)


def request(headers: dict[bytes, bytes], path: bytes = b"/mcp") -> HttpRequest:
    return HttpRequest(method=b"POST", path=path, query=b"", headers=headers, repeated=frozenset(), body=b"")


def answer(check: HostCheck, headers: dict[bytes, bytes], path: bytes = b"/mcp", peer: str = PEER) -> bytes | int:
    """The path that may come in, or the status of the refusal. Asked twice: what is remembered changes nothing."""
    found: list[bytes | int] = []
    for _ in range(2):
        try:
            found.append(check.check(peer, request(headers, path)))
        except HttpRefusal as error:
            assert error.code == -32600 and error.reason
            found.append(error.status)
    assert found[0] == found[1]
    return found[0]


LOOPBACK = snapshot()
PUBLIC = snapshot("0.0.0.0", public_url="https://Gateway.example.com/base")
PORT = snapshot("0.0.0.0", public_url="https://gateway.example.com:8443")
NAMED = snapshot("192.0.2.7", allowed_hosts=("mcp.internal", "other.internal:9000", "[2001:db8::1]"))
SIX = snapshot("2001:db8::7")


@pytest.mark.parametrize(
    ("config", "host", "accepted"),
    [
        pytest.param(LOOPBACK, b"localhost", True, id="localhost"),
        pytest.param(LOOPBACK, b"localhost:8080", True, id="with our port"),
        pytest.param(LOOPBACK, b"localhost:1", True, id="any port: a forwarded one differs"),
        pytest.param(LOOPBACK, b"LocalHost:8080", True, id="case does not count"),
        pytest.param(LOOPBACK, b"127.0.0.1:8080", True, id="loopback by address"),
        pytest.param(LOOPBACK, b"[::1]", True, id="loopback, IPv6"),
        pytest.param(LOOPBACK, b"[::1]:8080", True, id="loopback, IPv6 with port"),
        pytest.param(LOOPBACK, b"evil.example", False, id="a rebound name"),
        pytest.param(LOOPBACK, b"evil.example:8080", False, id="a rebound name with our port"),
        pytest.param(LOOPBACK, b"localhost.evil.example", False, id="our name in front"),
        pytest.param(LOOPBACK, b"evil-localhost", False, id="our name behind"),
        pytest.param(LOOPBACK, b"127.0.0.1.evil.example", False, id="our address in front"),
        pytest.param(LOOPBACK, b"localhost.", False, id="a trailing dot"),
        pytest.param(LOOPBACK, b"127.1", False, id="another writing of an address"),
        pytest.param(LOOPBACK, b"0.0.0.0", False, id="the address of nobody"),
        pytest.param(LOOPBACK, b"localhost:80a", False, id="a port that is none"),
        pytest.param(LOOPBACK, b"localhost:-1", False, id="a negative port"),
        pytest.param(LOOPBACK, b"localhost:80:80", False, id="two ports"),
        pytest.param(LOOPBACK, b"evil.example:localhost", False, id="our name for a port"),
        pytest.param(LOOPBACK, b"user@localhost", False, id="a user"),
        pytest.param(LOOPBACK, b"localhost, evil.example", False, id="a list"),
        pytest.param(LOOPBACK, b"localhost/evil", False, id="a path"),
        pytest.param(LOOPBACK, b"http://localhost", False, id="a URL"),
        pytest.param(LOOPBACK, b"::1", False, id="IPv6 without brackets"),
        pytest.param(LOOPBACK, b"", False, id="empty"),
        pytest.param(LOOPBACK, b"l\xc3\xb6calhost", False, id="not ASCII"),
        pytest.param(LOOPBACK, "localhost:\u0663".encode(), False, id="a digit that is not ASCII"),
        pytest.param(PUBLIC, b"gateway.example.com", True, id="public_url"),
        pytest.param(PUBLIC, b"gateway.example.com:443", True, id="public_url with the port of its scheme"),
        pytest.param(PUBLIC, b"localhost", True, id="loopback beside public_url"),
        pytest.param(PUBLIC, b"0.0.0.0:8080", False, id="the address that stands for all"),
        pytest.param(PUBLIC, b"example.com", False, id="the domain above"),
        pytest.param(PORT, b"gateway.example.com:8443", True, id="public_url with its port"),
        pytest.param(PORT, b"gateway.example.com", False, id="public_url without its port"),
        pytest.param(PORT, b"gateway.example.com:443", False, id="public_url with another port"),
        pytest.param(NAMED, b"192.0.2.7:8080", True, id="the address we listen on"),
        pytest.param(NAMED, b"mcp.internal", True, id="allowed_hosts"),
        pytest.param(NAMED, b"mcp.internal:9", True, id="allowed_hosts, any port"),
        pytest.param(NAMED, b"other.internal:9000", True, id="allowed_hosts with a port"),
        pytest.param(NAMED, b"other.internal:9001", False, id="allowed_hosts with another port"),
        pytest.param(NAMED, b"[2001:db8::1]:8080", True, id="allowed_hosts, IPv6"),
        pytest.param(SIX, b"[2001:db8::7]:8080", True, id="the IPv6 address we listen on"),
        pytest.param(SIX, b"2001:db8::7", False, id="it has brackets"),
    ],
)
def test_host(config: Snapshot, host: bytes, accepted: bool) -> None:
    assert answer(HostCheck(config), {b"host": host}) == (b"/mcp" if accepted else 403)


def test_a_host_is_needed() -> None:
    assert answer(HostCheck(LOOPBACK), {}) == 400


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [
        pytest.param(None, True, id="none: no browser"),
        pytest.param(b"http://localhost", True, id="a page of this machine"),
        pytest.param(b"http://localhost:6274", True, id="with its port: the Inspector"),
        pytest.param(b"https://127.0.0.1:8080", True, id="over TLS"),
        pytest.param(b"https://evil.example", False, id="a foreign page"),
        pytest.param(b"http://localhost.evil.example", False, id="our name in front"),
        pytest.param(b"http://evil.example:localhost", False, id="our name for a port"),
        pytest.param(b"http://localhost@evil.example", False, id="our name for a user"),
        pytest.param(b"null", False, id="a sandboxed page"),
        pytest.param(b"", False, id="empty"),
        pytest.param(b"localhost", False, id="no scheme"),
        pytest.param(b"//localhost", False, id="no scheme, two slashes"),
        pytest.param(b"file://localhost", False, id="a file"),
        pytest.param(b"chrome-extension://localhost", False, id="an extension"),
        pytest.param(b"http://", False, id="no host"),
        pytest.param(b"http://localhost/", False, id="a path"),
        pytest.param(b"http://localhost http://localhost", False, id="two"),
    ],
)
def test_origin(origin: bytes | None, accepted: bool) -> None:
    headers = {b"host": b"localhost"} | ({} if origin is None else {b"origin": origin})
    assert answer(HostCheck(LOOPBACK), headers) == (b"/mcp" if accepted else 403)


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        pytest.param(b"http://localhost:8080/mcp/x", b"localhost", b"/mcp/x", id="ours"),
        pytest.param(b"HTTPS://LOCALHOST/mcp", b"localhost", b"/mcp", id="case does not count"),
        pytest.param(b"http://localhost", b"localhost", b"/", id="without a path"),
        pytest.param(b"http://localhost/a//b", None, b"/a//b", id="it stands for Host"),
        pytest.param(b"http://localhost/mcp", b"evil.example", b"/mcp", id="it replaces Host"),
        pytest.param(b"http://evil.example/mcp", b"localhost", 403, id="a foreign one"),
        pytest.param(b"http://localhost@evil.example/mcp", b"localhost", 403, id="our name for a user"),
        pytest.param(b"http:///mcp", b"localhost", 403, id="an empty host"),
        pytest.param(b"ftp://localhost/mcp", b"localhost", 400, id="another scheme"),
        pytest.param(b"localhost:8080", b"localhost", 400, id="authority-form"),
        pytest.param(b"*", b"localhost", 400, id="asterisk-form"),
        pytest.param(b"mcp", b"localhost", 400, id="a path without its slash"),
        pytest.param(b"", b"localhost", 400, id="empty"),
    ],
)
def test_target(target: bytes, host: bytes | None, expected: bytes | int) -> None:
    headers = {} if host is None else {b"host": host}
    assert answer(HostCheck(LOOPBACK), headers, target) == expected


BEHIND = snapshot("0.0.0.0", public_url="https://gw.example.com", trusted_proxies=(PROXY,))


@pytest.mark.parametrize(
    ("config", "peer", "host", "forwarded", "expected"),
    [
        pytest.param(
            BEHIND, "10.1.2.3", b"backend:8080", b"gw.example.com", b"/mcp", id="a trusted proxy says the host"
        ),
        pytest.param(BEHIND, "10.1.2.3", b"gw.example.com", None, b"/mcp", id="or passes it"),
        pytest.param(BEHIND, "10.1.2.3", b"backend:8080", None, 403, id="or neither"),
        pytest.param(BEHIND, "10.1.2.3", b"gw.example.com", b"evil.example", 403, id="what it forwards is checked too"),
        pytest.param(BEHIND, "10.1.2.3", b"x", b"gw.example.com, backend", b"/mcp", id="the first of several proxies"),
        pytest.param(BEHIND, "10.1.2.3", b"x", b"evil.example, gw.example.com", 403, id="and only the first"),
        pytest.param(BEHIND, "10.1.2.3", None, b"gw.example.com", b"/mcp", id="without Host"),
        pytest.param(BEHIND, "::ffff:10.1.2.3", b"x", b"gw.example.com", b"/mcp", id="on a dual-stack socket"),
        pytest.param(BEHIND, "192.0.2.1", b"evil.example", b"gw.example.com", 403, id="anybody else says nothing"),
        pytest.param(BEHIND, "192.0.2.1", b"gw.example.com", b"evil.example", b"/mcp", id="and harms nothing"),
        pytest.param(LOOPBACK, "127.0.0.1", b"evil.example", b"localhost", 403, id="no proxy is trusted by default"),
    ],
)
def test_forwarded_host(
    config: Snapshot, peer: str, host: bytes | None, forwarded: bytes | None, expected: bytes | int
) -> None:
    given = {b"host": host, b"x-forwarded-host": forwarded}
    headers = {name: value for name, value in given.items() if value is not None}
    assert answer(HostCheck(config), headers, peer=peer) == expected


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        pytest.param("10.0.0.1", True, id="inside"),
        pytest.param("11.0.0.1", False, id="outside"),
        pytest.param("::ffff:10.0.0.1", True, id="IPv4 in IPv6"),
        pytest.param("2001:db8::1", True, id="IPv6"),
        pytest.param("fe80::1%eth0", True, id="with its interface"),
        pytest.param("2001:db9::1", False, id="IPv6 outside"),
        pytest.param("", False, id="no address"),
        pytest.param("10.0.0.1, 10.0.0.2", False, id="a list"),
        pytest.param("localhost", False, id="a name"),
    ],
)
def test_is_trusted(peer: str, trusted: bool) -> None:
    networks = (PROXY, ip_network("2001:db8::/32"), ip_network("fe80::/10"))
    assert is_trusted(peer, networks) is trusted
    assert not is_trusted(peer, ())


WORDS = st.sampled_from(
    [b"localhost", b"http://localhost", b"https://localhost:1", b"evil.example", b"http://evil.example", b"null", b""]
)
ASKED = st.tuples(WORDS, st.none() | WORDS)


@given(before=st.lists(ASKED, max_size=6), asked=ASKED)
def test_the_answer_does_not_depend_on_what_was_asked_before(
    before: list[tuple[bytes, bytes | None]], asked: tuple[bytes, bytes | None]
) -> None:
    def headers(host: bytes, origin: bytes | None) -> dict[bytes, bytes]:
        return {b"host": host} | ({} if origin is None else {b"origin": origin})

    used = HostCheck(LOOPBACK)
    for one in before:
        answer(used, headers(*one))
    assert answer(used, headers(*asked)) == answer(HostCheck(LOOPBACK), headers(*asked))


@given(host=st.binary(max_size=30), origin=st.none() | st.binary(max_size=30), path=st.binary(max_size=30))
def test_any_bytes_come_in_or_are_refused(host: bytes, origin: bytes | None, path: bytes) -> None:
    headers = {b"host": host} | ({} if origin is None else {b"origin": origin})
    found = answer(HostCheck(LOOPBACK), headers, path)
    assert found in (400, 403) or (isinstance(found, bytes) and found.startswith(b"/"))
