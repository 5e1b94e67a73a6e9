"""Records read back from the folder of a journal: chosen by who, what and when, one at a time, whatever their number.

In: a folder, a `Wanted`. Out: records as they stand in the lines, oldest first. Nothing is proved here: that is
`verify`'s part. Cases: `tests/telemetry/audit/test_reading.py`; fuzz target `export`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.flow.route.names import SEPARATOR, canonical
from narthex.flow.route.patterns import compile_globs
from narthex.telemetry.audit.verify import Report, lines_in, segments_in

OWN = frozenset({"open", "segment", "close"})
"""Events that are the journal's own, and no record of anything."""
_ANSWERED = frozenset({"ok", "tool_error", "rpc_error"})
"""Outcomes of calls that their server has answered."""
_MOMENT = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,6})\d*)?)?)?(Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_STAMP = re.compile(r"calls-(\d{8}T\d{9})-")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Wanted(msgspec.Struct, frozen=True):
    """What is looked for; an empty member asks nothing. `since` and `until` are times as records have them
    (`moment` makes them), or the beginning of one, the second left out; `tools` patterns of `<server>__<name>`."""

    since: str = ""
    until: str = ""
    principal: str = ""
    client: str = ""
    tenant: str = ""
    endpoint: str = ""
    tools: tuple[str, ...] = ()
    decision: str = ""
    outcome: str = ""
    event: str = ""
    id: str = ""


class Search:
    """Goes through a folder. `unread` counts lines that are no records: `narthex audit verify` says which."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self.folder = folder
        self.unread = 0
        self._wanted = wanted
        self._tools = compile_globs(wanted.tools) if wanted.tools else None
        # A word that every line must have in it, which is told at once; what it means is looked at only then.
        words = (wanted.id, wanted.principal, wanted.client)
        self._words = tuple(msgspec.json.encode(word) for word in words if word)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        wanted = self._wanted
        for path in self._files():
            report = Report()
            for line in lines_in(path, report):
                if any(word not in line for word in self._words):
                    continue
                try:
                    record = _decode(line)
                except BAD_JSON:
                    self.unread += 1
                    continue
                if str(record.get("event")) not in OWN and self._fits(record, wanted):
                    yield record
            self.unread += report.fault_count

    def _files(self) -> list[Path]:
        """Segments in the order in which they were begun, but for those that were begun after all that is wanted."""
        until = re.sub(r"[^0-9T]", "", self._wanted.until)
        return [
            path for path in segments_in(self.folder)
            if not until or (stamp := _STAMP.match(path.name)) is None or stamp[1][: len(until)] <= until[:18]
        ]  # fmt: skip

    def _fits(self, record: dict[str, Any], wanted: Wanted) -> bool:
        time = str(record.get("time", ""))
        if (wanted.since and time < wanted.since) or (wanted.until and time >= wanted.until):
            return False
        who = record.get("principal")
        who = who if isinstance(who, dict) else {}
        asked = (
            (wanted.principal, who.get("subject")), (wanted.client, who.get("client")),
            (wanted.tenant, record.get("tenant")), (wanted.endpoint, record.get("endpoint")),
            (wanted.decision, record.get("decision")), (wanted.outcome, record.get("outcome")),
            (wanted.event, record.get("event")),
        )  # fmt: skip
        if any(want and want != got for want, got in asked):
            return False
        if wanted.id and wanted.id not in (record.get("id"), record.get("decision_id")):
            return False
        return self._tools is None or self._tools(what_of(record))


def what_of(record: dict[str, Any]) -> str:
    """The canonical name of what was called, which rules match; of an admin action its path; empty where there is none.

    `policy.resource` is that. Without it `name` is the server's own where the server has answered, and in a step of an
    approval; else it is as the client called it, which mostly has the server in front already.
    """
    said, event = record.get("policy"), record.get("event")
    if event != "admin" and isinstance(said, dict) and said.get("resource"):
        return str(said["resource"])
    server, name = (str(record.get(key) or "") for key in ("server", "name"))
    is_own = event == "approval" or str(record.get("outcome")) in _ANSWERED
    if not server or not name or (not is_own and name.startswith(server + SEPARATOR)):
        return name
    return canonical(server, name)


def moment(text: str) -> str:
    """A time as records have it: UTC, with microseconds.

    Args:
        text: RFC 3339, or the beginning of one: `2026-11` is its first moment. Without an offset it is UTC.
    Raises:
        ValueError: No such time.
    """
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    day_text = f"{year}-{month or '01'}-{day or '01'}"
    time_text = f"{hour or '00'}:{minute or '00'}:{second or '00'}.{fraction or '':0<6}"
    try:
        at = datetime.fromisoformat(f"{day_text}T{time_text}{offset or 'Z'}").astimezone(UTC)
    except OverflowError:
        raise ValueError(text) from None
    return at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
