"""Records read back from the folder of a journal: chosen by who, what and when, one at a time, whatever their number.

In: a folder, a `Wanted`. Out: records as they stand in the lines, oldest first. Nothing is proved here: that is
`verify`'s part. Cases: `tests/telemetry/audit/test_reading.py`; fuzz target `export`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.flow.route.patterns import compile_globs
from narthex.telemetry.audit.verify import Report, lines_in, segments_in

OWN = frozenset({"open", "segment", "close"})
"""Events that are the journal's own, and no record of anything."""
_STAMP = re.compile(r"calls-(\d{8}T\d{9})-")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Wanted(msgspec.Struct, frozen=True):
    """What is looked for; an empty member asks nothing. `since` and `until` are RFC 3339 in UTC, or the beginning of
    one, the second left out; `tools` patterns of `<server>__<name>`."""

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
        return self._tools is None or self._tools(f"{record.get('server', '')}__{record.get('name', '')}")
