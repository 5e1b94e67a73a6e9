from __future__ import annotations

import datetime
from typing import Any

import jwt  # another library than the one that signs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from narthex.authority.assertion import LASTS_S, SignedBy, sign_assertion

RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("key", "asked", "algorithm"),
    [
        pytest.param(RSA, "", "RS256", id="RSA: RS256, which everybody takes"),
        pytest.param(RSA, "PS256", "PS256", id="RSA: PS256 where it is asked for"),
        pytest.param(P256, "", "ES256", id="P-256"),
        pytest.param(P384, "", "ES384", id="P-384"),
        pytest.param(ED, "", "EdDSA", id="Ed25519"),
    ],
)
def test_another_library_verifies_it(key: Any, asked: str, algorithm: str) -> None:
    now = datetime.datetime.now().timestamp()
    signed = sign_assertion(SignedBy(pem(key), "k1", asked), "gateway", "https://as.example.com", now=now, jti="j1")
    assert jwt.get_unverified_header(signed) == {"alg": algorithm, "typ": "JWT", "kid": "k1"}
    claims = jwt.decode(signed, key.public_key(), algorithms=[algorithm], audience="https://as.example.com")
    assert (claims["iss"], claims["sub"], claims["jti"]) == ("gateway", "gateway", "j1")
    assert claims["exp"] - claims["iat"] == LASTS_S


def test_a_certificate_behind_the_key_gives_its_thumbprint() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    start = datetime.datetime(2026, 1, 1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(P256.public_key()).serial_number(1)
        .not_valid_before(start).not_valid_after(start + datetime.timedelta(days=1)).sign(P256, hashes.SHA256())
    )  # fmt: skip
    both = pem(P256) + certificate.public_bytes(Encoding.PEM).decode()
    header = jwt.get_unverified_header(sign_assertion(SignedBy(both), "gateway", "a", now=0, jti="j"))
    thumbprint = jwt.utils.base64url_encode(certificate.fingerprint(hashes.SHA256())).decode()
    assert header == {"alg": "ES256", "typ": "JWT", "x5t#S256": thumbprint}


@pytest.mark.parametrize(
    ("text", "algorithm", "said"),
    [
        pytest.param("PLANTED", "", "no private key", id="no key"),
        pytest.param(pem(P256), "RS256", "signs with ES256", id="another algorithm"),
        pytest.param(
            pem(ec.generate_private_key(ec.SECP521R1())), "", "no algorithm of ours", id="a curve we do not do"
        ),
    ],
)
def test_a_key_that_cannot_sign(text: str, algorithm: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        sign_assertion(SignedBy(text, "", algorithm), "gateway", "a", now=0, jti="j")
    assert "PLANTED" not in str(error.value)
