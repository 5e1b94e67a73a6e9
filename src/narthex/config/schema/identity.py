"""`identity:`: who may call, and how a credential becomes a principal."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from narthex.config.document import Fault, Node, Path, Reading
from narthex.config.expand import Expanded
from narthex.config.kinds import (
    BASE_URL,
    FILE,
    GLOB,
    GLOBS,
    NAME,
    SECRET_TEXT,
    TEXT,
    Choice,
    Flag,
    Group,
    JsonSchema,
    Kind,
    Listed,
    Mapped,
    Scalar,
    Setting,
    duration,
)
from narthex.config.values import parse_claim_path, parse_issuer, parse_label, show_claim_path
from narthex.flow.identity.presets import PRESETS
from narthex.flow.identity.tokens import FAMILY
from narthex.types import ClaimPath


class OneOrMoreKind(msgspec.Struct, frozen=True):
    """One value, or a list of them."""

    item: Kind
    what: str

    @property
    def label(self) -> str:
        return f"{self.item.label}, or a list of {self.what}"

    def read(self, node: Node, path: Path, reading: Reading) -> tuple[Any, ...]:
        if node.shape == "list":
            return Listed(self.item, self.what).read(node, path, reading)
        if node.shape not in ("text", "number"):
            raise Fault(node.mark, f"wants {self.label}")
        return (self.item.read(node, path, reading),)

    def show(self, value: tuple[Any, ...]) -> str:
        return "[" + ", ".join(self.item.show(item) for item in value) + "]"

    def schema(self) -> JsonSchema:
        return {"anyOf": [self.item.schema(), Listed(self.item, self.what).schema()]}


WORD = Scalar("a word", parse_label)
ISSUER = Scalar("the issuer, exactly as it stands in `iss`", parse_issuer)
CLAIM = Scalar("a claim", parse_claim_path, show_claim_path)
CLAIMS = OneOrMoreKind(CLAIM, "claims")
ROLES = OneOrMoreKind(WORD, "roles")
WORDS = Listed(WORD, "words")
OF_PRESET = "as the preset says"


class ClaimSettings(msgspec.Struct, frozen=True):
    """Where a token says what: `a.b` is the member `b` of `a`; `a\\.b` and what holds `://` is one name. Of several
    claims the first that is there counts; roles, groups and scopes are gathered from all of them."""

    subject: Annotated[tuple[ClaimPath, ...] | None, Setting(CLAIMS, "Who it is.", default=OF_PRESET)] = None
    client: Annotated[
        tuple[ClaimPath, ...] | None, Setting(CLAIMS, "The agent (OAuth client) acting for it.", default=OF_PRESET)
    ] = None
    tenant: Annotated[
        ClaimPath | None,
        Setting(CLAIM, "The tenant.", default="none: `tenant`; with `tenant_map` as the preset says"),
    ] = None
    scopes: Annotated[tuple[ClaimPath, ...] | None, Setting(CLAIMS, "Scopes.", default=OF_PRESET)] = None
    roles: Annotated[
        tuple[ClaimPath, ...] | None,
        Setting(CLAIMS, "Roles; `{audience}` stands for each of `audiences`.", default=OF_PRESET),
    ] = None
    groups: Annotated[tuple[ClaimPath, ...] | None, Setting(CLAIMS, "Groups.", default=OF_PRESET)] = None


class IntrospectionSettings(msgspec.Struct, frozen=True):
    """Asking the issuer about tokens (RFC 7662): those that say nothing by themselves, or all of them."""

    url: Annotated[
        str | None, Setting(BASE_URL, "Where it is asked.", default="`introspection_endpoint` of its metadata")
    ] = None
    client_id: Annotated[Expanded | None, Setting(TEXT, "Who we are there; `${VAR}` is expanded.")] = None
    client_secret: Annotated[
        Expanded | None,
        Setting(SECRET_TEXT, "Our secret there: `${secret:NAME}`, or `${VAR}` is expanded.", secret=True),
    ] = None
    auth: Annotated[
        Literal["basic", "post"], Setting(Choice(("basic", "post")), "How the secret is sent: in a header or the form.")
    ] = "basic"
    use: Annotated[
        Literal["opaque", "always"],
        Setting(Choice(("opaque", "always")), "`always` asks about JWTs too, so that a revoked one is refused sooner."),
    ] = "opaque"
    audience: Annotated[
        Literal["required", "optional"],
        Setting(
            Choice(("required", "optional")),
            "`optional` accepts an answer that names no audience: the issuer then must have no other resource.",
        ),
    ] = "required"
    prefix: Annotated[
        str | None,
        Setting(
            WORD,
            "What its opaque tokens begin with: these are shown to it alone, and no others to it. Of several issuers "
            "without one, each is asked in the order written here, until one says that the token is active.",
            default="none",
        ),
    ] = None
    ttl: Annotated[float, Setting(duration("0s", "1h"), "An answer is believed this long.")] = 60.0


class DirectorySettings(msgspec.Struct, frozen=True):
    """Microsoft Graph, asked for the groups that a token left out because there are too many. The client needs the
    application permission `User.ReadBasic.All` with `GroupMember.Read.All`, or `Directory.Read.All`."""

    url: Annotated[str, Setting(BASE_URL, "Graph's address; national clouds have their own.")] = (
        "https://graph.microsoft.com"
    )
    client_id: Annotated[
        Expanded | None, Setting(TEXT, "The gateway's client id at the issuer.", default="required")
    ] = None
    client_secret: Annotated[
        Expanded | None,
        Setting(SECRET_TEXT, "Its secret there: `${secret:NAME}`.", secret=True, default="required"),
    ] = None


class IssuerSettings(msgspec.Struct, frozen=True):
    """An issuer of tokens."""

    issuer: Annotated[
        str | None,
        Setting(
            ISSUER,
            "Its name, character by character as in `iss`; `{tid}` stands for the tenant of a multi-tenant Entra "
            "application, for SPIFFE it is the trust domain.",
            default="required",
        ),
    ] = None
    preset: Annotated[str, Setting(Choice(tuple(PRESETS)), "What is known of this kind of issuer.")] = "generic"
    audiences: Annotated[
        tuple[str, ...],
        Setting(Listed(WORD, "audiences"), "A token must name one of them.", default="the endpoint's own URL"),
    ] = ()
    aliases: Annotated[
        tuple[str, ...], Setting(Listed(ISSUER, "issuers"), "Other values of `iss` in its tokens.", default=OF_PRESET)
    ] = ()
    tenants: Annotated[
        tuple[str, ...], Setting(WORDS, "Values of `tid` that are accepted where the issuer has `{tid}`.")
    ] = ()
    algorithms: Annotated[
        tuple[str, ...] | None,
        Setting(Listed(Choice(tuple(FAMILY)), "algorithms"), "Accepted signatures.", default=OF_PRESET),
    ] = None
    typ: Annotated[
        tuple[str, ...] | None,
        Setting(WORDS, "Accepted `typ` headers; `none` is a token without one.", default=OF_PRESET),
    ] = None
    metadata_url: Annotated[
        str | None, Setting(BASE_URL, "Its metadata document.", default="found by its name (OpenID Connect, RFC 8414)")
    ] = None
    jwks_url: Annotated[str | None, Setting(BASE_URL, "Its keys.", default="`jwks_uri` of its metadata")] = None
    jwks_file: Annotated[
        str | None, Setting(FILE, "Its keys, as a file; read again every 15 minutes.", default="none: they are fetched")
    ] = None
    token: Annotated[
        Expanded | None,
        Setting(
            SECRET_TEXT,
            "Shown as bearer token for its metadata and keys where these are not public, as in Kubernetes: "
            "`${secret:NAME}`. Never to addresses that others supplied.",
            secret=True,
        ),
    ] = None
    introspection: Annotated[
        IntrospectionSettings | None,
        Setting(Group(IntrospectionSettings, "a map"), "Ask it about tokens.", nullable=True),
    ] = None
    claims: Annotated[ClaimSettings, Setting(Group(ClaimSettings, "a map of claims"), "Where its tokens say what.")] = (
        ClaimSettings()
    )
    tenant: Annotated[str, Setting(WORD, "The tenant of everybody who comes with its tokens.")] = "default"
    tenant_map: Annotated[
        dict[str, str],
        Setting(Mapped(WORD, WORD, "tenants"), "Value of the tenant claim to tenant; others are refused."),
    ] = {}
    role_prefix: Annotated[
        str | None,
        Setting(WORD, "Roles of the token that begin with this are roles here, without it.", default="none: no role"),
    ] = None
    role_map: Annotated[
        dict[str, tuple[str, ...]], Setting(Mapped(WORD, ROLES, "roles"), "Role of the token to roles here.")
    ] = {}
    group_map: Annotated[
        dict[str, tuple[str, ...]], Setting(Mapped(WORD, ROLES, "groups"), "Group of the token to roles here.")
    ] = {}
    subject_map: Annotated[
        dict[str, tuple[str, ...]], Setting(Mapped(GLOB, ROLES, "patterns"), "Pattern on the subject to roles here.")
    ] = {}
    subjects: Annotated[
        tuple[str, ...],
        Setting(
            GLOBS, "Only these subjects are let in.", default="everybody; `kubernetes` and `spiffe` want it written"
        ),
    ] = ()
    scope_prefix: Annotated[
        str | None,
        Setting(
            WORD,
            "Put before the scopes of the token, as clients ask for them at the issuer (Entra: `api://<id>/`).",
            default="none",
        ),
    ] = None
    directory: Annotated[
        DirectorySettings | None,
        Setting(
            Group(DirectorySettings, "a map `{url, client_id, client_secret}`"),
            "For `entra`: asked for the groups of a token that left them out. Without it `overage` counts.",
            nullable=True,
        ),
    ] = None
    overage: Annotated[
        Literal["refuse", "ignore"],
        Setting(Choice(("refuse", "ignore")), "A token that left groups out, because there are too many."),
    ] = "refuse"


class CertificateSettings(msgspec.Struct, frozen=True):
    """Who comes by a client certificate instead of a token. Names are `URI:…`, `DNS:…` and `CN=…`."""

    subjects: Annotated[
        dict[str, tuple[str, ...]],
        Setting(
            Mapped(GLOB, Listed(WORD, "roles"), "patterns"),
            "Pattern on a name of the certificate to roles here; who fits none is nobody.",
        ),
    ] = {}
    xfcc: Annotated[
        bool, Setting(Flag(), "Believe `X-Forwarded-Client-Cert` of `trusted_proxies`, and refuse it of others.")
    ] = False
    tenant: Annotated[str, Setting(WORD, "Their tenant.")] = "default"


class IdentitySettings(msgspec.Struct, frozen=True):
    """Who may call. Without this section everybody who reaches the listener may, and it binds loopback only."""

    api_keys: Annotated[bool, Setting(Flag(), "Accept keys that `narthex keys create` made.")] = False
    issuers: Annotated[
        dict[str, IssuerSettings],
        Setting(Mapped(NAME, Group(IssuerSettings, "a map with the settings of an issuer"), "issuers"),
                "Whose tokens are accepted, by a name of your own."),
    ] = {}  # fmt: skip
    certificates: Annotated[
        CertificateSettings | None,
        Setting(Group(CertificateSettings, "a map `{subjects, xfcc, tenant}`"), "Client certificates.", nullable=True),
    ] = None
    scope_includes: Annotated[
        dict[str, tuple[str, ...]],
        Setting(Mapped(WORD, Listed(WORD, "scopes"), "scopes"), "A scope to the scopes that it includes."),
    ] = {}
    admin_role: Annotated[str, Setting(WORD, "Who has this role may use the admin side.")] = "admin"
