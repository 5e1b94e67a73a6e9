"""`credentials`: what the gateway shows servers of itself; and a server's `credential`, who uses which of them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from narthex.config import values
from narthex.config.document import SHAPES, Fault, Node, Path, Reading
from narthex.config.expand import Expanded
from narthex.config.kinds import (
    ENV_NAME,
    HEADER_NAME,
    NAME,
    SECRET_HEADER,
    SECRET_TEXT,
    TEXT,
    URL,
    Choice,
    Group,
    JsonSchema,
    Listed,
    Mapped,
    Scalar,
    Setting,
)
from narthex.config.schema.who import WHO, WhoSettings

KINDS = (
    *("header", "basic", "query", "env", "client_certificate"),
    *("client_credentials", "jwt_bearer", "exchange", "token_exchange", "on_behalf_of", "id_jag"),
)
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
AUTHS = ("client_secret_basic", "client_secret_post", "private_key_jwt", "none")
TOKEN_KINDS = ("access_token", "id_token", "jwt", "saml2")


def _parse_scope(text: str) -> str:
    if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}", text):
        raise ValueError("a scope is printable ASCII without space, quotation mark and backslash (RFC 6749 §3.3)")
    return text


SCOPE = Scalar("a scope", _parse_scope)
KEY_ID = Scalar("a key id", values.parse_key_id)
RESOURCE = Scalar("`server`, `none` or a URI", values.parse_text)


class IdpSettings(msgspec.Struct, frozen=True):
    """An authorization server, and which client the gateway is there."""

    issuer: Annotated[
        Expanded | None,
        Setting(URL, "The issuer, exactly as it calls itself. Its metadata says where tokens are to be had."),
    ] = None
    token_endpoint: Annotated[
        Expanded | None, Setting(URL, "Where tokens are to be had, for an issuer without metadata.")
    ] = None
    client_id: Annotated[Expanded | None, Setting(TEXT, "The gateway's client id there.")] = None
    client_auth: Annotated[
        Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"] | None,
        Setting(
            Choice(AUTHS),
            "How the gateway proves that it is this client.",
            default="`client_secret_basic` with a `client_secret`, `private_key_jwt` with a `private_key`, else `none`",
        ),
    ] = None
    client_secret: Annotated[Expanded | None, Setting(SECRET_TEXT, "The client's secret.", secret=True)] = None
    private_key: Annotated[
        Expanded | None,
        Setting(
            SECRET_TEXT,
            "Private key in PEM: of the client, for `private_key_jwt` (with its certificate behind it where the issuer"
            " wants a thumbprint, as Entra does); or of the certificate.",
            secret=True,
        ),
    ] = None
    key_id: Annotated[str | None, Setting(KEY_ID, "The key's id (`kid`) at the issuer.")] = None
    algorithm: Annotated[
        Literal["RS256", "PS256", "ES256", "ES384", "EdDSA"] | None,
        Setting(Choice(ALGORITHMS), "What the key signs with.", default="the usual one of its kind"),
    ] = None


class CredentialSettings(IdpSettings, frozen=True):
    """One account of the gateway's with servers. Secrets stand here as `${secret:NAME}` alone."""

    kind: Annotated[
        str | None, Setting(Choice(KINDS), "What is shown, and which of the other keys go with it.", default="required")
    ] = None
    name: Annotated[str | None, Setting(HEADER_NAME, "Of the header, or the query's parameter.")] = None
    value: Annotated[
        Expanded | None, Setting(SECRET_HEADER, "Of the header, or the query's parameter.", secret=True)
    ] = None
    username: Annotated[Expanded | None, Setting(SECRET_TEXT, "For `basic`.")] = None
    password: Annotated[Expanded | None, Setting(SECRET_TEXT, "For `basic`.", secret=True)] = None
    env: Annotated[
        dict[str, Expanded],
        Setting(Mapped(ENV_NAME, SECRET_TEXT, "variables"), "What the program's environment gets.", secret=True),
    ] = {}
    certificate: Annotated[
        Expanded | None, Setting(SECRET_TEXT, "Client certificate in PEM, with those between it and its authority.")
    ] = None
    with_certificate: Annotated[
        str | None,
        Setting(NAME, "A credential of kind `client_certificate` that the server is shown too, by TLS."),
    ] = None
    scopes: Annotated[
        tuple[str, ...] | None,
        Setting(Listed(SCOPE, "scopes"), "What is asked for.", default="what the server's first challenge asks for"),
    ] = None
    step_up: Annotated[
        tuple[str, ...],
        Setting(Listed(SCOPE, "scopes"), "What may be asked for beyond that, once the server wants it for a call."),
    ] = ()
    resource: Annotated[
        str | None,
        Setting(
            RESOURCE,
            "The resource that the token is for (RFC 8707): `server` is the server's address, `none` sends none.",
            default="`server`; `none` with `on_behalf_of`; with `exchange` as the issuer's preset says",
        ),
    ] = None
    audience: Annotated[Expanded | None, Setting(TEXT, "A parameter `audience`, for issuers that want one.")] = None
    subject_token: Annotated[
        Expanded | None,
        Setting(
            SECRET_TEXT,
            "The token that is exchanged, for `token_exchange` and `id_jag`.",
            default="the caller's own, verified when it came",
            secret=True,
        ),
    ] = None
    subject_token_type: Annotated[
        Literal["access_token", "id_token", "jwt", "saml2"], Setting(Choice(TOKEN_KINDS), "What kind of token that is.")
    ] = "access_token"
    requested_token_type: Annotated[
        Literal["access_token", "id_token", "jwt", "saml2"] | None,
        Setting(Choice(TOKEN_KINDS), "What `token_exchange` asks for.", default="as the issuer likes"),
    ] = None
    assertion: Annotated[
        Expanded | None, Setting(SECRET_TEXT, "For `jwt_bearer`: the JWT of the workload.", secret=True)
    ] = None
    idp: Annotated[
        IdpSettings | None,
        Setting(
            Group(IdpSettings, "a map with the settings of an authorization server"),
            "For `id_jag`: the identity provider that vouches for the user.",
        ),
    ] = None


CREDENTIALS = Setting(
    Mapped(NAME, Group(CredentialSettings, "a map with the settings of a credential"), "credentials"),
    "What the gateway shows servers of itself, by name.",
)


class UseSettings(msgspec.Struct, frozen=True):
    """One row: for these callers, this credential."""

    who: Annotated[WhoSettings, Setting(WHO, "Whom the row is for.")] = WhoSettings()
    use: Annotated[
        str | None, Setting(NAME, "A credential, or `none`: the server is shown nothing.", default="required")
    ] = None


class TableKind(msgspec.Struct, frozen=True):
    """`credential: NAME` is short for one row that is for everybody."""

    label: str = "the name of a credential, or a list of rows `{who, use}` of which the first that fits counts"

    def read(self, node: Node, path: Path, reading: Reading) -> tuple[UseSettings, ...]:
        if node.shape == "list":
            rows: tuple[UseSettings, ...] = Listed(Group(UseSettings, "a map `{who, use}`"), "rows").read(
                node, path, reading
            )
            return rows
        if node.shape != "text":
            raise Fault(node.mark, f"wants {self.label}, not {SHAPES[node.shape]}")
        return (UseSettings(use=NAME.read(node, path, reading)),)

    def show(self, value: Any) -> str:
        return "[]"

    def schema(self) -> JsonSchema:
        rows = {"type": "array", "items": Group(UseSettings, "").schema()}
        return {"anyOf": [NAME.schema(), rows]}


TABLE = TableKind()
