"""The small shared types: who calls, what they call, and the snapshot that a call is decided against.

All are frozen: a call never changes, and a snapshot is swapped whole. Durations are seconds (float), sizes bytes
(int), addresses `(host, port)`. `config.compile` makes a `Snapshot`; nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import time
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal

import msgspec

from narthex.caches import CacheRule as CacheRule
from narthex.caches import CacheSpec as CacheSpec
from narthex.caches import ClearRule as ClearRule
from narthex.call import Call as Call
from narthex.kept import PayloadSpec as PayloadSpec
from narthex.kept import Retention as Retention
from narthex.outlet import OtlpSpec
from narthex.policies import ApprovalSpec as ApprovalSpec
from narthex.policies import DecisionLogSpec as DecisionLogSpec
from narthex.policies import HoldTerms as HoldTerms
from narthex.policies import OpaSpec as OpaSpec
from narthex.policies import PeerTls as PeerTls
from narthex.policies import RegoSpec as RegoSpec
from narthex.policies import SigningKey as SigningKey
from narthex.policies import SigningSpec as SigningSpec
from narthex.policies import Webhook as Webhook
from narthex.quotas import CostsKept as CostsKept
from narthex.quotas import LimitRule as LimitRule
from narthex.quotas import LimitUnit as LimitUnit
from narthex.quotas import Period as Period
from narthex.quotas import PriceRule as PriceRule
from narthex.quotas import SharedSpec as SharedSpec
from narthex.quotas import TokenSpec as TokenSpec
from narthex.quotas import WhenSpent as WhenSpent
from narthex.quotas import Who as Who
from narthex.secret import SecretName as SecretName
from narthex.secret import SecretSource as SecretSource
from narthex.secret import SecretText as SecretText
from narthex.secret import VaultSpec as VaultSpec
from narthex.stores import PostgresSpec as PostgresSpec
from narthex.stores import StorePlace as StorePlace

Address = tuple[str, int]
Network = IPv4Network | IPv6Network
Durable = Literal["none", "writes", "all"]
Era = Literal["legacy", "modern"]
Kind = Literal["tools", "prompts", "resources", "templates", "skills", "admin"]
"""What a server lists. Skills are an extension's (SEP-2640): directories of resources, each named by its `SKILL.md`.
`admin`: what the admin side does, which rules decide in the same way."""
Sharing = Literal["tenant", "principal", "session"]
ClaimPath = tuple[str, ...]
Proof = Literal["none", "anonymous", "api_key", "jwt", "introspection", "mtls", "xfcc", "workload", "admin_token"]
"""How a principal was proved. `none`: no identity is configured; `anonymous`: an endpoint that asks for none;
`admin_token`: by the file that the admin side's token stands in."""


class Principal(msgspec.Struct, frozen=True, gc=False):
    """Who calls: the human or service, and the agent (client) acting for them. `key` names them everywhere.

    Times are Unix seconds; 0 says that nobody said one. What the roles, groups and scopes are is decided when the
    principal is made (`flow.identity`); nothing adds one later.
    """

    tenant: str
    issuer: str
    subject: str
    client: str = ""
    """The agent: the OAuth client that the token was issued to, or the one that the key's owner named."""
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    scopes: frozenset[str] = frozenset()
    kind: Literal["human", "service"] = "service"
    actors: tuple[str, ...] = ()
    """Who acts on the subject's behalf, the last first: the chain of `act` claims (RFC 8693 §4.1)."""
    method: Proof = "none"
    authenticated_at: float = 0.0
    """When the human signed in (`auth_time`) or the proof was made (`iat`)."""
    expires_at: float = 0.0
    """When the proof stops being one: nothing that it opened goes on after it."""
    key: tuple[str, str, str, str] = ("", "", "", "")
    """Made from the first four; not to be given."""
    claims: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """What limits count by besides: claims that they name, with their values. Nothing is allowed by them."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "key", (self.tenant, self.issuer, self.subject, self.client))


LOCAL = Principal("default", "narthex", "local")
"""The principal of every call while no identity is configured (design §6): loopback only."""

ANONYMOUS = Principal("default", "narthex", "anonymous", method="anonymous")
"""Who calls an endpoint with `auth: anonymous` without a credential."""


class Session(msgspec.Struct, frozen=True):
    """A legacy client's session, as its sealed handle says (design §4). Nothing else about it is kept."""

    id: str
    version: str
    expires_at: int
    capabilities: int = 0
    """What the client declared, as bits (`codec.capabilities.ClientCaps`)."""


class ClaimRules(msgspec.Struct, frozen=True):
    """How the claims of one issuer's tokens become a principal. What no rule names gives nothing.

    A path is a tuple of member names; of several, the first that is there counts (roles and groups: all of them).
    """

    subject: tuple[ClaimPath, ...] = (("sub",),)
    client: tuple[ClaimPath, ...] = (("azp",), ("client_id",))
    scopes: tuple[ClaimPath, ...] = (("scope",), ("scp",))
    roles: tuple[ClaimPath, ...] = ()
    groups: tuple[ClaimPath, ...] = ()
    tenant: str = "default"
    tenant_claim: ClaimPath = ()
    """Where the tenant stands; empty: all tokens of the issuer belong to `tenant`."""
    tenant_map: Mapping[str, str] = {}
    """Value of the tenant claim -> tenant. A value that is not in it is refused; empty: the value is the tenant."""
    role_prefix: str = ""
    """Roles of the token that begin with it are roles here, without it. Empty: none by prefix."""
    role_map: Mapping[str, tuple[str, ...]] = {}
    group_map: Mapping[str, tuple[str, ...]] = {}
    """A group of the token -> roles here. Groups are kept whatever this says; they open nothing by themselves."""
    subject_map: Mapping[str, tuple[str, ...]] = {}
    """Glob on the subject -> roles here."""
    subjects: tuple[str, ...] = ()
    """Globs: only these subjects are let in. Empty: all."""
    scope_prefix: str = ""
    """Put before each scope of the token, as clients have to ask for it at the issuer (Entra: `api://<id>/`)."""
    overage: Literal["refuse", "ignore"] = "refuse"
    """What becomes of a token that says it left groups out."""
    kept: tuple[tuple[str, ClaimPath], ...] = ()
    """Claims that limits count by, as they name them."""
    preset: str = "generic"


class Introspection(msgspec.Struct, frozen=True):
    """How an issuer is asked about a token (RFC 7662). `url` empty: its metadata says. An answer is kept `ttl_s`.
    Opaque tokens that begin with `prefix` are shown to no other."""

    url: str = ""
    client_id: str = ""
    client_secret: SecretText | None = None
    auth: Literal["basic", "post"] = "basic"
    use: Literal["opaque", "always"] = "opaque"
    audience: Literal["required", "optional"] = "required"
    prefix: str = ""
    ttl_s: float = 60.0


class DirectorySpec(msgspec.Struct, frozen=True):
    """Where the groups are to be had that tokens of an issuer left out, and who we are there. `url` has no path."""

    url: str
    client_id: str
    client_secret: SecretText


class IssuerSpec(msgspec.Struct, frozen=True):
    """An issuer of tokens. `issuer` stays as written; `{tid}` in it stands for the token's own `tid`."""

    name: str
    preset: str
    issuer: str
    claims: ClaimRules
    aliases: tuple[str, ...] = ()
    """Other values of `iss` in its tokens."""
    tenants: tuple[str, ...] = ()
    """Values of `tid` that are accepted where `{tid}` stands."""
    audiences: tuple[str, ...] = ()
    """Empty: a token must name the endpoint's own URL."""
    algorithms: tuple[str, ...] = ("RS256", "ES256", "PS256", "EdDSA")
    typ: tuple[str, ...] = ("at+jwt", "jwt", "")
    """Accepted `typ` headers, lower-case, without `application/`; empty text: none."""
    metadata_url: str = ""
    jwks_url: str = ""
    jwks_file: str = ""
    token: SecretText | None = None  # for its metadata and keys
    introspection: Introspection | None = None
    directory: DirectorySpec | None = None


class CertificateRules(msgspec.Struct, frozen=True):
    """Who comes by a client certificate: of the listener's TLS, or told by a trusted proxy (XFCC).

    `subjects` maps globs on the certificate's names (`URI:…`, `DNS:…`, `CN=…`) to roles; others are nobody.
    """

    subjects: Mapping[str, tuple[str, ...]]
    xfcc: bool = False
    tenant: str = "default"


class IdentitySpec(msgspec.Struct, frozen=True):
    """Who may call. Without one (None in the snapshot) everybody who reaches the listener is `LOCAL`."""

    api_keys: bool = False
    issuers: Mapping[str, IssuerSpec] = {}
    certificates: CertificateRules | None = None
    scope_includes: Mapping[str, tuple[str, ...]] = {}
    """A scope -> the scopes that it includes (a hierarchy)."""
    admin_role: str = "admin"


class TlsFiles(msgspec.Struct, frozen=True):
    """Files of a TLS listener, absolute paths. `client_ca` asks for and verifies client certificates; with
    `client_optional` a client may have none.

    `digest` is the SHA-256 of what the files hold: a renewed certificate makes specs that differ. `ca_digest`: of
    `client_ca` alone.
    """

    cert: str
    key: str
    client_ca: str | None = None
    client_optional: bool = False
    digest: str = ""
    ca_digest: str = ""

    @property
    def of_clients(self) -> tuple[object, ...]:
        """What decides on the certificates of clients: with another, a listener begins anew."""
        return self.client_ca, self.client_optional, self.ca_digest


class HttpTarget(msgspec.Struct, frozen=True):
    """Where a server over HTTP is. `path` is the request target with its query; `headers` go with each request."""

    url: str
    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...] = ()


class StdioTarget(msgspec.Struct, frozen=True):
    """How a server over stdio is started. `env` is what its entry names; the rest is inherited by a fixed list."""

    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    start: Literal["first_use", "at_start"] = "first_use"
    idle_timeout_s: float = 600.0


class CertificateCredential(msgspec.Struct, frozen=True):
    """A client certificate of TLS. Both are PEM; intermediate certificates stand behind the first."""

    name: str
    certificate: SecretText
    private_key: SecretText


class HeaderCredential(msgspec.Struct, frozen=True):
    """A header that goes with each request."""

    name: str
    header: str
    value: SecretText
    certificate: CertificateCredential | None = None  # shown beside it, as with others that have one


class BasicCredential(msgspec.Struct, frozen=True):
    """`Authorization: Basic` (RFC 7617)."""

    name: str
    username: SecretText
    password: SecretText
    certificate: CertificateCredential | None = None


class QueryCredential(msgspec.Struct, frozen=True):
    """A parameter in the query of each request. Others log addresses: for servers that know nothing better."""

    name: str
    parameter: str
    value: SecretText
    certificate: CertificateCredential | None = None


class EnvCredential(msgspec.Struct, frozen=True):
    """Variables in the environment of a stdio server, from its start to its end."""

    name: str
    variables: tuple[tuple[str, SecretText], ...]


ClientAuth = Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
GrantKind = Literal["client_credentials", "jwt_bearer", "token_exchange", "on_behalf_of", "id_jag"]


class Authority(msgspec.Struct, frozen=True):
    """An authorization server, and who we are there. Without issuer and endpoint: the one that the server names."""

    client_id: str
    client_auth: ClientAuth = "client_secret_basic"
    issuer: str = ""
    token_endpoint: str = ""
    client_secret: SecretText | None = None
    private_key: SecretText | None = None
    key_id: str = ""
    algorithm: str = ""


class TokenCredential(msgspec.Struct, frozen=True):
    """A bearer token that is fetched.

    `subject` is the token that is exchanged, or the assertion; None: the caller's own, which was verified when it came.
    """

    name: str
    grant: GrantKind
    authority: Authority
    scopes: tuple[str, ...] | None = None
    """What is asked for; None: what the server asks for in its first challenge."""
    step_up: tuple[str, ...] = ()
    """What may be asked for beyond `scopes`, when the server wants it for a call."""
    resource: str = "server"
    """`server`: its own address (RFC 8707); empty: none is sent; else this one."""
    audience: str = ""
    subject: SecretText | None = None
    subject_type: str = "access_token"
    wanted_type: str = ""
    idp: Authority | None = None
    """Where an ID-JAG comes from."""
    certificate: CertificateCredential | None = None

    @property
    def of_caller(self) -> bool:
        """Is it made of the caller's own token?"""
        return self.subject is None and self.grant in ("token_exchange", "on_behalf_of", "id_jag")


Credential = (
    HeaderCredential | BasicCredential | QueryCredential | EnvCredential | CertificateCredential | TokenCredential
)


class Hours(msgspec.Struct, frozen=True):
    """A window of the week in the local time of `zone` (an IANA name). The beginning belongs to it, the end does not;
    `until` at or before `since` is over midnight. `days` are those it begins on, Monday is 0."""

    since: time
    until: time
    zone: str = "UTC"
    days: frozenset[int] = frozenset(range(7))


CLASSIFICATIONS = ("public", "internal", "confidential", "restricted")
"""How confidential data is, the least first: for everybody; for the organisation; for those who need it; for those who
are named."""
PRIVACY = ("none", "pseudonymous", "personal", "sensitive")
"""Whose data it is, the least first: nobody's; people's whom only a key kept apart identifies (GDPR art. 4 (5));
people's (art. 4 (1)); what art. 9 protects further, such as health."""


class DataRow(msgspec.Struct, frozen=True):
    """How what some names give is classed, whatever their server is; empty: as the server. Patterns are globs on
    canonical names."""

    tools: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    classification: str = ""
    privacy: str = ""


class DataSpec(msgspec.Struct, frozen=True):
    """How data is classed. `servers`: name -> classification and privacy, each empty where it is not said."""

    servers: Mapping[str, tuple[str, str]] = {}
    rows: tuple[DataRow, ...] = ()


class Patterns(msgspec.Struct, frozen=True):
    """Globs on canonical names."""

    tools: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()


class LabelRow(msgspec.Struct, frozen=True):
    """What puts labels on a run: the use of these names, as far as their data is classed so. `what` None: of all names;
    an empty set: every class."""

    adds: tuple[str, ...]
    what: Patterns | None = None
    classification: frozenset[str] = frozenset()
    privacy: frozenset[str] = frozenset()


class RunRule(msgspec.Struct, frozen=True):
    """What a run may not do: `what`, where all that is given here holds. `line`: its place in the file.

    `labels`: the run has all of them. `after`: it has used one of these; `unless_after`: it has had an answer of none
    of these. `at_most`: so many such calls were within `within_s` (0: the run's window). `cool_down_s`: one was within
    it.
    """

    name: str
    effect: Literal["deny", "hold"]
    what: Patterns
    who: Who = Who()
    labels: tuple[str, ...] = ()
    after: Patterns | None = None
    unless_after: Patterns | None = None
    at_most: int = 0
    within_s: float = 0.0
    cool_down_s: float = 0.0
    line: int = 0
    shadow: bool = False


class RunSpec(msgspec.Struct, frozen=True):
    """What is watched over several calls. A run is what a principal did with one agent at one endpoint (`together`: at
    all of them) in the last `window_s`; of agents that `trusted` fits, what they did under one id: `run_id` names the
    member of `_meta`."""

    window_s: float = 3600.0
    endpoints: Literal["apart", "together"] = "apart"
    trusted: tuple[Who, ...] = ()
    run_id: str = "io.narthex/run"
    most_runs: int = 20_000
    labels: tuple[LabelRow, ...] = ()
    rules: tuple[RunRule, ...] = ()


class Grant(msgspec.Struct, frozen=True):
    """A rule on who may use what (design §6). Patterns are globs on canonical names.

    `when` is a condition in CEL, empty for none; `expires_at` Unix seconds, 0 for never; `line` its place in the file.
    `classification`, `privacy`, `environments`: it counts for these; empty: for all.
    """

    name: str
    effect: Literal["allow", "deny", "hold"]
    who: Who = Who()
    tools: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    when: str = ""
    networks: tuple[Network, ...] = ()
    hours: Hours | None = None
    expires_at: float = 0.0
    line: int = 0
    classification: frozenset[str] = frozenset()
    privacy: frozenset[str] = frozenset()
    environments: tuple[str, ...] = ()
    admin: tuple[str, ...] = ()
    """Patterns on actions of the admin side."""
    shadow: bool = False
    """It does not count yet: what would be decided if it did is recorded beside what is."""
    terms: HoldTerms = HoldTerms()
    """Of one that holds."""


class Use(msgspec.Struct, frozen=True):
    """A row of the table that says who uses which account of a server. None: nothing is shown to the server."""

    who: Who
    credential: Credential | None


class ServerSpec(msgspec.Struct, frozen=True):
    """One upstream as configured. Two specs that compare equal are the same upstream: a reload keeps it running."""

    name: str
    target: HttpTarget | StdioTarget
    transport: Literal["auto", "http", "sse", "stdio"]
    era: Literal["auto", "legacy", "modern"] = "auto"
    sharing: Sharing = "principal"
    connect_timeout_s: float = 5.0
    call_timeout_s: float = 60.0
    list_timeout_s: float = 10.0
    list_ttl_s: float = 60.0
    era_modern_ttl_s: float = 86_400.0
    era_legacy_ttl_s: float = 3600.0
    max_answer: int = 32 * 1024 * 1024
    max_in_flight: int = 256
    idempotent: tuple[str, ...] = ()
    """Globs on the tool's own name: calls that may be sent again when a connection dies under them."""
    accounts: tuple[Use, ...] = ()
    """Who uses which account there: the first row that fits. No table: nobody shows anything."""
    trusts_annotations: bool = False
    """Does the operator believe what its tools say of themselves?"""
    inside: Callable[[], Any] | None = None
    """Makes a channel to it in this process (`flow.upstream.port.Channel`): nothing is dialled then, and nothing
    started, whatever `target` is."""


class Selection(msgspec.Struct, frozen=True):
    """Globs on the canonical name `<server>__<name>`. An empty `include` means all."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class EndpointSpec(msgspec.Struct, frozen=True):
    """What a client connects to: `/mcp/<name>` (`default` is also `/mcp`)."""

    name: str
    servers: tuple[str, ...]
    naming: Literal["prefix", "none"] = "prefix"
    max_name: int = 48
    tools: Selection = Selection()
    prompts: Selection = Selection()
    resources: Selection = Selection()
    resource_uris: Literal["plain", "prefix"] = "plain"
    headers: Literal["strict", "lenient"] = "strict"
    auth: Literal["required", "anonymous"] = "required"
    """Without a configured identity nobody is asked."""
    project: str = ""
    """What calls are made for here: costs are put down to it."""
    base_scopes: tuple[str, ...] = ()
    """What every token needs here."""
    scopes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Glob on a tool's canonical name -> scopes that a call of it needs; all globs that match count."""
    hide_unscoped: bool = False
    """Does a caller whose token lacks a tool's scopes not see the tool? Otherwise it may ask for more (step-up)."""
    durable: Durable | None = None
    """Which of its calls wait for the disk, and is what cannot be recorded refused? None: as `audit` says."""
    blocks: bool | None = None


class Limits(msgspec.Struct, frozen=True):
    """Bounds of the public listener and of the process."""

    max_header: int = 32 * 1024
    max_body: int = 4 * 1024 * 1024
    max_connections: int = 10_000
    max_calls: int = 4096
    max_waiting: int = 32
    max_held: int = 256 * 1024 * 1024
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    keep_alive_s: float = 75.0
    sse_comment_s: float = 15.0
    drain_accept_s: float = 3.0
    drain_s: float = 30.0
    session_ttl_s: float = 86_400.0
    principal_rate: int = 0
    """Requests of any kind a second, of one principal; 0: as many as they like. The same of one address:"""
    address_rate: int = 0


class Egress(msgspec.Struct, frozen=True):
    """How upstream connections leave: `proxy` is None, or "env", or an http:// URL; `ca` is "system" or a PEM path.

    `allow_private` names hosts whose addresses may be private although somebody else supplied them, `allow_http` those
    of issuers and token endpoints that may be asked without TLS: hosts, domains (`.example.com`) and networks.
    """

    proxy: str | None = "env"
    no_proxy: tuple[str, ...] = ()
    ca: str = "system"
    allow_private: tuple[str, ...] = ()
    allow_http: tuple[str, ...] = ()


class ExportSpec(msgspec.Struct, frozen=True):
    """One place that records are sent to: `syslog+tls://HOST:PORT`, or the URL of an OTLP receiver of logs. Files are
    absolute; empty: none, and for `ca` those of the system."""

    name: str
    url: str
    format: Literal["jsonl", "cef", "ocsf"] = "jsonl"
    headers: tuple[tuple[str, SecretText], ...] = ()
    ca: str = ""
    cert: str = ""
    key: str = ""


class Snapshot(msgspec.Struct, frozen=True):
    """Everything a call needs to know, compiled from the configuration. `revision` is its content hash (hex)."""

    revision: str
    source: str
    state_dir: str
    listen: Address
    admin_listen: Address
    tls: TlsFiles | None
    admin_tls: TlsFiles | None
    public_url: str | None
    allowed_hosts: tuple[str, ...]
    trusted_proxies: tuple[Network, ...]
    egress: Egress
    limits: Limits
    log_calls: bool
    log_format: Literal["text", "json"]
    servers: Mapping[str, ServerSpec]
    endpoints: Mapping[str, EndpointSpec]
    identity: IdentitySpec | None = None
    grants: tuple[Grant, ...] = ()
    """None: whoever is let in may call everything. Those in shadow mode are not among them."""
    admin_grants: tuple[Grant, ...] = ()
    """Who may do what on the admin side beside those with the admin role; `tools` are patterns on `admin__<action>`."""
    trial: tuple[Grant, ...] = ()
    """All grants, those in shadow mode too, where there are such: what would be decided by them is recorded."""
    environment: str = ""
    """Where the gateway runs, in the operator's words."""
    data: DataSpec = DataSpec()
    runs: RunSpec | None = None
    """What is watched over several calls; None: nothing."""
    approvals: ApprovalSpec = ApprovalSpec()
    warnings: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    """What was read otherwise than written (foreign keys, changed names): worth a line, not worth a worry."""
    store: StorePlace = ""
    """What keeps keys and secrets: the path of a file, or a database; nobody opens it before something needs it."""
    secrets: Mapping[str, SecretSource] = {}
    """Where secrets come from that are not in the store."""
    secret_names: tuple[str, ...] = ()
    """Every secret that the configuration refers to, in order of the alphabet."""
    vault: VaultSpec | None = None
    quotas: tuple[LimitRule, ...] = ()
    """How much may be used. (`limits` are those of the process.)"""
    alert_hooks: Mapping[str, Webhook] = {}
    """Who is told of which limit's alerts."""
    teams: tuple[tuple[str, Who], ...] = ()
    """Who belongs to which team: the first that fits."""
    prices: tuple[PriceRule, ...] = ()
    shared: SharedSpec | None = None
    """Where several gateways count together; None: this one counts alone, in memory."""
    costs: CostsKept = CostsKept()
    tokens: TokenSpec = TokenSpec()
    models: Mapping[str, tuple[int, int]] = {}
    """What a million tokens of a model cost, in and out, in millionths; only where a price is a model's."""
    cache: CacheSpec | None = None
    """Which answers are kept and given again; None: none."""
    audit_dir: str = ""
    """Where calls are recorded; empty for nowhere."""
    audit_checkpoints: str = ""
    """The second place of the journal's checkpoints; empty for none."""
    audit_durable: Durable = "none"
    audit_blocks: bool = False
    audit_reads: tuple[str, ...] = ()
    audit_wait_s: float = 5.0
    audit_inputs: Literal["none", "digest", "full"] = "none"
    audit_index: bool = True
    audit_exports: tuple[ExportSpec, ...] = ()
    """What is recorded of what a decision was taken on."""
    audit_payloads: PayloadSpec = PayloadSpec()
    retention: Retention = Retention()
    policy_admin: bool = False
    policy_shadow: bool = False
    """Is the policy only asked, and what it says recorded?"""
    """Does the policy decide on the admin side, too?"""
    policy: RegoSpec | OpaSpec | None = None
    decision_log: DecisionLogSpec | None = None
    """Who decides beside the grants; None: nobody."""
    telemetry: OtlpSpec | None = None
    """Where traces and metrics go; None: nowhere."""
