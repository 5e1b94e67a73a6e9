"""Where others may send us: each row is an attack, or what must go on working."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis.strategies import integers, ip_addresses, text

from narthex.authority.addresses import Allowed, Refused, check_address, check_learnt, refused, split

NOBODY = Allowed()


def learnt(url: str, allowed: Allowed = NOBODY) -> None:
    parts, host, port = split(url)
    check_learnt(parts, host, port, allowed)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://sso.example.com/keys", id="not TLS"),
        pytest.param("https://127.0.0.1/", id="loopback"),
        pytest.param("https://127.8.9.1/", id="all of loopback"),
        pytest.param("https://localhost/", id="loopback by name"),
        pytest.param("https://LOCALHOST./", id="loopback by name, final dot"),
        pytest.param("https://sso.localhost/", id="below localhost"),
        pytest.param("https://keycloak/", id="a name without a dot"),
        pytest.param("https://db.internal/", id="internal"),
        pytest.param("https://metadata.google.internal/computeMetadata/v1/", id="metadata by name"),
        pytest.param("https://printer.local/", id="mDNS"),
        pytest.param("https://10.1.2.3/", id="private, 10/8"),
        pytest.param("https://172.31.0.1/", id="private, 172.16/12"),
        pytest.param("https://192.168.1.1/", id="private, 192.168/16"),
        pytest.param("https://100.64.0.1/", id="shared address space"),
        pytest.param("https://169.254.169.254/latest/meta-data/", id="metadata"),
        pytest.param("https://169.254.1.1/", id="link-local"),
        pytest.param("https://0.0.0.0/", id="unspecified"),
        pytest.param("https://255.255.255.255/", id="broadcast"),
        pytest.param("https://224.0.0.1/", id="multicast"),
        pytest.param("https://198.18.0.1/", id="benchmarks"),
        pytest.param("https://[::1]/", id="IPv6 loopback"),
        pytest.param("https://[::]/", id="IPv6 unspecified"),
        pytest.param("https://[::ffff:127.0.0.1]/", id="mapped loopback"),
        pytest.param("https://[::ffff:7f00:1]/", id="mapped loopback in hex"),
        pytest.param("https://[::ffff:169.254.169.254]/", id="mapped metadata"),
        pytest.param("https://[::127.0.0.1]/", id="compatible loopback"),
        pytest.param("https://[64:ff9b::7f00:1]/", id="NAT64 loopback"),
        pytest.param("https://[64:ff9b::a9fe:a9fe]/", id="NAT64 metadata"),
        pytest.param("https://[64:ff9b:1::7f00:1]/", id="local NAT64"),
        pytest.param("https://[2002:7f00:1::]/", id="6to4 loopback"),
        pytest.param("https://[2001:0:7f00:1::]/", id="Teredo"),
        pytest.param("https://[fe80::1]/", id="IPv6 link-local"),
        pytest.param("https://[fc00::1]/", id="ULA"),
        pytest.param("https://[fd00:ec2::254]/", id="IPv6 metadata"),
        pytest.param("https://[fec0::1]/", id="site-local"),
        pytest.param("https://[ff02::1]/", id="IPv6 multicast"),
        pytest.param("https://2130706433/", id="decimal"),
        pytest.param("https://0x7f000001/", id="hexadecimal"),
        pytest.param("https://017700000001/", id="octal"),
        pytest.param("https://0177.0.0.1/", id="octal in parts"),
        pytest.param("https://0x7f.0.0.1/", id="hexadecimal in parts"),
        pytest.param("https://127.1/", id="short form"),
        pytest.param("https://127.0.0.1./", id="an address with a final dot"),
        pytest.param("https://a.b.1/", id="a name that ends in a number"),
        pytest.param("https://a.b.0x/", id="a name that ends in an empty hexadecimal"),
        pytest.param("https://[::1%25eth0]/", id="a zone"),
        pytest.param("https://[fe80::1%eth0]/", id="a bare zone"),
        pytest.param("https://good.example.com@127.0.0.1/", id="a user name"),
        pytest.param("https://127.0.0.1%2f.example.com/", id="an encoded host"),
        pytest.param("https://127.0.0.1\\.example.com/", id="a backslash"),
        pytest.param("https://127.0.0.1\t.example.com/", id="a tab that some readers drop"),
        pytest.param("https://①②⑦.⓪.⓪.①/", id="digits of Unicode"),
        pytest.param("https://sso.example.com:0/", id="port 0"),
        pytest.param("https://sso.example.com:99999/", id="no port"),
        pytest.param("https:///keys", id="no host"),
        pytest.param("https:/sso.example.com/keys", id="one slash"),
        pytest.param("//sso.example.com/keys", id="no scheme"),
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("gopher://sso.example.com/", id="gopher"),
        pytest.param("ftp://sso.example.com/", id="ftp"),
        pytest.param("javascript:alert(1)", id="javascript"),
        pytest.param("https://a..example.com/", id="an empty label"),
        pytest.param("https://-a.example.com/", id="a label that begins with a dash"),
        pytest.param("https://sso.example.com/" + "a" * 2048, id="endless"),
        pytest.param("", id="nothing"),
    ],
)
def test_refused(url: str) -> None:
    with pytest.raises(Refused) as caught:
        learnt(url)
    assert not url or url not in str(caught.value), "a URL may hold a secret"


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://sso.example.com/realms/corp", id="a name"),
        pytest.param("https://SSO.Example.com./", id="spelling does not matter"),
        pytest.param("https://sso.example.com:8443/keys?x=1", id="a port and a query"),
        pytest.param("https://8.8.8.8/", id="a public address"),
        pytest.param("https://[2606:4700::1111]/", id="a public IPv6 address"),
        pytest.param("https://[64:ff9b::808:808]/", id="NAT64 of a public address"),
        pytest.param("https://xn--bcher-kva.example/", id="an IDN as it travels"),
    ],
)
def test_accepted(url: str) -> None:
    learnt(url)


@pytest.mark.parametrize(
    ("url", "allowed", "accepted"),
    [
        pytest.param("https://keycloak/", Allowed(private=["keycloak"]), True, id="named"),
        pytest.param("https://sso.internal/", Allowed(private=[".internal"]), True, id="its domain named"),
        pytest.param("https://10.1.2.3/", Allowed(private=["10.0.0.0/8"]), True, id="its network named"),
        pytest.param("https://10.1.2.3/", Allowed(private=["192.168.0.0/16"]), False, id="another network named"),
        pytest.param("https://169.254.169.254/", Allowed(private=["169.254.0.0/16"]), False, id="metadata never"),
        pytest.param("https://[::ffff:a9fe:a9fe]/", Allowed(private=["::/0", "0.0.0.0/0"]), False, id="nor mapped"),
        pytest.param("http://keycloak/", Allowed(private=["keycloak"]), False, id="named, but not TLS"),
        pytest.param("http://keycloak/", Allowed(private=["keycloak"], http=["keycloak"]), True, id="TLS waived"),
        pytest.param("http://127.0.0.1:8080/", Allowed(private=["127.0.0.1"]), True, id="loopback named needs no TLS"),
        pytest.param("https://sso.evil.example/", Allowed(private=["internal"]), True, id="public needs no naming"),
    ],
)
def test_allowed_by_name(url: str, allowed: Allowed, accepted: bool) -> None:
    if accepted:
        learnt(url, allowed)
    else:
        with pytest.raises(Refused):
            learnt(url, allowed)


@pytest.mark.parametrize(
    ("address", "allowed", "accepted"),
    [
        pytest.param("93.184.216.34", NOBODY, True, id="public"),
        pytest.param("127.0.0.1", NOBODY, False, id="loopback"),
        pytest.param("::ffff:10.0.0.1", NOBODY, False, id="mapped private"),
        pytest.param("fe80::1%eth0", NOBODY, False, id="link-local with a zone"),
        pytest.param("168.63.129.16", NOBODY, False, id="a metadata address amid public ones"),
        pytest.param("10.0.0.1", Allowed(private=["sso.example.com"]), True, id="the name is allowed"),
        pytest.param("10.0.0.1", Allowed(private=["10.0.0.0/24"]), True, id="the network is allowed"),
        pytest.param("169.254.169.254", Allowed(private=["sso.example.com"]), False, id="metadata never"),
    ],
)
def test_answers_of_the_dns(address: str, allowed: Allowed, accepted: bool) -> None:
    if accepted:
        check_address(address, "sso.example.com", 443, allowed)
    else:
        with pytest.raises(Refused):
            check_address(address, "sso.example.com", 443, allowed)


@given(ip_addresses(v=4))
def test_whatever_is_not_global_is_refused(address: IPv4Address) -> None:
    if not address.is_global or address.is_multicast:
        assert refused(str(address))


@given(ip_addresses(v=6))
def test_ipv6_that_is_not_global_is_refused(address: IPv6Address) -> None:
    if not address.is_global or address.is_multicast or address.is_site_local:
        assert refused(str(address)) or address.ipv4_mapped


@given(integers(0, 2**32 - 1))
def test_an_embedded_address_is_no_better_than_the_address(number: int) -> None:
    plain = refused(str(IPv4Address(number)))
    for prefix in (0xFFFF << 32, 0x64FF9B << 96):
        assert refused(str(IPv6Address(prefix | number))) == plain


@given(text())
def test_any_text_is_a_url_or_refused(url: str) -> None:
    try:
        split(url)
    except Refused:
        return
    assert url.startswith(("http://", "https://")) or url[:8].lower().startswith(("http://", "https://"))
