"""What is asked of a token endpoint, and what its answers may say. Pure: time and chance are handed in.

In: what a credential is configured to ask, the secrets it needs, an endpoint. Out: the form and the headers of one
request; of its answer a `Grant`, or `Refusal`. Cases: `tests/authority/test_grants.py`; fuzz target `token_answer`.
Source: RFC 6749 §4.4, §5 (form, answers); RFC 7523 (assertions as grants and as client authentication); RFC 8693
(exchange); RFC 8707 (`resource`); draft-ietf-oauth-identity-assertion-authz-grant (ID-JAG); Microsoft identity
platform, "on-behalf-of flow".
"""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from narthex.authority.assertion import SignedBy, sign_assertion
from narthex.authority.discovery import Server, read_scopes
from narthex.flow.codec.jsonrpc import BAD_JSON, encode

TOKEN_TYPES = {
    name: f"urn:ietf:params:oauth:token-type:{name}" for name in ("access_token", "id_token", "jwt", "saml2", "id-jag")
}
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MOST_TOKEN = 16 * 1024
"""Characters of a token that we would send: a header must hold it."""
MOST_CLAIMS = 4096
"""Characters of a claims challenge that is handed on: it stands in a header."""
LONGEST_S = 30 * 86_400.0
ASSUMED_S = 300.0
"""How long a token is taken to last whose issuer does not say."""
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_CODE = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,64}")
_LASTING = frozenset(
    {"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_target"}
)
"""Errors that asking again does not mend: somebody has to change something (RFC 6749 §5.2, RFC 8707 §2)."""


class Refusal(Exception):
    """A token endpoint gave no token.

    Args:
        text: For the operator. Never holds a secret: an endpoint's words are quoted only where they are an error code.
        lasting: It will say so again until somebody changes something.
        claims: What the user must sign in with, JSON in base64; empty where the user can do nothing.
        retry_after_s: When it wants to be asked again; 0 where it does not say.
    """

    def __init__(self, text: str, *, lasting: bool = False, claims: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.text = text
        self.lasting = lasting
        self.claims = claims
        self.retry_after_s = retry_after_s


class Client(msgspec.Struct, frozen=True):
    """Who asks, with its secrets filled in: alive for one request, and never shown."""

    id: str
    method: str
    secret: str = ""
    key: SignedBy | None = None

    def __repr__(self) -> str:
        return f"Client({self.id!r}, {self.method})"


class TokenRequest(msgspec.Struct, frozen=True):
    """One POST: the body and its headers."""

    body: bytes
    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return "TokenRequest(…)"


class Grant(msgspec.Struct, frozen=True):
    """A token as it was granted. `scopes` is None where the answer does not say: then it is what was asked for."""

    token: str
    lasts_s: float
    scopes: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"Grant(…, {self.lasts_s:g} s)"


# --- the forms of the grants ------------------------------------------------------------------------------------

Form = dict[str, str]


def client_credentials() -> Form:
    """RFC 6749 §4.4."""
    return {"grant_type": "client_credentials"}


def jwt_bearer(assertion: str) -> Form:
    """RFC 7523 §2.1: a JWT of somebody else's is the grant."""
    return {"grant_type": JWT_BEARER, "assertion": assertion}


def on_behalf_of(assertion: str) -> Form:
    """Entra's dialect of it: the caller's token for one of a further API. Not RFC 8693."""
    return {**jwt_bearer(assertion), "requested_token_use": "on_behalf_of"}


def token_exchange(subject: str, subject_type: str, wanted_type: str = "") -> Form:
    """RFC 8693 §2.1. Types are the short names of `TOKEN_TYPES`, or URIs."""
    form = {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": subject,
        "subject_token_type": TOKEN_TYPES.get(subject_type, subject_type),
    }
    return {**form, "requested_token_type": TOKEN_TYPES.get(wanted_type, wanted_type)} if wanted_type else form


def build(
    form: Form,
    client: Client,
    server: Server,
    *,
    scopes: tuple[str, ...] = (),
    resource: str = "",
    audience: str = "",
    now: float,
    jti: str,
) -> TokenRequest:
    """The whole request.

    Args:
        server: Whose endpoint it goes to: an assertion is bound to its issuer.
        now: Unix seconds; `jti`: an id that was never used before.
    Raises:
        Refusal: The endpoint takes no such client authentication, or the client's key cannot sign.
    """
    if server.auth_methods and client.method not in server.auth_methods:
        # RFC 8414 §2: a server that does not say takes client_secret_basic; one that says must be believed.
        taken = ", ".join(one for one in server.auth_methods if _CODE.fullmatch(one))
        raise Refusal(f"the token endpoint takes no {client.method}, but {taken}", lasting=True)
    form = dict(form)
    for key, value in (("scope", " ".join(scopes)), ("resource", resource), ("audience", audience)):
        if value:
            form[key] = value
    headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")]
    if client.method == "client_secret_basic":
        pair = f"{quote(client.id, safe='')}:{quote(client.secret, safe='')}"  # encoded first: RFC 6749 §2.3.1
        headers.append(("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"))
    else:
        form["client_id"] = client.id
        if client.method == "client_secret_post":
            form["client_secret"] = client.secret
        elif client.method == "private_key_jwt":
            assert client.key is not None
            try:
                signed = sign_assertion(client.key, client.id, server.issuer or server.token_endpoint, now=now, jti=jti)
            except ValueError as error:
                raise Refusal(f"the client's key cannot sign: {error}", lasting=True) from None
            form |= {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signed}
    return TokenRequest(urlencode(form).encode(), tuple(headers))


# --- answers ------------------------------------------------------------------------------------------------------


def read_answer(
    status: int, content_type: str, body: bytes, *, issuer: str, wanted_type: str = "", retry_after: str = ""
) -> Grant:
    """The token that an endpoint granted.

    Args:
        issuer: Whose endpoint it is; an answer that names another one is refused (RFC 9207 §2.4, in its spirit).
        wanted_type: The type that an exchange asked for, as a short name; an ID-JAG is no access token (`N_A`).
    Raises:
        Refusal: It granted none, or nothing that can be used.
    """
    wait_s = min(float(retry_after), 3600.0) if re.fullmatch(r"[0-9]{1,9}", retry_after) else 0.0
    if 300 <= status < 400:
        raise Refusal(f"the token endpoint redirects (HTTP {status}), which is not followed", lasting=True)
    try:
        found: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except BAD_JSON:
        found = {}
    if status != 200:
        raise _refused(status, found, wait_s)
    if content_type.partition(";")[0].strip().lower() != "application/json" or not found:
        raise Refusal("the token endpoint answers with something else than JSON")
    token, said = found.get("access_token"), found.get("iss", issuer)
    if not isinstance(token, str) or not _TOKEN.fullmatch(token) or len(token) > MOST_TOKEN:
        raise Refusal("the token endpoint's answer has no token that can be sent")
    if issuer and said != issuer:
        raise Refusal("the token endpoint's answer is another issuer's", lasting=True)
    type_ = str(found.get("token_type", "")).lower()
    if wanted_type == "id-jag":
        if found.get("issued_token_type") != TOKEN_TYPES["id-jag"]:
            raise Refusal("the identity provider granted another kind of token than an ID-JAG", lasting=True)
    elif type_ != "bearer":
        shown = type_ if _CODE.fullmatch(type_) else "no type"
        raise Refusal(f"the token endpoint granted a token of a kind that we do not send ({shown})", lasting=True)
    scope = found.get("scope")
    return Grant(token, _lasts(found.get("expires_in")), read_scopes(scope) if isinstance(scope, str) else None)


def _lasts(value: object) -> float:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}", value):
        value = int(value)  # not RFC 6749 §5.1, and met in the wild
    if value is None or isinstance(value, bool) or not isinstance(value, (int, float)):
        return ASSUMED_S
    if not value > 0:
        raise Refusal("the token endpoint granted a token that has already expired")
    return min(float(value), LONGEST_S)


def _refused(status: int, found: dict[str, Any], wait_s: float) -> Refusal:
    code = found.get("error")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        text = f"the token endpoint answers HTTP {status}"
        return Refusal(text, lasting=status in (400, 401, 403, 404, 405), retry_after_s=wait_s)
    numbers = found.get("error_codes")  # Entra's own, such as 65001: no secret, and what its documentation is sorted by
    more = f" ({', '.join(str(n) for n in numbers if isinstance(n, int))})" if isinstance(numbers, list) else ""
    text = f"the token endpoint refuses: {code}{more[:100]}"
    return Refusal(text, lasting=code in _LASTING, claims=_claims(found.get("claims")), retry_after_s=wait_s)


def _claims(value: object) -> str:
    """A claims challenge (OpenID Connect Core §5.5, as Entra's token endpoint says it) in the form of a header's.

    It goes on to whoever called: JSON of this form and size, and nothing else.
    """
    if not isinstance(value, str) or len(value) > MOST_CLAIMS:
        return ""
    try:
        asked = msgspec.json.decode(value, type=dict[str, dict[str, Any]])
    except BAD_JSON:
        return ""
    return base64.b64encode(encode(asked)).decode("ascii")


def read_claims(value: str) -> str:
    """The same of a server's challenge, where it is base64 already."""
    try:
        return _claims(base64.b64decode(value, validate=True).decode())
    except ValueError:
        return ""
