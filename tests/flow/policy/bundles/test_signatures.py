"""A bundle counts as signed only as it was signed, by whom the operator trusts, for what they said, in time."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from narthex.flow.policy.bundles.signatures import (
    SIGNATURES,
    BundleKey,
    NotSigned,
    Number,
    Trust,
    canonical,
    check,
    read_numbers,
)

SECRET = "a secret of thirty-two bytes, or more"
EC = ECKey.generate_key("P-256")
RSA = RSAKey.generate_key(2048)
FILES = {"policy.rego": b"package a\n", "data.json": b'{ "b": 1.50, "a": [true, null, "\\u00e9"] }', ".manifest": b"{}"}
TRUST = Trust({"one": BundleKey.read("HS256", SECRET)})
NOW = 1_000_000.0


def pem(key: ECKey | RSAKey) -> str:
    return key.as_pem(private=False).decode()


def listed(files: dict[str, bytes]) -> list[dict[str, str]]:
    def digest(name: str, data: bytes) -> str:
        text = data if name == "policy.rego" else "".join(canonical(read_numbers(data))).encode()
        return hashlib.sha256(text).hexdigest()

    return [{"name": name, "hash": digest(name, data), "algorithm": "SHA-256"} for name, data in files.items()]


def signed(payload: dict[str, Any] | None = None, *, key: Any = None, **header: Any) -> dict[str, bytes]:
    """The files, and a signature over this payload beside what is usual."""
    key = key or OctKey.import_key(SECRET)
    body = {"files": listed(FILES)} | (payload or {})
    token = jws.serialize_compact(
        {"alg": "HS256", "kid": "one"} | header, json.dumps(body), key, ["HS256", "ES256", "RS256"]
    )
    return {**FILES, SIGNATURES: json.dumps({"signatures": [token]}).encode()}


def forged(alg: str, secret: bytes = b"") -> dict[str, bytes]:
    """As no library makes it: without a signature, or with HMAC under any bytes."""
    parts = ({"alg": alg, "kid": "one"}, {"files": listed(FILES)})
    text = ".".join(encoded(json.dumps(part).encode()) for part in parts)
    proof = encoded(hmac.digest(secret, text.encode(), "sha256")) if secret else ""
    return {**FILES, SIGNATURES: json.dumps({"signatures": [f"{text}.{proof}"]}).encode()}


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def changed(**files: bytes | None) -> dict[str, bytes]:
    made = {name.replace("_rego", ".rego").replace("_json", ".json"): data for name, data in files.items()}
    return {name: data for name, data in {**signed(), **made}.items() if data is not None}


@pytest.mark.parametrize(
    ("files", "trust"),
    [
        pytest.param(lambda: signed(), TRUST, id="a shared secret"),
        pytest.param(lambda: signed(key=EC, alg="ES256"), Trust({"one": BundleKey.read("ES256", pem(EC))}), id="ECDSA"),
        pytest.param(lambda: signed(key=RSA, alg="RS256"), Trust({"one": BundleKey.read("RS256", pem(RSA))}), id="RSA"),
        pytest.param(lambda: signed({"keyid": "one"}, kid=""), TRUST, id="the key named in the old place"),
        pytest.param(lambda: signed(kid=""), Trust(TRUST.keys, key_id="one"), id="the key named by the operator"),
        pytest.param(lambda: signed({"scope": "write"}), Trust(TRUST.keys, scope="write"), id="for a purpose"),
        pytest.param(lambda: signed({"exp": NOW + 1}), TRUST, id="not expired"),
        pytest.param(
            lambda: changed(data_json=b'{"a":[true,null,"\xc3\xa9"],"b":1.50}'), TRUST, id="JSON laid out anew"
        ),
    ],
)
def test_what_counts(files: Callable[[], dict[str, bytes]], trust: Trust) -> None:
    assert check(files(), trust, NOW) == "one"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param(lambda: FILES, "not signed", id="no signature"),
        pytest.param(lambda: changed(policy_rego=b"package a\n\n"), "changed", id="a module changed by white space"),
        pytest.param(lambda: changed(data_json=b'{"a": [true, null, "\xc3\xa9"], "b": 1.5}'), "changed",
                     id="a number written otherwise"),
        pytest.param(lambda: changed(data_json=b"{"), "not JSON", id="data that is no JSON"),
        pytest.param(lambda: changed(more_rego=b"package b"), "not among", id="a file more"),
        pytest.param(lambda: changed(policy_rego=None), "not there", id="a file less"),
        pytest.param(lambda: signed({"files": []}), "not among", id="an empty list"),
        pytest.param(lambda: signed({"files": [one | {"algorithm": "SHA-1"} for one in listed(FILES)]}), "digest",
                     id="a digest that can be forged"),
        pytest.param(lambda: signed({"scope": "write"}), "purpose", id="for a purpose nobody asked for"),
        pytest.param(lambda: signed({"exp": NOW - 3600}), "expired", id="expired"),
        pytest.param(lambda: signed({"nbf": NOW + 3600}), "not valid yet", id="not yet"),
        pytest.param(lambda: signed(kid="two"), "not configured", id="a key nobody knows"),
        pytest.param(lambda: signed(kid=""), "not configured", id="no key named"),
        pytest.param(lambda: signed(key=OctKey.import_key("x" * 40)), "not one of key", id="by somebody else"),
        pytest.param(lambda: signed(key=EC, alg="ES256"), "not one of key", id="by another algorithm than the key's"),
        pytest.param(lambda: forged("none"), "not one of key", id="alg none"),
        pytest.param(lambda: changed(**{SIGNATURES: b"{}"}), "cannot be read", id="signatures that are none"),
        pytest.param(lambda: changed(**{SIGNATURES: b'{"signatures": []}'}), "exactly one", id="no JWT"),
        pytest.param(lambda: changed(**{SIGNATURES: b'{"signatures": ["a.b.c", "a.b.c"]}'}), "exactly one",
                     id="two JWTs"),
        pytest.param(lambda: changed(**{SIGNATURES: b'{"signatures": ["a.b"]}'}), "cannot be read", id="half a JWT"),
        pytest.param(lambda: changed(**{SIGNATURES: b'{"signatures": ["a.b.c"], "plugin": "x"}'}), "usual",
                     id="another way to sign"),
    ],
)  # fmt: skip
def test_what_does_not(files: Callable[[], dict[str, bytes]], said: str) -> None:
    with pytest.raises(NotSigned, match=said):
        check(files(), TRUST, NOW)


def test_a_public_key_is_no_shared_secret() -> None:
    """The classic mix-up: HS256 with the text of the public key as its secret."""
    with pytest.raises(NotSigned, match="not one of key"):
        check(forged("HS256", pem(EC).encode()), Trust({"one": BundleKey.read("ES256", pem(EC))}), NOW)


@pytest.mark.parametrize(
    ("algorithm", "text", "said"),
    [
        pytest.param("HS256", "short", "32 bytes", id="a secret that can be guessed"),
        pytest.param("none", SECRET, "no algorithm", id="no algorithm at all"),
        pytest.param("RS256", SECRET, "not a PEM key", id="text that is no key"),
        pytest.param("RS256", pem(EC), "not a PEM key", id="a key of another kind"),
        pytest.param("ES384", pem(EC), "P-384", id="another curve"),
    ],
)
def test_a_key_that_is_none(algorithm: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BundleKey.read(algorithm, text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values, st.sampled_from([None, 2]))
def test_the_canonical_form_does_not_depend_on_the_layout(value: Any, indent: int | None) -> None:
    laid_out = json.dumps(value, indent=indent, ensure_ascii=indent is None).encode("utf-8", "surrogatepass")
    text = "".join(canonical(read_numbers(laid_out)))
    assert text == "".join(canonical(read_numbers(json.dumps(value).encode())))
    assert json.loads(text) == json.loads(json.dumps(value))


def test_numbers_stay_as_they_are_written() -> None:
    assert read_numbers(b"[1.50, 1e3, 12345678901234567890]") == [
        Number("1.50"),
        Number("1e3"),
        Number("12345678901234567890"),
    ]
