"""Records in the forms that others read: JSON lines, CSV, CEF, and OCSF (API Activity).

In: a record, as it stands in a line. Out: a line of text. What a record lacks is left out or empty; nothing is made up.
Cases: `tests/telemetry/audit/test_formats.py`; fuzz target `export`. Source: RFC 4180; CEF 0, revision 25; OCSF 1.9,
class 6003, with the profiles `record_integrity`, `security_control` and `trace`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

import msgspec

from narthex.telemetry.audit.matching import Record, doer_of, what_of

_encode = msgspec.json.Encoder().encode
COLUMNS = (
    "time", "id", "event", "decision", "outcome", "reason", "tenant", "subject", "issuer", "client", "proof", "source",
    "endpoint", "server", "method", "name", "resource", "rule", "credential", "code", "bytes_in", "bytes_out",
    "seconds", "cost", "arguments_digest", "decision_id", "config", "seq", "hash",
    "run", "trace",
    "session", "request", "version", "gateway", "roles", "actors", "result_digest", "definition_digest",
    "upstream_status", "upstream_protocol", "upstream_session", "upstream_version", "server_seconds", "latency",
    "taken", "tokens_in", "tokens_out", "tokens_counted", "cache", "limit", "approval", "model", "prompt", "call",
    "action", "step", "by", "ids", "concerned", "hold", "before", "revision", "changes", "count", "share",
)  # fmt: skip
"""Columns are added behind the others."""
_SAID = frozenset({
    "v", "id", "time", "tenant", "seq", "hash", "gateway", "request", "server", "source", "outcome", "reason", "code",
    "seconds", "config", "session", "version", "trace", "payload", "input",
})  # fmt: skip
"""Members of a record that an event of OCSF has in places of its own, and what calls have said. All others are
`unmapped` there."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What a cell must not begin with, for some spreadsheet, also behind spaces. The last four are the wide forms of the
first."""
_BEHIND = re.compile('([;\t\r\n][\\s"]*)([=+@\uff1d\uff0b\uff0d\uff20-])')
"""The same within a cell, where a spreadsheet that takes another separator than the comma would begin a new one: of the
quotation marks around ours it knows nothing then, as they do not stand where its own cells begin."""

_PLAIN = re.compile('[0-9A-Za-z][^,;"\t\r\n]*')
"""A cell that is as it stands: most are."""


def jsonl(record: Record) -> str:
    """The record itself."""
    return _encode(record).decode()


def csv(record: Record) -> str:
    """A row of `COLUMNS`. Before what a spreadsheet would take for a formula stands an apostrophe."""
    get = flat(record).get
    return ",".join(["" if (value := get(name)) is None else _cell(value) for name in COLUMNS])


def flat(record: Record) -> Record:
    """The members that `COLUMNS` name, and others, on one level."""
    nested = {f"{name}_{key}": value for name in ("upstream", "tokens") for key, value in _map(record, name).items()}
    return {**nested, **_map(record, "policy"), **_map(record, "principal"), **record, "resource": what_of(record)}


def _cell(value: object) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    text = text_of(value)
    if not isinstance(value, int | float):
        text = _BEHIND.sub(r"\1'\2", text)
        if text[:1] in _FORMULA or text.strip()[:1] in _FORMULA:
            text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def text_of(value: object) -> str:
    """A member of `flat` as text: lists and maps as JSON, nothing as nothing."""
    return "" if value is None else _encode(value).decode() if isinstance(value, dict | list) else str(value)


def cef(record: Record) -> str:
    """ArcSight Common Event Format. Severity 6 is what was refused, 3 the rest."""
    who = _map(record, "principal")
    refused = record.get("decision") == "deny"
    head = (
        "CEF:0", "Narthex", "Narthex", _text(record, "gateway"), _text(record, "method") or _text(record, "event"),
        what_of(record) or _text(record, "event"), "6" if refused else "3",
    )  # fmt: skip
    extension = {
        "rt": _ms(record),
        "externalId": _text(record, "id"),
        "act": _text(record, "decision") or _done(record),
        "outcome": _text(record, "outcome"),
        "reason": _text(record, "reason"),
        "suser": _text(who, "subject") or doer_of(record),
        "suid": _text(who, "issuer"),
        "src": _text(record, "source"),
        "dhost": _text(record, "server"),
        "in": record.get("bytes_in"),
        "out": record.get("bytes_out"),
        "msg": _told(record),
        **({"flexString1Label": "by", "flexString1": by} if (by := doer_of(record)) else {}),
        **_labelled(1, "agent", _text(who, "client")),
        **_labelled(2, "endpoint", _text(record, "endpoint")),
        **_labelled(3, "rule", _text(_map(record, "policy"), "rule")),
        **_labelled(4, "hash", _text(record, "hash")),
        **_labelled(5, "definition", _text(record, "definition_digest")),
        **_labelled(6, "run", _text(record, "run")),
        **_counted(1, "upstreamStatus", _map(record, "upstream").get("status")),
        **_counted(2, "tokensIn", _map(record, "tokens").get("in")),
        **_counted(3, "tokensOut", _map(record, "tokens").get("out")),
    }
    pairs = (f"{key}={_escaped(value)}" for key, value in extension.items() if value not in ("", None))
    return "|".join(_piped(part) for part in head) + "|" + " ".join(pairs)


def _done(record: Record) -> str:
    """What was done, where nothing is decided: the action of a command, the step of an approval, a hold or a reload."""
    return _text(record, "action") or _text(record, "step")


def _told(record: Record) -> str:
    """What it concerned: the names of what a reload has changed, the ids of keys, whose payloads were erased."""
    return "; ".join(text_of(record[name]) for name in ("changes", "ids", "concerned", "count") if record.get(name))


def _labelled(number: int, label: str, value: str) -> dict[str, str]:
    return {f"cs{number}Label": label, f"cs{number}": value} if value else {}


def _counted(number: int, label: str, value: object) -> dict[str, object]:
    return {f"cn{number}Label": label, f"cn{number}": value} if isinstance(value, int) else {}


def _piped(text: str) -> str:
    return _one_line(text).replace("\\", "\\\\").replace("|", "\\|")


def _escaped(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace("=", "\\=")
    return _one_line(text.replace("\r", "\\r").replace("\n", "\\n"))


def _one_line(text: str) -> str:
    """Without what ends a line, moves a cursor or hides text: a space in the place of each."""
    return _CONTROL.sub(" ", text)


def ocsf(record: Record) -> str:
    """An API Activity; the activity is `Other`, because a tool's name does not say what it does."""
    who, said, upstream = _map(record, "principal"), _map(record, "policy"), _map(record, "upstream")
    trace, status, what = _text(record, "trace"), upstream.get("status"), what_of(record)
    subject = _text(who, "subject") or doer_of(record)
    denied = record.get("decision") == "deny"
    succeeded = record.get("outcome") == "ok"
    event: Record = {
        "class_uid": 6003, "category_uid": 6, "activity_id": 99, "type_uid": 600399,
        "activity_name": _text(record, "method") or _done(record) or _text(record, "event"),
        "severity_id": 3 if denied else 1, "time": _ms(record),
        "status_id": 1 if succeeded else 2 if "outcome" in record else 0,
        "status_code": _text(record, "outcome"), "status_detail": _text(record, "reason"),
        "duration": _whole_ms(record.get("seconds")),
        "metadata": {
            "version": "1.9.0", "uid": _text(record, "id"), "sequence": record.get("seq"),
            "tenant_uid": _text(record, "tenant"), "correlation_uid": _text(record, "run") or _text(record, "trace"),
            "profiles": ["record_integrity", "security_control", *(["trace"] if trace else [])],
            "product": {"name": "Narthex", "vendor_name": "Narthex", "version": _text(record, "gateway")},
        },
        "action_id": {"allow": 1, "deny": 2}.get(_text(record, "decision"), 0),
        "actor": {
            "user": {"uid": subject, "name": subject, "domain": _text(who, "issuer")},
            "app_name": _text(who, "client") or ("" if _text(who, "subject") else "Narthex"),
            "session": {"uid": _text(record, "session")},
        },
        "api": {
            "operation": what or _text(record, "method") or _text(record, "event") or "unknown",
            "version": _text(record, "version"),
            "service": {
                "name": _text(record, "server"),
                "version": _text(upstream, "version") if _text(record, "server") else "",
            },
            "request": {"uid": _text(record, "request")}, "response": {"code": record.get("code")},
        },
        "src_endpoint": {"ip": source} if (source := _text(record, "source")) else {"svc_name": "narthex"},
        "policy": {"name": _text(said, "rule"), "uid": _text(record, "config"), "is_applied": True} if said else None,
        "http_response": {
            "code": status, "latency": _whole_ms(record.get("server_seconds")),
        } if isinstance(status, int) and not isinstance(status, bool) else None,
        "trace": {"uid": trace} if trace else None,
        "attestation": {
            "uid": _text(record, "id"),
            "fingerprint": {"algorithm_id": 3, "algorithm": "SHA-256", "value": _text(record, "hash")},
        },
    }  # fmt: skip
    unmapped = {name: value for name, value in record.items() if name not in _SAID}
    return _encode({**_filled(event), "unmapped": unmapped}).decode()


def _filled(value: Record) -> Record:
    """Without what is empty; numbers count as filled."""
    found = {key: _filled(one) if isinstance(one, dict) else one for key, one in value.items()}
    return {key: one for key, one in found.items() if one not in ("", None, {})}


def _map(record: Record, name: str) -> Record:
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def _text(record: Record, name: str) -> str:
    found = record.get(name)
    return "" if found is None else str(found)


def _ms(record: Record) -> int | None:
    try:
        return int(datetime.fromisoformat(_text(record, "time")).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _whole_ms(seconds: object) -> int | None:
    return int(seconds * 1000) if isinstance(seconds, int | float) and abs(seconds) < 1e12 else None


FORMATS: dict[str, Callable[[Record], str]] = {"jsonl": jsonl, "csv": csv, "cef": cef, "ocsf": ocsf}
