"""What the servers of a dry replay list. Records have calls and no lists: so a tool that was called is listed, with the
names of the arguments that were kept; or as `narthex list --json` has listed it, where somebody kept that.

In: recorded calls, a document of lists, which may be anybody's. Out: items by server. Pure.
Cases: `tests/playback/test_catalogue.py`; fuzz target `playback`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, encode
from narthex.flow.route.names import SEPARATOR, split_prefix
from narthex.playback.recorded import Recorded
from narthex.types import Kind

MEMBERS: Final[Mapping[Kind, str]] = {"tools": "tools", "prompts": "prompts", "resources": "resources"}
"""Kinds that can be replayed -> their member in a document of lists."""
DERIVED: Final = "Known from recorded calls alone."
Items = dict[Kind, dict[str, bytes]]
"""Items as JSON by kind and by the server's own name."""
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class BadLists(ValueError):
    """It is no document of lists."""


def derived(calls: Iterable[Recorded]) -> dict[str, Items]:
    """What was called, by server."""
    arguments: dict[tuple[str, Kind, str], dict[str, None]] = {}
    for one in calls:
        if one.server and one.listed:
            arguments.setdefault((one.server, one.kind, one.name), {}).update(dict.fromkeys(_names(one.arguments)))
    found: dict[str, Items] = {}
    for (server, kind, name), names in arguments.items():
        found.setdefault(server, {}).setdefault(kind, {})[name] = encode(_item(kind, name, list(names)))
    return found


def _item(kind: Kind, name: str, names: list[str]) -> dict[str, Any]:
    if kind == "tools":
        schema = {"type": "object", "properties": {one: {} for one in names}}
        return {"name": name, "description": DERIVED, "inputSchema": schema}
    if kind == "prompts":
        return {"name": name, "description": DERIVED, "arguments": [{"name": one} for one in names]}
    return {"uri": name, "name": name.rpartition("/")[2] or name, "description": DERIVED}


def _names(arguments: bytes) -> Iterable[str]:
    try:
        return _decode(arguments or b"{}")
    except BAD_JSON:
        return ()


def listed(document: bytes, place: Callable[[Kind, str], tuple[str, str] | None]) -> dict[str, Items]:
    """What a document of lists says, by server.

    Args:
        document: As `narthex list --json` prints it.
        place: A kind and a shown name, or a URI -> the server, and its own name of it; None: nobody knows.
    Raises:
        BadLists.
    """
    try:
        members = _decode(document)
        lists = {kind: msgspec.json.decode(members.get(member, b"[]"), type=list[dict[str, Raw]])
                 for kind, member in MEMBERS.items()}  # fmt: skip
    except BAD_JSON as error:
        raise BadLists(str(error)) from None
    found: dict[str, Items] = {}
    for kind, items in lists.items():
        key = "uri" if kind == "resources" else "name"
        for item in items:
            try:
                shown = msgspec.json.decode(item.get(key, b""), type=str)
            except BAD_JSON:
                continue
            if (at := place(kind, shown)) is not None:
                found.setdefault(at[0], {}).setdefault(kind, {})[at[1]] = encode({**item, key: at[1]})
    return found


def merged(first: dict[str, Items], other: dict[str, Items]) -> dict[str, Items]:
    """Both; where both list the same, it is as `other` has it."""
    return {
        server: {kind: {**first.get(server, {}).get(kind, {}), **other.get(server, {}).get(kind, {})}
                 for kind in MEMBERS}
        for server in {**first, **other}
    }  # fmt: skip


def places(calls: Iterable[Recorded], shows: Callable[[str, str], Iterable[str]]) -> Callable[
    [Kind, str], tuple[str, str] | None
]:  # fmt: skip
    """Where a shown name leads: as recorded calls say it, else by its prefix, else to the one server that there is.

    Args:
        shows: A server and its own name of a tool or prompt -> what endpoints show.
    """
    known: dict[tuple[Kind, str], tuple[str, str]] = {}
    servers: dict[str, None] = {}
    for one in calls:
        if one.server:
            servers[one.server] = None
            for shown in (one.name,) if one.kind == "resources" else shows(one.server, one.name):
                known.setdefault((one.kind, shown), (one.server, one.name))

    def place(kind: Kind, shown: str) -> tuple[str, str] | None:
        if (kind, shown) in known:
            return known[kind, shown]
        if kind != "resources" and (server := split_prefix(shown)) is not None:
            return server, shown.removeprefix(server + SEPARATOR)
        return (next(iter(servers)), shown) if len(servers) == 1 else None

    return place
