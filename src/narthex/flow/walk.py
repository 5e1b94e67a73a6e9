"""The way of a call through the rooms and back, as plain generators: no I/O, no clock.

A walk yields what it needs (`Find`, `Open`, `Send`) and is sent the answer. The driver in `accept/exchange.py` answers
from memory at once, or parks the walk and resumes it later; a test feeds it from a table. A time-out or a failure is
thrown in at the yield; a call that is given up is closed.
Cases: `tests/flow/test_walk.py`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import msgspec

from narthex.errors import InvalidParams, NotVisible, UpstreamUnavailable
from narthex.flow.codec.bridge import outgoing_body
from narthex.flow.codec.headers import NAMED_BY
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap, encode, read_string
from narthex.flow.route.index import Target
from narthex.flow.upstream.port import Channel, Outgoing
from narthex.types import Call, Kind

LOST = "lost"
"""`Send`'s answer when the server had forgotten our session: nothing was done, a new one may be opened."""


class Find(msgspec.Struct, frozen=True):
    """Needs the target that a shown name leads to. Answer: `Target`, or None where there is none."""

    kind: Kind
    name: str


class Open(msgspec.Struct, frozen=True):
    """Needs a channel to a server that can take a request. Answer: `Channel`."""

    server: str


class Send(msgspec.Struct, frozen=True):
    """Needs `out` sent and its answer relayed to the client. Answer: None when it was, or `LOST`."""

    channel: Channel
    out: Outgoing
    target: Target


Need = Find | Open | Send
Walk = Generator[Need, Any, None]

KIND_OF: dict[str, Kind] = {"tools/call": "tools", "prompts/get": "prompts", "resources/read": "resources"}
LISTS: dict[str, Kind] = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "templates",
}


SERVED = frozenset({*KIND_OF, "completion/complete"})
"""What goes to a server, call by call."""


def exchange(call: Call, found: Target | None, channel: Channel | None = None) -> Walk:
    """Take one call to its server and its answer back.

    Args:
        found: Where its name leads by what is in memory; None asks.
        channel: An open one to that server; None asks.
    Raises:
        NotVisible: No such tool, prompt or resource here.
        InvalidParams: The name is missing, or no string.
        UpstreamUnavailable, UpstreamTimeout, …: thrown in by the driver.
    """
    if call.method == "completion/complete":
        target, params = yield from _locate_reference(call)
    else:
        key = NAMED_BY[call.method]
        if found is None:
            found = yield Find(KIND_OF[call.method], call.name)
        if found is None:
            raise not_visible(call, call.name)
        target, params = found, {**call.params, key: Raw(found.name_json)}
    sent_name = target.name if call.method in NAMED_BY else None
    lost = False
    while True:
        if channel is None:
            channel = yield Open(target.server)
            assert channel is not None
        id_ = channel.next_id()
        body = outgoing_body(call, params, id_, channel.dialect)
        if (yield Send(channel, Outgoing(id_, call.method, body, sent_name), target)) is not LOST:
            return
        if lost:
            raise UpstreamUnavailable(f"server {target.server} lost its session twice")
        lost, channel = True, None


def _locate_reference(call: Call) -> Generator[Need, Any, tuple[Target, RawMap]]:
    """Completion names a prompt, or a resource template by its text, in `ref`."""
    try:
        ref = msgspec.json.decode(call.params["ref"], type=dict[str, Raw])
    except (*BAD_JSON, KeyError):
        raise InvalidParams("params.ref must be an object") from None
    type_ = read_string(ref, "type")
    if type_ not in ("ref/prompt", "ref/resource"):
        raise InvalidParams("params.ref.type must be ref/prompt or ref/resource")
    key: str = "name" if type_ == "ref/prompt" else "uri"
    name = read_string(ref, key)
    target: Target | None = yield Find("prompts" if key == "name" else "templates", name)
    if target is None and key == "uri":
        target = yield Find("resources", name)
    if target is None:
        raise not_visible(call, name)
    ref[key] = Raw(target.name_json)
    return target, {**call.params, "ref": Raw(encode(ref))}


def not_visible(call: Call, name: str) -> NotVisible:
    """The one answer for missing and hidden. A legacy client knows a missing resource as -32002 (2025-11-25)."""
    if call.method == "resources/read":
        error = NotVisible("resource not found", data={"uri": name[:1024]})
        if call.era == "legacy":
            error.code = -32002
        return error
    what = {"tools/call": "tool", "prompts/get": "prompt"}.get(call.method, "reference")
    return NotVisible(f"unknown {what}: {name[:128]}")
