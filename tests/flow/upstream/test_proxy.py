"""Which proxy a target gets, and what a proxy may answer."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import ConfigError
from narthex.flow.upstream.proxy import MAX_ANSWER, Proxies, Proxy, connect_request, read_connect_answer, read_proxy
from narthex.types import Egress

PLAIN, SAFE = "http://plain.test:3128", "http://safe.test:3129"


@pytest.mark.parametrize(
    ("environ", "scheme", "host"),
    [
        pytest.param({}, "https", None, id="none set"),
        pytest.param({"HTTPS_PROXY": SAFE}, "https", "safe.test", id="upper case"),
        pytest.param({"https_proxy": SAFE, "HTTPS_PROXY": PLAIN}, "https", "safe.test", id="lower case first"),
        pytest.param({"https_proxy": "", "HTTPS_PROXY": PLAIN}, "https", "plain.test", id="empty is not set"),
        pytest.param({"HTTPS_PROXY": SAFE}, "http", None, id="each scheme has its own"),
        pytest.param({"HTTP_PROXY": "plain.test:3128"}, "http", "plain.test", id="http:// may be left out"),
        pytest.param({"ALL_PROXY": SAFE}, "https", "safe.test", id="one for all schemes"),
        pytest.param({"all_proxy": SAFE, "ALL_PROXY": PLAIN}, "http", "safe.test", id="that too in lower case first"),
        pytest.param({"ALL_PROXY": SAFE, "HTTP_PROXY": PLAIN}, "http", "plain.test", id="a scheme's own before it"),
        pytest.param({"FTP_PROXY": "socks5://x:1"}, "https", None, id="others are not read"),
    ],
)
def test_from_the_environment(environ: dict[str, str], scheme: str, host: str | None) -> None:
    proxy = Proxies(Egress(), environ).choose(scheme, "mcp.example.com", 443)
    assert (proxy.host if proxy else None) == host


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "direct"),
    [
        pytest.param("", "a.example.com", 443, False, id="no entry"),
        pytest.param("*", "a.example.com", 443, True, id="a star is all"),
        pytest.param("example.com", "example.com", 443, True, id="the name itself"),
        pytest.param("example.com", "a.example.com", 443, True, id="what is under it"),
        pytest.param(".example.com", "a.example.com", 443, True, id="with a dot"),
        pytest.param("*.example.com", "a.b.example.com", 443, True, id="with a star"),
        pytest.param("example.com", "notexample.com", 443, False, id="whole labels only"),
        pytest.param("EXAMPLE.com.", "a.Example.COM.", 443, True, id="case and last dot do not count"),
        pytest.param("a.test, b.test\tc.test", "c.test", 443, True, id="commas and spaces"),
        pytest.param("example.com:8443", "example.com", 8443, True, id="that port"),
        pytest.param("example.com:8443", "example.com", 443, False, id="another port"),
        pytest.param("10.0.0.0/8", "10.1.2.3", 443, True, id="a network"),
        pytest.param("10.0.0.0/8", "11.1.2.3", 443, False, id="outside the network"),
        pytest.param("10.1.2.3/8", "10.9.9.9", 443, True, id="bits behind the prefix do not matter"),
        pytest.param("10.0.0.0/8", "::ffff:10.1.2.3", 443, True, id="IPv4 inside IPv6"),
        pytest.param("10.0.0.0/8", "10.example.com", 443, False, id="a name is in no network"),
        pytest.param("192.0.2.7", "192.0.2.7", 443, True, id="an address"),
        pytest.param("192.0.2.7:80", "192.0.2.7", 443, False, id="an address with another port"),
        pytest.param("fd00::/8", "fd00::1", 443, True, id="an IPv6 network"),
        pytest.param("[2001:db8::1]:443", "2001:db8::1", 443, True, id="IPv6 with a port"),
        pytest.param("", "localhost", 80, True, id="localhost always"),
        pytest.param("", "a.localhost", 80, True, id="under localhost always"),
        pytest.param("", "127.9.9.9", 80, True, id="loopback always"),
        pytest.param("", "::1", 80, True, id="IPv6 loopback always"),
        pytest.param("", "::ffff:127.0.0.1", 80, True, id="loopback inside IPv6 always"),
        pytest.param(",. ,*.,[,:", "a.example.com", 443, False, id="rubbish covers nothing"),
    ],
)
def test_exceptions(no_proxy: str, host: str, port: int, direct: bool) -> None:
    for environ in ({"HTTPS_PROXY": SAFE, "NO_PROXY": no_proxy}, {"https_proxy": SAFE, "no_proxy": no_proxy}):
        assert (Proxies(Egress(), environ).choose("https", host, port) is None) is direct
    listed = Egress(proxy=SAFE, no_proxy=tuple(no_proxy.replace(",", " ").split()))
    assert (Proxies(listed, {}).choose("https", host, port) is None) is direct


def test_a_configured_proxy_serves_both_schemes_and_ignores_the_environment() -> None:
    proxies = Proxies(Egress(proxy=SAFE), {"HTTPS_PROXY": PLAIN, "NO_PROXY": "*"})
    assert proxies.choose("http", "a.test", 80) == proxies.choose("https", "a.test", 443) == Proxy("safe.test", 3129)
    assert Proxies(Egress(proxy=None), {"HTTPS_PROXY": PLAIN}).choose("https", "a.test", 443) is None


def test_a_password_is_decoded_and_sent_as_basic() -> None:
    proxy = read_proxy("http://us%40er:p%3Ass@proxy.test", "x")
    assert (proxy.host, proxy.port) == ("proxy.test", 80)
    assert proxy.authorization == "Basic " + base64.b64encode(b"us@er:p:ss").decode()
    assert connect_request("2001:db8::1", 443, proxy).split(b"\r\n") == [
        b"CONNECT [2001:db8::1]:443 HTTP/1.1",
        b"Host: [2001:db8::1]:443",
        b"Proxy-Authorization: " + (proxy.authorization or "").encode(),
        b"",
        b"",
    ]


@pytest.mark.parametrize(
    "url", ["socks5://a:hunter2@b", "socks5h://hunter2@b", "http://", "http://hunter2@b:x", "https://[hunter2"]
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
def test_another_kind_of_proxy_is_refused_without_its_password(name: str, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Proxies(Egress(), {name: url})
    assert name in caught.value.detail
    assert "egress.proxy" in caught.value.detail, "the way out"
    assert "hunter2" not in caught.value.detail


def test_a_proxy_over_tls() -> None:
    assert read_proxy("https://proxy.test", "x") == Proxy("proxy.test", 443, None, tls=True)
    assert read_proxy("https://proxy.test:8443", "x") == Proxy("proxy.test", 8443, None, tls=True)


@pytest.mark.parametrize("host", ["a b", "a\r\nX: y", "é", "", "a/b", "a@b"])
def test_a_host_that_would_break_the_request_is_refused(host: str) -> None:
    with pytest.raises(ValueError):
        connect_request(host, 443, Proxy("p", 1))


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(b"", None, id="nothing yet"),
        pytest.param(b"HTT", None, id="a beginning"),
        pytest.param(b"HTTP/1.1 200 OK\r\nVia: x\r\n", None, id="no end yet"),
        pytest.param(b"HTTP/1.1 200 Connection established\r\n\r\n", 200, id="open"),
        pytest.param(b"HTTP/1.0 200\r\n\r\n", 200, id="HTTP/1.0 without a phrase"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200, id="an interim answer is skipped"),
        pytest.param(b"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno", 407, id="refused, with a body"),
    ],
)
def test_answers_to_connect(answer: bytes, status: int | None) -> None:
    assert read_connect_answer(answer) == status


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0", id="not HTTP"),
        pytest.param(b"HTTP/2 200\r\n\r\n", id="HTTP/2"),
        pytest.param(b"HTTP/1.1 0200 OK\r\n\r\n", id="four digits"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nx", id="bytes before we have spoken"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"x" * MAX_ANSWER, id="no end"),
    ],
)
def test_bad_answers_to_connect(answer: bytes) -> None:
    with pytest.raises(ValueError):
        read_connect_answer(answer)


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest))
def test_no_answer_does_harm(answer: bytes) -> None:
    try:
        status = read_connect_answer(answer)
    except ValueError:
        return
    assert status is None or 200 <= status < 600
