"""What a JWT access token must say before it counts.

In: the bytes that came as bearer token, all of them hostile; what its issuer's tokens must say; the time. Out: its
claims, or `TokenRefused` with the name of the check that failed. `CHECKS` is the list, in order; `narthex whoami` walks
the same one. Cases: `tests/flow/identity/test_tokens.py`, one row an attack.
Source: RFC 7519, RFC 8725 (best practice), RFC 9068 (access tokens), RFC 8705 §3 (bound to a certificate).
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON

FAMILY = {
    "RS256": ("RSA", ""), "RS384": ("RSA", ""), "RS512": ("RSA", ""),
    "PS256": ("RSA", ""), "PS384": ("RSA", ""), "PS512": ("RSA", ""),
    "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"), "Ed25519": ("OKP", "Ed25519"),
}  # fmt: skip
"""Algorithm -> key type and curve. There is no other: neither `none` nor one whose key would be a shared secret."""
LEEWAY_S = 60
LAST_S = 253_402_300_799
"""The last second of the year 9999: nothing lasts longer."""
MAX_TOKEN = 16 * 1024
MAX_HEADER = 2048
TID = "{tid}"
_SEGMENTS = re.compile(rb"([A-Za-z0-9_-]{2,})\.([A-Za-z0-9_-]{2,})\.([A-Za-z0-9_-]*)").fullmatch
_TID = re.compile(r"[A-Za-z0-9.-]{1,64}").fullmatch

Claims = dict[str, Any]


class TokenRefused(Exception):
    """A token that proves nothing. `check` is the name of the check; `text` says why, without anything of the token.

    Only `public` goes to whoever sent it.
    """

    def __init__(self, check: str, text: str, public: str = "the token is not accepted") -> None:
        super().__init__(text)
        self.check = check
        self.text = text
        self.public = public


class Header(msgspec.Struct, frozen=True):
    """What is read of a token's header. Nothing else in it counts."""

    alg: str
    kid: str | None = None
    typ: str | None = None
    crit: Any = None
    b64: Any = None


class Jwt(msgspec.Struct, frozen=True):
    """A token taken apart; nothing of it is proved."""

    header: Header
    claims: Claims
    signing_input: bytes
    signature: bytes


class TokenRules(msgspec.Struct, frozen=True):
    """What the tokens of one issuer must say. `issuers` are exact texts, or have `{tid}` in them once."""

    issuers: tuple[str, ...]
    tenants: frozenset[str]
    audiences: frozenset[str]
    algorithms: frozenset[str]
    typ: frozenset[str]
    claim_typ: frozenset[str] = frozenset()
    """Accepted values of a claim `typ` (Keycloak says there what a token is for); empty: not looked at."""
    needs_issuer: bool = True
    """False where the subject names the issuer (SPIFFE)."""
    audience_in: tuple[str, ...] = ("aud",)
    """Where it stands whom a token is for; of several, the first that is there."""


def looks_like_jwt(token: bytes) -> bool:
    """Three segments, the first of them a JSON object with `alg`? Otherwise a token is opaque."""
    match = _SEGMENTS(token)
    if match is None or len(match[1]) > MAX_HEADER:
        return False
    try:
        msgspec.json.decode(_decode(match[1]), type=Header)
    except (*BAD_JSON, ValueError):
        return False
    return True


def parse(token: bytes) -> Jwt:
    """Take a token apart. Raises TokenRefused."""
    if len(token) > MAX_TOKEN:
        raise TokenRefused("size", f"larger than {MAX_TOKEN} bytes")
    match = _SEGMENTS(token)
    if match is None or len(match[1]) > MAX_HEADER:
        raise TokenRefused("form", "not three segments of base64url")
    try:
        header = msgspec.json.decode(_decode(match[1]), type=Header)
        claims = msgspec.json.decode(_decode(match[2]), type=Claims)
        signature = _decode(match[3])
    except (*BAD_JSON, ValueError):
        raise TokenRefused("form", "header or claims are not JSON objects") from None
    if header.crit is not None or header.b64 is not None:
        raise TokenRefused("crit", "the header asks for extensions that nobody here knows (RFC 7515 §4.1.11)")
    if header.kid is not None and len(header.kid) > 512:
        raise TokenRefused("form", "the key id is too long")
    return Jwt(header, claims, token[: match.end(2)], signature)


def _decode(segment: bytes) -> bytes:
    """Base64url without padding; characters beyond its alphabet were refused before. Raises ValueError."""
    return urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))


# --- the checks: each returns what it saw, or raises


def check_algorithm(jwt: Jwt, rules: TokenRules, now: float) -> str:
    alg = jwt.header.alg
    if alg not in rules.algorithms:
        raise TokenRefused("algorithm", f"signed with {alg[:32]!r}; accepted: {', '.join(sorted(rules.algorithms))}")
    return alg


def check_type(jwt: Jwt, rules: TokenRules, now: float) -> str:
    """An ID token, a logout token or a DPoP proof is no access token, even where it comes from the same issuer."""
    typ = (jwt.header.typ or "").lower().removeprefix("application/")
    if typ not in rules.typ:
        raise TokenRefused("type", f"typ {typ[:64]!r}; accepted: {', '.join(map(repr, sorted(rules.typ)))}")
    said = jwt.claims.get("typ")
    if rules.claim_typ and said is not None and said not in rules.claim_typ:
        raise TokenRefused("type", f"the claim typ is not one of {', '.join(sorted(rules.claim_typ))}")
    if "at_hash" in jwt.claims or "c_hash" in jwt.claims:
        raise TokenRefused("type", "an ID token, not an access token")
    return typ or "none"


def check_issuer(jwt: Jwt, rules: TokenRules, now: float) -> str:
    issuer = jwt.claims.get("iss")
    if issuer is None and not rules.needs_issuer:
        return "named by the subject"
    if not isinstance(issuer, str) or not is_issuer(issuer, jwt.claims, rules):
        raise TokenRefused("issuer", "issued by somebody else")
    return issuer


def is_issuer(issuer: str, claims: Claims, rules: TokenRules) -> bool:
    """Is this text, as it stands, one of ours? Where `{tid}` stands, the token's own `tid` must, and be accepted."""
    if issuer in rules.issuers:
        return TID not in issuer
    tid = claims.get("tid")
    if not isinstance(tid, str) or not _TID(tid) or tid not in rules.tenants:
        return False
    return any(issuer == form.replace(TID, tid) for form in rules.issuers if TID in form)


def check_audience(jwt: Jwt, rules: TokenRules, now: float) -> str:
    named = audiences_of(jwt.claims, rules.audience_in)
    if named.isdisjoint(rules.audiences):
        raise TokenRefused("audience", "meant for somebody else: none of its audiences is accepted here")
    return ", ".join(sorted(named & rules.audiences))


def audiences_of(claims: Claims, places: tuple[str, ...]) -> frozenset[str]:
    """Whom a token is for. Raises TokenRefused where that is neither a text nor a list of texts."""
    said = next((claims[name] for name in places if name in claims), None)
    named = [said] if isinstance(said, str) else said
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        raise TokenRefused("audience", "it names no audience")
    return frozenset(named)


def check_times(jwt: Jwt, rules: TokenRules, now: float) -> str:
    """`exp` is there and not past, `nbf` and `iat` are not in the future, each with a minute of leeway."""
    claims = jwt.claims
    expires = seconds(claims, "exp")
    if expires is None:
        raise TokenRefused("times", "it never expires: no exp")
    if now >= expires + LEEWAY_S:
        raise TokenRefused("times", f"expired {now - expires:.0f} s ago", "the token has expired")
    for name in ("nbf", "iat"):
        begins = seconds(claims, name)
        if begins is not None and begins > now + LEEWAY_S:
            raise TokenRefused("times", f"{name} lies {begins - now:.0f} s in the future")
    return f"until {datetime.fromtimestamp(expires, UTC):%Y-%m-%dT%H:%M:%SZ}"


def seconds(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate, None where there is none. Raises TokenRefused for anything else."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_S:
        raise TokenRefused("times", f"{name} is not a time")
    return float(value)


def check_binding(jwt: Jwt, rules: TokenRules, now: float) -> str:
    """A token bound to a key in a way that we cannot check would be used by whoever stole it."""
    bound = jwt.claims.get("cnf")
    if bound is None:
        return "to nothing: whoever has it may use it"
    if not isinstance(bound, dict) or set(bound) != {"x5t#S256"} or not isinstance(bound["x5t#S256"], str):
        raise TokenRefused("binding", "bound to a key in a way that is not supported (only x5t#S256 is)")
    return "to a client certificate"


def binding_of(claims: Mapping[str, Any]) -> str:
    """The thumbprint of the certificate that a token is bound to (RFC 8705 §3.1); empty for none."""
    bound = claims.get("cnf")
    return str(bound["x5t#S256"]) if isinstance(bound, dict) else ""


def check_introspected(claims: Claims, rules: TokenRules, now: float, *, audience: str) -> None:
    """What an issuer's answer must say that is true of a JWT by its signature (RFC 7662 §2.2: most of it is optional).

    Args:
        audience: `optional` accepts an answer that names no audience; one that names another never is.
    Raises:
        TokenRefused: As `check`.
    """
    jwt = Jwt(Header(""), claims, b"", b"")
    if "iss" in claims:
        check_issuer(jwt, rules, now)
    if "aud" in claims or audience != "optional":
        check_audience(jwt, rules, now)
    if claims.get("exp") is not None:
        check_times(jwt, rules, now)
    kind = claims.get("token_type")
    if kind is not None and str(kind).lower() not in ("bearer", "access_token"):
        raise TokenRefused("type", "not a bearer token")
    check_binding(jwt, rules, now)


Check = Callable[[Jwt, TokenRules, float], str]
CHECKS: tuple[tuple[str, Check], ...] = (
    ("algorithm", check_algorithm),
    ("type", check_type),
    ("issuer", check_issuer),
    ("audience", check_audience),
    ("times", check_times),
    ("binding", check_binding),
)
"""All of them, the signature aside. Each is a pure function of the token, so their order decides only what is said."""


def check(jwt: Jwt, rules: TokenRules, now: float) -> None:
    """Every check. Raises TokenRefused."""
    for _, one in CHECKS:
        one(jwt, rules, now)
