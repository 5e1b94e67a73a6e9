"""Client certificates: what a proxy says of one, each row a form that Envoy writes or an attack; who comes by it."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.identity.certificates import Certificate, of_peer, principal_of, read_xfcc, thumbprint_of
from narthex.types import CertificateRules

HASH = "46" * 32
UNTIL = datetime(2030, 1, 1, tzinfo=UTC)


def certificate() -> x509.Certificate:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(UNTIL)
    return builder.sign(key, SHA256())


CERTIFICATE = certificate()
PEM = CERTIFICATE.public_bytes(Encoding.PEM).decode()
THUMB = "RkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkY"


@pytest.mark.parametrize(
    ("value", "names"),
    [
        pytest.param(f"Hash={HASH}", (), id="the hash alone"),
        pytest.param(f"By=spiffe://a/b;Hash={HASH};URI=spiffe://a/c", ("URI:spiffe://a/c",), id="a SPIFFE id"),
        pytest.param(
            f'By=http://a;Hash={HASH};Subject="CN=agent-7,OU=a;b,O=x";URI=;DNS=a.example;DNS=b.example',
            ("URI:", "DNS:a.example", "DNS:b.example", "CN=agent-7"),
            id="all of it, a semicolon in quotes",
        ),
        pytest.param(f'Hash={HASH};Subject=""', (), id="an empty subject"),
        pytest.param(f'Hash={HASH};Subject="O=a\\, CN=admin,CN=b"', (), id="an escaped comma: no name is taken"),
        pytest.param(f'Hash={HASH};Subject="O=\\"x\\",CN=admin"', (), id="quotes in the subject: no name is taken"),
        pytest.param(f'Hash={HASH};Subject="/O=a/CN=admin"', (), id="the other form of a subject: no name is taken"),
        pytest.param(f"hash={HASH};uri=spiffe://a/c%0Ab", (), id="an encoded line break: no name is taken"),
    ],
)
def test_xfcc(value: str, names: tuple[str, ...]) -> None:
    found = read_xfcc(value.encode())
    assert found == Certificate(names, THUMB)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(f"Hash={HASH},Hash={HASH}".encode(), id="two elements"),
        pytest.param(f"Hash={HASH};URI=a,By=x".encode(), id="a second element without a hash"),
        pytest.param(f"Hash={HASH};Hash={HASH}".encode(), id="two hashes"),
        pytest.param(b"URI=spiffe://a/admin", id="no hash"),
        pytest.param(b"Hash=46", id="a short hash"),
        pytest.param(f'Hash={HASH};Subject="CN=a'.encode(), id="an open quote"),
        pytest.param(f'Hash={HASH};Subject="CN=a"x'.encode(), id="text behind a quote"),
        pytest.param(f'Hash={HASH};Subject=x"CN=a"'.encode(), id="a quote amid a value"),
        pytest.param(f'Hash={HASH};Subject="CN=a";Subject="CN=b"'.encode(), id="two subjects"),
        pytest.param(f"Hash={HASH};Role=admin".encode(), id="an unknown key"),
        pytest.param(f"Hash={HASH};admin".encode(), id="no value"),
        pytest.param(f'Hash={HASH};Cert="-----BEGIN%20CERTIFICATE-----"'.encode(), id="no certificate"),
        pytest.param(f'Hash={HASH};Cert="{quote(PEM)}"'.encode(), id="the certificate of another hash"),
        pytest.param(f"Hash={HASH};URI=spiffe://ä".encode(), id="characters beyond ASCII"),
        pytest.param(b"Hash=" + b"4" * 20_000, id="too long"),
    ],
)
def test_xfcc_refused(value: bytes) -> None:
    with pytest.raises(ValueError):
        read_xfcc(value)


@given(st.binary() | st.text().map(str.encode) | st.text('=;,"\\HashURI46 ').map(str.encode))
def test_any_bytes_are_one_certificate_or_none(value: bytes) -> None:
    try:
        found = read_xfcc(value)
    except ValueError:
        return
    assert len(found.thumbprint) == 43


def test_a_proxy_that_sends_the_certificate_says_when_it_expires() -> None:
    hash_ = CERTIFICATE.fingerprint(SHA256()).hex()
    found = read_xfcc(f'Hash={hash_};Cert="{quote(PEM)}";Subject="CN=agent"'.encode())
    assert (found.names, found.expires_at) == (("CN=agent",), UNTIL.timestamp())
    rules = CertificateRules({"CN=agent": ()})
    who = principal_of(found, rules, "xfcc")
    assert who is not None
    assert who.expires_at == UNTIL.timestamp(), "what goes on without a new request ends with it"


def test_a_peer() -> None:
    said = {
        "subject": ((("organizationName", "x"),), (("commonName", "agent"),)),
        "subjectAltName": (("DNS", "a.example"), ("URI", "spiffe://a/b"), ("email", "a@b")),
    }
    assert of_peer(b"der", said, 7.0) == Certificate(
        ("URI:spiffe://a/b", "DNS:a.example", "CN=agent"), thumbprint_of(b"der"), 7.0
    )
    assert of_peer(b"der", {}, 7.0).names == ()


def test_who_comes() -> None:
    rules = CertificateRules({"URI:spiffe://prod/*": ("robot",), "URI:spiffe://prod/a": ("admin",), "CN=x": ()})
    found = principal_of(Certificate(("DNS:a", "URI:spiffe://prod/a"), "t"), rules, "mtls")
    assert found is not None
    assert (found.subject, found.roles, found.kind, found.method) == (
        "URI:spiffe://prod/a", ("robot", "admin"), "service", "mtls",
    )  # fmt: skip
    assert principal_of(Certificate(("CN=x",), "t"), rules, "xfcc") is not None, "let in, with no role"
    assert principal_of(Certificate(("CN=y", "URI:spiffe://dev/a"), "t"), rules, "xfcc") is None
    assert principal_of(Certificate((), "t"), rules, "xfcc") is None
