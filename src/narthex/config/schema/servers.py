"""`servers:`: the upstreams."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from narthex.config.expand import Expanded
from narthex.config.kinds import (
    ENV_NAME,
    GLOBS,
    HEADER_NAME,
    HEADER_VALUE,
    PATH,
    TEXT,
    URL,
    Choice,
    Count,
    Listed,
    Mapped,
    Setting,
    duration,
    later,
    size,
)
from narthex.config.schema.credentials import TABLE, UseSettings
from narthex.config.schema.data import CLASSIFICATION, PERSONAL
from narthex.types import ServerSpec, Sharing, StdioTarget

# The defaults live beside the types that carry them.
SERVER = {field.name: field.default for field in msgspec.structs.fields(ServerSpec)}
STDIO = {field.name: field.default for field in msgspec.structs.fields(StdioTarget)}


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
    era_modern_ttl: Annotated[
        float,
        Setting(duration("10s", "30d"), "A server that was found to be modern is asked again after this long."),
    ] = SERVER["era_modern_ttl_s"]
    era_legacy_ttl: Annotated[
        float,
        Setting(
            duration("10s", "30d"),
            "The same for a legacy one. A shorter time: a server that has become modern serves the old era too, so "
            "nothing fails that would tell.",
        ),
    ] = SERVER["era_legacy_ttl_s"]
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
    annotations: Annotated[
        Literal["untrusted", "trusted"],
        Setting(
            Choice(("untrusted", "trusted")),
            "Whether what its tools say of themselves (`readOnlyHint`, `idempotentHint`) is believed, by rules "
            "of `cache` that ask for it.",
        ),
    ] = "untrusted"
    credential: Annotated[
        tuple[UseSettings, ...],
        Setting(TABLE, "What the server is shown of the gateway: one credential for everybody, or by who calls."),
    ] = ()
    classification: Annotated[str | None, CLASSIFICATION] = None
    privacy: Annotated[str | None, PERSONAL] = None
    trust: Annotated[None, later("Whether new and changed tools need an approval.")] = None
