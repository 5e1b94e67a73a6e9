"""What the gateway says of itself to a client: what it offers for the servers behind an endpoint, and how to use them.

In: the client's era, and what was negotiated with each server. Out: `ServerCapabilities`, instructions, who answers.
Cases: `tests/flow/codec/test_offers.py`, one row a rule.
Source: MCP 2026-07-28, server/discover, versioning ("Extension Negotiation"), server/utilities/logging (a capability,
though deprecated), basic ("Per-response protocol fields"); MCP 2025-11-25, lifecycle ("Capability Negotiation").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from narthex import __version__
from narthex.flow.codec.capabilities import APPS_EXTENSION, SKILLS_EXTENSION, TASKS_EXTENSION
from narthex.flow.codec.revisions import METHODS
from narthex.flow.upstream.port import Dialect
from narthex.types import Era

SERVER_INFO = {"name": "narthex", "title": "Narthex MCP gateway", "version": __version__}
SUBSCRIPTIONS = True
"""Are clients told of changes? Then `listChanged` and `subscribe` are offered."""
EXTENSIONS = (APPS_EXTENSION,)
"""Those that work when every byte is passed on. Whatever is not named is refused, as the client expects of a server
that does not have it: an extension's own methods would lead nowhere."""
MOST_INSTRUCTIONS = 32 * 1024
"""Characters, of all servers together: a model reads them at the start of every conversation."""
CUT = " […]"

_LISTS = ("tools", "prompts", "resources")
_TASK_PATHS = (("list",), ("cancel",), ("requests", "tools", "call"))


def offered(
    era: Era, dialects: Sequence[Dialect | None], alone: Sequence[Dialect | None] = (), *, skills: bool = True
) -> dict[str, Any]:
    """The capabilities of all servers together, as far as the gateway carries them to a client of this era.

    Args:
        dialects: One for each server. None was not reached yet: it is taken to have lists and completions. They can be
            asked of us whatever it has, and a client that is not offered them now would not ask once it is there.
        alone: Those whose session serves this client alone: of them legacy tasks are offered.
        skills: May skills be offered? Their entries are full of URIs, which must be those of the server.
    """
    offers: dict[str, Any] = {name: {} for name in _LISTS if any(_has(one, name) for one in dialects)}
    if SUBSCRIPTIONS:
        for offer in offers.values():
            offer["listChanged"] = True  # whatever the servers tell: one that comes or goes changes our lists too
        if any(_subscribes(one) for one in dialects):
            offers["resources"]["subscribe"] = True
    if any(_completes(one) for one in dialects):
        offers["completions"] = {}
    if (era == "modern" or "logging/setLevel" in METHODS["legacy"]) and any(_says(one, "logging") for one in dialects):
        offers["logging"] = {}
    known = [name for name in EXTENSIONS if any(_says(one, "extensions", name) for one in dialects)]
    if era == "modern" and any(_runs_tasks(one) for one in dialects):
        known.append(TASKS_EXTENSION)
    if known:
        offers["extensions"] = {name: {} for name in known}
    if skills and any(has_skills(one) for one in dialects):
        reads = {"directoryRead": True} if any(reads_directories(one) for one in dialects) else {}
        offers.setdefault("extensions", {})[SKILLS_EXTENSION] = reads
    if era == "legacy" and any(_says(one, "tasks") for one in alone):
        offers["tasks"] = _tasks(alone)
    return offers


def instructions(servers: Sequence[tuple[str, Dialect | None]]) -> str | None:
    """What the servers say about their use: of one alone as it is, of several each under its name."""
    said = [(name, one.instructions) for name, one in servers if one is not None and one.instructions]
    if not said:
        return None
    if len(servers) == 1:
        return _cut(said[0][1], MOST_INSTRUCTIONS)
    share = MOST_INSTRUCTIONS // len(said)
    return "\n\n".join(_cut(f"# {name}\n\n{text}", share - 2) for name, text in said)


def has_skills(dialect: Dialect | None) -> bool:
    """Does a server list skills (SEP-2640, "Capability Declaration")?"""
    return _says(dialect, "extensions", SKILLS_EXTENSION)


def reads_directories(dialect: Dialect | None) -> bool:
    """Does it read directories? No other may be asked to."""
    return _at(dialect, "extensions", SKILLS_EXTENSION, "directoryRead") is True


def _has(dialect: Dialect | None, name: str) -> bool:
    return dialect is None or name in dialect.capabilities


def _completes(dialect: Dialect | None) -> bool:
    """2024-11-05 has no word for it: such a server may complete whatever it has."""
    if dialect is not None and dialect.version == "2024-11-05":
        return _has(dialect, "prompts") or _has(dialect, "resources")
    return _has(dialect, "completions")


def _subscribes(dialect: Dialect | None) -> bool:
    return _at(dialect, "resources", "subscribe") is True


def _says(dialect: Dialect | None, *path: str) -> bool:
    return isinstance(_at(dialect, *path), dict)


def _runs_tasks(dialect: Dialect | None) -> bool:
    """The extension is a modern server's: a legacy one that names it is asked in the other way."""
    return dialect is not None and dialect.era == "modern" and _says(dialect, "extensions", TASKS_EXTENSION)


def _at(dialect: Dialect | None, *path: str) -> Any:
    """What stands there in a server's capabilities, which are as it sent them: None where there is no such place."""
    value: Any = dialect.capabilities if dialect is not None else None
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _tasks(dialects: Sequence[Dialect | None]) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    for path in _TASK_PATHS:
        if any(_says(one, "tasks", *path) for one in dialects):
            inner = tasks
            for key in path:
                inner = inner.setdefault(key, {})
    return tasks


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(0, most - len(CUT))] + CUT
