"""Each row is an attack on a token, or a token that must be accepted."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.identity.keys import is_signed
from narthex.flow.identity.tokens import TokenRefused, TokenRules, binding_of, check, looks_like_jwt, parse
from tests.flow.identity.issuer import AUDIENCE, ISSUER, NOW, base64url, claims, key, keys, public, token

RULES = TokenRules(
    issuers=(ISSUER,),
    tenants=frozenset(),
    audiences=frozenset({AUDIENCE, "gateway"}),
    algorithms=frozenset({"RS256", "ES256", "PS256", "EdDSA"}),
    typ=frozenset({"at+jwt", "jwt", ""}),
)


def verify(bearer: bytes, rules: TokenRules = RULES, now: float = NOW, known: Any = None) -> None:
    """The way of a token: apart, the checks, its key, the signature."""
    jwt = parse(bearer)
    check(jwt, rules, now)
    found = (known or keys("rsa", "p256", "ed")).find(jwt.header.kid, jwt.header.alg)
    if found is None or not is_signed(jwt.signing_input, jwt.signature, jwt.header.alg, found, rules.algorithms):
        raise TokenRefused("signature", "not signed by its issuer")


def hs256_with_the_public_key() -> bytes:
    """Algorithm confusion: the public key, which everybody has, taken as shared secret."""
    signing = token(header={"alg": "HS256"}, signature=b"").rsplit(b".", 1)[0]
    pem = key("rsa").as_pem(private=False)
    return signing + b"." + base64url(hmac.new(pem, signing, hashlib.sha256).digest())


@pytest.mark.parametrize(
    ("bearer", "failed"),
    [
        pytest.param(token(header={"alg": "none"}, signature=b""), "algorithm", id="alg none, no signature"),
        pytest.param(token(header={"alg": "None"}, signature=b""), "algorithm", id="alg None"),
        pytest.param(token(header={"alg": "nOnE"}), "algorithm", id="alg nOnE with a signature"),
        pytest.param(token(header={"alg": ""}), "algorithm", id="alg empty"),
        pytest.param(token(header={"alg": None}), "form", id="no alg"),
        pytest.param(token(header={"alg": ["RS256"]}), "form", id="alg a list"),
        pytest.param(hs256_with_the_public_key(), "algorithm", id="HS256 with the public key"),
        pytest.param(token(alg="RS512"), "algorithm", id="an algorithm that is not accepted"),
        pytest.param(token(by="p256", alg="ES256", header={"alg": "RS256"}), "signature", id="ES signed, RS said"),
        pytest.param(token(header={"kid": "p256"}), "signature", id="a key of another kind named"),
        pytest.param(token(by="rsa2", header={"kid": "rsa"}), "signature", id="another's key under a known kid"),
        pytest.param(token(by="rsa2"), "signature", id="an unknown kid"),
        pytest.param(token(header={"kid": "../../../../dev/null"}), "signature", id="kid: a path"),
        pytest.param(token(header={"kid": "' OR 1=1 --"}), "signature", id="kid: SQL"),
        pytest.param(token(header={"kid": "https://evil.example/key"}), "signature", id="kid: a URL"),
        pytest.param(token(header={"kid": "a" * 600}), "form", id="kid: endless"),
        pytest.param(token(header={"kid": {"a": 1}}), "form", id="kid: an object"),
        pytest.param(token(by="rsa2", header={"jwk": public("rsa2")}), "signature", id="jwk injected"),
        pytest.param(token(by="rsa2", header={"jku": "https://evil.example/k"}), "signature", id="jku injected"),
        pytest.param(token(by="rsa2", header={"x5u": "https://evil.example/c"}), "signature", id="x5u injected"),
        pytest.param(token(by="rsa2", header={"x5c": ["MIIB"]}), "signature", id="x5c injected"),
        pytest.param(token(header={"crit": ["exp"]}), "crit", id="crit"),
        pytest.param(token(header={"crit": []}), "crit", id="crit empty"),
        pytest.param(token(header={"b64": False}), "crit", id="b64 without crit"),
        pytest.param(token(signature=b""), "signature", id="no signature"),
        pytest.param(token(signature=b"\0" * 256), "signature", id="a signature of zeros"),
        pytest.param(token(signature=b"\0" * 4096), "signature", id="a signature too long"),
        pytest.param(token(header={"typ": "dpop+jwt"}), "type", id="a DPoP proof"),
        pytest.param(token(header={"typ": "logout+jwt"}), "type", id="a logout token"),
        pytest.param(token(header={"typ": "oauth-id-jag+jwt"}), "type", id="an identity assertion"),
        pytest.param(token(claims(at_hash="x"), header={"typ": "JWT"}), "type", id="an ID token"),
        pytest.param(token(claims(iss="https://evil.example")), "issuer", id="another issuer"),
        pytest.param(token(claims(iss=ISSUER + "/")), "issuer", id="issuer: a final slash"),
        pytest.param(token(claims(iss=ISSUER.upper())), "issuer", id="issuer: other case"),
        pytest.param(token(claims(iss=[ISSUER])), "issuer", id="issuer: a list"),
        pytest.param(token(claims(iss=None)), "issuer", id="no issuer"),
        pytest.param(token(claims(aud="https://other.example.com")), "audience", id="another audience"),
        pytest.param(token(claims(aud=AUDIENCE + "/")), "audience", id="audience: a final slash"),
        pytest.param(token(claims(aud=[])), "audience", id="audience: an empty list"),
        pytest.param(token(claims(aud=[["gateway"]])), "audience", id="audience: a list in a list"),
        pytest.param(token(claims(aud={"gateway": 1})), "audience", id="audience: an object"),
        pytest.param(token(claims(aud=None)), "audience", id="no audience"),
        pytest.param(token(claims(exp=NOW - 61)), "times", id="expired"),
        pytest.param(token(claims(exp=None)), "times", id="never expires"),
        pytest.param(token(claims(exp="9999999999")), "times", id="exp a text"),
        pytest.param(token(claims(exp=True)), "times", id="exp true"),
        pytest.param(token(claims(exp=1e300)), "times", id="exp beyond every calendar"),
        pytest.param(token(claims(exp=-1)), "times", id="exp negative"),
        pytest.param(token(claims(nbf=NOW + 61)), "times", id="not yet valid"),
        pytest.param(token(claims(iat=NOW + 61)), "times", id="issued in the future"),
        pytest.param(token(claims(cnf={"jkt": "x"})), "binding", id="bound by DPoP, sent as bearer"),
        pytest.param(token(claims(cnf={})), "binding", id="bound to nothing that is known"),
        pytest.param(token(claims(cnf={"x5t#S256": "x", "jkt": "y"})), "binding", id="bound twice"),
        pytest.param(token(claims(cnf="x")), "binding", id="bound by a text"),
        pytest.param(b"", "form", id="nothing"),
        pytest.param(b"a.b", "form", id="two segments"),
        pytest.param(token() + b".x", "form", id="four segments"),
        pytest.param(token() + b"=", "form", id="padding"),
        pytest.param(token().replace(b".", b" ."), "form", id="a space"),
        pytest.param(b"\n" + token(), "form", id="a line break"),
        pytest.param(token(b"[]"), "form", id="claims: a list"),
        pytest.param(token(b'"x"'), "form", id="claims: a text"),
        pytest.param(token(b"{" * 2000), "form", id="claims: not JSON"),
        pytest.param(token(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"), "form", id="claims: nested without end"),
        pytest.param(token(b'{"sub":"\xff"}'), "form", id="claims: not UTF-8"),
        pytest.param(token(claims(x="a" * 16384)), "size", id="huge"),
        pytest.param(token(header={"x": "a" * 4000}), "form", id="a huge header"),
    ],
)
def test_refused(bearer: bytes, failed: str) -> None:
    with pytest.raises(TokenRefused) as caught:
        verify(bearer)
    assert caught.value.check == failed
    assert "alice" not in caught.value.text and "evil" not in caught.value.public


@pytest.mark.parametrize(
    "bearer",
    [
        pytest.param(token(), id="RS256"),
        pytest.param(token(by="p256", alg="ES256"), id="ES256"),
        pytest.param(token(alg="PS256"), id="PS256"),
        pytest.param(token(by="ed", alg="EdDSA"), id="EdDSA"),
        pytest.param(token(header={"typ": None}), id="no typ"),
        pytest.param(token(header={"typ": "JWT"}), id="typ JWT"),
        pytest.param(token(header={"typ": "application/at+JWT"}), id="typ in full"),
        pytest.param(token(by="p256", alg="ES256", header={"kid": None}), id="no kid, and one key fits"),
        pytest.param(token(claims(aud=["x", AUDIENCE])), id="one audience of several"),
        pytest.param(token(claims(exp=NOW - 59)), id="expired within the leeway"),
        pytest.param(token(claims(nbf=NOW + 59, iat=NOW + 59.5)), id="a clock that is ahead"),
        pytest.param(token(claims(cnf={"x5t#S256": "abc"})), id="bound to a certificate"),
        pytest.param(token(claims(typ="anything")), id="a claim typ that nobody asks for"),
        pytest.param(token(header={"jku": "https://evil.example/keys"}), id="a jku that nobody follows"),
    ],
)
def test_accepted(bearer: bytes) -> None:
    assert looks_like_jwt(bearer)
    verify(bearer)


ENTRA = msgspec.structs.replace(
    RULES,
    issuers=("https://login.example/{tid}/v2.0", "https://sts.example/{tid}/"),
    tenants=frozenset({"t1", "t2"}),
)


@pytest.mark.parametrize(
    ("issuer", "tid", "accepted"),
    [
        pytest.param("https://login.example/t1/v2.0", "t1", True, id="the tenant's own"),
        pytest.param("https://sts.example/t2/", "t2", True, id="the form of version 1"),
        pytest.param("https://login.example/t1/v2.0", "t2", False, id="another tenant's issuer"),
        pytest.param("https://login.example/t3/v2.0", "t3", False, id="a tenant that is not let in"),
        pytest.param("https://login.example/{tid}/v2.0", "{tid}", False, id="the template itself"),
        pytest.param("https://login.example/{tid}/v2.0", "t1", False, id="the template with a good tenant"),
        pytest.param("https://login.example/t1/v2.0", None, False, id="no tid"),
        pytest.param("https://login.example/t1/v2.0", ["t1"], False, id="tid a list"),
        pytest.param("https://login.example/t1/../t2/v2.0", "t1/../t2", False, id="tid with a way in it"),
    ],
)
def test_issuers_of_several_tenants(issuer: str, tid: Any, accepted: bool) -> None:
    bearer = token(claims(iss=issuer, tid=tid))
    if accepted:
        verify(bearer, ENTRA)
    else:
        with pytest.raises(TokenRefused):
            verify(bearer, ENTRA)


@pytest.mark.parametrize(("said", "accepted"), [("Bearer", True), ("ID", False), ("Refresh", False), (None, True)])
def test_what_a_token_of_keycloak_is_for(said: str | None, accepted: bool) -> None:
    rules = msgspec.structs.replace(RULES, claim_typ=frozenset({"Bearer"}))
    if accepted:
        verify(token(claims(typ=said)), rules)
    else:
        with pytest.raises(TokenRefused):
            verify(token(claims(typ=said)), rules)


@pytest.mark.parametrize(
    ("said", "accepted"),
    [
        pytest.param({"aud": None, "client_id": "gateway"}, True, id="the app client in its place"),
        pytest.param({"aud": None, "client_id": "other"}, False, id="another app client"),
        pytest.param({"aud": "other", "client_id": "gateway"}, False, id="an audience counts first"),
        pytest.param({"aud": [], "client_id": "gateway"}, False, id="even an empty one"),
    ],
)
def test_where_cognito_says_whom_a_token_is_for(said: dict[str, Any], accepted: bool) -> None:
    rules = msgspec.structs.replace(RULES, audience_in=("aud", "client_id"))
    if accepted:
        verify(token(claims(**said)), rules)
    else:
        with pytest.raises(TokenRefused):
            verify(token(claims(**said)), rules)


def test_binding() -> None:
    assert binding_of({"cnf": {"x5t#S256": "abc"}}) == "abc"
    assert binding_of({}) == ""


@pytest.mark.parametrize("opaque", [b"abc", b"a.b.c", b"v2.local.abc", b"AQ.Ab8.x", b"nx_abc"])
def test_opaque(opaque: bytes) -> None:
    assert not looks_like_jwt(opaque)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_taken_apart(data: bytes) -> None:
    for bearer in (data, base64url(data) + b"." + base64url(data) + b"." + base64url(data)):
        try:
            check(parse(bearer), RULES, NOW)
        except TokenRefused:
            continue
        raise AssertionError("random bytes are no token")


@given(st.integers(0, 2000), st.integers(0, 7))
def test_a_flipped_bit_is_no_token(at: int, bit: int) -> None:
    good = bytearray(token())
    at %= len(good) - 1  # the last character carries bits that base64url does not use
    good[at] ^= 1 << bit
    with pytest.raises(TokenRefused):
        verify(bytes(good))
