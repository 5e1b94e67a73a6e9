"""Requests that have ended as spans of OTLP: a SERVER span for the client's, a CLIENT span for each that a server got.

In: `Ended` calls, and where their servers are. Out: `ExportTraceServiceRequest` messages. No argument, result, token,
or text of an error is in them. Cases: `tests/telemetry/otlp/test_spans.py`.
Source: opentelemetry-proto 1.x, `trace.proto`; names from `telemetry.conventions`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final

from narthex import __version__
from narthex.telemetry import conventions as names
from narthex.telemetry.accounts import OUTCOME, OUTCOMES
from narthex.telemetry.otlp.wire import Pairs, attribute, attributes, fixed32, number, piece, text
from narthex.telemetry.traces import Asked, Ended, Trace
from narthex.types import HttpTarget, ServerSpec

SCOPE: Final = piece(1, text(1, "narthex") + text(2, __version__))
_SPAN: Final = 2
_ATTRIBUTE: Final = 9
_LINK: Final = 13
_SERVER, _CLIENT = number(6, 2), number(6, 3)
_FAILED: Final = piece(15, number(3, 2))
_IDS: Final = b"\x0a\x10%b\x12\x08%b"  # fields 1 and 2, of 16 and 8 bytes
_PARENT: Final = b"\x22\x08%b"  # field 4
_two_times: Final = struct.Struct("<BQBQ").pack  # fields 7 and 8, each after its key
_REMOTE: Final = 0x300  # bits 8 and 9 of a span's flags: it is known whether its parent is remote, and it is
_OURS: Final = fixed32(16, 0x101)
"""Flags of a span whose parent is of this process, or which has none; sampled."""
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
HTTP: Final[Pairs] = ((names.TRANSPORT, "tcp"), (names.NETWORK, "http"), (names.NETWORK_VERSION, "1.1"))
_kept = lru_cache(maxsize=4096)(attribute)
"""Attributes that many spans share, as their bytes."""


def place_of_server(spec: ServerSpec) -> Pairs:
    """Where a server is, as attributes. Never its path or query: they may hold a secret."""
    target = spec.target
    if not isinstance(target, HttpTarget):
        return ((names.TRANSPORT, "pipe"),)
    return (*HTTP, (names.SERVER_ADDRESS, target.host), (names.SERVER_PORT, target.port))


def attributes_of_server(spec: ServerSpec) -> bytes:
    """The same of a CLIENT span."""
    return attributes(_ATTRIBUTE, place_of_server(spec))


def spans_of(ended: Ended, base: float, peers: Mapping[str, bytes]) -> bytes:
    """The spans of a request, as fields of their scope.

    Args:
        base: What the wall clock is ahead of the monotonic one, in seconds.
        peers: `attributes_of_server` of each server.
    """
    trace, code, outcome = ended.trace, ended.code, ended.outcome
    trace_id, span_id = bytes.fromhex(trace.trace_id), bytes.fromhex(trace.span_id)
    common = _common(
        ended.method[:64], ended.name, ended.version, ended.endpoint, ended.server, ended.tenant, ended.client, outcome,
        ended.reason, code, ended.config,
    )  # fmt: skip
    failed = _FAILED if outcome in FAULTS or outcome == _TOOL_ERROR or _is_fault(code) else b""
    server = b"".join((
        _IDS % (trace_id, span_id), _origin(trace) if trace.parent is not None else _OURS, _SERVER,
        _times(ended.began_at, ended.ended_at, base), common, _incoming(), _own(ended), failed,
    ))  # fmt: skip
    asked = b"".join([_asked(one, ended, trace_id, span_id, base, peers) for one in trace.asked])
    if not ended.sent_at or trace.context is None:
        return piece(_SPAN, server) + asked
    client = b"".join((
        _IDS % (trace_id, bytes.fromhex(trace.context.span_id)), _PARENT % span_id, _CLIENT,
        _times(ended.sent_at, ended.heard_at or ended.ended_at, base), common, peers.get(ended.server, b""),
        failed or (_FAILED if code else b""), _OURS,
    ))  # fmt: skip
    return piece(_SPAN, server) + asked + piece(_SPAN, client)


def _origin(trace: Trace) -> bytes:
    """Of a trace that the client has begun: the span in it that sent the request, what vendors say, and a link."""
    parent, link = trace.parent, trace.link
    assert parent is not None
    found = _PARENT % bytes.fromhex(parent.span_id) + fixed32(16, _REMOTE | parent.flags | 1)
    if parent.state:
        found += text(3, parent.state)
    if link is not None:
        found += piece(_LINK, _IDS % (bytes.fromhex(link.trace_id), bytes.fromhex(link.span_id)))
    return found


def _own(ended: Ended) -> bytes:
    """Attributes of the SERVER span that hardly two requests share."""
    pairs = (
        (names.REQUEST, ended.request.decode(errors="replace").strip('"')),
        (names.DECISION, ended.decision_id),
        (names.BYTES_IN, ended.bytes_in),
        (names.BYTES_OUT, ended.bytes_out),
    )
    found = attributes(_ATTRIBUTE, pairs) + _kept(_ATTRIBUTE, names.CLIENT_ADDRESS, ended.source)
    return found + _kept(_ATTRIBUTE, names.SESSION, ended.session) if ended.session else found


def _asked(one: Asked, ended: Ended, trace_id: bytes, span_id: bytes, base: float, peers: Mapping[str, bytes]) -> bytes:
    """The CLIENT span of what a server was asked beside the call."""
    code = str(one.code) if one.code else ""
    pairs = (
        (names.METHOD, one.method),
        (names.ENDPOINT, ended.endpoint),
        (names.SERVER, one.server),
        (names.TENANT, ended.tenant),
        (names.STATUS_CODE, code),
        (names.ERROR_TYPE, one.reason or code),
    )
    failed = one.code != 0 or one.reason not in ("", "cancelled")
    return piece(_SPAN, b"".join((
        _IDS % (trace_id, bytes.fromhex(one.span_id)), _PARENT % span_id, text(5, one.method), _CLIENT,
        _times(one.sent_at, one.heard_at, base), attributes(_ATTRIBUTE, pairs), peers.get(one.server, b""),
        _FAILED if failed else b"", _OURS,
    )))  # fmt: skip


@lru_cache(maxsize=1024)
def _common(
    method: str, name: str, version: str, endpoint: str, server: str, tenant: str, client: str, outcome: int,
    reason: str, code: int, config: str,
) -> bytes:  # fmt: skip
    """The name of both spans and what both say: values that many calls share."""
    tool = name if method == "tools/call" else ""
    prompt = name if method == "prompts/get" else ""
    status, error = str(code) if code else "", ""
    if outcome == _TOOL_ERROR:
        error = names.TOOL_ERROR
    elif code:
        error = status
    elif outcome not in (_OK, _CANCELLED):
        error = reason or OUTCOMES[outcome]
    pairs = (
        (names.METHOD, method),
        (names.OPERATION, names.EXECUTE_TOOL if tool else ""),
        (names.TOOL, tool),
        (names.PROMPT, prompt),
        (names.PROTOCOL, version),
        (names.ENDPOINT, endpoint),
        (names.SERVER, server),
        (names.TENANT, tenant),
        (names.CLIENT, client),
        (names.OUTCOME, OUTCOMES[outcome]),
        (names.REASON, reason),
        (names.CONFIG, config),
        (names.STATUS_CODE, status),
        (names.ERROR_TYPE, error),
    )
    return text(5, names.span_name(method, tool or prompt)) + attributes(_ATTRIBUTE, pairs)


@lru_cache(maxsize=1)
def _incoming() -> bytes:
    return attributes(_ATTRIBUTE, HTTP)


def _is_fault(code: int) -> bool:
    return code == names.INTERNAL or code in names.FAULTS


def _times(began: float, ended: float, base: float) -> bytes:
    """Both as nanoseconds, of what a float of this size knows: microseconds."""
    return _two_times(0x39, int((began + base) * 1_000_000) * 1000, 0x41, int((ended + base) * 1_000_000) * 1000)


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
