"""Records as OpenTelemetry log records, by OTLP over HTTP with JSON.

In: records. Out: `POST` of an `ExportLogsServiceRequest`; 200 is the receiver's word that it has them. What it refuses
as malformed is halved until the one record is found, which is then left out and counted: it stays in the journal.
Everything else that it refuses waits, and is sent again. Does I/O.
Cases: `tests/telemetry/audit/exports/test_otlp.py`. Source: OTLP 1.10, HTTP, its failures and JSON; the log data model.
"""

from __future__ import annotations

import gzip
import http.client
import re
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from narthex import __version__
from narthex.telemetry.audit.exports.sink import TIMEOUT_S, SinkError, SinkSpec, context_of, words_of
from narthex.telemetry.audit.formats import COLUMNS, flat, jsonl, text_of
from narthex.telemetry.audit.matching import Record

INFO, WARN = (9, "INFO"), (13, "WARN")
MOST_ANSWER = 64 * 1024
MALFORMED = frozenset({400, 413, 422})
"""What is sent, and not who sends it or when, is at fault."""
_TRACE, _SPAN = (re.compile(rf"[0-9a-f]{{{digits}}}", re.ASCII) for digits in (32, 16))


def request(records: Sequence[Record], now_ns: int) -> bytes:
    """The body of a request, in OTLP's mapping to JSON."""
    scope = {"name": "narthex.audit", "version": __version__}
    logs = {"scope": scope, "logRecords": [log_record(one, now_ns) for one in records]}
    resource = {"attributes": list(_attributes({"service.name": "narthex", "service.version": __version__}))}
    return msgspec.json.encode({"resourceLogs": [{"resource": resource, "scopeLogs": [logs]}]})


def log_record(record: Record, now_ns: int) -> dict[str, Any]:
    """One log record: its body is the record as JSON, its attributes the columns of the CSV form."""
    number, text = WARN if record.get("decision") == "deny" or record.get("event") == "lost" else INFO
    row = flat(record)
    found = {
        "timeUnixNano": str(_ns(record) or now_ns), "observedTimeUnixNano": str(now_ns),
        "severityNumber": number, "severityText": text,
        "eventName": f"narthex.audit.{record.get('event') or 'record'}",
        "body": {"stringValue": jsonl(record)},
        "attributes": list(_attributes({f"narthex.{name}": row.get(name) for name in COLUMNS})),
    }  # fmt: skip
    for name, member, form in (("traceId", "trace", _TRACE), ("spanId", "span", _SPAN)):
        value = record.get(member)
        if isinstance(value, str) and form.fullmatch(value):
            found[name] = value
    return found


def _attributes(values: dict[str, object]) -> Iterator[dict[str, Any]]:
    for key, value in values.items():
        if isinstance(value, bool):
            yield {"key": key, "value": {"boolValue": value}}
        elif isinstance(value, int) and abs(value) < 1 << 63:
            yield {"key": key, "value": {"intValue": str(value)}}
        elif isinstance(value, float):
            yield {"key": key, "value": {"doubleValue": value}}
        elif value not in ("", None):
            yield {"key": key, "value": {"stringValue": text_of(value)}}


def _ns(record: Record) -> int:
    try:
        return max(0, int(datetime.fromisoformat(str(record.get("time"))).timestamp() * 1_000_000) * 1_000)
    except (ValueError, OverflowError):
        return 0


class OtlpSink:
    """See the module."""

    answers = True

    def __init__(self, spec: SinkSpec, *, timeout_s: float = TIMEOUT_S) -> None:
        self._spec, self._timeout_s = spec, timeout_s
        self._line: http.client.HTTPConnection | None = None

    def send(self, records: Sequence[Record]) -> int:
        status, why = self._post(request(records, time.time_ns()))
        if 200 <= status < 300:
            return _rejected(why)
        if status not in MALFORMED:
            raise SinkError(f"it answers {status}")
        if len(records) == 1:
            return 1
        half = len(records) // 2
        return self.send(records[:half]) + self.send(records[half:])

    def confirm(self) -> None:
        """Each answer was the word for it."""

    def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _post(self, body: bytes) -> tuple[int, bytes]:
        headers = {
            **dict(self._spec.headers), "Content-Type": "application/json", "Content-Encoding": "gzip",
            "User-Agent": f"narthex/{__version__}",
        }  # fmt: skip
        parts = urlsplit(self._spec.url)
        path = (parts.path or "/v1/logs") + (f"?{parts.query}" if parts.query else "")
        try:
            if self._line is None:
                self._line = self._connection(parts.scheme, parts.hostname or "", parts.port)
            self._line.request("POST", path, gzip.compress(body, 1), headers)
            answer = self._line.getresponse()
            said = answer.read(MOST_ANSWER + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise SinkError(words_of(error)) from None
        if len(said) > MOST_ANSWER:
            self.close()
        return answer.status, said

    def _connection(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=context_of(self._spec))
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)


def _rejected(answer: bytes) -> int:
    """Records that a receiver says it has not taken, and must not get again."""
    try:
        said = msgspec.json.decode(answer) if answer else {}
        return int(said["partialSuccess"]["rejectedLogRecords"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0
