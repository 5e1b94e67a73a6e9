"""OTLP: what is sent is what OpenTelemetry's own messages read, and what is refused is sent again, or counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import Parse
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber

from narthex.telemetry.audit.exports.otlp import OtlpSink, request
from narthex.telemetry.audit.exports.sink import SinkError, SinkSpec
from tests.telemetry.audit.exports.receivers import OtlpServer, closing, make_certificate
from tests.telemetry.audit.test_formats import RECORD, VALUES

NOW = 1_800_000_000_000_000_000


def decoded(body: bytes) -> list[LogRecord]:
    """By the protocol's own messages; unknown members are refused. OTLP has trace ids in hexadecimal digits, the
    general mapping has base64, which these digits are too."""
    found = Parse(body, ExportLogsServiceRequest())
    (logs,) = found.resource_logs
    assert {one.key: one.value.string_value for one in logs.resource.attributes}["service.name"] == "narthex"
    (scope,) = logs.scope_logs
    return list(scope.log_records)


def sink(port: int, **more: Any) -> OtlpSink:
    return OtlpSink(SinkSpec("otel", f"http://127.0.0.1:{port}/v1/logs", **more), timeout_s=10)


def test_a_record() -> None:
    (one,) = decoded(request([{**RECORD, "trace": "0af7651916cd43dd8448eb211c80319c"}], NOW))
    assert (one.time_unix_nano, one.observed_time_unix_nano) == (1_700_000_000_250_000_000, NOW)
    assert (one.severity_number, one.event_name) == (SeverityNumber.SEVERITY_NUMBER_INFO, "narthex.audit.call")
    assert json.loads(one.body.string_value)["hash"] == RECORD["hash"]
    found = {pair.key: pair.value for pair in one.attributes}
    assert found["narthex.subject"].string_value == "u-17" and found["narthex.seq"].int_value == 7
    assert found["narthex.seconds"].double_value == pytest.approx(0.012346)
    assert "narthex.reason" not in found, "what has no value is left out"
    assert json.loads(request([{**RECORD, "trace": "0af7651916cd43dd8448eb211c80319c"}], NOW))["resourceLogs"][0][
        "scopeLogs"][0]["logRecords"][0]["traceId"] == "0af7651916cd43dd8448eb211c80319c"  # fmt: skip
    spanned = json.loads(request([{**RECORD, "span": "b7ad6b7169203331", "trace": "no trace"}], NOW))
    log = spanned["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    assert log["spanId"] == "b7ad6b7169203331" and "traceId" not in log
    (denied,) = decoded(request([{**RECORD, "decision": "deny"}], NOW))
    assert denied.severity_number == SeverityNumber.SEVERITY_NUMBER_WARN


@given(more=st.dictionaries(st.sampled_from([*RECORD, "policy", "trace", "event"]), VALUES))
def test_whatever_stands_in_a_record_it_can_be_read(more: dict[str, Any]) -> None:
    first, second = decoded(request([{**RECORD, **more}, RECORD], NOW))
    assert second.time_unix_nano == 1_700_000_000_250_000_000 and first.body.string_value


def records(count: int) -> list[dict[str, Any]]:
    return [{**RECORD, "id": f"r{number}"} for number in range(count)]


def ids(server: OtlpServer) -> list[str]:
    return [json.loads(one.body.string_value)["id"] for body in server.bodies for one in decoded(body)]


def test_records_are_sent_with_headers() -> None:
    server = OtlpServer()
    with closing(server):
        one = sink(server.port, headers=(("Authorization", "Bearer x"),))
        assert (one.send(records(3)), one.send(records(2))) == (0, 0)
        one.close()
        assert ids(server) == ["r0", "r1", "r2", "r0", "r1"]
        assert (
            server.headers[0]["Authorization"] == "Bearer x" and server.headers[0]["Content-Type"] == "application/json"
        )


def test_over_tls(tmp_path: Any) -> None:
    cert = make_certificate(tmp_path, "otel")
    server = OtlpServer(cert=cert)
    with closing(server):
        spec = SinkSpec("otel", f"https://127.0.0.1:{server.port}/v1/logs", ca=cert[0])
        assert OtlpSink(spec).send(records(1)) == 0 and ids(server) == ["r0"]
        with pytest.raises(SinkError, match="not trusted"):
            OtlpSink(SinkSpec("otel", spec.url)).send(records(1))


@pytest.mark.parametrize("status", [0, 301, 401, 403, 404, 429, 500, 502, 503])
def test_what_may_go_later_waits(status: int) -> None:
    server = OtlpServer(lambda body: (status, b""))
    with closing(server), pytest.raises(SinkError) as caught:
        sink(server.port).send(records(2))
    assert not status or str(status) in str(caught.value)


@pytest.mark.parametrize("status", [400, 413])
def test_the_one_that_is_refused_is_left_out(status: int) -> None:
    server = OtlpServer(lambda body: (status, b"no") if b'\\"r5\\"' in body else (200, b""))
    with closing(server):
        assert sink(server.port).send(records(11)) == 1
        assert ids(server) == [f"r{number}" for number in range(11) if number != 5]


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        (b'{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"x"}}', 2),
        (b'{"partialSuccess":{"rejectedLogRecords":1}}', 1),
        (b'{"partialSuccess":{}}', 0), (b"[]", 0), (b"\xff", 0), (b"[" * 9000, 0),
    ],
)  # fmt: skip
def test_what_a_receiver_says_it_has_not_taken_is_counted(said: bytes, refused: int) -> None:
    server = OtlpServer(lambda body: (200, said))
    with closing(server):
        assert sink(server.port).send(records(3)) == refused


def test_an_endless_answer_costs_nothing() -> None:
    server = OtlpServer(lambda body: (200, b" " * 1_000_000))
    with closing(server):
        one = sink(server.port)
        assert [one.send(records(1)) for _ in range(3)] == [0, 0, 0]
