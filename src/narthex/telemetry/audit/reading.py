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
from narthex.telemetry.audit.matching import Matcher, Wanted
from narthex.telemetry.audit.verify import Report, lines_in, segments_in

_MOMENT = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,6})\d*)?)?)?(Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_STAMP = re.compile(r"calls-(\d{8}T\d{9})-")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Search:
    """Goes through a folder. `unread` counts lines that are no records: `narthex audit verify` says which."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self.folder = folder
        self.unread = 0
        self._wanted = wanted
        self._fits = Matcher(wanted)
        # A word that every line must have in it, which is told at once; what it means is looked at only then.
        words = (wanted.id, wanted.principal, wanted.client, wanted.approval, wanted.session, wanted.run, wanted.trace)
        self._words = tuple(msgspec.json.encode(word) for word in words if word)

    def __iter__(self) -> Iterator[dict[str, Any]]:
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
                if self._fits(record):
                    yield record
            self.unread += report.fault_count

    def _files(self) -> list[Path]:
        """Segments in the order in which they were begun, but for those that were begun after all that is wanted."""
        until = re.sub(r"[^0-9T]", "", self._wanted.until)
        return [
            path for path in segments_in(self.folder)
            if not until or (stamp := _STAMP.match(path.name)) is None or stamp[1][: len(until)] <= until[:18]
        ]  # fmt: skip


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
