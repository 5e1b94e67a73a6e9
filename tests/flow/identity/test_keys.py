"""Key documents: which keys are taken, which are left out, which documents are none."""

from __future__ import annotations

from typing import Any

import pytest

from narthex.flow.identity.keys import MAX_DOCUMENT, read_keys, reading
from narthex.flow.identity.tokens import FAMILY
from tests.flow.identity.issuer import jwks, key, keys, public


@pytest.mark.parametrize(
    ("entry", "taken"),
    [
        pytest.param(public("rsa"), True, id="RSA"),
        pytest.param(public("p256"), True, id="P-256"),
        pytest.param(public("p384"), True, id="P-384"),
        pytest.param(public("ed"), True, id="Ed25519"),
        pytest.param(public("rsa", use="sig", key_ops=["verify"]), True, id="for signatures"),
        pytest.param(public("rsa", use="jwt-svid"), True, id="for SPIFFE"),
        pytest.param(public("rsa", use="enc"), False, id="for encryption"),
        pytest.param(public("rsa", key_ops=["encrypt"]), False, id="for other operations"),
        pytest.param(public("rsa", key_ops="verify"), False, id="operations: a text"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0c2VjcmV0", "kid": "a"}, False, id="a shared secret"),
        pytest.param({**public("rsa"), "n": public("rsa")["n"][:171]}, False, id="too short"),
        pytest.param({**public("rsa"), "n": "AQAB" * 4000}, False, id="too long"),
        pytest.param({**public("rsa"), "e": public("rsa")["n"]}, False, id="an exponent as long as the modulus"),
        pytest.param({**public("rsa"), "e": 65537}, False, id="an exponent that is a number"),
        pytest.param({**public("p256"), "crv": "secp256k1"}, False, id="another curve"),
        pytest.param({**public("p256"), "x": public("ed")["x"]}, False, id="no point of the curve"),
        pytest.param({"kty": "RSA", "kid": "a"}, False, id="no key in it"),
        pytest.param({"kty": "RSA", "n": 5, "e": "AQAB"}, False, id="a number in the place of a text"),
        pytest.param(public("rsa", kid=5), False, id="kid a number"),
        pytest.param(public("rsa", alg=["RS256"]), False, id="alg a list"),
        pytest.param({"kty": "LWE", "kid": "a"}, False, id="a kind of the future"),
        pytest.param({}, False, id="nothing"),
    ],
)
def test_which_keys_are_taken(entry: dict[str, Any], taken: bool) -> None:
    found = read_keys(jwks(entry, public("rsa2")))
    assert len(found.ids) == 1 + taken, "one that is of no use spoils no other"


def test_a_private_key_in_a_document_is_read_as_its_public_half() -> None:
    found = read_keys(jwks(key("rsa").as_dict(private=True)))
    assert not found.by_kid["rsa"].material.is_private


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="a page"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"keys": {}}', id="keys: an object"),
        pytest.param(b'{"keys": [1]}', id="keys: numbers"),
        pytest.param(b'{"keys": [' + b"{}," * 100 + b"{}]}", id="too many"),
        pytest.param(b'{"keys": []}' + b" " * MAX_DOCUMENT, id="too large"),
    ],
)
def test_what_is_no_document(document: bytes) -> None:
    with pytest.raises(ValueError):
        read_keys(document)


def test_others_have_a_turn_after_each_key() -> None:
    """A hundred large keys take twenty milliseconds: an issuer's document holds up nobody's call."""
    assert sum(1 for _ in reading(jwks(*[public("rsa", kid=str(n)) for n in range(50)]))) == 50


def test_a_key_is_for_its_algorithms() -> None:
    found = read_keys(jwks(public("rsa", alg="RS256"), public("p256")))
    assert found.find("rsa", "RS256") and not found.find("rsa", "PS256")
    assert found.find("p256", "ES256") and not found.find("p256", "ES384") and not found.find("p256", "RS256")
    assert not any(found.find("rsa", alg) for alg in ("none", "HS256", ""))


def test_without_kid_only_where_there_is_no_choice() -> None:
    assert keys("rsa", "p256").find(None, "RS256") is not None
    assert keys("rsa", "rsa2").find(None, "RS256") is None
    unnamed = {name: value for name, value in public("rsa").items() if name != "kid"}
    found = read_keys(jwks(unnamed, public("p256")))
    assert found.find(None, "RS256") is not None and found.find("rsa", "RS256") is None


def test_the_first_of_two_keys_with_one_kid_counts() -> None:
    found = read_keys(jwks(public("rsa"), public("rsa2", kid="rsa")))
    assert found.by_kid["rsa"].material.thumbprint() == key("rsa").thumbprint()


def test_knows() -> None:
    assert keys("rsa").knows("rsa") and not keys("rsa").knows("other") and keys("rsa").knows(None)
    assert not read_keys(b'{"keys":[]}').knows(None)


def test_no_algorithm_has_a_shared_secret() -> None:
    assert {kty for kty, _ in FAMILY.values()} == {"RSA", "EC", "OKP"}
