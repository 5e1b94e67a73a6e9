"""Counters and histograms as metrics of OTLP: by the names that Prometheus sees, but for four of the conventions.

In: families of `Accounts`. Out: an `ExportMetricsServiceRequest`. Cases: `tests/telemetry/otlp/test_metrics.py`.
Source: opentelemetry-proto 1.x, `metrics.proto`; "Metrics Data Model" (cumulative sums since the process began).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from narthex.telemetry import conventions as names
from narthex.telemetry.accounts import CALL_SECONDS, UPSTREAM_SECONDS, Exemplar, Family, Labels, Times, Value
from narthex.telemetry.exposition import LONGEST
from narthex.telemetry.otlp.spans import HTTP, SCOPE
from narthex.telemetry.otlp.wire import Pairs, attributes, double, doubles, fixed64, fixed64s, number, piece, text

CUMULATIVE: Final = number(2, 2)
_MONOTONIC: Final = number(3, 1)
_NAMED: Final = {
    CALL_SECONDS: names.SERVER_DURATION,
    UPSTREAM_SECONDS: names.CLIENT_DURATION,
    "narthex_session_seconds": names.SERVER_SESSION,
    "narthex_server_session_seconds": names.CLIENT_SESSION,
}
_LABELS: Final = {
    "method": names.METHOD,
    "endpoint": names.ENDPOINT,
    "server": names.SERVER,
    "version": names.PROTOCOL,
    "error": names.ERROR_TYPE,
}
"""What the conventions call our labels, in the metrics that they name."""
_OURS: Final = frozenset({names.SERVER_DURATION, names.SERVER_SESSION})
"""Metrics of clients with us, all over HTTP; the others that are named are of us with servers."""
Places = Mapping[str, Pairs]
"""Where each server is (`spans.place_of_server`), by its name."""
Point = tuple[Labels, float | tuple[list[float], list[int], float, list[Exemplar]]]


def copied(value: Value) -> float | tuple[list[float], list[int], float, list[Exemplar]]:
    """A value as it is now, for another thread."""
    if isinstance(value, Times):
        return value.bounds(), value.counts(), value.seconds, list(value.exemplars.values())
    return float(value)


def encode_metric(
    name: str, help_: str, type_: str, points: Iterable[Point], since: int, now: int, places: Places
) -> bytes:
    """One metric, as a field of its scope; times are nanoseconds since 1970."""
    named = _NAMED.get(name)
    span = fixed64(2, since) + fixed64(3, now)
    if type_ == "histogram":
        data = b"".join([piece(1, _histogram(labels, value, span, named, places)) for labels, value in points])
        return piece(2, text(1, named or name) + text(2, help_) + text(3, "s") + piece(9, data + CUMULATIVE))
    data = b"".join([piece(1, _said(7, labels) + span + double(4, _plain(value))) for labels, value in points])
    if type_ == "counter":
        return piece(2, text(1, name) + text(2, help_) + piece(7, data + CUMULATIVE + _MONOTONIC))
    return piece(2, text(1, name) + text(2, help_) + piece(5, data))


def _plain(value: object) -> float:
    return value if isinstance(value, float) else 0.0


def _histogram(labels: Labels, value: object, span: bytes, named: str | None, places: Places) -> bytes:
    assert isinstance(value, tuple)
    bounds, counts, total, exemplars = value
    said = _said_as_named(9, labels, named, places) if named else _said(9, labels)
    shown = b"".join([piece(8, _exemplar(one)) for one in exemplars])
    return b"".join((
        said, span, fixed64(4, sum(counts)), double(5, total), fixed64s(6, counts), doubles(7, bounds), shown,
    ))  # fmt: skip


def _exemplar(one: Exemplar) -> bytes:
    ids = piece(4, bytes.fromhex(one.span_id)) + piece(5, bytes.fromhex(one.trace_id))
    return fixed64(2, int(one.at * 1_000_000) * 1000) + double(3, one.seconds) + ids


def _said(field: int, labels: Labels) -> bytes:
    return attributes(field, [(key, value[:LONGEST]) for key, value in labels])


def _said_as_named(field: int, labels: Labels, named: str, places: Places) -> bytes:
    """As the conventions call it, with where it was."""
    pairs = [(_LABELS.get(key, f"narthex.{key}"), value[:LONGEST]) for key, value in labels]
    place = HTTP if named in _OURS else places.get(dict(labels).get("server", ""), ())
    return attributes(field, (*pairs, *place))


def request_of(metrics: Iterable[bytes], resource: bytes) -> bytes:
    """An `ExportMetricsServiceRequest` with these."""
    return piece(1, piece(1, resource) + piece(2, SCOPE + b"".join(metrics)))


def encode_metrics(
    taken: Iterable[tuple[Family, list[Point]]],
    resource: bytes,
    since: int,
    now: int,
    places: Places,
    breathe: Callable[[], None],
) -> bytes:
    """The same of families, with the points that were taken of each."""
    metrics = []
    for family, points in taken:
        metrics.append(encode_metric(family.name, family.help, family.type, points, since, now, places))
        breathe()
    return request_of(metrics, resource)
