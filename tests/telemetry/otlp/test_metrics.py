"""Counters and histograms as OTLP's own messages read them."""

from __future__ import annotations

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, HistogramDataPoint, Metric

from narthex.telemetry.accounts import OUTCOME, Accounts, Exemplar
from narthex.telemetry.otlp.metrics import Point, copied, encode_metrics
from narthex.telemetry.otlp.spans import place_of_server
from narthex.telemetry.session_times import SessionTimes
from narthex.types import HttpTarget, ServerSpec, StdioTarget

URL = "https://time.example.com:8443/secret-path?key=1"
TIME = ServerSpec("time", HttpTarget(URL, "https", "time.example.com", 8443, "/secret-path?key=1"), "auto")
PLACES = {"time": place_of_server(TIME)}
HTTP = {"network.transport": "tcp", "network.protocol.name": "http", "network.protocol.version": "1.1"}


def read(accounts: Accounts) -> dict[str, Metric]:
    taken = []
    for family in accounts.families():
        points: list[Point] = [(labels, copied(value)) for some in family.slices for labels, value in some]
        taken.append((family, points))
    body = encode_metrics(taken, b"", 1, 2, PLACES, lambda: None)
    (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    return {one.name: one for one in resource.scope_metrics[0].metrics}


def filled() -> Accounts:
    accounts = Accounts()
    counter = accounts.counter("default", "time", "tools/call", "now", "modern")
    counter.add(OUTCOME["ok"], 0.03, 10, 20, 0.02)
    counter.add(OUTCOME["tool_error"], 300.0, 10, 20, 299.0)
    counter.shared.call.mark(Exemplar(0.03, "a" * 32, "b" * 16, 1.5))
    accounts.register("narthex_open", "Open.", lambda: [((("server", "time"),), 2.5)])
    return accounts


def test_counters_are_cumulative_sums() -> None:
    calls = read(filled())["narthex_calls_total"]
    assert calls.sum.is_monotonic
    assert calls.sum.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert sorted(one.as_double for one in calls.sum.data_points) == [1.0, 1.0]
    labels = {one.key: one.value.string_value for one in calls.sum.data_points[0].attributes}
    assert labels == {"endpoint": "default", "server": "time", "method": "tools/call", "era": "modern", "outcome": "ok"}
    assert (calls.sum.data_points[0].start_time_unix_nano, calls.sum.data_points[0].time_unix_nano) == (1, 2)


def test_gauges_are_gauges() -> None:
    assert read(filled())["narthex_open"].gauge.data_points[0].as_double == 2.5


def test_durations_have_the_names_of_the_conventions() -> None:
    found = read(filled())
    server, client = found["mcp.server.operation.duration"], found["mcp.client.operation.duration"]
    assert server.unit == client.unit == "s"
    (point,) = server.histogram.data_points
    assert (point.count, sum(point.bucket_counts), point.sum) == (2, 2, 300.03)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert point.bucket_counts[list(point.explicit_bounds).index(0.03125)] == 1
    assert point.bucket_counts[-1] == 1
    assert {one.key for one in point.attributes} == {
        "narthex.endpoint", "narthex.server", "mcp.method.name", "narthex.era", *HTTP,
    }  # fmt: skip
    assert (point.exemplars[0].trace_id.hex(), point.exemplars[0].as_double) == ("a" * 32, 0.03)


def said(point: HistogramDataPoint) -> dict[str, str | int]:
    return {one.key: one.value.string_value or one.value.int_value for one in point.attributes}


def test_sessions_say_over_what_they_went_and_with_whom() -> None:
    accounts = Accounts()
    clients, servers = SessionTimes("version", "ended"), SessionTimes("server", "version", "error")
    accounts.register("narthex_session_seconds", "…", clients.read, "histogram")
    accounts.register("narthex_server_session_seconds", "…", servers.read, "histogram")
    clients.add(5.0, "2025-11-25", "client")
    for server in ("time", "gone"):
        servers.add(5.0, server, "2025-11-25", "")
    found = read(accounts)
    (client,) = found["mcp.server.session.duration"].histogram.data_points
    assert said(client) == {"mcp.protocol.version": "2025-11-25", "narthex.ended": "client", **HTTP}
    with_time, with_gone = map(said, found["mcp.client.session.duration"].histogram.data_points)
    plain = {"mcp.protocol.version": "2025-11-25"}
    place = {"server.address": "time.example.com", "server.port": 8443}
    assert with_time == {"narthex.server": "time", **plain, **HTTP, **place}
    assert with_gone == {"narthex.server": "gone", **plain}, "a reload has taken it away"


def test_a_process_is_at_the_other_end_of_a_pipe() -> None:
    assert place_of_server(ServerSpec("git", StdioTarget("git-server"), "stdio")) == (("network.transport", "pipe"),)
