from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.authority import grants
from narthex.authority.assertion import SignedBy
from narthex.authority.discovery import Server
from narthex.authority.grants import ASSUMED_S, LONGEST_S, MOST_TOKEN, Client, Form, Grant, Refusal, build, read_answer

ISSUER = "https://as.example.com"
SERVER = Server(ISSUER, f"{ISSUER}/token")
CLIENT = Client("gateway", "client_secret_basic", "s3cr:t/ä")
JSON = "application/json"


def sent(form: Form, client: Client = CLIENT, server: Server = SERVER, **more: Any) -> tuple[Form, dict[str, str]]:
    request = build(form, client, server, now=1000.0, jti="j1", **more)
    parsed = parse_qs(request.body.decode(), strict_parsing=True, keep_blank_values=True)
    assert all(len(values) == 1 for values in parsed.values()), "a parameter twice (RFC 6749 §3.2)"
    return {key: value for key, (value,) in parsed.items()}, dict(request.headers)


@pytest.mark.parametrize(
    ("form", "members"),
    [
        pytest.param(grants.client_credentials(), {"grant_type": "client_credentials"}, id="RFC 6749 §4.4"),
        pytest.param(
            grants.jwt_bearer("a.b.c"),
            {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "a.b.c"},
            id="RFC 7523 §2.1",
        ),
        pytest.param(
            grants.on_behalf_of("a.b.c"),
            {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": "a.b.c",
                "requested_token_use": "on_behalf_of",
            },
            id="Entra's on-behalf-of",
        ),
        pytest.param(
            grants.token_exchange("a.b.c", "access_token"),
            {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token": "a.b.c",
                "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            },
            id="RFC 8693 §2.1",
        ),
        pytest.param(
            grants.token_exchange("a.b.c", "id_token", "id-jag"),
            {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token": "a.b.c",
                "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
                "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
            },
            id="for an ID-JAG",
        ),
    ],
)
def test_the_forms(form: Form, members: Form) -> None:
    assert sent(form)[0] == members
    wide = {"scope": "a b", "resource": "https://mcp.example.com/mcp", "audience": "api"}
    more = {"scopes": ("a", "b"), "resource": "https://mcp.example.com/mcp", "audience": "api"}
    assert sent(form, **more)[0] == members | wide


@given(id_=st.text(min_size=1), secret=st.text(min_size=1))
def test_basic_is_read_back_as_it_was_meant(id_: str, secret: str) -> None:
    from urllib.parse import unquote_plus

    form, headers = sent(grants.client_credentials(), Client(id_, "client_secret_basic", secret))
    user, _, password = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode().partition(":")
    assert (unquote_plus(user), unquote_plus(password)) == (id_, secret)
    assert "client_secret" not in form and "client_id" not in form


def test_the_other_ways_to_be_a_client() -> None:
    form, headers = sent(grants.client_credentials(), Client("gateway", "client_secret_post", "secret"))
    assert (form["client_id"], form["client_secret"]) == ("gateway", "secret")
    assert "Authorization" not in headers
    form, headers = sent(grants.client_credentials(), Client("gateway", "none"))
    assert form == {"grant_type": "client_credentials", "client_id": "gateway"}


def test_what_the_endpoint_takes_is_believed() -> None:
    asked = Server(ISSUER, f"{ISSUER}/token", ("client_secret_post",))
    with pytest.raises(Refusal, match="takes no client_secret_basic, but client_secret_post") as refusal:
        sent(grants.client_credentials(), CLIENT, asked)
    assert refusal.value.lasting


def test_a_key_that_is_none_says_nothing_of_itself() -> None:
    client = Client("gateway", "private_key_jwt", key=SignedBy("-----BEGIN PLANTED-----"))
    with pytest.raises(Refusal, match="no private key") as refusal:
        sent(grants.client_credentials(), client)
    assert "PLANTED" not in repr((refusal.value, client, client.key))


def answer(status: int = 200, kind: str = JSON, retry_after: str = "", wanted: str = "", **members: Any) -> Grant:
    body = json.dumps(members).encode()
    return read_answer(status, kind, body, issuer=ISSUER, wanted_type=wanted, retry_after=retry_after)


@pytest.mark.parametrize(
    ("members", "lasts_s"),
    [
        pytest.param({"expires_in": 3600}, 3600.0, id="as it says"),
        pytest.param({"expires_in": "3600"}, 3600.0, id="a number in quotes"),
        pytest.param({"expires_in": 0.5}, 0.5, id="a fraction"),
        pytest.param({}, ASSUMED_S, id="nothing said"),
        pytest.param({"expires_in": None}, ASSUMED_S, id="null"),
        pytest.param({"expires_in": "soon"}, ASSUMED_S, id="a word"),
        pytest.param({"expires_in": True}, ASSUMED_S, id="a flag"),
        pytest.param({"expires_in": 10**30}, LONGEST_S, id="for ever"),
    ],
)
def test_how_long_a_token_lasts(members: dict[str, Any], lasts_s: float) -> None:
    assert answer(access_token="abc", token_type="Bearer", **members) == Grant("abc", lasts_s)


def test_a_narrower_grant_is_told() -> None:
    assert answer(access_token="abc", token_type="bearer", scope="a b").scopes == ("a", "b")


GOOD = {"access_token": "abc", "token_type": "Bearer", "expires_in": 60}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({**GOOD, "access_token": "a\r\nX-Evil: 1"}, "no token that can be sent", id="a header inside"),
        pytest.param({**GOOD, "access_token": "a" * (MOST_TOKEN + 1)}, "no token that can be sent", id="too long"),
        pytest.param({**GOOD, "access_token": ""}, "no token that can be sent", id="empty"),
        pytest.param({**GOOD, "access_token": {"a": 1}}, "no token that can be sent", id="no text"),
        pytest.param({**GOOD, "token_type": "DPoP"}, "of a kind that we do not send", id="not a bearer token"),
        pytest.param({**GOOD, "token_type": "x" * 5000}, "of a kind that we do not send", id="a type without measure"),
        pytest.param({**GOOD, "expires_in": 0}, "already expired", id="expired at once"),
        pytest.param({**GOOD, "expires_in": -5}, "already expired", id="expired before"),
        pytest.param({**GOOD, "iss": f"{ISSUER}/"}, "another issuer's", id="another issuer"),
        pytest.param({**GOOD, "status": 302}, "redirects", id="redirected"),
        pytest.param({**GOOD, "kind": "text/html"}, "something else than JSON", id="another content type"),
        pytest.param({"status": 500}, "answers HTTP 500", id="an error without a code"),
        pytest.param({"status": 400, "error": "a\nb"}, "answers HTTP 400", id="a code that is none"),
        pytest.param({"status": 401, "error": "invalid_client"}, "refuses: invalid_client", id="its code"),
        pytest.param(
            {"status": 400, "error": "invalid_grant", "error_codes": [65001], "error_description": "PLANTED"},
            r"refuses: invalid_grant \(65001\)$",
            id="its words are not repeated",
        ),
        pytest.param({**GOOD, "wanted": "id-jag"}, "another kind of token than an ID-JAG", id="no ID-JAG"),
    ],
)
def test_what_is_no_grant(given: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal, match=said):
        answer(**given)


def test_an_id_jag_is_no_access_token() -> None:
    type_ = "urn:ietf:params:oauth:token-type:id-jag"
    assert answer(access_token="a.b.c", token_type="N_A", issued_token_type=type_, wanted="id-jag").token == "a.b.c"


def test_which_refusals_last() -> None:
    def refusal(**given: Any) -> Refusal:
        with pytest.raises(Refusal) as found:
            answer(**given)
        return found.value

    assert refusal(status=401, error="invalid_client").lasting
    assert not refusal(status=400, error="invalid_grant").lasting
    assert not refusal(status=503, retry_after="20").lasting
    assert refusal(status=503, retry_after="20").retry_after_s == 20
    assert refusal(status=429, retry_after="9" * 9).retry_after_s == 3600
    assert refusal(status=429, retry_after="soon").retry_after_s == 0


@given(st.binary(), st.integers(100, 599), st.text())
def test_no_answer_is_too_strange(body: bytes, status: int, kind: str) -> None:
    try:
        assert read_answer(status, kind, body, issuer=ISSUER).token
    except Refusal as refusal:
        assert refusal.text.isprintable()
