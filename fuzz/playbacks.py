"""Fuzz target for dry replays: records, kept payloads, lists and arguments that somebody hands over."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from narthex.errors import NotRecorded
from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.playback.arguments import canonical, differing, keys_of
from narthex.playback.catalogue import BadLists, derived, listed, merged, places
from narthex.playback.recorded import recorded_in
from narthex.playback.script import Script
from narthex.playback.staging import Naming, sound
from narthex.telemetry.payloads.lines import Note
from narthex.telemetry.payloads.reading import Payload


def fuzz_playback(data: bytes) -> None:
    """Lines of JSON are records, and each line is what was kept of them, a document of lists, and arguments. Whatever
    they are, each recorded call is answered as it was, or the agent is told why not."""
    lines = data.split(b"\n")[:40]
    records: list[dict[str, Any]] = []
    for line in lines:
        with suppress(*BAD_JSON):
            records.append(msgspec.json.decode(line, type=dict[str, Any]))
    body = lines[0]
    kept = [Payload("arguments", "here", Note("full"), body), Payload("result", "here", Note("full"), lines[-1])]
    calls = sound(recorded_in(records, lambda record: kept, Naming({}).shows))
    items, place = derived(calls), places(calls, lambda server, own: [own])
    with suppress(BadLists):
        items = merged(items, listed(body, place))
    assert all(one.name in items[one.server][one.kind] for one in calls if one.server and one.listed)
    script = Script(calls, lambda arguments: arguments)
    for one in calls:
        if one.server:
            with suppress(NotRecorded):
                given = script.answer(one.kind, one.server, one.name, body)
                assert given.body
    script.refused("tools/call", "x")
    assert len(script.report().new) <= 2
    same = canonical(body)
    assert same is None or (canonical(same) == same and keys_of(same) <= keys_of(body) and not differing(same, same))
