"""How values are written: every unit, both ways, and what is said when it is wrong."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.config import values


@given(st.integers(0, 10**9), st.sampled_from(list(values.MILLISECONDS)))
def test_a_duration_shown_is_read_as_the_same_duration(amount: int, unit: str) -> None:
    seconds = values.parse_duration(f"{amount}{unit}")
    assert seconds == amount * values.MILLISECONDS[unit] / 1000
    assert values.parse_duration(values.show_duration(seconds)) == seconds


@given(st.integers(0, 10**12), st.sampled_from(list(values.BYTES)))
def test_a_size_shown_is_read_as_the_same_size(amount: int, unit: str) -> None:
    size = values.parse_size(f"{amount}{unit}")
    assert size == amount * values.BYTES[unit]
    assert values.parse_size(values.show_size(size)) == size


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_shown_is_read_as_the_same_address(
    host: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    address = (str(host), port)
    assert values.parse_address(values.show_address(address)) == address


@given(st.text(max_size=60))
def test_whatever_is_written_is_either_read_or_refused_in_words(text: str) -> None:
    for parse in (
        values.parse_duration,
        values.parse_size,
        values.parse_address,
        values.parse_network,
        values.parse_url,
        values.parse_base_url,
        values.parse_proxy,
        values.parse_host_header,
        values.parse_header_name,
        values.parse_header_value,
        values.parse_env_name,
        values.parse_name,
        values.parse_glob,
        values.parse_path,
    ):
        try:
            parse(text)
        except ValueError as error:
            assert str(error)
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("30", "30s", id="a number alone names the units"),
        pytest.param("1.5s", "is not a duration", id="whole numbers only"),
        pytest.param("1m30s", "is not a duration", id="one unit only"),
        pytest.param("-1s", "is not a duration", id="no negative time"),
        pytest.param("5 s", "is not a duration", id="no space"),
        pytest.param("٣s", "is not a duration", id="ASCII digits only"),
        pytest.param("1w", "is not a duration", id="unknown unit"),
    ],
)
def test_durations_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        values.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("1024", "1024KiB", id="a number alone names the units"),
        pytest.param("1MB", "write 1MiB", id="the nearest unit is named"),
        pytest.param("4 kb", "write 4KiB", id="also in small letters"),
        pytest.param("much", "is not a size", id="a word"),
    ],
)
def test_sizes_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        values.parse_size(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("127.0.0.1:8080", ("127.0.0.1", 8080), id="IPv4"),
        pytest.param("[::1]:8080", ("::1", 8080), id="IPv6 in brackets"),
        pytest.param("[0:0:0:0:0:0:0:1]:0", ("::1", 0), id="IPv6 is shortened, port 0 is fine"),
        pytest.param("LocalHost:1", ("localhost", 1), id="names are lower-case"),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert values.parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["8080", ":8080", "localhost", "localhost:", "::1:8080", "[::1]", "[127.0.0.1]:1", "1.2.3:4", "256.0.0.1:1"]
    + ["a:65536", "a:-1", "a b:1", "http://a:1", "[fe80::1%eth0]:1", "a:1\n"],
)
def test_addresses_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        values.parse_address(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("localhost.example.com", False),
    ],
)
def test_loopback_is_this_machine_only(host: str, loopback: bool) -> None:
    assert values.is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("ftp://a/", "begins with", id="another scheme"),
        pytest.param("//a/b", "begins with", id="no scheme"),
        pytest.param("https:///x", "no host", id="no host"),
        pytest.param("https://u:hunter2@a/", "user name or password", id="password"),
        pytest.param("https://u@a/", "user name or password", id="user name"),
        pytest.param("https://a/#x", "fragment", id="fragment"),
        pytest.param("https://a/#", "fragment", id="empty fragment"),
        pytest.param("https://a:99999/", "not a URL", id="port too large"),
        pytest.param("https://a:0/", "port 0", id="port 0"),
        pytest.param("https://a\\b/", "backslash", id="backslash"),
        pytest.param("https://a/ b", "spaces", id="space"),
        pytest.param("https://ä.example/", "ASCII", id="beyond ASCII"),
        pytest.param("https://1.2.3/", "IP address", id="an address with a typo"),
        pytest.param("https://[::1/", "not a URL", id="bracket open"),
    ],
)
def test_urls_refused_without_being_quoted(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        values.parse_url(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["http://localhost", "http://10.0.0.1:9/mcp?x=1", "https://[fd00::1]:8443/a", "http://my_server/"]
)
def test_urls_that_the_operator_wrote_may_lead_anywhere(text: str) -> None:
    assert values.parse_url(text) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("10.0.0.1/8", "did you mean '10.0.0.0/8'", id="bits behind the prefix"),
        pytest.param("10.0.0.0/33", "not a network", id="prefix too long"),
        pytest.param("proxy", "not a network", id="a name"),
    ],
)
def test_networks_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        values.parse_network(text)


@pytest.mark.parametrize("name", ["Host", "content-length", "Mcp-Session-Id", "Transfer-Encoding", "a b", "", "x:"])
def test_headers_of_our_own_cannot_be_set(name: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        values.parse_header_name(name)


@pytest.mark.parametrize("value", ["hunter2\r\nX: y", "hunter2\x00", " hunter2", "hunter2\n", "hünter2"])
def test_a_header_value_refused_is_not_quoted(value: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        values.parse_header_value(value)
    assert "nter2" not in str(caught.value)
