"""The whole of the file: `Settings`, and `ROOT`, which reads it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from narthex.config.document import Fault, Node, Path, Reading
from narthex.config.kinds import (
    ADDRESS,
    BASE_URL,
    HOST,
    NAME,
    NETWORK,
    WORD,
    Group,
    JsonSchema,
    Listed,
    Mapped,
    Setting,
    later,
)
from narthex.config.schema.approvals import APPROVALS, ApprovalSettings
from narthex.config.schema.audit import AUDIT, AuditSettings
from narthex.config.schema.cache import CACHE, CacheSettings
from narthex.config.schema.credentials import CREDENTIALS, CredentialSettings
from narthex.config.schema.data import DATA, DataSettings
from narthex.config.schema.egress import EgressSettings
from narthex.config.schema.endpoints import EndpointSettings
from narthex.config.schema.grants import GRANTS, GrantSettings
from narthex.config.schema.identity import IdentitySettings
from narthex.config.schema.limits import LIMITS, LimitSettings
from narthex.config.schema.listeners import TLS, AdminSettings, BoundSettings, TlsSettings
from narthex.config.schema.log import LogSettings
from narthex.config.schema.policy import POLICY, PolicySettings
from narthex.config.schema.prices import (
    COSTS,
    MODELS,
    PRICES,
    TOKENS,
    CostSettings,
    ModelSettings,
    PriceSettings,
    TokenSettings,
)
from narthex.config.schema.runs import RUNS, RunSettings
from narthex.config.schema.secrets import SOURCES, VAULT, VaultSettings
from narthex.config.schema.servers import ServerSettings
from narthex.config.schema.shared import SHARED, SharedSettings
from narthex.config.schema.store import STORE, StoreSettings
from narthex.config.schema.telemetry import TELEMETRY, TelemetrySettings
from narthex.config.schema.who import ANYBODY, AnybodySettings
from narthex.types import Address, Network, SecretSource


class VersionKind(msgspec.Struct, frozen=True):
    label: str = "`1`"

    def read(self, node: Node, path: Path, reading: Reading) -> int:
        if node.text != "1" or node.shape not in ("text", "number"):
            raise Fault(node.mark, "this Narthex reads version 1")
        return 1

    def show(self, value: int) -> str:
        return "required"

    def schema(self) -> JsonSchema:
        return {"const": 1}


class Settings(msgspec.Struct, frozen=True):
    """The whole of `narthex.yaml`."""

    version: Annotated[int, Setting(VersionKind(), "Version of this format.")] = 1
    listen: Annotated[
        Address,
        Setting(
            ADDRESS,
            "Where clients connect. Loopback only while no identity is configured. Port 0 lets the system choose.",
        ),
    ] = ("127.0.0.1", 8080)
    admin: Annotated[AdminSettings, Setting(Group(AdminSettings, "a map `{listen, tls}`"), "The admin side.")] = (
        AdminSettings()
    )
    public_url: Annotated[
        str | None,
        Setting(
            BASE_URL, "What clients use when a proxy stands in front.", default="the validated Host", nullable=True
        ),
    ] = None
    allowed_hosts: Annotated[
        tuple[str, ...], Setting(Listed(HOST, "hosts"), "Values of `Host` accepted beyond loopback and `public_url`.")
    ] = ()
    tls: Annotated[TlsSettings | None, Setting(TLS, "TLS on `listen`.", nullable=True)] = None
    trusted_proxies: Annotated[
        tuple[Network, ...],
        Setting(
            Listed(NETWORK, "networks"),
            "`X-Forwarded-*` and client certificates in headers are believed only from these.",
        ),
    ] = ()
    egress: Annotated[
        EgressSettings,
        Setting(
            Group(EgressSettings, "a map `{proxy, no_proxy, ca, allow_private, allow_http}`"),
            "How connections to servers leave.",
        ),
    ] = EgressSettings()
    servers: Annotated[
        dict[str, ServerSettings],
        Setting(
            Mapped(NAME, Group(ServerSettings, "a map with the settings of a server"), "servers"),
            "The upstreams, by name.",
        ),
    ] = {}
    endpoints: Annotated[
        dict[str, EndpointSettings] | None,
        Setting(
            Mapped(NAME, Group(EndpointSettings, "a map with the settings of an endpoint"), "endpoints"),
            "What clients connect to, by name.",
            default="`default` over all servers",
        ),
    ] = None
    bounds: Annotated[
        BoundSettings, Setting(Group(BoundSettings, "a map of bounds"), "Bounds of the listener and the process.")
    ] = BoundSettings()
    log: Annotated[
        LogSettings, Setting(Group(LogSettings, "a map `{calls, format}`"), "What is written to stderr.")
    ] = LogSettings()
    store: Annotated[StoreSettings | None, STORE] = None
    shared: Annotated[SharedSettings | None, SHARED] = None
    secrets: Annotated[dict[str, SecretSource], SOURCES] = {}
    vault: Annotated[VaultSettings | None, VAULT] = None
    identity: Annotated[
        IdentitySettings | None,
        Setting(
            Group(IdentitySettings, "a map `{api_keys, issuers, certificates, …}`"), "Who may call.", nullable=True
        ),
    ] = None
    credentials: Annotated[dict[str, CredentialSettings], CREDENTIALS] = {}
    environment: Annotated[
        str | None, Setting(WORD, "Where this gateway runs, such as `production`; rules can ask.", default="none")
    ] = None
    data: Annotated[tuple[DataSettings, ...], DATA] = ()
    grants: Annotated[tuple[GrantSettings, ...], GRANTS] = ()
    runs: Annotated[RunSettings | None, RUNS] = None
    policy: Annotated[PolicySettings | None, POLICY] = None
    approvals: Annotated[ApprovalSettings, APPROVALS] = ApprovalSettings()
    teams: Annotated[
        dict[str, AnybodySettings],
        Setting(
            Mapped(WORD, ANYBODY, "teams"),
            "Who belongs to which team: the first that fits. `limits` count per team, costs are put down to it.",
        ),
    ] = {}
    limits: Annotated[tuple[LimitSettings, ...], LIMITS] = ()
    prices: Annotated[tuple[PriceSettings, ...], PRICES] = ()
    models: Annotated[dict[str, ModelSettings], MODELS] = {}
    costs: Annotated[CostSettings, COSTS] = CostSettings()
    tokens: Annotated[TokenSettings, TOKENS] = TokenSettings()
    cache: Annotated[CacheSettings | None, CACHE] = None
    screens: Annotated[None, later("Checks of what is said.")] = None
    audit: Annotated[AuditSettings | None, AUDIT] = None
    telemetry: Annotated[TelemetrySettings | None, TELEMETRY] = None


ROOT = Group(Settings, "a map with `version: 1`")
