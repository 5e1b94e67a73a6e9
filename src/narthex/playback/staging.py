"""The gateway of a dry replay: the endpoints as they were recorded, and in place of each server the record.

In: recorded calls, what servers list, the configuration where there is one. Out: a `Snapshot` whose servers all answer
in this process: no rule, credential or address of the configuration is in it, only how its endpoints name things.
Cases: `tests/playback/test_staging.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from narthex.config.compile import load_snapshot
from narthex.flow.codec.revisions import MODERN
from narthex.flow.route.names import shown_name
from narthex.playback.catalogue import Items
from narthex.playback.channel import RecordedChannel
from narthex.playback.recorded import Recorded
from narthex.playback.script import Script
from narthex.types import EndpointSpec, Era, ServerSpec, Snapshot

_is_name: Final = re.compile(r"[a-z0-9-]{1,24}").fullmatch
DEFAULT: Final = "default"


class Naming:
    """How endpoints name things: as the configuration says, else with the server in front.

    Args:
        endpoints: Of the configuration; empty where there is none.
    """

    def __init__(self, endpoints: Mapping[str, EndpointSpec]) -> None:
        self.endpoints: Final = endpoints

    def of(self, endpoint: str) -> EndpointSpec:
        """What is known of an endpoint."""
        return self.endpoints.get(endpoint) or EndpointSpec(endpoint, ())

    def shows(self, endpoint: str, server: str, name: str) -> str:
        """The name that an endpoint shows for a tool or prompt."""
        spec = self.of(endpoint)
        return shown_name(server, name, naming=spec.naming, max_name=spec.max_name)


def sound(calls: Iterable[Recorded]) -> list[Recorded]:
    """Those at an endpoint, and of a server, that a gateway can have: a record may come from anybody."""
    found = []
    for one in calls:
        if not _is_name(one.server):
            one.server = one.name = ""
        if _is_name(one.endpoint):
            found.append(one)
    return found


def staged(
    folder: Path, script: Script, items: Mapping[str, Items], naming: Naming, *, port: int, keys: bool
) -> Snapshot:
    """What to run.

    Args:
        folder: An empty one, for the state of the gateway.
        items: What each server lists.
        port: On the loopback address; 0 lets the system choose.
        keys: Must callers show an API key?
    """
    servers = [name for name in items if _is_name(name)] or ["recorded"]
    names = dict.fromkeys(one.endpoint for one in script.calls) or {DEFAULT: None}
    config = {
        "version": 1,
        "listen": f"127.0.0.1:{port}",
        "admin": {"listen": "127.0.0.1:0"},
        "egress": {"proxy": None},
        "servers": {name: {"command": "narthex-replay"} for name in servers},
        "endpoints": {name: {"servers": servers} for name in names},
        **({"identity": {"api_keys": True}} if keys else {}),
    }
    path = folder / "narthex.json"
    path.write_text(json.dumps(config))
    snapshot = load_snapshot(path, env={"HOME": str(folder)})
    return replace(
        snapshot,
        servers={name: _inside(spec, items.get(name, {}), script) for name, spec in snapshot.servers.items()},
        endpoints={name: _as_named(spec, naming.of(name), script) for name, spec in snapshot.endpoints.items()},
    )


def _inside(spec: ServerSpec, items: Items, script: Script) -> ServerSpec:
    is_modern = any(one.version in MODERN for one in script.calls if one.server == spec.name)
    era: Era = "modern" if is_modern else "legacy"
    return replace(spec, inside=partial(RecordedChannel, spec.name, items, script, era))


def _as_named(spec: EndpointSpec, like: EndpointSpec, script: Script) -> EndpointSpec:
    """An endpoint with the servers that were called there, and those that the configuration has there."""
    called = {one.server for one in script.calls if one.endpoint == spec.name}
    known = [name for name in like.servers if name in spec.servers]
    rest = [name for name in spec.servers if name not in known and (name in called or not like.servers)]
    return replace(
        spec, servers=(*known, *rest), naming=like.naming, max_name=like.max_name, tools=like.tools,
        prompts=like.prompts, resources=like.resources, resource_uris=like.resource_uris, headers=like.headers,
    )  # fmt: skip
