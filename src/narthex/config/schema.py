"""The one configuration schema: each key's kind, default, bounds, help and secrecy stand here and nowhere else.

In: nothing. Out: `Settings` and its parts; `load` reads a file by them, `compile` makes a `Snapshot` of them, `render`
writes the JSON Schema and the reference. A key whose part is not built yet stands here as `later(…)` and is refused.
Proof: `tests/config/test_schema.py`, `tests/docs/test_reference.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from narthex.config.document import Fault, Node, Path, Reading
from narthex.config.expand import Expanded
from narthex.config.kinds import (
    ADDRESS,
    BASE_URL,
    ENV_NAME,
    FILE,
    GLOB,
    HEADER_NAME,
    HEADER_VALUE,
    HOST,
    NAME,
    NETWORK,
    PATH,
    PROXY,
    TEXT,
    URL,
    Choice,
    Count,
    Flag,
    Group,
    JsonSchema,
    Listed,
    Mapped,
    Setting,
    duration,
    later,
    size,
)
from narthex.types import Address, Limits, Network, ServerSpec, Sharing, StdioTarget

BOUNDS = Limits()  # the defaults of bounds and of servers live beside the types that carry them
SERVER = {field.name: field.default for field in msgspec.structs.fields(ServerSpec)}
STDIO = {field.name: field.default for field in msgspec.structs.fields(StdioTarget)}
TLS_FILE = "PEM file, relative to the configuration file."
GLOBS = Listed(GLOB, "patterns")


class TlsSettings(msgspec.Struct, frozen=True):
    """TLS of a listener. Changed files are taken up without a restart."""

    cert: Annotated[str | None, Setting(FILE, f"Certificate chain. {TLS_FILE}", default="required")] = None
    key: Annotated[str | None, Setting(FILE, f"Private key. {TLS_FILE}", default="required")] = None
    client_ca: Annotated[
        str | None,
        Setting(
            FILE, f"Ask clients for a certificate and verify it against these authorities. {TLS_FILE}", nullable=True
        ),
    ] = None


TLS = Group(TlsSettings, "a map `{cert, key, client_ca}`")


class AdminSettings(msgspec.Struct, frozen=True):
    """The second listener: API, metrics and health. Loopback only while no identity is configured."""

    listen: Annotated[Address, Setting(ADDRESS, "Where the admin side listens. Port 0 lets the system choose.")] = (
        "127.0.0.1",
        8081,
    )
    tls: Annotated[TlsSettings | None, Setting(TLS, "TLS of the admin side.", nullable=True)] = None


class EgressSettings(msgspec.Struct, frozen=True):
    """How connections to servers leave."""

    proxy: Annotated[
        str | None,
        Setting(
            PROXY,
            "`env` takes HTTP_PROXY, HTTPS_PROXY and NO_PROXY; a URL is used for every server; `null` uses none.",
            nullable=True,
        ),
    ] = "env"
    no_proxy: Annotated[
        tuple[str, ...],
        Setting(Listed(GLOB, "hosts"), "Hosts, domains (`.example.com`) and networks reached without the proxy."),
    ] = ()
    ca: Annotated[
        str, Setting(FILE, "`system`, or a PEM file with the authorities that servers are verified against.")
    ] = "system"


class ServerSettings(msgspec.Struct, frozen=True):
    """One upstream: either `command` (stdio) or `url` (HTTP)."""

    url: Annotated[
        Expanded | None,
        Setting(
            URL,
            "Address of a server over HTTP, http or https; `${VAR}` is expanded. Loopback and private ones are fine.",
        ),
    ] = None
    headers: Annotated[
        dict[str, Expanded],
        Setting(
            Mapped(HEADER_NAME, HEADER_VALUE, "headers", 64),
            "Sent with each request to the server; `${VAR}` is expanded.",
            secret=True,
        ),
    ] = {}
    transport: Annotated[
        Literal["auto", "http", "sse"],
        Setting(
            Choice(("auto", "http", "sse")),
            "`http` is Streamable HTTP, `sse` the old HTTP+SSE; `auto` tries them in this order.",
        ),
    ] = "auto"
    command: Annotated[
        Expanded | None,
        Setting(PATH, "Program of a server over stdio: a name on PATH, or a path relative to the configuration file."),
    ] = None
    args: Annotated[
        tuple[Expanded, ...], Setting(Listed(TEXT, "texts"), "Arguments of the program; `${VAR}` is expanded.")
    ] = ()
    env: Annotated[
        dict[str, Expanded],
        Setting(
            Mapped(ENV_NAME, TEXT, "variables"),
            "Environment of the program, beside PATH, HOME, USER, LANG, LC_*, TZ and TMPDIR; `${VAR}` is expanded.",
            secret=True,
        ),
    ] = {}
    cwd: Annotated[
        Expanded | None,
        Setting(
            PATH, "Working directory of the program.", default="the directory of the configuration file", nullable=True
        ),
    ] = None
    start: Annotated[
        Literal["first_use", "at_start"], Setting(Choice(("first_use", "at_start")), "When the program is started.")
    ] = STDIO["start"]
    idle_timeout: Annotated[float, Setting(duration("1s", "7d"), "An idle program is stopped after this long.")] = (
        STDIO["idle_timeout_s"]
    )
    era: Annotated[
        Literal["auto", "legacy", "modern"],
        Setting(Choice(("auto", "legacy", "modern")), "Which generation of MCP the server speaks; `auto` asks it."),
    ] = "auto"
    sharing: Annotated[
        Sharing | None,
        Setting(
            Choice(("tenant", "principal", "session")),
            "Who shares one session with the server.",
            default="`tenant` with `command`, `principal` with `url`",
        ),
    ] = None
    connect_timeout: Annotated[float, Setting(duration("10ms", "5m"), "Give up connecting after this long.")] = SERVER[
        "connect_timeout_s"
    ]
    call_timeout: Annotated[
        float, Setting(duration("10ms", "1d"), "A call is answered within this time, or with an error.")
    ] = SERVER["call_timeout_s"]
    list_timeout: Annotated[float, Setting(duration("10ms", "10m"), "A list waits this long for the server.")] = SERVER[
        "list_timeout_s"
    ]
    list_ttl: Annotated[
        float, Setting(duration("0s", "7d"), "The server's lists are asked for again after this long.")
    ] = SERVER["list_ttl_s"]
    max_answer: Annotated[int, Setting(size("1KiB", "1GiB"), "Largest answer accepted; a larger one is refused.")] = (
        SERVER["max_answer"]
    )
    max_in_flight: Annotated[
        int, Setting(Count(1, 100_000), "Calls to the server at one time; more are refused at once.")
    ] = SERVER["max_in_flight"]
    idempotent: Annotated[
        tuple[str, ...],
        Setting(GLOBS, "Patterns on the tool's own name: such a call is sent again when its connection dies."),
    ] = ()
    credential: Annotated[None, later("Name of the credential that is sent to the server.")] = None
    classification: Annotated[None, later("How confidential the server's answers are.")] = None
    trust: Annotated[None, later("Whether new and changed tools need an approval.")] = None


class SelectionSettings(msgspec.Struct, frozen=True):
    """Which names an endpoint shows, by patterns on the canonical name `<server>__<name>`."""

    include: Annotated[
        tuple[str, ...], Setting(GLOBS, "Only what matches one of these is shown. Empty: everything.")
    ] = ()
    exclude: Annotated[
        tuple[str, ...], Setting(GLOBS, "What matches one of these is hidden, whatever `include` says.")
    ] = ()


class ResourceSettings(SelectionSettings, frozen=True):
    """Which resources an endpoint shows, and under which URI."""

    uris: Annotated[
        Literal["plain", "prefix"],
        Setting(
            Choice(("plain", "prefix")),
            "`plain` leaves URIs as they are; `prefix` puts the server's name into them, reversibly.",
        ),
    ] = "plain"


class ResourcesKind(msgspec.Struct, frozen=True):
    """`resources: prefix` is short for `resources: {uris: prefix}`."""

    label: str = "a map `{include, exclude, uris}`, or the value of `uris` alone"

    def read(self, node: Node, path: Path, reading: Reading) -> ResourceSettings:
        if node.shape == "map":
            found: ResourceSettings = Group(ResourceSettings, self.label).read(node, path, reading)
            return found
        if node.shape != "text":
            raise Fault(node.mark, f"wants {self.label}")
        return ResourceSettings(uris=Choice(("plain", "prefix")).read(node, path, reading))  # type: ignore[arg-type]

    def show(self, value: Any) -> str:
        return "see below"

    def schema(self) -> JsonSchema:
        return {"anyOf": [Choice(("plain", "prefix")).schema(), Group(ResourceSettings, "").schema()]}


SELECTION = Group(SelectionSettings, "a map `{include, exclude}`")


class EndpointSettings(msgspec.Struct, frozen=True):
    """What a client connects to: `/mcp/<name>`; `default` is also `/mcp`."""

    servers: Annotated[
        tuple[str, ...] | None,
        Setting(Listed(NAME, "server names"), "Its servers, in the order of its lists.", default="all, in file order"),
    ] = None
    naming: Annotated[
        Literal["prefix", "none"],
        Setting(
            Choice(("prefix", "none")), "`prefix` shows a tool as `<server>__<tool>`, `none` as the server names it."
        ),
    ] = "prefix"
    max_name: Annotated[
        int, Setting(Count(34, 128), "Longest name shown; a longer one is cut and given 8 digits of its hash.")
    ] = 48
    tools: Annotated[SelectionSettings, Setting(SELECTION, "Which tools it shows.")] = SelectionSettings()
    prompts: Annotated[SelectionSettings, Setting(SELECTION, "Which prompts it shows.")] = SelectionSettings()
    resources: Annotated[ResourceSettings, Setting(ResourcesKind(), "Which resources it shows.")] = ResourceSettings()
    headers: Annotated[
        Literal["strict", "lenient"],
        Setting(
            Choice(("strict", "lenient")),
            "`lenient` serves modern clients that leave out `Mcp-Method` or `Mcp-Name`; a wrong one is always refused.",
        ),
    ] = "strict"
    auth: Annotated[None, later("Who may use it.")] = None
    discovery: Annotated[None, later("How its tools are found.")] = None


class BoundSettings(msgspec.Struct, frozen=True):
    """Bounds of the public listener and of the process. Whatever goes beyond is refused early and clearly."""

    max_header: Annotated[int, Setting(size("1KiB", "1MiB"), "Largest request head.")] = BOUNDS.max_header
    max_body: Annotated[int, Setting(size("1KiB", "256MiB"), "Largest request body.")] = BOUNDS.max_body
    max_connections: Annotated[int, Setting(Count(1, 1_000_000), "Client connections at one time.")] = (
        BOUNDS.max_connections
    )
    max_calls: Annotated[int, Setting(Count(1, 1_000_000), "Calls in flight at one time, over all servers.")] = (
        BOUNDS.max_calls
    )
    max_held: Annotated[
        int, Setting(size("1MiB", "64GiB"), "Memory for bodies that are held back, over all calls.")
    ] = BOUNDS.max_held
    header_timeout: Annotated[float, Setting(duration("100ms", "10m"), "A request head arrives within this time.")] = (
        BOUNDS.header_timeout_s
    )
    body_timeout: Annotated[float, Setting(duration("100ms", "1h"), "A request body arrives within this time.")] = (
        BOUNDS.body_timeout_s
    )
    keep_alive: Annotated[float, Setting(duration("1s", "1h"), "An idle client connection is kept this long.")] = (
        BOUNDS.keep_alive_s
    )
    sse_comment: Annotated[float, Setting(duration("1s", "10m"), "A silent stream gets a comment this often.")] = (
        BOUNDS.sse_comment_s
    )
    drain_accept: Annotated[float, Setting(duration("0s", "5m"), "After SIGTERM: unready, but still accepting.")] = (
        BOUNDS.drain_accept_s
    )
    drain: Annotated[float, Setting(duration("0s", "1h"), "After SIGTERM: calls may finish within this time.")] = (
        BOUNDS.drain_s
    )
    session_ttl: Annotated[float, Setting(duration("1m", "30d"), "An unused legacy session ends after this long.")] = (
        BOUNDS.session_ttl_s
    )


class LogSettings(msgspec.Struct, frozen=True):
    """What is written to stderr."""

    calls: Annotated[bool, Setting(Flag(), "One line for each call.")] = False
    format: Annotated[
        Literal["text", "json"], Setting(Choice(("text", "json")), "Lines for people, or one JSON object a line.")
    ] = "text"


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
        tuple[Network, ...], Setting(Listed(NETWORK, "networks"), "`X-Forwarded-*` is believed only from these.")
    ] = ()
    egress: Annotated[
        EgressSettings,
        Setting(Group(EgressSettings, "a map `{proxy, no_proxy, ca}`"), "How connections to servers leave."),
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
    store: Annotated[None, later("Database.")] = None
    shared: Annotated[None, later("Valkey or Redis, where several processes share limits and cache.")] = None
    identity: Annotated[None, later("Who may call: API keys and issuers of tokens.")] = None
    credentials: Annotated[None, later("Secrets that Narthex owns and sends to servers.")] = None
    grants: Annotated[None, later("Who may call what.")] = None
    policy: Annotated[None, later("Rules in Rego.")] = None
    limits: Annotated[None, later("Rates, quotas and budgets.")] = None
    prices: Annotated[None, later("What a call costs.")] = None
    screens: Annotated[None, later("Checks of what is said.")] = None
    audit: Annotated[None, later("The record of every call.")] = None
    telemetry: Annotated[None, later("Traces and metrics sent out.")] = None


ROOT = Group(Settings, "a map with `version: 1`")
