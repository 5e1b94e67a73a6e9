"""`endpoints:`: what clients connect to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from narthex.config.document import Fault, Node, Path, Reading
from narthex.config.kinds import (
    GLOB,
    GLOBS,
    NAME,
    SCOPE,
    WORD,
    Choice,
    Count,
    Flag,
    Group,
    JsonSchema,
    Listed,
    Mapped,
    Setting,
    later,
)
from narthex.config.schema.audit import EndpointAuditSettings


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
    auth: Annotated[
        Literal["required", "anonymous"],
        Setting(
            Choice(("required", "anonymous")),
            "`required` asks for a credential, as soon as `identity` is configured; `anonymous` does not.",
        ),
    ] = "required"
    base_scopes: Annotated[
        tuple[str, ...], Setting(Listed(SCOPE, "scopes"), "What every token needs here; told to clients at sign-in.")
    ] = ()
    scopes: Annotated[
        dict[str, tuple[str, ...]],
        Setting(
            Mapped(GLOB, Listed(SCOPE, "scopes"), "patterns"),
            "Pattern on a tool's canonical name to scopes that a call of it needs besides; all that match count.",
        ),
    ] = {}
    hide_unscoped: Annotated[
        bool, Setting(Flag(), "Do not list tools whose scopes the caller lacks; otherwise it may ask for them.")
    ] = False
    project: Annotated[
        str | None, Setting(WORD, "What calls are made for here: costs are put down to it.", default="none")
    ] = None
    audit: Annotated[
        EndpointAuditSettings,
        Setting(
            Group(EndpointAuditSettings, "a map `{durable, on_failure}`"),
            "Which of its calls wait for their record, and what becomes of them where there can be none.",
            default="as `audit` says",
        ),
    ] = EndpointAuditSettings()
    discovery: Annotated[None, later("How its tools are found.")] = None
