"""`private_key_jwt`: a client proves who it is with a key of its own, and no secret goes over the wire. Pure.

In: a private key in PEM, a client id, an audience, the time. Out: a signed JWT.
Proof: `tests/authority/test_assertion.py`, which verifies with another library.
Source: RFC 7523 §3, OpenID Connect Core §9; RFC 7515 §4.1.8 (`x5t#S256`, for Entra).
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import msgspec

LASTS_S = 60
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class SignedBy(msgspec.Struct, frozen=True):
    """What signs: `pem` is the private key, with its certificate behind it where the issuer wants a thumbprint.

    `algorithm` is empty for the usual one of the key's kind; `key_id` is the `kid`, empty for none.
    """

    pem: str
    key_id: str = ""
    algorithm: str = ""

    def __repr__(self) -> str:
        return f"SignedBy(…, {self.key_id!r}, {self.algorithm!r})"


def sign_assertion(by: SignedBy, client_id: str, audience: str, *, now: float, jti: str) -> str:
    """A client assertion.

    Args:
        audience: The issuer that it is for; it is worth nothing at another one.
        now: Unix seconds. It lasts a minute from then.
    Raises:
        ValueError: No private key, or none that signs with this algorithm. The text holds nothing of the key.
    """
    key, algorithm, thumbprint = _key(by.pem, by.algorithm)
    header = {"alg": algorithm, "typ": "JWT"}
    if by.key_id:
        header["kid"] = by.key_id
    if thumbprint:
        header["x5t#S256"] = thumbprint
    at = int(now)
    claims = {"iss": client_id, "sub": client_id, "aud": audience, "jti": jti, "iat": at, "exp": at + LASTS_S}
    signed = b".".join(_encode(msgspec.json.encode(part)) for part in (header, claims))
    return (signed + b"." + _encode(_sign(key, algorithm, signed))).decode()


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _key(pem: str, algorithm: str) -> tuple[Any, str, str]:
    """The key, its algorithm, its certificate's thumbprint. Takes milliseconds for RSA: no work for the loop."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        raise ValueError("it is no private key in PEM without a password") from None
    if isinstance(key, rsa.RSAPrivateKey):
        fits: tuple[str, ...] = ("RS256", "PS256")
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        fits = {"secp256r1": ("ES256",), "secp384r1": ("ES384",)}.get(key.curve.name, ())
    else:
        fits = ("EdDSA",) if isinstance(key, ed25519.Ed25519PrivateKey) else ()
    if not fits or (algorithm and algorithm not in fits):
        raise ValueError(f"a key of this kind signs with {' or '.join(fits) or 'no algorithm of ours'}")
    thumbprint = ""
    if (found := _CERTIFICATE.search(pem)) is not None:
        certificate = x509.load_pem_x509_certificate(found[0].encode())
        thumbprint = _encode(hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()).decode()
    return key, algorithm or fits[0], thumbprint


def _sign(key: Any, algorithm: str, data: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    signature: bytes
    if algorithm == "EdDSA":
        signature = key.sign(data)
    elif algorithm == "RS256":
        signature = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    elif algorithm == "PS256":
        signature = key.sign(
            data, padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size), hashes.SHA256()
        )
    else:  # ECDSA: JWS wants r and s side by side (RFC 7518 §3.4)
        size, hash_ = (32, hashes.SHA256()) if algorithm == "ES256" else (48, hashes.SHA384())
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hash_)))
        signature = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    return signature
