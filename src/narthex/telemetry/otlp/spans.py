"""Requests that have ended as spans of OTLP: a SERVER span for the client's, a CLIENT span for each that a server got.

In: `Ended` calls, and where their servers are. Out: `ExportTraceServiceRequest` messages. No argument, result, token,
or text of an error is in them. Cases: `tests/telemetry/otlp/test_spans.py`.
Source: opentelemetry-proto 1.x, `trace.proto`; names from `telemetry.conventions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final

from narthex import __version__
from narthex.telemetry import conventions as names
from narthex.telemetry.accounts import OUTCOME, OUTCOMES
from narthex.telemetry.otlp.wire import attribute, attributes, fixed32, fixed64, number, piece, text
from narthex.telemetry.traces import Asked, Ended
from narthex.types import HttpTarget, ServerSpec

SCOPE: Final = piece(1, text(1, "narthex") + text(2, __version__))
_SPAN: Final = 2
_ATTRIBUTE: Final = 9
_LINK: Final = 13
_SERVER, _CLIENT = number(6, 2), number(6, 3)
_FAILED: Final = piece(15, number(3, 2))
_REMOTE: Final = 0x300  # bits 8 and 9 of a span's flags: it is known whether its parent is remote, and it is
_LOCAL: Final = 0x100
_TOOL_ERROR: Final = OUTCOME["tool_error"]
_CANCELLED: Final = OUTCOME["cancelled"]
_OK: Final = OUTCOME["ok"]
FAULTS: Final = frozenset(
    OUTCOME[name]
    for name in (
        *("upstream_unavailable", "upstream_timeout", "credential_unavailable", "authority_unavailable"),
        *("audit_unavailable", "overloaded", "internal", "other"),
    )
)
"""Outcomes that are no fault of the caller's: its span has failed. What was denied, or named wrong, is an answer."""
_HTTP: Final = ((names.TRANSPORT, "tcp"), (names.NETWORK, "http"), (names.NETWORK_VERSION, "1.1"))
_kept = lru_cache(maxsize=4096)(attribute)
"""Attributes that many spans share, as their bytes."""


def attributes_of_server(spec: ServerSpec) -> bytes:
    """Where a server is, as attributes of a CLIENT span. Never its path or query: they may hold a secret."""
    target = spec.target
    if not isinstance(target, HttpTarget):
        return attributes(_ATTRIBUTE, ((names.TRANSPORT, "pipe"),))
    return attributes(_ATTRIBUTE, (*_HTTP, (names.SERVER_ADDRESS, target.host), (names.SERVER_PORT, target.port)))


def spans_of(ended: Ended, base: float, peers: Mapping[str, bytes]) -> bytes:
    """The spans of a call, as fields of their scope.

    Args:
        base: What the wall clock is ahead of the monotonic one, in seconds.
        peers: `attributes_of_server` of each server.
    """
    trace = ended.trace
    trace_id, span_id = bytes.fromhex(trace.trace_id), bytes.fromhex(trace.span_id)
    tool = ended.name if ended.method == "tools/call" else ""
    prompt = ended.name if ended.method == "prompts/get" else ""
    name = text(5, names.span_name(ended.method[:64], tool or prompt))
    ids, parent = piece(1, trace_id) + piece(2, span_id), b""
    flags = _LOCAL | 1
    if trace.parent is not None:
        parent = piece(4, bytes.fromhex(trace.parent.span_id))
        flags = _REMOTE | trace.parent.flags | 1
        if trace.parent.state:
            ids += text(3, trace.parent.state)
    common = _common(ended, tool, prompt)
    own = attributes(
        _ATTRIBUTE,
        (
            (names.SESSION, ended.session),
            (names.REQUEST, ended.request.decode(errors="replace").strip('"')),
            (names.CLIENT_ADDRESS, ended.source),
            (names.DECISION, ended.decision_id),
            (names.BYTES_IN, ended.bytes_in),
            (names.BYTES_OUT, ended.bytes_out),
        ),
    )
    began, done = _nanoseconds(ended.began_at + base), _nanoseconds(ended.ended_at + base)
    failed = ended.outcome in FAULTS or ended.outcome == _TOOL_ERROR or _is_fault(ended.code)
    link = b""
    if trace.link is not None:
        link = piece(_LINK, piece(1, bytes.fromhex(trace.link.trace_id)) + piece(2, bytes.fromhex(trace.link.span_id)))
    server = b"".join((
        ids, parent, name, _SERVER, fixed64(7, began), fixed64(8, done), common, _incoming(), own, link,
        _FAILED if failed else b"", fixed32(16, flags),
    ))  # fmt: skip
    asked = b"".join([_asked(one, ended, trace_id, span_id, base, peers) for one in trace.asked])
    if not ended.sent_at or trace.context is None:
        return piece(_SPAN, server) + asked
    ids = piece(1, trace_id) + piece(2, bytes.fromhex(trace.context.span_id)) + piece(4, span_id)
    sent, heard = _nanoseconds(ended.sent_at + base), _nanoseconds((ended.heard_at or ended.ended_at) + base)
    failed = failed or ended.code != 0
    client = b"".join((
        ids, name, _CLIENT, fixed64(7, sent), fixed64(8, heard), common, peers.get(ended.server, b""),
        _FAILED if failed else b"", fixed32(16, _LOCAL | 1),
    ))  # fmt: skip
    return piece(_SPAN, server) + asked + piece(_SPAN, client)


def _asked(one: Asked, ended: Ended, trace_id: bytes, span_id: bytes, base: float, peers: Mapping[str, bytes]) -> bytes:
    """The CLIENT span of what a server was asked beside the call."""
    pairs = (
        (names.METHOD, one.method),
        (names.ENDPOINT, ended.endpoint),
        (names.SERVER, one.server),
        (names.TENANT, ended.tenant),
        (names.STATUS_CODE, str(one.code) if one.code else ""),
        (names.ERROR_TYPE, one.reason or (str(one.code) if one.code else "")),
    )
    failed = one.code != 0 or one.reason not in ("", "cancelled")
    return piece(_SPAN, b"".join((
        piece(1, trace_id), piece(2, bytes.fromhex(one.span_id)), piece(4, span_id), text(5, one.method), _CLIENT,
        fixed64(7, _nanoseconds(one.sent_at + base)), fixed64(8, _nanoseconds(one.heard_at + base)),
        b"".join([_kept(_ATTRIBUTE, key, value) for key, value in pairs if value]), peers.get(one.server, b""),
        _FAILED if failed else b"", fixed32(16, _LOCAL | 1),
    )))  # fmt: skip


def _common(ended: Ended, tool: str, prompt: str) -> bytes:
    """What both spans say: values that many calls share."""
    error = ""
    if ended.outcome == _TOOL_ERROR:
        error = names.TOOL_ERROR
    elif ended.code:
        error = str(ended.code)
    elif ended.outcome not in (_OK, _CANCELLED):
        error = ended.reason or OUTCOMES[ended.outcome]
    pairs = (
        (names.METHOD, ended.method[:64]),
        (names.OPERATION, names.EXECUTE_TOOL if tool else ""),
        (names.TOOL, tool),
        (names.PROMPT, prompt),
        (names.PROTOCOL, ended.version),
        (names.ENDPOINT, ended.endpoint),
        (names.SERVER, ended.server),
        (names.TENANT, ended.tenant),
        (names.CLIENT, ended.client),
        (names.OUTCOME, OUTCOMES[ended.outcome]),
        (names.REASON, ended.reason),
        (names.CONFIG, ended.config),
        (names.STATUS_CODE, str(ended.code) if ended.code else ""),
        (names.ERROR_TYPE, error),
    )
    return b"".join([_kept(_ATTRIBUTE, key, value) for key, value in pairs if value])


@lru_cache(maxsize=1)
def _incoming() -> bytes:
    return attributes(_ATTRIBUTE, _HTTP)


def _is_fault(code: int) -> bool:
    return code == names.INTERNAL or code in names.FAULTS


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000) * 1000  # what a float of this size knows


def request_of(spans: Iterable[bytes], resource: bytes) -> bytes:
    """An `ExportTraceServiceRequest` with these. `resource` is the message of what they are of."""
    return piece(1, piece(1, resource) + piece(2, SCOPE + b"".join(spans)))


def encode_traces(
    batch: Iterable[Ended], resource: bytes, base: float, peers: Mapping[str, bytes], breathe: Callable[[], None]
) -> bytes:
    """The same of calls. `breathe` is called between slices of well under a millisecond."""
    spans = []
    for index, ended in enumerate(batch, 1):
        spans.append(spans_of(ended, base, peers))
        if index % 16 == 0:
            breathe()
    return request_of(spans, resource)
