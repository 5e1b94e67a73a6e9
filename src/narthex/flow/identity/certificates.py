"""Client certificates: the names in them, their thumbprint, and what a trusted proxy says of one (XFCC).

In: a DER certificate of a finished TLS handshake, or the header of a proxy; the latter is hostile until the proxy is
known. Out: the names and the thumbprint. Cases: `tests/flow/identity/test_certificates.py`.
Source: RFC 8705 §3 (thumbprint), RFC 5280 §4.2.1.6 (names); Envoy, `x-forwarded-client-cert`.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from urllib.parse import unquote

import msgspec

from narthex.flow.route.patterns import compile_globs
from narthex.types import CertificateRules, Principal, Proof

MAX_XFCC = 16 * 1024
MOST_NAMES = 64
_HASH = re.compile(r"[0-9A-Fa-f]{64}").fullmatch
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]").search
_KEYS = {"by", "hash", "cert", "chain", "subject", "uri", "dns"}


class Certificate(msgspec.Struct, frozen=True):
    """One client certificate: its names `URI:…`, `DNS:…`, `CN=…` in this order, its SHA-256 in base64url, and when it
    expires, Unix seconds; 0 where nobody says."""

    names: tuple[str, ...]
    thumbprint: str
    expires_at: float = 0.0


NO_PROOF = Certificate((), "")
"""In the place of one that was verified by authorities that may be trusted no more."""


def thumbprint_of(der: bytes) -> str:
    """`x5t#S256` of a certificate."""
    return _base64url(sha256(der).digest())


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def of_peer(der: bytes, said: Mapping[str, object], expires_at: float) -> Certificate:
    """The certificate of a TLS peer.

    Args:
        der: As `SSLObject.getpeercert(binary_form=True)` gives it: verified by the handshake.
        said: The same, read by `SSLObject.getpeercert()`.
        expires_at: Its `notAfter`, Unix seconds.
    """
    names: list[str] = []
    alternative = said.get("subjectAltName")
    if isinstance(alternative, tuple):
        for kind in ("URI", "DNS"):
            names += [f"{kind}:{value}" for key, value in alternative if key == kind]
    subject = said.get("subject")
    if isinstance(subject, tuple):
        names += [f"CN={value}" for part in subject for key, value in part if key == "commonName"]
    return Certificate(_usable(names), thumbprint_of(der), expires_at)


def _usable(names: list[str]) -> tuple[str, ...]:
    return tuple(name for name in names[:MOST_NAMES] if len(name) <= 512 and not _CONTROL(name))


def read_xfcc(value: bytes) -> Certificate:
    """The one certificate that a proxy tells of.

    Two of them, as a chain of proxies that append would write, are refused: which one is the client's, and which one
    the client wrote itself, could only be guessed.
    When it expires is known where the proxy sends the certificate itself (`Cert`, beside its hash).
    Raises:
        ValueError: Not that form, or not exactly one certificate with its hash.
    """
    if len(value) > MAX_XFCC:
        raise ValueError("too long")
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError:
        raise ValueError("characters that it may not have") from None
    fields: list[tuple[str, str]] = []
    for pair in _split(text):
        key, equals, said = pair.partition("=")
        key = key.strip().lower()
        if not equals or key not in _KEYS:
            raise ValueError("an element that is not known")
        fields.append((key, said[1:-1] if said.startswith('"') else said))
    hashes = [said for key, said in fields if key == "hash"]
    if len(hashes) != 1 or not _HASH(hashes[0]):
        raise ValueError("it does not name exactly one certificate by its hash")
    if sum(key == "subject" for key, _ in fields) > 1:
        raise ValueError("two subjects")
    expires_at = 0.0
    for pem in (unquote(said) for key, said in fields if key == "cert"):
        expires_at = _expiry_of(pem, bytes.fromhex(hashes[0]))
    names = [f"URI:{unquote(said)}" for key, said in fields if key == "uri"]
    names += [f"DNS:{unquote(said)}" for key, said in fields if key == "dns"]
    names += [f"CN={name}" for key, said in fields if key == "subject" for name in _common_names(said)]
    return Certificate(_usable(names), _base64url(bytes.fromhex(hashes[0])), expires_at)


def _expiry_of(pem: str, digest: bytes) -> float:
    """Raises ValueError: no certificate, or not the one of this SHA-256."""
    from cryptography import x509  # 90 ms that only those pay who have such a proxy
    from cryptography.hazmat.primitives.hashes import SHA256

    certificate = x509.load_pem_x509_certificate(pem.encode("ascii", "replace"))
    if certificate.fingerprint(SHA256()) != digest:
        raise ValueError("the certificate has another hash")
    return certificate.not_valid_after_utc.timestamp()


def _split(text: str) -> list[str]:
    """The `key=value` pairs of one element. Quoted `;` parts nothing; a comma outside begins a second element."""
    pairs, begun, quoted, escaped = [], 0, False, False
    for at, char in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            if not quoted and text[at - 1 : at] != "=":
                raise ValueError("a quote amid a value")
            if quoted and text[at + 1 : at + 2] not in ("", ";", ","):
                raise ValueError("a quote amid a value")
            quoted = not quoted
        elif char == "," and not quoted:
            raise ValueError("more than one element")
        elif char == ";" and not quoted:
            pairs.append(text[begun:at])
            begun = at + 1
    if quoted:
        raise ValueError("a quote without its end")
    return [*pairs, text[begun:]]


def _common_names(subject: str) -> list[str]:
    """The common names of a subject in the form of RFC 2253, where nothing in it is escaped."""
    if "\\" in subject or '"' in subject or subject.startswith("/"):
        return []
    parts = re.split(r"[,+]\s*", subject)
    return [part[3:].strip() for part in parts if part[:3].upper() == "CN="]


def principal_of(certificate: Certificate, rules: CertificateRules, method: Proof) -> Principal | None:
    """Who comes with this certificate; None where no rule names one of its names."""
    for name in certificate.names:
        roles: dict[str, None] = {}
        matched = False
        for pattern, given in rules.subjects.items():
            if compile_globs((pattern,))(name):
                matched = True
                roles.update(dict.fromkeys(given))
        if matched:
            return Principal(
                rules.tenant, "certificate", name, roles=tuple(roles), kind="service", method=method,
                expires_at=certificate.expires_at,
            )  # fmt: skip
    return None
